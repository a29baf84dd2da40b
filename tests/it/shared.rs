//! Gateways that share their revocations through Redis.

use crate::kit::account::{self, AUTHORITY, Pair};
use crate::kit::forge::now;
use crate::kit::postgres::Postgres;
use crate::kit::redis::Redis;
use crate::kit::{Answer, ISSUER, Portcullis, Request, eventually, token};
use crate::signals::SIGNALS;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A route for tokens of the issuer whose signals the gateway receives.
const ROUTES: &str = r#"
[upstream.echo]
builtin = "echo"

[[route]]
path     = "/any"
upstream = "echo"

[[route]]
path     = "/open"
upstream = "echo"
access   = "public"
"#;

/// Returns the policy of a gateway with the shared state at this URL.
pub fn policy(url: &str, more: &str) -> String {
    format!("{ISSUER}{ROUTES}{SIGNALS}\n[shared]\nurl = \"{url}\"\n{more}")
}

/// Revokes the tokens of a subject by a pushed event.
pub fn revoke(gateway: SocketAddr, subject: &str) -> Answer {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let kind = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
    let event = token("x")
        .without("sub")
        .without("exp")
        .member("typ", json!("secevent+jwt"))
        .claim("aud", json!("https://gateway.test"))
        .claim("jti", json!(format!("shared-{}", COUNT.fetch_add(1, Ordering::Relaxed))))
        .claim("sub_id", json!({ "format": "iss_sub", "iss": "https://id.test/", "sub": subject }))
        .claim("events", json!({ kind: { "event_timestamp": now() } }));
    Request::post("/signals/idp", event.sign()).header("content-type", "application/secevent+jwt").to(gateway)
}

/// Calls with a token that was issued before every event of these tests.
pub fn call(gateway: SocketAddr, subject: &str) -> Answer {
    Request::get("/any").bearer(token(subject).claim("iat", json!(now() - 60)).sign()).to(gateway)
}

