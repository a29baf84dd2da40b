//! Tracks what a connection is waiting for, and since when.
//!
//! One periodic sweep per core (`accept::core`) enforces all deadlines. It examines every connection a few times a
//! second, so that a request neither starts a timer nor reads a clock. A deadline takes effect up to two [`SWEEP`]
//! intervals late, never early.

use super::coarse::CoarseMillis;
use super::streams::Pace;
use std::cell::Cell;
use std::fmt;
use std::task::{Context, Waker};
use std::time::Duration;

/// How often a core looks at its connections.
pub(crate) const SWEEP: Duration = Duration::from_millis(250);

/// What a connection must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Answer what is on its way, then close.
    Drain,
    /// Close now.
    Close(Timeout),
}

/// What did not come in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timeout {
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

/// The limits of a connection, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// From the first byte of a head to its last.
    pub(crate) head: CoarseMillis,
    /// Between two requests.
    pub(crate) idle: CoarseMillis,
    /// How long a connection that is about to close waits for a request that is on its way.
    pub(crate) farewell: CoarseMillis,
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
pub(crate) struct Activity {
    http2: Cell<bool>,
    active: Cell<u32>,
    wait: Cell<Wait>,
    since: Cell<CoarseMillis>,
    blocked: Cell<Option<CoarseMillis>>,
    /// How long writes were blocked before now, and the bytes written, since the connection was last idle.
    stalled: Cell<CoarseMillis>,
    written: Cell<u64>,
    answering: Cell<bool>,
    closing: Cell<bool>,
    retired: Cell<bool>,
    command: Cell<Option<Command>>,
    waker: Cell<Option<Waker>>,
}

impl fmt::Debug for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Activity")
            .field("active", &self.active)
            .field("wait", &self.wait)
            .finish_non_exhaustive()
    }
}

impl Activity {
    /// A connection that was just accepted: its first head is due as if it had begun.
    pub(crate) fn new(now: CoarseMillis) -> Self {
        Self {
            http2: Cell::new(false),
            active: Cell::new(0),
            wait: Cell::new(Wait::First),
            since: Cell::new(now),
            blocked: Cell::new(None),
            stalled: Cell::new(0),
            written: Cell::new(0),
            answering: Cell::new(false),
            closing: Cell::new(false),
            retired: Cell::new(false),
            command: Cell::new(None),
            waker: Cell::new(None),
        }
    }

    /// The first bytes are those of a TLS handshake.
    pub(crate) fn begin_handshake(&self) {
        self.wait.set(Wait::Handshake);
    }

    /// The connection is ready for requests, of HTTP/2 or HTTP/1.1.
    pub(crate) fn begin_serving(&self, http2: bool, now: CoarseMillis) {
        self.http2.set(http2);
        if self.wait.replace(Wait::First) == Wait::Handshake {
            self.since.set(now);
        }
    }

    /// Bytes of HTTP/1.1 arrived. True when they are the first of a request's head.
    pub(crate) fn receive(&self, now: CoarseMillis) -> bool {
        if self.active.get() > 0 || self.wait.get() == Wait::Head {
            return false;
        }
        self.begin_head(now);
        true
    }

    /// The first bytes of a head arrived. The first head of a connection is due since the connection was ready.
    pub(crate) fn begin_head(&self, now: CoarseMillis) {
        if self.wait.replace(Wait::Head) != Wait::First {
            self.since.set(now);
        }
    }

    /// An HTTP/2 frame is complete, and with it the head in progress, if there was one. The library decides whether it
    /// becomes a request.
    pub(crate) fn end_frame(&self, head: bool, now: CoarseMillis) {
        if head || self.wait.get() == Wait::First {
            self.wait.set(Wait::Next);
            self.since.set(now);
        }
    }

