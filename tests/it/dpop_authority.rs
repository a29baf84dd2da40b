//! The authority's own tokens, bound to a client's key at login, at refresh and for services (RFC 9449 sections 5 to
//! 8).

use crate::kit::account::{self, AUTHORITY, PASSWORD, Pair, login, post, posting, refresh, try_refresh};
use crate::kit::forge::base64url;
use crate::kit::postgres::Postgres;
use crate::kit::prover::{Prover, bound};
use crate::kit::{Answer, Portcullis, Request};
use serde_json::{Value, json};
use std::net::SocketAddr;

const ROUTES: &str = "
[authority.client.billing]
secret     = \"billing-secret-billing-secret-32\"
introspect = true

[upstream.echo]
builtin = \"echo\"

[[route]]
path     = \"/any\"
upstream = \"echo\"

[[route]]
path          = \"/bound\"
upstream      = \"echo\"
require_bound = true
";

/// Starts a gateway with further keys of `[authority]`, further tables, and an account `ada`.
fn with(keys: &str, tables: &str) -> Portcullis {
    let gateway = Portcullis::with(&format!("{AUTHORITY}{keys}{ROUTES}{tables}")).start();
    account::add(gateway.dir(), "ada", &["clerk"]);
    gateway
}

/// Returns a POST request with a JSON body and a new proof.
fn proven(prover: &Prover, path: &str, body: &Value) -> Request {
    posting(path, body).header("DPoP", &prover.proof("POST", path).sign())
}

fn credentials() -> Value {
    json!({ "username": "ada", "password": PASSWORD })
}

fn try_login_bound(address: SocketAddr, prover: &Prover) -> Answer {
    proven(prover, "/auth/login", &credentials()).to(address)
}

#[track_caller]
fn login_bound(address: SocketAddr, prover: &Prover) -> Pair {
    bound_pair(&try_login_bound(address, prover), prover)
}

fn try_refresh_bound(address: SocketAddr, prover: &Prover, token: &str) -> Answer {
    proven(prover, "/auth/refresh", &json!({ "refresh_token": token })).to(address)
}

#[track_caller]
fn refresh_bound(address: SocketAddr, prover: &Prover, token: &str) -> Pair {
    bound_pair(&try_refresh_bound(address, prover, token), prover)
}

/// Returns the tokens of an answer, which must be bound to this client's key.
#[track_caller]
fn bound_pair(answer: &Answer, prover: &Prover) -> Pair {
    let pair = Pair::of(answer);
    assert_eq!(answer.json()["token_type"], "DPoP");
    assert_eq!(answer.header("set-cookie"), None);
    assert_eq!(pair.claims()["cnf"], prover.confirmation());
    assert!(pair.refresh.starts_with("pcr_dpop_") && pair.refresh.len() == 52, "{}", pair.refresh);
    pair
}

fn me(address: SocketAddr, prover: &Prover, pair: &Pair) -> Answer {
    prover.get("/auth/me", &pair.access).to(address)
}

fn service(path: &str, fields: &str) -> Request {
    let secret = "client_id=billing&client_secret=billing-secret-billing-secret-32";
    Request::post(path, format!("{secret}&{fields}"))
        .header("content-type", "application/x-www-form-urlencoded")
}

fn introspected(address: SocketAddr, token: &str) -> Value {
    service("/auth/introspect", &format!("token={token}")).to(address).is(200).json()
}

