//! `portcullis explain` predicts the gateway's decision.

use crate::kit::dir::Dir;
use crate::kit::forge::{self, Token};
use crate::kit::portcullis::{command, write_policy};
use crate::kit::{Request, Upstream, token};
use crate::{gateway, policy};
use serde_json::{Value, json};

const ROUTES: &str = r#"
[rate_limit.per-caller]
by = "subject"
rate = "100/s"

[identity]
claims = { "X-Auth-Tenant" = "tenant" }

[[route]]
name = "orders"
path = "/orders/{id}"
methods = ["GET"]
upstream = "app"
roles = ["clerk"]
scopes = ["orders:read"]
claims = { tenant = "acme" }
rate_limits = ["per-caller"]
strip_prefix = "/orders"

[[route]]
name = "guests"
path = "/guests"
upstream = "app"
access = "optional"

[[route]]
name = "open"
path = "/{*rest}"
upstream = "app"
access = "public"

[[route]]
name = "by-query"
path = "/by-query"
upstream = "app"
sources = ["query"]
"#;

fn good() -> Token {
    token("u1").role("clerk").scope("orders:read").claim("tenant", json!("acme"))
}

/// Returns the command's explanation of a request as JSON, and its exit code.
fn explained(dir: &Dir, arguments: &[&str]) -> (Value, i32) {
    let finished = command(dir, &[&["--format", "json", "explain"], arguments].concat());
    let text =
        serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {}", finished.text()));
    (text, finished.code.expect("it ends by itself"))
}

#[test]
fn each_token_on_each_route_gets_the_explained_verdict() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    let mut tokens: Vec<(String, String)> =
        forge::every_bad_token().into_iter().map(|(name, token, _)| (name.to_owned(), token)).collect();
    tokens.push(("good".to_owned(), good().sign()));
    tokens.push(("no role".to_owned(), token("u1").sign()));
    for path in ["/orders/7", "/guests", "/open", "/orders/7/8", "/orders%2F7", "/by-query"] {
        // Try every token on paths whose rule uses the token, and one token on the other paths.
        let looked_at = matches!(path, "/orders/7" | "/guests");
        for (name, token) in tokens.iter().filter(|(name, _)| looked_at || name == "good") {
            let request = match path {
                "/by-query" => Request::get(&format!("{path}?access_token={token}")),
                _ => Request::get(path).bearer(token),
            };
            let before = upstream.requests().len();
            let answer = request.host("h.example").to(gateway.http());
            let url = format!("http://h.example{path}");
            let (reported, code) = explained(gateway.dir(), &["GET", &url, "--token", token]);
            let word = if answer.status == 200 { "passed".to_owned() } else { answer.code() };
            assert_eq!(reported["outcome"], json!(word), "{path}, {name}: {reported:#}");
            assert_eq!(code, i32::from(answer.status != 200), "{path}, {name}");
            assert_eq!(upstream.requests().len() - before, usize::from(code == 0), "{path}, {name}");
        }
    }
}

#[test]
fn the_upstream_gets_exactly_the_head_that_is_explained() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    let answer = Request::get("/orders/%37?q=1")
        .host("H.example.")
        .header("X-Auth-Roles", "admin")
        .header("X-Forwarded-For", "198.51.100.9")
        .header("Cookie", "a=1")
        .header("Accept", "text/plain")
        .bearer(good())
        .to(gateway.http());
    answer.is(200);
    let seen = upstream.requests().pop().expect("it was forwarded");
    let token = good().sign();
    let arguments = [
        "GET",
        "http://H.example./orders/%37?q=1",
        "-H",
        "X-Auth-Roles: admin",
        "-H",
        "X-Forwarded-For: 198.51.100.9",
        "-H",
        "Cookie: a=1",
        "-H",
        "Accept: text/plain",
        "--token",
        &token,
        "--client",
        "127.0.0.1",
    ];
    let (reported, _) = explained(gateway.dir(), &arguments);
    let outgoing = &reported["outgoing"];
    assert_eq!(outgoing["path"], json!(seen.target), "{outgoing:#}");
    let mut sent: Vec<(String, String)> =
        seen.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
    let mut explained: Vec<(String, String)> = serde_json::from_value(outgoing["headers"].clone()).unwrap();
    sent.sort();
    explained.sort();
    let is_fresh = |name: &str| matches!(name, "x-request-id" | "traceparent");
    for headers in [&mut sent, &mut explained] {
        let fresh = headers.iter().filter(|(name, _)| is_fresh(name)).count();
        assert_eq!(fresh, 2, "{headers:#?}");
        headers.retain(|(name, _)| !is_fresh(name));
    }
    assert_eq!(explained, sent);
}

#[test]
fn fields_that_do_not_pass_on_are_named() {
    let dir = Dir::new();
    write_policy(&dir, &policy(&Upstream::start(), ROUTES));
    let claims =
        json!({ "sub": "u1", "roles": ["clerk"], "scope": "orders:read", "tenant": "acme" }).to_string();
    let fields = [
        "X-Real-IP: 192.0.2.7",
        "remote_user: root",
        "X_Auth_Subject: root",
        "Accept: a/b",
        "X-Auth-Roles: a",
    ];
    let arguments = fields.iter().flat_map(|field| ["-H", field]);
    let arguments: Vec<&str> =
        ["https://h/orders/7", "--claims", &claims].into_iter().chain(arguments).collect();
    let (reported, _) = explained(&dir, &arguments);
    let removed = json!(["remote_user", "x-real-ip", "x_auth_subject"]);
    assert_eq!(reported["outgoing"]["removed"], removed, "X-Auth-Roles is replaced: {reported:#}");
    let text = command(&dir, &[&["explain"][..], &arguments].concat()).text();
    assert!(
        text.contains(
            "\nfields of the request that it does not get: remote_user, x-real-ip, x_auth_subject\n"
        ),
        "{text}"
    );
    let (reported, _) = explained(&dir, &["https://h/orders/7", "--claims", &claims, "-H", "Accept: a/b"]);
    assert_eq!(reported["outgoing"]["removed"], Value::Null, "{reported:#}");
}

