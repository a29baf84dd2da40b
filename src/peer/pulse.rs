//! What a connection is waiting for, and since when.
//!
//! One sweep a core (see `accept::core`) keeps all deadlines: it looks at every pulse a few times a second, so that a
//! request starts no timer and reads no clock. A deadline passes up to two [`SWEEP`]s late and never early.

use super::coarse::Tick;
use super::streams::Pace;
use std::cell::Cell;
use std::fmt;
use std::task::{Context, Waker};
use std::time::Duration;

/// How often a core looks at its connections.
pub(crate) const SWEEP: Duration = Duration::from_millis(250);

/// What a connection must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Answer what is on its way, then close.
    Drain,
    /// Close now.
    Close(Overdue),
}

/// What did not come in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// The head of a request that had begun.
    Head,
    /// A request, the first or another.
    Idle,
    /// The client reads its answers.
    Reader,
    /// The end of the drain.
    Drain,
    /// A connection that is about to close waits for a request.
    Farewell,
}

/// The limits of a pulse, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// From the first byte of a head to its last.
    pub(crate) head: Tick,
    /// Between two requests.
    pub(crate) idle: Tick,
    /// How long a connection that is about to close waits for a request that is on its way.
    pub(crate) farewell: Tick,
    /// The slowest acceptable reading rate.
    pub(crate) pace: Pace,
}

/// What a connection without a request in progress waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// The first byte of all.
    First,
    /// The end of the TLS handshake, which has a timer of its own.
    Handshake,
    /// The rest of a head.
    Head,
    /// Another request.
    Next,
}

/// The state of one connection, shared by its task, its requests and its core's sweep. All on one thread.
pub(crate) struct Pulse {
    http2: Cell<bool>,
    active: Cell<u32>,
    wait: Cell<Wait>,
    since: Cell<Tick>,
    blocked: Cell<Option<Tick>>,
    /// How long writes were blocked before now, and the bytes written, since the connection was last idle.
    stalled: Cell<Tick>,
    written: Cell<u64>,
    answering: Cell<bool>,
    leaving: Cell<bool>,
    retired: Cell<bool>,
    order: Cell<Option<Order>>,
    waker: Cell<Option<Waker>>,
}

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pulse")
            .field("active", &self.active)
            .field("wait", &self.wait)
            .finish_non_exhaustive()
    }
}

impl Pulse {
    /// A connection that was just accepted: its first head is due as if it had begun.
    pub(crate) fn new(tick: Tick) -> Self {
        Self {
            http2: Cell::new(false),
            active: Cell::new(0),
            wait: Cell::new(Wait::First),
            since: Cell::new(tick),
            blocked: Cell::new(None),
            stalled: Cell::new(0),
            written: Cell::new(0),
            answering: Cell::new(false),
            leaving: Cell::new(false),
            retired: Cell::new(false),
            order: Cell::new(None),
            waker: Cell::new(None),
        }
    }

    /// The first bytes are those of a TLS handshake.
    pub(crate) fn handshake_begins(&self) {
        self.wait.set(Wait::Handshake);
    }

    /// The connection is ready for requests, of HTTP/2 or HTTP/1.1.
    pub(crate) fn serves(&self, http2: bool, tick: Tick) {
        self.http2.set(http2);
        if self.wait.replace(Wait::First) == Wait::Handshake {
            self.since.set(tick);
        }
    }

    /// Bytes of HTTP/1.1 arrived. True when they are the first of a request's head.
    pub(crate) fn received(&self, tick: Tick) -> bool {
        if self.active.get() > 0 || self.wait.get() == Wait::Head {
            return false;
        }
        self.head_begins(tick);
        true
    }

    /// The first bytes of a head arrived. The first head of a connection is due since the connection was ready.
    pub(crate) fn head_begins(&self, tick: Tick) {
        if self.wait.replace(Wait::Head) != Wait::First {
            self.since.set(tick);
        }
    }

