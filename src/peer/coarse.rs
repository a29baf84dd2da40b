//! Defines the coarse clock of a core, and the core's state that connections read.

use std::cell::Cell;
use std::time::Duration;

/// Milliseconds on a core's coarse clock. The core's sweep advances the clock.
pub(crate) type CoarseMillis = u64;

/// Converts a duration to milliseconds, rounded down.
pub(crate) fn coarse_millis(duration: Duration) -> CoarseMillis {
    CoarseMillis::try_from(duration.as_millis()).unwrap_or(CoarseMillis::MAX)
}

/// The state of a core that its connections read. Only the core changes it.
#[derive(Debug)]
pub(crate) struct CoreState {
    /// The time of the last sweep.
    pub(crate) coarse_now: Cell<CoarseMillis>,
    /// Whether each HTTP/1.1 response closes its connection.
    pub(crate) is_closing: Cell<bool>,
    /// Maximum pause within a body.
    pub(crate) body_timeout: Duration,
}

impl CoreState {
    /// Creates the state of a new core, with its clock at 0.
    pub(crate) fn new(body_timeout: Duration) -> Self {
        Self { coarse_now: Cell::new(0), is_closing: Cell::new(false), body_timeout }
    }
}
