//! Rate limits: charges a request to the limits of its route, and reports the tightest limit in the response.
//!
//! A limit counts the requests of all cores together. A limit that a fleet shares takes tokens that its gateways lease
//! from a common bucket (`lease`), which is in Redis (`fleet`).

pub(crate) mod bucket;
mod charge;
pub(crate) mod fleet;
mod fleet_state;
mod key;
mod lease;
mod sharing;
mod standing;
pub mod store;
mod tiers;

pub use bucket::Limit;
pub use fleet::Fleet;
#[doc(hidden)]
pub use fleet::read_lease;
pub use fleet_state::FleetState;
pub use key::{By, LimitKey};
pub use sharing::{FleetSecret, Sharing};
pub use standing::{RATELIMIT, RATELIMIT_POLICY, Standing};
pub use tiers::Tiers;

use crate::denial::Denial;
use crate::shared::Link;
use governor::clock::Clock;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// The limits of one route, in two groups.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Limits that are charged before a signature is verified. They bound the verifications that forged tokens can
    /// cause.
    pub by_address: Box<[Arc<Limit>]>,
    /// Limits that are charged after authentication.
    pub by_caller: Box<[Arc<Limit>]>,
    /// Whether a limit asks the shared state about each request.
    pub is_exact: bool,
}

impl Limits {
    /// Splits a route's limits into the two groups, and sorts each group. Limits per client come before shared limits.
    /// A client that exceeds its own limit therefore does not use up a shared quota.
    pub fn sort(mut limits: Vec<Arc<Limit>>) -> Self {
        limits.sort_by_key(|limit| limit.by().rank());
        let is_exact = limits.iter().any(|limit| limit.is_exact());
        let (by_caller, by_address): (Vec<_>, Vec<_>) =
            limits.into_iter().partition(|limit| limit.by().needs_caller());
        Self { by_address: by_address.into(), by_caller: by_caller.into(), is_exact }
    }
}

/// Charges the request to each limit in turn, and stops at the first limit that refuses. Earlier limits stay charged.
///
/// # Errors
/// [`Denial::RateLimited`] with the wait in whole seconds, rounded up. [`Denial::LimitUnavailable`] if the fleet cannot
/// be asked about a limit.
pub fn admit<'l, C: Clock>(
    limits: &'l [Arc<Limit<C>>],
    key: &LimitKey<'_>,
    standing: &mut Standing<'l>,
) -> Result<(), Denial> {
    for limit in limits {
        let limit = limit.of(key.principal);
        standing.take(limit, limit.charge(key))?;
    }
    Ok(())
}

