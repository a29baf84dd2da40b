//! Gateways that pass fetched keys of issuers to each other through Redis.

use crate::key_urls::{LOCAL, ask, policy};
use crate::kit::client::Connection;
use crate::kit::dir::Dir;
use crate::kit::forge::now;
use crate::kit::key_server::{KeyServer, Signer, set_of};
use crate::kit::portcullis::{command, write_policy};
use crate::kit::redis::{FalseRedis, Redis};
use crate::kit::upstream::After;
use crate::kit::{Portcullis, Request, eventually, token};
use std::fmt::Display;
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

const SECRET: &str = "9bK2mQx7Lr4TzWc8Vn1Ys5Hd6Jf3Gp0A";
const ANOTHER: &str = "Zt6Xy1Rw8Qe3Up5Io9Ka7Sd2Fg4Hj0Lz";

fn text(server: impl Display, redis: &Redis, keys: &str, secret: &str) -> String {
    at(server, redis.url(), keys, &format!("answer_timeout = \"2s\"\n{secret}"))
}

fn at(server: impl Display, url: &str, keys: &str, shared: &str) -> String {
    let issuer = policy(&format!("jwks = \"{server}/jwks\"\n{LOCAL}{keys}"));
    format!("{issuer}\n[shared]\nurl = \"{url}\"\n{shared}")
}

fn with_secret(secret: &str) -> String {
    format!("keys_secret = \"{secret}\"\n")
}

fn start(text: &str) -> Portcullis {
    let gateway = Portcullis::with(text).start();
    eventually("Redis answers", || gateway.metric("portcullis_shared_up") == Some(1));
    gateway
}

/// Starts a gateway, and waits until it has the keys. A request that comes before can cause a second fetch.
fn started(text: &str) -> Portcullis {
    let gateway = start(text);
    has_keys(&gateway);
    gateway
}

