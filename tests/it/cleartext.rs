//! The cleartext listener that redirects to TLS.

use crate::kit::account::AUTHORITY;
use crate::kit::client::Connection;
use crate::kit::{Portcullis, Request, Upstream, token};
use crate::{PUBLIC, policy};

const ROUTES: &str = r#"
[[route]]
name     = "api"
path     = "/api/{*rest}"
upstream = "app"

[[route]]
name     = "named"
path     = "/named"
upstream = "app"
sources  = [{ header = "X-Api-Token" }, { query = "key" }, { cookie = "CF_Authorization" }, "websocket"]
waive    = { token_in_query = "a test" }
"#;

/// Starts a gateway whose cleartext listener redirects.
fn redirecting(upstream: &Upstream, server: &str) -> Portcullis {
    let server = format!("[server]\nhttps = \"127.0.0.1:0\"\nplain = \"redirect\"\n{server}\n");
    let tables = format!("{server}{ROUTES}{PUBLIC}{AUTHORITY}cookies = true\n");
    Portcullis::with(&policy(upstream, &tables)).start()
}

#[test]
fn a_client_is_sent_to_the_port_that_the_policy_calls_public() {
    // RFC 9110 section 4.2.2: an https address without a port means port 443.
    let upstream = Upstream::start();
    let location = |gateway: &Portcullis| {
        let answer = Request::get("/a?b=c").host("shop.example:8080").to(gateway.http());
        assert_eq!(answer.status, 308, "{answer:#?}");
        answer.header("location").unwrap().to_owned()
    };
    let gateway = redirecting(&upstream, "");
    assert_eq!(location(&gateway), format!("https://shop.example:{}/a?b=c", gateway.https().port()));
    assert_eq!(location(&redirecting(&upstream, "public_port = 443")), "https://shop.example/a?b=c");
    assert_eq!(location(&redirecting(&upstream, "public_port = 444")), "https://shop.example:444/a?b=c");
    // The container image sets the port by a variable whose name ends like the variables that Kubernetes derives from
    // services.
    let tables = format!("[server]\nhttps = \"127.0.0.1:0\"\nplain = \"redirect\"\n{PUBLIC}");
    let gateway =
        Portcullis::with(&policy(&upstream, &tables)).env("PORTCULLIS_SERVER__PUBLIC_PORT", "443").start();
    assert_eq!(location(&gateway), "https://shop.example/a?b=c");
}

#[test]
fn a_request_that_a_trusted_proxy_calls_https_is_served() {
    // A redirect would loop: the client would reach the same proxy again.
    let upstream = Upstream::start();
    let gateway = redirecting(&upstream, "public_port = 443\ntrusted_proxies = [\"127.0.0.1\"]");
    let request = || Request::get("/page").host("inner").header("X-Forwarded-Host", "shop.example");
    request().header("X-Forwarded-Proto", "https").to(gateway.http()).is(200);
    assert_eq!(upstream.last_request().header("x-forwarded-proto"), Some("https"));
    let token = token("ada");
    Request::get("/api/x").bearer(&token).header("X-Forwarded-Proto", "https").to(gateway.http()).is(200);
    for request in [request(), request().header("X-Forwarded-Proto", "http")] {
        let answer = request.to(gateway.http());
        let location = answer.header("location");
        assert_eq!((answer.status, location), (308, Some("https://shop.example/page")), "{answer:#?}");
    }
    // `X-Forwarded-Proto` is ignored in a request from any other address.
    let mut connection = Connection::from("127.0.0.2".parse().unwrap(), gateway.http());
    let answer = request().header("X-Forwarded-Proto", "https").over(&mut connection);
    assert_eq!((answer.status, answer.header("location")), (308, Some("https://inner/page")), "{answer:#?}");
    assert_eq!(upstream.requests().len(), 2);
}

#[test]
fn a_client_of_a_proxy_that_passes_on_forwarded_is_redirected_and_to_no_host_of_its_choice() {
    let upstream = Upstream::start();
    let gateway = redirecting(&upstream, "public_port = 443\ntrusted_proxies = [\"127.0.0.1\"]");
    let answer = Request::get("/page")
        .host("inner")
        .header("X-Forwarded-For", "203.0.113.9")
        .header("Forwarded", "for=203.0.113.9;host=evil.example;proto=https")
        .to(gateway.http());
    assert_eq!((answer.status, answer.header("location")), (308, Some("https://inner/page")), "{answer:#?}");
    assert!(upstream.requests().is_empty());
}

