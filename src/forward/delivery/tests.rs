use super::*;
use crate::authenticate::Principal;
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use std::net::IpAddr;

fn delivery(name: &str) -> Delivery {
    Delivery {
        destination: Destination::Echo,
        split: None,
        mirror: None,
        rewrite: None,
        request_fields: None,
        request_trailers: None,
        answer_fields: None,
        pass_authorization: false,
        forward_token: false,
        timeout: None,
        websocket: false,
        ends_with_token: true,
        silence: None,
        audience: Arc::new(Audience::new(Arc::from(name), None)),
    }
}

fn split(own: u16, shares: &[(&str, u16)], by: HashBy) -> Split {
    Split {
        selected: Box::default(),
        shares: shares.iter().map(|(name, percent)| (Share::new(name, *percent), delivery(name))).collect(),
        own: Share::new("own", own),
        by: Box::new([by]),
    }
}

fn chosen(split: &Split, headers: &HeaderMap, principal: Option<&Principal>) -> String {
    let facts = KeyFacts { principal, headers, address: IpAddr::from([192, 0, 2, 1]) };
    split.choose(facts, None).map_or_else(|| "own".to_owned(), |it| it.audience.name.to_string())
}

const TENANT: HeaderName = HeaderName::from_static("x-tenant");

fn of_tenant(split: &Split, tenant: u32) -> String {
    chosen(split, &HeaderMap::from_iter([(TENANT, HeaderValue::from(tenant))]), None)
}

#[test]
fn shares_are_as_large_as_their_percentages_and_grow_without_moving_anybody_back() {
    let count = |split: &Split, name: &str| (0..10_000).filter(|it| of_tenant(split, *it) == name).count();
    let by = || HashBy::Header(TENANT);
    let small = split(90, &[("next", 10), ("off", 0)], by());
    assert!((850..1150).contains(&count(&small, "next")), "{}", count(&small, "next"));
    assert_eq!(count(&small, "off"), 0);
    let large = split(70, &[("next", 30), ("off", 0)], by());
    assert!((2800..3200).contains(&count(&large, "next")), "{}", count(&large, "next"));
    for tenant in 0..2_000 {
        let (before, after) = (of_tenant(&small, tenant), of_tenant(&large, tenant));
        assert!(before == after || after == "next", "{tenant}: {before} {after}");
    }
    assert_eq!(count(&split(0, &[("next", 100)], by()), "next"), 10_000);
    assert_eq!(count(&split(100, &[("next", 0)], by()), "own"), 10_000);
}

#[test]
fn a_request_without_a_property_stays_with_the_own_upstream() {
    assert_eq!(chosen(&split(1, &[("next", 99)], HashBy::Subject), &HeaderMap::new(), None), "own");
    let drawn = Split { by: Box::default(), ..split(0, &[("next", 100)], HashBy::ClientIp) };
    assert_eq!(chosen(&drawn, &HeaderMap::new(), None), "own", "a hypothetical request has no id");
}

#[test]
fn the_first_selector_wins_and_an_ambiguous_field_selects_nothing() {
    let fields = |value: &'static str| {
        let field = (HeaderName::from_static("x-canary"), HeaderValue::from_static(value));
        Selector::Headers(Fields::new(vec![field]).unwrap())
    };
    let selected = [(fields("1"), delivery("one")), (fields("2"), delivery("two"))];
    let split = Split { selected: selected.into(), ..split(0, &[("rest", 100)], HashBy::ClientIp) };
    let ask = |fields: &[(&'static str, &'static str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        chosen(&split, &headers, None)
    };
    assert_eq!(ask(&[("x-canary", "1")]), "one");
    assert_eq!(ask(&[("x-canary", "2")]), "two");
    for other in [
        &[("x-canary", "3")][..],
        &[],
        &[("x-canary", "1"), ("x-canary", "1")],
        &[("x-canary", "1"), ("x_canary", "2")],
    ] {
        assert_eq!(ask(other), "rest", "{other:?}");
    }
    assert_eq!(split.to_string(), "own (0 %), one (x-canary: 1), two (x-canary: 2), rest (100 %)");
}

proptest! {
    #[test]
    fn the_choice_is_one_of_the_shares_and_always_the_same(own in 0_u16..100, next in 0_u16..100, tenant: u32) {
        let split = split(own, &[("next", next)], HashBy::Header(TENANT));
        let name = of_tenant(&split, tenant);
        prop_assert_eq!(&name, &of_tenant(&split, tenant));
        prop_assert!(next > 0 || name == "own");
        prop_assert!(own > 0 || next == 0 || name == "next");
    }
}
