//! The places in a request where a token may be. A request has only one token, and the upstream must not get it.

use crate::kit::client::HOST;
use crate::kit::websocket::handshake;
use crate::kit::{Request, Upstream, token};
use crate::{gateway, kit::Portcullis};

const ROUTES: &str = "
[[route]]
path     = \"/usual\"
upstream = \"app\"

[[route]]
path     = \"/named\"
upstream = \"app\"
sources  = [{ header = \"X-Api-Token\" }]

[[route]]
path     = \"/query\"
upstream = \"app\"
sources  = [\"header\", { query = \"jwt\" }]

[[route]]
path     = \"/either\"
upstream = \"app\"
sources  = [\"header\", { header = \"X-Api-Token\" }, \"query\"]

[[route]]
path     = \"/optional\"
upstream = \"app\"
access   = \"optional\"
sources  = [{ header = \"X-Api-Token\" }]
";

fn start(upstream: &Upstream) -> Portcullis {
    gateway(upstream, ROUTES)
}

#[test]
fn a_token_is_found_where_its_route_looks_and_nowhere_else() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    let good = token("ada").to_string();
    let header = |path: &str| Request::get(path).bearer(&good);
    let named = |path: &str| Request::get(path).header("X-Api-Token", &good);
    let query = |path: &str, name: &str| Request::get(&format!("{path}?a=1&{name}={good}&b=2"));
    for (request, status) in [
        (header("/usual"), 200),
        (named("/usual"), 401),
        (query("/usual", "access_token"), 401),
        (header("/named"), 401),
        (named("/named"), 200),
        (header("/query"), 200),
        (query("/query", "jwt"), 200),
        (query("/query", "access_token"), 401),
        (query("/query", "JWT"), 401),
        (named("/query"), 401),
        (header("/either"), 200),
        (named("/either"), 200),
        (query("/either", "access_token"), 200),
    ] {
        let answer = request.to(gateway.http());
        assert_eq!(answer.status, status, "{request:?}");
        if status == 401 {
            answer.is_refusal(401, "missing_token");
        }
    }
}

#[test]
fn two_tokens_are_refused_wherever_they_stand() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    let good = token("ada").to_string();
    for request in [
        Request::get("/either").bearer(&good).header("X-Api-Token", &good),
        Request::get("/either").header("X-Api-Token", &good).header("X-Api-Token", &good),
        Request::get(&format!("/either?access_token={good}")).bearer(&good),
        Request::get(&format!("/either?access_token={good}&access_token={good}")),
        Request::get("/either?access_token=x").header("X-Api-Token", &good),
    ] {
        request.to(gateway.http()).is_refusal(400, "ambiguous_credentials");
    }
    upstream.saw_nothing();
}

#[test]
fn nothing_of_the_token_reaches_the_upstream_and_the_rest_does() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    let good = token("ada").to_string();
    Request::get("/named")
        .header("x_api_token", "theirs")
        .header("X-Api-Token", &good)
        .to(gateway.http())
        .is(200);
    for (query, sent) in [
        (format!("?jwt={good}"), "/query"),
        (format!("?a=1&jwt={good}"), "/query?a=1"),
        (format!("?jwt={good}&b=%2F&c"), "/query?b=%2F&c"),
    ] {
        Request::get(&format!("/query{query}")).to(gateway.http()).is(200);
        let seen = upstream.last_request();
        assert_eq!(seen.target, sent);
    }
    for seen in upstream.requests() {
        let reported = format!("{seen:?}");
        assert!(!reported.contains(&good), "{reported}");
        assert!(reported.contains("ada"), "{reported}");
    }
}

#[test]
fn a_bad_token_in_a_place_of_its_own_is_refused_where_none_is_needed() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    Request::get("/optional").to(gateway.http()).is(200);
    Request::get("/optional").header("X-Api-Token", &token("ada").to_string()).to(gateway.http()).is(200);
    for bad in ["", "x", "Bearer x", "a b", "a,b"] {
        let answer = Request::get("/optional").header("X-Api-Token", bad).to(gateway.http());
        answer.is_refusal(401, "malformed_token");
    }
    Request::get("/optional")
        .header("X-Api-Token", &token("ada").expired().to_string())
        .to(gateway.http())
        .is_refusal(401, "expired_token");
}

const OTHERS: &str = r#"
[server]
trusted_proxies = ["127.0.0.1"]

[authority]
issuer = "https://gateway.test/"
audience = ["app"]
origins = ["https://spa.example"]

[policy]
sources = ["header", { cookie = "CF_Authorization" }]

[[route]]
path     = "/usual"
upstream = "app"

[[route]]
path     = "/foreign"
upstream = "app"
sources  = [{ cookie = "CF_Authorization" }]

[[route]]
path     = "/scheme"
upstream = "app"
sources  = ["header", { header = "Authorization", prefix = "JWT " }]

[[route]]
path     = "/prefix"
upstream = "app"
sources  = [{ header = "X-Token", prefix = "Token " }]

[[route]]
path     = "/socket"
upstream = "app"
sources  = ["websocket", { cookie = "CF_Authorization" }]

[[route]]
path     = "/form"
upstream = "app"
methods  = ["POST"]
sources  = [{ cookie = "CF_Authorization" }]

[[test]]
name    = "a caller is described on a route that reads a foreign cookie"
request = "POST https://gateway.test/form"
claims  = { sub = "ada" }
expect  = { allow = true, headers = { Cookie = "", X-Auth-Subject = "ada" } }

[[test]]
name    = "another site is refused there"
request = "POST https://gateway.test/form"
headers = { Origin = "https://evil.example" }
claims  = { sub = "ada" }
expect  = { deny = "csrf_mismatch" }

[[test]]
name    = "a caller is described on a route with a prefix"
request = "GET https://gateway.test/prefix"
claims  = { sub = "ada" }
expect  = { allow = true, headers = { X-Token = "" } }

[[test]]
name    = "a caller is described on a route for WebSockets"
request = "GET https://gateway.test/socket"
claims  = { sub = "ada" }
expect  = { allow = true, headers = { Sec-WebSocket-Protocol = "" } }
"#;

fn cookie(request: Request, token: &str) -> Request {
    request.header("Cookie", &format!("theme=dark; CF_Authorization={token}; lang=en"))
}

#[test]
fn a_foreign_cookie_a_scheme_a_prefix_and_a_subprotocol_carry_a_token_and_are_removed() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, OTHERS);
    let good = token("ada").to_string();
    for request in [
        cookie(Request::get("/usual"), &good),
        Request::get("/usual").bearer(&good),
        cookie(Request::get("/foreign"), &good),
        Request::get("/scheme").bearer(&good),
        Request::get("/scheme").header("Authorization", &format!("JWT {good}")),
        Request::get("/scheme").header("Authorization", &format!("jwt {good}")),
        Request::get("/prefix").header("X-Token", &format!("Token {good}")),
        Request::get("/socket").header("Sec-WebSocket-Protocol", &format!("bearer, {good}, graphql-ws")),
    ] {
        request.to(gateway.http()).is(200);
        let seen = upstream.last_request();
        let reported = format!("{seen:?}");
        assert!(!reported.contains(&good), "{reported}");
        assert_eq!(seen.header("x-auth-subject"), Some("ada"), "{reported}");
    }
    let seen = upstream.last_request();
    assert_eq!(seen.header("sec-websocket-protocol"), Some("graphql-ws"));
    cookie(Request::get("/foreign"), &good).to(gateway.http()).is(200);
    assert_eq!(upstream.last_request().header("cookie"), Some("theme=dark; lang=en"));
    // Other parsers read these spellings as the cookie, so they are refused.
    let spelt =
        Request::get("/foreign").header("Cookie", &format!("CF_Authorization={good}; CF_Authorization =x"));
    spelt.to(gateway.http()).is(200);
    assert_eq!(upstream.last_request().header("cookie"), None);
}

