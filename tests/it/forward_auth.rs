//! Verdicts for real proxies: nginx, Caddy, Traefik and Envoy, each with its documented configuration.
//!
//! Starting a proxy takes most of the time, so each proxy is started once for all checks.

use crate::kit::account::AUTHORITY;
use crate::kit::client::{Connection, HOST};
use crate::kit::forge::Token;
use crate::kit::prover::{Prover, bound};
use crate::kit::proxies::{Kind, Proxy};
use crate::kit::upstream::Seen;
use crate::kit::{Answer, Portcullis, Request, Upstream, client, token};
use crate::{ASKED_ROUTES, policy};

/// Names that a service could mistake for the gateway's identity fields.
const FORGED: [&str; 9] = [
    "X-Auth-Subject",
    "x-auth-roles",
    "X-Auth-Scopes",
    "X-Auth-Issuer",
    "X-Auth-Assertion",
    "X_Auth_Subject",
    "X-Auth_Roles",
    "X.Auth.Subject",
    "X-Auth-Csrf",
];

/// A proxy, its gateway, and the service behind the proxy.
struct Stage {
    kind: Kind,
    gateway: Portcullis,
    service: Upstream,
    proxy: Proxy,
}

impl Stage {
    #[track_caller]
    fn set(kind: Kind) -> Self {
        let service = Upstream::start();
        // The gateway forwards no request here. The policy's upstream is unused.
        let unused = Upstream::start();
        let gateway = Portcullis::with(&policy(
            &unused,
            &format!(
                "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n{ASKED_ROUTES}{AUTHORITY}cookies = true\n"
            ),
        ))
        .start();
        unused.stop();
        let proxy = Proxy::start(kind, &gateway, &service);
        Self { kind, gateway, service, proxy }
    }

    /// Returns the proxy's answer, and the request that the service received.
    #[track_caller]
    fn ask(&self, request: &Request) -> (Answer, Option<Seen>) {
        let before = self.service.requests().len();
        let answer = request.to(self.proxy.address());
        let mut seen = self.service.requests().split_off(before);
        assert!(seen.len() <= 1, "{:?}: once: {seen:#?}", self.kind);
        (answer, seen.pop())
    }

    #[track_caller]
    fn passes(&self, request: &Request) -> Seen {
        let (answer, seen) = self.ask(request);
        assert_eq!(answer.status, 200, "{:?} {request:?}: {answer:#?}", self.kind);
        seen.unwrap_or_else(|| panic!("{:?} {request:?} reaches the service", self.kind))
    }

    #[track_caller]
    fn refuses(&self, request: &Request, status: u16, code: &str) -> Answer {
        let (answer, seen) = self.ask(request);
        assert!(seen.is_none(), "{:?} {request:?} does not reach the service: {seen:#?}", self.kind);
        assert_eq!(answer.status, status, "{:?} {request:?}: {answer:#?}", self.kind);
        if self.kind != Kind::Nginx {
            // nginx passes on the status, but not the body.
            assert_eq!(answer.code(), code, "{:?} {request:?}: {answer:#?}", self.kind);
        }
        answer
    }
}

fn clerk() -> Token {
    token("ada").role("clerk")
}

fn forging(request: Request) -> Request {
    request.header("X-Auth-Subject", "forged").header("X-Auth-Roles", "forged-admin")
}

#[test]
fn nginx_forwards_what_the_gateway_permits_and_nothing_else() {
    all_of_it(&Stage::set(Kind::Nginx));
}

#[test]
fn caddy_forwards_what_the_gateway_permits_and_nothing_else() {
    all_of_it(&Stage::set(Kind::Caddy));
}

#[test]
fn traefik_forwards_what_the_gateway_permits_and_nothing_else() {
    all_of_it(&Stage::set(Kind::Traefik));
}

#[test]
fn envoy_forwards_what_the_gateway_permits_and_nothing_else() {
    all_of_it(&Stage::set(Kind::Envoy));
}

