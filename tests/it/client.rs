//! The fields that describe the client to an upstream (`X-Forwarded-*`, `Forwarded`). A trusted proxy may set them, and
//! they never contradict each other.

use crate::kit::account::AUTHORITY;
use crate::kit::client::Connection;
use crate::kit::http2;
use crate::kit::upstream::Seen;
use crate::kit::{Portcullis, Request, Upstream, token};
use crate::{PUBLIC, gateway};

const TRUSTED: &str = "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n";

/// Fields in which other products name a request, address, caller or proxy.
const FOREIGN: &[&str] = &[
    "X-HTTP-Method-Override",
    "X-HTTP-Method",
    "X-Method-Override",
    "X-Method",
    "X_HTTP_Method_Override",
    "X-Original-URL",
    "X-Original-URI",
    "X-Original-Host",
    "X-Rewrite-URL",
    "X-Override-URL",
    "X-HTTP-Path-Override",
    "X-Envoy-Original-Path",
    "X-Forwarded-Uri",
    "X-Forwarded-Method",
    "X-Forwarded-Prefix",
    "X-Forwarded-Server",
    "X-Forwarded-Anything",
    "Base-Url",
    "X-Host",
    "Proxy",
    "X-Real-IP",
    "X_Real_IP",
    "True-Client-IP",
    "CF-Connecting-IP",
    "Client-IP",
    "X-Client-IP",
    "X-Originating-IP",
    "X-Remote-IP",
    "X-Remote-Addr",
    "X-ProxyUser-Ip",
    "X-Azure-ClientIP",
    "X-Appengine-User-Ip",
    "X-Envoy-External-Address",
    "X-Custom-IP-Authorization",
    "X-Cluster-Client-IP",
    "Remote-User",
    "Remote_User",
    "Remote-Groups",
    "Remote-Email",
    "Remote-Name",
    "X-Remote-User",
    "X-WEBAUTH-USER",
    "X-Forwarded-User",
    "X-Forwarded-Groups",
    "X-Forwarded-Email",
    "X-Forwarded-Preferred-Username",
    "X-Auth-Request-User",
    "X-Forwarded-Client-Cert",
    "X-SSL-Client-Cert",
    "X-SSL-Client-Verify",
    "SSL-Client-Subject-DN",
    "X-Client-Cert",
    "Client-Cert",
    "X-Goog-Authenticated-User-Email",
    "X-Amzn-Oidc-Identity",
    "Cf-Access-Authenticated-User-Email",
    "X-Pomerium-Claim-Email",
    "X-Authentik-Username",
    "X-MS-CLIENT-PRINCIPAL-NAME",
    "Tailscale-User-Login",
    "X-Vouch-User",
];

/// Returns the five fields that describe the client, as the upstream received them.
fn account(seen: &Seen) -> [Option<&str>; 5] {
    ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "forwarded"]
        .map(|name| seen.header(name))
}

#[test]
fn no_field_of_another_product_passes_from_anybody() {
    let upstream = Upstream::start();
    let stranger = gateway(&upstream, PUBLIC);
    let trusting = gateway(&upstream, &format!("{TRUSTED}{PUBLIC}"));
    for gateway in [&stranger, &trusting] {
        for name in FOREIGN {
            Request::get("/").header(name, "f0rged").header("X-Passes", "yes").to(gateway.http()).is(200);
            let seen = upstream.last_request();
            assert!(!seen.mentions("f0rged"), "{name}: {seen:#?}");
            assert_eq!(seen.header("x-passes"), Some("yes"));
        }
    }
    // All fields that a trusted proxy may send.
    Request::get("/")
        .header("X-Forwarded-For", "203.0.113.9")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "pub.example")
        .header("X-Forwarded-Port", "443")
        .header("X-Request-Id", "named-by-the-proxy")
        .to(trusting.http())
        .is(200);
    let seen = upstream.last_request();
    let forwarded =
        "for=203.0.113.9;host=pub.example;proto=https, for=127.0.0.1;host=pub.example;proto=https";
    assert_eq!(
        account(&seen),
        [Some("203.0.113.9, 127.0.0.1"), Some("https"), Some("pub.example"), Some("443"), Some(forwarded)]
    );
    assert_eq!(seen.header("x-request-id"), Some("named-by-the-proxy"));
    assert_eq!(seen.header("host"), Some("gateway.test"), "the request itself is not changed");
}

