//! Sessions: login, refresh and logout. The tokens of an ended session are refused at once, and after a restart.

use crate::kit::account::{
    self, AUTHORITY, PASSWORD, Pair, claims, login, post, posting, refresh, try_login, try_refresh,
};
use crate::kit::portcullis::command;
use crate::kit::{Answer, Portcullis, Request, eventually};
use serde_json::{Value, json};
use std::net::SocketAddr;

/// Routes with different requirements for the person who has logged in.
const ROUTES: &str = "
[upstream.echo]
builtin = \"echo\"

[[route]]
name     = \"any\"
path     = \"/any\"
upstream = \"echo\"

[[route]]
name     = \"clerks\"
path     = \"/clerks\"
upstream = \"echo\"
roles    = [\"clerk\"]

[[route]]
name     = \"fresh\"
path     = \"/fresh\"
upstream = \"echo\"
fresh    = true

[[route]]
name     = \"recent\"
path     = \"/recent\"
upstream = \"echo\"
fresh    = \"10m\"
";

/// Starts a gateway with an account `ada` that has the role clerk. `more`: further keys of `[authority]`.
fn with(more: &str) -> Portcullis {
    let gateway = Portcullis::with(&format!("{AUTHORITY}{more}{ROUTES}")).start();
    account::add(gateway.dir(), "ada", &["clerk"]);
    gateway
}

fn ask(address: SocketAddr, path: &str, token: &str) -> Answer {
    Request::get(path).bearer(token).to(address)
}

fn posted(address: SocketAddr, path: &str, token: &str) -> Answer {
    Request::post(path, "").bearer(token).to(address)
}

#[test]
fn a_login_gives_a_pair_by_json_and_by_form() {
    let gateway = with("");
    let address = gateway.http();
    let form = format!("username=ADA&password={}", PASSWORD.replace(' ', "+"));
    let by_form =
        Request::post("/auth/login", form).header("content-type", "application/x-www-form-urlencoded");
    for answer in [try_login(address, "ada", PASSWORD), by_form.to(address)] {
        let body = answer.is(200).json();
        assert_eq!((&body["token_type"], &body["expires_in"]), (&json!("Bearer"), &json!(900)));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("set-cookie"), None);
        let pair = Pair::of(&answer);
        assert!(pair.refresh.starts_with("pcr_") && pair.refresh.len() == 47, "{}", pair.refresh);
        let claims = pair.claims();
        assert_eq!((&claims["sub"], &claims["roles"]), (&json!("ada"), &json!(["clerk"])));
        assert_eq!(claims["fresh"], json!(true));
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 900);
        let me = ask(address, "/auth/me", &pair.access).is(200).json();
        assert_eq!((&me["sub"], &me["sid"], &me["fresh"]), (&json!("ada"), &claims["sid"], &json!(true)));
        let echo = ask(address, "/clerks", &pair.access).is(200).json();
        assert_eq!(echo["headers"]["x-auth-subject"], "ada");
        assert_eq!(echo["headers"]["x-auth-roles"], "clerk");
        assert!(echo["headers"].get("authorization").is_none());
    }
}

#[test]
fn a_wrong_password_reveals_nothing_about_the_account() {
    let gateway = with("");
    account::add(gateway.dir(), "eve", &[]);
    let disabled = command(gateway.dir(), &["user", "disable", "eve"]);
    assert_eq!(disabled.code, Some(0), "{disabled:?}");
    let shown = |answer: &Answer| {
        let mut body = answer.json();
        body["request_id"] = Value::Null;
        // The remaining limit decreases with each request, so the `RateLimit` field differs between any two answers.
        let names = |name: &&(String, String)| !matches!(&*name.0, "x-request-id" | "date" | "ratelimit");
        let fields: Vec<_> = answer.headers.iter().filter(names).cloned().collect();
        (answer.status, body, fields)
    };
    let address = gateway.http();
    let known = shown(try_login(address, "ada", "wrong").is_refusal(401, "bad_credentials"));
    for name in [
        "nobody",
        "eve",
        "ada'--",
        "ada\u{0}",
        "' OR '1'='1",
        "x'; DROP TABLE accounts; --",
        "\u{202e}ada",
        "a\nb",
    ] {
        let answer = try_login(address, name, "wrong");
        assert_eq!(shown(&answer), known, "{name:?}");
    }
    login(address, "ada");
    try_login(address, "eve", PASSWORD).is_refusal(401, "account_disabled");
    let log = gateway.stop();
    assert!(!log.contains(PASSWORD) && !log.contains("pcr_") && !log.contains("eyJ"), "{log}");
}