    /// An HTTP/2 frame is complete, and with it the head in progress, if there was one. The library decides whether it
    /// becomes a request.
    pub(crate) fn frame_ends(&self, head: bool, tick: Tick) {
        if head || self.wait.get() == Wait::First {
            self.wait.set(Wait::Next);
            self.since.set(tick);
        }
    }

    /// A request's head is complete.
    pub(crate) fn request_begins(&self) {
        if self.active.replace(self.active.get() + 1) == 0 {
            self.stalled.set(0);
            self.written.set(0);
        }
        self.answering.set(true);
        if !self.http2.get() {
            self.wait.set(Wait::Next);
        }
    }

    /// A request's answer is handed over in full, or given up.
    pub(crate) fn request_ends(&self, tick: Tick) {
        self.active.set(self.active.get().saturating_sub(1));
        if self.wait.get() != Wait::Head {
            self.since.set(tick);
        }
    }

    /// A write could not go on.
    pub(crate) fn write_blocked(&self, tick: Tick) {
        if self.blocked.get().is_none() {
            self.blocked.set(Some(tick));
        }
    }

    /// A write of this many bytes went on.
    pub(crate) fn write_progressed(&self, bytes: usize, tick: impl FnOnce() -> Tick) {
        self.written.set(self.written.get() + bytes as u64);
        if let Some(since) = self.blocked.take() {
            let now = tick();
            self.stalled.set(self.stalled.get() + now.saturating_sub(since));
            // The client has the end of its answer only now: its time for another request begins.
            if self.active.get() == 0 && self.wait.get() != Wait::Head {
                self.since.set(now);
            }
        }
    }

    /// All that was to be written is written.
    pub(crate) fn flushed(&self) {
        if self.active.get() == 0 {
            self.answering.set(false);
        }
    }

    /// Whether the pipeline may be writing an answer. Otherwise all output comes from the HTTP library itself: its
    /// answer to bytes that are not HTTP.
    pub(crate) fn is_answering(&self) -> bool {
        self.answering.get()
    }

    /// Whether a request is being answered.
    pub(crate) fn is_active(&self) -> bool {
        self.active.get() > 0
    }