/// Returns a sample of the metric of exchanged marks.
fn marks(gateway: &Portcullis, outcome: &str) -> Option<u64> {
    gateway.metric(&format!(r#"portcullis_shared_marks_total{{outcome="{outcome}"}}"#))
}

fn readiness(gateway: &Portcullis) -> Answer {
    Request::get("/readyz").to(gateway.admin())
}

#[test]
fn a_revocation_is_in_force_at_the_other_gateway_within_100_ms() {
    let redis = Redis::start();
    let one = Portcullis::with(&policy(redis.url(), "")).start();
    let two = Portcullis::with(&policy(redis.url(), "")).start();
    let mut delays: Vec<_> = (0..15)
        .map(|number| {
            let subject = format!("ada-{number}");
            call(two.http(), &subject).is(200);
            revoke(one.http(), &subject).is(202);
            let began = Instant::now();
            eventually("the other gateway refuses", || call(two.http(), &subject).status == 401);
            call(two.http(), &subject).is_refusal(401, "revoked_token");
            began.elapsed()
        })
        .collect();
    delays.sort();
    // A gateway that reads every 500 ms has a median of 250 ms. Other tests use the processors meanwhile.
    assert!(delays[delays.len() / 2] < Duration::from_millis(200), "{delays:?}");
    call(two.http(), "bob").is(200);
    // A mark whose answer was late is sent again.
    eventually("the sent marks are counted", || marks(&one, "sent") >= Some(15));
    // The second gateway does not send the marks again.
    assert_eq!((marks(&two, "received"), marks(&two, "sent")), (Some(15), Some(0)));
    let verbose = Request::get("/readyz?verbose").to(one.admin());
    let text = verbose.is(200).text();
    assert!(text.contains("answers\nshared: without an answer: limits allow, revocation deny\n"), "{text}");
    assert!(text.contains("shared: revocations of other gateways known, 0 wait to be sent\n"), "{text}");
    // Redis has digests, and no name of a subject.
    let content = redis.ask(&["XRANGE", "portcullis:marks:stream", "-", "+"]);
    assert!(content.contains("signal") && !content.contains("ada-"), "{content}");
}

#[test]
fn a_logout_at_one_gateway_reaches_the_other_sooner_than_their_store_does() {
    let redis = Redis::start();
    let store = Postgres::shared().database();
    let shared = format!("[shared]\nurl = \"{}\"\n", redis.url());
    let text = format!("{AUTHORITY}store = \"{store}\"\n{ROUTES}{shared}");
    let one = Portcullis::with(&text).start();
    let two = Portcullis::with(&text).within(one.dir().clone()).start();
    account::add(one.dir(), "ada", &[]);
    let mut last = String::new();
    let mut delays: Vec<_> = (0..6)
        .map(|_| {
            let form = format!("username=ada&password={}", account::PASSWORD.replace(' ', "+"));
            let login = Request::post("/auth/login", form)
                .header("content-type", "application/x-www-form-urlencoded")
                .to(one.http());
            let pair = Pair::of(&login);
            last = pair.access.clone();
            let call = || Request::get("/any").bearer(&pair.access).to(two.http()).status;
            assert_eq!(call(), 200);
            Request::post("/auth/logout", "").bearer(&pair.access).to(one.http());
            let began = Instant::now();
            eventually("the other gateway refuses", || call() == 401);
            began.elapsed()
        })
        .collect();
    delays.sort();
    assert!(delays[delays.len() / 2] < Duration::from_millis(200), "{delays:?}");
    // Redis can forget them: the store has them.
    redis.ask(&["FLUSHALL"]);
    let three = Portcullis::with(&text).within(one.dir().clone()).start();
    Request::get("/any").bearer(&last).to(three.http()).is_refusal(401, "revoked_token");
}

#[test]
fn a_gateway_that_comes_back_knows_every_mark_before_it_is_ready() {
    let redis = Redis::start();
    let one = Portcullis::with(&policy(redis.url(), "")).start();
    let subjects: Vec<_> = (0..30).map(|number| format!("ada-{number}")).collect();
    for subject in &subjects {
        revoke(one.http(), subject).is(202);
    }
    eventually("all are sent", || marks(&one, "sent") == Some(30));
    // Its folder is new, so it knows nothing itself.
    let two = Portcullis::with(&policy(redis.url(), "")).start();
    for subject in &subjects {
        call(two.http(), subject).is_refusal(401, "revoked_token");
    }
    call(two.http(), "bob").is(200);
}

#[test]
fn a_redis_that_lost_its_memory_revives_no_token_and_gets_the_marks_back() {
    let mut redis = Redis::start();
    let text = policy(redis.url(), "");
    let one = Portcullis::with(&text).start();
    let two = Portcullis::with(&text).start();
    revoke(one.http(), "ada").is(202);
    eventually("the other gateway refuses", || call(two.http(), "ada").status == 401);
    redis.kill();
    eventually("the breaker is open", || one.metric("portcullis_shared_up") == Some(0));
    // A mark that is made meanwhile is sent later.
    revoke(one.http(), "bob").is(202);
    for gateway in [&one, &two] {
        call(gateway.http(), "ada").is_refusal(401, "revoked_token");
        readiness(gateway).is(200);
    }
    redis.resume();
    eventually("the other gateway gets the later mark", || call(two.http(), "bob").status == 401);
    call(two.http(), "ada").is_refusal(401, "revoked_token");
    // A deleted stream is noticed without a lost connection.
    eventually("the marks are back", || redis.marks() >= 2);
    redis.ask(&["FLUSHALL"]);
    eventually("the marks are back again", || redis.marks() >= 2);
    let three = Portcullis::with(&text).start();
    call(three.http(), "ada").is_refusal(401, "revoked_token");
    call(three.http(), "bob").is_refusal(401, "revoked_token");
    call(three.http(), "eve").is(200);
    // The other gateway may have written all marks back first.
    let event = "the shared state lacked revocations: they were written back";
    let has_logged = |gateway: &Portcullis| gateway.log().iter().any(|line| line["message"] == event);
    assert!(has_logged(&one) || has_logged(&two));
}

#[test]
fn a_frozen_redis_costs_no_request_and_nothing_is_lost() {
    let redis = Redis::start();
    let text = policy(redis.url(), "");
    let one = Portcullis::with(&text).start();
    let two = Portcullis::with(&text).start();
    redis.freeze();
    let slowest = (0..50)
        .map(|_| {
            let began = Instant::now();
            call(two.http(), "ada").is(200);
            began.elapsed()
        })
        .min();
    // One request that waited for the network would take at least as long as the deadline of an answer.
    assert!(slowest.unwrap() < Duration::from_millis(100), "{slowest:?}");
    revoke(one.http(), "ada").is(202);
    call(one.http(), "ada").is_refusal(401, "revoked_token");
    eventually("the breaker is open", || two.metric("portcullis_shared_up") == Some(0));
    let event = two.wait_log("the outage", |line| line["message"] == "the shared state cannot be used");
    assert_eq!(event["reason"], "late");
    let verbose = Request::get("/readyz?verbose").to(two.admin());
    assert!(verbose.is(200).text().contains(" has failed for "), "{}", verbose.text());
    redis.thaw();
    eventually("the other gateway refuses", || call(two.http(), "ada").status == 401);
    eventually("the breaker is closed", || two.metric("portcullis_shared_up") == Some(1));
    two.wait_log("the recovery", |line| line["message"] == "the shared state answers again");
}

#[test]
fn a_gateway_without_the_marks_of_the_fleet_denies_or_allows_as_the_policy_says() {
    let redis = Redis::with(&["--requirepass", "hunter-two"]);
    let wrong = |on_error: &str| {
        let more = format!("password = \"hunter-one\"\non_error = {{ revocation = \"{on_error}\" }}\n");
        Portcullis::with(&policy(redis.url(), &more)).start()
    };
    let denies = wrong("deny");
    let event = denies.wait_log("the outage", |line| line["message"] == "the shared state cannot be used");
    assert_eq!(event["reason"], "login");
    let error = event["error"].as_str().unwrap();
    assert!(error.ends_with("check user and password of [shared]"), "{error}");
    assert!(!denies.log_text().contains("hunter"), "a password is in the log");
    call(denies.http(), "ada").is_refusal(503, "check_unavailable");
    Request::get("/open").to(denies.http()).is(200);
    readiness(&denies).is(503);
    assert_eq!(denies.metric("portcullis_ready"), Some(0));
    // The neighbour accepts the token.
    let allows = wrong("allow");
    call(allows.http(), "ada").is(200);
    readiness(&allows).is(200);
    assert_eq!(allows.metric("portcullis_ready"), Some(1));
    let denies_on_error = r#"portcullis_shared_denies_on_error{use="revocation"}"#;
    assert_eq!((denies.metric(denies_on_error), allows.metric(denies_on_error)), (Some(1), Some(0)));
    // The right password takes effect by a reload.
    let right = policy(redis.url(), "password = \"hunter-two\"\n");
    denies.dir().write("gateway.toml", crate::kit::portcullis::completed(&right));
    Request::post("/reload", "").to(denies.admin()).is(200);
    eventually("the gateway is ready", || readiness(&denies).status == 200);
    assert_eq!(denies.metric("portcullis_ready"), Some(1));
    call(denies.http(), "ada").is(200);
    assert!(!denies.log_text().contains("hunter"), "a password is in the log");
}

#[test]
fn a_writer_to_redis_can_revoke_and_do_nothing_else() {
    let redis = Redis::start();
    let text = policy(redis.url(), "");
    let one = Portcullis::with(&text).start();
    revoke(one.http(), "ada").is(202);
    eventually("the mark is sent", || redis.marks() == 1);
    let far = now() + 3600;
    let zeros = "00".repeat(16);
    for mark in [
        "garbage".to_owned(),
        "{}".to_owned(),
        format!(r#"{{"kind":"signal","id":"zz","before":1,"until":{far}}}"#),
        format!(r#"{{"kind":"token","issuer":"{zeros}","id":"t"}}"#),
        format!(r#"{{"kind":"signal","id":"{zeros}","before":0,"until":0,"revives":true}}"#),
        "x".repeat(100_000),
    ] {
        redis.ask(&["XADD", "portcullis:marks:stream", "*", "mark", &mark]);
    }
    redis.ask(&["XADD", "portcullis:marks:stream", "*", "other", "member"]);
    eventually("the entries are rejected", || marks(&one, "rejected") == Some(7));
    // An entry for the same tokens with a lower time changes nothing.
    let content = redis.ask(&["XRANGE", "portcullis:marks:stream", "-", "+", "COUNT", "1"]);
    let digest = content.split_once(r#"\"id\":\""#).map(|(_, rest)| rest[..32].to_owned());
    let digest = digest.unwrap_or_else(|| content.split_once(r#""id":""#).unwrap().1[..32].to_owned());
    let lower = format!(r#"{{"kind":"signal","id":"{digest}","before":0,"until":{far}}}"#);
    redis.ask(&["XADD", "portcullis:marks:stream", "*", "mark", &lower]);
    let valid = format!(r#"{{"kind":"signal","id":"{zeros}","before":1,"until":{far}}}"#);
    redis.ask(&["XADD", "portcullis:marks:stream", "*", "mark", &valid]);
    eventually("the valid mark is applied", || one.metric("portcullis_signal_marks") == Some(2));
    call(one.http(), "ada").is_refusal(401, "revoked_token");
    call(one.http(), "bob").is(200);
    // A key of another type is an error, and the marks stay.
    redis.ask(&["DEL", "portcullis:marks:stream"]);
    redis.ask(&["SET", "portcullis:marks:stream", "text"]);
    one.wait_log("the error", |line: &Value| {
        line["message"] == "cannot read the revocations of other gateways"
    });
    call(one.http(), "ada").is_refusal(401, "revoked_token");
    redis.ask(&["DEL", "portcullis:marks:stream"]);
    eventually("the marks are back", || redis.marks() >= 2);
}

#[test]
fn a_reload_adds_and_removes_the_shared_state_and_keeps_the_marks() {
    let (redis, other) = (Redis::start(), Redis::start());
    let alone = format!("{ISSUER}{ROUTES}{SIGNALS}");
    let one = Portcullis::with(&alone).start();
    revoke(one.http(), "ada").is(202);
    let reload = |text: &str| {
        one.dir().write("gateway.toml", crate::kit::portcullis::completed(text));
        Request::post("/reload", "").to(one.admin()).is(200);
        call(one.http(), "ada").is_refusal(401, "revoked_token");
        call(one.http(), "bob").is(200);
    };
    reload(&policy(redis.url(), ""));
    eventually("the mark is written to the first server", || redis.marks() == 1);
    reload(&policy(other.url(), ""));
    eventually("the mark is written to the second server", || other.marks() == 1);
    reload(&policy(other.url(), "prefix = \"east\"\n"));
    eventually("the mark is written under another prefix", || {
        other.ask(&["EXISTS", "east:marks:stream"]).contains('1')
    });
    reload(&alone);
    assert_eq!(one.metric("portcullis_shared_up"), None);
    revoke(one.http(), "eve").is(202);
    call(one.http(), "eve").is_refusal(401, "revoked_token");
}

/// A request that began under the policy before keeps that policy in use.
#[test]
fn after_a_reload_without_the_shared_state_nothing_of_it_runs() {
    let redis = Redis::start();
    let one = Portcullis::with(&policy(redis.url(), "")).start();
    let threads = || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", one.pid())).unwrap();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
        names.filter(|name| name.trim_end() == "shared").count()
    };
    // The connection of the calls, that of the reader of marks, and the one that asks here.
    let connections = || redis.ask(&["CLIENT", "LIST"]).matches(" resp=").count();
    assert_eq!(threads(), 1);
    eventually("both connections are open", || connections() == 3);
    let mut slow = TcpStream::connect(one.http()).unwrap();
    slow.write_all(b"POST /open HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 9\r\n\r\nbegun").unwrap();
    eventually("the request has begun", || {
        one.metric("portcullis_requests_in_progress").is_some_and(|requests| requests > 0)
    });
    one.dir().write("gateway.toml", crate::kit::portcullis::completed(&format!("{ISSUER}{ROUTES}{SIGNALS}")));
    Request::post("/reload", "").to(one.admin()).is(200);
    assert_eq!(one.metric("portcullis_policies_before_in_use"), Some(1));
    revoke(one.http(), "ada").is(202);
    call(one.http(), "ada").is_refusal(401, "revoked_token");
    eventually("the thread has ended", || threads() == 0);
    eventually("the connections are closed", || connections() == 1);
    assert_eq!(one.metric("portcullis_policies_before_in_use"), Some(1), "the old policy is still in use");
    assert_eq!(redis.marks(), 0);
    slow.write_all(b"ends").unwrap();
    let mut first = [0; 12];
    slow.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    // The shared state can come back, and gets the mark.
    one.dir().write("gateway.toml", crate::kit::portcullis::completed(&policy(redis.url(), "")));
    Request::post("/reload", "").to(one.admin()).is(200);
    eventually("the mark is sent", || redis.marks() == 1);
    revoke(one.http(), "eve").is(202);
    eventually("a later mark is sent", || redis.marks() == 2);
}
