//! One limit: what it counts by, how fast, and the buckets of everybody it has seen.
//!
//! Promises never to admit more than the burst and the rate allow for a key that keeps its place (see `store`),
//! in constant memory. Which limits a request meets, and in which order, is `mod`'s business.

use super::Asker;
use super::store::Store;
use crate::authenticate::{ClaimId, ClaimValue, Principal};
use governor::clock::{Clock, MonotonicClock};
use governor::middleware::StateInformationMiddleware;
use governor::{Quota, RateLimiter};
use http::{HeaderName, HeaderValue};
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Entries of a limit's table: 1 MiB of memory a limit, of which only the pages in use are real.
pub const CAPACITY: usize = 65_536;

/// The longest that a bucket may take to fill: 100 years. Keeps arrival times far from the end of 64 bits.
const FILL_MAX: u128 = 100 * 365 * 24 * 3600 * 1_000_000_000;

/// The longest name that appears in a header field; the rest is cut.
const NAME_MAX: usize = 64;

/// Whose requests a limit counts together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// The client's address; an IPv6 client is its /64, since that is what one subscriber is given.
    ClientIp,
    /// The caller: issuer and subject.
    Subject,
    /// All requests of a route.
    Route,
    /// The value of a header field. Requests without the field, or with several, share one bucket. Whoever
    /// writes the field chooses his bucket: of use only for a value that something else vouches for.
    Header(HeaderName),
    /// The value of a claim, within its issuer. A caller without the claim is counted by subject.
    Claim(ClaimId),
}

impl By {
    /// Whether the caller must be known first. Such a limit is charged after authentication: before it, a
    /// subject is only something that the client says.
    pub const fn needs_caller(&self) -> bool {
        match self {
            Self::Subject | Self::Claim(_) => true,
            Self::ClientIp | Self::Route | Self::Header(_) => false,
        }
    }

    /// Where the limit stands among others that are charged at the same point. Those that single somebody
    /// out come first, so that a client who is refused anyway does not spend what everybody shares.
    pub(super) const fn rank(&self) -> u8 {
        match self {
            Self::ClientIp | Self::Subject => 0,
            Self::Header(_) | Self::Claim(_) => 1,
            Self::Route => 2,
        }
    }
}

/// A limit and its buckets, shared by all cores. `C` is the clock, for tests.
pub struct Limit<C: Clock = MonotonicClock> {
    name: Arc<str>,
    by: By,
    quota: Quota,
    counts: Arc<Counts<C>>,
    /// `RateLimit-Policy`, ready-made.
    policy: HeaderValue,
    /// `"name";r=`, the fixed beginning of `RateLimit`.
    prefix: Box<[u8]>,
}

/// What a limit has counted: it outlives the policy that it began under, as long as the limit stays the same.
struct Counts<C: Clock> {
    buckets: RateLimiter<u64, Store, C, StateInformationMiddleware>,
    fingerprints: RandomState,
    refused: AtomicU64,
    displaced: Arc<AtomicU64>,
}

impl<C: Clock> fmt::Debug for Limit<C> {
    /// What the policy says of it; not the table, nor the keys of its fingerprints.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limit")
            .field("name", &self.name)
            .field("by", &self.by)
            .field("quota", &self.quota)
            .finish_non_exhaustive()
    }
}

/// What came of charging one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Charge {
    /// It may pass: the number of further requests that may pass at once, and the maximum time until one more becomes
    /// available.
    Admitted { remaining: u32, next: Duration },
    /// It may not pass for this long, after which exactly one request may.
    Refused { wait: Duration },
}

impl Limit {
    /// A limit of `count` requests each `per`, `burst` of them at once.
    ///
    /// The name appears in header fields as a string of RFC 8941: the compiler of the policy allows only
    /// `[A-Za-z0-9_.-]` in it, and whatever else reached this point would be written as `_`. A rate beyond
    /// one request a nanosecond, or a bucket that fills in more than 100 years, is brought back to that.
    pub fn new(name: Arc<str>, by: By, count: NonZeroU32, per: Duration, burst: NonZeroU32) -> Self {
        Self::with_clock(name, by, count, per, burst, CAPACITY, MonotonicClock)
    }
}

