//! Tests what upstreams receive.

use crate::kit::upstream::Seen;
use crate::kit::{Request, Upstream, token, values};
use crate::{ACCESSES, PUBLIC, gateway};
use serde_json::{Value, json};

#[test]
fn the_upstream_learns_who_calls() {
    let upstream = Upstream::start();
    let identity = "[identity]\nclaims = { \"X-Auth-Tenant\" = \"tenant\" }\n";
    let gateway = gateway(&upstream, &format!("{identity}{ACCESSES}"));
    let token = token("ada").role("admin").role("clerk").scope("orders:read").claim("tenant", json!("acme"));
    Request::get("/guarded").bearer(token).to(gateway.http()).is(200);
    let seen = upstream.only_request();
    assert_eq!(seen.header("x-auth-subject"), Some("ada"));
    assert_eq!(seen.header("x-auth-roles"), Some("admin,clerk"));
    assert_eq!(seen.header("x-auth-scopes"), Some("orders:read"));
    assert_eq!(seen.header("x-auth-issuer"), Some("https://id.test/"));
    assert_eq!(seen.header("x-auth-tenant"), Some("acme"));
    assert_eq!(seen.header("authorization"), None);
}

#[test]
fn identity_goes_by_the_names_of_the_policy() {
    let upstream = Upstream::start();
    let gateway =
        gateway(&upstream, &format!("[identity]\nsubject = \"X-User\"\nroles = \"X-Groups\"\n{ACCESSES}"));
    Request::get("/guarded")
        .bearer(token("ada").role("clerk"))
        .header("X_User", "root")
        .header("x.groups", "admin")
        .to(gateway.http())
        .is(200);
    let seen = upstream.only_request();
    assert_eq!(seen.header("x-user"), Some("ada"));
    assert_eq!(seen.header("x-groups"), Some("clerk"));
    assert!(!seen.mentions("root") && !seen.mentions("admin"), "{seen:#?}");
}

#[test]
fn values_that_could_read_as_others_travel_encoded() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ACCESSES);
    for (role, value) in [
        ("a,admin", "a%2Cadmin"),
        (" admin", "%20admin"),
        ("admin ", "admin%20"),
        ("100%", "100%25"),
        ("a\r\nX-Auth-Subject: root", "a%0D%0AX-Auth-Subject: root"),
        ("a\tb", "a%09b"),
        ("café", "caf%C3%A9"),
        ("two words", "two words"),
    ] {
        Request::get("/guarded").bearer(token("ada").role(role).role("x")).to(gateway.http()).is(200);
        let seen = upstream.last_request();
        assert_eq!(seen.header("x-auth-roles"), Some(&*format!("{value},x")), "{role:?}");
        assert_eq!(seen.header("x-auth-subject"), Some("ada"), "{role:?}");
    }
    Request::get("/guarded").bearer(token("root\r\nx: y")).to(gateway.http()).is(200);
    assert_eq!(upstream.last_request().header("x-auth-subject"), Some("root%0D%0Ax: y"));
    assert_eq!(upstream.last_request().header("x"), None);
}

#[test]
fn no_spelling_of_an_identity_name_passes_from_a_client_on_any_route() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ACCESSES);
    let forged = [
        "X-Auth-Subject",
        "x-auth-subject",
        "X_Auth_Subject",
        "X.Auth.Subject",
        "X-Auth_Subject",
        "X_AUTH_SUBJECT",
        "X-Auth-Roles",
        "X_Auth_Roles",
        "X-Auth-Scopes",
        "X-Auth-Issuer",
        "x-auth-extra",
        "X_Auth_Extra",
        "X~Auth~Subject",
        "X!Auth!Roles",
        "X'Auth'Roles",
        "X|Auth|Roles",
        "X-Auth-Assertion",
    ];
    for path in ["/guarded", "/optional", "/public"] {
        for sent_with_token in [true, false] {
            for name in forged {
                let mut request = Request::get(path).header(name, "f0rged");
                if sent_with_token {
                    request = request.bearer(token("ada").role("clerk"));
                }
                let before = upstream.requests().len();
                let answer = request.to(gateway.http());
                if path == "/guarded" && !sent_with_token {
                    answer.is_refusal(401, "missing_token");
                    assert_eq!(upstream.requests().len(), before);
                    continue;
                }
                answer.is(200);
                let seen = upstream.last_request();
                assert!(!seen.mentions("f0rged"), "{path}, {name}: {seen:#?}");
                let subject = if sent_with_token && path != "/public" { Some("ada") } else { None };
                assert_eq!(seen.header("x-auth-subject"), subject, "{path}, {name}");
            }
        }
    }
}

