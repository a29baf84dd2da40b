//! Services: their own tokens, introspection, and revocation. Refusals follow RFC 6749.

use crate::kit::account::{self, AUTHORITY, Pair, claims, login, refresh};
use crate::kit::dir::Dir;
use crate::kit::forge::{base64url, now};
use crate::kit::packages::installed;
use crate::kit::portcullis::command;
use crate::kit::prover::Prover;
use crate::kit::{Answer, ISSUER, Portcullis, Request, eventually, token};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sqlx::{AnyConnection, Connection, Executor};
use std::net::SocketAddr;
use std::process::Command;

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
    assert_eq!(answer.header("pragma"), Some("no-cache"));
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
    // Basic and forms encode some characters of this secret differently.
    granted(&by(REPORTS, "/auth/token", &[GRANT]).to(address));
    let less = by(BILLING, "/auth/token", &[GRANT, ("scope", "orders:write")]).to(address);
    Request::get("/orders").bearer(granted(&less)).to(address).is_refusal(403, "insufficient_scope");
}

#[test]
fn a_refused_service_gets_an_error_code_of_oauth() {
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
fn introspection_describes_an_active_token_and_says_nothing_about_an_inactive_one() {
    let gateway = start();
    let address = gateway.http();
    account::add(gateway.dir(), "ada", &["reader"]);
    let pair = login(address, "ada");
    let reported = introspected(address, &pair.access);
    assert_eq!(
        (&reported["active"], &reported["sub"], &reported["roles"]),
        (&json!(true), &json!("ada"), &json!(["reader"]))
    );
    assert_eq!(reported["sid"], pair.claims()["sid"]);
    let reported = introspected(address, &pair.refresh);
    assert_eq!((&reported["active"], &reported["token_type"]), (&json!(true), &json!("refresh_token")));
    assert_eq!(introspected(address, &token("eve").to_string())["sub"], "eve", "another issuer's");
    // RFC 9449 section 6.2: a service must not mistake a bound token for a bearer token.
    let confirmation = Prover::new().confirmation();
    let bound = introspected(address, &token("eve").claim("cnf", confirmation.clone()).to_string());
    assert_eq!((&bound["token_type"], &bound["cnf"]), (&json!("DPoP"), &confirmation));
    // RFC 8705 section 3: a token that is bound to a certificate is a bearer token.
    let confirmation = json!({ "x5t#S256": "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0" });
    let bound = introspected(address, &token("eve").claim("cnf", confirmation.clone()).to_string());
    assert_eq!((&bound["token_type"], &bound["cnf"]), (&json!("Bearer"), &confirmation));

    let next = refresh(address, &pair.refresh);
    // Changes the first character of the signature, because the last character has only two significant bits.
    let (claimed, signature) = pair.access.rsplit_once('.').unwrap();
    let flipped = if signature.starts_with('A') { "B" } else { "A" };
    let forged = format!("{claimed}.{flipped}{}", &signature[1..]);
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
fn a_token_that_a_stranger_asks_about_is_not_verified() {
    let gateway = start();
    let address = gateway.http();
    let stranger = ("billing", "another-secret-another-secret-32");
    let verified = || {
        let sample = "portcullis_tokens_verified_total{issuer=\"https://id.test/\",algorithm=\"ES256\"}";
        gateway.metric(sample).unwrap_or_default()
    };
    let eve = token("eve").to_string();
    is_error(&by(stranger, "/auth/introspect", &[("token", &eve)]).to(address), 401, "invalid_client");
    assert_eq!(verified(), 0);
    assert_eq!(introspected(address, &eve)["active"], true);
    assert_eq!(verified(), 1);
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

/// Clocks of gateways differ. Another gateway may accept a token that this one does not accept yet, or no longer.
#[test]
fn a_token_is_revoked_also_where_it_is_not_valid_now() {
    let secret = "an-hmac-secret-of-the-authority!";
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let with_secret = format!("algorithm = \"HS256\"\nsecret = \"{secret}\"\n");
    let gateway = Portcullis::with(&format!("{ISSUER}{AUTHORITY}{with_secret}{CLIENTS}")).start();
    let address = gateway.http();
    let own = granted(&by(BILLING, "/auth/token", &[GRANT]).to(address));
    let header: Value = {
        let bytes = URL_SAFE_NO_PAD.decode(own.split('.').next().unwrap()).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    let at = |seconds: i64| json!(now() + seconds);
    let token = |id: &str, begins: i64, ends: Value| {
        let mut token = claims(&own);
        for (name, value) in [("jti", json!(id)), ("iat", json!(now() + begins)), ("exp", ends)] {
            token[name] = value;
        }
        let message = format!("{}.{}", base64url(header.to_string()), base64url(token.to_string()));
        format!("{message}.{}", base64url(hmac::sign(&key, message.as_bytes())))
    };
    let revoke = |client, token: &str| by(client, "/auth/revoke", &[("token", token)]).to(address);
    let ask = |token: &str| Request::get("/any").bearer(token).to(address);
    let revocations = || gateway.metric("portcullis_revocations_total{by=\"token\"}").unwrap();

    // The clocks of gateways differ by a moment.
    ask(&token("ahead", 3, at(60))).is(200);
    let early = token("early", 9, at(60));
    ask(&early).is_refusal(401, "token_not_yet_valid");
    revoke(BILLING, &early).is(200);
    eventually("the token's time has come", || ask(&early).code() != "token_not_yet_valid");
    ask(&early).is_refusal(401, "revoked_token");

    // A date may have fractions of a second (RFC 7519 section 2).
    let long_ago = json!(now() as f64 - 86_500.5);
    let (over, long_over) = (token("over", -60, at(-30)), token("long_over", -90_000, long_ago));
    ask(&over).is_refusal(401, "expired_token");
    is_error(&revoke(REPORTS, &over), 403, "unauthorized_client");
    revoke(BILLING, &over).is(200);
    assert_eq!(revocations(), 2);
    // No gateway can accept the first one, and the others are revoked already.
    for token in [&long_over, &over, &early] {
        revoke(BILLING, token).is(200);
    }
    assert_eq!(revocations(), 2);
}

/// A gateway that cannot read the store refuses the authority's tokens. When it can, it accepts them again.
#[test]
fn without_the_store_no_revocation_is_confirmed_and_no_token_is_called_inactive() {
    let gateway = start();
    let address = gateway.http();
    let own = granted(&by(BILLING, "/auth/token", &[GRANT]).to(address));
    let revoke = || by(BILLING, "/auth/revoke", &[("token", &own)]).to(address);
    let ask = || Request::get("/any").bearer(&own).to(address);
    let sql = |statement: &'static str| {
        sqlx::any::install_default_drivers();
        let file = gateway.dir().path().join("state/portcullis.db");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut store = AnyConnection::connect(&format!("sqlite:{}", file.display())).await.unwrap();
            store.execute("PRAGMA busy_timeout = 5000").await.unwrap();
            store.execute(statement).await.unwrap();
        });
    };
    sql("ALTER TABLE marks RENAME TO hidden");
    eventually("the gateway knows that it misses revocations", || ask().status == 503);
    is_error(&revoke(), 503, "temporarily_unavailable");
    let introspect = || by(BILLING, "/auth/introspect", &[("token", &own)]).to(address);
    is_error(&introspect(), 503, "temporarily_unavailable");
    sql("ALTER TABLE hidden RENAME TO marks");
    eventually("the gateway knows all revocations", || ask().status == 200);
    assert_eq!(introspect().is(200).json()["active"], true);
    revoke().is(200);
    ask().is_refusal(401, "revoked_token");
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
    // RFC 8414 sections 2 (required member) and 3.2 (no empty list); Authlib requires both.
    assert_eq!(metadata["response_types_supported"], json!(["none"]));
    let empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
    assert!(!metadata.as_object().unwrap().values().any(empty), "{metadata}");
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

#[test]
fn a_client_library_finds_what_it_expects() {
    let gateway = start();
    let (scripts, folder) = installed("services");
    for way in ["client_secret_basic", "client_secret_post"] {
        let ran = Command::new(folder.join("venv/bin/python"))
            .arg(scripts.join("client.py"))
            .args([&format!("http://{}", gateway.http()), BILLING.0, BILLING.1, way])
            .output()
            .unwrap();
        assert!(ran.status.success(), "{way}: {}", String::from_utf8_lossy(&ran.stderr));
    }
}

#[test]
fn a_client_library_gets_and_uses_bound_tokens() {
    let nonces = "\n[dpop]\nnonce = \"required\"\n";
    let gateway = Portcullis::with(&format!("{ISSUER}{AUTHORITY}{CLIENTS}{nonces}")).start();
    let ran = Command::new("node")
        .arg(installed("services").1.join("bound.mjs"))
        .args([&format!("http://{}", gateway.http()), BILLING.0, BILLING.1])
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn a_question_that_cannot_be_read_is_refused_in_the_words_of_oauth() {
    let gateway = start();
    let address = gateway.http();
    let json = |path: &str, body: &str| Request::post(path, body).header("content-type", "application/json");
    let secret = format!("\"client_id\":\"billing\",\"client_secret\":\"{}\"", BILLING.1);
    let token = ("token", "x");
    for request in [
        json("/auth/token", &format!("{{{secret},\"grant_type\":1}}")),
        json(
            "/auth/token",
            &format!("{{{secret},\"grant_type\":\"client_credentials\",\"scope\":[\"orders:read\"]}}"),
        ),
        json("/auth/introspect", &format!("{{{secret},\"token\":[\"x\"]}}")),
        json("/auth/revoke", &format!("{{{secret},\"token\":null}}")),
        json("/auth/token", "{\"client_id\":\"billing\",\"client_secret\":7}"),
        json("/auth/token", "{\"client_id\":"),
        by(BILLING, "/auth/introspect", &[token, token]),
        by(BILLING, "/auth/introspect", &[token, ("token_type_hint", "a"), ("token_type_hint", "b")]),
        by(BILLING, "/auth/revoke", &[token, token]),
        by(BILLING, "/auth/revoke", &[]),
        by(BILLING, "/auth/token", &[GRANT, ("client_id", "billing"), ("client_id", "billing")]),
        by(BILLING, "/auth/token", &[GRANT]).header("authorization", "Basic eDp4"),
        Request::post("/auth/token", "grant_type=%zz")
            .header("content-type", "application/x-www-form-urlencoded"),
    ] {
        is_error(&request.to(address), 400, "invalid_request");
    }
    // A secret in a URL appears in logs, so it does not authenticate the service (RFC 6749 section 2.3.1).
    let query = format!("/auth/token?client_id=billing&client_secret={}", BILLING.1);
    is_error(&form(&query, &[GRANT]).to(address), 401, "invalid_client");
    let huge = "x".repeat(64 * 1024);
    is_error(&by(BILLING, "/auth/introspect", &[("token", &huge)]).to(address), 413, "invalid_request");
    let large = "x".repeat(60 * 1024);
    let reported = by(BILLING, "/auth/introspect", &[("token", &large), ("token_type_hint", "anything")]);
    assert_eq!(reported.to(address).is(200).json(), json!({ "active": false }));
    Request::get("/auth/token").to(address).is_refusal(405, "method_not_allowed");
}

/// Some clients take a body without `error` for the token, unless the status is 500 or above.
#[test]
fn a_service_over_its_limit_gets_an_error_of_oauth() {
    let limited = format!(
        "{ISSUER}{AUTHORITY}limits = {{ token = [\"one\"] }}\n{CLIENTS}
         [rate_limit.one]\nby = \"client_ip\"\nrate = \"1/h\"\n"
    );
    let gateway = Portcullis::with(&limited).start();
    granted(&by(BILLING, "/auth/token", &[GRANT]).to(gateway.http()));
    let refused = by(BILLING, "/auth/token", &[GRANT]).to(gateway.http());
    is_error(&refused, 429, "temporarily_unavailable");
    let body = refused.json();
    assert!(body["error_description"].is_string() && body.get("access_token").is_none(), "{body}");
    let wait = refused.header("retry-after").and_then(|wait| wait.parse::<u32>().ok());
    assert!(wait.is_some_and(|wait| (3500..=3600).contains(&wait)), "{refused:?}");
    assert!(refused.header("ratelimit").is_some_and(|state| state.contains("r=0")), "{refused:?}");
    eventually("the refusal is counted", || {
        gateway.metric("portcullis_rate_limited_total{limit=\"one\"}") == Some(1)
    });
}

#[test]
fn a_service_is_not_the_account_that_is_named_like_it() {
    // The account existed before the service.
    let gateway =
        Portcullis::with(&format!("{AUTHORITY}{CLIENTS}").replace("client.billing", "client.other")).start();
    account::add(gateway.dir(), "billing", &[]);
    let dir = gateway.dir().clone();
    gateway.stop();
    let gateway = Portcullis::with(&format!("{ISSUER}{AUTHORITY}{CLIENTS}")).within(dir).start();
    let address = gateway.http();
    let person = login(address, "billing");
    let service = granted(&by(BILLING, "/auth/token", &[GRANT]).to(address));
    let sid = person.claims()["sid"].as_str().unwrap().to_owned();
    for request in [
        Request::get("/auth/sessions"),
        Request::new("DELETE", &format!("/auth/sessions/{sid}")),
        Request::post("/auth/logout-all", ""),
    ] {
        request.bearer(&service).to(address).is_refusal(403, "unauthorized_client");
    }
    assert_eq!(Request::get("/auth/me").bearer(&service).to(address).is(200).json()["sub"], "billing");
    let sessions = Request::get("/auth/sessions").bearer(&person.access).to(address).is(200).json();
    assert_eq!(sessions["sessions"].as_array().unwrap().len(), 1);

    Request::post("/auth/logout-all", "").bearer(&person.access).to(address).is(204);
    Request::get("/any").bearer(&person.access).to(address).is_refusal(401, "revoked_token");
    Request::get("/any").bearer(&service).to(address).is(200);
    Request::post("/auth/logout", "").bearer(&service).to(address).is(204);
    Request::get("/any").bearer(&service).to(address).is_refusal(401, "revoked_token");
}

/// Starts a gateway whose tokens of accounts have the `client_id` "portal".
fn with_client_id() -> Portcullis {
    let only =
        "\n[[route]]\npath = \"/billing\"\nupstream = \"echo\"\nclaims = { client_id = \"billing\" }\n";
    let gateway =
        Portcullis::with(&format!("{ISSUER}{AUTHORITY}client_id = \"portal\"\n{CLIENTS}{only}")).start();
    account::add(gateway.dir(), "ada", &[]);
    gateway
}

#[test]
fn a_token_of_an_account_has_the_client_id_of_the_policy_and_stays_that_of_an_account() {
    let gateway = with_client_id();
    let address = gateway.http();
    let pair = login(address, "ada");
    assert_eq!(pair.claims()["client_id"], "portal");
    let pair = refresh(address, &pair.refresh);
    assert_eq!(pair.claims()["client_id"], "portal");
    let get = |path: &str| Request::get(path).bearer(&pair.access).to(address);
    get("/any").is(200);
    get("/billing").is_refusal(403, "claim_mismatch");
    assert_eq!(get("/auth/me").is(200).json()["sub"], "ada");
    assert_eq!(get("/auth/sessions").is(200).json()["sessions"].as_array().unwrap().len(), 1);
    assert_eq!(introspected(address, &pair.access)["client_id"], "portal");

    // Tokens of services are as before.
    let service = granted(&by(BILLING, "/auth/token", &[GRANT]).to(address));
    assert_eq!(claims(&service)["client_id"], "billing");
    Request::get("/billing").bearer(&service).to(address).is(200);
    Request::get("/auth/sessions").bearer(&service).to(address).is_refusal(403, "unauthorized_client");
    is_error(&by(REPORTS, "/auth/revoke", &[("token", &service)]).to(address), 403, "unauthorized_client");

    // Every service may revoke the token of an account, and what ends an account's tokens ends this one.
    let other = login(address, "ada");
    by(REPORTS, "/auth/revoke", &[("token", &other.access)]).to(address).is(200);
    Request::get("/any").bearer(&other.access).to(address).is_refusal(401, "revoked_token");
    get("/any").is(200);
    let minted = command(gateway.dir(), &["token", "mint", "--sub", "ada"]).stdout.trim().to_owned();
    assert_eq!(claims(&minted)["client_id"], "portal");
    Request::get("/any").bearer(&minted).to(address).is(200);
    Request::post("/auth/logout-all", "").bearer(&pair.access).to(address).is(204);
    get("/any").is_refusal(401, "revoked_token");
    Request::get("/any").bearer(&minted).to(address).is_refusal(401, "revoked_token");
    Request::get("/any").bearer(&service).to(address).is(200);

    let refused = command(gateway.dir(), &["token", "mint", "--sub", "portal"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("[authority] client_id"), "{refused:?}");
}

#[test]
fn a_verifier_of_rfc_9068_accepts_the_token_of_an_account_with_a_client_id() {
    let gateway = with_client_id();
    let pair = login(gateway.http(), "ada");
    let (scripts, folder) = installed("services");
    let (issuer, audience) = (pair.claims()["iss"].clone(), pair.claims()["aud"].clone());
    let ran = Command::new(folder.join("venv/bin/python"))
        .arg(scripts.join("verifier.py"))
        .arg(format!("http://{}", gateway.http()))
        .args([issuer.as_str().unwrap(), audience.as_str().unwrap(), &pair.access])
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(String::from_utf8_lossy(&ran.stdout).trim(), "portal");
}

#[test]
fn a_client_id_of_accounts_that_could_be_taken_for_a_service_is_a_fault() {
    let dir = Dir::new();
    for (id, words) in [
        ("billing", "is also the id of a service"),
        ("a b", "visible ASCII without a colon"),
        ("", "visible ASCII without a colon"),
    ] {
        dir.write("gateway.toml", format!("{ISSUER}{AUTHORITY}client_id = \"{id}\"\n{CLIENTS}"));
        let checked = command(&dir, &["check"]);
        let fault = checked.stdout.lines().find(|line| line.contains("fault: authority.client_id: "));
        assert!(fault.is_some_and(|line| line.contains(words)), "{checked:?}");
    }
}

#[test]
fn a_document_with_the_same_etag_is_not_sent_again() {
    let gateway = start();
    let address = gateway.http();
    for path in ["/.well-known/jwks.json", "/.well-known/oauth-authorization-server"] {
        let first = Request::get(path).to(address);
        let tag = first.is(200).header("etag").unwrap().to_owned();
        let again = Request::get(path).header("if-none-match", &tag).to(address);
        assert!(again.is(304).body.is_empty(), "{again:?}");
        assert_eq!((again.header("etag"), again.header("content-type")), (Some(&*tag), None));
        assert_eq!(again.header("cache-control"), Some("public, max-age=300"));
        let other = Request::get(path).header("if-none-match", "\"another\"").to(address);
        assert_eq!(other.is(200).body, first.body);
        let head = Request::new("HEAD", path).to(address);
        assert_eq!((head.is(200).header("etag"), head.body.len()), (Some(&*tag), 0));
    }
}

#[test]
fn no_account_is_given_the_id_of_a_service() {
    use crate::kit::portcullis::command_with;
    let gateway = start();
    let add = |arguments: &[&str]| {
        command_with(gateway.dir(), &[&["user", "add"], arguments].concat(), "correct horse battery staple")
    };
    for arguments in [&["billing", "--password-stdin"][..], &["ada", "--id", "billing", "--password-stdin"]] {
        let refused = add(arguments);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("the id of a service"), "{refused:?}");
    }
    let added = add(&["billing", "--id", "bill", "--password-stdin"]);
    assert_eq!(added.code, Some(0), "{added:?}");
    gateway.dir().write("users.csv", "name,id\nreports,\nada,reports\nbob,\n");
    let imported = command_with(gateway.dir(), &["user", "import", "users.csv"], "");
    assert_eq!(imported.code, Some(1), "{imported:?}");
    assert_eq!(imported.text().matches("the id of a service").count(), 2, "{imported:?}");
    let listed = command_with(gateway.dir(), &["user", "list"], "").stdout;
    // An id is random, and may contain the name.
    let names: Vec<_> = listed.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains(&"bob") && !names.contains(&"ada"), "{listed}");
}
