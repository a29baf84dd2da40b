//! Tests of rules for different callers.

use super::expected::asking;
use super::*;
use crate::authenticate::principal::Shape;
use crate::authenticate::{ClaimId, ClaimValue, Place, Principal};
use crate::denial::Denial;
use crate::route::Params;
use std::rc::Rc;
use std::sync::Arc;

fn principal(roles: &[&str], scopes: &[&str], tenant: Option<&str>) -> Rc<Principal> {
    let boxed = |names: &[&str]| names.iter().map(|name| Box::from(*name)).collect();
    Rc::new(Principal {
        issuer: Arc::from("i"),
        subject: "s".into(),
        roles: boxed(roles),
        scopes: boxed(scopes),
        claims: Box::new([tenant.map(|tenant| ClaimValue::Text(tenant.into()))]),
        ..Principal::for_tests()
    })
}

fn names(names: &[&str]) -> Box<[Box<str>]> {
    names.iter().map(|name| Box::from(*name)).collect()
}

fn verdict(check: Check, principal: Rc<Principal>) -> Result<(), Denial> {
    let mut params = Params::default();
    params.push("acme");
    let caller = Some((principal, Place::Header));
    asking("h", &[], &params, 0, |request| authorize(&Rule::new(vec![check]), caller, request)).map(
        |permit| {
            assert!(permit.principal().is_some());
        },
    )
}

#[test]
fn one_of_the_roles_is_enough_and_a_name_is_compared_whole() {
    let rule = || Check::Roles(names(&["admin", "clerk"]));
    assert_eq!(verdict(rule(), principal(&["clerk"], &[], None)), Ok(()));
    for roles in [&[][..], &["not-admin"], &["administrator"], &["Admin"], &["admin,clerk"], &["user"]] {
        assert_eq!(verdict(rule(), principal(roles, &[], None)), Err(Denial::InsufficientRole), "{roles:?}");
    }
}

#[test]
fn all_roles_means_all() {
    let rule = || Check::AllRoles(names(&["admin", "clerk"]));
    assert_eq!(verdict(rule(), principal(&["clerk", "admin", "x"], &[], None)), Ok(()));
    assert_eq!(verdict(rule(), principal(&["admin"], &[], None)), Err(Denial::InsufficientRole));
}

#[test]
fn none_of_the_excluded_roles_may_be_there_and_what_may_hide_one_is_refused() {
    let rule = || Check::NotRoles(names(&["banned", "left"]));
    for roles in [&[][..], &["clerk"], &["Banned"], &["not-banned"], &["banned "]] {
        assert_eq!(verdict(rule(), principal(roles, &[], None)), Ok(()), "{roles:?}");
    }
    for roles in [&["banned"][..], &["clerk", "left"]] {
        assert_eq!(verdict(rule(), principal(roles, &[], None)), Err(Denial::InsufficientRole), "{roles:?}");
    }
    let shaped = |shape: Shape, roles: &[&str]| {
        let mut principal = Rc::into_inner(principal(roles, &[], None)).unwrap();
        principal.shapes.roles = shape;
        verdict(rule(), Rc::new(principal))
    };
    for (shape, roles, passes) in [
        (Shape::Absent, &[][..], true),
        (Shape::Text, &["clerk"], true),
        (Shape::Text, &["clerk banned"], false),
        (Shape::Text, &["clerk other"], false),
        (Shape::Text, &["clerk,other"], false),
        (Shape::List, &["clerk other"], true),
        (Shape::Mixed, &["clerk"], false),
        (Shape::Object, &[], false),
        (Shape::Other, &[], false),
    ] {
        assert_eq!(shaped(shape, roles).is_ok(), passes, "{shape:?} {roles:?}");
    }
}

#[test]
fn one_of_any_scopes_is_enough() {
    let rule =
        || Check::AnyScope { any: names(&["a:read", "a:admin"]), challenge: Arc::from("a:read a:admin") };
    for scopes in [&["a:read"][..], &["a:admin", "x"]] {
        assert_eq!(verdict(rule(), principal(&[], scopes, None)), Ok(()), "{scopes:?}");
    }
    let denial = Err(Denial::InsufficientScope(Arc::from("a:read a:admin")));
    for scopes in [&[][..], &["a:write"], &["A:read"], &["a:read a:admin"]] {
        assert_eq!(verdict(rule(), principal(&["a:read"], scopes, None)), denial, "{scopes:?}");
    }
}