/// Most proxies write some of `X-Forwarded-*` and pass on a client's `Forwarded`.
#[test]
fn a_forwarded_of_the_client_completes_no_field_of_its_proxy() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &format!("{TRUSTED}{PUBLIC}"));
    let forwarded = "for=10.9.9.9;host=evil.example;proto=https";
    let request = || Request::get("/").header("Forwarded", forwarded);
    request().header("X-Forwarded-For", "203.0.113.9").to(gateway.http()).is(200);
    let rendered = "for=203.0.113.9;host=gateway.test;proto=http, for=127.0.0.1;host=gateway.test;proto=http";
    assert_eq!(
        account(&upstream.last_request()),
        [Some("203.0.113.9, 127.0.0.1"), Some("http"), Some("gateway.test"), None, Some(rendered)]
    );
    for (name, value) in
        [("X-Forwarded-Proto", "http"), ("X-Forwarded-Host", "pub.example"), ("X-Forwarded-Port", "80")]
    {
        request().header(name, value).to(gateway.http()).is(200);
        let seen = upstream.last_request();
        assert!(!seen.mentions("evil.example") && !seen.mentions("10.9.9.9"), "{name}: {seen:#?}");
        assert_eq!(seen.header("x-forwarded-proto"), Some("http"), "{name}");
    }
    // A proxy that writes `Forwarded` alone is believed.
    request().to(gateway.http()).is(200);
    assert_eq!(upstream.last_request().header("x-forwarded-host"), Some("evil.example"));
}

#[test]
fn a_field_passes_from_a_trusted_proxy_that_the_policy_names() {
    let upstream = Upstream::start();
    let pass = "[identity]\npass = [\"X-Forwarded-Client-Cert\", \"X-Forwarded-Prefix\"]\n";
    let trusting = gateway(&upstream, &format!("{TRUSTED}{pass}{PUBLIC}"));
    let stranger =
        gateway(&upstream, &format!("[server]\ntrusted_proxies = [\"127.0.0.9\"]\n{pass}{PUBLIC}"));
    let request = Request::get("/")
        .header("X-Forwarded-Client-Cert", "Subject=\"CN=ada\"")
        .header("X_Forwarded_Client_Cert", "f0rged")
        .header("X-Forwarded-User", "f0rged");
    request.to(trusting.http()).is(200);
    let seen = upstream.last_request();
    assert_eq!(seen.header("x-forwarded-client-cert"), Some("Subject=\"CN=ada\""));
    assert!(!seen.mentions("f0rged"), "{seen:#?}");
    request.to(stranger.http()).is(200);
    assert_eq!(upstream.last_request().header("x-forwarded-client-cert"), None);
}

#[test]
fn a_field_that_cannot_pass_is_a_fault() {
    let upstream = Upstream::start();
    for (name, why) in [
        ("X-HTTP-Method-Override", "a different request"),
        ("X-Original-URL", "a different request"),
        ("X-Forwarded-For", "written by the gateway itself"),
        ("Accept", "forwarded from every client"),
        ("a b", "not a header name"),
    ] {
        let dir = crate::kit::dir::Dir::new();
        let policy = crate::policy(&upstream, &format!("{TRUSTED}[identity]\npass = [\"{name}\"]\n{PUBLIC}"));
        crate::kit::portcullis::write_policy(&dir, &policy);
        let checked = crate::kit::portcullis::command(&dir, &["check", "--config", "gateway.toml"]);
        assert_eq!(checked.code, Some(1), "{checked:?}");
        assert!(checked.text().contains("identity.pass[0]") && checked.text().contains(why), "{checked:?}");
    }
}

#[test]
fn requests_of_one_connection_do_not_speak_for_each_other() {
    // RFC 7239 section 5.4: `proto` describes the request that carries it.
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &format!("{TRUSTED}{PUBLIC}"));
    let mut connection = Connection::open(gateway.http());
    for (proto, host) in [
        ("https", "a.example"),
        ("http", "a.example"),
        ("https", "b.example"),
        ("wss", "b.example"),
        ("ws", "b.example"),
    ] {
        let request = Request::get("/").header("X-Forwarded-Proto", proto).header("X-Forwarded-Host", host);
        request.over(&mut connection).is(200);
        let seen = upstream.last_request();
        let scheme = if proto == "https" || proto == "wss" { "https" } else { "http" };
        let forwarded = format!("for=127.0.0.1;host={host};proto={scheme}");
        let expected = [Some("127.0.0.1"), Some(scheme), Some(host), None, Some(&*forwarded)];
        assert_eq!(account(&seen), expected, "{seen:#?}");
    }
}

