//! Tracks how fast a client reads the responses on its HTTP/2 streams.
//!
//! A client can hold a response and its upstream connection by keeping the stream's window closed. Meanwhile, other
//! frames can keep the client's connection busy (CVE-2019-9511, CVE-2019-9517). The HTTP library does not poll a
//! blocked body, so the body cannot enforce a deadline. The core's sweep enforces it: the sweep ends the stream's task,
//! and the HTTP library sends RST_STREAM(CANCEL).

use super::coarse::CoarseMillis;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// The slowest reading rate that the gateway accepts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Maximum pause in milliseconds. It is also added to the total waiting time that the minimum rate allows.
    pub(crate) grace: CoarseMillis,
    /// Minimum rate in bytes per second once `grace` is used up. 0 disables the minimum.
    pub(crate) bytes_per_second: u64,
}

impl Pace {
    /// Returns the total waiting time allowed to a client that has received `bytes` bytes.
    pub(crate) fn allowance(&self, bytes: u64) -> CoarseMillis {
        match bytes.saturating_mul(1000).checked_div(self.bytes_per_second) {
            Some(earned) => self.grace.saturating_add(earned),
            None => CoarseMillis::MAX,
        }
    }

    /// Returns the maximum pause after a burst of `burst` bytes.
    ///
    /// A client reports progress only after it has read half of its window, which is several megabytes in a browser.
    /// Each 16 KiB of the burst therefore extends the pause by one second, up to ten times the grace.
    fn max_pause(&self, burst: u64) -> CoarseMillis {
        const BURST_BYTES_PER_SECOND: u64 = 16 * 1024;
        let earned = burst.saturating_mul(1000) / BURST_BYTES_PER_SECOND;
        self.grace.saturating_add(earned.min(self.grace.saturating_mul(9)))
    }
}

/// Whether a stream waits for its client to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The stream does not wait for its client.
    Idle,
    /// Data was delivered to the client after the last sweep.
    Delivered,
    /// The client has had unread data since the sweep at this time.
    WaitingSince(CoarseMillis),
}

/// The client's progress in reading one stream.
pub(crate) struct Reader {
    state: Cell<State>,
    examined_at: Cell<CoarseMillis>,
    total_wait: Cell<CoarseMillis>,
    bytes: Cell<u64>,
    burst: Cell<u64>,
    timed_out: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            state: Cell::new(State::Idle),
            examined_at: Cell::new(0),
            total_wait: Cell::new(0),
            bytes: Cell::new(0),
            burst: Cell::new(0),
            timed_out: Cell::new(false),
            waker: Cell::new(None),
        }
    }
}

impl Reader {
    fn reset(&self) {
        self.state.set(State::Idle);
        self.total_wait.set(0);
        self.bytes.set(0);
        self.burst.set(0);
        self.timed_out.set(false);
        self.waker.set(None);
    }

    /// Records that the HTTP library wants more data: the client has accepted all data delivered so far.
    pub(crate) fn request_data(&self) {
        if matches!(self.state.replace(State::Idle), State::WaitingSince(_)) {
            self.burst.set(0);
        }
    }

    /// Records that `bytes` more bytes were passed to the HTTP library for the client.
    pub(crate) fn deliver(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes as u64);
        self.burst.set(self.burst.get() + bytes as u64);
        self.state.set(State::Delivered);
    }

    /// Returns whether the client read too slowly. Its stream then ends.
    pub(crate) fn is_timed_out(&self) -> bool {
        self.timed_out.get()
    }

    /// Ends the stream if the client reads too slowly. Returns whether this call ended the stream.
    fn examine(&self, now: CoarseMillis, pace: Pace) -> bool {
        match self.state.get() {
            State::Idle => return false,
            State::Delivered => {
                self.state.set(State::WaitingSince(now));
                self.examined_at.set(now);
                return false;
            }
            State::WaitingSince(since) => {
                let total_wait = self.total_wait.get() + now.saturating_sub(self.examined_at.replace(now));
                self.total_wait.set(total_wait);
                let pause = now.saturating_sub(since);
                if pause < pace.max_pause(self.burst.get()) && total_wait < pace.allowance(self.bytes.get()) {
                    return false;
                }
            }
        }
        if self.timed_out.replace(true) {
            return false;
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        true
    }

    fn poll_timed_out(&self, cx: &Context<'_>) -> bool {
        if !self.timed_out.get() {
            match self.waker.take() {
                Some(waker) if waker.will_wake(cx.waker()) => self.waker.set(Some(waker)),
                _ => self.waker.set(Some(cx.waker().clone())),
            }
        }
        self.timed_out.get()
    }
}

