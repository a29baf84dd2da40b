//! Decides when the next order begins. Times are in seconds since 1970.

use crate::clock::Now;
use crate::tls::Validity;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// The maximum number of orders within 24 hours, over all starts of all gateways that share a state folder.
pub(crate) const ORDERS_PER_DAY: usize = 20;
const DAY: u64 = 86_400;
/// The times between attempts. Four attempts fall into the first hour: Let's Encrypt allows five failed validations
/// of a host per hour.
const BACK_OFF: [u64; 6] = [60, 300, 900, 3600, 4 * 3600, 8 * 3600];
/// The bounds on the time between two requests for the renewal window (RFC 9773 section 4.3.2).
const WINDOW_AGE: (u64, u64) = (60, DAY);

/// The time in which the server suggests to renew a certificate (RFC 9773 section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// Returns the time at which a certificate is renewed. `random` places it within the window of the server. Without a
/// window, the time is up to a twentieth of the lifetime before two thirds of the lifetime. `ordered` is the time of the
/// certificate's order, because servers set the beginning of the validity to an earlier time.
pub(crate) fn renewal(validity: Validity, window: Option<Window>, random: u16, ordered: u64) -> u64 {
    let Validity { begins, ends } = validity;
    let lifetime = ends.saturating_sub(begins);
    let share = |whole: u64| u64::try_from((u128::from(whole) * u128::from(random)) >> 16).unwrap_or(whole);
    match window {
        Some(Window { start, end }) => {
            // A window at the end of the validity would leave no time for a second attempt. A window in the past asks
            // for an order at once, but not for one order after the other.
            let latest = ends.saturating_sub(lifetime / 10);
            let earliest = begins.max(ordered.min(ends)) + (lifetime / 4).min(3600);
            (start + share(end.saturating_sub(start))).max(earliest).min(latest)
        }
        None => begins + lifetime / 3 * 2 - share(lifetime / 20),
    }
}

/// Returns the time to the next attempt after this number of failures in a row, in seconds. It is up to a quarter longer
/// than the step, so that gateways do not retry at the same moment.
pub(crate) fn back_off(failures: u32, random: u16) -> u64 {
    let step = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX).min(BACK_OFF.len() - 1);
    BACK_OFF[step] + BACK_OFF[step] / 4 * u64::from(random) / (u64::from(u16::MAX) + 1)
}

/// Returns the time to the next request for the renewal window, in seconds. `delay` is the server's `Retry-After`.
pub(crate) fn window_age(delay: u64) -> u64 {
    delay.clamp(WINDOW_AGE.0, WINDOW_AGE.1)
}

/// A wait of this process. The steady clock measures it: after the wall clock was far ahead and is set back, the wait
/// still ends in time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wait(Option<Instant>);

impl Wait {
    /// Begins a wait of this many seconds.
    pub(crate) fn begin(now: Now, seconds: u64) -> Self {
        Self(now.steady.checked_add(Duration::from_secs(seconds)))
    }

    /// Returns whether the wait is over.
    pub(crate) fn is_over(self, now: Now) -> bool {
        self.0.is_none_or(|end| end <= now.steady)
    }

    /// Returns the end of the wait by the present wall clock, in seconds since 1970; 0 if the wait is over.
    pub(crate) fn end(self, now: Now) -> u64 {
        self.0.filter(|end| *end > now.steady).map_or(0, |end| now.later(end).unix)
    }

    /// Returns the longer wait of two.
    #[must_use]
    pub(crate) fn max(self, other: Self) -> Self {
        Self(self.0.max(other.0))
    }
}

/// The recent attempts at one directory, as in their file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attempts {
    /// The times at which orders began.
    begun: Vec<u64>,
    /// The time before which the server wants no further request.
    not_before: Option<u64>,
}

impl Attempts {
    /// Returns the time from which another order is allowed.
    pub(crate) fn allowed(&self, now: u64) -> u64 {
        let recent = || self.begun.iter().filter(|begun| begun.saturating_add(DAY) > now && **begun <= now);
        let bound = match recent().count().checked_sub(ORDERS_PER_DAY) {
            Some(_) => recent().min().map_or(now, |first| first + DAY),
            None => now,
        };
        // A clock that was set back must not delay an order for years.
        let wait = self.not_before.filter(|until| *until <= now + 7 * DAY).unwrap_or(now);
        bound.max(wait)
    }

    /// Returns the time of the latest order of the last 24 hours, and otherwise 0.
    pub(crate) fn latest(&self) -> u64 {
        self.begun.iter().copied().max().unwrap_or_default()
    }

    /// Records the beginning of an order.
    pub(crate) fn begin(&mut self, now: u64) {
        self.begun.retain(|begun| begun.saturating_add(DAY) > now && *begun <= now);
        self.begun.push(now);
        self.not_before = None;
    }

