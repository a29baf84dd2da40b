//! Signals that revoke an issuer's tokens: pushed and polled security event tokens, and back-channel logout.

use crate::kit::account::AUTHORITY;
use crate::kit::forge::{Token, base64url, now};
use crate::kit::portcullis::command;
use crate::kit::postgres::Postgres;
use crate::kit::upstream::After;
use crate::kit::{Answer, ISSUER, Portcullis, Request, Upstream, eventually, token};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const ROUTES: &str = r#"
[upstream.echo]
builtin = "echo"

[[route]]
path     = "/any"
upstream = "echo"
"#;

/// The transmitter of the issuer `https://id.test/`.
pub const SIGNALS: &str = r#"
[signals.idp]
issuer   = "https://id.test/"
audience = "https://gateway.test"
push     = "/signals/idp"
logout   = "/signals/idp/logout"
"#;

const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type";

fn policy(tables: &str) -> String {
    format!("{ISSUER}{ROUTES}{SIGNALS}{tables}")
}

/// Returns a security event token about this subject.
fn event(kind: &str, subject: Value) -> Token {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    token("x")
        .without("sub")
        .without("exp")
        .member("typ", json!("secevent+jwt"))
        .claim("aud", json!("https://gateway.test"))
        .claim("jti", json!(format!("event-{}", COUNT.fetch_add(1, Ordering::Relaxed))))
        .claim("sub_id", subject)
        .claim("events", json!({ format!("{CAEP}/{kind}"): { "event_timestamp": now() } }))
}

fn user(subject: &str) -> Value {
    json!({ "format": "iss_sub", "iss": "https://id.test/", "sub": subject })
}

fn logout_token() -> Token {
    token("ada")
        .member("typ", json!("logout+jwt"))
        .claim("aud", json!("https://gateway.test"))
        .claim("jti", json!("logout-1"))
        .claim("events", json!({ "http://schemas.openid.net/event/backchannel-logout": {} }))
}

fn push(gateway: SocketAddr, set: &str) -> Answer {
    Request::post("/signals/idp", set).header("content-type", "application/secevent+jwt").to(gateway)
}

fn log_out(gateway: SocketAddr, token: &str) -> Answer {
    Request::post("/signals/idp/logout", format!("logout_token={token}"))
        .header("content-type", "application/x-www-form-urlencoded")
        .to(gateway)
}

fn call(gateway: SocketAddr, token: &str) -> Answer {
    Request::get("/any").bearer(token).to(gateway)
}

/// Returns a token that was issued a minute ago, before every event of these tests.
fn old(subject: &str) -> Token {
    token(subject).claim("iat", json!(now() - 60))
}

