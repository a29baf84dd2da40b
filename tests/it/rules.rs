//! Shared rules and further checks. Each test compares an allowed caller with callers that differ in one fact.

use crate::gateway;
use crate::kit::dir::Dir;
use crate::kit::forge::Token;
use crate::kit::portcullis::{command, write_policy};
use crate::kit::{Request, Upstream, token};
use serde_json::{Value, json};

const SECOND: &str = r#"
[[issuer]]
issuer     = "https://second.example.com/"
audience   = ["orders"]
algorithms = ["ES256"]
jwks       = "jwks.json"
"#;

const ROUTES: &str = r#"
[rule.staff]
roles     = ["clerk", "admin"]
not_roles = ["suspended"]

[rule.paying]
claims = { plan = ["gold", "silver"] }

[rule.own_tenant]
claims = { tenant = "{tenant}" }

[[route]]
path     = "/staff"
upstream = "app"
rule     = "staff"

[[route]]
path     = "/staff/{tenant}"
upstream = "app"
rule     = ["staff", "paying", "own_tenant"]
scopes   = ["orders:read"]

[[route]]
path      = "/not"
upstream  = "app"
not_roles = ["suspended", "left"]

[[route]]
path       = "/any-scope"
upstream   = "app"
any_scopes = ["orders:read", "orders:admin"]

[[route]]
path     = "/second"
upstream = "app"
issuers  = ["https://second.example.com/"]

[[route]]
path     = "/host"
host     = "*.shop.example.com"
upstream = "app"
claims   = { tenant = "{host:*}" }

[[route]]
path     = "/site"
upstream = "app"
claims   = { site = "{host:name}" }

[[route]]
path     = "/header"
upstream = "app"
claims   = { tenant = "{header:X-Tenant}" }
"#;

/// Sends a request with each token. Compares the code of the refusal (empty if the request passes), and the number of
/// requests at the upstream.
#[track_caller]
fn verdicts(ask: impl Fn(&str) -> Request, table: &[(&str, Token, &str)]) {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &format!("{SECOND}{ROUTES}"));
    for (name, token, code) in table {
        let before = upstream.requests().len();
        let answer = ask(name).bearer(token).to(gateway.http());
        assert_eq!(answer.code(), *code, "{name}: {answer:#?}");
        assert_eq!(upstream.requests().len() - before, usize::from(code.is_empty()), "{name}");
    }
}

#[test]
fn a_rule_and_the_routes_own_keys_must_all_be_met() {
    let role = "insufficient_role";
    verdicts(
        |_| Request::get("/staff"),
        &[
            ("a clerk", token("ada").role("clerk"), ""),
            ("an admin", token("ada").role("admin"), ""),
            ("nobody's role", token("ada"), role),
            ("a suspended clerk", token("ada").role("clerk").role("suspended"), role),
        ],
    );
    let all = || {
        let token = token("ada").role("clerk").scope("orders:read");
        token.claim("plan", json!("gold")).claim("tenant", json!("acme"))
    };
    verdicts(
        |_| Request::get("/staff/acme"),
        &[
            ("everything", all(), ""),
            ("the other value", all().claim("plan", json!("silver")), ""),
            ("no value", all().without("plan"), "claim_mismatch"),
            ("another value", all().claim("plan", json!("bronze")), "claim_mismatch"),
            ("both values in one text", all().claim("plan", json!("gold silver")), "claim_mismatch"),
            ("another tenant", all().claim("tenant", json!("other")), "claim_mismatch"),
            ("another role", all().claim("roles", json!(["guest"])), role),
            ("suspended", all().role("suspended"), role),
            ("no scope", all().without("scope"), "insufficient_scope"),
        ],
    );
}

#[test]
fn a_challenge_names_the_scopes_of_all_rules() {
    let upstream = Upstream::start();
    let rule = "[rule.read]\nscopes = [\"orders:read\", \"base\"]\n";
    let route = "[[route]]\npath = \"/\"\nupstream = \"app\"\nrule = \"read\"\nscopes = [\"orders:write\", \"base\"]\n";
    let gateway = gateway(&upstream, &format!("{rule}{route}"));
    for scopes in ["", "orders:read base", "orders:write base"] {
        let answer = Request::get("/").bearer(token("ada").claim("scope", json!(scopes))).to(gateway.http());
        let challenge =
            answer.is_refusal(403, "insufficient_scope").header("www-authenticate").unwrap_or_default();
        assert!(challenge.contains("scope=\"orders:read base orders:write\""), "{scopes}: {challenge}");
    }
    let all = token("ada").claim("scope", json!("base orders:write orders:read"));
    Request::get("/").bearer(all).to(gateway.http()).is(200);
}

