//! Commands that Redis refuses while it answers.

use crate::kit::redis::Redis;
use crate::kit::{Portcullis, Request, eventually};
use crate::shared::{call, policy, revoke};

const COMMANDS: &str = "+ping +role +xadd +xrange +xread +set +evalsha +script|load +time +hgetall +hset +hdel \
                        +pexpire +zadd +zremrangebyscore +zcard";

/// Changes the permissions of the user `gateway`.
fn permit(redis: &Redis, rules: &str) {
    let words: Vec<&str> = ["ACL", "SETUSER", "gateway"].into_iter().chain(rules.split(' ')).collect();
    redis.ask(&words);
}

fn start(redis: &Redis, more: &str) -> Portcullis {
    permit(redis, &format!("on >hidden ~portcullis:* -@all {COMMANDS}"));
    let gateway =
        Portcullis::with(&policy(redis.url(), &format!("user = \"gateway\"\npassword = \"hidden\"\n{more}")))
            .start();
    eventually("the limits are up", || gateway.metric("portcullis_shared_limits_up") == Some(1));
    gateway
}

fn refused(gateway: &Portcullis, command: &str, error: &str) -> u64 {
    let sample = format!(r#"portcullis_shared_refused_total{{command="{command}",error="{error}"}}"#);
    gateway.metric(&sample).unwrap_or_default()
}

/// Returns the number of log lines about a kind of refusal.
fn lines(gateway: &Portcullis, command: &str, error: &str) -> usize {
    let is_of = |line: &serde_json::Value| {
        line["message"] == "the shared state refuses a command"
            && line["command"] == command
            && line["error"] == error
    };
    gateway.log().iter().filter(|line| is_of(line)).count()
}

/// Checks that a kind of refusal is logged once, counted each time, and named at `/readyz?verbose`, and that the server
/// counts as one that answers.
#[track_caller]
fn is_reported(gateway: &Portcullis, command: &str, error: &str) {
    eventually("several commands are refused", || refused(gateway, command, error) >= 3);
    eventually("the refusal is logged", || lines(gateway, command, error) > 0);
    assert_eq!(lines(gateway, command, error), 1, "{}", gateway.log_text());
    let text = Request::get("/readyz?verbose").to(gateway.admin()).text();
    assert!(text.contains(&format!("shared: {command} refused with {error}, ")), "{text}");
    assert_eq!(gateway.metric("portcullis_shared_up"), Some(1));
    assert!(!gateway.log_text().contains("hidden"), "a password is in the log");
}

#[test]
fn a_command_that_the_user_may_not_use_is_named_and_the_neighbour_goes_on() {
    let redis = Redis::start();
    let gateway = start(&redis, "");
    permit(&redis, "-xadd");
    revoke(gateway.http(), "ada").is(202);
    is_reported(&gateway, "XADD", "NOPERM");
    assert_eq!(refused(&gateway, "XREAD", "NOPERM"), 0);
    // A command inside a script has no word of its own.
    permit(&redis, "+xadd -zadd");
    is_reported(&gateway, "EVALSHA", "NOPERM");
    permit(&redis, "+zadd");
    eventually("the mark is sent", || redis.marks() == 1);
    eventually("the limits are up", || gateway.metric("portcullis_shared_limits_up") == Some(1));
    let failures = gateway.metric(r#"portcullis_shared_failures_total{reason="refused"}"#);
    assert!(failures >= Some(6), "{failures:?}");
}

#[test]
fn a_full_memory_is_named_and_revocations_are_sent_once_there_is_room() {
    let redis = Redis::start();
    let gateway = start(&redis, "");
    redis.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    revoke(gateway.http(), "ada").is(202);
    is_reported(&gateway, "XADD", "OOM");
    is_reported(&gateway, "EVALSHA", "OOM");
    call(gateway.http(), "ada").is_refusal(401, "revoked_token");
    redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    eventually("the mark is sent", || redis.marks() == 1);
}

/// A Redis that cannot save its memory refuses writes, and even PING.
#[test]
fn a_redis_that_cannot_save_is_read_and_named() {
    let redis = Redis::start();
    let gateway = start(&redis, "");
    revoke(gateway.http(), "ada").is(202);
    eventually("the mark is sent", || redis.marks() == 1);
    std::fs::create_dir_all(redis.dir().path().join("dump.rdb/full")).unwrap();
    redis.ask(&["CONFIG", "SET", "save", "3600 1000000"]);
    redis.ask(&["BGSAVE"]);
    eventually("writes are refused", || redis.try_ask(&["SET", "x", "y"]).is_none());
    revoke(gateway.http(), "bob").is(202);
    is_reported(&gateway, "XADD", "MISCONF");
    is_reported(&gateway, "PING", "MISCONF");
    // A gateway that starts meanwhile reads the marks.
    let two = Portcullis::with(&policy(redis.url(), "")).start();
    call(two.http(), "ada").is_refusal(401, "revoked_token");
    call(two.http(), "eve").is(200);
    assert_eq!(Request::get("/readyz").to(two.admin()).status, 200);
    std::fs::remove_dir_all(redis.dir().path().join("dump.rdb")).unwrap();
    redis.ask(&["BGSAVE"]);
    eventually("the later mark is sent", || call(two.http(), "bob").status == 401);
}

#[test]
fn a_key_of_another_type_is_named_though_other_keys_of_the_batch_are_answered() {
    let redis = Redis::start();
    let more = "[rate_limit.x]\nrate = \"1000/s\"\nby = \"client_ip\"\n\
                [[route]]\npath = \"/limited\"\nupstream = \"echo\"\naccess = \"public\"\nrate_limits = \"x\"\n";
    let gateway = start(&redis, more);
    let ask = || Request::get("/limited").to(gateway.http()).status;
    // The key lives for moments, so it is taken from the answer that has it.
    let mut key = None;
    eventually("Redis has the key of the limit", || {
        ask();
        let keys = redis.ask(&["KEYS", "portcullis:limit:*:*"]);
        key = keys.split(['"', '\'']).find(|part| part.matches(':').count() == 3).map(str::to_owned);
        key.is_some()
    });
    redis.ask(&["SET", &key.expect("a key"), "text"]);
    eventually("commands are refused", || {
        ask();
        refused(&gateway, "EVALSHA", "WRONGTYPE") >= 3
    });
    is_reported(&gateway, "EVALSHA", "WRONGTYPE");
}

/// A replica answers questions, and takes no revocation.
#[test]
fn a_server_that_is_a_replica_is_not_used() {
    let redis = Redis::at_port(|_, port| ["--port".to_owned(), port.to_string()].into());
    redis.ask(&["REPLICAOF", "127.0.0.1", &crate::kit::port::reserve().port().to_string()]);
    let gateway = Portcullis::with(&policy(redis.url(), "")).start();
    let event = gateway.wait_log("the outage", |line| line["message"] == "the shared state cannot be used");
    assert_eq!(event["reason"], "connect");
    assert!(
        event["error"].as_str().is_some_and(|why| why.contains("is a replica, not the master")),
        "{event}"
    );
    redis.ask(&["REPLICAOF", "NO", "ONE"]);
    eventually("the gateway connects", || gateway.metric("portcullis_shared_up") == Some(1));
    // A server that becomes one is left, and the log has one outage.
    redis.ask(&["REPLICAOF", "127.0.0.1", &crate::kit::port::reserve().port().to_string()]);
    revoke(gateway.http(), "ada").is(202);
    eventually("the gateway leaves it", || gateway.metric("portcullis_shared_up") == Some(0));
    eventually("several connections are refused", || {
        gateway.metric(r#"portcullis_shared_failures_total{reason="connect"}"#) >= Some(8)
    });
    let outages = gateway.log().iter().filter(|line| line["message"] == event["message"]).count();
    assert!((2..=3).contains(&outages), "{}", gateway.log_text());
    redis.ask(&["REPLICAOF", "NO", "ONE"]);
    eventually("the mark is sent", || redis.marks() == 1);
}

#[test]
fn a_login_that_the_server_repeats_in_its_error_is_not_logged() {
    let redis = Redis::with(&["--rename-command", "AUTH", ""]);
    let gateway = Portcullis::with(&policy(redis.url(), "password = \"hunter-two\"\n")).start();
    gateway.wait_log("the outage", |line| line["message"] == "the shared state cannot be used");
    let text = Request::get("/readyz?verbose").to(gateway.admin()).text();
    assert!(
        !text.contains("hunter") && !gateway.log_text().contains("hunter"),
        "{text}{}",
        gateway.log_text()
    );
}
