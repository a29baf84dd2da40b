//! Measures the body of a request: its bounds, its progress, and the reason why it failed.

use crate::denial::{Denial, Malformed};
use crate::peer::activity::SWEEP;
use std::cell::Cell;
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;

/// The bounds on a client's body.
#[derive(Clone, Copy, Debug)]
pub struct BodyBounds {
    /// The maximum size of the body, in bytes.
    pub(crate) size: u64,
    /// The maximum pause between two reads.
    pub(crate) timeout: Duration,
    /// The minimum rate in bytes per second once `timeout` is used up. 0 disables the minimum.
    pub(crate) min_rate: u64,
}

impl BodyBounds {
    /// Returns the total waiting time allowed to a client that has sent `bytes` bytes. `None` means unlimited.
    pub(in crate::forward) fn allowance(&self, bytes: u64) -> Option<Duration> {
        let seconds = bytes.checked_div(self.min_rate)?;
        Some(self.timeout.saturating_add(Duration::from_secs(seconds)))
    }
}

/// Measures a request's body while it is forwarded. The request's record shares the meter.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(in crate::forward) bytes: Cell<u64>,
    pub(in crate::forward) fault: Cell<Option<BodyError>>,
    pub(in crate::forward) waiting: Cell<WaitingFor>,
    pub(in crate::forward) ended: Cell<bool>,
    bounds: BodyBounds,
}

impl Meter {
    pub(in crate::forward) fn new(bounds: BodyBounds) -> Self {
        Self {
            bytes: Cell::new(0),
            fault: Cell::new(None),
            waiting: Cell::new(WaitingFor::Server(Instant::now())),
            ended: Cell::new(false),
            bounds,
        }
    }

    #[cfg(test)]
    pub(in crate::forward) fn wait_for(&self, whom: WaitingFor) {
        self.waiting.set(whom);
    }

    #[cfg(test)]
    pub(in crate::forward) fn end(&self) {
        self.ended.set(true);
    }

    /// Returns the number of bytes read from the client.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Returns whether the body has ended or is no longer read.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended.get()
    }

    /// Returns whether the request waits for the client or for the server.
    pub(in crate::forward) fn waiting(&self) -> WaitingFor {
        self.waiting.get()
    }

    /// Returns whether the request cannot continue: the server has accepted no data for `time`, or the gateway waits
    /// for a body that it no longer reads.
    pub(in crate::forward) fn is_stuck(&self, time: Duration) -> bool {
        match self.waiting.get() {
            WaitingFor::Client => self.is_ended(),
            WaitingFor::Server(since) => since.elapsed() >= time,
        }
    }

    /// Describes why the body failed, for the operator.
    pub(crate) fn detail(&self) -> Option<String> {
        let BodyBounds { size, timeout, min_rate } = self.bounds;
        self.fault.get().map(|fault| match fault {
            BodyError::TooLarge => format!("the request's body is larger than {size} bytes"),
            BodyError::TooSlow => format!(
                "the request's body arrived too slowly: {} bytes, with pauses of {timeout:?} or below {min_rate} bytes a second",
                self.bytes.get()
            ),
            BodyError::TooManyTrailers | BodyError::Broken => fault.to_string(),
        })
    }

    /// Returns the denial if the body failed.
    pub(crate) fn denial(&self) -> Option<Denial> {
        self.fault.get().map(BodyError::denial)
    }
}

/// The peer that a forwarded request waits for.
#[derive(Clone, Copy, Debug)]
pub(in crate::forward) enum WaitingFor {
    /// The client, which must send more of its body. The bounds of the request's body apply.
    Client,
    /// The server, which must accept more data or respond. The wait began at this time.
    Server(Instant),
}

impl WaitingFor {
    /// Returns the server's remaining time, or `None` if it has passed. While the request waits for the client, all of
    /// the server's time remains.
    pub(in crate::forward) fn left(self, timeout: Duration) -> Option<Duration> {
        match self {
            Self::Client => Some(timeout.max(SWEEP)),
            Self::Server(since) => timeout.checked_sub(since.elapsed()).filter(|left| !left.is_zero()),
        }
    }
}

/// The reason why a request's body ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// The body has more bytes than allowed.
    TooLarge,
    /// The client sent no bytes for too long, or too few bytes.
    TooSlow,
    /// The body has more trailers, or larger ones, than a request may have.
    TooManyTrailers,
    /// The client disconnected, or the framing of the body is invalid.
    Broken,
}

impl BodyError {
    pub(in crate::forward) const fn denial(self) -> Denial {
        match self {
            Self::TooLarge => Denial::BodyTooLarge,
            Self::TooSlow => Denial::RequestTimeout,
            Self::TooManyTrailers => Denial::HeadersTooLarge,
            Self::Broken => Denial::BadRequest(Malformed::Framing),
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the request's body is too large",
            Self::TooSlow => "the request's body did not arrive in time",
            Self::TooManyTrailers => "the request has too many trailers, or they are too large",
            Self::Broken => "the request's body ended early",
        })
    }
}

impl std::error::Error for BodyError {}