#[test]
fn each_refresh_spends_its_token_and_a_spent_one_ends_the_session() {
    let gateway = with("refresh_grace = \"0s\"\n");
    let address = gateway.http();
    let first = login(address, "ada");
    let second = refresh(address, &first.refresh);
    assert_ne!(first.refresh, second.refresh);
    assert_ne!(first.access, second.access);
    assert_eq!(first.claims()["sid"], second.claims()["sid"]);
    assert_eq!(second.claims()["fresh"], Value::Null);
    let third = refresh(address, &second.refresh);
    let other = login(address, "ada");

    try_refresh(address, &first.refresh).is_refusal(401, "refresh_reused");
    for token in [&first.access, &second.access, &third.access] {
        ask(address, "/any", token).is_refusal(401, "revoked_token");
    }
    try_refresh(address, &third.refresh).is_refusal(401, "revoked_token");
    ask(address, "/any", &other.access).is(200);
    refresh(address, &other.refresh);

    let metrics = Request::get("/metrics").to(gateway.admin()).text();
    for line in [
        "portcullis_refreshes_total{outcome=\"ok\"} 3",
        "portcullis_refreshes_total{outcome=\"reuse\"} 1",
        "portcullis_revocations_total{by=\"reuse\"} 1",
        "portcullis_logins_total{outcome=\"ok\"} 2",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    gateway.wait_log("the reuse is logged", |line| {
        line["message"].as_str().is_some_and(|text| text.contains("used twice")) && line["subject"] == "ada"
    });
}

#[test]
fn the_direct_predecessor_gets_the_very_same_successor_within_the_grace() {
    let gateway = with("refresh_grace = \"60s\"\n");
    let address = gateway.http();
    let first = login(address, "ada");
    let second = refresh(address, &first.refresh);
    for _ in 0..3 {
        assert_eq!(refresh(address, &first.refresh).refresh, second.refresh, "a second tab");
    }
    let third = refresh(address, &second.refresh);
    assert_eq!(refresh(address, &second.refresh).refresh, third.refresh);
    // The grace period is not over, but this token is not the latest spent token.
    try_refresh(address, &first.refresh).is_refusal(401, "refresh_reused");
    try_refresh(address, &third.refresh).is_refusal(401, "revoked_token");
}

#[test]
fn of_many_refreshes_at_once_all_get_one_successor() {
    let gateway = with("");
    let address = gateway.http();
    let first = login(address, "ada");
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..12).map(|_| scope.spawn(|| try_refresh(address, &first.refresh))).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let pairs: Vec<Pair> = answers.iter().map(Pair::of).collect();
    assert!(pairs.iter().all(|pair| pair.refresh == pairs[0].refresh));
    let metrics = Request::get("/metrics").to(gateway.admin()).text();
    assert!(metrics.contains("portcullis_refreshes_total{outcome=\"ok\"} 1\n"), "{metrics}");
    assert!(metrics.contains("portcullis_refreshes_total{outcome=\"grace\"} 11\n"), "{metrics}");
}