#[test]
fn claims_stand_for_a_token_that_holds_them() {
    let dir = Dir::new();
    write_policy(&dir, &policy(&Upstream::start(), ROUTES));
    let ask = |claims: Value| {
        let (reported, _) = explained(&dir, &["https://h/orders/7", "--claims", &claims.to_string()]);
        reported["outcome"].as_str().unwrap().to_owned()
    };
    let good = json!({ "sub": "u1", "roles": ["clerk"], "scope": "orders:read", "tenant": "acme" });
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    assert_eq!(ask(good.clone()), "passed");
    assert_eq!(ask(with("roles", json!(["guest"]))), "insufficient_role");
    assert_eq!(ask(with("scope", json!("other"))), "insufficient_scope");
    assert_eq!(ask(with("tenant", json!("else"))), "claim_mismatch");
    assert_eq!(ask(with("exp", json!(1))), "expired_token");
    assert_eq!(ask(with("aud", json!("else"))), "wrong_audience");
    assert_eq!(ask(with("iss", json!("else"))), "unknown_issuer");
    assert_eq!(ask(with("sub", json!(7))), "missing_claim");
    assert_eq!(ask(json!({ "roles": ["clerk"] })), "missing_claim", "a caller has a name");
}

#[test]
fn the_text_names_the_route_its_neighbours_the_checks_and_the_limits() {
    let dir = Dir::new();
    write_policy(&dir, &policy(&Upstream::start(), ROUTES));
    let claims = r#"{"sub":"u1","roles":["guest"],"scope":"orders:read","tenant":"acme"}"#;
    let reported = command(&dir, &["explain", "https://h/orders/7", "--claims", claims]);
    assert_eq!(reported.code, Some(1));
    for line in [
        "read as   GET h/orders/7",
        "route     orders: matches GET,HEAD /orders/{id}",
        "{id} = 7",
        "not       open (/{*rest}): matches too, but is less specific",
        "passed    a valid token",
        "REFUSED   any role of clerk: insufficient_role",
        "passed    all scopes of orders:read",
        "passed    claim tenant = \"acme\"",
        "limit     per-caller: 100 at once, then one each 10ms, by subject u1 of",
        "verdict: refused with 403 insufficient_role",
    ] {
        assert!(reported.stdout.contains(line), "{line}\n{}", reported.stdout);
    }
    assert!(!reported.stdout.contains("receives:"), "what is refused is not sent: {}", reported.stdout);
    let reported = command(&dir, &["explain", "DELETE", "https://h/orders/7"]);
    assert!(
        reported.stdout.contains("orders (GET,HEAD /orders/{id}): does not match the method"),
        "{}",
        reported.stdout
    );
    let reported = command(&dir, &["explain", "https://h/Guests"]);
    assert!(
        reported.stdout.contains("guests (/guests): differs by upper and lower case"),
        "{}",
        reported.stdout
    );
    let reported = command(&dir, &["explain", "https://h/orders"]);
    assert!(
        reported.stdout.contains("orders (GET,HEAD /orders/{id}): matches only paths below this one"),
        "{}",
        reported.stdout
    );
}

#[test]
fn a_token_comes_from_a_file_and_is_not_shown() {
    let dir = Dir::new();
    write_policy(&dir, &policy(&Upstream::start(), ROUTES));
    let token = good().sign();
    dir.write("token", format!("{token}\n"));
    let reported = command(&dir, &["explain", "https://h/orders/7", "--token-file", "token"]);
    assert_eq!(reported.code, Some(0), "{}", reported.text());
    assert!(!reported.text().contains(&token[..40]), "{}", reported.text());
    let reported =
        command(&dir, &["--format", "json", "explain", "https://h/by-query", "--token-file", "token"]);
    assert_eq!(reported.code, Some(0), "{}", reported.text());
    assert!(!reported.text().contains(&token[..40]), "{}", reported.text());
}

#[test]
fn an_invalid_question_is_wrong_usage_and_a_bad_policy_a_refusal() {
    let dir = Dir::new();
    write_policy(&dir, &policy(&Upstream::start(), ROUTES));
    for (arguments, says) in [
        (&["explain", "/orders"][..], "not a URL"),
        (&["explain", "G T", "https://h/"], "not a method"),
        (&["explain", "https://h/", "--claims", "{"], "--claims"),
        (&["explain", "https://h/", "-H", "x"], "not a header"),
        (&["explain", "https://h/", "--token-file", "absent"], "absent"),
        (&["explain", "https://h/", "--client", "nobody"], "--client"),
    ] {
        let finished = command(&dir, arguments);
        assert_eq!(finished.code, Some(2), "{arguments:?}: {}", finished.text());
        assert!(finished.stderr.contains(says), "{arguments:?}: {}", finished.stderr);
    }
    dir.write("gateway.toml", "nonsense = 1");
    assert_eq!(command(&dir, &["explain", "https://h/"]).code, Some(1));
}