fn has_keys(gateway: &Portcullis) {
    eventually("the gateway has the keys", || {
        gateway.metric(r#"portcullis_issuer_keys{issuer="https://id.test/"}"#) >= Some(1)
    });
}

/// Waits until the next fetch has a later time: the times of sets are whole seconds.
fn next_second() {
    let begun = now();
    eventually("a second has passed", || now() > begun);
}

fn passed(gateway: &Portcullis, outcome: &str) -> u64 {
    let labels = format!(r#"issuer="https://id.test/",outcome="{outcome}""#);
    gateway.metric(&format!("portcullis_issuer_keys_passed_total{{{labels}}}")).expect("a sample")
}

/// Returns the name of the set in Redis. A gateway passes a set on after it has answered the requests that waited for it.
fn name(redis: &Redis) -> String {
    let mut name = None;
    eventually("Redis has a set", || {
        let keys = redis.ask(&["KEYS", "portcullis:keys:*"]);
        name = keys.split(['\'', '"']).find(|part| part.starts_with("portcullis:")).map(str::to_owned);
        name.is_some()
    });
    name.expect("a set")
}

#[test]
fn a_fleet_asks_the_issuer_once_and_again_once_for_a_new_key() {
    let redis = Redis::start();
    let (one, two) = (Signer::new("1"), Signer::new("2"));
    let server = KeyServer::of(&[&one]);
    let fleet = text(&server, &redis, "", &with_secret(SECRET));
    let gateways: Vec<_> = (0..3).map(|_| started(&fleet)).collect();
    for gateway in &gateways {
        ask(gateway, &one.sign(token("ada"))).is(200);
    }
    assert_eq!(server.fetches(), 1);
    eventually("the set is passed on", || {
        gateways.iter().map(|gateway| passed(gateway, "given")).sum::<u64>() == 1
    });
    let takers: Vec<_> = gateways.iter().filter(|gateway| passed(gateway, "taken") > 0).collect();
    assert_eq!(takers.len(), 2);
    let report = Request::get("/readyz?verbose").to(takers[0].admin()).text();
    assert!(report.contains("by another gateway"), "{report}");
    // A set lives in Redis as long as it may be used.
    let left = redis.ask(&["PTTL", &name(&redis)]);
    let millis: u64 = left.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
    assert!((1..=24 * 3_600_000).contains(&millis), "{left}");

    next_second();
    server.publish(&[&one, &two]);
    let addresses: Vec<_> = gateways.iter().map(Portcullis::http).collect();
    std::thread::scope(|scope| {
        for address in addresses {
            let token = two.sign(token("ada"));
            scope.spawn(move || Request::get("/x").bearer(token).to(address).is(200).status);
        }
    });
    assert_eq!(server.fetches(), 2);
    // A key that nobody has is looked for by each gateway under its own brake.
    for gateway in &gateways {
        ask(gateway, &Signer::new("3").sign(token("eve"))).is_refusal(401, "unknown_key");
    }
    assert!(server.fetches() <= 5, "{}", server.fetches());
}

#[test]
fn a_gateway_without_the_secret_fetches_for_itself() {
    let redis = Redis::start();
    let one = Signer::new("1");
    let server = KeyServer::of(&[&one]);
    for (secret, fetches) in [(with_secret(SECRET), 1), (String::new(), 2), (String::new(), 3)] {
        let gateway = started(&text(&server, &redis, "", &secret));
        ask(&gateway, &one.sign(token("ada"))).is(200);
        assert_eq!(server.fetches(), fetches);
    }
}

#[test]
fn a_gateway_that_starts_while_the_issuer_is_away_has_the_keys_of_the_fleet() {
    let redis = Redis::start();
    let one = Signer::new("1");
    let server = KeyServer::of(&[&one]);
    // The set is due to be fetched again after one second, and may be used for an hour.
    let fleet = text(&server, &redis, "jwks_refresh = \"1s\"\njwks_max_age = \"1h\"\n", &with_secret(SECRET));
    let first = start(&fleet);
    ask(&first, &one.sign(token("ada"))).is(200);
    server.answer("503 Service Unavailable", "", "");
    eventually("the set is due and cannot be fetched", || {
        let name = r#"portcullis_issuer_key_fetches_total{issuer="https://id.test/",outcome="status"}"#;
        first.metric(name) >= Some(2)
    });
    let second = start(&fleet);
    eventually("the token is accepted", || ask(&second, &one.sign(token("ada"))).status == 200);
    assert!(passed(&second, "taken") >= 1);
    // The age counts from the fetch, and not from the start.
    let fetched = "portcullis_issuer_keys_fetched_timestamp_seconds{issuer=\"https://id.test/\"}";
    assert_eq!(second.metric(fetched), first.metric(fetched));
    // The neighbour has another secret, and no keys.
    let stranger = start(&fleet.replace(SECRET, ANOTHER));
    ask(&stranger, &one.sign(token("ada"))).is_refusal(503, "check_unavailable");
    assert!(passed(&stranger, "rejected") >= 1);
}

/// The issuer publishes a second key, and then goes away. A gateway that had the set before gets the newer one.
#[test]
fn a_gateway_whose_issuer_is_away_uses_the_newest_set_of_the_fleet() {
    let redis = Redis::start();
    let (one, two) = (Signer::new("1"), Signer::new("2"));
    let server = KeyServer::of(&[&one]);
    let fleet = text(&server, &redis, "jwks_refresh = \"1s\"\njwks_max_age = \"1h\"\n", &with_secret(SECRET));
    let early = start(&fleet);
    ask(&early, &one.sign(token("ada"))).is(200);
    let dir = early.dir().clone();
    let copies = dir.path().join("state/issuer-keys");
    eventually("the copy is written", || std::fs::read_dir(&copies).is_ok_and(|files| files.count() == 1));
    early.stop();
    next_second();
    server.publish(&[&one, &two]);
    let late = start(&fleet);
    ask(&late, &two.sign(token("ada"))).is(200);
    let given = passed(&late, "given");
    eventually("a set with both keys is in Redis", || passed(&late, "given") > given);
    let newest = Instant::now();
    server.answer("503 Service Unavailable", "", "");
    eventually("the set is due to be fetched again", || newest.elapsed() > Duration::from_secs(2));
    let early = Portcullis::with(&fleet).within(dir).start();
    ask(&early, &two.sign(token("ada"))).is(200);
    ask(&early, &one.sign(token("ada"))).is(200);
    assert!(passed(&early, "taken") >= 1);
}

/// A recorded set with a key that the issuer has withdrawn is due to be fetched again, so a gateway that starts asks the
/// issuer, and uses no key of the set before the answer.
#[test]
fn a_recorded_set_revives_no_withdrawn_key_while_the_issuer_answers() {
    let redis = Redis::start();
    let (one, two) = (Signer::new("1"), Signer::new("2"));
    let server = KeyServer::of(&[&one]);
    let fleet = text(&server, &redis, "jwks_refresh = \"1s\"\njwks_max_age = \"1h\"\n", &with_secret(SECRET));
    let first = start(&fleet);
    ask(&first, &one.sign(token("ada"))).is(200);
    eventually("the set is in Redis", || passed(&first, "given") >= 1);
    let set = name(&redis);
    redis.ask(&["COPY", &set, "old"]);
    let recorded = Instant::now();
    drop(first);
    let (release, held) = mpsc::channel::<()>();
    let (held, keys) = (Mutex::new(held), set_of(&[&two]).to_string());
    server.follow(move |_, wire| {
        // After the test, the channel is closed.
        let _ = held.lock().unwrap().recv_timeout(Duration::from_secs(8));
        wire.answer("200 OK", "", &keys);
        After::Close
    });
    eventually("the set is due to be fetched again", || recorded.elapsed() > Duration::from_secs(2));
    redis.ask(&["COPY", "old", &set, "REPLACE"]);
    let second = start(&fleet);
    let mut withdrawn = Connection::open(second.http());
    withdrawn.send(Request::get("/x").bearer(one.sign(token("ada"))).bytes());
    eventually("the request waits", || {
        second.metric("portcullis_issuer_key_waiting{issuer=\"https://id.test/\"}") == Some(1)
    });
    drop(release);
    withdrawn.answer().is_refusal(401, "unknown_key");
    ask(&second, &two.sign(token("ada"))).is(200);
    assert_eq!(passed(&second, "taken"), 0);
}

#[test]
fn a_writer_to_redis_plants_no_key_and_brings_no_old_key_back() {
    let redis = Redis::start();
    let (one, two, evil) = (Signer::new("1"), Signer::new("2"), Signer::new("evil"));
    let server = KeyServer::of(&[&evil]);
    let fleet = text(&server, &redis, "", &with_secret(SECRET));
    // A gateway with another secret stands for the writer.
    let mallory = start(&fleet.replace(SECRET, ANOTHER));
    ask(&mallory, &evil.sign(token("eve"))).is(200);
    eventually("the writer's set is in Redis", || passed(&mallory, "given") >= 1);
    server.publish(&[&one]);
    let gateway = start(&fleet);
    ask(&gateway, &one.sign(token("ada"))).is(200);
    ask(&gateway, &evil.sign(token("eve"))).is_refusal(401, "unknown_key");
    assert!(passed(&gateway, "rejected") >= 1);
    gateway.wait_log("the warning", |line| {
        line["message"].as_str().is_some_and(|event| event.contains("not authentic"))
    });
    // Every change is noticed.
    let set = name(&redis);
    for change in [
        &["SETRANGE", &*set, "50", "XX"][..],
        &["SET", &*set, ""],
        &["SET", &*set, "{}"],
        &["DEL", &*set],
        &["RPUSH", &*set, "x"],
    ] {
        if change[0] == "RPUSH" {
            redis.ask(&["DEL", &set]);
        }
        redis.ask(change);
        let fetches = server.fetches();
        let another = started(&fleet);
        ask(&another, &one.sign(token("ada"))).is(200);
        assert_eq!(server.fetches(), fetches + 1, "{change:?}");
        redis.ask(&["DEL", &set]);
        ask(&another, &evil.sign(token("eve"))).is_refusal(401, "unknown_key");
    }
    // An old set does not replace a newer one.
    let keeper = start(&fleet);
    ask(&keeper, &one.sign(token("ada"))).is(200);
    eventually("the set is in Redis", || {
        redis.try_ask(&["COPY", &set, "old"]).is_some_and(|is| is.contains('1'))
    });
    server.publish(&[&two]);
    ask(&keeper, &two.sign(token("ada"))).is(200);
    redis.ask(&["COPY", "old", &set, "REPLACE"]);
    ask(&keeper, &one.sign(token("ada"))).is_refusal(401, "unknown_key");
    ask(&keeper, &two.sign(token("ada"))).is(200);
}

#[test]
fn without_redis_each_gateway_fetches_for_itself_and_no_turn_blocks_a_fetch() {
    let mut redis = Redis::start();
    let (one, two) = (Signer::new("1"), Signer::new("2"));
    let server = KeyServer::of(&[&one]);
    let fleet = text(&server, &redis, "", &with_secret(SECRET));
    let gateway = start(&fleet);
    ask(&gateway, &one.sign(token("ada"))).is(200);
    // Another gateway has taken the turn and died.
    redis.ask(&["SET", &name(&redis).replace(":keys:", ":keys-turn:"), "x"]);
    server.publish(&[&one, &two]);
    ask(&gateway, &two.sign(token("ada"))).is(200);
    redis.kill();
    let alone = Portcullis::with(&fleet).start();
    ask(&alone, &one.sign(token("ada"))).is(200);
}

#[test]
fn while_redis_is_frozen_each_gateway_fetches_for_itself() {
    let redis = Redis::start();
    let (one, two) = (Signer::new("1"), Signer::new("2"));
    let server = KeyServer::of(&[&one]);
    let fleet = at(&server, redis.url(), "", &with_secret(SECRET));
    let gateway = start(&fleet);
    ask(&gateway, &one.sign(token("ada"))).is(200);
    redis.freeze();
    server.publish(&[&one, &two]);
    ask(&gateway, &two.sign(token("ada"))).is(200);
    let another = Portcullis::with(&fleet).start();
    ask(&another, &two.sign(token("ada"))).is(200);
    redis.thaw();
}

/// No answer of a server keeps a gateway from asking the issuer.
#[test]
fn a_gateway_fetches_for_itself_if_redis_gives_wrong_answers() {
    let one = Signer::new("1");
    let server = KeyServer::of(&[&one]);
    let answers = [
        ("+OK", ":7"),
        ("+OK", "*-1"),
        ("+OK", "*2\r\n:1\r\n$-1"),
        ("+OK", "$3\r\nabc"),
        ("-OOM no memory", "$-1"),
        ("-OOM no memory", "-WRONGTYPE not a string"),
        // Another gateway appears to ask the issuer, and never ends.
        (":7", "$0\r\n"),
        ("$-1", "$40\r\n0123456789012345678901234567890123456789"),
    ];
    for (set, get) in answers {
        let redis = FalseRedis::start(move |words: &[String]| {
            let answer = match words[0].as_str() {
                "PING" => "+PONG",
                "ROLE" => "*1\r\n+master",
                "XRANGE" | "XREAD" => "*0",
                "SET" => set,
                "GETRANGE" => get,
                _ => "-ERR unknown",
            };
            format!("{answer}\r\n").into_bytes()
        });
        let fetches = server.fetches();
        let gateway = Portcullis::with(&at(&server, redis.url(), "", &with_secret(SECRET))).start();
        has_keys(&gateway);
        ask(&gateway, &one.sign(token("ada"))).is(200);
        assert_eq!(server.fetches(), fetches + 1, "{set} {get}");
        assert_eq!(passed(&gateway, "taken"), 0);
    }
}

#[test]
fn a_weak_secret_of_the_key_sets_is_refused() {
    let dir = Dir::new();
    let redis = "[shared]\nurl = \"redis://127.0.0.1\"\n";
    for (keys, id, key) in [
        ("keys_secret = \"short\"", "weak_secret", "shared.keys_secret"),
        ("other_keys_secret = \"9bK2mQx7Lr4TzWc8Vn1Ys5Hd6Jf3Gp0A\"", "missing_key", "shared.keys_secret"),
    ] {
        write_policy(&dir, &format!("{}\n{redis}{keys}\n", policy("jwks = \"https://id.test/jwks\"")));
        let checked = command(&dir, &["check", "--format", "json"]);
        let found = checked.text();
        assert!(found.contains(&format!("\"{id}\"")) && found.contains(&format!("\"{key}\"")), "{found}");
    }
}
