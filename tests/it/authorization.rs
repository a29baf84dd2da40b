//! Authorization: roles, scopes and claims, each with values that almost match the rule.

use crate::gateway;
use crate::kit::forge::Token;
use crate::kit::{Answer, Request, Upstream, token};
use serde_json::{Value, json};

const ROUTES: &str = r#"
[[route]]
path     = "/any"
upstream = "app"
roles    = ["admin", "clerk"]

[[route]]
path      = "/all"
upstream  = "app"
all_roles = ["auditor", "clerk"]

[[route]]
path     = "/scopes"
upstream = "app"
scopes   = ["orders:read", "orders:write"]

[[route]]
path     = "/tenants/{tenant}/orders"
upstream = "app"
claims   = { tenant = "{tenant}" }

[[route]]
path     = "/staff"
upstream = "app"
claims   = { department = "sales", verified = true, level = 3 }

[[route]]
path     = "/everything"
upstream = "app"
roles    = ["admin"]
scopes   = ["orders:read"]
claims   = { tenant = "acme" }

[[route]]
path     = "/guests"
upstream = "app"
access   = "optional"

[[route]]
path     = "/open"
upstream = "app"
"#;

/// Sends a request with each token. Compares the code of the refusal (empty if the request passes), and what the
/// upstream received.
#[track_caller]
fn verdicts(path: &str, table: &[(&str, Token, &str)]) {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    for (name, token, code) in table {
        let before = upstream.requests().len();
        let answer = Request::get(path).bearer(token).to(gateway.http());
        assert_eq!(answer.code(), *code, "{path}, {name}: {answer:#?}");
        assert_eq!(answer.status, if code.is_empty() { 200 } else { 403 }, "{path}, {name}");
        assert_eq!(upstream.requests().len() - before, usize::from(code.is_empty()), "{path}, {name}");
    }
}

#[test]
fn one_of_the_roles_is_enough_and_nothing_that_only_resembles_one() {
    let none = "insufficient_role";
    let roles = |value: Value| token("ada").claim("roles", value);
    verdicts(
        "/any",
        &[
            ("the first", token("ada").role("admin"), ""),
            ("the second", token("ada").role("clerk"), ""),
            ("one among others", token("ada").role("guest").role("clerk"), ""),
            ("no roles", token("ada"), none),
            ("an empty list", roles(json!([])), none),
            ("another", token("ada").role("guest"), none),
            ("one that holds it", token("ada").role("administrator"), none),
            ("one that it holds", token("ada").role("adm"), none),
            ("in other case", token("ada").role("Admin"), none),
            ("with a space in front", token("ada").role(" admin"), none),
            ("with a space behind", token("ada").role("admin "), none),
            ("joined by a comma", token("ada").role("guest,admin"), none),
            ("joined by a space", roles(json!(["guest admin"])), none),
            ("a pattern", token("ada").role("*"), none),
            ("an empty one", token("ada").role(""), none),
            ("nested", roles(json!([["admin"]])), none),
            ("an object", roles(json!({"admin": true})), none),
            ("in another claim", token("ada").claim("role", json!("admin")), none),
            ("in the subject", token("admin"), none),
        ],
    );
}

#[test]
fn all_of_all_roles_are_needed() {
    verdicts(
        "/all",
        &[
            ("both", token("ada").role("clerk").role("auditor"), ""),
            ("both and more", token("ada").role("x").role("auditor").role("clerk"), ""),
            ("one", token("ada").role("clerk"), "insufficient_role"),
            ("the other", token("ada").role("auditor"), "insufficient_role"),
            ("one twice", token("ada").role("clerk").role("clerk"), "insufficient_role"),
        ],
    );
}

#[test]
fn all_scopes_are_needed_whole() {
    let none = "insufficient_scope";
    let scope = |value: Value| token("ada").claim("scope", value);
    verdicts(
        "/scopes",
        &[
            ("both", token("ada").scope("orders:read").scope("orders:write"), ""),
            ("as a list", scope(json!(["orders:write", "orders:read"])), ""),
            ("one", token("ada").scope("orders:read"), none),
            ("none", token("ada"), none),
            ("a prefix", token("ada").scope("orders"), none),
            ("a longer one", token("ada").scope("orders:read").scope("orders:write:all"), none),
            ("a pattern", token("ada").scope("orders:*"), none),
            ("with dots", token("ada").scope("orders:read").scope("orders:x/../orders:write"), none),
            ("joined by a comma", scope(json!("orders:read,orders:write")), none),
            ("an object", scope(json!({"orders:read": 1, "orders:write": 1})), none),
            ("as roles", token("ada").role("orders:read").role("orders:write"), none),
        ],
    );
}

#[test]
fn a_claim_equals_the_parameter_of_the_path() {
    let tenant = |value: Value| token("ada").claim("tenant", value);
    verdicts(
        "/tenants/acme/orders",
        &[
            ("its own", tenant(json!("acme")), ""),
            ("another", tenant(json!("globex")), "claim_mismatch"),
            ("none", token("ada"), "claim_mismatch"),
            ("in other case", tenant(json!("Acme")), "claim_mismatch"),
            ("one that begins alike", tenant(json!("acme2")), "claim_mismatch"),
            ("one that is longer in the path", tenant(json!("acm")), "claim_mismatch"),
            ("empty", tenant(json!("")), "claim_mismatch"),
            ("null", tenant(json!(null)), "claim_mismatch"),
            ("the template itself", tenant(json!("{tenant}")), "claim_mismatch"),
            ("an object", tenant(json!({"acme": 1})), "claim_mismatch"),
        ],
    );
}