fn all_of_it(stage: &Stage) {
    each_kind_of_route(stage);
    bound_tokens(stage);
    no_forged_identity_arrives(stage);
    methods_hosts_and_bodies(stage);
    no_field_of_the_client_chooses_the_route(stage);
    no_field_of_another_product_arrives(stage);
    raw_characters_and_large_heads_pass_as_at_the_gate(stage);
    no_spelling_leads_past_a_guard(stage);
    limits_pages_and_cookies(stage);
    the_operator_finds_it(stage);
    a_gateway_that_is_away_permits_nothing(stage);
}

fn each_kind_of_route(stage: &Stage) {
    stage.passes(&Request::get("/open/a"));
    stage.passes(&Request::get("/maybe"));
    let refused = stage.refuses(&Request::get("/orders/1"), 401, "missing_token");
    assert_eq!(refused.header("www-authenticate"), Some("Bearer realm=\"portcullis\""), "{refused:#?}");
    let expired = stage.refuses(&Request::get("/orders/1").bearer(clerk().expired()), 401, "expired_token");
    assert!(expired.header("www-authenticate").is_some_and(|c| c.contains("expired_token")), "{expired:#?}");
    stage.refuses(&Request::get("/maybe").bearer(clerk().expired()), 401, "expired_token");
    stage.refuses(&Request::get("/orders/1").bearer(token("bob")), 403, "insufficient_role");
    stage.refuses(&Request::get("/nowhere"), 403, "no_route");
    let seen = stage.passes(&Request::get("/orders/1?q=%2e%2E&x=a%20b").bearer(clerk()));
    assert_eq!(seen.target, "/orders/1?q=%2e%2E&x=a%20b");
    assert_eq!(seen.header("x-auth-subject"), Some("ada"), "{seen:#?}");
    assert_eq!(seen.header("x-auth-roles"), Some("clerk"), "{seen:#?}");
    assert_eq!(seen.header("x-auth-issuer"), Some("https://id.test/"), "{seen:#?}");
    assert!(!seen.mentions("bearer"), "the token stays outside: {seen:#?}");
    // As a proxy, the gateway refuses a gRPC call with status 200. In a verdict, 200 would permit the request.
    let call =
        Request::post("/orders/1", "").header("Content-Type", "application/grpc").header("TE", "trailers");
    let (answer, seen) = stage.ask(&call);
    assert!(seen.is_none(), "{:?}: {seen:#?}", stage.kind);
    // Envoy itself turns the refusal into a 200 with a gRPC status for its client.
    let refused = answer.status == 401 || answer.header("grpc-status") == Some("16");
    assert!(refused, "{:?}: {answer:#?}", stage.kind);
}