#[test]
fn an_excluded_role_is_refused_and_so_is_what_may_hide_one() {
    let none = "insufficient_role";
    let roles = |value: Value| token("ada").claim("roles", value);
    verdicts(
        |_| Request::get("/not"),
        &[
            ("another role", token("ada").role("clerk"), ""),
            ("no role", token("ada"), ""),
            ("in other case", token("ada").role("Suspended"), ""),
            ("the first", token("ada").role("suspended"), none),
            ("the second among others", token("ada").role("clerk").role("left"), none),
            ("as text", roles(json!("left")), none),
            ("among words of a text", roles(json!("clerk left")), none),
            ("any words of a text", roles(json!("clerk admin")), none),
            ("a list that is not all text", roles(json!(["clerk", ["left"]])), none),
            ("a number", roles(json!(7)), none),
        ],
    );
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &format!("{SECOND}{ROUTES}"));
    Request::get("/not").to(gateway.http()).is_refusal(401, "missing_token");
}

#[test]
fn one_of_any_scopes_is_enough() {
    let scope = |text: &str| token("ada").claim("scope", json!(text));
    let none = "insufficient_scope";
    verdicts(
        |_| Request::get("/any-scope"),
        &[
            ("the first", scope("orders:read"), ""),
            ("the second", scope("orders:admin"), ""),
            ("both", scope("orders:admin orders:read"), ""),
            ("none", token("ada"), none),
            ("another", scope("orders:write"), none),
            ("in other case", scope("Orders:read"), none),
        ],
    );
}

#[test]
fn a_route_for_one_issuer_refuses_a_good_token_of_another() {
    let second = || token("ada").claim("iss", json!("https://second.example.com/"));
    verdicts(
        |_| Request::get("/second"),
        &[
            ("the issuer", second(), ""),
            ("the other", token("ada"), "unknown_issuer"),
            (
                "without its slash",
                token("ada").claim("iss", json!("https://second.example.com")),
                "unknown_issuer",
            ),
        ],
    );
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &format!("{SECOND}{ROUTES}"));
    let answer = Request::get("/second").bearer(token("ada")).to(gateway.http());
    answer.is_refusal(401, "unknown_issuer");
    let detail = gateway.access_line(&answer)["detail"].as_str().unwrap_or_default().to_owned();
    assert!(detail.contains("a token of https://second.example.com/; the token's issuer:"), "{detail}");
}

#[test]
fn a_claim_is_compared_with_the_host_and_with_one_label_of_it() {
    let mismatch = "claim_mismatch";
    let tenant = |text: &str| token("ada").claim("tenant", json!(text));
    verdicts(
        |host| Request::get("/host").host(host),
        &[
            ("acme.shop.example.com", tenant("acme"), ""),
            ("ACME.shop.example.com", tenant("acme"), ""),
            ("acme.shop.example.com.", tenant("acme"), ""),
            ("acme.shop.example.com:8443", tenant("acme"), ""),
            ("other.shop.example.com", tenant("acme"), mismatch),
            ("acme.shop.example.com", tenant("ACME"), mismatch),
            ("evil.acme.shop.example.com", tenant("evil"), mismatch),
            ("evil.acme.shop.example.com", tenant("acme"), mismatch),
            ("evil.acme.shop.example.com", tenant("evil.acme"), mismatch),
            ("acme.shop.example.com", token("ada"), mismatch),
        ],
    );
    let site = |text: &str| token("ada").claim("site", json!(text));
    verdicts(
        |host| Request::get("/site").host(host),
        &[
            ("a.example.com", site("a.example.com"), ""),
            ("b.example.com", site("a.example.com"), mismatch),
            ("a.example.com:80", site("a.example.com:80"), mismatch),
        ],
    );
}