#[test]
fn a_chain_in_one_field_reaches_the_upstream_in_both() {
    // RFC 7239 section 7.4.
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &format!("{TRUSTED}{PUBLIC}"));
    let with = ";host=gateway.test;proto=http";
    for (name, value, addresses, forwarded) in [
        (
            "X-Forwarded-For",
            "203.0.113.9, 2001:db8::1",
            "203.0.113.9, 2001:db8::1, 127.0.0.1",
            format!("for=203.0.113.9{with}, for=\"[2001:db8::1]\", for=127.0.0.1{with}"),
        ),
        (
            "Forwarded",
            "for=203.0.113.9, for=\"[2001:db8::1]:4711\"",
            "203.0.113.9, 2001:db8::1, 127.0.0.1",
            format!("for=203.0.113.9{with}, for=\"[2001:db8::1]\", for=127.0.0.1{with}"),
        ),
        (
            "X-Forwarded-For",
            "\";host=evil.example, 203.0.113.9",
            "unknown, 203.0.113.9, 127.0.0.1",
            format!("for=unknown{with}, for=203.0.113.9, for=127.0.0.1{with}"),
        ),
        ("Forwarded", "for=_hidden", "unknown, 127.0.0.1", format!("for=unknown{with}, for=127.0.0.1{with}")),
    ] {
        Request::get("/").header(name, value).to(gateway.http()).is(200);
        let seen = upstream.last_request();
        assert_eq!(seen.header("x-forwarded-for"), Some(addresses), "{name}: {value}");
        assert_eq!(seen.header("forwarded"), Some(&*forwarded), "{name}: {value}");
    }
    // If `X-Forwarded-For` and `Forwarded` differ, the upstream gets the same address in both.
    let request =
        Request::get("/").header("X-Forwarded-For", "203.0.113.9").header("Forwarded", "for=6.6.6.6");
    let answer = request.to(gateway.http());
    assert!(!upstream.last_request().mentions("6.6.6.6"), "{:#?}", upstream.last_request());
    assert_eq!(gateway.access_line(&answer)["client"], "203.0.113.9");
}

#[test]
fn the_host_that_a_proxys_client_asked_is_an_own_origin() {
    // A POST from the own origin needs its CSRF token. A POST from another origin is always refused.
    let upstream = Upstream::start();
    let route = "[[route]]\npath = \"/app\"\nupstream = \"app\"\n";
    let gateway = gateway(&upstream, &format!("{TRUSTED}{route}{AUTHORITY}cookies = true\n"));
    for (origin, code) in [
        ("https://pub.example", "csrf_missing"),
        ("https://gateway.test", "csrf_missing"),
        ("https://evil.example", "csrf_mismatch"),
        ("http://pub.example", "csrf_mismatch"),
    ] {
        let request = || {
            Request::post("/app", "")
                .header("Cookie", &format!("__Host-portcullis={}", token("ada")))
                .header("Origin", origin)
                .header("X-Forwarded-Proto", "https")
        };
        request().header("X-Forwarded-Host", "pub.example").to(gateway.http()).is_refusal(403, code);
        // Only a trusted proxy can change the host.
        let mut connection = Connection::from("127.0.0.2".parse().unwrap(), gateway.http());
        let answer = request().header("X-Forwarded-Host", "pub.example").over(&mut connection);
        answer.is_refusal(403, "csrf_mismatch");
    }
    upstream.saw_nothing();
}