#[track_caller]
fn is_error(answer: &Answer, error: &str) {
    assert_eq!((answer.status, &answer.json()["error"]), (400, &json!(error)), "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

#[test]
fn a_login_with_a_proof_gives_tokens_that_only_its_key_can_use() {
    for store in ["sqlite:own.db".to_owned(), Postgres::shared().database()] {
        let gateway = with(&format!("store = \"{store}\"\nrefresh_grace = \"0s\"\n"), "");
        let address = gateway.http();
        let (prover, thief) = (Prover::new(), Prover::new());
        let first = login_bound(address, &prover);
        let echo = prover.get("/any", &first.access).to(address).is(200).json();
        assert_eq!(echo["headers"]["x-auth-subject"], "ada");
        let request = prover.get("/bound", &first.access);
        request.to(address).is(200);
        request.to(address).is_refusal(401, "replayed_dpop_proof");
        Request::get("/any").bearer(&first.access).to(address).is_refusal(401, "bound_token");
        thief.get("/any", &first.access).to(address).is_refusal(401, "invalid_dpop_proof");

        // Without the key, nobody can spend the refresh token.
        try_refresh(address, &first.refresh).is_refusal(401, "invalid_dpop_proof");
        try_refresh_bound(address, &thief, &first.refresh).is_refusal(401, "invalid_dpop_proof");
        let second = refresh_bound(address, &prover, &first.refresh);
        assert_eq!(second.claims()["sid"], first.claims()["sid"]);
        me(address, &prover, &second).is(200);

        // Without the key, a spent token does not end the session. With the key, a second use is a reuse.
        try_refresh(address, &first.refresh).is_refusal(401, "invalid_dpop_proof");
        try_refresh_bound(address, &thief, &first.refresh).is_refusal(401, "invalid_dpop_proof");
        let third = refresh_bound(address, &prover, &second.refresh);
        try_refresh_bound(address, &prover, &second.refresh).is_refusal(401, "refresh_reused");
        me(address, &prover, &third).is_refusal(401, "revoked_token");
        assert_eq!(gateway.metric("portcullis_refreshes_total{outcome=\"unproven\"}"), Some(4));

        // A login without a proof returns bearer tokens.
        let bearer = login(address, "ada");
        assert_eq!(bearer.claims()["cnf"], Value::Null);
        Request::get("/any").bearer(&bearer.access).to(address).is(200);
        Request::get("/bound").bearer(&bearer.access).to(address).is_refusal(401, "unbound_token");
    }
}

#[test]
fn a_session_keeps_its_key_over_a_restart() {
    let mut gateway = with("", "");
    let (prover, thief) = (Prover::new(), Prover::new());
    let pair = login_bound(gateway.http(), &prover);
    gateway.signal("KILL");
    let _ = gateway.exit_code();
    let policy = format!("{AUTHORITY}{ROUTES}");
    let gateway = Portcullis::with(&policy).within(gateway.dir().clone()).start();
    try_refresh(gateway.http(), &pair.refresh).is_refusal(401, "invalid_dpop_proof");
    try_refresh_bound(gateway.http(), &thief, &pair.refresh).is_refusal(401, "invalid_dpop_proof");
    let next = refresh_bound(gateway.http(), &prover, &pair.refresh);
    me(gateway.http(), &prover, &next).is(200);
}

#[test]
fn a_proof_is_checked_and_accepted_once_at_each_endpoint_for_tokens() {
    let gateway = with("", "");
    let address = gateway.http();
    let prover = Prover::new();
    let pair = login_bound(address, &prover);
    let refresh_body = json!({ "refresh_token": pair.refresh });
    for (path, body) in [("/auth/login", credentials()), ("/auth/refresh", refresh_body)] {
        let proof = || prover.proof("POST", path);
        let with = |proof: &str| posting(path, &body).header("DPoP", proof).to(address);
        for (name, proof) in [
            ("no proof at all", "x".to_owned()),
            ("another method", proof().claim("htm", "GET").sign()),
            ("another path", prover.proof("POST", "/auth/me").sign()),
            ("another host", proof().claim("htu", format!("http://other.test{path}")).sign()),
            ("the signature of another proof", {
                let (one, other) = (proof().sign(), proof().sign());
                let (message, signature) =
                    (one.rsplit_once('.').unwrap().0, other.rsplit_once('.').unwrap().1);
                format!("{message}.{signature}")
            }),
            ("no jti", proof().claim("jti", Value::Null).sign()),
        ] {
            let answer = with(&proof);
            assert_eq!((answer.status, &*answer.code()), (401, "invalid_dpop_proof"), "{path}: {name}");
        }
        let two = posting(path, &body).header("DPoP", &proof().sign()).header("DPoP", &proof().sign());
        two.to(address).is_refusal(401, "invalid_dpop_proof");
        with(&proof().claim("iat", 1_500_000_000).sign()).is_refusal(401, "use_dpop_nonce");
        let used = proof().sign();
        let next = bound_pair(&with(&used), &prover);
        // The grace period would allow the request, but the proof is replayed.
        with(&used).is_refusal(401, "replayed_dpop_proof");
        me(address, &prover, &next).is(200);
    }
}

#[test]
fn a_proof_without_valid_credentials_takes_no_memory() {
    let gateway = with("", "");
    let address = gateway.http();
    let prover = Prover::new();
    let remembered = || gateway.metric("portcullis_dpop_remembered_proofs").unwrap();
    let proof = prover.proof("POST", "/auth/login").sign();
    let attempt = |password: &str| {
        posting("/auth/login", &json!({ "username": "ada", "password": password }))
            .header("DPoP", &proof)
            .to(address)
    };
    attempt("wrong").is_refusal(401, "bad_credentials");
    let invented = format!("pcr_dpop_{}", "A".repeat(43));
    try_refresh_bound(address, &prover, &invented).is_refusal(401, "unknown_token");
    let wrong = "client_id=billing&client_secret=wrong&grant_type=client_credentials";
    let wrong = Request::post("/auth/token", wrong)
        .header("content-type", "application/x-www-form-urlencoded")
        .header("DPoP", &prover.proof("POST", "/auth/token").sign());
    assert_eq!(wrong.to(address).status, 401);
    let owner = login(address, "ada");
    let other_key = json!({ "refresh_token": owner.refresh });
    proven(&prover, "/auth/refresh", &other_key).to(address).is(200);
    assert_eq!(remembered(), 0);
    bound_pair(&attempt(PASSWORD), &prover);
    assert_eq!(remembered(), 1);
    attempt(PASSWORD).is_refusal(401, "replayed_dpop_proof");
}

/// A client could otherwise cause any number of signature checks: a login from another site counts against no limit.
#[test]
fn a_request_that_is_refused_in_any_case_has_no_proof_checked() {
    let tables = "[rate_limit.one]\nby = \"client_ip\"\nrate = \"1/h\"\n";
    let gateway = with("limits = { login = [\"one\"] }\n", tables);
    let address = gateway.http();
    let prover = Prover::new();
    let checked = || gateway.metric("portcullis_dpop_proofs_total{outcome=\"invalid\"}").unwrap();
    let false_proof = |path: &str| {
        let proof = prover.proof("POST", path).sign();
        let (message, _) = proof.rsplit_once('.').unwrap();
        format!("{message}.{}", base64url([1; 64]))
    };
    let attempt = || posting("/auth/login", &credentials()).header("DPoP", &false_proof("/auth/login"));
    for _ in 0..5 {
        let other_site = attempt().header("Origin", "https://evil.test").to(address);
        other_site.is_refusal(403, "csrf_mismatch");
    }
    let stranger = "client_id=billing&client_secret=wrong&grant_type=client_credentials";
    let stranger = Request::post("/auth/token", stranger)
        .header("content-type", "application/x-www-form-urlencoded")
        .header("DPoP", &false_proof("/auth/token"));
    let answer = stranger.to(address);
    assert_eq!((answer.status, &answer.json()["error"]), (401, &json!("invalid_client")));
    assert_eq!(checked(), 0);
    attempt().to(address).is_refusal(401, "invalid_dpop_proof");
    assert_eq!(checked(), 1);
    attempt().to(address).is_refusal(429, "rate_limited");
}

#[test]
fn a_session_that_began_without_a_proof_stays_a_bearer_session() {
    let gateway = with("", "");
    let address = gateway.http();
    let first = login(address, "ada");
    let answer = try_refresh_bound(address, &Prover::new(), &first.refresh);
    assert_eq!(answer.is(200).json()["token_type"], "Bearer");
    let second = Pair::of(&answer);
    assert_eq!(second.claims()["cnf"], Value::Null);
    assert!(second.refresh.len() == 47, "{}", second.refresh);
    refresh(address, &second.refresh);
    // A bound token's text cannot be changed into a bearer token's text, or the reverse.
    let pair = login_bound(address, &Prover::new());
    try_refresh(address, &pair.refresh.replace("dpop_", "")).is_refusal(401, "unknown_token");
    try_refresh(address, &first.refresh.replace("pcr_", "pcr_dpop_")).is_refusal(401, "unknown_token");
}

#[test]
fn a_bound_session_is_ended_by_its_key_and_not_by_a_thief() {
    let gateway = with("cookies = true\n", "");
    let address = gateway.http();
    let (prover, thief) = (Prover::new(), Prover::new());
    account::add(gateway.dir(), "eve", &[]);
    let body = || json!({ "username": "ada", "password": PASSWORD, "deliver": "body" });
    let log_in = || bound_pair(&proven(&prover, "/auth/login", &body()).to(address), &prover);
    let pair = log_in();
    let logout = json!({ "refresh_token": pair.refresh });
    post(address, "/auth/logout", &logout).is_refusal(401, "invalid_dpop_proof");
    proven(&thief, "/auth/logout", &logout).to(address).is_refusal(401, "invalid_dpop_proof");
    // A login in a browser ends the session of its cookies, but not the session of a stolen bound token.
    let stolen = format!("__Host-portcullis-refresh={}", pair.refresh);
    let eve = posting("/auth/login", &json!({ "username": "eve", "password": PASSWORD }));
    eve.host("localhost").header("cookie", &stolen).to(address).is(200);
    let as_cookie = Request::post("/auth/logout", "").host("localhost").header("cookie", &stolen);
    assert_ne!(as_cookie.to(address).status, 204);
    me(address, &prover, &pair).is(200);
    proven(&prover, "/auth/logout", &logout).to(address).is(204);
    me(address, &prover, &pair).is_refusal(401, "revoked_token");

    // Test the same with the access token. Its proof contains a hash of the token.
    let pair = log_in();
    let proof = |by: &Prover| by.proof("POST", "/auth/logout").token(&pair.access).sign();
    Request::post("/auth/logout", "").bearer(&pair.access).to(address).is_refusal(401, "bound_token");
    let logout = |proof: &str| bound(Request::post("/auth/logout", ""), &pair.access, proof).to(address);
    logout(&proof(&thief)).is_refusal(401, "invalid_dpop_proof");
    me(address, &prover, &pair).is(200);
    logout(&proof(&prover)).is(204);
    try_refresh_bound(address, &prover, &pair.refresh).is_refusal(401, "revoked_token");
    try_refresh_bound(address, &thief, &pair.refresh).is_refusal(401, "invalid_dpop_proof");
}

#[test]
fn tokens_in_cookies_are_never_bound() {
    let gateway = with("cookies = true\n", "");
    let address = gateway.http();
    let prover = Prover::new();
    let at = |path: &str| prover.proof("POST", path).claim("htu", format!("http://localhost{path}")).sign();
    let request = posting("/auth/login", &credentials()).host("localhost");
    request.header("DPoP", &at("/auth/login")).to(address).is_refusal(400, "proof_with_cookies");
    let body = json!({ "username": "ada", "password": PASSWORD, "deliver": "body" });
    let request = posting("/auth/login", &body).host("localhost");
    bound_pair(&request.header("DPoP", &at("/auth/login")).to(address), &prover);

    let answer = posting("/auth/login", &credentials()).host("localhost").to(address);
    assert_eq!(answer.is(200).json()["token_type"], "Bearer");
    let cookies: Vec<&str> = crate::kit::values(&answer.headers, "set-cookie")
        .iter()
        .filter_map(|cookie| cookie.split(';').next())
        .collect();
    let renew = || {
        Request::post("/auth/refresh", "")
            .host("localhost")
            .header("cookie", &cookies.join("; "))
            .header("x-csrf-token", answer.json()["csrf_token"].as_str().unwrap())
    };
    let refused = renew().header("DPoP", &at("/auth/refresh")).to(address);
    refused.is_refusal(400, "proof_with_cookies");
    assert_eq!(refused.header("set-cookie"), None, "the session's cookies are kept");
    renew().to(address).is(200);
}

#[test]
fn a_service_gets_a_bound_token_with_a_proof_and_refusals_in_the_form_of_oauth() {
    let gateway = with("", "");
    let address = gateway.http();
    let prover = Prover::new();
    let ask = |proof: &str| service("/auth/token", "grant_type=client_credentials").header("DPoP", proof);
    let proof = prover.proof("POST", "/auth/token").sign();
    let answer = ask(&proof).to(address);
    let body = answer.is(200).json();
    let token = body["access_token"].as_str().unwrap();
    assert_eq!(body["token_type"], "DPoP");
    assert_eq!(account::claims(token)["cnf"], prover.confirmation());
    prover.get("/bound", token).to(address).is(200);
    Request::get("/any").bearer(token).to(address).is_refusal(401, "bound_token");
    is_error(&ask(&proof).to(address), "invalid_dpop_proof");
    is_error(&ask("x").to(address), "invalid_dpop_proof");
    let old = ask(&prover.proof("POST", "/auth/token").claim("iat", 1_500_000_000).sign()).to(address);
    is_error(&old, "use_dpop_nonce");
    let nonce = old.header("dpop-nonce").expect("the refusal carries a nonce");
    let proof = prover.proof("POST", "/auth/token").claim("iat", 1_500_000_000).claim("nonce", nonce);
    ask(&proof.sign()).to(address).is(200);
    let bearer = service("/auth/token", "grant_type=client_credentials").to(address).is(200).json();
    assert_eq!(bearer["token_type"], "Bearer");
    let metadata = Request::get("/.well-known/oauth-authorization-server").to(address).is(200).json();
    assert_eq!(metadata["dpop_signing_alg_values_supported"][0], "ES256", "{metadata}");
}

#[test]
fn a_required_nonce_is_provided_at_each_endpoint_for_tokens() {
    let gateway = with("", "\n[dpop]\nnonce = \"required\"\n");
    let address = gateway.http();
    let prover = Prover::new();
    let refused = try_login_bound(address, &prover);
    refused.is_refusal(401, "use_dpop_nonce");
    let mut nonce = refused.header("dpop-nonce").expect("a nonce").to_owned();
    let mut ask = |path: &str, body: &Value| {
        let proof = prover.proof("POST", path).claim("nonce", nonce.as_str()).sign();
        let answer = posting(path, body).header("DPoP", &proof).to(address);
        // Each answer contains the next nonce.
        answer.header("dpop-nonce").expect("the next nonce").clone_into(&mut nonce);
        answer
    };
    let first = bound_pair(&ask("/auth/login", &credentials()), &prover);
    let second = bound_pair(&ask("/auth/refresh", &json!({ "refresh_token": first.refresh })), &prover);
    ask("/auth/logout", &json!({ "refresh_token": second.refresh })).is(204);
    try_refresh_bound(address, &prover, &second.refresh).is_refusal(401, "use_dpop_nonce");
    let token = service("/auth/token", "grant_type=client_credentials");
    let answer = token.header("DPoP", &prover.proof("POST", "/auth/token").sign()).to(address);
    is_error(&answer, "use_dpop_nonce");
    assert!(answer.header("dpop-nonce").is_some());
    // A client without a proof needs no nonce.
    login(address, "ada");
}

#[test]
fn services_see_the_binding_and_revoke_without_a_proof() {
    let gateway = with("", "");
    let address = gateway.http();
    let prover = Prover::new();
    let pair = login_bound(address, &prover);
    let access = introspected(address, &pair.access);
    assert_eq!((&access["active"], &access["token_type"]), (&json!(true), &json!("DPoP")));
    assert_eq!(access["cnf"], prover.confirmation());
    let held = introspected(address, &pair.refresh);
    assert_eq!((&held["token_type"], &held["cnf"]), (&json!("refresh_token"), &prover.confirmation()));
    assert_eq!(introspected(address, &login(address, "ada").refresh)["cnf"], Value::Null);
    let listed = prover.get("/auth/sessions", &pair.access).to(address).is(200).json();
    let listed = listed["sessions"].as_array().unwrap();
    let is_bound = |current: bool| {
        let of = listed.iter().find(|session| session["current"] == current).expect("the session");
        of["bound"].clone()
    };
    assert_eq!((is_bound(true), is_bound(false)), (json!(true), json!(false)));
    service("/auth/revoke", &format!("token={}", pair.refresh)).to(address).is(200);
    me(address, &prover, &pair).is_refusal(401, "revoked_token");
    try_refresh_bound(address, &prover, &pair.refresh).is_refusal(401, "revoked_token");
}