/// The proof is for the request to the proxy, and the service gets neither the token nor the proof.
fn bound_tokens(stage: &Stage) {
    let (prover, thief) = (Prover::new(), Prover::new());
    let own = clerk().claim("cnf", prover.confirmation()).to_string();
    let ask = prover.get("/orders/1?q=1", &own);
    let seen = stage.passes(&ask);
    assert_eq!(seen.header("x-auth-subject"), Some("ada"), "{seen:#?}");
    assert_eq!((seen.header("authorization"), seen.header("dpop")), (None, None), "{seen:#?}");
    stage.refuses(&ask, 401, "replayed_dpop_proof");
    let proof = |method: &str, path: &str| prover.proof(method, path).token(&own);
    let post = || bound(Request::post("/orders/1", "x"), &own, &proof("POST", "/orders/1").sign());
    assert_eq!(stage.passes(&post()).method, "POST");
    for (name, request, code) in [
        ("as a bearer token", Request::get("/orders/1").bearer(&own), "bound_token"),
        ("by another key", thief.get("/orders/1", &own), "invalid_dpop_proof"),
        (
            "for another path",
            bound(Request::get("/orders/1"), &own, &proof("GET", "/orders/2").sign()),
            "invalid_dpop_proof",
        ),
        (
            "for the question",
            bound(Request::get("/orders/1"), &own, &proof("GET", "/auth/verify").sign()),
            "invalid_dpop_proof",
        ),
        (
            "for another method",
            bound(Request::get("/orders/1"), &own, &proof("POST", "/orders/1").sign()),
            "invalid_dpop_proof",
        ),
        (
            "for a host that only the client names",
            bound(
                Request::get("/orders/1").header("X-Forwarded-Host", "evil.test"),
                &own,
                &proof("GET", "/orders/1").claim("htu", "http://evil.test/orders/1").sign(),
            ),
            "invalid_dpop_proof",
        ),
        ("an unbound token", prover.get("/orders/1", &clerk().to_string()), "unbound_token"),
    ] {
        let refused = stage.refuses(&request, 401, code);
        let challenge = refused.header("www-authenticate").unwrap_or_default();
        assert!(
            challenge.starts_with("DPoP ") && challenge.contains(code),
            "{:?} {name}: {refused:#?}",
            stage.kind
        );
    }
    let old = || proof("GET", "/orders/1").claim("iat", 1_500_000_000);
    let refused =
        stage.refuses(&bound(Request::get("/orders/1"), &own, &old().sign()), 401, "use_dpop_nonce");
    let nonce = refused.header("dpop-nonce").unwrap_or_else(|| panic!("{:?}: {refused:#?}", stage.kind));
    stage.passes(&bound(Request::get("/orders/1"), &own, &old().claim("nonce", nonce).sign()));
}

fn no_forged_identity_arrives(stage: &Stage) {
    for name in FORGED {
        for request in [
            Request::get("/open/a"),
            Request::get("/maybe"),
            Request::get("/maybe").bearer(token("bob")),
            Request::get("/orders/1").bearer(clerk()),
            Request::get("/open/a").bearer(clerk()),
        ] {
            let request = request.header(name, "forged").header(name, "forged, twice");
            // Some proxies refuse a request with an unusual field name, and others drop the field.
            let (answer, seen) = stage.ask(&request);
            match seen {
                Some(seen) => {
                    assert!(!seen.mentions("forged"), "{:?} {name}: {seen:#?}", stage.kind);
                    assert_eq!(answer.status, 200);
                }
                None => assert!(answer.status >= 400 && name.contains(['_', '.']), "{name}: {answer:#?}"),
            }
        }
    }
    if stage.kind != Kind::Nginx {
        // nginx removes only the names in its file. The other proxies remove all names with the prefix.
        let seen = stage.passes(&Request::get("/open/a").header("X-Auth-Anything", "forged"));
        assert!(!seen.mentions("forged"), "{:?}: {seen:#?}", stage.kind);
    }
    // Without an identity, the service gets no identity field.
    for path in ["/open/a", "/maybe"] {
        let seen = stage.passes(&forging(Request::get(path)));
        assert!(!seen.mentions("x-auth-"), "{:?} {path}: {seen:#?}", stage.kind);
    }
    let seen = stage.passes(&forging(Request::get("/maybe").bearer(token("bob"))));
    assert_eq!(seen.header("x-auth-subject"), Some("bob"));
    assert_eq!(seen.header("x-auth-roles"), None, "bob has none: {seen:#?}");
    // The client lists the identity fields in `Connection`, so that the proxy removes them (CVE-2024-45410).
    let request = || Request::get("/orders/1").bearer(clerk());
    for request in [
        request().header("Connection", "close, X-Auth-Subject, X-Forwarded-Uri"),
        request().header("Connection", "close").header("connection", "x-auth-subject"),
        request().header("Connection", "X-Original-Uri,x-forwarded-host,X-FORWARDED-METHOD"),
    ] {
        let (answer, seen) = stage.ask(&request);
        match seen {
            Some(seen) => assert_eq!(seen.header("x-auth-subject"), Some("ada"), "{seen:#?}"),
            None => assert!(answer.status >= 400, "{answer:#?}"),
        }
    }
}

