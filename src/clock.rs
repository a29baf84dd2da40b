//! Reads the time of a request once.
//!
//! All stages get the same [`Now`], so a token cannot expire between two checks. Tests can choose the time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The current time: a wall clock for claims, and a steady clock for limits, waits and durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Seconds since 1970-01-01T00:00:00Z, without leap seconds (`NumericDate`, RFC 7519 section 2).
    pub unix: u64,
    /// The nanoseconds within the second.
    pub subsec_nanos: u32,
    /// The steady clock, which never goes back.
    pub steady: Instant,
}

impl Now {
    /// Reads both clocks.
    pub fn read() -> Self {
        // A clock before 1970 counts as 1970. No token is valid at that time.
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { unix: wall.as_secs(), subsec_nanos: wall.subsec_nanos(), steady: Instant::now() }
    }

    /// Returns the time at `steady`. The wall clock advances by the same amount as the steady clock.
    pub fn later(self, steady: Instant) -> Self {
        let elapsed = steady.saturating_duration_since(self.steady);
        let nanos = self.subsec_nanos + elapsed.subsec_nanos();
        Self {
            unix: self.unix + elapsed.as_secs() + u64::from(nanos / 1_000_000_000),
            subsec_nanos: nanos % 1_000_000_000,
            steady,
        }
    }

    /// Returns this wall-clock time (seconds since 1970) with the current steady time. For tests and hypothetical
    /// requests.
    pub fn at(unix: u64) -> Self {
        Self { unix, subsec_nanos: 0, steady: Instant::now() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_moment_is_later_on_both_clocks() {
        let now = Now { unix: 10, subsec_nanos: 900_000_000, steady: Instant::now() };
        let later = now.later(now.steady + Duration::from_millis(2_200));
        assert_eq!((later.unix, later.subsec_nanos), (13, 100_000_000));
        assert_eq!(later.later(now.steady).unix, 13, "the steady clock does not go back");
    }
}
