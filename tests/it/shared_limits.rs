//! Limits that several gateways share through Redis.

use crate::kit::redis::Redis;
use crate::kit::{Connection, Portcullis, Request, eventually};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Returns a policy with a limit on the route `/limited`. Unless `shared` says otherwise, requests wait long enough for Redis on
/// a busy machine.
fn policy(redis: &Redis, limit: &str, shared: &str) -> String {
    let patience = if shared.contains("answer_timeout") { "" } else { "answer_timeout = \"2s\"" };
    format!(
        r#"
        [upstream.echo]
        builtin = "echo"

        [shared]
        url = "{}"
        {patience}
        {shared}

        [rate_limit.fleet]
        by = "client_ip"
        {limit}

        [[route]]
        path        = "/limited"
        upstream    = "echo"
        access      = "public"
        rate_limits = "fleet"

        [[route]]
        path     = "/free"
        upstream = "echo"
        access   = "public"
        "#,
        redis.url(),
    )
}

/// Starts gateways that know each other.
fn fleet(redis: &Redis, count: u64, limit: &str, shared: &str) -> Vec<Portcullis> {
    let start = |_| Portcullis::with(&policy(redis, limit, shared)).start();
    let gateways: Vec<_> = (0..count).map(start).collect();
    eventually("the gateways know each other", || {
        let knows = |gateway: &Portcullis| gateway.metric("portcullis_shared_gateways") == Some(count);
        gateways.iter().all(|gateway| is_up(gateway) && knows(gateway))
    });
    gateways
}

fn is_up(gateway: &Portcullis) -> bool {
    gateway.metric("portcullis_shared_limits_up") == Some(1)
}

fn status(gateway: &Portcullis) -> u16 {
    Request::get("/limited").to(gateway.http()).status
}

/// Sends requests for a while over one connection, with a pause between two. Returns how many were admitted.
fn admitted(address: SocketAddr, end: Instant, pause: Duration) -> usize {
    let mut connection = Connection::open(address);
    let mut admitted = 0;
    while Instant::now() < end {
        match Request::get("/limited").over(&mut connection).status {
            200 => admitted += 1,
            429 => {}
            other => panic!("{other}"),
        }
        std::thread::sleep(pause);
    }
    admitted
}

#[test]
fn a_limit_holds_for_three_gateways_under_uneven_load() {
    let redis = Redis::start();
    let gateways = fleet(&redis, 3, "rate = \"200/s\"\nburst = 100", "");
    let total = AtomicUsize::new(0);
    let began = Instant::now();
    let end = began + Duration::from_millis(1_500);
    std::thread::scope(|scope| {
        for (gateway, pause) in [(0, 1), (0, 1), (1, 2), (2, 40)] {
            let (address, total) = (gateways[gateway].http(), &total);
            scope.spawn(move || {
                total.fetch_add(admitted(address, end, Duration::from_millis(pause)), Ordering::Relaxed);
            });
        }
    });
    let (total, allowed) = (total.into_inner() as f64, 100.0 + 200.0 * began.elapsed().as_secs_f64());
    // Three gateways that count for themselves would admit twice as many.
    assert!(total <= allowed * 1.03, "{total} of {allowed}");
    assert!(total >= allowed * 0.85, "{total} of {allowed}");
    let reports = gateways[0].metric(r#"portcullis_shared_limit_reports_total{outcome="answered"}"#);
    assert!(reports > Some(10), "{reports:?}");
}

#[test]
fn the_fields_speak_of_the_fleet_and_redis_learns_no_address() {
    let redis = Redis::start();
    let gateways = fleet(&redis, 2, "rate = \"1/m\"\nburst = 20", "");
    for _ in 0..8 {
        assert_eq!(status(&gateways[0]), 200);
    }
    let left = |gateway: &Portcullis| {
        let answer = Request::get("/limited").to(gateway.http());
        let field = answer.is(200).header("ratelimit").expect("a field").to_owned();
        field.split(&['=', ';'][..]).nth(2).and_then(|left| left.parse::<u32>().ok()).expect("a number")
    };
    // The answer to the first request states how much is left.
    left(&gateways[1]);
    eventually("the other gateway knows the requests", || left(&gateways[1]) < 12);
    let keys = redis.ask(&["KEYS", "portcullis:limit:*"]);
    assert!(!keys.contains("127.0.0.1") && !keys.contains("fleet"), "{keys}");
    let key = keys.split('"').flat_map(|part| part.split('\'')).find(|part| part.matches(':').count() == 3);
    let key = key.unwrap_or_else(|| panic!("{keys}"));
    assert!(!redis.ask(&["HGETALL", key]).contains("127.0.0.1"));
    let expires = redis.ask(&["PTTL", key]);
    let millis = expires.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().unwrap();
    assert!((1..=20 * 60_000 + 1_000).contains(&millis), "{expires}");
    let text = Request::get("/readyz?verbose").to(gateways[0].admin()).text();
    assert!(text.contains("shared: limits of 2 gateways\n"), "{text}");
}

#[test]
fn an_exact_limit_admits_not_one_request_more() {
    let redis = Redis::start();
    let gateways = fleet(&redis, 3, "rate = \"1/m\"\nburst = 7\nexact = true", "");
    let admitted = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..24)
            .map(|at| {
                scope.spawn({
                    let gateway = gateways[at % 3].http();
                    move || Request::get("/limited").to(gateway).status
                })
            })
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).filter(|status| *status == 200).count()
    });
    assert_eq!(admitted, 7);
    let refused = Request::get("/limited").to(gateways[0].http());
    refused.is_refusal(429, "rate_limited");
    let wait: u32 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((50..=60).contains(&wait), "{wait}");
}