impl<C: Clock> Limit<C> {
    /// [`Limit::new`] with a table of `capacity` entries (16 bytes each) and a clock of the caller's choice.
    pub fn with_clock(
        name: Arc<str>,
        by: By,
        count: NonZeroU32,
        per: Duration,
        burst: NonZeroU32,
        capacity: usize,
        clock: C,
    ) -> Self {
        let quota = quota(count, per, burst);
        let store = Store::new(capacity, quota.replenish_interval());
        let displaced = store.displaced();

        let shown: String = name
            .chars()
            .take(NAME_MAX)
            .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-') { c } else { '_' })
            .collect();
        let window = whole_seconds(fill(&quota)).max(1);
        let policy = format!("\"{shown}\";q={};w={window}", quota.burst_size());

        Self {
            name,
            by,
            counts: Arc::new(Counts {
                buckets: RateLimiter::new(quota, store, clock),
                fingerprints: RandomState::new(),
                refused: AtomicU64::new(0),
                displaced,
            }),
            quota,
            policy: HeaderValue::from_maybe_shared(policy).expect("letters, digits and punctuation of ours"),
            prefix: format!("\"{shown}\";r=").into_bytes().into_boxed_slice(),
        }
    }

    /// The name, as the policy has it.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whose requests it counts together.
    pub fn by(&self) -> &By {
        &self.by
    }

    /// How fast, and how many at once. Rates that mean the same (`60/m`, `1/s`) are equal.
    pub fn quota(&self) -> Quota {
        self.quota
    }

    /// How fast, in words.
    pub fn told(&self) -> String {
        told(self.quota)
    }

    /// Goes on with what another limit has counted, if that is of the same name and as fast: else each reload of a policy
    /// would refill every attacker's bucket. `same_keys`: whether both count by the same, which the caller knows, since a
    /// [`ClaimId`] means something within one policy only.
    #[must_use]
    pub fn going_on(mut self, before: &Self, same_keys: bool) -> Self {
        if same_keys && self.name == before.name && self.quota == before.quota {
            self.counts = before.counts.clone();
        }
        self
    }

    /// Requests refused so far.
    pub fn refused(&self) -> u64 {
        self.counts.refused.load(Ordering::Relaxed)
    }

    /// How often an active key lost its place because more were active than the table holds.
    pub fn displaced(&self) -> u64 {
        self.counts.displaced.load(Ordering::Relaxed)
    }

    pub(super) fn policy(&self) -> &HeaderValue {
        &self.policy
    }

    pub(super) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// Counts one request.
    pub(super) fn charge(&self, asker: &Asker<'_>) -> Charge {
        match self.counts.buckets.check_key(&self.fingerprint(asker)) {
            Ok(state) => {
                // The bucket's level lies between two whole requests; taken for the lower one, the time is
                // never too short.
                let next = self.quota.replenish_interval();
                Charge::Admitted { remaining: state.remaining_burst_capacity(), next }
            }
            Err(until) => {
                self.counts.refused.fetch_add(1, Ordering::Relaxed);
                let wait = until.wait_time_from(self.counts.buckets.clock().now());
                Charge::Refused { wait }
            }
        }
    }