#[test]
fn a_session_that_is_ended_is_refused_at_once_and_no_other_is() {
    let gateway = with("");
    account::add(gateway.dir(), "bob", &["clerk"]);
    let address = gateway.http();
    let bob = login(address, "bob");
    type End = fn(SocketAddr, &Pair) -> Answer;
    let ways: [(&str, End); 4] = [
        ("logout by access token", |address, pair| posted(address, "/auth/logout", &pair.access)),
        ("logout by refresh token", |address, pair| {
            post(address, "/auth/logout", &json!({ "refresh_token": pair.refresh }))
        }),
        ("one session", |address, pair| {
            let path = format!("/auth/sessions/{}", pair.claims()["sid"].as_str().unwrap());
            Request::new("DELETE", &path).bearer(&pair.access).to(address)
        }),
        ("logout-all", |address, pair| posted(address, "/auth/logout-all", &pair.access)),
    ];
    for (name, end) in ways {
        let (pair, other) = (login(address, "ada"), login(address, "ada"));
        let refreshed = refresh(address, &pair.refresh);
        ask(address, "/any", &pair.access).is(200);
        end(address, &refreshed).is(204);
        for token in [&pair.access, &refreshed.access] {
            ask(address, "/any", token).is_refusal(401, "revoked_token");
            ask(address, "/auth/me", token).is_refusal(401, "revoked_token");
        }
        try_refresh(address, &refreshed.refresh).is_refusal(401, "revoked_token");
        if name == "logout-all" {
            ask(address, "/any", &other.access).is_refusal(401, "revoked_token");
            try_refresh(address, &other.refresh).is_refusal(401, "revoked_token");
            ask(address, "/any", &login(address, "ada").access).is(200);
        } else {
            ask(address, "/any", &other.access).is(200);
            posted(address, "/auth/logout-all", &other.access).is(204);
        }
        ask(address, "/any", &bob.access).is(200);
    }
}

#[test]
fn a_logout_needs_no_access_token_that_is_alive() {
    let gateway = with("access_expires = \"1s\"\n");
    let address = gateway.http();
    let pair = login(address, "ada");
    eventually("the access token expires", || ask(address, "/any", &pair.access).code() == "expired_token");
    posted(address, "/auth/logout", &pair.access).is_refusal(401, "expired_token");
    post(address, "/auth/logout", &json!({ "refresh_token": pair.refresh })).is(204);
    try_refresh(address, &pair.refresh).is_refusal(401, "revoked_token");
    Request::post("/auth/logout", "").to(address).is_refusal(401, "missing_token");
}

#[test]
fn sessions_are_listed_for_their_owner_and_ended_by_their_owner_alone() {
    let gateway = with("sessions = 3\n");
    account::add(gateway.dir(), "bob", &[]);
    let address = gateway.http();
    let (ada, bob) = (login(address, "ada"), login(address, "bob"));
    let id = |pair: &Pair| pair.claims()["sid"].as_str().unwrap().to_owned();
    let list = |pair: &Pair| ask(address, "/auth/sessions", &pair.access).is(200).json()["sessions"].clone();
    let end = |pair: &Pair, id: &str| {
        Request::new("DELETE", &format!("/auth/sessions/{id}")).bearer(&pair.access).to(address)
    };
    assert_eq!(list(&ada).as_array().unwrap().len(), 1);
    assert_eq!((&list(&ada)[0]["id"], &list(&ada)[0]["current"]), (&json!(id(&ada)), &json!(true)));
    for other in [id(&bob), "nothing".to_owned(), "'%20OR%201=1--".to_owned()] {
        end(&ada, &other).is_refusal(404, "not_found");
    }
    ask(address, "/any", &bob.access).is(200);

    let more: Vec<Pair> = (0..3).map(|_| login(address, "ada")).collect();
    // The oldest session was ended, because the limit is three.
    ask(address, "/any", &ada.access).is_refusal(401, "revoked_token");
    assert_eq!(list(&more[0]).as_array().unwrap().len(), 3);
    end(&more[0], &id(&more[1])).is(204);
    ask(address, "/any", &more[1].access).is_refusal(401, "revoked_token");
    assert_eq!(list(&more[0]).as_array().unwrap().len(), 2);
}

