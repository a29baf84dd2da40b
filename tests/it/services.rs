//! Services: tokens of their own, what a token is worth, and revoking one. Refusals are those of RFC 6749.

use crate::kit::account::{self, AUTHORITY, Pair, claims, login, refresh};
use crate::kit::{Answer, ISSUER, Portcullis, Request, token};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::net::SocketAddr;

const CLIENTS: &str = "
[authority.client.billing]
secret     = \"billing-secret-billing-secret-32\"
roles      = [\"reader\"]
scopes     = [\"orders:read\", \"orders:write\"]
introspect = true

[authority.client.reports]
secret = \"reports%secret+reports:secret 32\"

[upstream.echo]
builtin = \"echo\"

[[route]]
path     = \"/orders\"
upstream = \"echo\"
roles    = [\"reader\"]
scopes   = [\"orders:read\"]

[[route]]
path     = \"/any\"
upstream = \"echo\"
";
const BILLING: (&str, &str) = ("billing", "billing-secret-billing-secret-32");
const REPORTS: (&str, &str) = ("reports", "reports%secret+reports:secret 32");

fn start() -> Portcullis {
    Portcullis::with(&format!("{ISSUER}{AUTHORITY}{CLIENTS}")).start()
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            },
        )
        .collect()
}

fn form(path: &str, fields: &[(&str, &str)]) -> Request {
    let body: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    Request::post(path, body.join("&")).header("content-type", "application/x-www-form-urlencoded")
}

fn by(client: (&str, &str), path: &str, fields: &[(&str, &str)]) -> Request {
    let credential = STANDARD.encode(format!("{}:{}", encoded(client.0), encoded(client.1)));
    form(path, fields).header("authorization", &format!("Basic {credential}"))
}

const GRANT: (&str, &str) = ("grant_type", "client_credentials");

#[track_caller]
fn granted(answer: &Answer) -> String {
    let body = answer.is(200).json();
    assert_eq!((&body["token_type"], &body["refresh_token"]), (&json!("Bearer"), &Value::Null));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    body["access_token"].as_str().unwrap().to_owned()
}

#[track_caller]
fn is_error(answer: &Answer, status: u16, error: &str) {
    assert_eq!((answer.status, &answer.json()["error"]), (status, &json!(error)), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("www-authenticate").is_some(), status == 401);
}

fn introspected(address: SocketAddr, token: &str) -> Value {
    by(BILLING, "/auth/introspect", &[("token", token)]).to(address).is(200).json()
}

#[test]
fn a_service_gets_a_token_of_its_own_by_basic_and_by_its_body() {
    let gateway = start();
    let address = gateway.http();
    let post = [GRANT, ("client_id", BILLING.0), ("client_secret", BILLING.1)];
    for answer in [by(BILLING, "/auth/token", &[GRANT]).to(address), form("/auth/token", &post).to(address)] {
        let token = granted(&answer);
        assert_eq!(answer.json()["scope"], "orders:read orders:write");
        let claims = claims(&token);
        assert_eq!((&claims["sub"], &claims["client_id"]), (&json!("billing"), &json!("billing")));
        assert_eq!((&claims["roles"], claims.get("sid")), (&json!(["reader"]), None));
        let echo = Request::get("/orders").bearer(&token).to(address).is(200).json();
        assert_eq!(echo["headers"]["x-auth-subject"], "billing");
    }
    // A secret with characters that Basic and forms write otherwise.
    granted(&by(REPORTS, "/auth/token", &[GRANT]).to(address));
    let less = by(BILLING, "/auth/token", &[GRANT, ("scope", "orders:write")]).to(address);
    Request::get("/orders").bearer(granted(&less)).to(address).is_refusal(403, "insufficient_scope");
}

#[test]
fn what_a_service_may_not_have_is_refused_in_the_words_of_oauth() {
    let gateway = start();
    let address = gateway.http();
    let wrong = (BILLING.0, "wrong");
    for request in [
        by(wrong, "/auth/token", &[GRANT]),
        by(("nobody", BILLING.1), "/auth/token", &[GRANT]),
        by((BILLING.0, REPORTS.1), "/auth/token", &[GRANT]),
        form("/auth/token", &[GRANT]),
        form("/auth/token", &[GRANT, ("client_id", "billing"), ("client_secret", "")]),
        form("/auth/token", &[GRANT]).header("authorization", "Bearer x"),
        form("/auth/token", &[GRANT]).header("authorization", "Basic !"),
        by(wrong, "/auth/introspect", &[("token", "x")]),
        by(wrong, "/auth/revoke", &[("token", "x")]),
    ] {
        is_error(&request.to(address), 401, "invalid_client");
    }
    let both = [GRANT, ("client_id", BILLING.0), ("client_secret", BILLING.1)];
    for (request, status, error) in [
        (by(BILLING, "/auth/token", &both), 400, "invalid_request"),
        (by(BILLING, "/auth/token", &[GRANT, ("client_id", "reports")]), 400, "invalid_request"),
        (by(BILLING, "/auth/token", &[]), 400, "invalid_request"),
        (by(BILLING, "/auth/token", &[GRANT, GRANT]), 400, "invalid_request"),
        (by(BILLING, "/auth/token", &[("grant_type", "password")]), 400, "unsupported_grant_type"),
        (by(BILLING, "/auth/token", &[GRANT, ("scope", "admin")]), 400, "invalid_scope"),
        (by(BILLING, "/auth/token", &[GRANT, ("scope", "orders:read admin")]), 400, "invalid_scope"),
        (by(REPORTS, "/auth/token", &[GRANT, ("scope", "orders:read")]), 400, "invalid_scope"),
        (by(REPORTS, "/auth/introspect", &[("token", "x")]), 403, "unauthorized_client"),
        (by(BILLING, "/auth/introspect", &[]), 400, "invalid_request"),
        (Request::post("/auth/token", "x").header("content-type", "text/plain"), 400, "invalid_request"),
    ] {
        is_error(&request.to(address), status, error);
    }
    let metrics = Request::get("/metrics").to(gateway.admin()).text();
    assert!(
        metrics
            .contains("route=\"auth:token\",outcome=\"refused\",status=\"4xx\",reason=\"invalid_scope\"} 3"),
        "{metrics}"
    );
    let log = gateway.stop();
    assert!(!log.contains(BILLING.1) && !log.contains("eyJ"), "{log}");
}

#[test]
fn a_service_is_told_what_a_token_is_worth_and_of_a_worthless_one_nothing() {
    let gateway = start();
    let address = gateway.http();
    account::add(gateway.dir(), "ada", &["reader"]);
    let pair = login(address, "ada");
    let told = introspected(address, &pair.access);
    assert_eq!(
        (&told["active"], &told["sub"], &told["roles"]),
        (&json!(true), &json!("ada"), &json!(["reader"]))
    );
    assert_eq!(told["sid"], pair.claims()["sid"]);
    let told = introspected(address, &pair.refresh);
    assert_eq!((&told["active"], &told["token_type"]), (&json!(true), &json!("refresh_token")));
    assert_eq!(introspected(address, &token("eve").to_string())["sub"], "eve", "another issuer's");

    let next = refresh(address, &pair.refresh);
    let forged = format!("{}A", &pair.access[..pair.access.len() - 1]);
    let inactive = json!({ "active": false });
    for worthless in [
        &pair.refresh,
        &forged,
        "x",
        "a.b.c",
        &format!("pcr_{}", "A".repeat(43)),
        &token("eve").expired().to_string(),
    ] {
        assert_eq!(introspected(address, worthless), inactive, "{worthless}");
    }
    Request::post("/auth/logout", "").bearer(&next.access).to(address).is(204);
    for worthless in [&pair.access, &next.access, &next.refresh] {
        assert_eq!(introspected(address, worthless), inactive, "after the logout");
    }
}

#[test]
fn a_token_that_is_revoked_is_refused_at_once_and_after_a_restart() {
    let mut gateway = start();
    let address = gateway.http();
    account::add(gateway.dir(), "ada", &[]);
    let (one, two) = (login(address, "ada"), login(address, "ada"));
    let own = granted(&by(BILLING, "/auth/token", &[GRANT]).to(address));
    let others = granted(&by(REPORTS, "/auth/token", &[GRANT]).to(address));
    let revoke = |client, token: &str| by(client, "/auth/revoke", &[("token", token)]).to(address);
    let ask = |address, token: &str| Request::get("/any").bearer(token).to(address);

    revoke(BILLING, &one.access).is(200);
    ask(address, &one.access).is_refusal(401, "revoked_token");
    let next = refresh(address, &one.refresh);
    ask(address, &next.access).is(200);
    revoke(BILLING, &two.refresh).is(200);
    ask(address, &two.access).is_refusal(401, "revoked_token");
    revoke(BILLING, &own).is(200);
    ask(address, &own).is_refusal(401, "revoked_token");
    is_error(&revoke(BILLING, &others), 403, "unauthorized_client");
    ask(address, &others).is(200);
    for nothing in ["x", "pcr_x", &own, &token("eve").to_string()] {
        revoke(BILLING, nothing).is(200);
    }
    ask(address, &token("eve").to_string()).is(200);

    gateway.signal("KILL");
    let _ = gateway.exit_code();
    let gateway =
        Portcullis::with(&format!("{ISSUER}{AUTHORITY}{CLIENTS}")).within(gateway.dir().clone()).start();
    for token in [&one.access, &two.access, &own] {
        ask(gateway.http(), token).is_refusal(401, "revoked_token");
    }
    ask(gateway.http(), &next.access).is(200);
}

#[test]
fn keys_and_metadata_are_there_for_everybody() {
    let gateway = start();
    let keys = Request::get("/.well-known/jwks.json").to(gateway.http());
    assert_eq!(keys.header("cache-control"), Some("public, max-age=300"));
    let keys = keys.is(200).json();
    let key = &keys["keys"][0];
    assert_eq!((&key["alg"], &key["use"], &key["d"]), (&json!("ES256"), &json!("sig"), &Value::Null));
    let minted = crate::kit::portcullis::command(gateway.dir(), &["token", "mint"]).stdout;
    let header =
        base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(minted.split('.').next().unwrap()).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    assert_eq!(header["kid"], key["kid"]);

    let metadata = Request::get("/.well-known/oauth-authorization-server").to(gateway.http()).is(200).json();
    assert_eq!(metadata["issuer"], "https://localhost:8443");
    for (name, path) in [
        ("jwks_uri", "/.well-known/jwks.json"),
        ("token_endpoint", "/auth/token"),
        ("revocation_endpoint", "/auth/revoke"),
        ("introspection_endpoint", "/auth/introspect"),
    ] {
        assert_eq!(metadata[name], format!("https://localhost:8443{path}"));
    }
}

#[test]
fn an_issuer_with_a_path_has_its_metadata_where_clients_look() {
    let authority = AUTHORITY.replace("https://localhost:8443", "https://id.example.com/tenant");
    let gateway = Portcullis::with(&format!("{authority}{CLIENTS}")).start();
    let at = "/.well-known/oauth-authorization-server";
    let metadata = Request::get(&format!("{at}/tenant")).to(gateway.http()).is(200).json();
    assert_eq!(metadata["jwks_uri"], "https://id.example.com/.well-known/jwks.json");
    Request::get(at).to(gateway.http()).is_refusal(404, "no_route");
}

#[test]
fn each_kind_of_token_proves_no_service() {
    let gateway = start();
    let address = gateway.http();
    account::add(gateway.dir(), "ada", &[]);
    let Pair { access, refresh } = login(address, "ada");
    for secret in [&access, &refresh] {
        is_error(&by((BILLING.0, secret), "/auth/token", &[GRANT]).to(address), 401, "invalid_client");
        let request = form("/auth/introspect", &[("token", &access)]).bearer(secret);
        is_error(&request.to(address), 401, "invalid_client");
    }
}