    /// The key of a request in this limit's table. Kinds of keys are told apart by their first byte, so that
    /// no subject can be made to look like an address. Two keys with one fingerprint (one chance in 2^64 a
    /// pair) would share a bucket, which refuses more, never less.
    fn fingerprint(&self, asker: &Asker<'_>) -> u64 {
        let mut hasher = self.counts.fingerprints.build_hasher();
        match (&self.by, asker.principal) {
            (By::ClientIp, _) | (By::Subject | By::Claim(_), None) => {
                hash_address(asker.address, &mut hasher)
            }
            (By::Subject, Some(principal)) => hash_subject(principal, &mut hasher),
            (By::Route, _) => (2_u8, asker.route).hash(&mut hasher),
            (By::Header(name), _) => {
                let mut values = asker.headers.get_all(name).iter();
                match (values.next(), values.next()) {
                    (Some(value), None) => (3_u8, value.as_bytes()).hash(&mut hasher),
                    // With several, a client could keep the one that counts and change the other.
                    (None, _) | (Some(_), Some(_)) => hasher.write_u8(4),
                }
            }
            (By::Claim(id), Some(principal)) => match principal.claim(*id) {
                Some(value) => {
                    (5_u8, &principal.issuer).hash(&mut hasher);
                    hash_claim(value, &mut hasher);
                }
                // Not one bucket for all that lack it: strangers could then lock each other out.
                None => hash_subject(principal, &mut hasher),
            },
        }
        hasher.finish()
    }
}

/// Describes a quota in words.
pub(super) fn told(quota: Quota) -> String {
    format!("{} at once, then one each {:?}", quota.burst_size(), quota.replenish_interval())
}

/// Rounds the time between two requests up to whole nanoseconds: never faster than was asked.
fn quota(count: NonZeroU32, per: Duration, burst: NonZeroU32) -> Quota {
    let interval = per.as_nanos().div_ceil(u128::from(count.get())).clamp(1, FILL_MAX);
    let burst_max = u32::try_from(FILL_MAX / interval).unwrap_or(u32::MAX);
    let burst = NonZeroU32::new(burst.get().min(burst_max)).unwrap_or(NonZeroU32::MIN);
    let interval = u64::try_from(interval).unwrap_or(u64::MAX);
    Quota::with_period(Duration::from_nanos(interval))
        .expect("the interval is at least one nanosecond")
        .allow_burst(burst)
}

/// How long an empty bucket takes to fill.
fn fill(quota: &Quota) -> Duration {
    quota.replenish_interval().saturating_mul(quota.burst_size().get())
}

/// Whole seconds, rounded up: what is told to clients must not be too short.
pub(super) fn whole_seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

fn hash_address(address: IpAddr, hasher: &mut impl Hasher) {
    match address.to_canonical() {
        IpAddr::V4(v4) => (0_u8, 4_u8, v4.to_bits()).hash(hasher),
        IpAddr::V6(v6) => (0_u8, 6_u8, v6.to_bits() >> 64).hash(hasher),
    }
}

fn hash_subject(principal: &Principal, hasher: &mut impl Hasher) {
    (1_u8, &principal.issuer, &principal.subject).hash(hasher);
}

