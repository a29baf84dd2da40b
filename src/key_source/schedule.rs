//! When to fetch a key set next. The time is randomized, so that gateways do not fetch at the same moment. Failures
//! make fetches less frequent.

use aws_lc_rs::rand;
use std::time::Duration;

/// The minimum time between two scheduled fetches, unless the policy's interval is shorter. The bound limits the effect
/// of a short `max-age` from an issuer.
const REFRESH_MIN: Duration = Duration::from_secs(60);
/// The pause after the first failure. Each further failure doubles the pause.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Returns the time until the next fetch. `fresh` is from the response, `refresh` from the policy.
pub(super) fn next_refresh(fresh: Option<Duration>, refresh: Duration) -> Duration {
    jittered(wanted_refresh(fresh, refresh), random())
}

/// Returns the longest time until the next fetch.
pub(super) fn wanted_refresh(fresh: Option<Duration>, refresh: Duration) -> Duration {
    fresh.unwrap_or(refresh).max(REFRESH_MIN).min(refresh)
}

/// Returns the pause after this number of consecutive failures.
pub(super) fn backoff(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        failures => {
            FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(LONGEST_PAUSE)
        }
    }
}

/// Shortens a time by up to a tenth.
fn jittered(time: Duration, random: u16) -> Duration {
    time - time * u32::from(random) / (10 * (u32::from(u16::MAX) + 1))
}

fn random() -> u16 {
    let mut bytes = [0; 2];
    // Without random numbers, the time is not randomized.
    let _ = rand::fill(&mut bytes);
    u16::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_next_fetch_is_within_the_bounds_of_the_policy(fresh: Option<u32>, refresh in 1_u64..100_000, failures: u32) {
            let refresh = Duration::from_secs(refresh);
            let next = next_refresh(fresh.map(|fresh| Duration::from_secs(fresh.into())), refresh);
            prop_assert!(next <= refresh && next >= REFRESH_MIN.min(refresh) * 9 / 10, "{:?}", next);
            prop_assert!(backoff(failures) <= LONGEST_PAUSE);
            prop_assert!(backoff(failures) >= backoff(failures.saturating_sub(1)));
        }
    }

    #[test]
    fn times_are_spread_over_a_tenth() {
        let hour = Duration::from_secs(3600);
        assert_eq!(jittered(hour, 0), hour);
        assert!(jittered(hour, u16::MAX) > hour * 9 / 10 - Duration::from_millis(1));
        assert_eq!(
            next_refresh(Some(Duration::from_secs(86_400)), hour).max(hour),
            hour,
            "never later than the policy says"
        );
    }
}
