use super::*;
use crate::authenticate::{ClaimId, ClaimValue, Principal};
use crate::forward::upstream::balance::{HashBy, KeyFacts};
use crate::forward::upstream::counters::UpstreamCounters;
use crate::forward::upstream::members::{Configured, Current, MemberSettings};
use crate::forward::upstream::resolve::Nameservers;
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::net::IpAddr;

fn upstream(count: usize) -> Upstream {
    named((0..count).map(|n| format!("http://s{n}:80")))
}

fn named(origins: impl Iterator<Item = String>) -> Upstream {
    let origins: Vec<_> = origins.collect();
    let weights = vec![1; origins.len()];
    balanced(origins, Balance::RoundRobin, &weights)
}

fn balanced(origins: Vec<String>, balance: Balance, weights: &[u16]) -> Upstream {
    let counters = Arc::new(UpstreamCounters::new(Arc::from("u"), 2));
    let configured = |(origin, weight): (String, &u16)| Configured {
        server: Arc::new(Server::new(Arc::from(origin), "s".into(), 80, None)),
        weight: *weight,
        is_expanded: false,
    };
    let settings = MemberSettings {
        upstream: Arc::from("u"),
        check: None,
        nameservers: Nameservers::default(),
        slow_start: Duration::ZERO,
    };
    let servers = origins.into_iter().zip(weights).map(configured).collect();
    let mut upstream = Upstream::new(counters, settings, servers, None, &Arc::new);
    upstream.balance = balance;
    upstream
}

fn fixed(upstream: &Upstream) -> &Members {
    match upstream.members() {
        Current::Fixed(members) => members,
        Current::Named(_) => panic!("the servers have no names"),
    }
}

fn order(upstream: &Upstream, now: Instant) -> Vec<String> {
    upstream
        .in_turn(0, fixed(upstream), now, None, |_| 0)
        .map(|server| server.origin[7..9].to_owned())
        .collect()
}

#[test]
fn servers_take_turns() {
    let upstream = upstream(3);
    let now = Instant::now();
    assert_eq!(order(&upstream, now), ["s0", "s1", "s2"]);
    assert_eq!(order(&upstream, now), ["s1", "s2", "s0"]);
    assert_eq!(order(&upstream, now), ["s2", "s0", "s1"]);
}

#[test]
fn a_core_takes_its_turns_whatever_the_others_do() {
    let upstream = upstream(4);
    let now = Instant::now();
    let first = |core| -> String {
        let mut order = upstream.in_turn(core, fixed(&upstream), now, None, |_| 0);
        order.next().expect("a server").origin.to_string()
    };
    let turns: Vec<_> = (0..8).map(|_| [first(0), first(1)]).collect();
    for core in [0, 1] {
        let servers: BTreeSet<_> = turns[..4].iter().map(|both| &both[core]).collect();
        assert_eq!(servers.len(), 4, "{turns:?}");
        assert!((0..4).all(|at| turns[at][core] == turns[at + 4][core]), "{turns:?}");
    }
    assert_ne!(turns[0][0], turns[0][1], "cores begin at different servers");
}

/// Returns the number of times that each of four servers with these loads is chosen, out of 4,000.
fn chosen(balance: &Balance, weights: [u16; 4], loads: [usize; 4], aside: &[usize]) -> [usize; 4] {
    let origins = (0..4).map(|n| format!("http://s{n}:80")).collect();
    let upstream = balanced(origins, balance.clone(), &weights);
    let now = Instant::now();
    for at in aside {
        fixed(&upstream).servers[*at].record_failure(now);
    }
    let load = |server: &Server| {
        loads[fixed(&upstream)
            .servers
            .iter()
            .position(|known| known.id == server.id)
            .expect("one of the four")]
    };
    let mut counts = [0; 4];
    for _ in 0..4_000 {
        let order: Vec<_> = upstream.in_turn(0, fixed(&upstream), now, None, load).collect();
        assert_eq!(order.len(), 4, "each server is tried");
        let first = fixed(&upstream).servers.iter().position(|known| known.id == order[0].id);
        counts[first.expect("one of the four")] += 1;
    }
    counts
}

