//! Tracks what each connection waits for, and since when.
//!
//! One periodic sweep per core (`accept::core`) enforces all deadlines, so a request starts no timer and reads no
//! clock. A deadline takes effect up to two [`SWEEP`] intervals late, but never early.

use super::coarse::CoarseMillis;
use super::streams::Pace;
use std::cell::Cell;
use std::fmt;
use std::task::{Context, Waker};
use std::time::Duration;

/// Interval at which a core checks the deadlines of its connections.
pub(crate) const SWEEP: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Finish the current requests and any request in transit, then close.
    Drain,
    Close(Timeout),
}

/// The deadline that a connection missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timeout {
    /// The client did not complete the head of a request.
    Head,
    /// The client sent no first byte, or no further request.
    Idle,
    /// The client read responses too slowly.
    Reader,
    /// The graceful shutdown took too long.
    Drain,
    /// The closing connection waited for a request in transit, but no request arrived.
    Farewell,
}

/// The limits of a connection, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// Maximum time to receive a head. For the first head, the time starts when the connection is ready.
    pub(crate) head: CoarseMillis,
    /// Maximum time between two requests.
    pub(crate) idle: CoarseMillis,
    /// How long a closing connection waits for a request that may be in transit.
    pub(crate) farewell: CoarseMillis,
    /// The slowest acceptable reading rate.
    pub(crate) pace: Pace,
}

/// The input that a connection waits for. Requests in progress are counted separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// The first byte of the connection.
    First,
    /// The end of the TLS handshake. The handshake has a separate timer.
    Handshake,
    /// The rest of a request's head.
    Head,
    /// Another request.
    Next,
}

/// The progress of one connection. The connection's task, its requests and the core's sweep share it on one thread.
pub(crate) struct Activity {
    http2: Cell<bool>,
    active: Cell<u32>,
    wait: Cell<Wait>,
    since: Cell<CoarseMillis>,
    blocked: Cell<Option<CoarseMillis>>,
    /// Total time that writes were blocked since the connection was last idle. The current blocked write is not
    /// included.
    stalled: Cell<CoarseMillis>,
    /// Number of bytes written since the connection was last idle.
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
    /// Creates the state of a new connection. The deadline of the first head starts now.
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

    pub(crate) fn begin_handshake(&self) {
        self.wait.set(Wait::Handshake);
    }

    /// Records that the connection is ready for requests. `http2` is false for HTTP/1.1.
    pub(crate) fn begin_serving(&self, http2: bool, now: CoarseMillis) {
        self.http2.set(http2);
        if self.wait.replace(Wait::First) == Wait::Handshake {
            self.since.set(now);
        }
    }

    /// Records that HTTP/1.1 bytes arrived. Returns whether they begin a new head.
    pub(crate) fn receive(&self, now: CoarseMillis) -> bool {
        if self.active.get() > 0 || self.wait.get() == Wait::Head {
            return false;
        }
        self.begin_head(now);
        true
    }

    /// Records the first bytes of a head. They start the head's deadline, unless it is the connection's first head,
    /// whose deadline already runs.
    pub(crate) fn begin_head(&self, now: CoarseMillis) {
        if self.wait.replace(Wait::Head) != Wait::First {
            self.since.set(now);
        }
    }

    /// Records the end of an HTTP/2 frame. `ends_head` says whether the frame completes a head.
    pub(crate) fn end_frame(&self, ends_head: bool, now: CoarseMillis) {
        if ends_head || self.wait.get() == Wait::First {
            self.wait.set(Wait::Next);
            self.since.set(now);
        }
    }

    /// Records that a head is complete and its request begins.
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

    /// Records the end of a request: its response was passed to the HTTP library, or was aborted.
    pub(crate) fn end_request(&self, now: CoarseMillis) {
        self.active.set(self.active.get().saturating_sub(1));
        if self.wait.get() != Wait::Head {
            self.since.set(now);
        }
    }

    /// Records that a write was blocked because the client reads too slowly.
    pub(crate) fn record_blocked_write(&self, now: CoarseMillis) {
        if self.blocked.get().is_none() {
            self.blocked.set(Some(now));
        }
    }

    /// Records that the client accepted `bytes` bytes of output.
    pub(crate) fn record_write(&self, bytes: usize, now: impl FnOnce() -> CoarseMillis) {
        self.written.set(self.written.get() + bytes as u64);
        if let Some(since) = self.blocked.take() {
            let now = now();
            self.stalled.set(self.stalled.get() + now.saturating_sub(since));
            // The client has just received the end of the response. The idle period begins now.
            if self.active.get() == 0 && self.wait.get() != Wait::Head {
                self.since.set(now);
            }
        }
    }

    /// Records that all output was written.
    pub(crate) fn record_flush(&self) {
        if self.active.get() == 0 {
            self.answering.set(false);
        }
    }

    /// Returns whether the pipeline may be writing a response. If not, all output is an error response of the HTTP
    /// library to input that it cannot parse.
    pub(crate) fn is_answering(&self) -> bool {
        self.answering.get()
    }

    pub(crate) fn is_active(&self) -> bool {
        self.active.get() > 0
    }