#[test]
fn a_pushed_event_revokes_the_tokens_before_it_at_once_and_after_a_restart() {
    let gateway = Portcullis::with(&policy("")).start();
    let (ada, bob) = (old("ada").sign(), old("bob").sign());
    let of_session = old("eve").claim("sid", json!("s1")).sign();
    let by_id = old("eve").claim("jti", json!("t1")).sign();
    for token in [&ada, &bob, &of_session, &by_id] {
        call(gateway.http(), token).is(200);
    }
    let began = Instant::now();
    let answer = push(gateway.http(), &event("session-revoked", user("ada")).sign());
    assert_eq!(answer.is(202).body.len(), 0);
    call(gateway.http(), &ada).is_refusal(401, "revoked_token");
    assert!(began.elapsed() < Duration::from_secs(5));
    let session = json!({ "format": "complex", "session": { "format": "opaque", "id": "s1" } });
    push(gateway.http(), &event("session-revoked", session).sign()).is(202);
    let id = json!({ "format": "jwt_id", "iss": "https://id.test/", "jti": "t1" });
    push(gateway.http(), &event("token-claims-change", id).sign()).is(202);
    let refused = |gateway: SocketAddr| {
        for token in [&ada, &of_session, &by_id] {
            call(gateway, token).is_refusal(401, "revoked_token");
        }
        call(gateway, &bob).is(200);
        call(gateway, &old("eve").sign()).is(200);
        // A token that was issued after the event is valid.
        call(gateway, &token("ada").claim("iat", json!(now() + 5)).sign()).is(200);
    };
    refused(gateway.http());
    assert_eq!(gateway.metric("portcullis_signal_marks"), Some(3));
    let counted = gateway.metric(r#"portcullis_signal_events_total{signals="idp",event="session_revoked"}"#);
    assert_eq!(counted, Some(2));
    let line = gateway.wait_log("an accepted signal", |line| line["message"] == "a signal was accepted");
    assert_eq!((&line["signals"], &line["marks"]), (&json!("idp"), &json!(1)));
    // `token inspect` reads the marks that the gateway keeps.
    let inspected = command(gateway.dir(), &["token", "inspect", &ada]);
    assert!(inspected.text().contains("refused: revoked_token"), "{}", inspected.text());
    let inspected = command(gateway.dir(), &["token", "inspect", &bob]);
    assert!(inspected.text().contains("accepted"), "{}", inspected.text());

    // `explain` reads the same marks.
    let explained = command(gateway.dir(), &["explain", "GET", "https://any.test/any", "--token", &ada]);
    assert!(explained.text().contains("revoked_token"), "{}", explained.text());
    let explained = command(gateway.dir(), &["explain", "GET", "https://any.test/any", "--token", &bob]);
    assert!(explained.text().contains("verdict: passes"), "{}", explained.text());

    let dir = gateway.dir().clone();
    gateway.stop();
    let gateway = Portcullis::with(&policy("")).within(dir).start();
    refused(gateway.http());
}

#[test]
fn a_reload_keeps_the_marks_and_the_counts() {
    let gateway = Portcullis::with(&policy("")).start();
    push(gateway.http(), &event("session-revoked", user("ada")).sign()).is(202);
    Request::post("/reload", "").to(gateway.admin()).is(200);
    call(gateway.http(), &old("ada").sign()).is_refusal(401, "revoked_token");
    let accepted = r#"portcullis_signals_total{signals="idp",outcome="accepted"}"#;
    assert_eq!(gateway.metric(accepted), Some(1));
    let question = json!({ "request": "GET https://any.test/any", "token": old("ada").sign() });
    let explained = Request::post("/explain", question.to_string())
        .header("content-type", "application/json")
        .to(gateway.admin());
    assert!(explained.is(200).text().contains("revoked_token"), "{}", explained.text());
}

#[test]
fn a_repeated_event_changes_nothing() {
    let gateway = Portcullis::with(&policy("")).start();
    let set = event("session-revoked", user("ada")).sign();
    for _ in 0..3 {
        push(gateway.http(), &set).is(202);
    }
    let outcome = |name: &str| {
        gateway.metric(&format!(r#"portcullis_signals_total{{signals="idp",outcome="{name}"}}"#))
    };
    assert_eq!((outcome("accepted"), outcome("repeated")), (Some(1), Some(2)));
    assert_eq!(gateway.metric("portcullis_signal_marks"), Some(1));
}

#[test]
fn a_hostile_transmitter_gets_an_error_and_changes_nothing() {
    let gateway = Portcullis::with(&policy("")).start();
    let good = || event("session-revoked", user("ada"));
    let unsigned = {
        let set = good().sign();
        let claims = set.split('.').nth(1).unwrap().to_owned();
        format!("{}.{claims}.", base64url(r#"{"alg":"none","typ":"secevent+jwt"}"#))
    };
    for (name, set, code) in [
        ("another audience", good().claim("aud", json!("other")).sign(), "invalid_audience"),
        ("another issuer", good().claim("iss", json!("https://evil.test/")).sign(), "invalid_issuer"),
        ("another key", good().sign_as_the_stranger(), "invalid_key"),
        ("no algorithm", unsigned, "invalid_key"),
        ("an access token", token("ada").sign(), "invalid_request"),
        ("an access token without typ", token("ada").member("typ", Value::Null).sign(), "invalid_audience"),
        ("no jti", good().without("jti").sign(), "invalid_request"),
        ("from the future", good().claim("iat", json!(now() + 3600)).sign(), "invalid_request"),
        (
            "an email",
            event("session-revoked", json!({"format": "email", "email": "a@b.test"})).sign(),
            "invalid_request",
        ),
        (
            "another issuer's user",
            event("session-revoked", json!({"format": "iss_sub", "iss": "https://o.test", "sub": "ada"}))
                .sign(),
            "invalid_request",
        ),
        ("a long token", good().claim("pad", json!("x".repeat(16 * 1024))).sign(), "invalid_request"),
        ("nothing", String::new(), "invalid_request"),
        ("not UTF-8", "\u{fffd}".to_owned(), "invalid_request"),
    ] {
        let answer = push(gateway.http(), &set);
        assert_eq!(answer.is(400).header("content-type"), Some("application/json"), "{name}");
        assert_eq!(answer.header("content-language"), Some("en"));
        let body = answer.json();
        assert_eq!(body["err"], code, "{name}: {body}");
        assert!(body["description"].is_string(), "{name}");
    }
    let huge = "x".repeat(40 * 1024);
    push(gateway.http(), &huge).is_refusal(413, "body_too_large");
    let form = Request::post("/signals/idp", good().sign()).header("content-type", "text/plain");
    assert_eq!(form.to(gateway.http()).is(400).json()["err"], "invalid_request");
    Request::get("/signals/idp").to(gateway.http()).is_refusal(405, "method_not_allowed");
    assert_eq!(gateway.metric("portcullis_signal_marks"), Some(0));
    call(gateway.http(), &old("ada").sign()).is(200);
    let outcome = |name: &str| {
        gateway.metric(&format!(r#"portcullis_signals_total{{signals="idp",outcome="{name}"}}"#))
    };
    assert_eq!(outcome("not_understood"), Some(2));
    assert!(outcome("rejected") >= Some(8));
}

#[test]
fn unknown_events_and_events_about_the_stream_are_acknowledged_and_counted() {
    let gateway = Portcullis::with(&policy("")).start();
    let ssf = "https://schemas.openid.net/secevent/ssf/event-type";
    for (uri, event, counted) in [
        (format!("{CAEP}/device-compliance-change"), json!({}), "unknown"),
        (format!("{ssf}/verification"), json!({ "state": "abc" }), "verification"),
        (format!("{ssf}/stream-updated"), json!({ "status": "paused" }), "stream_updated"),
    ] {
        let stream = json!({ "format": "opaque", "id": "stream-1" });
        let set = self::event("x", stream).claim("events", json!({ uri: event }));
        push(gateway.http(), &set.sign()).is(202);
        let name = format!(r#"portcullis_signal_events_total{{signals="idp",event="{counted}"}}"#);
        assert_eq!(gateway.metric(&name), Some(1), "{counted}");
    }
    let line = gateway.wait_log("the stream", |line| line["status"] == "paused");
    assert_eq!(line["level"], "warn");
}

#[test]
fn the_bearer_token_of_the_transmitter_is_demanded() {
    let tables = "push_secret = \"file:push.secret\"\n";
    let text = format!("{ISSUER}{ROUTES}{SIGNALS}{tables}");
    let secret = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
    let gateway = Portcullis::with(&text).file("push.secret", secret).start();
    gateway.dir().set_mode("push.secret", 0o600);
    let set = event("session-revoked", user("ada")).sign();
    let pushed = |authorization: Option<&str>| {
        let request = Request::post("/signals/idp", &set).header("content-type", "application/secevent+jwt");
        let request = match authorization {
            Some(value) => request.header("authorization", value),
            None => request,
        };
        request.to(gateway.http())
    };
    for wrong in [None, Some("Bearer x"), Some("Bearer "), Some(secret), Some("Basic eDp5")] {
        let answer = pushed(wrong);
        assert_eq!(answer.is(401).json()["err"], "authentication_failed", "{wrong:?}");
        assert!(answer.header("www-authenticate").is_some());
    }
    call(gateway.http(), &old("ada").sign()).is(200);
    pushed(Some(&format!("Bearer {secret}"))).is(202);
    call(gateway.http(), &old("ada").sign()).is_refusal(401, "revoked_token");
}

#[test]
fn a_logout_token_revokes_the_session_and_the_users_earlier_tokens() {
    let gateway = Portcullis::with(&policy("")).start();
    let session = old("ada").claim("sid", json!("s1")).sign();
    let other = old("ada").sign();
    for (name, token) in [
        ("a nonce", logout_token().claim("nonce", json!("n")).sign()),
        ("no exp", logout_token().without("exp").sign()),
        ("expired", logout_token().expired().sign()),
        ("neither", logout_token().without("sub").sign()),
        ("no event", logout_token().without("events").sign()),
        ("another type", logout_token().member("typ", json!("at+jwt")).sign()),
        ("another audience", logout_token().claim("aud", json!("orders")).sign()),
        ("another key", logout_token().sign_as_the_stranger()),
    ] {
        let answer = log_out(gateway.http(), &token);
        assert!(answer.is(400).json()["error"].is_string(), "{name}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    call(gateway.http(), &session).is(200);
    call(gateway.http(), &other).is(200);
    for _ in 0..2 {
        let answer = log_out(gateway.http(), &logout_token().claim("sid", json!("s1")).sign());
        assert_eq!(answer.is(200).header("cache-control"), Some("no-store"));
    }
    call(gateway.http(), &session).is_refusal(401, "revoked_token");
    call(gateway.http(), &other).is_refusal(401, "revoked_token");
    call(gateway.http(), &old("bob").sign()).is(200);
}

#[test]
fn a_token_that_lives_longer_than_marks_is_refused() {
    let gateway = Portcullis::with(&policy("")).start();
    call(gateway.http(), &old("ada").claim("exp", json!(now() - 60 + 86_400)).sign()).is(200);
    call(gateway.http(), &old("ada").claim("exp", json!(now() - 59 + 86_400)).sign()).is(401);
    call(gateway.http(), &old("ada").without("iat").sign()).is(401);
}

#[test]
fn a_flood_is_refused_by_the_limit_and_leaves_the_gateway_serving() {
    let tables = "rate_limits = [\"few\"]\n[rate_limit.few]\nby = \"client_ip\"\nrate = \"5/h\"\n";
    let gateway = Portcullis::with(&policy(tables)).start();
    let forged = event("session-revoked", user("ada")).sign_as_the_stranger();
    let codes: Vec<u16> = (0..50).map(|_| push(gateway.http(), &forged).status).collect();
    assert_eq!(codes.iter().filter(|code| **code == 400).count(), 5, "{codes:?}");
    assert!(codes[5..].iter().all(|code| *code == 429));
    call(gateway.http(), &old("ada").sign()).is(200);
}

#[test]
fn a_signal_that_cannot_be_kept_is_answered_with_an_error_and_repeated() {
    let gateway = Portcullis::with(&policy("")).start();
    let state = gateway.dir().path().join("state");
    let file = std::fs::read_dir(&state).ok().into_iter().flatten().flatten();
    let names: Vec<_> = file.map(|entry| entry.file_name()).collect();
    assert!(names.iter().any(|name| name == "signal-marks"), "{names:?}");
    // A folder cannot be opened for writing.
    std::fs::remove_file(state.join("signal-marks.lock")).unwrap();
    std::fs::create_dir(state.join("signal-marks.lock")).unwrap();
    let set = event("session-revoked", user("ada")).sign();
    let answer = push(gateway.http(), &set);
    assert_eq!(answer.is(503).json()["err"], "temporarily_unavailable");
    assert!(answer.header("retry-after").is_some());
    let failed = r#"portcullis_signals_total{signals="idp",outcome="failed"}"#;
    assert_eq!(gateway.metric(failed), Some(1));
    std::fs::remove_dir(state.join("signal-marks.lock")).unwrap();
    push(gateway.http(), &set).is(202);
    call(gateway.http(), &old("ada").sign()).is_refusal(401, "revoked_token");
}

#[test]
fn gateways_at_one_database_share_the_marks() {
    let url = Postgres::shared().database();
    let text = format!("{AUTHORITY}store = \"{url}\"\n{}", policy(""));
    let one = Portcullis::with(&text).start();
    let two = Portcullis::with(&text).start();
    let ada = old("ada").sign();
    call(two.http(), &ada).is(200);
    push(one.http(), &event("account-disabled", user("bob")).sign()).is(202);
    push(one.http(), &event("session-revoked", user("ada")).sign()).is(202);
    call(one.http(), &ada).is_refusal(401, "revoked_token");
    eventually("the other gateway refuses it too", || call(two.http(), &ada).status == 401);
    let inspected = command(two.dir(), &["token", "inspect", &ada]);
    assert!(inspected.text().contains("refused: revoked_token"), "{}", inspected.text());
    let three = Portcullis::with(&text).start();
    call(three.http(), &ada).is_refusal(401, "revoked_token");
}

#[test]
fn gateways_with_one_state_folder_share_the_marks() {
    let one = Portcullis::with(&policy("")).start();
    let two = Portcullis::with(&policy("")).within(one.dir().clone()).start();
    let ada = old("ada").sign();
    call(two.http(), &ada).is(200);
    push(one.http(), &event("session-revoked", user("ada")).sign()).is(202);
    eventually("the other gateway refuses it too", || call(two.http(), &ada).status == 401);
}

#[test]
fn polled_events_are_acknowledged_after_they_are_in_force() {
    // The transmitter's queue, and the polls that it received.
    let queue: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let polls: Arc<Mutex<Vec<Value>>> = Arc::default();
    let (waiting, seen) = (queue.clone(), polls.clone());
    let transmitter = Upstream::with(move |request, wire| {
        wire.read_body();
        let body: Value = serde_json::from_slice(&wire.seen().body).unwrap_or_default();
        assert_eq!(request.header("authorization"), Some("Bearer abc"));
        let mut queue = waiting.lock().unwrap();
        let acknowledged = body["ack"].as_array().cloned().unwrap_or_default();
        let refused = body["setErrs"].as_object().cloned().unwrap_or_default();
        queue.retain(|(id, _)| !acknowledged.contains(&json!(id)) && !refused.contains_key(id));
        let sets: serde_json::Map<_, _> = queue.iter().map(|(id, set)| (id.clone(), json!(set))).collect();
        seen.lock().unwrap().push(body);
        wire.answer("200 OK", "content-type: application/json\r\n", json!({ "sets": sets }).to_string());
        After::Keep
    });
    let tables = format!(
        "poll = \"{transmitter}/poll\"\npoll_secret = \"env:POLL\"\nallow_http = true\nprivate_networks = [\"127.0.0.0/8\"]\n"
    );
    let gateway = Portcullis::with(&policy(&tables)).env("POLL", "abc").start();
    let ada = old("ada").sign();
    call(gateway.http(), &ada).is(200);
    let email = json!({ "format": "email", "email": "a@b.test" });
    *queue.lock().unwrap() = vec![
        ("1".to_owned(), event("session-revoked", user("ada")).sign()),
        ("2".to_owned(), event("session-revoked", email).sign()),
        ("3".to_owned(), event("session-revoked", user("bob")).sign_as_the_stranger()),
    ];
    eventually("the event is in force", || call(gateway.http(), &ada).status == 401);
    eventually("all are settled", || queue.lock().unwrap().is_empty());
    let polls = polls.lock().unwrap();
    let settled = polls.iter().find(|poll| poll["ack"] == json!(["1"])).expect("an acknowledgement");
    assert_eq!(settled["setErrs"]["2"]["err"], "invalid_request");
    assert_eq!(settled["setErrs"]["3"]["err"], "invalid_key");
    drop(polls);
    transmitter.stop();
    let errors = r#"portcullis_signal_poll_errors_total{signals="idp"}"#;
    eventually("errors are counted", || gateway.metric(errors).is_some_and(|count| count > 0));
    call(gateway.http(), &old("bob").sign()).is(200);
}

#[test]
fn a_transmitter_that_answers_at_once_and_settles_nothing_is_not_polled_without_a_pause() {
    let forged = event("session-revoked", user("ada")).sign_as_the_stranger();
    for answer in [json!({ "sets": {}, "moreAvailable": true }), json!({ "sets": { "1": forged } })] {
        let polls: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let seen = polls.clone();
        let transmitter = Upstream::with(move |_, wire| {
            wire.read_body();
            seen.lock().unwrap().push(Instant::now());
            wire.answer("200 OK", "content-type: application/json\r\n", answer.to_string());
            After::Keep
        });
        let tables = format!(
            "poll = \"{transmitter}/poll\"\nallow_http = true\nprivate_networks = [\"127.0.0.0/8\"]\n"
        );
        let _gateway = Portcullis::with(&policy(&tables)).start();
        eventually("it is polled again", || polls.lock().unwrap().len() >= 4);
        let polls = polls.lock().unwrap();
        assert!(polls[3] - polls[0] > Duration::from_millis(1400), "{:?}", polls[3] - polls[0]);
    }
}

#[test]
fn a_foreign_name_or_a_missing_way_is_a_fault() {
    for (from, to, fault) in [
        (
            "https://id.test/\"\naudience = \"https",
            "https://other.test/\"\naudience = \"https",
            "unknown_name",
        ),
        ("audience = \"https://gateway.test\"", "", "no_audience"),
        ("push     = \"/signals/idp\"\nlogout   = \"/signals/idp/logout\"", "", "missing_key"),
        ("push     = \"/signals/idp\"", "push = \"/{a}\"", "bad_path"),
        ("push     = \"/signals/idp\"", "poll = \"http://ssf.test/\"", "bad_value"),
    ] {
        let text = policy("");
        assert!(text.contains(from), "{from}");
        let dir = crate::kit::dir::Dir::new();
        crate::kit::portcullis::write_policy(&dir, &text.replacen(from, to, 1));
        let checked = command(&dir, &["check"]);
        let said = checked.text();
        assert!(said.contains(fault), "{fault}: {said}");
    }
}
