//! Gateways that count failed logins together, through Redis.

use crate::ECHO_ROOT;
use crate::kit::account::{self, AUTHORITY, PASSWORD, try_login};
use crate::kit::dir::Dir;
use crate::kit::portcullis::{command, write_policy};
use crate::kit::postgres::Postgres;
use crate::kit::redis::Redis;
use crate::kit::{Answer, Portcullis, Request, eventually};
use std::time::{Duration, Instant};

/// The longest delay of the throttle in seconds: the time after which it forgets a failure of a pair.
const DELAY_MAX: u64 = 24 * 60;
/// A login waits 100 ms for Redis. The rest is for the password check on a busy machine.
const LOGIN_MAX: Duration = Duration::from_secs(5);

/// Returns a policy with an authority whose endpoints have no limits, so that only the throttle refuses logins.
fn policy(redis: &str, more: &str) -> String {
    format!("{AUTHORITY}limits = {{ login = [] }}\n{ECHO_ROOT}\n[shared]\n{redis}\n{more}\n")
}

/// Returns the policy with this Redis, for which a login waits long enough on a busy machine.
fn at(redis: &Redis, more: &str) -> String {
    policy(&format!("url = \"{}\"\nanswer_timeout = \"2s\"", redis.url()), more)
}

fn start(text: &str) -> Portcullis {
    let gateway = Portcullis::with(text).start();
    eventually("Redis answers", || gateway.metric("portcullis_shared_up") == Some(1));
    gateway
}

