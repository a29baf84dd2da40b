//! Enforces the deadlines of requests to upstreams with the core's periodic sweep. A request whose response arrives in
//! time starts no timer and reads no clock.

use crate::forward::body::inflow::Inflow;
use crate::forward::open_streams::StreamEnd;
use crate::peer::activity::SWEEP;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A timeout below this value uses an exact timer. The sweep runs only a few times a second, which is too coarse.
const COARSE: Duration = Duration::from_secs(2);

/// Maximum lag of the core's coarse clock, in milliseconds. It is the time between two sweeps.
const LATE: u64 = SWEEP.as_millis() as u64;

/// The time after which a body that its client still sends is registered with the sweep. Ordinary bodies have arrived by
/// then.
const UPLOAD_LOOK: Duration = SWEEP;

/// The deadlines of one core.
#[derive(Debug, Default)]
pub(in crate::forward) struct Deadlines {
    /// The core's coarse clock, in milliseconds.
    now: Cell<u64>,
    waiting: RefCell<Vec<Slot>>,
    free: RefCell<Vec<usize>>,
}

#[derive(Debug)]
struct Slot {
    due: u64,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::forward) struct Elapsed;

/// The reason why a request waits no longer for its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::forward) enum Stopped {
    Elapsed,
    /// The client may send no more of the body.
    Ended(StreamEnd),
}

impl Deadlines {
    /// Returns the core's coarse clock.
    pub(in crate::forward) fn now(&self) -> u64 {
        self.now.get()
    }

    /// Waits for a server's response. The wait lasts up to `timeout` after the server has received the whole request,
    /// plus up to two sweep intervals. `inflow` is the body of a request that has one. The wait ends, too, if the client
    /// still sends it and may send no more.
    pub(in crate::forward) async fn answer_within<F: Future>(
        &self,
        timeout: Duration,
        inflow: Option<&Inflow<'_>>,
        future: F,
    ) -> Result<F::Output, Stopped> {
        let mut future = pin!(future);
        let mut watched = pin!(poll_fn(|cx| match inflow.and_then(|inflow| inflow.poll_end(cx)) {
            Some(end) => Poll::Ready(Err(Stopped::Ended(end))),
            None => future.as_mut().poll(cx).map(Ok),
        }));
        let mut left = timeout;
        loop {
            if let Ok(output) = self.wait(left, inflow, watched.as_mut()).await {
                return output;
            }
            left = inflow.and_then(|inflow| inflow.waiting().left(timeout)).ok_or(Stopped::Elapsed)?;
            inflow.inspect(|inflow| inflow.register());
        }
    }

    /// Waits for a future for up to `timeout`, plus up to two sweep intervals.
    pub(in crate::forward) async fn within<F: Future>(
        &self,
        timeout: Duration,
        future: F,
    ) -> Result<F::Output, Elapsed> {
        self.wait(timeout, None, pin!(future)).await
    }

    async fn wait<F: Future>(
        &self,
        timeout: Duration,
        inflow: Option<&Inflow<'_>>,
        mut future: Pin<&mut F>,
    ) -> Result<F::Output, Elapsed> {
        if timeout < COARSE {
            return Box::pin(tokio::time::timeout(timeout, future)).await.map_err(|_| Elapsed);
        }
        let mut deadline = Deadline { all: self, slot: None };
        let mut looks = false;
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            if deadline.slot.is_none() {
                looks = inflow.is_some_and(Inflow::is_unregistered);
            }
            if !deadline.has_passed(if looks { UPLOAD_LOOK } else { timeout }, cx) {
                return Poll::Pending;
            }
            if !looks {
                return Poll::Ready(Err(Elapsed));
            }
            looks = false;
            deadline.extend(timeout - UPLOAD_LOOK, cx);
            inflow.inspect(|inflow| inflow.register());
            // The future is polled again, so that the end of the token wakes this task.
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await
    }

    /// Advances the coarse clock, and wakes the tasks whose deadline has passed.
    pub(in crate::forward) fn advance(&self, now: u64) {
        self.now.set(now);
        for slot in self.waiting.borrow_mut().iter_mut().filter(|slot| slot.due <= now) {
            if let Some(waker) = slot.waker.take() {
                waker.wake();
            }
        }
    }
}

/// One wait. Dropping it frees its slot.
struct Deadline<'d> {
    all: &'d Deadlines,
    slot: Option<usize>,
}

impl Deadline<'_> {
    fn has_passed(&mut self, timeout: Duration, cx: &Context<'_>) -> bool {
        let mut waiting = self.all.waiting.borrow_mut();
        let Some(place) = self.slot else {
            // The clock shows the time of the last sweep, which may be one interval old. The extra interval keeps the
            // deadline from passing too early.
            let due = self.all.now.get().saturating_add(millis(timeout)).saturating_add(LATE);
            let slot = Slot { due, waker: Some(cx.waker().clone()) };
            self.slot = Some(match self.all.free.borrow_mut().pop() {
                Some(place) => {
                    waiting[place] = slot;
                    place
                }
                None => {
                    waiting.push(slot);
                    waiting.len() - 1
                }
            });
            return false;
        };
        let slot = &mut waiting[place];
        if slot.due <= self.all.now.get() {
            return true;
        }
        if !slot.waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            slot.waker = Some(cx.waker().clone());
        }
        false
    }
}