#[test]
fn a_frozen_redis_costs_no_latency_and_each_gateway_then_limits_alone() {
    let redis = Redis::start();
    let gateways = fleet(&redis, 2, "rate = \"1/h\"\nburst = 60", "");
    assert_eq!(status(&gateways[0]), 200);
    redis.freeze();
    let mut connection = Connection::open(gateways[0].http());
    let mut ask = || {
        let began = Instant::now();
        let status = Request::get("/limited").over(&mut connection).status;
        (status, began.elapsed())
    };
    // The first requests come before anybody knows that Redis is frozen.
    let mut slowest: Vec<Duration> = (0..20).map(|_| ask().1).collect();
    eventually("the gateway notices", || !is_up(&gateways[0]));
    let mut passed = 0;
    slowest.extend((0..80).map(|_| {
        let (status, took) = ask();
        passed += usize::from(status == 200);
        took
    }));
    slowest.sort();
    // A request that waited for Redis would take the two seconds of `answer_timeout`.
    assert!(slowest[95] < Duration::from_secs(1), "{slowest:?}");
    assert!((30..60).contains(&passed), "the whole limit, less what was used: {passed}");
    let alone = gateways[0].metric(r#"portcullis_shared_limit_unchecked_total{decision="alone"}"#);
    assert!(alone >= Some(80), "{alone:?}");
    redis.thaw();
    eventually("the fleet is back", || gateways.iter().all(is_up));
}

#[test]
fn a_gateway_that_must_not_count_alone_refuses_without_redis() {
    let on_error = "[shared.on_error]\nlimits = \"deny\"";
    for exact in ["", "\nexact = true"] {
        let mut redis = Redis::start();
        let gateways = fleet(&redis, 1, &format!("rate = \"100/s\"{exact}"), on_error);
        assert_eq!(status(&gateways[0]), 200);
        redis.kill();
        eventually("the limit cannot be checked", || status(&gateways[0]) == 503);
        let answer = Request::get("/limited").to(gateways[0].http());
        answer.is_refusal(503, "limit_unavailable");
        assert!(answer.header("retry-after").is_some());
        let line = gateways[0].access_line(&answer);
        assert!(line["detail"].as_str().is_some_and(|detail| detail.contains("the limit fleet")), "{line}");
        // The neighbour has no limit.
        assert_eq!(Request::get("/free").to(gateways[0].http()).status, 200);
        redis.resume();
        eventually("the limit is checked again", || status(&gateways[0]) == 200);
    }
}

#[test]
fn a_limit_that_is_not_shared_is_counted_by_each_gateway() {
    for (more, total) in [("\nshared = false", 6), ("\nexact = true", 3)] {
        let redis = Redis::start();
        let gateways = fleet(&redis, 2, &format!("rate = \"1/h\"\nburst = 3{more}"), "");
        let passed = (0..20).filter(|at| status(&gateways[at % 2]) == 200).count();
        assert_eq!(passed, total, "{more}");
    }
}

/// The clock of Redis was set back, or another writer chose the times.
#[test]
fn a_time_that_the_limit_cannot_have_caused_blocks_no_key() {
    for exact in ["", "\nexact = true"] {
        let redis = Redis::start();
        let gateways = fleet(&redis, 2, &format!("rate = \"10/s\"\nburst = 5{exact}"), "");
        let hour = 3_600_000_000_u64;
        for wrong in [(1_800_000_000 * hour / 3600).to_string(), "inf".into(), "nan".into(), "text".into()] {
            let mut keys = String::new();
            eventually("Redis has the key of the limit", || {
                status(&gateways[0]);
                keys = redis.ask(&["KEYS", "portcullis:limit:*:*"]);
                keys.contains("limit")
            });
            let key = keys.split(['"', '\'']).find(|part| part.matches(':').count() == 3).expect("a key");
            let bucket = redis.ask(&["HKEYS", key]);
            let Some(field) = bucket.split(['"', '\'']).find(|part| part.len() == 16) else { continue };
            redis.ask(&["HSET", key, field, &wrong, "another", &wrong]);
            redis.ask(&["PERSIST", key]);
            eventually("the key is admitted again", || status(&gateways[0]) == 200);
            eventually("both buckets end", || {
                status(&gateways[1]);
                !redis.ask(&["HKEYS", key]).contains("another")
            });
            eventually("the gateways ask Redis", || gateways.iter().all(is_up));
        }
    }
}

#[test]
fn a_gateway_that_was_seen_in_the_future_has_left() {
    let redis = Redis::start();
    let gateways = fleet(&redis, 1, "rate = \"10/s\"", "");
    redis.ask(&["ZADD", "portcullis:limit:gateways", "9999999999999", "ghost"]);
    redis.ask(&["ZADD", "portcullis:limit:gateways", "inf", "another"]);
    eventually("the others have left", || {
        !redis.ask(&["ZRANGE", "portcullis:limit:gateways", "0", "-1"]).contains("o")
    });
    assert_eq!(gateways[0].metric("portcullis_shared_gateways"), Some(1));
}

/// While a frozen Redis has let no call of the gateway run into its deadline, nobody can have got an answer or a time-out,
/// so a request that was served has not waited. This does not depend on the speed of the machine.
#[test]
fn no_request_waits_for_a_frozen_redis_unless_its_limit_is_exact() {
    let late = |gateway: &Portcullis| {
        gateway.metric(r#"portcullis_shared_failures_total{reason="late"}"#).expect("it is counted")
    };
    for (exact, waits) in [("", false), ("\nexact = true", true)] {
        let redis = Redis::start();
        let gateways =
            fleet(&redis, 1, &format!("rate = \"1000/s\"\nburst = 1000{exact}"), "answer_timeout = \"2s\"");
        // A slow machine may need several attempts, because the gateway itself asks every half second.
        eventually("the requests were served before a call was late, or had to wait", || {
            eventually("Redis answers", || is_up(&gateways[0]) && status(&gateways[0]) == 200);
            let before = late(&gateways[0]);
            redis.freeze();
            let mut connection = Connection::open(gateways[0].http());
            for _ in 0..if waits { 1 } else { 100 } {
                assert_eq!(Request::get("/limited").over(&mut connection).status, 200);
            }
            let is_on_time = late(&gateways[0]) == before;
            redis.thaw();
            is_on_time != waits
        });
    }
}