#[test]
fn changes_by_an_operator_apply_within_a_second() {
    let gateway = with("");
    let address = gateway.http();
    let run = |arguments: &[&str]| {
        let finished = command(gateway.dir(), arguments);
        assert_eq!(finished.code, Some(0), "{finished:?}");
    };
    let old = login(address, "ada");
    ask(address, "/clerks", &old.access).is(200);
    run(&["user", "set-roles", "ada", "guest"]);
    eventually("tokens of the old roles are refused", || {
        ask(address, "/clerks", &old.access).code() == "revoked_token"
    });
    // The session continues with the new roles.
    let new = refresh(address, &old.refresh);
    ask(address, "/clerks", &new.access).is_refusal(403, "insufficient_role");
    ask(address, "/any", &new.access).is(200);

    run(&["user", "disable", "ada"]);
    eventually("a disabled account is refused", || {
        ask(address, "/any", &new.access).code() == "revoked_token"
    });
    assert_eq!(try_refresh(address, &new.refresh).status, 401);
    try_login(address, "ada", PASSWORD).is_refusal(401, "account_disabled");
    run(&["user", "enable", "ada"]);
    ask(address, "/any", &login(address, "ada").access).is(200);
    assert_eq!(try_refresh(address, &new.refresh).status, 401, "its sessions are not back");
    ask(address, "/any", &new.access).is_refusal(401, "revoked_token");
}

#[test]
fn revocations_and_sessions_survive_a_restart() {
    let policy = format!("{AUTHORITY}{ROUTES}");
    let mut gateway = with("");
    let address = gateway.http();
    let (kept, out, spent) = (login(address, "ada"), login(address, "ada"), login(address, "ada"));
    let after_spent = refresh(address, &spent.refresh);
    let last = refresh(address, &after_spent.refresh);
    posted(address, "/auth/logout", &out.access).is(204);
    gateway.signal("KILL");
    let _ = gateway.exit_code();
    let gateway = Portcullis::with(&policy).within(gateway.dir().clone()).start();
    let address = gateway.http();
    ask(address, "/any", &out.access).is_refusal(401, "revoked_token");
    try_refresh(address, &out.refresh).is_refusal(401, "revoked_token");
    ask(address, "/any", &kept.access).is(200);
    refresh(address, &kept.refresh);
    try_refresh(address, &spent.refresh).is_refusal(401, "refresh_reused");
    ask(address, "/any", &last.access).is_refusal(401, "revoked_token");
}

#[test]
fn a_route_may_ask_for_a_login_that_is_fresh() {
    let gateway = with("");
    let address = gateway.http();
    let first = login(address, "ada");
    ask(address, "/fresh", &first.access).is(200);
    ask(address, "/recent", &first.access).is(200);
    let second = refresh(address, &first.refresh);
    let answer = ask(address, "/fresh", &second.access);
    answer.is_refusal(401, "fresh_token_required");
    let challenge = answer.header("www-authenticate").unwrap();
    assert!(challenge.contains("error=\"insufficient_user_authentication\""), "{challenge}");
    // The login is recent, so every token of the session passes.
    ask(address, "/recent", &second.access).is(200);
    let mint = |claim: &str| {
        let minted = command(gateway.dir(), &["token", "mint", "--sub", "ada", "--claim", claim]);
        minted.stdout.trim().to_owned()
    };
    let plain = mint("x=1");
    let answer = ask(address, "/recent", &plain);
    answer.is_refusal(401, "fresh_token_required");
    assert!(answer.header("www-authenticate").unwrap().contains("max_age=\"600\""));
}

#[test]
fn each_kind_of_token_is_refused_as_any_other_kind() {
    let gateway = with("");
    let address = gateway.http();
    let pair = login(address, "ada");
    ask(address, "/any", &pair.refresh).is_refusal(401, "wrong_type");
    try_refresh(address, &pair.access).is_refusal(401, "wrong_type");
    post(address, "/auth/logout", &json!({ "refresh_token": pair.access })).is_refusal(401, "wrong_type");
    let other = if pair.refresh.as_bytes()[20] == b'A' { "B" } else { "A" };
    let tampered = format!("{}{other}{}", &pair.refresh[..20], &pair.refresh[21..]);
    try_refresh(address, &tampered).is_refusal(401, "unknown_token");
    try_refresh(address, &format!("pcr_{}", "A".repeat(43))).is_refusal(401, "unknown_token");
    for token in ["x", "pcr_", "pcr_'; DROP TABLE refresh_tokens; --", &"a".repeat(40_000)] {
        try_refresh(address, token).is_refusal(401, "malformed_token");
    }
    refresh(address, &pair.refresh);
}