    /// Whether the connection closes after the requests in progress.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.get()
    }

    /// Whether the connection closes because it was idle for too long.
    pub(crate) fn is_retired(&self) -> bool {
        self.retired.get()
    }

    /// Looks for a deadline that has passed, and orders the connection closed if there is one.
    pub(crate) fn examine(&self, tick: Tick, patience: Patience) {
        let late = |since: Tick, patience: Tick| tick.saturating_sub(since) >= patience;
        if let Some(since) = self.blocked.get() {
            let stall = tick.saturating_sub(since);
            let all = self.stalled.get().saturating_add(stall);
            if stall >= patience.pace.grace || all >= patience.pace.allowance(self.written.get()) {
                return self.command(Order::Close(Overdue::Reader), tick);
            }
        }
        // A client that has not taken the end of its answer yet is a slow reader and no idle one.
        let (http2, idle) = (self.http2.get(), self.active.get() == 0 && self.blocked.get().is_none());
        match self.wait.get() {
            // An incomplete HTTP/2 head blocks all streams of its connection.
            Wait::Head if (idle || http2) && late(self.since.get(), patience.head) => {
                self.command(Order::Close(Overdue::Head), tick);
            }
            Wait::First | Wait::Next if idle && self.leaving.get() => {
                if late(self.since.get(), patience.farewell) {
                    self.command(Order::Close(Overdue::Farewell), tick);
                }
            }
            Wait::First if idle && late(self.since.get(), patience.head) => {
                self.command(Order::Close(Overdue::Idle), tick);
            }
            Wait::Next if idle && late(self.since.get(), patience.idle) => {
                if http2 {
                    // HTTP/2 sends GOAWAY first, so that a request on its way is still answered (RFC 9113 section 6.8).
                    self.retired.set(true);
                    self.command(Order::Drain, tick);
                } else {
                    self.command(Order::Close(Overdue::Idle), tick);
                }
            }
            Wait::First | Wait::Handshake | Wait::Head | Wait::Next => {}
        }
    }

    /// Gives an order; one to close is never weakened to one to drain.
    pub(crate) fn command(&self, order: Order, tick: Tick) {
        if matches!(self.order.get(), Some(Order::Close(_))) || self.order.get() == Some(order) {
            return;
        }
        self.order.set(Some(order));
        if !self.leaving.replace(true) && self.wait.get() != Wait::Head {
            self.since.set(tick);
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The order in force. Without one, the task of `cx` is woken when one comes.
    pub(crate) fn order(&self, cx: &Context<'_>) -> Option<Order> {
        let order = self.order.get();
        if !matches!(order, Some(Order::Close(_))) {
            match self.waker.take() {
                Some(known) if known.will_wake(cx.waker()) => self.waker.set(Some(known)),
                _ => self.waker.set(Some(cx.waker().clone())),
            }
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        head: 10_000,
        idle: 75_000,
        farewell: 1_000,
        pace: Pace { grace: 30_000, bytes_per_second: 500 },
    };

    fn order_after(pulse: &Pulse, tick: Tick) -> Option<Order> {
        pulse.examine(tick, PATIENCE);
        pulse.order(&Context::from_waker(Waker::noop()))
    }

    fn served_once(http2: bool, ended: Tick) -> Pulse {
        let pulse = Pulse::new(0);
        pulse.serves(http2, 0);
        pulse.head_begins(0);
        pulse.frame_ends(true, 0);
        pulse.request_begins();
        pulse.request_ends(ended);
        pulse
    }

    #[test]
    fn a_client_that_never_finishes_its_head_is_closed() {
        let pulse = Pulse::new(0);
        assert!(pulse.received(5_000));
        assert_eq!(order_after(&pulse, 9_999), None);
        assert_eq!(order_after(&pulse, 10_000), Some(Order::Close(Overdue::Head)));
    }

    #[test]
    fn a_client_that_never_sends_a_byte_is_closed() {
        let pulse = Pulse::new(0);
        assert_eq!(order_after(&pulse, 10_000), Some(Order::Close(Overdue::Idle)));
    }

    #[test]
    fn bytes_that_trickle_in_do_not_extend_the_deadline_of_a_head() {
        let pulse = served_once(false, 1_000);
        assert!(pulse.received(2_000));
        assert!(!pulse.received(11_999));
        assert_eq!(order_after(&pulse, 11_999), None);
        assert_eq!(order_after(&pulse, 12_000), Some(Order::Close(Overdue::Head)));
    }

    #[test]
    fn an_idle_connection_has_the_longer_patience() {
        let pulse = served_once(false, 1_000);
        assert_eq!(order_after(&pulse, 75_999), None);
        assert_eq!(order_after(&pulse, 76_000), Some(Order::Close(Overdue::Idle)));
    }

    /// RFC 9113 section 9.1: a server keeps idle connections open as long as possible, and sends GOAWAY before it closes one.
    #[test]
    fn an_idle_connection_of_http_2_says_goodbye_before_it_closes() {
        let pulse = served_once(true, 1_000);
        pulse.frame_ends(false, 30_000);
        assert_eq!(order_after(&pulse, 75_999), None, "a PING begins no head and is no request");
        assert_eq!(order_after(&pulse, 76_000), Some(Order::Drain));
        assert!(pulse.is_leaving() && pulse.is_retired());
        assert_eq!(order_after(&pulse, 76_999), Some(Order::Drain));
        assert_eq!(order_after(&pulse, 77_000), Some(Order::Close(Overdue::Farewell)));
    }

    /// The last bytes of an answer may wait in the library's buffer when the answer counts as ended.
    #[test]
    fn a_client_that_has_not_taken_the_end_of_its_answer_is_not_idle() {
        let pulse = served_once(false, 0);
        pulse.write_blocked(0);
        pulse.command(Order::Drain, 0);
        assert_eq!(
            order_after(&pulse, 20_000),
            Some(Order::Drain),
            "no farewell before the end of the answer"
        );
        pulse.write_progressed(10, || 20_000);
        assert_eq!(order_after(&pulse, 20_999), Some(Order::Drain));
        assert_eq!(order_after(&pulse, 21_000), Some(Order::Close(Overdue::Farewell)));

        let pulse = served_once(false, 0);
        pulse.write_blocked(0);
        assert!(pulse.received(5_000));
        assert_eq!(
            order_after(&pulse, 29_999),
            None,
            "a refusal of half a head would stand within the answer"
        );
        assert_eq!(order_after(&pulse, 30_000), Some(Order::Close(Overdue::Reader)));
    }

    #[test]
    fn half_a_head_of_http_2_is_due_although_other_streams_are_answered() {
        let pulse = served_once(true, 0);
        pulse.request_begins();
        pulse.head_begins(1_000);
        pulse.request_begins();
        pulse.request_ends(5_000);
        assert_eq!(order_after(&pulse, 10_999), None);
        assert_eq!(order_after(&pulse, 11_000), Some(Order::Close(Overdue::Head)));
    }

    #[test]
    fn a_head_of_http_2_that_becomes_no_request_leaves_the_connection_idle() {
        let pulse = served_once(true, 0);
        pulse.head_begins(1_000);
        pulse.frame_ends(true, 2_000);
        assert_eq!(order_after(&pulse, 76_999), None);
        assert_eq!(order_after(&pulse, 77_000), Some(Order::Drain));
    }

    #[test]
    fn a_request_that_is_being_answered_is_never_idle() {
        let pulse = Pulse::new(0);
        pulse.request_begins();
        assert_eq!(order_after(&pulse, 1_000_000), None);
    }

    #[test]
    fn a_connection_that_drains_waits_a_moment_for_what_is_on_its_way() {
        let pulse = served_once(false, 0);
        pulse.command(Order::Drain, 50_000);
        assert_eq!(order_after(&pulse, 50_999), Some(Order::Drain));
        pulse.request_begins();
        assert_eq!(order_after(&pulse, 90_000), Some(Order::Drain));
        pulse.request_ends(90_000);
        assert_eq!(order_after(&pulse, 91_000), Some(Order::Close(Overdue::Farewell)));
    }

    #[test]
    fn a_client_that_stops_reading_is_closed_unless_it_goes_on() {
        let pulse = Pulse::new(0);
        pulse.request_begins();
        pulse.write_blocked(0);
        pulse.write_blocked(20_000);
        pulse.write_progressed(1 << 20, || 25_000);
        pulse.write_blocked(29_000);
        assert_eq!(order_after(&pulse, 30_000), None);
        assert_eq!(order_after(&pulse, 59_000), Some(Order::Close(Overdue::Reader)));
    }

    #[test]
    fn a_client_that_reads_steadily_and_too_slowly_is_closed() {
        let pulse = Pulse::new(0);
        pulse.request_begins();
        for second in 0..40 {
            pulse.write_blocked(second * 1_000);
            let order = order_after(&pulse, second * 1_000 + 999);
            // 10 bytes a second, where 500 are the least: the grace of 30 s is used up.
            let closed = second * 1_000 + 999 >= 30_000 + second * 20;
            assert_eq!(order.is_some(), closed, "second {second}");
            if closed {
                return assert_eq!(order, Some(Order::Close(Overdue::Reader)));
            }
            pulse.write_progressed(10, || (second + 1) * 1_000);
        }
        panic!("it was never closed");
    }

    #[test]
    fn an_order_to_close_is_not_weakened() {
        let pulse = Pulse::new(0);
        pulse.command(Order::Close(Overdue::Drain), 0);
        pulse.command(Order::Drain, 0);
        assert_eq!(pulse.order(&Context::from_waker(Waker::noop())), Some(Order::Close(Overdue::Drain)));
    }
}