#[test]
fn no_connection_field_takes_away_what_the_gateway_adds() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ACCESSES);
    for named in ["X-Auth-Subject", "x-auth-roles", "X-Forwarded-For", "X-Request-Id", "Host", "Forwarded"] {
        Request::get("/guarded")
            .bearer(token("ada").role("clerk"))
            .header("Connection", &format!("keep-alive, {named}"))
            .to(gateway.http())
            .is(200);
        let seen = upstream.last_request();
        assert_eq!(seen.header("x-auth-subject"), Some("ada"), "{named}");
        assert_eq!(seen.header("x-auth-roles"), Some("clerk"), "{named}");
        assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"), "{named}");
        assert_eq!(seen.header("host"), Some("gateway.test"), "{named}");
        for name in ["x-request-id", "forwarded"] {
            assert!(seen.header(name).is_some(), "{named}: {name}");
        }
    }
}

#[test]
fn hop_by_hop_fields_end_at_the_gateway_in_both_directions() {
    let upstream = Upstream::answering(
        "HTTP/1.1 200 OK\r\nconnection: keep-alive, x-inner\r\nx-inner: hop\r\nkeep-alive: timeout=5\r\n\
         proxy-connection: keep-alive\r\nupgrade: h2c\r\nproxy-authenticate: Basic\r\nx-outer: passes\r\n\
         content-length: 2\r\n\r\nok",
    );
    let gateway = gateway(&upstream, PUBLIC);
    let answer = Request::get("/")
        .header("Connection", "X-Secret, close")
        .header("Connection", "x-other")
        .header("X-Secret", "hop")
        .header("X-Other", "hop")
        .header("Keep-Alive", "timeout=9")
        .header("Proxy-Connection", "keep-alive")
        .header("TE", "trailers, gzip")
        .header("Upgrade", "h2c")
        .header("HTTP2-Settings", "AAMAAABkAAQAAP__")
        .header("Proxy-Authorization", "Basic YTpi")
        .header("X-Passes", "yes")
        .to(gateway.http());
    answer.is(200);
    for name in ["keep-alive", "proxy-connection", "upgrade", "x-inner"] {
        assert_eq!(answer.header(name), None, "{answer:#?}");
    }
    assert_eq!(answer.header("x-outer"), Some("passes"));
    let seen = upstream.only_request();
    let removed = [
        "x-secret",
        "x-other",
        "keep-alive",
        "proxy-connection",
        "te",
        "upgrade",
        "http2-settings",
        "proxy-authorization",
    ];
    for name in removed {
        assert_eq!(seen.header(name), None, "{name}: {seen:#?}");
    }
    assert_eq!(seen.header("x-passes"), Some("yes"));
}

#[test]
fn forwarding_fields_of_an_untrusted_client_are_replaced() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, PUBLIC);
    let strangers = [
        "X-Forwarded-For",
        "X_Forwarded_For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Forwarded-Port",
        "X-Forwarded-Prefix",
        "X-Forwarded-Uri",
        "X-Forwarded-Anything",
        "Forwarded",
        "X-Real-IP",
        "X_Real_IP",
        "X-Original-URL",
        "X-Original-Forwarded-For",
        "X-Rewrite-URL",
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "Proxy",
        "True-Client-IP",
        "X-Client-IP",
        "X-Request-Id",
    ];
    for name in strangers {
        Request::get("/").header(name, "f0rged").to(gateway.http()).is(200);
        let seen = upstream.last_request();
        assert!(!seen.mentions("f0rged"), "{name}: {seen:#?}");
        assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
        assert_eq!(seen.header("x-forwarded-host"), Some("gateway.test"));
        assert_eq!(seen.header("forwarded"), Some("for=127.0.0.1;host=gateway.test;proto=http"));
    }
}

#[test]
fn forwarding_fields_of_a_trusted_proxy_are_kept_and_extended() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &format!("[server]\ntrusted_proxies = [\"127.0.0.0/8\"]\n{PUBLIC}"));
    let answer = Request::get("/")
        .header("X-Forwarded-For", "203.0.113.9, 192.0.2.7")
        .header("X-Forwarded-Proto", "https")
        .header("X-Request-Id", "from-the-proxy-1")
        .header("X-Auth-Subject", "f0rged")
        .to(gateway.http());
    answer.is(200);
    let seen = upstream.only_request();
    assert_eq!(seen.header("x-forwarded-for"), Some("203.0.113.9, 192.0.2.7, 127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.header("x-request-id"), Some("from-the-proxy-1"));
    assert_eq!(answer.header("x-request-id"), Some("from-the-proxy-1"));
    assert!(!seen.mentions("f0rged"), "a proxy is believed about addresses, not about callers");
    let line = gateway.access_line(&answer);
    assert_eq!(line["client"], "192.0.2.7", "the right-most address that is no trusted proxy's: {line}");
    assert_eq!(line["scheme"], "https");
}

#[test]
fn a_trace_is_passed_on_or_begun() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, PUBLIC);
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    Request::get("/").header("traceparent", parent).header("tracestate", "a=b").to(gateway.http()).is(200);
    let seen = upstream.last_request();
    let passed = seen.header("traceparent").unwrap();
    assert_eq!(passed[..35], parent[..35], "the trace stays the same: {passed}");
    assert_eq!(seen.header("tracestate"), Some("a=b"));
    for bad in ["", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", "00-x", "ff-zz-zz-01"] {
        Request::get("/").header("traceparent", bad).header("tracestate", "a=b").to(gateway.http()).is(200);
        let seen = upstream.last_request();
        let begun = seen.header("traceparent").unwrap();
        assert_eq!(begun.len(), 55, "{begun}");
        assert!(begun.starts_with("00-"), "{begun}");
        assert_eq!(seen.header("tracestate"), None);
    }
}