#[test]
fn a_prefix_that_is_stripped_reaches_the_upstream() {
    let upstream = Upstream::start();
    let route = "[[route]]\npath = \"/pre/{*rest}\"\nupstream = \"app\"\naccess = \"public\"\nstrip_prefix = \"/pre\"\n";
    let gateway = gateway(&upstream, route);
    Request::get("/pre/x?y").header("X-Forwarded-Prefix", "/f0rged").to(gateway.http()).is(200);
    let seen = upstream.last_request();
    assert_eq!((&*seen.target, seen.header("x-forwarded-prefix")), ("/x?y", Some("/pre")), "{seen:#?}");
    // The stripped prefix is appended to a trusted proxy's prefix, if the policy passes that field.
    let gateway =
        crate::gateway(&upstream, &format!("{TRUSTED}[identity]\npass = [\"X-Forwarded-Prefix\"]\n{route}"));
    Request::get("/pre/x").header("X-Forwarded-Prefix", "/outer").to(gateway.http()).is(200);
    assert_eq!(upstream.last_request().header("x-forwarded-prefix"), Some("/outer/pre"));
}

const PLACES: &str = r#"
[identity]
forward_token = true

[[route]]
path     = "/guarded"
upstream = "app"

[[route]]
path     = "/by-cookie"
upstream = "app"
sources  = ["cookie"]

[[route]]
path     = "/by-name"
upstream = "app"
sources  = [{ header = "X-Api-Token" }]

[[route]]
path     = "/public"
upstream = "app"
access   = "public"

[[route]]
path               = "/own-login"
upstream           = "app"
access             = "public"
pass_authorization = true
"#;

#[test]
fn only_the_credential_that_was_verified_is_forwarded() {
    // An unverified `Authorization` must not be forwarded with a verified identity.
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &format!("{PLACES}{AUTHORITY}cookies = true\n"));
    let forged = "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb290In0.";
    let cookie = format!("__Host-portcullis={}", token("ada"));
    for (request, subject) in [
        (Request::get("/public"), None),
        (Request::get("/by-cookie").header("Cookie", &cookie), Some("ada")),
        (Request::get("/by-name").header("X-Api-Token", &token("ada").to_string()), Some("ada")),
    ] {
        request.header("Authorization", forged).to(gateway.http()).is(200);
        let seen = upstream.last_request();
        assert_eq!(
            (seen.header("x-auth-subject"), seen.header("authorization")),
            (subject, None),
            "{seen:#?}"
        );
    }
    let verified = token("ada").to_string();
    // The scheme is case-insensitive (RFC 9110 section 11.1), but many services accept only `Bearer`.
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let request = Request::get("/guarded").header("Authorization", &format!("{scheme} {verified}"));
        request.to(gateway.http()).is(200);
        assert_eq!(upstream.last_request().header("authorization"), Some(&*format!("Bearer {verified}")));
    }
}

#[test]
fn a_service_with_a_login_of_its_own_gets_authorization_where_its_route_says_so() {
    // RFC 9110 section 11.6.2.
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &format!("{PLACES}{AUTHORITY}cookies = true\n"));
    Request::get("/own-login").header("Authorization", "Basic YTpi").to(gateway.http()).is(200);
    assert_eq!(upstream.last_request().header("authorization"), Some("Basic YTpi"));
    Request::get("/public").header("Authorization", "Basic YTpi").to(gateway.http()).is(200);
    assert_eq!(upstream.last_request().header("authorization"), None);
    let dir = crate::kit::dir::Dir::new();
    let guarded = "[[route]]\npath = \"/x\"\nupstream = \"app\"\npass_authorization = true\n";
    crate::kit::portcullis::write_policy(&dir, &crate::policy(&upstream, guarded));
    let checked = crate::kit::portcullis::command(&dir, &["check", "--config", "gateway.toml"]);
    assert!(checked.code == Some(1) && checked.text().contains("pass_authorization"), "{checked:?}");
}

#[test]
fn host_and_authority_are_compared_with_the_default_port_in_mind() {
    // RFC 9113 section 8.3.1, RFC 3986 sections 6.2.3 and 3.2.3 (`port = *DIGIT`).
    let upstream = Upstream::start();
    let policy = crate::policy(&upstream, &format!("[server]\nhttps = \"127.0.0.1:0\"\n{PUBLIC}"));
    let gateway = Portcullis::with(&policy).start();
    for (target, host, status) in [
        ("http://gateway.test:80/", "gateway.test", 200),
        ("http://gateway.test/", "gateway.test:80", 200),
        ("http://gateway.test:81/", "gateway.test", 400),
        ("http://gateway.test/", "gateway.test:443", 400),
        ("/", "gateway.test:", 200),
        ("/", "[::1]:", 200),
    ] {
        let answer = Request::get(target).host(host).to(gateway.http());
        assert_eq!(answer.status, status, "{target} {host}: {answer:#?}");
    }
    assert_eq!(upstream.last_request().header("host"), Some("[::1]"), "an empty port counts as no port");
    for (host, status) in [("gateway.test:443", 200), ("gateway.test:444", 400)] {
        let request = http2::request("GET", "/").header("host", host).body(bytes::Bytes::new()).unwrap();
        let answer = http2::exchange(gateway.https(), vec![request]).remove(0);
        assert_eq!(answer.status, status, "{host}: {answer:#?}");
    }
}