fn methods_hosts_and_bodies(stage: &Stage) {
    let seen = stage.passes(&Request::post("/orders/1", "some body").bearer(clerk()));
    assert_eq!((&*seen.method, &*seen.body, seen.complete), ("POST", &b"some body"[..], true), "{seen:#?}");
    stage.refuses(&Request::post("/orders/1", "some body"), 401, "missing_token");
    stage.refuses(&Request::new("DELETE", "/orders/1").bearer(clerk()), 403, "method_not_allowed");
    let chunked = format!(
        "POST /orders/1 HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {}\r\nTransfer-Encoding: chunked\r\n\r\n\
         4\r\nsome\r\n0\r\n\r\n",
        clerk()
    );
    client::send(stage.proxy.address(), chunked).is(200);
    assert_eq!(stage.service.last_request().body, b"some");
    let trailing = format!(
        "POST /orders/1 HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {}\r\nTE: trailers\r\n\
         Trailer: X-Auth-Subject\r\nTransfer-Encoding: chunked\r\n\r\n\
         4\r\nmore\r\n0\r\nX-Auth-Subject: forged\r\nX-Auth-Roles: forged\r\n\r\n",
        clerk()
    );
    client::send(stage.proxy.address(), trailing).is(200);
    let seen = stage.service.last_request();
    assert!(seen.body == b"more" && !seen.mentions("forged"), "{:?}: {seen:#?}", stage.kind);
    let (answer, seen) = stage.ask(&Request::new("HEAD", "/orders/1").bearer(clerk()));
    assert_eq!((answer.status, seen.unwrap().method), (200, "HEAD".to_owned()));
    let (answer, seen) = stage.ask(&Request::new("HEAD", "/orders/1"));
    assert_eq!((answer.status, seen.is_none()), (401, true));

    let inside = Request::get("/open/a").host("internal.test");
    stage.refuses(&inside, 401, "missing_token");
    stage.refuses(&inside.clone().bearer(clerk()), 403, "insufficient_role");
    let seen = stage.passes(&inside.bearer(token("root").role("admin")));
    assert_eq!(seen.header("host"), Some("internal.test"), "{seen:#?}");
    // The absolute target and `Host` differ. The gateway and the service must see the same host.
    let both = format!("GET http://internal.test/open/a HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let before = stage.service.requests().len();
    let answer = client::send(stage.proxy.address(), both);
    let seen = stage.service.requests().split_off(before).pop();
    let host = seen.as_ref().and_then(|seen| seen.header("host"));
    assert!(answer.status >= 400 || host == Some(HOST), "{:?}: {answer:#?} {seen:#?}", stage.kind);
    assert!(answer.status != 200 || host.is_some(), "{answer:#?}");
}

fn no_field_of_the_client_chooses_the_route(stage: &Stage) {
    for (name, value) in [
        ("X-Forwarded-Uri", "/open/a"),
        ("X-Original-URI", "/open/a"),
        ("X-Original-URL", "http://gateway.test/open/a"),
        ("X-Rewrite-URL", "/open/a"),
        ("X-Forwarded-Method", "GET"),
        ("X-Original-Method", "GET"),
        ("X-Forwarded-Host", "gateway.test"),
        ("X-Forwarded-Host", "other.test"),
        ("X-Forwarded-Prefix", "/open"),
        ("X_Forwarded_Uri", "/open/a"),
        ("X-HTTP-Method-Override", "GET"),
        ("Host", "gateway.test"),
        ("Forwarded", "for=1.1.1.1;host=gateway.test;proto=https"),
    ] {
        for request in [
            Request::get("/orders/1"),
            Request::new("DELETE", "/orders/1").bearer(clerk()),
            Request::get("/open/a").host("internal.test").bearer(clerk()),
        ] {
            let (answer, seen) = stage.ask(&request.header(name, value).header(name, value));
            let label = format!("{:?} {name}: {value}", stage.kind);
            assert!(seen.is_none(), "{label}: {seen:#?}");
            assert!((400..500).contains(&answer.status), "{label}: {answer:#?}");
        }
    }
}

/// Method overrides, and fields in which other products name callers and addresses.
fn no_field_of_another_product_arrives(stage: &Stage) {
    for name in [
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "X-Original-URL",
        "X-Original-URI",
        "X-Original-Method",
        "X-Rewrite-URL",
        "X-Override-URL",
        "X-HTTP-Path-Override",
        "X-Envoy-Original-Path",
        "Base-Url",
        "X-Host",
        "Proxy",
        "Forwarded",
        "Remote-User",
        "X-Remote-User",
        "X-WEBAUTH-USER",
        "X-Forwarded-User",
        "X-Auth-Request-User",
        "X-SSL-Client-Verify",
        "X-Client-Cert",
        "Client-Cert",
        "Cf-Access-Jwt-Assertion",
        "X-MS-CLIENT-PRINCIPAL-NAME",
        "Tailscale-User-Login",
        "X-Vouch-User",
        "True-Client-IP",
        "CF-Connecting-IP",
        "Client-IP",
        "X-Client-IP",
        "X-Originating-IP",
    ] {
        // With the documented configuration, the service gets the request without this field.
        let seen = stage.passes(&Request::get("/open/a").header(name, "f0rged"));
        assert!(!seen.mentions("f0rged"), "{:?} {name}: {seen:#?}", stage.kind);
    }
    // A field in another spelling or without a configuration entry is removed, or its request is refused.
    for name in [
        "X_HTTP_Method_Override",
        "X.Original.URL",
        "Remote_User",
        "SM_USER",
        "X-Override-Anything",
        "Shib-Session-ID",
    ] {
        let (answer, seen) = stage.ask(&Request::get("/open/a").header(name, "f0rged"));
        match seen {
            Some(seen) => assert!(!seen.mentions("f0rged"), "{:?} {name}: {seen:#?}", stage.kind),
            None => assert!((400..500).contains(&answer.status), "{:?} {name}: {answer:#?}", stage.kind),
        }
    }
}

/// A verdict accepts the same requests as the gateway's own listener.
fn raw_characters_and_large_heads_pass_as_at_the_gate(stage: &Stage) {
    // Envoy refuses a target that is not ASCII before it asks the gateway.
    if stage.kind != Kind::Envoy {
        let seen = stage.passes(&Request::get("/open/a?q=M\u{fc}nchen"));
        assert!(seen.target.contains("M\u{fc}nchen") || seen.target.contains("M%C3%BCnchen"), "{seen:#?}");
    }
    let mut many = Request::get("/orders/1").bearer(clerk());
    for at in 0..88 {
        many = many.header(&format!("X-Many-{at}"), "1");
    }
    stage.passes(&many);
    let mut roles = token("ada").role("clerk");
    for at in 0..300 {
        roles = roles.role(&format!("some-role-of-many-{at}"));
    }
    let seen = stage.passes(&Request::get("/orders/1").bearer(roles));
    assert!(seen.header("x-auth-roles").is_some_and(|roles| roles.contains("many-299")), "{:?}", stage.kind);
}

/// Returns the possible interpretations of a target: decoded or not, with path parameters or without.
fn readings(target: &str) -> Vec<String> {
    let path = target.split('?').next().unwrap();
    let mut bytes = Vec::new();
    let mut at = 0;
    while at < path.len() {
        let code = path.get(at..at + 3).filter(|code| code.starts_with('%'));
        match code.and_then(|code| u8::from_str_radix(&code[1..], 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                at += 3;
            }
            None => {
                bytes.push(path.as_bytes()[at]);
                at += 1;
            }
        }
    }
    let decoded = String::from_utf8_lossy(&bytes).replace('\\', "/");
    let mut readings = Vec::new();
    for text in [path, &decoded] {
        for parameters in [true, false] {
            for merge in [true, false] {
                let mut stack: Vec<&str> = Vec::new();
                for segment in text.split('/').skip(1) {
                    let segment = if parameters { segment } else { segment.split(';').next().unwrap() };
                    match segment {
                        "." => {}
                        ".." => {
                            stack.pop();
                        }
                        "" if merge => {}
                        _ => stack.push(segment),
                    }
                }
                readings.push(format!("/{}", stack.join("/")));
            }
        }
    }
    readings
}

fn no_spelling_leads_past_a_guard(stage: &Stage) {
    for target in [
        "/open/../orders/1",
        "/open/%2e%2e/orders/1",
        "/open/.%2E/orders/1",
        "/open/..%2forders/1",
        "/open/..%5corders/1",
        "/open/..;/orders/1",
        "/open/;/../../orders/1",
        "/open/x;y/../../orders/1",
        "//orders/1",
        "/orders//1",
        "/open//../../orders/1",
        "/./orders/1",
        "/%6frders/1",
        "/orders%2f1",
        "/../orders/1",
        "/../../orders/1",
        "/open/a/../../orders/1",
        "/open\\..\\orders\\1",
        "/open/#/../../orders/1",
        "/orders/1#/open/a",
        "/open/%00/../orders/1",
        "/open/%c0%ae%c0%ae/orders/1",
        "/auth/../orders/1",
        "/auth/verify",
        "/auth/verify/orders/1",
        "/auth/verify/open/a",
        "/auth/verify/../../orders/1",
        "/auth/%76erify/open/a",
        "/auth/./verify/open/a",
        "/auth//verify/open/a",
        "/AUTH/verify/open/a",
        "http://gateway.test/open/../orders/1",
        "*",
        "orders/1",
    ] {
        for method in ["GET", "OPTIONS"] {
            // The client tries to forge a question about a public path. The gateway must not decide on that path.
            let request = Request::new(method, target)
                .header("X-Forwarded-Uri", "/open/a")
                .header("X-Forwarded-Method", "GET");
            for request in [request, Request::new(method, target)] {
                let (answer, seen) = stage.ask(&request);
                let label = format!("{:?} {method} {target}: {answer:#?} {seen:#?}", stage.kind);
                match &seen {
                    // Go's server answers `OPTIONS *` without a handler.
                    None => assert!(target == "*" || (300..504).contains(&answer.status), "{label}"),
                    Some(seen) => {
                        let wrong: Vec<_> = readings(&seen.target)
                            .into_iter()
                            .filter(|path| !path.starts_with("/open"))
                            .collect();
                        assert!(wrong.is_empty(), "{label} {wrong:?}");
                    }
                }
            }
        }
    }
    // Harmless spellings pass, and the service gets an equivalent target.
    for (target, means) in [
        ("/open/caf%c3%a9", "/open/caf\u{e9}"),
        ("/open/%7Euser", "/open/~user"),
        ("/open/a;v=1/b", "/open/a;v=1/b"),
        ("/open/a%20b", "/open/a b"),
        ("/open/%2525", "/open/%25"),
    ] {
        let seen = stage.passes(&Request::get(target));
        assert!(readings(&seen.target).contains(&means.to_owned()), "{:?}: {seen:#?}", stage.kind);
    }
}

fn limits_pages_and_cookies(stage: &Stage) {
    stage.passes(&Request::get("/limited"));
    stage.passes(&Request::get("/limited"));
    let refused = stage.refuses(&Request::get("/limited"), 429, "rate_limited");
    assert!(refused.header("retry-after").is_some_and(|wait| wait != "0"), "{refused:#?}");

    let browser = |target: &str| Request::get(target).header("Accept", "text/html,application/json;q=0.9");
    let (answer, seen) = stage.ask(&browser("/page?a=b&c=d"));
    assert!(seen.is_none(), "{seen:#?}");
    assert_eq!(answer.status, 303, "{:?}: {answer:#?}", stage.kind);
    let location = answer.header("location").unwrap();
    assert_eq!(location, format!("http://{HOST}/auth/login?next=/page%3Fa%3Db%26c%3Dd"), "{:?}", stage.kind);
    stage.refuses(&Request::get("/page"), 401, "missing_token");
    let (answer, _) = stage.ask(&Request::post("/page", "").header("Accept", "text/html"));
    assert_eq!(answer.status, 401, "a form that was sent must not get lost unseen: {answer:#?}");
    stage.passes(&browser("/page").bearer(token("ada")));

    // A cookie suffices for reading, but a change requires its CSRF token.
    let cookie = format!("a=b; __Host-portcullis={}", clerk());
    let seen = stage.passes(&Request::get("/orders/1").header("Cookie", &cookie));
    assert_eq!(seen.header("x-auth-subject"), Some("ada"));
    stage.refuses(&Request::post("/orders/1", "").header("Cookie", &cookie), 403, "csrf_missing");
    let request =
        Request::post("/orders/1", "").header("Cookie", &cookie).header("Origin", "http://evil.test");
    stage.refuses(&request, 403, "csrf_mismatch");
    let two = Request::get("/orders/1").header("Cookie", &cookie).bearer(clerk());
    stage.refuses(&two, 403, "ambiguous_credentials");
}

fn the_operator_finds_it(stage: &Stage) {
    // The client sends forged addresses, and is not a trusted proxy.
    let request = Request::post("/orders/77?secret=s3cret", "")
        .bearer(token("bob"))
        .header("X-Forwarded-For", "192.0.2.66")
        .header("X-Real-IP", "192.0.2.66")
        .header("Forwarded", "for=192.0.2.66;proto=https")
        .header("X-Forwarded-Proto", "https");
    let mut connection = Connection::from("127.0.0.2".parse().unwrap(), stage.proxy.address());
    assert_eq!(request.over(&mut connection).status, 403);
    let line = stage.gateway.wait_log("the verdict on /orders/77", |line| line["path"] == "/orders/77");
    for (field, value) in [
        ("method", "POST"),
        ("host", HOST),
        ("route", "orders"),
        ("reason", "insufficient_role"),
        ("client", "127.0.0.2"),
        ("scheme", "http"),
        ("subject", "bob"),
        ("verdict_for", "127.0.0.1"),
    ] {
        assert_eq!(line[field], value, "{:?} {field}: {line}", stage.kind);
    }
    assert!(!stage.gateway.log_text().contains("s3cret"));
    if stage.kind != Kind::Traefik {
        // All logs use the same request id. The client's own id is ignored.
        let request = Request::get("/orders/78").bearer(clerk()).header("X-Request-Id", "mine");
        let seen = stage.passes(&request);
        let line = stage.gateway.wait_log("the verdict on /orders/78", |line| line["path"] == "/orders/78");
        assert_eq!(line["request_id"].as_str(), seen.header("x-request-id"), "{line}: {seen:#?}");
        assert_ne!(line["request_id"], "mine");
    }
    // The proxy forwards the gateway's own endpoints without asking for a verdict.
    let (answer, seen) = stage.ask(&Request::get("/auth/me").bearer(clerk()));
    assert!(seen.is_none(), "{seen:#?}");
    assert!(answer.status == 200 || answer.status == 401, "{:?}: {answer:#?}", stage.kind);
    let (answer, _) = stage.ask(&Request::get("/auth/verify/open/a"));
    let refused = matches!(answer.status, 403 | 404);
    assert!(refused, "{:?}: clients ask for no verdicts: {answer:#?}", stage.kind);
}

fn a_gateway_that_is_away_permits_nothing(stage: &Stage) {
    stage.gateway.signal("KILL");
    crate::kit::eventually("the gateway is away", || {
        std::net::TcpStream::connect(stage.gateway.http()).is_err()
    });
    for path in ["/open/a", "/maybe", "/orders/1"] {
        let (answer, seen) = stage.ask(&Request::get(path).bearer(clerk()));
        assert!(seen.is_none(), "{seen:#?}");
        assert!((500..504).contains(&answer.status), "{:?} {path}: {answer:#?}", stage.kind);
    }
}