#[test]
fn a_token_in_another_form_or_place_is_refused() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, OTHERS);
    let good = token("ada").to_string();
    for (request, status, code) in [
        (Request::get("/foreign").bearer(&good), 401, "missing_token"),
        (
            Request::get("/foreign").header("Cookie", &format!("cf_authorization={good}")),
            401,
            "missing_token",
        ),
        (Request::get("/scheme").header("Authorization", &format!("JWT  {good}")), 401, "malformed_token"),
        (Request::get("/scheme").header("Authorization", &format!("Token {good}")), 401, "missing_token"),
        (Request::get("/prefix").header("X-Token", &good), 401, "malformed_token"),
        (Request::get("/prefix").header("X-Token", &format!("Bearer {good}")), 401, "malformed_token"),
        (Request::get("/socket").header("Sec-WebSocket-Protocol", "bearer"), 401, "malformed_token"),
        (Request::get("/socket").header("Sec-WebSocket-Protocol", "graphql-ws"), 401, "missing_token"),
        (cookie(Request::get("/usual").bearer(&good), &good), 400, "ambiguous_credentials"),
        (
            cookie(Request::get("/foreign"), &format!("{good}; CF_Authorization={good}")),
            400,
            "ambiguous_credentials",
        ),
        (
            cookie(Request::get("/socket"), &good)
                .header("Sec-WebSocket-Protocol", &format!("bearer, {good}")),
            400,
            "ambiguous_credentials",
        ),
    ] {
        request.to(gateway.http()).is_refusal(status, code);
    }
    upstream.saw_nothing();
}