#[test]
fn pieces_of_a_cookie_are_one_field() {
    // RFC 9113 section 8.2.3.
    let upstream = Upstream::start();
    let policy = crate::policy(&upstream, &format!("[server]\nhttps = \"127.0.0.1:0\"\n{PUBLIC}"));
    let gateway = Portcullis::with(&policy).start();
    let with = |count: usize, name: &'static str| {
        let mut request = http2::request("GET", "/");
        for at in 0..count {
            request = request.header(name, format!("c{at}=v"));
        }
        let answers = http2::exchange(gateway.https(), vec![request.body(bytes::Bytes::new()).unwrap()]);
        answers[0].status
    };
    assert_eq!(with(150, "cookie"), 200);
    assert_eq!(upstream.last_request().header("cookie").unwrap().split("; ").count(), 150);
    assert_eq!(with(150, "x-other"), 431);
}

#[test]
fn a_question_with_a_field_that_names_another_request_or_caller_is_refused() {
    // The gateway would decide on GET, while the service obeys `X-HTTP-Method-Override: DELETE`.
    let upstream = Upstream::start();
    let pass = "[identity]\npass = [\"X-Forwarded-Client-Cert\"]\n";
    let gateway = gateway(&upstream, &format!("{TRUSTED}{pass}{PUBLIC}{AUTHORITY}"));
    let question = || {
        Request::get("/auth/verify")
            .header("X-Forwarded-Method", "GET")
            .header("X-Forwarded-Uri", "/page")
            .header("X-Forwarded-Host", "app.example")
            .header("X-Forwarded-Proto", "https")
    };
    for (name, known) in [
        ("X-HTTP-Method-Override", "x-http-method*"),
        ("X_Method_Override", "x-method*"),
        ("X-Rewrite-URL", "x-rewrite-*"),
        ("X-Override-URL", "x-override-*"),
        ("X_Original_URL", "x-original-*"),
        ("Proxy", "proxy"),
        ("Remote-User", "remote-user"),
        ("X-Forwarded-User", "x-forwarded-user"),
    ] {
        let answer = question().header(name, "DELETE").to(gateway.http());
        answer.is_refusal(403, "bad_request");
        let line = gateway.access_line(&answer);
        assert!(
            line["detail"].as_str().is_some_and(|detail| detail.contains(&format!("`{known}`"))),
            "{line}"
        );
        assert_eq!(line["path"], "/page", "{line}");
    }
    // Proxies write these fields themselves.
    for name in
        ["X-Real-IP", "X-Forwarded-Server", "X-Forwarded-Port", "Forwarded", "X-Forwarded-Client-Cert"]
    {
        question().header(name, "x").to(gateway.http()).is(200);
    }
}

#[test]
fn a_question_has_room_for_its_own_fields() {
    // A proxy adds fields when it asks for a verdict, so the request may exceed the bound of 100 fields.
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &format!("{TRUSTED}{PUBLIC}{AUTHORITY}"));
    let with = |count: usize| {
        let mut question = Request::get("/auth/verify")
            .header("X-Forwarded-Method", "GET")
            .header("X-Forwarded-Uri", &format!("/page?{}", "q".repeat(8000)))
            .header("X-Forwarded-Host", "app.example")
            .header("X-Forwarded-Proto", "https");
        for at in 0..count {
            question = question.header(&format!("X-Many-{at}"), "1");
        }
        question
    };
    with(99).to(gateway.http()).is(200);
    assert_eq!(with(140).to(gateway.http()).status, 431);
    // Other clients do not get the larger bound.
    let mut connection = Connection::from("127.0.0.2".parse().unwrap(), gateway.http());
    with(99).over(&mut connection).is_refusal(403, "headers_too_large");
}