#[test]
fn a_token_of_another_issuer_is_refused() {
    let rule = |issuers: &[&str]| Check::Issuers(names(issuers));
    assert_eq!(verdict(rule(&["x", "i"]), principal(&[], &[], None)), Ok(()));
    for issuers in [&["x"][..], &["I"], &["i/"], &[]] {
        assert_eq!(
            verdict(rule(issuers), principal(&[], &[], None)),
            Err(Denial::UnknownIssuer),
            "{issuers:?}"
        );
    }
}

#[test]
fn all_scopes_are_needed_and_named_in_the_challenge() {
    let rule =
        || Check::Scopes { all: names(&["a:read", "a:write"]), challenge: Arc::from("a:read a:write") };
    assert_eq!(verdict(rule(), principal(&[], &["a:write", "a:read"], None)), Ok(()));
    let denial = Err(Denial::InsufficientScope(Arc::from("a:read a:write")));
    assert_eq!(verdict(rule(), principal(&[], &["a:read"], None)), denial);
    assert_eq!(verdict(rule(), principal(&["a:read", "a:write"], &[], None)), denial, "a role is no scope");
}

#[test]
fn a_claim_is_what_the_path_says() {
    let equals = Expected::Param { position: 0, name: "tenant".into() };
    let rule = || Check::Claim { claim: ClaimId(0), name: "tenant".into(), equals: equals.clone() };
    assert_eq!(verdict(rule(), principal(&[], &[], Some("acme"))), Ok(()));
    for tenant in [Some("acme2"), Some("ACME"), Some(""), None] {
        assert_eq!(verdict(rule(), principal(&[], &[], tenant)), Err(Denial::ClaimMismatch), "{tenant:?}");
    }
    // Some upstreams read `acme;x` as `acme`.
    for tenant in ["acme;x", "acme%3Bx", "acme"] {
        let mut params = Params::default();
        params.push(tenant);
        let claim = tenant.replace("%3B", ";");
        let caller = principal(&[], &[], Some(&claim));
        let found = asking("h", &[], &params, 0, |request| rule().verdict(&caller, request));
        assert_eq!(found.is_ok(), tenant == "acme", "{tenant}");
    }
    let equals = Expected::Param { position: 1, name: "none".into() };
    let rule = Check::Claim { claim: ClaimId(0), name: "tenant".into(), equals };
    assert_eq!(verdict(rule, principal(&[], &[], Some("acme"))), Err(Denial::ClaimMismatch));
}

#[test]
fn a_caller_without_a_token_fails_every_check() {
    let params = Params::default();
    let rule = Rule::new(vec![Check::AllRoles(Box::new([]))]);
    let ask = |rule: &Rule| asking("h", &[], &params, 0, |request| authorize(rule, None, request));
    assert_eq!(ask(&rule).unwrap_err(), Denial::MissingToken);
    let excluding = Rule::new(vec![Check::NotRoles(names(&["banned"]))]);
    assert_eq!(ask(&excluding).unwrap_err(), Denial::MissingToken, "nobody has no role");
    assert!(ask(&Rule::default()).is_ok());
}

#[test]
fn a_refusal_in_shadow_mode_is_recorded_before_there_is_a_permit() {
    let caller = Some((principal(&[], &[], None), Place::Cookie));
    let refusal = Refusal { denial: Denial::InsufficientRole, detail: None, caller, pending: None };
    let mut recorded = None;
    let permit = Permit::in_shadow(refusal, &ShadowMode::new()).record(|refusal| recorded = Some(refusal));
    assert_eq!(recorded.map(|refusal| refusal.denial), Some(Denial::InsufficientRole));
    assert_eq!(permit.principal().map(|principal| &*principal.subject), Some("s"));
    assert_eq!(permit.place(), Some(Place::Cookie));
}
