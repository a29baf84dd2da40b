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
    /// Release the buffers, if the connection is idle. This command closes nothing.
    Park,
    /// Finish the current requests and any request in transit, then close.
    Drain,
    Close(Timeout),
}

impl Command {
    /// Returns whether the connection closes whatever happens. After a farewell, it still serves a request that arrived
    /// in the meantime.
    fn is_final(self) -> bool {
        match self {
            Self::Close(timeout) => timeout != Timeout::Farewell,
            Self::Park | Self::Drain => false,
        }
    }
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
    /// The time that a closing connection waits for a request that may be in transit.
    pub(crate) farewell: CoarseMillis,
    /// The time that an HTTP/1.1 connection is idle before it is parked.
    pub(crate) park: CoarseMillis,
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
    broken_off: Cell<bool>,
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
            broken_off: Cell::new(false),
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
        self.hold();
        self.answering.set(true);
        if !self.http2.get() {
            self.wait.set(Wait::Next);
        }
    }

    /// Keeps the connection from being idle until the matching [`Self::end_request`].
    pub(crate) fn hold(&self) {
        if self.active.replace(self.active.get() + 1) == 0 {
            self.stalled.set(0);
            self.written.set(0);
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

    /// Returns whether the last write was blocked. The client's socket wakes the connection's task once it accepts more.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.get().is_some()
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

    /// Records that a response ended early, and that the client sees its end only by its length or by the end of the
    /// connection.
    pub(crate) fn break_off(&self) {
        self.broken_off.set(true);
    }

    /// Returns whether the connection must end with a reset, so that the client does not take a part of a response for the
    /// whole one.
    pub(crate) fn is_broken_off(&self) -> bool {
        self.broken_off.get()
    }

    /// Returns whether a farewell closes the connection. Withdraws the farewell if a request arrived after the sweep that
    /// issued it.
    pub(crate) fn takes_leave(&self) -> bool {
        let is_idle = self.active.get() == 0
            && matches!(self.wait.get(), Wait::First | Wait::Next)
            && self.blocked.get().is_none();
        if !is_idle {
            self.command.set(Some(Command::Drain));
        }
        is_idle
    }

    /// Withdraws a farewell, which follows later.
    pub(crate) fn postpone_farewell(&self, now: CoarseMillis) {
        if self.command.get() == Some(Command::Close(Timeout::Farewell)) {
            self.command.set(Some(Command::Drain));
            self.since.set(now);
        }
    }

    /// Returns whether a connection waits for another request, of which no byte was read, and has no unsent output. Over
    /// HTTP/2, output that waits for the client's window does not count. This is exact only directly after the HTTP
    /// library has done all that it could: the library flushes the stream when its own buffer is empty.
    pub(crate) fn is_idle(&self) -> bool {
        self.active.get() == 0
            && self.wait.get() == Wait::Next
            && !self.answering.get()
            && self.blocked.get().is_none()
    }

    /// Returns whether the connection [is idle](Self::is_idle), and has been so for this time.
    pub(crate) fn is_idle_for(&self, pause: CoarseMillis, now: CoarseMillis) -> bool {
        self.is_idle() && now.saturating_sub(self.since.get()) >= pause
    }

    /// Issues [`Command::Park`] now, not when the sweep does.
    #[cfg(test)]
    pub(crate) fn command_to_park(&self) {
        if self.command.get().is_none() {
            self.send(Command::Park);
        }
    }

    /// Withdraws [`Command::Park`].
    pub(crate) fn resume(&self) {
        if self.command.get() == Some(Command::Park) {
            self.command.set(None);
        }
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
                } else if http2 && self.command.get() == Some(Command::Drain) {
                    // The connection's task looks whether GOAWAY is due.
                    self.send(Command::Drain);
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
            Wait::Next if idle && !http2 && self.command.get().is_none() => {
                if expired(self.since.get(), timeouts.park) {
                    self.send(Command::Park);
                }
            }
            Wait::First | Wait::Handshake | Wait::Head | Wait::Next => {}
        }
    }

    /// Issues a command to drain or close. Only a farewell is replaced by another command to close.
    pub(crate) fn issue(&self, command: Command, now: CoarseMillis) {
        if self.command.get().is_some_and(Command::is_final) || self.command.get() == Some(command) {
            return;
        }
        if !self.closing.replace(true) && self.wait.get() != Wait::Head {
            self.since.set(now);
        }
        self.send(command);
    }

    fn send(&self, command: Command) {
        self.command.set(Some(command));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Returns the current command. Registers the task of `cx` to be woken by the next command, if another can follow.
    pub(crate) fn command(&self, cx: &Context<'_>) -> Option<Command> {
        let command = self.command.get();
        if !command.is_some_and(Command::is_final) {
            match self.waker.take() {
                Some(waker) if waker.will_wake(cx.waker()) => self.waker.set(Some(waker)),
                _ => self.waker.set(Some(cx.waker().clone())),
            }
        }
        command
    }

    /// Calls `poll` for the task that [`Self::command`] has registered. Returns `None` if no task is registered.
    pub(crate) fn with_task<T>(&self, poll: impl FnOnce(&mut Context<'_>) -> T) -> Option<T> {
        let waker = self.waker.take()?;
        let before = self.command.get();
        let polled = poll(&mut Context::from_waker(&waker));
        if self.command.get() != before {
            waker.wake_by_ref();
        }
        self.waker.set(Some(waker));
        Some(polled)
    }
}

#[cfg(test)]
mod tests;
