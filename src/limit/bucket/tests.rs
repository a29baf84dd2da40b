use super::*;
use crate::authenticate::ClaimValue;
use governor::clock::FakeRelativeClock;
use http::{HeaderMap, HeaderName};
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
        claims: Box::new([claim]),
        ..Principal::for_tests()
    }
}

/// The facts of a request. Each test varies one of them.
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

/// Returns whether two requests share a bucket, in which case the first request causes the refusal of the second.
fn share(by: By, first: &Somebody, second: &Somebody) -> bool {
    let limit = one_a_minute(by);
    let ask = |who: &Somebody| {
        let mut headers = HeaderMap::new();
        for value in &who.headers {
            headers.append("x-key", HeaderValue::from_static(value));
        }
        limit.charge(&LimitKey {
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
fn subjects_differ_by_issuer_and_name_and_not_by_address() {
    let ada = Somebody::who("https://a/", "ada", None);
    let elsewhere = Somebody { address: "192.0.2.9", ..Somebody::who("https://a/", "ada", None) };
    assert!(share(By::Subject, &ada, &elsewhere));
    assert!(!share(By::Subject, &ada, &Somebody::who("https://a/", "bob", None)));
    assert!(!share(By::Subject, &ada, &Somebody::who("https://b/", "ada", None)));
    // The boundary between issuer and subject is part of the key.
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
        let key = LimitKey { address, headers: &headers, route: "r", principal: Some(&principal) };
        assert!(matches!(limit.charge(&key), Charge::Admitted { .. }));
        assert!(matches!(limit.charge(&key), Charge::Refused { .. }));
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
        limit.charge(&LimitKey { address, headers: &headers, route: "r", principal: None })
    };
    let limit = |name: &str, count, seconds, burst| {
        Limit::new(name.into(), By::Route, n(count), Duration::from_secs(seconds), n(burst))
    };
    let before = limit("x", 1, 60, 1);
    assert!(matches!(asked(&before), Charge::Admitted { .. }));
    assert!(matches!(asked(&limit("x", 1, 60, 1).carry_over(&before, true)), Charge::Refused { .. }));
    assert!(matches!(asked(&limit("x", 2, 120, 1).carry_over(&before, true)), Charge::Refused { .. }));
    for (name, count, seconds, burst, same_keys) in
        [("x", 2, 60, 1, true), ("x", 1, 60, 2, true), ("y", 1, 60, 1, true), ("x", 1, 60, 1, false)]
    {
        let other = limit(name, count, seconds, burst).carry_over(&before, same_keys);
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
        let key = LimitKey { address, headers: &headers, route: "r", principal: None };
        let most = limit.quota().burst_size().get();
        for left in (most.saturating_sub(3)..most).rev() {
            assert!(matches!(limit.charge(&key), Charge::Admitted { remaining, .. } if remaining == left));
        }
        if most == 1 {
            assert!(matches!(limit.charge(&key), Charge::Refused { .. }));
        }
    }
}

proptest! {
    /// In any period of length t, one key is admitted at most burst + rate × t times.
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
        let key = LimitKey { address, headers: &headers, route: "r", principal: None };

        let mut now = 0_u64;
        let mut admitted = Vec::new();
        for pause in pauses {
            // Each pause is at most three intervals, because errors are most likely at pauses close to one interval.
            let pause = pause % (3 * per.as_nanos() as u64 / u64::from(count) + 1);
            clock.advance(Duration::from_nanos(pause));
            now += pause;
            for _ in 0..3 {
                if matches!(limit.charge(&key), Charge::Admitted { .. }) {
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

    /// A request that waits for the time stated in a refusal is admitted.
    #[test]
    fn after_the_stated_wait_the_next_request_passes(
        count in 1_u32..500, per_millis in 1_u64..100_000, burst in 1_u32..10, tries in 1_usize..30,
    ) {
        let clock = FakeRelativeClock::default();
        let per = Duration::from_millis(per_millis);
        let limit = Limit::with_clock("x".into(), By::ClientIp, n(count), per, n(burst), 128, clock.clone());
        let headers = HeaderMap::new();
        let address = "192.0.2.1".parse().unwrap();
        let key = LimitKey { address, headers: &headers, route: "r", principal: None };
        for _ in 0..tries {
            if let Charge::Refused { wait } = limit.charge(&key) {
                clock.advance(wait);
                let passed = matches!(limit.charge(&key), Charge::Admitted { .. });
                prop_assert!(passed);
            }
        }
    }
}