#[test]
fn a_claim_is_compared_with_a_header_that_has_one_reading() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &format!("{SECOND}{ROUTES}"));
    let tenant = || token("ada").claim("tenant", json!("acme"));
    let ask = |fields: &[(&str, &str)]| {
        let request = Request::get("/header").bearer(tenant());
        let request = fields.iter().fold(request, |request, (name, value)| request.header(name, value));
        request.to(gateway.http())
    };
    for fields in [&[("X-Tenant", "acme")][..], &[("x-tenant", "acme"), ("Connection", "keep-alive")]] {
        ask(fields).is(200);
        let seen = upstream.last_request();
        assert_eq!(seen.header("x-tenant"), Some("acme"), "the upstream sees what was compared");
    }
    let count = upstream.requests().len();
    for (fields, why) in [
        (&[][..], "does not have the header"),
        (&[("X-Tenant", "other")], "the header x-tenant"),
        (&[("X-Tenant", "acme"), ("X-Tenant", "acme")], "twice"),
        (&[("X-Tenant", "acme"), ("X-Tenant", "other")], "twice"),
        (&[("X-Tenant", "acme"), ("X_Tenant", "other")], "in another spelling"),
        (&[("X_Tenant", "acme")], "in another spelling"),
        (&[("X-Tenant", "acme"), ("Connection", "X-Tenant")], "named in Connection"),
        (&[("X-Tenant", "acme, other")], "not a single word"),
        (&[("X-Tenant", "acme;a=b")], "not a single word"),
        (&[("X-Tenant", "")], "not a single word"),
    ] {
        let answer = ask(fields);
        answer.is_refusal(403, "claim_mismatch");
        let detail = gateway.access_line(&answer)["detail"].as_str().unwrap_or_default().to_owned();
        assert!(detail.contains(why), "{fields:?}: {detail}");
    }
    assert_eq!(upstream.requests().len(), count, "none of them went on");
}

#[test]
fn a_reload_changes_a_shared_rule_for_every_route_that_names_it() {
    let upstream = Upstream::start();
    let tables = |role: &str| {
        let rule = format!("[rule.staff]\nroles = [\"{role}\"]\n");
        let route =
            |path: &str| format!("[[route]]\npath = \"{path}\"\nupstream = \"app\"\nrule = \"staff\"\n");
        crate::policy(&upstream, &(rule + &route("/a") + &route("/b")))
    };
    let gateway = crate::kit::Portcullis::with(&tables("clerk")).start();
    let ask = |path: &str| Request::get(path).bearer(token("ada").role("clerk")).to(gateway.http());
    ask("/a").is(200);
    ask("/b").is(200);
    write_policy(gateway.dir(), &tables("admin"));
    crate::reload::reload(&gateway);
    ask("/a").is_refusal(403, "insufficient_role");
    ask("/b").is_refusal(403, "insufficient_role");
}

#[test]
fn explain_and_the_matrix_show_the_checks_of_a_rule() {
    let dir = Dir::new();
    crate::kit::forge::write_keys(&dir);
    let upstream = Upstream::start();
    write_policy(&dir, &crate::policy(&upstream, &format!("{SECOND}{ROUTES}")));
    let claims = json!({ "sub": "ada", "roles": ["clerk", "suspended"] }).to_string();
    let explained = command(&dir, &["explain", "GET", "https://h/staff", "--claims", &claims]);
    let text = explained.stdout;
    assert!(text.contains("passed    any role of clerk, admin"), "{text}");
    assert!(text.contains("REFUSED   none of the roles suspended: insufficient_role"), "{text}");
    let json =
        command(&dir, &["explain", "GET", "https://h/second", "--claims", &claims, "--format", "json"]);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    let checks = json["checks"].as_array().unwrap();
    assert_eq!(checks[1]["asks"], "a token of https://second.example.com/");
    assert_eq!(checks[1]["outcome"], "unknown_issuer");
    let matrix = command(&dir, &["routes", "--matrix"]).stdout;
    let line = |path: &str| matrix.lines().find(|line| line.contains(path)).unwrap_or_default().to_owned();
    let header = line("suspended");
    let column = |name: &str| header.find(name).unwrap();
    let row = line("/not ");
    assert!(row[column("suspended")..].starts_with("no"), "{matrix}");
    assert!(row[column("clerk")..].starts_with("yes"), "{matrix}");
}