fn logins(gateway: &Portcullis, outcome: &str) -> Option<u64> {
    gateway.metric(&format!(r#"portcullis_shared_logins_total{{outcome="{outcome}"}}"#))
}

/// Returns the wait of a refused login in seconds, and 0 if the gateway has checked the password.
#[track_caller]
fn wait_of(answer: &Answer) -> u64 {
    if answer.status != 429 {
        answer.is_refusal(401, "bad_credentials");
        return 0;
    }
    answer.is_refusal(429, "too_many_attempts");
    answer.header("retry-after").and_then(|seconds| seconds.parse().ok()).expect("a number of seconds")
}

#[track_caller]
fn guess(gateway: &Portcullis, name: &str) -> u64 {
    wait_of(&try_login(gateway.http(), name, "a wrong one"))
}

/// Guesses at the gateways in turn until one of them asks to wait for at least this many seconds. Returns the number of
/// checked passwords. No gateway alone checks as many as it does without a delay.
fn guess_until(gateways: &[Portcullis], name: &str, seconds: u64) -> usize {
    let mut checked = 0;
    eventually("the fleet refuses", || {
        let wait = guess(&gateways[checked % gateways.len()], name);
        checked += usize::from(wait == 0);
        assert!(checked < 5 * gateways.len(), "each gateway counts for itself");
        wait >= seconds
    });
    checked
}

/// Returns the names and the values of the counters in Redis.
fn counters(redis: &Redis) -> Vec<(String, String)> {
    let keys = redis.ask(&["KEYS", "portcullis:*login*"]);
    let names = keys.split(['\'', '"']).filter(|part| part.starts_with("portcullis:"));
    names.map(|name| (name.to_owned(), redis.ask(&["GET", name]))).collect()
}

/// Returns the three numbers of a counter: when it was written, and its two durations. All are in milliseconds.
fn numbers(value: &str) -> Vec<u64> {
    let text = value.trim_matches(|c: char| !c.is_ascii_digit());
    text.split(' ').map(|number| number.parse().expect("a number")).collect()
}

#[test]
fn failures_spread_over_three_gateways_delay_all_of_them_and_outlive_their_restart() {
    let redis = Redis::start();
    let text = at(&redis, "");
    let gateways: Vec<_> = (0..3).map(|_| start(&text)).collect();
    // A delay of several seconds, so that the next guesses come within it.
    let checked = guess_until(&gateways, "nobody", 5);
    assert!(checked >= 5, "five attempts are free: {checked}");
    for gateway in &gateways {
        let wait = guess(gateway, "nobody");
        assert!((1..=8).contains(&wait), "{wait}");
    }
    assert!(gateways.iter().any(|gateway| logins(gateway, "throttled") >= Some(1)));
    let admitted = gateways.iter().filter_map(|gateway| logins(gateway, "admitted")).sum::<u64>();
    assert_eq!(admitted, checked as u64);
    // Another account has no delay.
    assert_eq!(guess(&gateways[0], "somebody"), 0);
    // Redis holds no name and no address, and forgets every counter.
    let counters = counters(&redis);
    assert_eq!(counters.len(), 5, "two accounts and pairs, one address: {counters:?}");
    for (name, value) in &counters {
        assert!(!name.contains("nobody") && !name.contains("127.0.0.1"), "{name}");
        assert_eq!(numbers(value).len(), 3, "{value}");
        let expires = redis.ask(&["PTTL", name]);
        let millis: u64 = expires.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
        assert!(millis <= 13 * DELAY_MAX * 1000, "{expires}");
    }
    drop(gateways);
    let another = start(&text);
    // The eighth failure causes a delay of eight seconds.
    let mut checked = 0;
    eventually("the counters outlive the gateways", || {
        let wait = guess(&another, "nobody");
        checked += usize::from(wait == 0);
        wait >= 5
    });
    assert!(checked < 5, "without the counters, five attempts are free: {checked}");
}

#[test]
fn guesses_at_many_accounts_from_one_network_are_counted_by_the_fleet() {
    let redis = Redis::start();
    let gateways: Vec<_> = (0..3).map(|_| start(&at(&redis, ""))).collect();
    let refused = (0..40).find(|number| guess(&gateways[number % 3], &format!("account-{number}")) > 0);
    assert!(refused >= Some(20), "twenty attempts are free: {refused:?}");
}

#[test]
fn a_login_clears_the_failures_of_its_account_at_every_gateway() {
    let redis = Redis::start();
    let store = Postgres::shared().database();
    let text = at(&redis, "").replace("limits =", &format!("store = \"{store}\"\nlimits ="));
    let first = start(&text);
    let dir = first.dir().clone();
    let others = [(); 2].map(|()| {
        let gateway = Portcullis::with(&text).within(dir.clone()).start();
        eventually("Redis answers", || gateway.metric("portcullis_shared_up") == Some(1));
        gateway
    });
    let [second, third] = &others;
    account::add(&dir, "ada", &[]);
    for gateway in [&first, second, third, &first] {
        assert_eq!(guess(gateway, "ada"), 0);
    }
    assert_eq!(counters(&redis).len(), 3, "account, pair and address");
    try_login(second.http(), "ada", PASSWORD).is(200);
    eventually("the login clears the account and the pair", || counters(&redis).len() == 1);
    // The address keeps its four failures, so that an attacker with an account cannot reset it.
    let (_, of_address) = &counters(&redis)[0];
    let gone = numbers(of_address)[1];
    assert!((3 * 180_000 + 1..=4 * 180_000).contains(&gone), "{of_address}");
    for gateway in [third, &first, second, third] {
        assert_eq!(guess(gateway, "ada"), 0);
    }
}

#[test]
fn without_an_answer_logins_pass_or_are_refused_as_the_policy_says_and_none_waits_long() {
    for frozen in [true, false] {
        let mut redis = Redis::start();
        let url = format!("url = \"{}\"\nanswer_timeout = \"100ms\"", redis.url());
        let allows = start(&policy(&url, ""));
        let denies = start(&policy(&url, "on_error = { login = \"deny\" }"));
        for gateway in [&allows, &denies] {
            account::add(gateway.dir(), "ada", &[]);
            eventually("a login passes", || try_login(gateway.http(), "ada", PASSWORD).status == 200);
        }
        let before = logins(&denies, "denied");
        if frozen {
            redis.freeze();
        } else {
            redis.kill();
        }
        let timed = |gateway: &Portcullis, name: &str, password: &str| {
            let began = Instant::now();
            let answer = try_login(gateway.http(), name, password);
            assert!(began.elapsed() < LOGIN_MAX, "{:?}", began.elapsed());
            answer
        };
        for _ in 0..4 {
            timed(&allows, "ada", PASSWORD).is(200);
            timed(&denies, "ada", PASSWORD).is_refusal(503, "login_unavailable");
        }
        // Each gateway still has its own throttle.
        let refused = (0..12).find(|_| wait_of(&timed(&allows, "nobody", "a wrong one")) > 0);
        assert!(refused >= Some(5), "{refused:?}");
        assert!(logins(&allows, "alone") >= Some(9), "{:?}", logins(&allows, "alone"));
        let denied = logins(&denies, "denied").zip(before).map(|(now, before)| now - before);
        assert_eq!((logins(&allows, "denied"), denied), (Some(0), Some(4)));
        let ready = Request::get("/readyz?verbose").to(denies.admin()).text();
        assert!(ready.contains("login deny"), "{ready}");
        let denies_on_error =
            |gateway: &Portcullis| gateway.metric(r#"portcullis_shared_denies_on_error{use="login"}"#);
        assert_eq!((denies_on_error(&allows), denies_on_error(&denies)), (Some(0), Some(1)));
        if frozen {
            redis.thaw();
        } else {
            redis.resume();
        }
        eventually("logins are checked again", || try_login(denies.http(), "ada", PASSWORD).status == 200);
    }
}

#[test]
fn a_redis_that_refuses_the_script_is_one_that_does_not_answer() {
    // The last two permissions are those of commands in the script.
    for permission in ["-evalsha", "-getrange", "-set"] {
        let redis = Redis::start();
        let (allows, denies) =
            (start(&at(&redis, "")), start(&at(&redis, "on_error = { login = \"deny\" }")));
        redis.ask(&["ACL", "SETUSER", "default", permission]);
        for _ in 0..2 {
            assert_eq!(guess(&allows, "nobody"), 0);
        }
        try_login(denies.http(), "nobody", "x").is_refusal(503, "login_unavailable");
        let unasked = (logins(&allows, "alone"), logins(&denies, "denied"));
        assert_eq!(unasked, (Some(2), Some(1)), "{permission}");
    }
}

#[test]
fn foreign_values_in_redis_admit_no_more_guesses_and_lock_nobody_out() {
    let redis = Redis::start();
    let text = at(&redis, "");
    let mut gateway = start(&text);
    let long = "9".repeat(500);
    let many = "7".repeat(200_000);
    let values = [
        "",
        " ",
        "x",
        "0",
        "-1 -1 -1",
        "nan nan nan",
        "inf inf inf",
        "1 2",
        "1 2 3 4",
        "1e300 1e300 1e300",
        "0x10 0x10 0x10",
        "99999999999999999999999 0 0",
        "0 99999999999999999999999 0",
        "0 0 99999999999999999999999",
        "\0 \u{1} \u{7f}",
        "1 2 3\n",
        &many,
    ];
    let hostile = values.map(str::to_owned).into_iter().chain([format!("{long} {long} {long}")]);
    for (number, value) in hostile.enumerate() {
        // The gateway's own throttle must not refuse before Redis is asked.
        if number % 8 == 7 {
            gateway = start(&text);
        }
        let name = format!("account-{number}");
        assert_eq!(guess(&gateway, &name), 0);
        for (key, _) in counters(&redis) {
            redis.ask(&["SET", &key, &value]);
        }
        let wait = guess(&gateway, &name);
        assert!(wait <= DELAY_MAX, "{wait} after {value:.40}");
        // The counter is usable again, and it expires.
        for (key, value) in counters(&redis) {
            let left = redis.ask(&["PTTL", &key]);
            assert!(numbers(&value).len() == 3 && !left.contains('-'), "{left} {value:.40}");
        }
        redis.ask(&["FLUSHALL"]);
    }
    // A key of another type is replaced.
    let gateway = start(&text);
    assert_eq!(guess(&gateway, "other"), 0);
    for (key, _) in counters(&redis) {
        redis.ask(&["DEL", &key]);
        redis.ask(&["RPUSH", &key, "1 2 3"]);
    }
    let wait = guess(&gateway, "other");
    assert!((1..=DELAY_MAX).contains(&wait), "{wait}");
    assert!(counters(&redis).iter().all(|(_, value)| numbers(value).len() == 3));
    // A writer that deletes every failure does not make a gateway forget its own.
    let gateway = start(&text);
    let refused = (0..12).find(|_| {
        redis.ask(&["FLUSHALL"]);
        guess(&gateway, "victim") > 0
    });
    assert!(refused >= Some(5), "{refused:?}");
    assert_eq!((logins(&gateway, "alone"), logins(&gateway, "denied")), (Some(0), Some(0)));
}

#[test]
fn a_redis_whose_clock_moved_back_makes_no_delay_longer() {
    let redis = Redis::start();
    let gateways: Vec<_> = (0..3).map(|_| start(&at(&redis, ""))).collect();
    // To the script, a value of next month is one that was written before the clock moved back by a month.
    let move_back = || {
        for (key, value) in counters(&redis) {
            let [at, gone, next] = numbers(&value)[..] else { panic!("{value}") };
            redis.ask(&["SET", &key, &format!("{} {gone} {next}", at + 30 * 86_400_000)]);
        }
    };
    for gateway in &gateways {
        assert_eq!(guess(gateway, "nobody"), 0);
    }
    move_back();
    assert_eq!(guess(&gateways[0], "nobody"), 0, "three failures do not become more");
    let longest = counters(&redis).iter().map(|(_, value)| numbers(value)[1]).max().unwrap();
    assert!(longest <= 4 * DELAY_MAX * 1000, "{longest}");
    guess_until(&gateways, "nobody", 1);
    move_back();
    let wait = guess(&gateways[1], "nobody");
    assert!(wait <= 8, "{wait}");
    eventually("the delay ends", || guess(&gateways[1], "nobody") == 0);
}

#[test]
fn a_cluster_counts_all_attempts_at_one_node() {
    let nodes = Redis::cluster();
    for prefix in ["portcullis", "{fleet}", "a{b"] {
        let redis =
            format!("cluster = [\"{}\"]\nanswer_timeout = \"2s\"\nprefix = \"{prefix}\"", nodes[0].url());
        let gateway = start(&policy(&redis, ""));
        assert_eq!(guess(&gateway, "nobody"), 0);
        assert_eq!((logins(&gateway, "admitted"), logins(&gateway, "alone")), (Some(1), Some(0)), "{prefix}");
    }
}

#[test]
fn a_check_states_what_happens_without_an_answer() {
    let dir = Dir::new();
    let redis = "url = \"redis://127.0.0.1\"";
    for (more, stated) in [("", "login allow"), ("on_error = { login = \"deny\" }", "login deny")] {
        write_policy(&dir, &policy(redis, more));
        let checked = command(&dir, &["check"]);
        assert_eq!(checked.code, Some(0), "{}", checked.text());
        assert!(checked.text().contains(&format!(", {stated}, ")), "{}", checked.text());
    }
}