    /// Returns whether the connection closes after its current requests.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// Returns whether the connection closes because it was idle too long.
    pub(crate) fn is_retired(&self) -> bool {
        self.retired.get()
    }

    /// Checks the deadlines. If a deadline has passed, issues a command to drain or close the connection.
    pub(crate) fn examine(&self, now: CoarseMillis, timeouts: Timeouts) {
        let expired = |since: CoarseMillis, timeout: CoarseMillis| now.saturating_sub(since) >= timeout;
        if let Some(since) = self.blocked.get() {
            let stall = now.saturating_sub(since);
            let total = self.stalled.get().saturating_add(stall);
            if stall >= timeouts.pace.grace || total >= timeouts.pace.allowance(self.written.get()) {
                return self.issue(Command::Close(Timeout::Reader), now);
            }
        }
        // A client that has not yet accepted the end of its response is a slow reader, not an idle client.
        let (http2, idle) = (self.http2.get(), self.active.get() == 0 && self.blocked.get().is_none());
        match self.wait.get() {
            // An incomplete HTTP/2 head blocks all streams of the connection. The deadline therefore applies even while
            // requests are in progress.
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
                    // Over HTTP/2, the gateway sends GOAWAY before it closes. A request in transit is then still served
                    // (RFC 9113 section 6.8).
                    self.retired.set(true);
                    self.issue(Command::Drain, now);
                } else {
                    self.issue(Command::Close(Timeout::Idle), now);
                }
            }
            Wait::First | Wait::Handshake | Wait::Head | Wait::Next => {}
        }
    }

    /// Issues a command. [`Command::Drain`] never replaces [`Command::Close`].
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

    /// Returns the current command. Registers the task of `cx` to be woken by the next command, unless the command is
    /// [`Command::Close`].
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
    fn an_idle_connection_has_the_longer_timeout() {
        let activity = served_once(false, 1_000);
        assert_eq!(command_after(&activity, 75_999), None);
        assert_eq!(command_after(&activity, 76_000), Some(Command::Close(Timeout::Idle)));
    }

    /// RFC 9113 section 9.1: a server keeps idle connections open as long as possible, and sends GOAWAY before closing.
    #[test]
    fn an_idle_http_2_connection_sends_goaway_before_it_closes() {
        let activity = served_once(true, 1_000);
        activity.end_frame(false, 30_000);
        assert_eq!(command_after(&activity, 75_999), None, "a PING starts neither a head nor a request");
        assert_eq!(command_after(&activity, 76_000), Some(Command::Drain));
        assert!(activity.is_closing() && activity.is_retired());
        assert_eq!(command_after(&activity, 76_999), Some(Command::Drain));
        assert_eq!(command_after(&activity, 77_000), Some(Command::Close(Timeout::Farewell)));
    }

    /// A response counts as ended while its last bytes may still be in the HTTP library's buffer.
    #[test]
    fn a_client_that_has_not_read_the_end_of_its_response_is_not_idle() {
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
    fn an_incomplete_http_2_head_has_a_deadline_while_other_streams_are_active() {
        let activity = served_once(true, 0);
        activity.begin_request();
        activity.begin_head(1_000);
        activity.begin_request();
        activity.end_request(5_000);
        assert_eq!(command_after(&activity, 10_999), None);
        assert_eq!(command_after(&activity, 11_000), Some(Command::Close(Timeout::Head)));
    }

    #[test]
    fn an_http_2_head_that_does_not_become_a_request_leaves_the_connection_idle() {
        let activity = served_once(true, 0);
        activity.begin_head(1_000);
        activity.end_frame(true, 2_000);
        assert_eq!(command_after(&activity, 76_999), None);
        assert_eq!(command_after(&activity, 77_000), Some(Command::Drain));
    }

    #[test]
    fn a_connection_with_a_request_in_progress_is_never_idle() {
        let activity = Activity::new(0);
        activity.begin_request();
        assert_eq!(command_after(&activity, 1_000_000), None);
    }

    #[test]
    fn a_draining_connection_waits_briefly_for_a_request_in_transit() {
        let activity = served_once(false, 0);
        activity.issue(Command::Drain, 50_000);
        assert_eq!(command_after(&activity, 50_999), Some(Command::Drain));
        activity.begin_request();
        assert_eq!(command_after(&activity, 90_000), Some(Command::Drain));
        activity.end_request(90_000);
        assert_eq!(command_after(&activity, 91_000), Some(Command::Close(Timeout::Farewell)));
    }

    #[test]
    fn a_client_that_stops_reading_is_closed_unless_it_resumes() {
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
    fn a_client_that_reads_steadily_but_too_slowly_is_closed() {
        let activity = Activity::new(0);
        activity.begin_request();
        for second in 0..40 {
            activity.record_blocked_write(second * 1_000);
            let command = command_after(&activity, second * 1_000 + 999);
            // The client reads 10 bytes/s, and the minimum is 500 bytes/s. The connection closes when the 30 s of grace
            // are used up.
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
    fn drain_does_not_replace_close() {
        let activity = Activity::new(0);
        activity.issue(Command::Close(Timeout::Drain), 0);
        activity.issue(Command::Drain, 0);
        assert_eq!(
            activity.command(&Context::from_waker(Waker::noop())),
            Some(Command::Close(Timeout::Drain))
        );
    }
}
