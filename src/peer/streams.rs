//! Tracks how fast a client reads the answers on HTTP/2 streams.
//!
//! A stream whose client opens no window holds its answer, and with it a connection to an upstream, while the connection
//! itself is busy with other frames (CVE-2019-9511, CVE-2019-9517). The body of such an answer is not polled, so it cannot
//! keep a deadline of its own: the core's sweep does, and the task of the stream ends when the sweep gives it up. The HTTP
//! library then sends RST_STREAM(CANCEL).

use super::coarse::CoarseMillis;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// The slowest client that is served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// How long a client may make no progress, and the total delay it may cause, in milliseconds.
    pub(crate) grace: CoarseMillis,
    /// The minimum rate beyond that; 0: any.
    pub(crate) bytes_per_second: u64,
}

impl Pace {
    /// The total waiting time allowed to a client that took this many bytes.
    pub(crate) fn allowance(&self, bytes: u64) -> CoarseMillis {
        match bytes.saturating_mul(1000).checked_div(self.bytes_per_second) {
            Some(earned) => self.grace.saturating_add(earned),
            None => CoarseMillis::MAX,
        }
    }

    /// How long one pause may last after this many bytes at once. Clients report progress in steps of half a window,
    /// which are megabytes in browsers, so a slow client gets one second for each 16 KiB.
    fn pause(&self, burst: u64) -> CoarseMillis {
        const BURST_BYTES_PER_SECOND: u64 = 16 * 1024;
        let earned = burst.saturating_mul(1000) / BURST_BYTES_PER_SECOND;
        self.grace.saturating_add(earned.min(self.grace.saturating_mul(9)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing waits for the client.
    Taken,
    /// The client has had data to read since the last sweep.
    Handed,
    /// The client has had data to read since this sweep.
    Since(CoarseMillis),
}

/// The reading progress of one stream's client.
pub(crate) struct Reader {
    state: Cell<State>,
    looked: Cell<CoarseMillis>,
    waited: Cell<CoarseMillis>,
    bytes: Cell<u64>,
    burst: Cell<u64>,
    given_up: Cell<bool>,
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
            state: Cell::new(State::Taken),
            looked: Cell::new(0),
            waited: Cell::new(0),
            bytes: Cell::new(0),
            burst: Cell::new(0),
            given_up: Cell::new(false),
            waker: Cell::new(None),
        }
    }
}

impl Reader {
    fn reset(&self) {
        self.state.set(State::Taken);
        self.waited.set(0);
        self.bytes.set(0);
        self.burst.set(0);
        self.given_up.set(false);
        self.waker.set(None);
    }

    /// The HTTP library asks for more: the client opened its window for what was handed over before.
    pub(crate) fn taken(&self) {
        if matches!(self.state.replace(State::Taken), State::Since(_)) {
            self.burst.set(0);
        }
    }

    /// The HTTP library got this many more bytes for the client.
    pub(crate) fn handed(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes as u64);
        self.burst.set(self.burst.get() + bytes as u64);
        self.state.set(State::Handed);
    }

    /// Whether the stream was given up.
    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up.get()
    }

    /// Gives up the stream if its client is too slow. Returns whether this call did so.
    fn examine(&self, now: CoarseMillis, pace: Pace) -> bool {
        match self.state.get() {
            State::Taken => return false,
            State::Handed => {
                self.state.set(State::Since(now));
                self.looked.set(now);
                return false;
            }
            State::Since(since) => {
                let waited = self.waited.get() + now.saturating_sub(self.looked.replace(now));
                self.waited.set(waited);
                let pause = now.saturating_sub(since);
                if pause < pace.pause(self.burst.get()) && waited < pace.allowance(self.bytes.get()) {
                    return false;
                }
            }
        }
        if self.given_up.replace(true) {
            return false;
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        true
    }

    fn poll_given_up(&self, cx: &Context<'_>) -> bool {
        if !self.given_up.get() {
            match self.waker.take() {
                Some(known) if known.will_wake(cx.waker()) => self.waker.set(Some(known)),
                _ => self.waker.set(Some(cx.waker().clone())),
            }
        }
        self.given_up.get()
    }
}