impl Deadline<'_> {
    /// Moves a deadline that has passed.
    fn extend(&mut self, more: Duration, cx: &Context<'_>) {
        if let Some(place) = self.slot {
            let slot = &mut self.all.waiting.borrow_mut()[place];
            slot.due = slot.due.saturating_add(millis(more));
            slot.waker = Some(cx.waker().clone());
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Drop for Deadline<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.slot {
            self.all.waiting.borrow_mut()[place] = Slot { due: u64::MAX, waker: None };
            self.all.free.borrow_mut().push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authenticate::Principal;
    use crate::denial::Denial;
    use crate::forward::body::meter::{BodyBounds, Meter, WaitingFor};
    use crate::forward::open_streams::OpenStreams;
    use std::future::{pending, ready};
    use std::rc::Rc;
    use tokio::time::Instant;

    const LONG: Duration = Duration::from_secs(30);

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_future_that_is_ready_takes_no_slot() {
        let deadlines = Deadlines::default();
        assert_eq!(poll(pin!(deadlines.within(LONG, ready(1)))), Poll::Ready(Ok(1)));
        assert!(deadlines.waiting.borrow().is_empty());
    }

    /// The coarse clock may lag by one sweep when a wait begins.
    #[test]
    fn a_wait_ends_a_sweep_after_its_deadline_and_not_before() {
        let deadlines = Deadlines::default();
        deadlines.advance(1_000);
        let mut wait = pin!(deadlines.within(LONG, pending::<()>()));
        assert!(poll(wait.as_mut()).is_pending());
        deadlines.advance(31_249);
        assert!(poll(wait.as_mut()).is_pending());
        deadlines.advance(31_250);
        assert_eq!(poll(wait.as_mut()), Poll::Ready(Err(Elapsed)));
    }

    #[test]
    fn the_server_has_its_time_from_when_it_had_the_request() {
        let (deadlines, streams, meter) = (Deadlines::default(), OpenStreams::default(), meter());
        meter.wait_for(WaitingFor::Client);
        let inflow = Inflow::new(&streams, &meter, None, None);
        let mut wait = pin!(deadlines.answer_within(LONG, Some(&inflow), pending::<()>()));
        assert!(poll(wait.as_mut()).is_pending());
        for passed in 1..10 {
            deadlines.advance(passed * 31_000);
            assert!(poll(wait.as_mut()).is_pending(), "the client is waited for");
        }
        let long_ago = Instant::now().checked_sub(LONG).expect("the machine has run for a while");
        meter.wait_for(WaitingFor::Server(long_ago + Duration::from_secs(10)));
        deadlines.advance(400_000);
        assert!(poll(wait.as_mut()).is_pending(), "ten seconds are left");
        meter.wait_for(WaitingFor::Server(long_ago));
        deadlines.advance(410_250);
        assert_eq!(poll(wait.as_mut()), Poll::Ready(Err(Stopped::Elapsed)));
    }

    /// Ends all streams that are registered.
    fn expire(streams: &OpenStreams) {
        streams.sweep(0, |_, _| Err(Denial::ExpiredToken), |_, _| {});
    }

    #[test]
    fn only_a_body_that_arrives_for_longer_than_a_sweep_ends_with_its_token() {
        let (deadlines, streams, meter) = (Deadlines::default(), OpenStreams::default(), meter());
        let caller = Rc::new(Principal::for_tests());
        let inflow = Inflow::new(&streams, &meter, Some(&caller), None);
        let mut wait = pin!(deadlines.answer_within(LONG, Some(&inflow), pending::<()>()));
        assert!(poll(wait.as_mut()).is_pending());
        deadlines.advance(499);
        assert!(poll(wait.as_mut()).is_pending());
        expire(&streams);
        assert!(poll(wait.as_mut()).is_pending(), "it is not registered yet");
        deadlines.advance(500);
        assert!(poll(wait.as_mut()).is_pending());
        assert!(poll(wait.as_mut()).is_pending());
        expire(&streams);
        let end = Stopped::Ended(StreamEnd::TokenExpired);
        assert_eq!(poll(wait.as_mut()), Poll::Ready(Err(end)));
    }

    #[test]
    fn a_body_that_has_arrived_and_one_without_caller_do_not_end() {
        let (deadlines, streams) = (Deadlines::default(), OpenStreams::default());
        let caller = Rc::new(Principal::for_tests());
        for (caller, ends_before) in [(Some(&caller), true), (Some(&caller), false), (None, false)] {
            let meter = meter();
            let inflow = Inflow::new(&streams, &meter, caller, None);
            let mut wait = pin!(deadlines.answer_within(LONG, Some(&inflow), pending::<()>()));
            let begun = deadlines.now();
            assert!(poll(wait.as_mut()).is_pending());
            if ends_before {
                meter.end();
            }
            deadlines.advance(begun + 500);
            assert!(poll(wait.as_mut()).is_pending());
            assert!(poll(wait.as_mut()).is_pending());
            meter.end();
            expire(&streams);
            assert!(poll(wait.as_mut()).is_pending(), "{caller:?}");
            deadlines.advance(begun + 30_249);
            assert!(poll(wait.as_mut()).is_pending(), "its deadline stays");
        }
    }

    fn meter() -> Rc<Meter> {
        Rc::new(Meter::new(BodyBounds { size: 1 << 20, timeout: LONG, min_rate: 0 }))
    }

    #[test]
    fn slots_are_used_again() {
        let deadlines = Deadlines::default();
        for _ in 0..10 {
            let mut one = pin!(deadlines.within(LONG, pending::<()>()));
            let mut two = Box::pin(deadlines.within(LONG, pending::<()>()));
            assert!(poll(one.as_mut()).is_pending() && poll(two.as_mut()).is_pending());
        }
        assert_eq!(deadlines.waiting.borrow().len(), 2);
    }
}