#[test]
fn a_trusted_proxy_may_ask_for_verdicts_where_clients_are_redirected() {
    let upstream = Upstream::start();
    let gateway = redirecting(&upstream, "trusted_proxies = [\"127.0.0.1\"]");
    for proto in ["http", "https"] {
        let question = Request::get("/auth/verify")
            .header("X-Forwarded-Method", "GET")
            .header("X-Forwarded-Uri", "/api/x")
            .header("X-Forwarded-Host", "shop.example")
            .header("X-Forwarded-Proto", proto);
        question.to(gateway.http()).is_refusal(401, "missing_token");
        question.bearer(token("ada")).to(gateway.http()).is(200);
    }
}

#[test]
fn a_credential_in_cleartext_is_refused_and_not_sent_on() {
    // OWASP REST Security, HTTPS.
    let upstream = Upstream::start();
    let gateway = redirecting(&upstream, "");
    let form = "username=ada&password=secret";
    for request in [
        Request::get("/api/x").bearer(token("ada")),
        Request::get("/nowhere").header("Authorization", "Basic YTpi"),
        Request::get("/page").header("Cookie", "a=b; __Host-portcullis=x"),
        Request::get("/page").header("Cookie", "__Host-portcullis-refresh=x"),
        Request::get("/named").header("X-Api-Token", "x"),
        Request::get("/named?a=b&key=x"),
        Request::get("/named").header("Cookie", "a=b; CF_Authorization=x"),
        Request::get("/named").header("Sec-WebSocket-Protocol", "bearer, x"),
        Request::post("/auth/login", form),
        Request::post("/auth/refresh", "refresh_token=x"),
    ] {
        let answer = request.to(gateway.http());
        answer.is_refusal(403, "insecure_transport");
        assert_eq!(answer.header("location"), None);
        assert_eq!(gateway.access_line(&answer)["reason"], "insecure_transport");
    }
    // The endpoints for services refuse in the form of OAuth.
    let answer = Request::post("/auth/token", "grant_type=client_credentials").to(gateway.http());
    assert_eq!((answer.status, &answer.json()["error"]), (403, &"invalid_request".into()), "{answer:?}");
    assert_eq!(gateway.access_line(&answer)["reason"], "insecure_transport");
    for request in [
        Request::get("/page").header("Cookie", "a=b"),
        Request::get("/page?key=x"),
        Request::get("/page").header("Cookie", "CF_Authorization=x"),
        Request::get("/named").header("Sec-WebSocket-Protocol", "graphql-ws"),
        Request::get("/auth/login"),
        Request::post("/page", form),
        // A request to this machine does not cross a network, so it is redirected.
        Request::get("/page").host("localhost:8080").header("Cookie", "__Host-portcullis=x"),
    ] {
        let answer = request.to(gateway.http());
        assert_eq!(answer.status, 308, "{request:?}: {answer:#?}");
    }
    upstream.saw_nothing();
}

#[test]
fn explain_knows_what_is_refused_in_cleartext() {
    let dir = crate::kit::dir::Dir::new();
    let tests = r#"
[[test]]
name    = "a token in cleartext"
request = "GET http://shop.example/api/x"
claims  = { sub = "ada" }
expect  = { deny = "insecure_transport", status = 403 }

[[test]]
name    = "a page in cleartext"
request = "GET http://shop.example/page"
expect  = { status = 308 }

[[test]]
name    = "a proxy before the gateway"
request = "GET http://shop.example/page"
client  = "10.0.0.1"
headers = { X-Forwarded-Proto = "https" }
expect  = { allow = true }
"#;
    let server =
        "[server]\nhttps = \"127.0.0.1:0\"\nplain = \"redirect\"\ntrusted_proxies = [\"10.0.0.1\"]\n";
    let upstream = Upstream::start();
    let routes = "[[route]]\nname = \"api\"\npath = \"/api/x\"\nupstream = \"app\"\n\
                  [[route]]\nname = \"page\"\npath = \"/page\"\nupstream = \"app\"\naccess = \"public\"\n";
    let tables = format!("{server}{routes}{AUTHORITY}cookies = true\n{tests}");
    crate::kit::portcullis::write_policy(&dir, &policy(&upstream, &tables));
    let checked = crate::kit::portcullis::command(&dir, &["check", "--config", "gateway.toml"]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
}
