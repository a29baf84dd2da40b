//! Routes that send only a part of the caller's identity to their upstream.

use crate::gateway;
use crate::kit::upstream::Seen;
use crate::kit::{Request, Upstream, token};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

const TABLES: &str = r#"
[authority]
issuer   = "https://gateway.example.com"
audience = "gateway"

[identity]
assertion = "X-Auth-Assertion"
claims    = { "X-Auth-Tenant" = "tenant", "Remote-Plan" = "plan" }

[[route]]
path     = "/all"
upstream = "app"

[[route]]
path     = "/subject"
upstream = "app"
identity = "subject"

[[route]]
path     = "/some"
upstream = "app"
identity = ["roles", "remote-plan"]

[[route]]
path     = "/none"
upstream = "app"
identity = []
"#;

/// Returns the identity that the upstream received: each header, and each claim of the assertion about the caller.
fn received(seen: &Seen) -> (Vec<String>, Vec<String>) {
    let names =
        ["x-auth-subject", "x-auth-roles", "x-auth-scopes", "x-auth-issuer", "x-auth-tenant", "remote-plan"];
    let headers =
        names.iter().filter(|name| seen.header(name).is_some()).map(|name| (*name).to_owned()).collect();
    let assertion = seen.header("x-auth-assertion").expect("every permitted caller has an assertion");
    let claims = URL_SAFE_NO_PAD.decode(assertion.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    let about = ["sub", "roles", "scope", "idp", "tenant", "plan"];
    let claims =
        about.iter().filter(|name| claims.get(**name).is_some()).map(|name| (*name).to_owned()).collect();
    (headers, claims)
}

#[test]
fn an_upstream_receives_what_its_route_sends_and_a_client_can_add_nothing() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, TABLES);
    let token = token("ada").role("clerk").scope("orders:read");
    let token = token.claim("tenant", json!("acme")).claim("plan", json!("gold")).sign();
    let all =
        ["x-auth-subject", "x-auth-roles", "x-auth-scopes", "x-auth-issuer", "x-auth-tenant", "remote-plan"];
    // Request each path twice in another order: a route must not send another route's assertion.
    for path in ["/all", "/subject", "/some", "/none", "/subject", "/all", "/none", "/some"] {
        let request = Request::get(path).bearer(&token);
        let forged = all.iter().chain(["x-auth-assertion", "remote_plan"].iter());
        let request = forged.fold(request, |request, name| request.header(name, "root"));
        request.to(gateway.http()).is(200);
        let seen = upstream.last_request();
        assert!(!seen.mentions("root"), "{path}: {seen:?}");
        let (headers, claims) = received(&seen);
        let (expected, about): (&[&str], &[&str]) = match path {
            "/all" => (&all, &["sub", "roles", "scope", "idp", "tenant", "plan"]),
            "/subject" => (&["x-auth-subject"], &["sub"]),
            "/some" => (&["x-auth-roles", "remote-plan"], &["roles", "plan"]),
            _ => (&[], &[]),
        };
        assert_eq!(
            (headers, claims),
            (
                expected.iter().map(|name| (*name).to_owned()).collect(),
                about.iter().map(|name| (*name).to_owned()).collect()
            ),
            "{path}"
        );
    }
}

#[test]
fn explain_shows_the_part_and_what_is_no_part_is_a_fault() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, TABLES);
    let command = |arguments: &[&str]| crate::kit::portcullis::command(gateway.dir(), arguments).text();
    let claims =
        json!({ "sub": "ada", "iss": "https://gateway.example.com", "roles": ["clerk"], "plan": "gold" })
            .to_string();
    let text = command(&["explain", "GET", "https://h/some", "--claims", &claims]);
    assert!(text.contains("x-auth-roles: clerk") && text.contains("remote-plan: gold"), "{text}");
    assert!(!text.contains("x-auth-subject"), "{text}");
    for (old, new, words) in [
        ("identity = \"subject\"", "identity = \"subjct\"", "the nearest is \"subject\""),
        ("identity = \"subject\"", "identity = \"X-Auth-Subject\"", "no part of the identity named"),
        ("identity = \"subject\"", "identity = \"subject\"\naccess = \"public\"", "a public route"),
        ("[identity]", "[identity]\nforward_token = true", "forward_token sends the whole token"),
    ] {
        let tables = TABLES.replacen(old, new, 1);
        crate::kit::portcullis::write_policy(gateway.dir(), &crate::policy(&upstream, &tables));
        let text = command(&["check"]);
        assert!(text.contains(words), "{new}: {text}");
    }
}

#[test]
fn a_proxy_that_asks_receives_the_part_of_the_route_too() {
    let upstream = Upstream::start();
    let trusted = "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n";
    let gateway = gateway(&upstream, &format!("{trusted}{TABLES}"));
    let token = token("ada").role("clerk").claim("plan", json!("gold")).sign();
    let ask = |path: &str| {
        let request = Request::get("/auth/verify").bearer(&token);
        let request = request.header("X-Forwarded-Method", "GET").header("X-Forwarded-Proto", "https");
        request.header("X-Forwarded-Host", "h").header("X-Forwarded-Uri", path).to(gateway.http())
    };
    let answer = ask("/some");
    answer.is(200);
    assert_eq!((answer.header("x-auth-roles"), answer.header("remote-plan")), (Some("clerk"), Some("gold")));
    assert_eq!(answer.header("x-auth-subject"), None);
    assert_eq!(ask("/all").header("x-auth-subject"), Some("ada"));
    upstream.saw_nothing();
}