#[test]
fn the_least_loaded_server_comes_first_and_equals_take_turns() {
    let least = Balance::LeastRequests;
    assert_eq!(chosen(&least, [1; 4], [3, 1, 2, 5], &[]), [0, 4_000, 0, 0]);
    assert_eq!(chosen(&least, [1; 4], [0, 0, 0, 0], &[]), [1_000; 4]);
    assert_eq!(
        chosen(&least, [1; 4], [3, 1, 2, 5], &[1]),
        [0, 0, 4_000, 0],
        "a server that failed has no advantage"
    );
    assert_eq!(chosen(&least, [1; 4], [3, 1, 2, 5], &[0, 1, 2, 3]), [0, 4_000, 0, 0], "all are tried");
}

#[test]
fn of_two_random_servers_the_less_loaded_one_comes_first() {
    let counts = chosen(&Balance::TwoChoices, [1; 4], [0, 1, 2, 3], &[]);
    // Half of all pairs contain the best server, and no pair prefers the worst.
    assert!((1_850..2_150).contains(&counts[0]), "{counts:?}");
    assert!(counts[0] > counts[1] && counts[1] > counts[2] && counts[3] == 0, "{counts:?}");
    let equal = chosen(&Balance::TwoChoices, [1; 4], [7; 4], &[]);
    assert!(equal.iter().all(|count| (850..1_150).contains(count)), "{equal:?}");
    assert_eq!(chosen(&Balance::TwoChoices, [1; 4], [0, 1, 2, 3], &[0, 1, 2]), [0, 0, 0, 4_000]);
}

#[test]
fn a_server_that_failed_comes_last_until_its_pause_is_over() {
    let upstream = upstream(2);
    let now = Instant::now();
    assert!(fixed(&upstream).servers[0].record_failure(now));
    assert_eq!(order(&upstream, now), ["s1", "s0"]);
    assert_eq!(order(&upstream, now), ["s1", "s0"]);
    let later = now + Duration::from_millis(1_001);
    assert_eq!(order(&upstream, later), ["s0", "s1"]);
}

#[test]
fn a_server_that_fails_while_it_is_tried_is_not_tried_twice() {
    let upstream = upstream(2);
    let now = Instant::now();
    let tried: Vec<_> = upstream
        .in_turn(0, fixed(&upstream), now, None, |_| 0)
        .inspect(|server| assert!(server.record_failure(now)))
        .collect();
    assert_eq!(tried.len(), 2);
}

#[test]
fn a_server_that_failed_loses_its_turns_to_all_others() {
    assert_eq!(chosen(&Balance::RoundRobin, [1; 4], [0; 4], &[1]), [1_334, 0, 1_333, 1_333]);
    assert_eq!(chosen(&Balance::RoundRobin, [3, 50, 2, 1], [0; 4], &[1]), [2_000, 0, 1_333, 667]);
    assert_eq!(chosen(&Balance::RoundRobin, [1; 4], [0; 4], &[0, 1, 2, 3]), [1_000; 4], "all are tried");
}

#[test]
fn servers_get_requests_by_their_weight() {
    let weights = [40, 10, 20, 30];
    assert_eq!(chosen(&Balance::RoundRobin, weights, [0; 4], &[]), [1_600, 400, 800, 1_200]);
    assert_eq!(chosen(&Balance::LeastRequests, weights, [0; 4], &[]), [1_600, 400, 800, 1_200]);
    let least = chosen(&Balance::LeastRequests, weights, [8, 1, 5, 6], &[]);
    assert_eq!(least, [0, 4_000, 0, 0], "one of ten is less than six of thirty");
    let two = chosen(&Balance::TwoChoices, weights, [0; 4], &[]);
    for (count, expected) in two.into_iter().zip([1_600, 400, 800, 1_200]) {
        assert!((expected - 150..expected + 150).contains(&count), "{two:?}");
    }
}

fn hashed(origins: &[String], weights: &[u16]) -> Upstream {
    balanced(origins.to_vec(), Balance::Hash(Box::new([HashBy::ClientIp])), weights)
}

fn order_for(upstream: &Upstream, key: u64) -> Vec<&str> {
    upstream
        .in_turn(0, fixed(upstream), Instant::now(), Some(Key(key)), |_| 0)
        .map(|server| &*server.origin)
        .collect()
}