#[test]
fn a_body_that_cannot_be_used_is_refused_by_name_and_costs_nothing() {
    let gateway = with("");
    let address = gateway.http();
    let json = "application/json";
    let form = "application/x-www-form-urlencoded";
    let long = format!(r#"{{"username":"{}","password":"x"}}"#, "a".repeat(2000));
    let huge = format!(r#"{{"username":"{}","password":"x"}}"#, "a".repeat(70_000));
    let twice = format!(r#"{{"username":"ada","password":"x","password":"{PASSWORD}"}}"#);
    let deep = format!(r#"{{"username":{}1{}}}"#, "[".repeat(5000), "]".repeat(5000));
    for (kind, body, status, code) in [
        (json, "{", 400, "invalid_body"),
        (json, "[]", 400, "invalid_body"),
        (json, "null", 400, "invalid_body"),
        (json, "{}", 400, "invalid_body"),
        (json, "", 400, "invalid_body"),
        (json, r#"{"username":"ada"}"#, 400, "invalid_body"),
        (json, r#"{"username":"ada","password":""}"#, 400, "invalid_body"),
        (json, r#"{"username":["ada"],"password":{"x":1}}"#, 400, "invalid_body"),
        (json, r#"{"username":{"$ne":""},"password":{"$ne":""}}"#, 400, "invalid_body"),
        (json, r#"{"username":1,"password":true}"#, 400, "invalid_body"),
        (json, &twice, 400, "invalid_body"),
        (json, &long, 400, "invalid_body"),
        (json, &deep, 400, "invalid_body"),
        (json, &huge, 413, "body_too_large"),
        (form, "username=ada&username=eve&password=x", 400, "invalid_body"),
        (form, "username=%zz&password=x", 400, "invalid_body"),
        ("text/plain", "username=ada&password=x", 415, "unsupported_media_type"),
        ("multipart/form-data; boundary=x", "--x--", 415, "unsupported_media_type"),
    ] {
        let answer = Request::post("/auth/login", body).header("content-type", kind).to(address);
        answer.is_refusal(status, code);
    }
    Request::get("/auth/login").to(address).is_refusal(405, "method_not_allowed");
    Request::post("/auth/nothing", "").to(address).is_refusal(404, "no_route");
    // None of these requests counted as a login attempt.
    login(address, "ada");
}

#[test]
fn a_token_of_another_issuer_has_no_session_here() {
    use crate::kit::{ISSUER, token};
    let gateway = Portcullis::with(&format!("{ISSUER}{AUTHORITY}{ROUTES}")).start();
    let address = gateway.http();
    ask(address, "/any", &token("ada").to_string()).is(200);
    ask(address, "/auth/me", &token("ada").to_string()).is(200);
    for (method, path) in [
        ("POST", "/auth/logout"),
        ("POST", "/auth/logout-all"),
        ("GET", "/auth/sessions"),
        ("DELETE", "/auth/sessions/x"),
    ] {
        let answer = Request::new(method, path).bearer(token("ada")).to(address);
        answer.is_refusal(401, "unknown_issuer");
    }
}

#[test]
fn claims_come_from_attributes_and_roles_are_cut_where_the_policy_says() {
    let gateway = with("role_limit = 2\nclaims = { tenant = \"tenant\", missing = \"missing\" }\n");
    let address = gateway.http();
    let arguments = [
        "user",
        "add",
        "eve",
        "--password-stdin",
        "--role",
        "a",
        "--role",
        "b",
        "--role",
        "c",
        "--attribute",
        "tenant=acme",
    ];
    let added = crate::kit::portcullis::command_with(gateway.dir(), &arguments, &format!("{PASSWORD}\n"));
    assert_eq!(added.code, Some(0), "{added:?}");
    let claims = claims(&login(address, "eve").access);
    assert_eq!((&claims["roles"], &claims["tenant"]), (&json!(["a", "b"]), &json!("acme")));
    assert_eq!(claims.get("missing"), None);
    gateway.wait_log("the cut is logged", |line| line["message"] == "a token leaves out roles");
}

#[test]
fn tokens_are_counted_by_issuer_algorithm_age_and_size() {
    let gateway = with("");
    let address = gateway.http();
    ask(address, "/any", &login(address, "ada").access).is(200);
    try_login(address, "ada", "wrong");
    let metrics = Request::get("/metrics").to(gateway.admin()).text();
    for line in [
        "portcullis_tokens_verified_total{issuer=\"https://localhost:8443\",algorithm=\"ES256\"} 1\n",
        "portcullis_token_age_seconds_count{issuer=\"https://localhost:8443\"} 1\n",
        "portcullis_token_size_bytes_count{issuer=\"https://localhost:8443\"} 1\n",
        "portcullis_logins_total{outcome=\"bad_credentials\"} 1\n",
        "portcullis_tokens_issued_total{size=\"normal\"} 1\n",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

/// kill -9 at any moment loses no session and makes no spent token valid.
///
/// A client refreshes continuously, while the gateway is killed and restarted many times. After each restart, the
/// client presents the last token that it received. If the answer to a refresh was lost, the client gets the same
/// successor.
#[test]
fn kill_9_at_any_moment_loses_no_session_and_revives_no_spent_token() {
    const KILLS: usize = 200;
    let policy = format!("{AUTHORITY}{ROUTES}");
    let mut gateway = with("");
    let mut address = gateway.http();
    let mut held = login(address, "ada").refresh;
    let mut spent: Vec<String> = Vec::new();
    let (mut lost, mut refreshes) = (0, 0);
    let raw = |address: SocketAddr, token: &str| -> Option<Pair> {
        // The connection may break at any moment, without an answer.
        let request = posting("/auth/refresh", &json!({ "refresh_token": token }));
        let answer = crate::kit::client::try_send(address, request.bytes())?;
        Some(Pair::of(&answer))
    };
    // The duration of a refresh, measured in each round. It spreads the kills over several refreshes, even on a busy
    // machine.
    let mut pace = std::time::Duration::from_millis(2);
    for round in 0..KILLS {
        let pid = gateway.pid();
        let delay = pace * u32::try_from(round * 79 % 40).unwrap() / 10;
        let killer = std::thread::spawn(move || {
            std::thread::sleep(delay);
            std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
        });
        loop {
            let Some(pair) = raw(address, &held) else {
                lost += 1;
                break;
            };
            spent.push(std::mem::replace(&mut held, pair.refresh));
            refreshes += 1;
        }
        killer.join().unwrap();
        let _ = gateway.exit_code();
        gateway = Portcullis::with(&policy).within(gateway.dir().clone()).start();
        address = gateway.http();
        // The session exists: the client's token works, whether or not it was spent before the kill.
        let asked = std::time::Instant::now();
        let pair = raw(address, &held).unwrap_or_else(|| panic!("round {round}: no answer"));
        pace = asked.elapsed();
        spent.push(std::mem::replace(&mut held, pair.refresh));
    }
    assert_eq!(lost, KILLS);
    assert!(refreshes > KILLS / 2, "the kills met refreshes: {refreshes}");
    // Every earlier token except the direct predecessor is invalid, and ends the session if it is presented.
    // The store keeps the last 1,000 of a session.
    let old = &spent[spent.len() - (spent.len() / 2).min(500)];
    try_refresh(address, old).is_refusal(401, "refresh_reused");
    try_refresh(address, &held).is_refusal(401, "revoked_token");
}