    /// Records that the server wants no further request before this time.
    pub(crate) fn wait_until(&mut self, not_before: Option<u64>) {
        self.not_before = not_before;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_lifetime() {
        for days in [90, 47, 6, 1] {
            let validity = Validity { begins: NOW, ends: NOW + days * DAY };
            assert_eq!(renewal(validity, None, 0, 0), NOW + days * DAY / 3 * 2, "{days}");
            let early = renewal(validity, None, u16::MAX, 0);
            assert!(early > NOW + days * DAY * 6 / 10 && early < NOW + days * DAY * 2 / 3, "{days}: {early}");
        }
    }

    #[test]
    fn the_window_of_the_server_counts_and_a_window_in_the_past_means_now() {
        let validity = Validity { begins: NOW, ends: NOW + 90 * DAY };
        let window = Window { start: NOW + 10 * DAY, end: NOW + 12 * DAY };
        assert_eq!(renewal(validity, Some(window), 0, 0), NOW + 10 * DAY);
        assert_eq!(renewal(validity, Some(window), 1 << 15, 0), NOW + 11 * DAY);
        let past = Window { start: NOW - DAY, end: NOW - 1 };
        assert_eq!(renewal(validity, Some(past), 0, 0), NOW + 3600, "a fresh certificate stays for an hour");
        let backdated = Validity { begins: NOW - 3600, ends: NOW + 90 * DAY };
        assert_eq!(renewal(backdated, Some(past), 0, NOW), NOW + 3600, "nor is the next one ordered at once");
        let late = Window { start: NOW + 95 * DAY, end: NOW + 99 * DAY };
        assert_eq!(renewal(validity, Some(late), 0, 0), NOW + 81 * DAY);
    }

    #[test]
    fn failures_are_retried_at_growing_intervals() {
        assert_eq!(
            [1, 2, 3, 4, 5, 6, 7, u32::MAX].map(|failures| back_off(failures, 0)),
            [60, 300, 900, 3600, 14_400, 28_800, 28_800, 28_800]
        );
        assert!(back_off(1, u16::MAX) < 75 && back_off(1, 1 << 15) > 60);
    }

    #[test]
    fn the_window_is_asked_for_at_least_daily_and_at_most_every_minute() {
        assert_eq!([0, 3600, u64::MAX].map(window_age), [60, 3600, DAY]);
    }

    #[test]
    fn a_wait_that_began_while_the_clock_was_ahead_ends_in_time() {
        let ahead = Now::at(NOW + 365 * DAY);
        let wait = Wait::begin(ahead, 60);
        assert_eq!(wait.end(ahead), NOW + 365 * DAY + 60);
        let after = |unix: u64, seconds: u64| Now {
            unix,
            subsec_nanos: 0,
            steady: ahead.steady + Duration::from_secs(seconds),
        };
        // The clock is set right after ten seconds.
        assert_eq!(wait.end(after(NOW, 10)), NOW + 50);
        assert!(!wait.is_over(after(NOW, 59)) && wait.is_over(after(NOW, 60)));
        assert_eq!(wait.end(after(NOW, 60)), 0);
        assert!(Wait::default().is_over(ahead));
        let longer = Wait::begin(ahead, 90);
        assert_eq!([wait.max(longer), longer.max(wait)].map(|wait| wait.end(after(NOW, 0))), [NOW + 90; 2]);
    }

    #[test]
    fn a_day_has_a_bounded_number_of_orders() {
        let mut attempts = Attempts::default();
        let count = u64::try_from(ORDERS_PER_DAY).unwrap();
        for nth in 0..count {
            assert_eq!(attempts.allowed(NOW + nth), NOW + nth);
            attempts.begin(NOW + nth);
        }
        assert_eq!(attempts.allowed(NOW + 100), NOW + DAY);
        assert_eq!(attempts.allowed(NOW + DAY), NOW + DAY, "the first has left the day");
        attempts.begin(NOW + DAY);
        assert_eq!(attempts.allowed(NOW + DAY), NOW + DAY + 1);
    }

    #[test]
    fn the_wait_of_the_server_counts_until_the_next_order() {
        let mut attempts = Attempts::default();
        attempts.begin(NOW);
        attempts.wait_until(Some(NOW + 500));
        assert_eq!(attempts.allowed(NOW + 1), NOW + 500);
        assert_eq!(attempts.allowed(NOW + 501), NOW + 501);
        attempts.begin(NOW + 501);
        assert_eq!(attempts.allowed(NOW + 502), NOW + 502);
        attempts.wait_until(Some(NOW + 400 * DAY));
        assert_eq!(attempts.allowed(NOW + 502), NOW + 502, "written by another clock");
    }

    proptest! {
        /// An unreachable server, and restarts at any time, never cause more orders than the bound.
        #[test]
        fn no_day_has_more_orders_than_the_bound(steps in proptest::collection::vec(0_u64..4000, 1..200)) {
            let (mut attempts, mut now, mut begun) = (Attempts::default(), NOW, Vec::new());
            for step in steps {
                now += step;
                if attempts.allowed(now) <= now {
                    attempts.begin(now);
                    begun.push(now);
                }
            }
            for first in &begun {
                let day = begun.iter().filter(|at| *at >= first && **at < first + DAY).count();
                prop_assert!(day <= ORDERS_PER_DAY);
            }
        }

        #[test]
        fn a_renewal_is_within_the_validity(lifetime in 60_u64..400 * DAY, random: u16, start: u32, length: u32) {
            let validity = Validity { begins: NOW, ends: NOW + lifetime };
            let start = u64::from(start);
            let window = Window { start, end: start + u64::from(length) };
            for window in [None, Some(window)] {
                let at = renewal(validity, window, random, 0);
                prop_assert!(at > NOW && at < NOW + lifetime, "{at}");
            }
        }
    }
}