#[test]
fn a_request_with_two_traces_begins_a_new_one() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, PUBLIC);
    let (first, second) = (
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    );
    for pair in [[first, second], [first, first], [first, "invalid"], ["invalid", first]] {
        let request = pair.iter().fold(Request::get("/"), |request, one| request.header("traceparent", one));
        let answer = request.header("tracestate", "a=b").to(gateway.http());
        answer.is(200);
        let seen = upstream.last_request();
        assert_eq!(values(&seen.headers, "traceparent").len(), 1, "{seen:?}");
        let begun = seen.header("traceparent").unwrap();
        assert!(begun != first && begun != second && begun.len() == 55, "{begun}");
        assert_eq!(seen.header("tracestate"), None);
        let line = gateway.access_line(&answer);
        assert_eq!(line["trace_id"], Value::Null, "the request's id is the trace's: {line}");
        assert_eq!(line["request_id"], begun[3..35]);
    }
}

#[test]
fn ordinary_fields_pass_as_they_came() {
    let upstream = Upstream::answering(
        "HTTP/1.1 200 OK\r\nset-cookie: a=1\r\nset-cookie: b=2\r\netag: \"x\"\r\ncontent-length: 2\r\n\r\nok",
    );
    let gateway = gateway(&upstream, PUBLIC);
    let answer = Request::get("/")
        .header("Accept", "text/plain, */*;q=0.1")
        .header("Cookie", "a=b; c=d")
        .header("X-Two", "1")
        .header("X-Two", "2")
        .header("Priority", "u=1")
        .to(gateway.http());
    let seen = upstream.only_request();
    assert_eq!(seen.header("accept"), Some("text/plain, */*;q=0.1"));
    assert_eq!(seen.header("cookie"), Some("a=b; c=d"));
    assert_eq!(values(&seen.headers, "x-two"), ["1", "2"]);
    assert_eq!(seen.header("priority"), Some("u=1"));
    assert_eq!(values(&answer.headers, "set-cookie"), ["a=1", "b=2"]);
    assert_eq!(answer.header("etag"), Some("\"x\""));
}

#[test]
fn a_request_has_one_framing_when_it_leaves() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, PUBLIC);
    let framing = |seen: &Seen| {
        let lengths = values(&seen.headers, "content-length").len();
        let codings = values(&seen.headers, "transfer-encoding").len();
        (lengths, codings)
    };
    Request::get("/").to(gateway.http()).is(200);
    assert_eq!(framing(&upstream.last_request()), (0, 0), "no body, no framing");
    Request::post("/", "body").to(gateway.http()).is(200);
    assert_eq!(framing(&upstream.last_request()), (1, 0));
    let chunked =
        "POST / HTTP/1.1\r\nHost: gateway.test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n";
    crate::kit::client::send(gateway.http(), chunked).is(200);
    assert_eq!(framing(&upstream.last_request()), (0, 1));
    assert_eq!(upstream.last_request().body, b"body");
}

#[test]
fn the_built_in_echo_shows_what_an_upstream_would_get() {
    let gateway = crate::kit::Portcullis::with(&format!(
        "{}\n[upstream.echo]\nbuiltin = \"echo\"\n[[route]]\npath = \"/e/{{*rest}}\"\nupstream = \"echo\"\nroles = [\"a\"]\n",
        crate::ISSUER
    ))
    .start();
    Request::get("/e/x").bearer(token("ada")).to(gateway.http()).is_refusal(403, "insufficient_role");
    let answer = Request::post("/e/./x?q=1", "12345")
        .bearer(token("ada").role("a"))
        .header("X_Auth_Subject", "r")
        .to(gateway.http());
    answer.is(200);
    let echo = answer.json();
    assert_eq!(echo["method"], "POST");
    assert_eq!(echo["target"], "/e/x?q=1");
    assert_eq!(echo["body_bytes"], 5);
    assert_eq!(echo["headers"]["x-auth-subject"], "ada");
    assert_eq!(echo["headers"]["authorization"], json!(null));
    assert_eq!(echo["headers"]["x_auth_subject"], json!(null));
}
