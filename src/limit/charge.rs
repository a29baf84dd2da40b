//! The result of charging one request to a limit.

use std::time::Duration;

/// The result of charging one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Charge {
    /// The request is admitted. A client may send `remaining` further requests at once, and one more after at most
    /// `next`.
    Admitted { remaining: u32, next: Duration },
    /// The request is refused. Exactly one request is admitted after `wait`.
    Refused { wait: Duration },
    /// The request is refused, because the fleet cannot be asked.
    Unavailable,
}

/// Rounds up to whole seconds. A client must not receive a wait that is too short.
pub(super) fn whole_seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}
