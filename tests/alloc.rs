//! A decision on a token in the cache allocates nothing. These tests have their own binary, because its allocator
//! counts.
#![allow(unsafe_code, reason = "a global allocator is unsafe by its trait")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "kit/measured.rs"]
mod measured;

use http::header::AUTHORIZATION;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request};
use measured::{authorization, issuer};
use portcullis::authenticate::{
    Access, ClaimValue, CredentialPolicy, Credentials, Issuer, KeySet, Pending, Principal, TokenCache, Trust,
};
use portcullis::authorize::{Check, Expected, Rule};
use portcullis::clock::Now;
use portcullis::decision::decide;
use portcullis::decision_log::{Decision, DecisionLog, LoggedCredential, Recorder};
use portcullis::forward::{Assertor, Audience, Proof, Proofs};
use portcullis::introspection::{IntrospectionSettings, Introspector, Verdict};
use portcullis::limit::{By, Fleet, FleetSecret, Limit, LimitKey, Sharing, Standing, admit};
use portcullis::peer::Scheme;
use portcullis::route::head::HeadBounds;
use portcullis::route::path::Slashes;
use portcullis::route::{Fields, Head, HostPattern, Matcher, Methods, Params, PathPattern, RouteTable};
use rustls::RootCertStore;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::Future;
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is forwarded to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller upholds the contract of `System.alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller upholds the contract of `System.dealloc`, which is the same.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller upholds the contract of `System.realloc`, which is the same.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Returns the result of the work, and the number of its allocations.
fn counted<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = ALLOCATIONS.get();
    let result = work();
    (result, ALLOCATIONS.get() - before)
}

fn trust() -> Trust {
    measured::trust(issuer(), &["tenant"])
}

fn request(now: Now) -> HeaderMap {
    let claims =
        serde_json::json!({ "roles": ["user", "admin"], "scope": "orders:read", "tenant": "acme inc" });
    HeaderMap::from_iter([(AUTHORIZATION, authorization(now, claims))])
}

fn head<'h>(path: &'static str, headers: &'h HeaderMap) -> Head<'h> {
    let host = Some("api.example.com".into());
    Head { method: &Method::GET, host, port: None, path: path.into(), query: None, headers }
}

#[test]
fn the_counter_counts() {
    assert_eq!(counted(|| drop(std::hint::black_box(Box::new(1)))).1, 1);
}

#[test]
fn a_request_under_a_limit_of_the_fleet_allocates_nothing() {
    let sharing = Sharing {
        fleet: Arc::new(Fleet::for_tests(3)),
        is_exact: false,
        applies_alone: true,
        by: "client_ip".into(),
        secret: FleetSecret::derive("portcullis", ""),
    };
    let (rate, headers) = (NonZeroU32::new(100_000).unwrap(), HeaderMap::new());
    let limit = Limit::new("fleet".into(), By::ClientIp, rate, Duration::from_secs(1), rate);
    let limits = [Arc::new(limit.shared(&sharing, None))];
    let admitted = |address: u32| {
        let address = std::net::Ipv4Addr::from(address).into();
        let key = LimitKey { address, headers: &headers, route: "r", principal: None };
        admit(&limits, &key, &mut Standing::default()).is_ok()
    };
    // The first key of each of the 16 shards allocates the table.
    assert!((0..500).all(&admitted));
    assert_eq!(counted(|| (400..2_000).all(&admitted)), (true, 0));
}

#[test]
fn a_decision_on_a_token_seen_before_allocates_nothing() {
    let (trust, now) = (trust(), Now::read());
    let headers = request(now);
    let tenant = Expected::Param { position: 0, name: "tenant".into() };
    let rule = Rule::new(vec![
        Check::Roles(Box::new(["clerk".into(), "admin".into()])),
        Check::Scopes { all: Box::new(["orders:read".into()]), challenge: Arc::from("orders:read") },
        Check::Claim { claim: portcullis::authenticate::ClaimId(0), name: "tenant".into(), equals: tenant },
        Check::NotRoles(Box::new(["banned".into()])),
        Check::AnyScope { any: Box::new(["orders:read".into()]), challenge: Arc::from("orders:read") },
        Check::Issuers(Box::new(["https://id.example.com".into()])),
        Check::Claim {
            claim: portcullis::authenticate::ClaimId(0),
            name: "tenant".into(),
            equals: Expected::AnyOf(Box::new([ClaimValue::Bool(true), ClaimValue::Text("acme inc".into())])),
        },
    ]);
    let of_request = |equals: Expected| {
        let claim = portcullis::authenticate::ClaimId(0);
        Rule::new(vec![Check::Claim { claim, name: "tenant".into(), equals }])
    };
    let others = [
        of_request(Expected::HostLabel("example.com".into())),
        of_request(Expected::HostName),
        of_request(Expected::Header(http::HeaderName::from_static("x-tenant"))),
    ];
    let refusing = Rule::new(vec![Check::AllRoles(Box::new(["root".into()]))]);
    let mut params = Params::default();
    params.push("acme%20inc");
    let mut tokens = TokenCache::new(16);
    let head = head("/", &headers);
    let shown = Credentials::new(&head, Scheme::Https);
    let credential_policy = CredentialPolicy::from(Access::Authenticated);
    let mut ask = |rule: &Rule| {
        counted(|| decide(&credential_policy, rule, &trust, &shown, &params, now, &mut tokens).is_ok())
    };

    let (permitted, allocations) = ask(&rule);
    assert!(permitted && allocations > 0, "the first time a token is verified");
    assert_eq!(ask(&rule), (true, 0));
    assert_eq!(ask(&refusing), (false, 0), "a refusal is as cheap");
    for rule in &others {
        assert_eq!(ask(rule), (false, 0), "a comparison with the request allocates nothing");
    }
}

/// Returns the questions to an issuer, with one answer: the token is active.
fn introspector(refused: &mut dyn FnMut(&Arc<Introspector>) -> Box<Pending>, now: Now) -> Arc<Introspector> {
    let settings = IntrospectionSettings::for_tests();
    let introspector = Introspector::after(settings, Arc::new(RootCertStore::empty()), None).unwrap();
    let pending = refused(&introspector);
    let claims = serde_json::json!({
        "active": true, "token_type": "Bearer", "aud": "orders", "sub": "ada", "roles": ["user", "admin"],
        "scope": "orders:read", "tenant": "acme inc",
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut wait = pin!(pending.wait(now.steady + Duration::from_secs(60), now));
        assert!(wait.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let answer = Verdict::Active(claims.to_string().into_bytes());
        introspector.next().await.end(Ok(answer), Duration::ZERO, now);
        wait.await.unwrap();
    });
    introspector
}

#[test]
fn a_decision_on_an_opaque_token_seen_before_allocates_nothing() {
    let now = Now::read();
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, "Bearer 2YotnFZFEjr1zCsicMWpAA".parse().unwrap());
    let head = head("/", &headers);
    let shown = Credentials::new(&head, Scheme::Https);
    let (credential_policy, params) = (CredentialPolicy::from(Access::Authenticated), Params::default());
    let rule = Rule::new(vec![
        Check::Roles(Box::new(["admin".into()])),
        Check::Scopes { all: Box::new(["orders:read".into()]), challenge: Arc::from("orders:read") },
    ]);
    let asked = |introspector: &Arc<Introspector>| {
        let (keys, introspector) = (KeySet::default(), Some(introspector.clone()));
        measured::trust(Issuer { keys, introspector, local: false, ..issuer() }, &["tenant"])
    };
    let mut unanswered = |introspector: &Arc<Introspector>| {
        let (trust, mut tokens) = (asked(introspector), TokenCache::new(16));
        let decided = decide(&credential_policy, &rule, &trust, &shown, &params, now, &mut tokens);
        decided.unwrap_err().pending.unwrap()
    };
    let trust = asked(&introspector(&mut unanswered, now));
    let mut tokens = TokenCache::new(16);
    let mut ask =
        || counted(|| decide(&credential_policy, &rule, &trust, &shown, &params, now, &mut tokens).is_ok());
    let (permitted, allocations) = ask();
    assert!(permitted && allocations > 0, "the first time the answer is read");
    assert_eq!(ask(), (true, 0));
}

#[test]
fn an_assertion_that_is_given_again_allocates_nothing() {
    let assertor = Assertor {
        header: "x-auth-assertion".parse().unwrap(),
        issuer: "https://id.example.com".into(),
        claims: Box::new([]),
        binds: false,
        sign: Arc::new(|claims, _| Some(serde_json::Value::Object(claims.clone()).to_string())),
    };
    let proofs = Proofs { assertion: Some(assertor), signature: None };
    let audience = Audience::new(Arc::from("orders"), None);
    let caller = Principal { roles: Box::new(["clerk".into()]), ..Principal::for_tests() };
    let (method, target, now) = (Method::GET, PathAndQuery::from_static("/orders/7"), Now::read());
    let proof = Proof { proofs: &proofs, audience: &audience, method: &method, target: &target, now };
    let write = || {
        let mut headers = HeaderMap::with_capacity(16);
        let ((), allocations) = counted(|| proof.write(&mut headers, &caller));
        (headers.len(), allocations)
    };
    let (reported, allocations) = write();
    assert!(reported == 1 && allocations > 0, "the first time it is made");
    assert_eq!(write(), (1, 0));
}

#[test]
fn keeping_a_decision_in_a_ring_that_has_been_round_allocates_nothing() {
    let (trust, now) = (trust(), Now::read());
    let headers = request(now);
    let head = head("/orders/7", &headers);
    let shown = Credentials::new(&head, Scheme::Https);
    let (credential_policy, params) = (CredentialPolicy::from(Access::Authenticated), Params::default());
    let decided =
        decide(&credential_policy, &Rule::default(), &trust, &shown, &params, now, &mut TokenCache::new(16));
    let permit = decided.unwrap();
    let decision = Decision {
        time: now.unix,
        method: head.method.as_str(),
        scheme: Scheme::Https,
        host: "h",
        path: &head.path,
        client: [203, 0, 113, 7].into(),
        credential: LoggedCredential::Verified,
        principal: permit.principal().map(|principal| &**principal),
        claims: trust.claims(),
        route: Some("orders"),
        code: None,
        shadow: false,
    };
    let recorder = Recorder::new(Arc::new(DecisionLog::new(8)));
    let keep = || counted(|| recorder.keep(now, &decision)).1;
    let first: usize = (0..5).map(|_| keep()).sum();
    assert!(first > 0, "room is made when it is needed");
    assert_eq!((0..20).map(|_| keep()).sum::<usize>(), 0);
}

#[test]
fn reading_a_head_and_finding_its_route_allocates_nothing() {
    let entry = |path: &str| {
        let path = PathPattern::parse(path).unwrap();
        (Matcher { host: HostPattern::Any, path, methods: Methods::any(), fields: Fields::default() }, ())
    };
    let table = RouteTable::build(vec![entry("/"), entry("/orders/{id}"), entry("/static/{*rest}")]).unwrap();
    let request = Request::get("/orders/7?q=1").header("host", "api.example.com:8443").body(()).unwrap();
    let (parts, ()) = request.into_parts();
    let bounds = HeadBounds { header_count: 100, header_bytes: 32 << 10 };

    let (found, allocations) = counted(|| {
        let head = Head::read(&parts, bounds, Slashes::Strict).unwrap();
        table.find(&head).is_ok()
    });
    assert_eq!((found, allocations), (true, 0));
}