/// The streams of one connection that are open. Slots are reused, so a stream costs no allocation here.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    readers: RefCell<Vec<Rc<Reader>>>,
    free: RefCell<Vec<usize>>,
    /// The place whose task runs now.
    current: Cell<Option<usize>>,
}

impl Streams {
    /// The reader of the stream whose task runs now.
    pub(crate) fn current(&self) -> Option<Rc<Reader>> {
        self.current.get().map(|place| self.readers.borrow()[place].clone())
    }

    /// Looks at all streams, and returns how many it gave up.
    pub(crate) fn examine(&self, now: CoarseMillis, pace: Pace) -> u64 {
        self.readers.borrow().iter().map(|reader| u64::from(reader.examine(now, pace))).sum()
    }

    fn enter(&self) -> usize {
        if let Some(place) = self.free.borrow_mut().pop() {
            return place;
        }
        let mut readers = self.readers.borrow_mut();
        readers.push(Rc::default());
        readers.len() - 1
    }
}

/// The place of one stream, free again when it is dropped.
pub(crate) struct StreamSlot<'s> {
    streams: &'s Streams,
    index: usize,
    reader: Rc<Reader>,
}

impl<'s> StreamSlot<'s> {
    /// Takes a place among the streams of a connection.
    pub(crate) fn enter(streams: &'s Streams) -> Self {
        let index = streams.enter();
        let reader = streams.readers.borrow()[index].clone();
        Self { streams, index, reader }
    }

    /// Polls the stream's task, unless the stream was given up: then it ends at once. During the poll, the stream is
    /// [`Streams::current`].
    pub(crate) fn poll(
        &self,
        cx: &mut Context<'_>,
        task: impl FnOnce(&mut Context<'_>) -> Poll<()>,
    ) -> Poll<()> {
        if self.reader.poll_given_up(cx) {
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
    fn a_client_that_opens_no_window_is_given_up_after_the_grace() {
        let reader = Reader::default();
        reader.handed(100);
        assert!(!reader.examine(1_000, PACE), "the pause begins with the first look, never early");
        assert!(!reader.examine(31_000, PACE));
        assert!(reader.examine(31_250, PACE) && reader.is_given_up());
        assert!(!reader.examine(31_500, PACE), "once");
    }

    #[test]
    fn a_slow_browser_has_time_for_half_a_window_of_megabytes() {
        let reader = Reader::default();
        for _ in 0..6 * 64 {
            reader.taken();
            reader.handed(16 * 1024);
        }
        reader.examine(0, PACE);
        assert!(!reader.examine(200_000, PACE), "3 MB at 15 KB/s");
        reader.taken();
        reader.handed(16 * 1024);
        reader.examine(200_250, PACE);
        assert!(reader.examine(240_000, PACE), "16 KiB earn one second");
    }

    #[test]
    fn no_pause_is_longer_than_ten_times_the_grace() {
        let reader = Reader::default();
        reader.handed(1 << 40);
        reader.examine(0, PACE);
        assert!(!reader.examine(299_999, PACE));
        assert!(reader.examine(300_000, PACE));
    }

    #[test]
    fn a_client_that_takes_a_byte_now_and_then_is_given_up() {
        let reader = Reader::default();
        let mut now = 0;
        while now < 60_000 {
            reader.taken();
            reader.handed(1);
            reader.examine(now, PACE);
            now += 5_000;
            if reader.examine(now, PACE) {
                return assert!((30_000..40_000).contains(&now), "{now}");
            }
        }
        panic!("it was never given up");
    }

    #[test]
    fn without_a_least_rate_only_pauses_are_bounded() {
        let pace = Pace { bytes_per_second: 0, ..PACE };
        let reader = Reader::default();
        for step in 0..100 {
            reader.taken();
            reader.handed(1);
            reader.examine(step * 20_000, pace);
            assert!(!reader.examine(step * 20_000 + 19_999, pace));
        }
    }

    #[test]
    fn a_place_is_used_again_as_new() {
        let streams = Streams::default();
        let first = StreamSlot::enter(&streams);
        first.reader.handed(1);
        first.reader.examine(0, PACE);
        drop(first);
        let second = StreamSlot::enter(&streams);
        assert_eq!((second.index, second.reader.state.get()), (0, State::Taken));
        assert_eq!(streams.examine(1 << 40, PACE), 0);
    }
}