    /// A request's head is complete.
    pub(crate) fn begin_request(&self) {
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
    pub(crate) fn end_request(&self, now: CoarseMillis) {
        self.active.set(self.active.get().saturating_sub(1));
        if self.wait.get() != Wait::Head {
            self.since.set(now);
        }
    }

    /// A write could not go on.
    pub(crate) fn record_blocked_write(&self, now: CoarseMillis) {
        if self.blocked.get().is_none() {
            self.blocked.set(Some(now));
        }
    }

    /// A write of this many bytes went on.
    pub(crate) fn record_write(&self, bytes: usize, now: impl FnOnce() -> CoarseMillis) {
        self.written.set(self.written.get() + bytes as u64);
        if let Some(since) = self.blocked.take() {
            let now = now();
            self.stalled.set(self.stalled.get() + now.saturating_sub(since));
            // The client has the end of its answer only now: its time for another request begins.
            if self.active.get() == 0 && self.wait.get() != Wait::Head {
                self.since.set(now);
            }
        }
    }

    /// All that was to be written is written.
    pub(crate) fn record_flush(&self) {
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
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// Whether the connection closes because it was idle for too long.
    pub(crate) fn is_retired(&self) -> bool {
        self.retired.get()
    }

    /// Looks for a deadline that has passed, and orders the connection closed if there is one.
    pub(crate) fn examine(&self, now: CoarseMillis, timeouts: Timeouts) {
        let expired = |since: CoarseMillis, timeout: CoarseMillis| now.saturating_sub(since) >= timeout;
        if let Some(since) = self.blocked.get() {
            let stall = now.saturating_sub(since);
            let total = self.stalled.get().saturating_add(stall);
            if stall >= timeouts.pace.grace || total >= timeouts.pace.allowance(self.written.get()) {
                return self.issue(Command::Close(Timeout::Reader), now);
            }
        }
        // A client that has not taken the end of its answer yet is a slow reader and no idle one.
        let (http2, idle) = (self.http2.get(), self.active.get() == 0 && self.blocked.get().is_none());
        match self.wait.get() {
            // An incomplete HTTP/2 head blocks all streams of its connection.
            Wait::Head if (idle || http2) && expired(self.since.get(), timeouts.head) => {
                self.issue(Command::Close(Timeout::Head), now);
            }
            Wait::First | Wait::Next if idle && self.closing.get() => {
                if expired(self.since.get(), timeouts.farewell) {
                    self.issue(Command::Close(Timeout::Farewell), now);
                }
            }
            Wait::First if idle && expired(self.since.get(), timeouts.head) => {
                self.issue(Command::Close(Timeout::Idle), now);
            }
            Wait::Next if idle && expired(self.since.get(), timeouts.idle) => {
                if http2 {
                    // HTTP/2 sends GOAWAY first, so that a request on its way is still answered (RFC 9113 section 6.8).
                    self.retired.set(true);
                    self.issue(Command::Drain, now);
                } else {
                    self.issue(Command::Close(Timeout::Idle), now);
                }
            }
            Wait::First | Wait::Handshake | Wait::Head | Wait::Next => {}
        }
    }

    /// Gives an command; one to close is never weakened to one to drain.
    pub(crate) fn issue(&self, command: Command, now: CoarseMillis) {
        if matches!(self.command.get(), Some(Command::Close(_))) || self.command.get() == Some(command) {
            return;
        }
        self.command.set(Some(command));
        if !self.closing.replace(true) && self.wait.get() != Wait::Head {
            self.since.set(now);
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The command in force. Without one, the task of `cx` is woken when one comes.
    pub(crate) fn command(&self, cx: &Context<'_>) -> Option<Command> {
        let command = self.command.get();
        if !matches!(command, Some(Command::Close(_))) {
            match self.waker.take() {
                Some(waker) if waker.will_wake(cx.waker()) => self.waker.set(Some(waker)),
                _ => self.waker.set(Some(cx.waker().clone())),
            }
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUTS: Timeouts = Timeouts {
        head: 10_000,
        idle: 75_000,
        farewell: 1_000,
        pace: Pace { grace: 30_000, bytes_per_second: 500 },
    };

    fn command_after(activity: &Activity, now: CoarseMillis) -> Option<Command> {
        activity.examine(now, TIMEOUTS);
        activity.command(&Context::from_waker(Waker::noop()))
    }

    fn served_once(http2: bool, ended: CoarseMillis) -> Activity {
        let activity = Activity::new(0);
        activity.begin_serving(http2, 0);
        activity.begin_head(0);
        activity.end_frame(true, 0);
        activity.begin_request();
        activity.end_request(ended);
        activity
    }

    #[test]
    fn a_client_that_never_finishes_its_head_is_closed() {
        let activity = Activity::new(0);
        assert!(activity.receive(5_000));
        assert_eq!(command_after(&activity, 9_999), None);
        assert_eq!(command_after(&activity, 10_000), Some(Command::Close(Timeout::Head)));
    }

    #[test]
    fn a_client_that_never_sends_a_byte_is_closed() {
        let activity = Activity::new(0);
        assert_eq!(command_after(&activity, 10_000), Some(Command::Close(Timeout::Idle)));
    }

    #[test]
    fn bytes_that_trickle_in_do_not_extend_the_deadline_of_a_head() {
        let activity = served_once(false, 1_000);
        assert!(activity.receive(2_000));
        assert!(!activity.receive(11_999));
        assert_eq!(command_after(&activity, 11_999), None);
        assert_eq!(command_after(&activity, 12_000), Some(Command::Close(Timeout::Head)));
    }

    #[test]
    fn an_idle_connection_has_the_longer_patience() {
        let activity = served_once(false, 1_000);
        assert_eq!(command_after(&activity, 75_999), None);
        assert_eq!(command_after(&activity, 76_000), Some(Command::Close(Timeout::Idle)));
    }

    /// RFC 9113 section 9.1: a server keeps idle connections open as long as possible, and sends GOAWAY before it closes one.
    #[test]
    fn an_idle_connection_of_http_2_says_goodbye_before_it_closes() {
        let activity = served_once(true, 1_000);
        activity.end_frame(false, 30_000);
        assert_eq!(command_after(&activity, 75_999), None, "a PING starts neither a head nor a request");
        assert_eq!(command_after(&activity, 76_000), Some(Command::Drain));
        assert!(activity.is_closing() && activity.is_retired());
        assert_eq!(command_after(&activity, 76_999), Some(Command::Drain));
        assert_eq!(command_after(&activity, 77_000), Some(Command::Close(Timeout::Farewell)));
    }

    /// The last bytes of an answer may wait in the library's buffer when the answer counts as ended.
    #[test]
    fn a_client_that_has_not_taken_the_end_of_its_answer_is_not_idle() {
        let activity = served_once(false, 0);
        activity.record_blocked_write(0);
        activity.issue(Command::Drain, 0);
        assert_eq!(
            command_after(&activity, 20_000),
            Some(Command::Drain),
            "the farewell period starts after the end of the response"
        );
        activity.record_write(10, || 20_000);
        assert_eq!(command_after(&activity, 20_999), Some(Command::Drain));
        assert_eq!(command_after(&activity, 21_000), Some(Command::Close(Timeout::Farewell)));

        let activity = served_once(false, 0);
        activity.record_blocked_write(0);
        assert!(activity.receive(5_000));
        assert_eq!(
            command_after(&activity, 29_999),
            None,
            "an error for the incomplete head would land inside the response"
        );
        assert_eq!(command_after(&activity, 30_000), Some(Command::Close(Timeout::Reader)));
    }

    #[test]
    fn half_a_head_of_http_2_is_due_although_other_streams_are_answered() {
        let activity = served_once(true, 0);
        activity.begin_request();
        activity.begin_head(1_000);
        activity.begin_request();
        activity.end_request(5_000);
        assert_eq!(command_after(&activity, 10_999), None);
        assert_eq!(command_after(&activity, 11_000), Some(Command::Close(Timeout::Head)));
    }

    #[test]
    fn a_head_of_http_2_that_becomes_no_request_leaves_the_connection_idle() {
        let activity = served_once(true, 0);
        activity.begin_head(1_000);
        activity.end_frame(true, 2_000);
        assert_eq!(command_after(&activity, 76_999), None);
        assert_eq!(command_after(&activity, 77_000), Some(Command::Drain));
    }

    #[test]
    fn a_request_that_is_being_answered_is_never_idle() {
        let activity = Activity::new(0);
        activity.begin_request();
        assert_eq!(command_after(&activity, 1_000_000), None);
    }

    #[test]
    fn a_connection_that_drains_waits_a_moment_for_what_is_on_its_way() {
        let activity = served_once(false, 0);
        activity.issue(Command::Drain, 50_000);
        assert_eq!(command_after(&activity, 50_999), Some(Command::Drain));
        activity.begin_request();
        assert_eq!(command_after(&activity, 90_000), Some(Command::Drain));
        activity.end_request(90_000);
        assert_eq!(command_after(&activity, 91_000), Some(Command::Close(Timeout::Farewell)));
    }

    #[test]
    fn a_client_that_stops_reading_is_closed_unless_it_goes_on() {
        let activity = Activity::new(0);
        activity.begin_request();
        activity.record_blocked_write(0);
        activity.record_blocked_write(20_000);
        activity.record_write(1 << 20, || 25_000);
        activity.record_blocked_write(29_000);
        assert_eq!(command_after(&activity, 30_000), None);
        assert_eq!(command_after(&activity, 59_000), Some(Command::Close(Timeout::Reader)));
    }

    #[test]
    fn a_client_that_reads_steadily_and_too_slowly_is_closed() {
        let activity = Activity::new(0);
        activity.begin_request();
        for second in 0..40 {
            activity.record_blocked_write(second * 1_000);
            let command = command_after(&activity, second * 1_000 + 999);
            // 10 bytes a second, where 500 are the least: the grace of 30 s is used up.
            let closed = second * 1_000 + 999 >= 30_000 + second * 20;
            assert_eq!(command.is_some(), closed, "second {second}");
            if closed {
                return assert_eq!(command, Some(Command::Close(Timeout::Reader)));
            }
            activity.record_write(10, || (second + 1) * 1_000);
        }
        panic!("the connection was not closed");
    }

    #[test]
    fn an_order_to_close_is_not_weakened() {
        let activity = Activity::new(0);
        activity.issue(Command::Close(Timeout::Drain), 0);
        activity.issue(Command::Drain, 0);
        assert_eq!(
            activity.command(&Context::from_waker(Waker::noop())),
            Some(Command::Close(Timeout::Drain))
        );
    }
}