fn hash_claim(value: &ClaimValue, hasher: &mut impl Hasher) {
    match value {
        ClaimValue::Text(text) => (0_u8, text).hash(hasher),
        ClaimValue::Number(number) => (1_u8, number).hash(hasher),
        ClaimValue::Bool(bool) => (2_u8, bool).hash(hasher),
        ClaimValue::List(values) => {
            (3_u8, values.len()).hash(hasher);
            for value in values {
                hash_claim(value, hasher);
            }
        }
        ClaimValue::Other => hasher.write_u8(4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;
    use http::HeaderMap;
    use proptest::prelude::*;

    fn n(value: u32) -> NonZeroU32 {
        NonZeroU32::new(value).unwrap()
    }

    fn one_a_minute(by: By) -> Limit<FakeRelativeClock> {
        let clock = FakeRelativeClock::default();
        Limit::with_clock("test".into(), by, n(1), Duration::from_secs(60), n(1), 1024, clock)
    }

    fn principal(issuer: &str, subject: &str, claim: Option<ClaimValue>) -> Principal {
        Principal {
            issuer: issuer.into(),
            subject: subject.into(),
            token_id: None,
            roles: Box::default(),
            scopes: Box::default(),
            claims: Box::new([claim]),
            shapes: Default::default(),
            not_before: 0,
            expires: u64::MAX,
            authenticated: None,
            leeway: 0,
            fresh: false,
            local: None,
            proofs: Default::default(),
            headers: Box::default(),
        }
    }

    /// Somebody, of whom each test changes one fact.
    struct Somebody {
        address: &'static str,
        headers: Vec<&'static str>,
        route: &'static str,
        principal: Option<Principal>,
    }

    impl Somebody {
        fn at(address: &'static str) -> Self {
            Self { address, headers: Vec::new(), route: "r", principal: None }
        }

        fn with(headers: &[&'static str]) -> Self {
            Self { headers: headers.to_vec(), ..Self::at("192.0.2.1") }
        }

        fn who(issuer: &str, subject: &str, claim: Option<&str>) -> Self {
            let claim = claim.map(|c| ClaimValue::Text(c.into()));
            Self { principal: Some(principal(issuer, subject, claim)), ..Self::at("192.0.2.1") }
        }
    }

    /// Whether the second is refused because the first was there: whether they share a bucket.
    fn share(by: By, first: &Somebody, second: &Somebody) -> bool {
        let limit = one_a_minute(by);
        let ask = |who: &Somebody| {
            let mut headers = HeaderMap::new();
            for value in &who.headers {
                headers.append("x-key", HeaderValue::from_static(value));
            }
            limit.charge(&Asker {
                address: who.address.parse().unwrap(),
                headers: &headers,
                route: who.route,
                principal: who.principal.as_ref(),
            })
        };
        assert!(matches!(ask(first), Charge::Admitted { remaining: 0, .. }));
        matches!(ask(second), Charge::Refused { .. })
    }

    #[test]
    fn two_addresses_of_one_64_share_a_bucket_and_the_next_64_has_its_own() {
        let share = |a, b| share(By::ClientIp, &Somebody::at(a), &Somebody::at(b));
        assert!(share("2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff"));
        assert!(!share("2001:db8:0:1::1", "2001:db8:0:2::1"));
        assert!(share("192.0.2.1", "192.0.2.1"));
        assert!(!share("192.0.2.1", "192.0.2.2"));
    }

    #[test]
    fn an_ipv4_address_mapped_into_ipv6_is_the_ipv4_address() {
        let share = |a, b| share(By::ClientIp, &Somebody::at(a), &Somebody::at(b));
        assert!(share("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(!share("::ffff:192.0.2.1", "::ffff:192.0.2.2"));
    }

    #[test]
    fn subjects_are_told_apart_by_issuer_and_name_and_not_by_address() {
        let ada = Somebody::who("https://a/", "ada", None);
        let elsewhere = Somebody { address: "192.0.2.9", ..Somebody::who("https://a/", "ada", None) };
        assert!(share(By::Subject, &ada, &elsewhere));
        assert!(!share(By::Subject, &ada, &Somebody::who("https://a/", "bob", None)));
        assert!(!share(By::Subject, &ada, &Somebody::who("https://b/", "ada", None)));
        // The border between issuer and subject is part of the key.
        let (x, y) = (Somebody::who("ab", "c", None), Somebody::who("a", "bc", None));
        assert!(!share(By::Subject, &x, &y));
    }

    #[test]
    fn an_anonymous_caller_is_counted_by_address_on_a_limit_by_caller() {
        for by in [By::Subject, By::Claim(ClaimId(0))] {
            let nobody = Somebody::at("192.0.2.1");
            assert!(share(by.clone(), &nobody, &Somebody::at("192.0.2.1")));
            assert!(!share(by.clone(), &nobody, &Somebody::at("192.0.2.2")));
            assert!(!share(by, &nobody, &Somebody::who("https://a/", "192.0.2.1", None)));
        }
    }

    #[test]
    fn a_claim_counts_all_callers_that_have_its_value_from_one_issuer() {
        let by = || By::Claim(ClaimId(0));
        let ada = Somebody::who("https://a/", "ada", Some("acme"));
        assert!(share(by(), &ada, &Somebody::who("https://a/", "bob", Some("acme"))));
        assert!(!share(by(), &ada, &Somebody::who("https://a/", "bob", Some("other"))));
        assert!(!share(by(), &ada, &Somebody::who("https://b/", "bob", Some("acme"))));
    }

    #[test]
    fn callers_without_the_claim_do_not_share_a_bucket() {
        let by = || By::Claim(ClaimId(0));
        let ada = Somebody::who("https://a/", "ada", None);
        assert!(!share(by(), &ada, &Somebody::who("https://a/", "bob", None)));
        assert!(share(by(), &ada, &Somebody::who("https://a/", "ada", None)));
    }

    #[test]
    fn claims_of_different_types_are_different_values() {
        let limit = one_a_minute(By::Claim(ClaimId(0)));
        let headers = HeaderMap::new();
        let values = [
            ClaimValue::Text("1".into()),
            ClaimValue::Number(1.into()),
            ClaimValue::Bool(true),
            ClaimValue::List(Box::new([ClaimValue::Number(1.into())])),
            ClaimValue::List(Box::new([])),
            ClaimValue::Other,
        ];
        for value in values {
            let principal = principal("https://a/", "ada", Some(value));
            let address = "192.0.2.1".parse().unwrap();
            let asker = Asker { address, headers: &headers, route: "r", principal: Some(&principal) };
            assert!(matches!(limit.charge(&asker), Charge::Admitted { .. }));
            assert!(matches!(limit.charge(&asker), Charge::Refused { .. }));
        }
    }

    #[test]
    fn routes_have_a_bucket_each() {
        let (zero, one) = (Somebody::at("192.0.2.1"), Somebody { route: "s", ..Somebody::at("192.0.2.1") });
        assert!(share(By::Route, &zero, &Somebody::at("198.51.100.7")));
        assert!(!share(By::Route, &zero, &one));
    }

    #[test]
    fn header_values_have_a_bucket_each_and_absent_or_repeated_ones_share_one() {
        let by = || By::Header(HeaderName::from_static("x-key"));
        let a = Somebody::with(&["a"]);
        assert!(share(by(), &a, &Somebody { address: "192.0.2.9", ..Somebody::with(&["a"]) }));
        assert!(!share(by(), &a, &Somebody::with(&["b"])));
        assert!(!share(by(), &a, &Somebody::with(&[])));
        assert!(!share(by(), &Somebody::with(&[""]), &Somebody::with(&[])));
        assert!(share(by(), &Somebody::with(&["a", "b"]), &Somebody::with(&["a", "c"])));
        assert!(share(by(), &Somebody::with(&["a", "b"]), &Somebody::with(&[])));
    }

    #[test]
    fn a_limit_goes_on_with_the_counts_of_one_that_means_the_same() {
        let asked = |limit: &Limit| {
            let headers = HeaderMap::new();
            let address = "192.0.2.1".parse().unwrap();
            limit.charge(&Asker { address, headers: &headers, route: "r", principal: None })
        };
        let limit = |name: &str, count, seconds, burst| {
            Limit::new(name.into(), By::Route, n(count), Duration::from_secs(seconds), n(burst))
        };
        let before = limit("x", 1, 60, 1);
        assert!(matches!(asked(&before), Charge::Admitted { .. }));
        assert!(matches!(asked(&limit("x", 1, 60, 1).going_on(&before, true)), Charge::Refused { .. }));
        assert!(matches!(asked(&limit("x", 2, 120, 1).going_on(&before, true)), Charge::Refused { .. }));
        for (name, count, seconds, burst, same_keys) in
            [("x", 2, 60, 1, true), ("x", 1, 60, 2, true), ("y", 1, 60, 1, true), ("x", 1, 60, 1, false)]
        {
            let other = limit(name, count, seconds, burst).going_on(&before, same_keys);
            assert!(matches!(asked(&other), Charge::Admitted { .. }), "{name} {count} {seconds} {burst}");
        }
        assert_eq!(before.refused(), 2, "both are counted as one");
    }

    #[test]
    fn extreme_quotas_neither_panic_nor_let_everything_through() {
        for (count, per, burst) in [
            (1, Duration::MAX, u32::MAX),
            (u32::MAX, Duration::MAX, u32::MAX),
            (1, Duration::from_secs(86_400), u32::MAX),
            (u32::MAX, Duration::ZERO, 1),
            (u32::MAX, Duration::from_nanos(1), u32::MAX),
        ] {
            let clock = FakeRelativeClock::default();
            let limit = Limit::with_clock("x".into(), By::Route, n(count), per, n(burst), 128, clock);
            let headers = HeaderMap::new();
            let address = "192.0.2.1".parse().unwrap();
            let asker = Asker { address, headers: &headers, route: "r", principal: None };
            let most = limit.quota().burst_size().get();
            for left in (most.saturating_sub(3)..most).rev() {
                assert!(
                    matches!(limit.charge(&asker), Charge::Admitted { remaining, .. } if remaining == left)
                );
            }
            if most == 1 {
                assert!(matches!(limit.charge(&asker), Charge::Refused { .. }));
            }
        }
    }

    proptest! {
        /// In every window of time, one key gets at most the burst and what the rate gives back in it.
        #[test]
        fn no_window_ever_admits_more_than_burst_and_rate(
            count in 1_u32..2_000,
            per_millis in 1_u64..100_000,
            burst in 1_u32..20,
            pauses in prop::collection::vec(0_u64..3_000_000_000, 1..120),
        ) {
            let per = Duration::from_millis(per_millis);
            let clock = FakeRelativeClock::default();
            let limit = Limit::with_clock("x".into(), By::ClientIp, n(count), per, n(burst), 128, clock.clone());
            let headers = HeaderMap::new();
            let address = "192.0.2.1".parse().unwrap();
            let asker = Asker { address, headers: &headers, route: "r", principal: None };

            let mut now = 0_u64;
            let mut admitted = Vec::new();
            for pause in pauses {
                // Pauses around the time of one request, where a mistake would show.
                let pause = pause % (3 * per.as_nanos() as u64 / u64::from(count) + 1);
                clock.advance(Duration::from_nanos(pause));
                now += pause;
                for _ in 0..3 {
                    if matches!(limit.charge(&asker), Charge::Admitted { .. }) {
                        admitted.push(now);
                    }
                }
            }
            for first in 0..admitted.len() {
                for last in first..admitted.len() {
                    let requests = (last - first + 1) as u128;
                    let window = u128::from(admitted[last] - admitted[first]);
                    let allowed = u128::from(burst) + window * u128::from(count) / per.as_nanos();
                    prop_assert!(requests <= allowed, "{requests} in {window} ns, {allowed} allowed");
                }
            }
        }

        /// Waiting for as long as a refusal says is always enough.
        #[test]
        fn after_the_stated_wait_the_next_request_passes(
            count in 1_u32..500, per_millis in 1_u64..100_000, burst in 1_u32..10, tries in 1_usize..30,
        ) {
            let clock = FakeRelativeClock::default();
            let per = Duration::from_millis(per_millis);
            let limit = Limit::with_clock("x".into(), By::ClientIp, n(count), per, n(burst), 128, clock.clone());
            let headers = HeaderMap::new();
            let address = "192.0.2.1".parse().unwrap();
            let asker = Asker { address, headers: &headers, route: "r", principal: None };
            for _ in 0..tries {
                if let Charge::Refused { wait } = limit.charge(&asker) {
                    clock.advance(wait);
                    let passed = matches!(limit.charge(&asker), Charge::Admitted { .. });
                    prop_assert!(passed);
                }
            }
        }
    }
}
