//! Defines the coarse clock of a core, which measures connection deadlines, and the core state that connections read.

use std::cell::Cell;
use std::time::Duration;

/// Milliseconds on a core's own coarse clock, which its sweep advances.
pub(crate) type CoarseMillis = u64;

/// Returns a span on the coarse clock, rounded down to milliseconds.
pub(crate) fn coarse_millis(duration: Duration) -> CoarseMillis {
    CoarseMillis::try_from(duration.as_millis()).unwrap_or(CoarseMillis::MAX)
}

/// The state of a core that its connections read. The core alone changes it.
#[derive(Debug)]
pub(crate) struct CoreState {
    /// The time of the last sweep.
    pub(crate) coarse_now: Cell<CoarseMillis>,
    /// Whether each HTTP/1.1 answer is its connection's last.
    pub(crate) is_closing: Cell<bool>,
    /// The longest pause of a body.
    pub(crate) body_timeout: Duration,
}

impl CoreState {
    /// The state of a core that starts.
    pub(crate) fn new(body_timeout: Duration) -> Self {
        Self { coarse_now: Cell::new(0), is_closing: Cell::new(false), body_timeout }
    }
}