/// The open streams of one connection. Slots are reused, so a new stream usually allocates nothing here.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    readers: RefCell<Vec<Rc<Reader>>>,
    free: RefCell<Vec<usize>>,
    /// The index of the stream whose task is running.
    current: Cell<Option<usize>>,
}

impl Streams {
    /// Returns the reader of the stream whose task is running.
    pub(crate) fn current(&self) -> Option<Rc<Reader>> {
        self.current.get().map(|index| self.readers.borrow()[index].clone())
    }

    /// Checks all streams, and returns the number of streams that it ended.
    pub(crate) fn examine(&self, now: CoarseMillis, pace: Pace) -> u64 {
        self.readers.borrow().iter().map(|reader| u64::from(reader.examine(now, pace))).sum()
    }

    fn acquire_index(&self) -> usize {
        if let Some(index) = self.free.borrow_mut().pop() {
            return index;
        }
        let mut readers = self.readers.borrow_mut();
        readers.push(Rc::default());
        readers.len() - 1
    }
}

/// The slot of one stream. Dropping it releases the slot for reuse.
pub(crate) struct StreamSlot<'s> {
    streams: &'s Streams,
    index: usize,
    reader: Rc<Reader>,
}

impl<'s> StreamSlot<'s> {
    pub(crate) fn acquire(streams: &'s Streams) -> Self {
        let index = streams.acquire_index();
        let reader = streams.readers.borrow()[index].clone();
        Self { streams, index, reader }
    }

    /// Polls the stream's task. Returns `Ready` without polling if the client read too slowly. During the poll,
    /// [`Streams::current`] returns this stream.
    pub(crate) fn poll(
        &self,
        cx: &mut Context<'_>,
        task: impl FnOnce(&mut Context<'_>) -> Poll<()>,
    ) -> Poll<()> {
        if self.reader.poll_timed_out(cx) {
            return Poll::Ready(());
        }
        self.streams.current.set(Some(self.index));
        let polled = task(cx);
        self.streams.current.set(None);
        polled
    }
}

impl Drop for StreamSlot<'_> {
    fn drop(&mut self) {
        self.streams.current.set(None);
        self.reader.reset();
        self.streams.free.borrow_mut().push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { grace: 30_000, bytes_per_second: 500 };

    #[test]
    fn a_client_that_opens_no_window_times_out_after_the_grace() {
        let reader = Reader::default();
        reader.deliver(100);
        assert!(!reader.examine(1_000, PACE), "the pause starts at the first examination");
        assert!(!reader.examine(31_000, PACE));
        assert!(reader.examine(31_250, PACE) && reader.is_timed_out());
        assert!(!reader.examine(31_500, PACE), "a stream times out once");
    }

    #[test]
    fn a_slow_browser_has_time_for_half_a_window_of_megabytes() {
        let reader = Reader::default();
        for _ in 0..6 * 64 {
            reader.request_data();
            reader.deliver(16 * 1024);
        }
        reader.examine(0, PACE);
        assert!(!reader.examine(200_000, PACE), "half of the 6 MiB window takes 200 s at 15 KB/s");
        reader.request_data();
        reader.deliver(16 * 1024);
        reader.examine(200_250, PACE);
        assert!(reader.examine(240_000, PACE), "16 KiB extend the pause by one second");
    }

    #[test]
    fn a_pause_is_never_longer_than_ten_times_the_grace() {
        let reader = Reader::default();
        reader.deliver(1 << 40);
        reader.examine(0, PACE);
        assert!(!reader.examine(299_999, PACE));
        assert!(reader.examine(300_000, PACE));
    }

    #[test]
    fn a_client_that_reads_a_byte_now_and_then_times_out() {
        let reader = Reader::default();
        let mut now = 0;
        while now < 60_000 {
            reader.request_data();
            reader.deliver(1);
            reader.examine(now, PACE);
            now += 5_000;
            if reader.examine(now, PACE) {
                return assert!((30_000..40_000).contains(&now), "{now}");
            }
        }
        panic!("the stream did not time out");
    }

    #[test]
    fn without_a_minimum_rate_only_pauses_are_bounded() {
        let pace = Pace { bytes_per_second: 0, ..PACE };
        let reader = Reader::default();
        for step in 0..100 {
            reader.request_data();
            reader.deliver(1);
            reader.examine(step * 20_000, pace);
            assert!(!reader.examine(step * 20_000 + 19_999, pace));
        }
    }

    #[test]
    fn a_reused_slot_is_reset() {
        let streams = Streams::default();
        let first = StreamSlot::acquire(&streams);
        first.reader.deliver(1);
        first.reader.examine(0, PACE);
        drop(first);
        let second = StreamSlot::acquire(&streams);
        assert_eq!((second.index, second.reader.state.get()), (0, State::Idle));
        assert_eq!(streams.examine(1 << 40, PACE), 0);
    }
}
