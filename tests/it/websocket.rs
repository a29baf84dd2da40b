//! WebSockets through each real proxy that asks for verdicts, and handshakes on routes that forward no WebSockets.
//!
//! A page of any origin may open a WebSocket with a user's cookies, so a session is accepted only from allowed origins
//! (RFC 6455 section 10.2).

use crate::kit::account::AUTHORITY;
use crate::kit::client::{Connection, HOST};
use crate::kit::proxies::{Kind, Proxy};
use crate::kit::websocket::{echoed, handshake, is_accepted, service};
use crate::kit::{Answer, Portcullis, Request, Upstream, token};
use crate::policy;

const ROUTES: &str = r#"
[server]
trusted_proxies = ["127.0.0.1"]

[[route]]
name     = "public"
path     = "/open/{*rest}"
upstream = "app"
access   = "public"

[[route]]
name     = "socket"
path     = "/ws"
upstream = "app"
"#;

const COOKIES: &str = "cookies = true\norigins = [\"https://app.test\"]\n";

fn gateway(service: &Upstream) -> Portcullis {
    Portcullis::with(&policy(service, &format!("{ROUTES}{AUTHORITY}{COOKIES}"))).start()
}

/// Adds a session's cookie to a request.
fn in_session(request: Request) -> Request {
    request.header("Cookie", &format!("__Host-portcullis={}", token("ada").role("clerk")))
}

fn through(kind: Kind) {
    let service = service();
    let gateway = gateway(&service);
    let proxy = Proxy::start(kind, &gateway, &service);
    let own = format!("http://{HOST}");

    // An authorized client gets a WebSocket that carries messages both ways.
    for request in [
        handshake("/open/chat"),
        handshake("/ws").bearer(token("ada")),
        in_session(handshake("/ws")).header("Origin", &own),
        in_session(handshake("/ws")).header("Origin", "https://app.test"),
    ] {
        let mut connection = Connection::open(proxy.address());
        let answer = request.over(&mut connection);
        assert!(is_accepted(&answer), "{kind:?} {request:?}: {answer:#?}");
        assert_eq!(echoed(&mut connection, "hello"), "hello", "{kind:?}");
        assert_eq!(echoed(&mut connection, "again"), "again", "{kind:?}");
    }
    let seen = service.last_request();
    assert_eq!(seen.header("x-auth-subject"), Some("ada"), "{kind:?}: {seen:#?}");

    // Neither another origin nor a client without a token gets a WebSocket.
    let before = service.requests().len();
    for (request, status) in [
        (in_session(handshake("/ws")).header("Origin", "https://evil.test"), 403),
        (in_session(handshake("/ws")).header("Origin", "null"), 403),
        // Every browser sends `Origin` (RFC 6455 section 4.1), but a proxy on the way may have removed it.
        (in_session(handshake("/ws")), 403),
        (in_session(handshake("/ws")).header("Sec-Fetch-Site", "cross-site"), 403),
        (handshake("/ws").header("Origin", &own), 401),
    ] {
        let answer = request.to(proxy.address());
        assert_eq!(answer.status, status, "{kind:?} {request:?}: {answer:#?}");
    }
    assert_eq!(service.requests().len(), before, "{kind:?}: no refused handshake reaches the service");
}

#[test]
fn nginx_lets_websockets_through_from_allowed_origins_alone() {
    through(Kind::Nginx);
}

#[test]
fn caddy_lets_websockets_through_from_allowed_origins_alone() {
    through(Kind::Caddy);
}

#[test]
fn traefik_lets_websockets_through_from_allowed_origins_alone() {
    through(Kind::Traefik);
}

#[test]
fn envoy_lets_websockets_through_from_allowed_origins_alone() {
    through(Kind::Envoy);
}

/// Asks for a verdict on a GET of `/ws` with a session's cookie and a foreign origin. `marks`: the handshake's fields
/// that the proxy has kept.
fn question(gateway: &Portcullis, marks: &[(&str, &str)]) -> Answer {
    let mut request = in_session(Request::get("/auth/verify"))
        .header("X-Forwarded-Method", "GET")
        .header("X-Forwarded-Uri", "/ws")
        .header("X-Forwarded-Host", "app.example")
        .header("X-Forwarded-Proto", "https")
        .header("Origin", "https://evil.test");
    for (name, value) in marks {
        request = request.header(name, value);
    }
    request.to(gateway.http())
}

#[test]
fn a_handshake_is_recognised_by_any_mark_that_a_proxy_leaves() {
    let gateway = gateway(&Upstream::start());
    for mark in [
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-Fetch-Mode", "websocket"),
    ] {
        question(&gateway, &[mark]).is_refusal(403, "csrf_mismatch");
    }
    question(&gateway, &[]).is(200);
}

#[test]
fn a_handshake_at_the_gateway_is_refused_by_name() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    // The gateway checks the client's permission before it refuses the handshake.
    handshake("/ws").to(gateway.http()).is_refusal(401, "missing_token");
    in_session(handshake("/ws"))
        .header("Origin", "https://evil.test")
        .to(gateway.http())
        .is_refusal(403, "csrf_mismatch");
    for request in [
        handshake("/open/chat"),
        handshake("/ws").bearer(token("ada")),
        in_session(handshake("/ws")).header("Origin", "https://app.test"),
        Request::get("/open/chat").header("Upgrade", "h2c, websocket"),
        Request::get("/open/chat").header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ] {
        let answer = request.to(gateway.http());
        answer.is_refusal(400, "bad_request");
        assert_eq!(answer.json()["detail"], "WebSockets are not forwarded here.", "{answer:#?}");
        let line = gateway.access_line(&answer);
        assert!(line["detail"].as_str().is_some_and(|it| it.contains("WebSocket")), "{line}");
    }
    upstream.saw_nothing();
    // RFC 9110 section 7.8: a server may ignore an upgrade offer. Java's client makes one by default.
    let offer = Request::get("/open/a")
        .header("Connection", "Upgrade, HTTP2-Settings")
        .header("Upgrade", "h2c")
        .header("HTTP2-Settings", "AAMAAABkAAQAAP__");
    offer.to(gateway.http()).is(200);
}

#[test]
fn explain_refuses_a_handshake_as_the_gateway_does() {
    let dir = crate::kit::dir::Dir::new();
    let tests = r#"
[[test]]
name    = "a handshake"
request = "GET http://gateway.test/open/chat"
headers = { Upgrade = "websocket", Connection = "upgrade" }
expect  = { deny = "bad_request", route = "public" }
"#;
    crate::kit::portcullis::write_policy(
        &dir,
        &policy(&Upstream::start(), &format!("{ROUTES}{AUTHORITY}{COOKIES}{tests}")),
    );
    let checked = crate::kit::portcullis::command(&dir, &["check", "--config", "gateway.toml"]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
}
