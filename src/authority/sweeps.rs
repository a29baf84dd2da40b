//! Chooses the time at which a sweep deletes expired marks. The wall clock alone may be wrong.

use crate::authenticate::MARK_MARGIN;
use crate::clock::Now;
use std::time::{Duration, Instant};

/// The maximum lead of the wall clock over the steady clock. Beyond it, the wall clock is not trusted.
const LEAP: Duration = Duration::from_secs(60 * 60);
/// The time that the wall clock stays untrusted after a leap.
const LEAP_BELIEVED: Duration = MARK_MARGIN;

/// Chooses the time of each sweep. If the wall clock leaps ahead of the steady clock, it is trusted again only after a
/// day. The clock may be corrected within that day, and a deleted mark cannot be restored.
#[derive(Debug)]
pub(crate) struct Sweeps {
    believed: Now,
    leapt: Option<Instant>,
}

impl Sweeps {
    /// Starts at `now`, and trusts the wall clock.
    pub(crate) fn from(now: Now) -> Self {
        Self { believed: now, leapt: None }
    }

    /// Returns the time that a sweep at `now` must use.
    pub(crate) fn time(&mut self, now: Now) -> Now {
        let expected = self.believed.later(now.steady);
        if now.unix <= expected.unix.saturating_add(LEAP.as_secs()) {
            self.leapt = None;
        } else {
            let leapt = *self.leapt.get_or_insert(now.steady);
            if now.steady.saturating_duration_since(leapt) < LEAP_BELIEVED {
                return expected;
            }
        }
        *self = Self::from(now);
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 60 * 60;

    /// Returns `start` with the wall clock advanced by `wall` seconds, and the steady clock by `steady` seconds.
    fn after(start: Now, wall: i64, steady: u64) -> Now {
        Now {
            unix: start.unix.saturating_add_signed(wall),
            steady: start.steady + Duration::from_secs(steady),
            ..start
        }
    }

    #[test]
    fn a_clock_that_leaps_sweeps_nothing_before_a_day_has_passed() {
        let start = Now::at(1_000_000_000);
        let time = |sweeps: &mut Sweeps, wall: i64, steady: u64| {
            sweeps.time(after(start, wall, steady)).unix - start.unix
        };
        let mut sweeps = Sweeps::from(start);
        assert_eq!(time(&mut sweeps, 60, 60), 60);
        let year = 365 * 86_400;
        assert_eq!(time(&mut sweeps, year, 120), 120);
        assert_eq!(time(&mut sweeps, year + 60, 180), 180);
        // The clock is corrected. No sweep has used the wrong time.
        assert_eq!(time(&mut sweeps, 240, 240), 240);
        // The clock leaps again and is trusted after a day.
        let steady = |passed: u64| 300 + passed;
        let wall = |passed: u64| year + i64::try_from(passed).unwrap();
        assert_eq!(time(&mut sweeps, wall(0), steady(0)), 300);
        assert_eq!(time(&mut sweeps, wall(DAY - 1), steady(DAY - 1)), 300 + DAY - 1);
        assert_eq!(time(&mut sweeps, wall(DAY), steady(DAY)), u64::try_from(wall(DAY)).unwrap());
    }

    #[test]
    fn a_clock_that_is_set_right_within_an_hour_or_back_is_believed_at_once() {
        let start = Now::at(1_000_000_000);
        let mut sweeps = Sweeps::from(start);
        assert_eq!(sweeps.time(after(start, 3660, 60)).unix, start.unix + 3660);
        assert_eq!(sweeps.time(after(start, 60, 120)).unix, start.unix + 60);
        assert_eq!(sweeps.time(after(start, -86_400, 180)).unix, start.unix - 86_400);
    }
}