#[test]
fn the_parameter_is_compared_as_the_upstream_reads_it() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    let ask = |path: &str, tenant: &str| {
        Request::get(path).bearer(token("ada").claim("tenant", json!(tenant))).to(gateway.http())
    };
    ask("/tenants/%61cme/orders", "acme").is(200);
    assert_eq!(upstream.only_request().target, "/tenants/acme/orders");
    ask("/tenants/caf%C3%A9/orders", "café").is(200);
    ask("/tenants/globex/../acme/orders", "globex").is_refusal(403, "claim_mismatch");
    ask("/tenants/acme%2f../orders", "acme").is_refusal(400, "bad_request");
    ask("/tenants/acme;x=globex/orders", "acme").is_refusal(403, "claim_mismatch");
    assert_eq!(upstream.requests().len(), 2);
}

#[test]
fn a_claim_equals_a_literal_in_value_and_type() {
    let staff = |department: Value, verified: Value, level: Value| {
        token("ada").claim("department", department).claim("verified", verified).claim("level", level)
    };
    let none = "claim_mismatch";
    verdicts(
        "/staff",
        &[
            ("all three", staff(json!("sales"), json!(true), json!(3)), ""),
            ("another text", staff(json!("sale"), json!(true), json!(3)), none),
            ("not verified", staff(json!("sales"), json!(false), json!(3)), none),
            ("another number", staff(json!("sales"), json!(true), json!(30)), none),
            ("a number as text", staff(json!("sales"), json!(true), json!("3")), none),
            ("a boolean as text", staff(json!("sales"), json!("true"), json!(3)), none),
            ("a boolean as a number", staff(json!("sales"), json!(1), json!(3)), none),
        ],
    );
}

#[test]
fn every_kind_of_check_of_a_route_must_pass() {
    let full = || token("ada").role("admin").scope("orders:read").claim("tenant", json!("acme"));
    verdicts(
        "/everything",
        &[
            ("all", full(), ""),
            ("no role", full().without("roles"), "insufficient_role"),
            ("no scope", full().without("scope"), "insufficient_scope"),
            ("no claim", full().without("tenant"), "claim_mismatch"),
        ],
    );
}

#[test]
fn one_token_gets_its_own_verdict_on_each_route_in_turn() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    let token = token("ada").role("clerk").scope("orders:read").sign();
    for _ in 0..2 {
        let ask = |path: &str| Request::get(path).bearer(&token).to(gateway.http());
        ask("/open").is(200);
        ask("/any").is(200);
        ask("/all").is_refusal(403, "insufficient_role");
        ask("/scopes").is_refusal(403, "insufficient_scope");
        ask("/tenants/acme/orders").is_refusal(403, "claim_mismatch");
        ask("/guests").is(200);
    }
    assert_eq!(upstream.requests().len(), 6);
}

#[test]
fn the_log_names_the_missing_role_and_the_answer_does_not() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    let answer = Request::get("/any").bearer(token("ada").role("guest")).to(gateway.http());
    answer.is_refusal(403, "insufficient_role");
    let reported = format!("{:?}{}", answer.headers, answer.text());
    for secret in ["admin", "clerk", "guest"] {
        assert!(!reported.contains(secret), "{secret} is not reported: {reported}");
    }
    let line = gateway.access_line(&answer);
    let detail = line["detail"].as_str().unwrap();
    for fact in ["admin", "clerk", "guest"] {
        assert!(detail.contains(fact), "{fact} is logged: {line}");
    }
    assert_eq!(line["subject"], "ada");
    assert_eq!(line["reason"], "insufficient_role");
}

#[test]
fn a_challenge_names_the_scopes_that_would_do() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    let challenge = |answer: &Answer| answer.header("www-authenticate").unwrap_or_default().to_owned();
    let answer = Request::get("/scopes").bearer(token("ada").scope("orders:read")).to(gateway.http());
    answer.is_refusal(403, "insufficient_scope");
    let text = challenge(&answer);
    assert!(text.contains("error=\"insufficient_scope\""), "{text}");
    assert!(text.contains("scope=\"orders:read orders:write\""), "{text}");
}

#[test]
fn roles_and_scopes_are_found_where_the_issuer_keeps_them() {
    let upstream = Upstream::start();
    let gateway = crate::kit::Portcullis::with(&format!(
        "[[issuer]]\nissuer = \"https://id.test/\"\naudience = [\"orders\"]\nalgorithms = [\"ES256\"]\n\
         jwks = \"jwks.json\"\nroles = \"realm_access.roles\"\nscopes = \"scp\"\n\
         [upstream.app]\nservers = [\"{upstream}\"]\n{ROUTES}",
    ))
    .start();
    let ask = |path: &str, token: Token| Request::get(path).bearer(token).to(gateway.http());
    ask("/any", token("ada").claim("realm_access", json!({"roles": ["clerk"]}))).is(200);
    assert_eq!(upstream.only_request().header("x-auth-roles"), Some("clerk"));
    ask("/any", token("ada").role("clerk")).is_refusal(403, "insufficient_role");
    ask("/any", token("ada").claim("realm_access.roles", json!(["clerk"])))
        .is_refusal(403, "insufficient_role");
    ask("/scopes", token("ada").claim("scp", json!("orders:read orders:write"))).is(200);
    ask("/scopes", token("ada").scope("orders:read").scope("orders:write"))
        .is_refusal(403, "insufficient_scope");
}