fn keys() -> impl Iterator<Item = u64> {
    (0..2_000).map(scatter)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A server that is added or removed moves only the keys that it gets or had, whatever the order and the weights.
    #[test]
    fn another_set_of_servers_moves_only_the_keys_of_the_difference(
        ports in prop::collection::btree_map(1_u16.., 1_u16..=100, 2..12),
        gone in any::<prop::sample::Index>(),
    ) {
        let origins: Vec<_> = ports.keys().map(|port| format!("http://10.0.0.1:{port}")).collect();
        let weights: Vec<_> = ports.values().copied().collect();
        let all = hashed(&origins, &weights);
        let (mut fewer, mut lighter) = (origins.clone(), weights.clone());
        let gone = gone.index(origins.len());
        let gone_origin = fewer.remove(gone);
        lighter.remove(gone);
        fewer.reverse();
        lighter.reverse();
        let without = hashed(&fewer, &lighter);
        for key in keys() {
            let (before, after) = (order_for(&all, key), order_for(&without, key));
            prop_assert_eq!(before.iter().collect::<BTreeSet<_>>().len(), origins.len(), "each server once");
            let kept: Vec<_> = before.into_iter().filter(|origin| *origin != gone_origin).collect();
            prop_assert_eq!(kept, after, "the order of the others stays");
        }
    }

    /// A weight that rises takes keys from others, and moves no key between the others.
    #[test]
    fn a_weight_that_rises_only_attracts_keys(low in 1_u16..50, more in 1_u16..50, other in 1_u16..100) {
        let origins: Vec<_> = (0..4).map(|n| format!("http://s{n}:80")).collect();
        let before = hashed(&origins, &[low, other, 7, 20]);
        let after = hashed(&origins, &[low + more, other, 7, 20]);
        for key in keys() {
            let (before, after) = (order_for(&before, key)[0], order_for(&after, key)[0]);
            prop_assert!(before == after || after == origins[0], "{} to {}", before, after);
        }
    }
}

#[test]
fn keys_are_spread_by_weight() {
    let origins: Vec<_> = (1..=5).map(|n| format!("http://10.0.0.{n}:9001")).collect();
    let upstream = hashed(&origins, &[1, 1, 2, 4, 8]);
    let mut counts = [0_i32; 5];
    for n in 0..16_000_u32 {
        let address = IpAddr::from(n.to_be_bytes());
        let headers = HeaderMap::new();
        let key = upstream.balance.key(KeyFacts { principal: None, headers: &headers, address });
        let first = upstream.in_turn(0, fixed(&upstream), Instant::now(), key, |_| 0).next().unwrap();
        counts[origins.iter().position(|origin| **origin == *first.origin).unwrap()] += 1;
    }
    for (count, expected) in counts.into_iter().zip([1_000, 1_000, 2_000, 4_000, 8_000]) {
        assert!((count - expected).abs() < expected / 8, "{counts:?}");
    }
}

#[test]
fn the_keys_of_a_server_that_failed_spread_over_all_others() {
    let origins: Vec<_> = (0..4).map(|n| format!("http://s{n}:80")).collect();
    let upstream = hashed(&origins, &[1; 4]);
    let before: Vec<_> = keys().map(|key| order_for(&upstream, key)[0].to_owned()).collect();
    fixed(&upstream).servers[2].record_failure(Instant::now());
    let mut gained = [0; 4];
    for (key, before) in keys().zip(before) {
        let order = order_for(&upstream, key);
        assert_eq!(order[3], origins[2], "the failed server comes last");
        if before == origins[2] {
            gained[origins.iter().position(|origin| origin == order[0]).unwrap()] += 1;
        } else {
            assert_eq!(order[0], before, "keys of other servers do not move");
        }
    }
    assert!([0, 1, 3].iter().all(|at| (100..240).contains(&gained[*at])), "{gained:?}");
}

/// All gateways must choose the same server, also those of another version or on another machine.
#[test]
fn the_choice_never_changes() {
    let headers = HeaderMap::new();
    let balance = Balance::Hash(Box::new([HashBy::ClientIp]));
    let key = |address: &str| {
        balance.key(KeyFacts { principal: None, headers: &headers, address: address.parse().unwrap() })
    };
    assert_eq!(key("192.0.2.7"), Some(Key(5_005_863_538_270_389_139)));
    assert_eq!(key("192.0.2.7"), key("::ffff:192.0.2.7"));
    assert_eq!(key("2001:db8::1"), key("2001:db8::2"), "one network");
    assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
    let origins: Vec<_> = (0..4).map(|n| format!("http://s{n}:80")).collect();
    let upstream = hashed(&origins, &[1, 2, 3, 4]);
    assert_eq!(order_for(&upstream, 7), ["http://s0:80", "http://s3:80", "http://s1:80", "http://s2:80"]);
}