/// Charges the request to each limit in turn, like [`admit`]. Limits that are exact ask the shared state, and wait for
/// the answer.
///
/// The result is boxed to keep the future of ordinary requests small.
///
/// # Errors
/// See [`admit`].
#[cold]
pub(crate) fn admit_exactly<'f, 'l: 'f>(
    limits: &'l [Arc<Limit>],
    key: &'f LimitKey<'_>,
    standing: &'f mut Standing<'l>,
    link: Option<&'f Link>,
) -> Pin<Box<dyn Future<Output = Result<(), Denial>> + 'f>> {
    Box::pin(async move {
        for limit in limits {
            let limit = limit.of(key.principal);
            let charge = match limit.is_exact() {
                true => limit.charge_exactly(key, link).await,
                false => limit.charge(key),
            };
            standing.take(limit, charge)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;
    use http::{HeaderMap, HeaderName, HeaderValue};
    use std::num::NonZeroU32;
    use std::time::Duration;

    fn n(value: u32) -> NonZeroU32 {
        NonZeroU32::new(value).unwrap()
    }

    type Fake = Arc<Limit<FakeRelativeClock>>;

    fn limit(name: &str, per: u64, burst: u32, clock: &FakeRelativeClock) -> Fake {
        let per = Duration::from_millis(per);
        Arc::new(Limit::with_clock(name.into(), By::ClientIp, n(1), per, n(burst), 128, clock.clone()))
    }

    /// Charges one request from one address. Returns the verdict and the two header fields.
    fn ask(limits: &[Fake]) -> (Result<(), Denial>, String, String) {
        let request = HeaderMap::new();
        let address = "192.0.2.1".parse().unwrap();
        let key = LimitKey { address, headers: &request, route: "r", principal: None };
        let mut standing = Standing::default();
        let verdict = admit(limits, &key, &mut standing);
        let mut headers = HeaderMap::new();
        standing.write(&mut headers, 0);
        let field = |name| headers.get(name).map_or("", |v: &HeaderValue| v.to_str().unwrap()).to_owned();
        (verdict, field(RATELIMIT_POLICY), field(RATELIMIT))
    }

    #[test]
    fn limits_that_need_the_caller_are_charged_after_the_rest() {
        let limit =
            |name: &str, by| Arc::new(Limit::new(name.into(), by, n(1), Duration::from_secs(1), n(1)));
        let sorted = Limits::sort(vec![
            limit("claim", By::Claim(crate::authenticate::ClaimId(0))),
            limit("route", By::Route),
            limit("subject", By::Subject),
            limit("header", By::Header(HeaderName::from_static("x-key"))),
            limit("address", By::ClientIp),
        ]);
        let names = |part: &[Arc<Limit>]| part.iter().map(|l| l.name().to_string()).collect::<Vec<_>>();
        assert_eq!(names(&sorted.by_address), ["address", "header", "route"]);
        assert_eq!(names(&sorted.by_caller), ["subject", "claim"]);
    }

    #[test]
    fn a_burst_passes_and_the_next_request_gets_retry_after() {
        let clock = FakeRelativeClock::default();
        let limits = [limit("per-ip", 2_500, 2, &clock)];
        let policy = "\"per-ip\";q=2;w=5".to_owned();
        assert_eq!(ask(&limits), (Ok(()), policy.clone(), "\"per-ip\";r=1;t=3".into()));
        assert_eq!(ask(&limits), (Ok(()), policy.clone(), "\"per-ip\";r=0;t=3".into()));
        let refused = Err(Denial::RateLimited { wait: 3 });
        assert_eq!(ask(&limits), (refused, policy.clone(), "\"per-ip\";r=0;t=3".into()));
        clock.advance(Duration::from_millis(2_499));
        assert_eq!(ask(&limits).0, Err(Denial::RateLimited { wait: 1 }));
        clock.advance(Duration::from_millis(1));
        assert_eq!(ask(&limits).0, Ok(()));
        assert_eq!(limits[0].refused(), 2);
    }

    #[test]
    fn a_thousand_an_hour_gives_one_more_in_four_seconds() {
        // The parameter `t` is the time until one more request is available, not until the whole quota is available
        // (draft-ietf-httpapi-ratelimit-headers-10, section 4.1).
        let clock = FakeRelativeClock::default();
        let (per, count) = (Duration::from_secs(3600), n(1000));
        let hourly =
            Arc::new(Limit::with_clock("hourly".into(), By::ClientIp, count, per, count, 128, clock.clone()));
        let limits = [hourly];
        for left in (0..1000).rev() {
            assert_eq!(ask(&limits).2, format!("\"hourly\";r={left};t=4"));
        }
        let (verdict, _, state) = ask(&limits);
        assert_eq!((verdict, state.as_str()), (Err(Denial::RateLimited { wait: 4 }), "\"hourly\";r=0;t=4"));
        clock.advance(Duration::from_secs(4));
        assert_eq!(ask(&limits).0, Ok(()));
    }

    #[test]
    fn the_answer_speaks_of_the_limit_with_fewest_requests_left() {
        let clock = FakeRelativeClock::default();
        let (wide, narrow) = (limit("wide", 1_000, 9, &clock), limit("narrow", 1_000, 3, &clock));
        for limits in [[wide.clone(), narrow.clone()], [narrow, wide]] {
            let (verdict, policy, _) = ask(&limits);
            assert_eq!((verdict, policy.as_str()), (Ok(()), "\"narrow\";q=3;w=3"));
        }
    }

    #[test]
    fn the_answer_speaks_of_the_limit_that_refused() {
        let clock = FakeRelativeClock::default();
        let (first, second) = (limit("first", 1_000, 2, &clock), limit("second", 1_000, 1, &clock));
        let limits = [first.clone(), second];
        assert_eq!(ask(&limits).0, Ok(()));
        // The second bucket is empty.
        let (verdict, policy, state) = ask(&limits);
        assert_eq!(verdict, Err(Denial::RateLimited { wait: 1 }));
        assert_eq!((policy.as_str(), state.as_str()), ("\"second\";q=1;w=1", "\"second\";r=0;t=1"));
        // The first limit did not refuse the request, but was charged for it.
        assert_eq!(first.refused(), 0);
        assert_eq!(ask(&limits).1, "\"first\";q=2;w=2");
    }

    #[test]
    fn cores_that_ask_at_once_never_get_more_than_the_burst_together() {
        let clock = FakeRelativeClock::default();
        let limits = [limit("shared", 1_000, 100, &clock)];
        let admitted: usize = std::thread::scope(|scope| {
            let core = || (0..500).filter(|_| ask(&limits).0.is_ok()).count();
            let cores: Vec<_> = (0..4).map(|_| scope.spawn(core)).collect();
            cores.into_iter().map(|core| core.join().unwrap()).sum()
        });
        assert_eq!(admitted, 100);
        assert_eq!(limits[0].refused(), 4 * 500 - 100);
    }

    #[test]
    fn without_a_limit_nothing_is_refused_and_nothing_is_said() {
        assert_eq!(ask(&[]), (Ok(()), String::new(), String::new()));
    }

    #[test]
    fn a_name_cannot_break_out_of_the_header_field() {
        let clock = FakeRelativeClock::default();
        let name = format!("a\";q=9\r\nX: é\\{}", "z".repeat(100));
        let (_, policy, state) = ask(&[limit(&name, 1_000, 1, &clock)]);
        let shown = format!("\"a__q_9__X____{}\"", "z".repeat(64 - 13));
        assert_eq!(policy, format!("{shown};q=1;w=1"));
        assert_eq!(state, format!("{shown};r=0;t=1"));
    }
}