#[test]
fn a_foreign_cookie_changes_something_only_from_a_page_of_the_same_origin() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, OTHERS);
    let good = token("ada").to_string();
    let post = || cookie(Request::new("POST", "/form"), &good);
    let own = format!("http://{HOST}");
    for request in [
        post().header("Origin", &own),
        post().header("Sec-Fetch-Site", "same-origin"),
        post().header("Sec-Fetch-Site", "none"),
        post().header("Origin", &own).header("Sec-Fetch-Site", "same-origin"),
        post().header("Origin", "null").header("Sec-Fetch-Site", "same-origin"),
        post().header("Origin", "https://spa.example").header("Sec-Fetch-Site", "cross-site"),
        // A request without an effect needs no proof of its origin.
        cookie(Request::get("/foreign"), &good).header("Origin", "https://evil.example"),
    ] {
        request.to(gateway.http()).is(200);
    }
    let before = upstream.requests().len();
    for request in [
        post(),
        post().header("Origin", "https://evil.example"),
        post().header("Origin", "null"),
        post().header("Sec-Fetch-Site", "cross-site"),
        post().header("Sec-Fetch-Site", "same-site"),
        post().header("Origin", &own).header("Sec-Fetch-Site", "cross-site"),
        post().header("Origin", &own).header("Origin", &own),
        // Another page can open a WebSocket with the cookie. Even with a proven origin, a cookie is no bearer token.
        cookie(handshake("/foreign"), &good),
        cookie(handshake("/foreign"), &good).header("Origin", "https://evil.example"),
    ] {
        request.to(gateway.http()).is_refusal(403, "csrf_mismatch");
    }
    assert_eq!(upstream.requests().len(), before);
    let answer = post().to(gateway.http());
    let line = gateway.access_line(&answer);
    assert!(line["detail"].as_str().is_some_and(|it| it.contains("neither Origin nor")), "{line}");
}

#[test]
fn a_proxy_asks_about_a_handshake_with_its_token_among_the_subprotocols() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, OTHERS);
    let good = token("ada").to_string();
    let question = |protocols: &str| {
        handshake("/auth/verify")
            .header("X-Forwarded-Method", "GET")
            .header("X-Forwarded-Uri", "/socket")
            .header("X-Forwarded-Host", "app.example")
            .header("X-Forwarded-Proto", "https")
            .header("Origin", "https://anywhere.example")
            .header("Sec-WebSocket-Protocol", protocols)
            .to(gateway.http())
    };
    let granted = question(&format!("graphql-ws, bearer, {good}"));
    granted.is(200);
    assert_eq!(granted.header("x-auth-subject"), Some("ada"));
    question("graphql-ws, bearer, x").is_refusal(401, "malformed_token");
    question("graphql-ws").is_refusal(401, "missing_token");
    // The route forwards no WebSockets. The gateway says so only to a client with a valid token.
    let own =
        |protocols: &str| handshake("/socket").header("Sec-WebSocket-Protocol", protocols).to(gateway.http());
    own(&format!("bearer, {good}")).is_refusal(400, "bad_request");
    own("bearer, x").is_refusal(401, "malformed_token");
    upstream.saw_nothing();
}

/// Without an authority, `policy.origins` names the pages of other origins.
#[test]
fn a_foreign_cookie_is_accepted_from_the_origins_of_the_policy() {
    let upstream = Upstream::start();
    let policy = "
[policy]
origins = [\"https://spa.example\"]

[[route]]
path     = \"/form\"
upstream = \"app\"
methods  = [\"POST\"]
sources  = [{ cookie = \"CF_Authorization\" }]
";
    let gateway = gateway(&upstream, policy);
    let good = token("ada").to_string();
    let post = |origin: &str| {
        let request = cookie(Request::new("POST", "/form"), &good).header("Origin", origin);
        request.header("Sec-Fetch-Site", "cross-site").to(gateway.http())
    };
    post("https://spa.example").is(200);
    for other in [
        "https://spa.example:8443",
        "http://spa.example",
        "https://spa.example.evil.test",
        "https://SPA.example",
        "null",
    ] {
        post(other).is_refusal(403, "csrf_mismatch");
    }
    // Scripts of these origins cannot read the answers of the gateway itself.
    assert_eq!(post("https://spa.example").header("access-control-allow-origin"), None);
}
