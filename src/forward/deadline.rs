//! Enforces the deadlines of requests to upstreams with the core's periodic sweep. A request whose response arrives in
//! time starts no timer and reads no clock.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::Instant;

/// A timeout below this value uses an exact timer. The sweep runs only a few times a second, which is too coarse.
const COARSE: Duration = Duration::from_secs(2);

/// Maximum lag of the core's coarse clock, in milliseconds. It is the time between two sweeps.
const LATE: u64 = 250;

/// The peer that a forwarded request waits for.
#[derive(Clone, Copy, Debug)]
pub(super) enum WaitingFor {
    /// The client, which must send more of its body. The bounds of the request's body apply.
    Client,
    /// The server, which must accept more data or respond. The wait began at this time.
    Server(Instant),
}

impl WaitingFor {
    /// Returns the server's remaining time, or `None` if it has passed. While the request waits for the client, all of
    /// the server's time remains.
    pub(super) fn left(self, timeout: Duration) -> Option<Duration> {
        match self {
            Self::Client => Some(timeout.max(Duration::from_millis(LATE))),
            Self::Server(since) => timeout.checked_sub(since.elapsed()).filter(|left| !left.is_zero()),
        }
    }
}

/// The deadlines of one core.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
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
pub(super) struct Elapsed;

impl Deadlines {
    /// Returns the core's coarse clock.
    pub(super) fn now(&self) -> u64 {
        self.now.get()
    }

    /// Waits for a server's response. The wait lasts up to `timeout` after the server has received the whole request,
    /// plus up to two sweep intervals. `upload` tells whether a request with a body waits for the client or for the
    /// server.
    pub(super) async fn answer_within<F: Future>(
        &self,
        timeout: Duration,
        upload: Option<impl Fn() -> WaitingFor>,
        future: F,
    ) -> Result<F::Output, Elapsed> {
        let mut future = pin!(future);
        let mut left = timeout;
        loop {
            if let Ok(output) = self.wait(left, future.as_mut()).await {
                return Ok(output);
            }
            left = upload.as_ref().and_then(|waiting| waiting().left(timeout)).ok_or(Elapsed)?;
        }
    }

    /// Waits for a future for up to `timeout`, plus up to two sweep intervals.
    pub(super) async fn within<F: Future>(&self, timeout: Duration, future: F) -> Result<F::Output, Elapsed> {
        self.wait(timeout, pin!(future)).await
    }

    async fn wait<F: Future>(
        &self,
        timeout: Duration,
        mut future: Pin<&mut F>,
    ) -> Result<F::Output, Elapsed> {
        if timeout < COARSE {
            return Box::pin(tokio::time::timeout(timeout, future)).await.map_err(|_| Elapsed);
        }
        let mut deadline = Deadline { all: self, slot: None };
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            if deadline.has_passed(timeout, cx) { Poll::Ready(Err(Elapsed)) } else { Poll::Pending }
        })
        .await
    }

    /// Advances the coarse clock, and wakes the tasks whose deadline has passed.
    pub(super) fn advance(&self, now: u64) {
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
            let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            // The clock shows the time of the last sweep, which may be one interval old. The extra interval keeps the
            // deadline from passing too early.
            let due = self.all.now.get().saturating_add(millis).saturating_add(LATE);
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
    use std::future::{pending, ready};

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
        let deadlines = Deadlines::default();
        let whom = Cell::new(WaitingFor::Client);
        let mut wait = pin!(deadlines.answer_within(LONG, Some(|| whom.get()), pending::<()>()));
        assert!(poll(wait.as_mut()).is_pending());
        for passed in 1..10 {
            deadlines.advance(passed * 31_000);
            assert!(poll(wait.as_mut()).is_pending(), "the client is waited for");
        }
        let long_ago = Instant::now().checked_sub(LONG).expect("the machine has run for a while");
        whom.set(WaitingFor::Server(long_ago + Duration::from_secs(10)));
        deadlines.advance(400_000);
        assert!(poll(wait.as_mut()).is_pending(), "ten seconds are left");
        whom.set(WaitingFor::Server(long_ago));
        deadlines.advance(410_250);
        assert_eq!(poll(wait.as_mut()), Poll::Ready(Err(Elapsed)));
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