#[test]
fn the_first_property_that_a_request_has_is_its_key() {
    let principal = Principal {
        claims: Box::new([Some(ClaimValue::Text("north".into())), Some(ClaimValue::Other), None]),
        ..Principal::for_tests()
    };
    let mut headers = HeaderMap::new();
    headers.insert("x-tenant", HeaderValue::from_static("north"));
    headers.append("x-twice", HeaderValue::from_static("a"));
    headers.append("x-twice", HeaderValue::from_static("b"));
    headers.insert("cookie", HeaderValue::from_static("sid=north; two=1; two=2; empty="));
    let address = "192.0.2.7".parse().unwrap();
    let known = KeyFacts { principal: Some(&principal), headers: &headers, address };
    let key = |by: &[HashBy]| Balance::Hash(by.into()).key(known);
    let header = |name: &'static str| HashBy::Header(HeaderName::from_static(name));
    let cookie = |name: &str| HashBy::Cookie(name.into());
    let claim = |id| HashBy::Claim(ClaimId(id));
    let present = [header("x-tenant"), cookie("sid"), claim(0), HashBy::Subject, HashBy::ClientIp];
    let distinct: BTreeSet<_> =
        present.iter().map(|by| key(std::slice::from_ref(by)).expect("present").0).collect();
    assert_eq!(distinct.len(), present.len(), "equal values of different properties are different keys");
    for absent in [
        header("x-none"),
        header("x-twice"),
        cookie("none"),
        cookie("two"),
        cookie("empty"),
        claim(1),
        claim(2),
    ] {
        assert_eq!(key(std::slice::from_ref(&absent)), None, "{absent:?}");
        assert_eq!(key(&[absent, HashBy::Subject]), key(&[HashBy::Subject]));
    }
    let anonymous = KeyFacts { principal: None, ..known };
    assert_eq!(Balance::Hash(Box::new([HashBy::Subject, claim(0)])).key(anonymous), None);
    assert_eq!(Balance::RoundRobin.key(known), None);
    let other = Principal { issuer: Arc::from("https://other.example.com"), ..Principal::for_tests() };
    let other = KeyFacts { principal: Some(&other), ..known };
    assert_ne!(Balance::Hash(Box::new([HashBy::Subject])).key(other), key(&[HashBy::Subject]));
}

#[test]
fn all_servers_are_used_if_too_few_are_left() {
    let mut upstream = upstream(4);
    let now = Instant::now();
    let mut firsts = |percent: u8, aside: &[usize]| {
        upstream.panic_below = percent;
        for (at, server) in fixed(&upstream).servers.iter().enumerate() {
            if aside.contains(&at) {
                server.record_failure(now)
            } else {
                server.record_response()
            };
        }
        let firsts = (0..8).map(|_| {
            upstream.in_turn(0, fixed(&upstream), now, None, |_| 0).next().unwrap().origin[8..9].to_owned()
        });
        (upstream.is_in_panic(now), firsts.collect::<BTreeSet<_>>().len())
    };
    assert_eq!(firsts(50, &[]), (false, 4));
    assert_eq!(firsts(50, &[0, 1]), (false, 2), "half of them is enough");
    assert_eq!(firsts(50, &[0, 1, 2]), (true, 4));
    assert_eq!(firsts(0, &[0, 1, 2]), (false, 1));
    assert_eq!(firsts(100, &[0]), (true, 4));
}

#[test]
fn a_server_that_came_back_gets_a_growing_share() {
    let mut upstream = upstream(2);
    upstream.slow_start = Duration::from_secs(10);
    let now = Instant::now();
    fixed(&upstream).servers[0].record_failure(now);
    fixed(&upstream).servers[0].record_response();
    let back = Instant::now();
    let firsts = |seconds: u64, key: bool| {
        let at = back + Duration::from_secs(seconds);
        let key = |n: u64| key.then_some(Key(scatter(n)));
        let first = |n: u64| {
            upstream.in_turn(0, fixed(&upstream), at, key(n), |_| 0).next().unwrap().id
                == fixed(&upstream).servers[0].id
        };
        (0..4_000).filter(|n| first(*n)).count()
    };
    for key in [false, true] {
        assert!((100..400).contains(&firsts(0, key)), "a tenth of a half, or less: {}", firsts(0, key));
        assert!((700..1_500).contains(&firsts(5, key)), "about half: {}", firsts(5, key));
    }
    assert_eq!(firsts(10, false), 2_000);
    let alone = hashed(&["http://a:1".to_owned(), "http://b:1".to_owned()], &[1, 1]);
    assert_eq!(order_for(&alone, 3).len(), 2);
}
