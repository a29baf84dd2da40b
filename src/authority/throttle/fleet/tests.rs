//! Compares the script in a real Redis with the throttle of one gateway.

use super::super::Throttle;
use super::*;
use proptest::prelude::*;
use redis::{Commands, ConnectionLike};
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// The distance of the two clocks at which the answers are compared.
const CLOSE: Duration = Duration::from_millis(200);

/// A Redis in a temporary folder. A shell kills it when this process ends.
struct Server {
    minder: Child,
    connection: redis::Connection,
    dir: std::path::PathBuf,
}

impl Server {
    fn start(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("portcullis-throttle-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let socket = dir.join("redis.sock");
        let minder = Command::new("sh")
            .args([
                "-c",
                "redis-server \"$@\" >/dev/null & pid=$!; read -r _ || true; kill -9 $pid",
                "minder",
            ])
            .args(["--port", "0", "--save", "", "--appendonly", "no"])
            .args(["--dir".as_ref(), dir.as_os_str(), "--unixsocket".as_ref(), socket.as_os_str()])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let client = redis::Client::open(format!("redis+unix://{}", socket.display())).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let connection = loop {
            let open = client.get_connection().ok();
            if let Some(open) = open.filter(|open| open.is_open()) {
                break open;
            }
            assert!(Instant::now() < deadline, "Redis is installed (Debian: redis-server) and starts");
            std::thread::yield_now();
        };
        Self { minder, connection, dir }
    }

    /// Returns the time of Redis.
    fn time(&mut self) -> Duration {
        let (seconds, micros): (u64, u64) = redis::cmd("TIME").query(&mut self.connection).unwrap();
        Duration::from_secs(seconds) + Duration::from_micros(micros)
    }

    fn run(&mut self, counters: &[(String, Pace)], actions: [Action; 3]) -> Duration {
        let wait = script(counters, actions).invoke(&mut self.connection).unwrap();
        let keys: Vec<String> = self.connection.keys("*").unwrap();
        for key in keys {
            let [at, gone, next] = self.value(&key);
            let left: u64 = self.connection.pttl(&key).unwrap();
            // The clock is read last, so the time between the two commands makes the check no stricter.
            let now = u64::try_from(self.time().as_millis()).unwrap();
            let needed = gone.max(next).saturating_sub(now.saturating_sub(at));
            assert!(
                left + 200 >= needed,
                "{key} expires before its failures are forgotten: {left}, {needed}"
            );
        }
        Duration::from_millis(wait)
    }

    fn value(&mut self, key: &str) -> [u64; 3] {
        let text: String = self.connection.get(key).unwrap();
        let numbers: Vec<u64> = text.split(' ').map(|number| number.parse().unwrap()).collect();
        numbers.try_into().unwrap()
    }

    /// Makes all values older, or younger: to the script, its clock has moved.
    fn shift(&mut self, change: impl Fn(u64) -> u64) {
        let keys: Vec<String> = self.connection.keys("*").unwrap();
        for key in keys {
            let [at, gone, next] = self.value(&key);
            let value = format!("{} {gone} {next}", change(at));
            let kept = redis::cmd("SET").arg(&key).arg(value).arg("KEEPTTL").exec(&mut self.connection);
            kept.unwrap();
        }
    }

    fn clear(&mut self) {
        redis::cmd("FLUSHALL").exec(&mut self.connection).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.minder.stdin.take());
        let _ = self.minder.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn address(n: u32) -> IpAddr {
    std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into()
}

fn counters(from: u32, account: &str, known: bool) -> Vec<(String, Pace)> {
    let pair = (format!("pair {from} {account}"), PAIR);
    let others = [(format!("account {account}"), ACCOUNT), (format!("address {from}"), ADDRESS)];
    [pair].into_iter().chain(others.into_iter().filter(|_| !known)).collect()
}

/// The outcome of an admitted attempt.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    Wrong,
    Right,
    Withdrawn,
}

fn step() -> impl Strategy<Value = (Duration, u32, &'static str, bool, Outcome)> {
    let pause = prop_oneof![
        6 => Just(Duration::ZERO),
        4 => (1_u64..90_000).prop_map(Duration::from_millis),
        1 => (0_u64..20_000).prop_map(Duration::from_secs),
    ];
    let outcome = prop_oneof![
        16 => Just(Outcome::Wrong),
        1 => Just(Outcome::Right),
        1 => Just(Outcome::Withdrawn),
    ];
    let account = prop_oneof![3 => Just("alice"), 1 => Just("bob")];
    (pause, prop_oneof![2 => Just(0), 1 => 0_u32..30], account, prop::bool::weighted(0.2), outcome)
}

/// Both tests keep their server over all cases, so they run them themselves.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}

#[test]
fn the_script_decides_as_the_throttle_of_one_gateway_does() {
    let server = std::cell::RefCell::new(Server::start("decides"));
    let mut runner = proptest::test_runner::TestRunner::new(cases(48));
    let histories = prop::collection::vec(step(), 1..150);
    let ran = runner.run(&histories, |steps| {
        let mut server = server.borrow_mut();
        server.clear();
        let (throttle, began) = (Throttle::new(), server.time());
        let mut shifted = Duration::ZERO;
        for (pause, from, account, known, outcome) in steps {
            shifted += pause;
            let millis = u64::try_from(pause.as_millis()).unwrap();
            server.shift(|at| at - millis);
            let now = throttle.began + (server.time() - began) + shifted;
            let expected = throttle.wait(address(from), account, known, now);
            let all = counters(from, account, known);
            let wait = server.run(&all, [Action::Try; 3]);
            // The two clocks differ by a little, and so can the answers at the end of a delay.
            prop_assert!(wait.abs_diff(expected) <= CLOSE, "{wait:?}, not {expected:?}");
            if wait.is_zero() != expected.is_zero() {
                return Ok(());
            }
            if !wait.is_zero() {
                continue;
            }
            prop_assert_eq!(throttle.try_attempt(address(from), account, known, now), Ok(()));
            match outcome {
                Outcome::Wrong => {}
                Outcome::Right => {
                    throttle.succeeded(address(from), account, known);
                    server.run(&all, [Action::Clear, Action::Clear, Action::TakeBack]);
                }
                Outcome::Withdrawn => {
                    throttle.withdrawn(address(from), account, known);
                    server.run(&all, [Action::TakeBack; 3]);
                }
            }
        }
        Ok(())
    });
    ran.unwrap();
}

#[test]
fn no_value_and_no_clock_delays_an_attempt_longer_than_the_throttle_does() {
    let server = std::cell::RefCell::new(Server::start("bounds"));
    let mut runner = proptest::test_runner::TestRunner::new(cases(400));
    let number = prop_oneof!["[0-9]{1,40}", "-?[0-9]{1,4}", "nan", "inf", "0x[0-9a-f]{1,9}", "1e[0-9]{1,4}"];
    let numbers = prop::collection::vec(number, 0..5).prop_map(|all| all.join(" ").into_bytes());
    let values = prop_oneof![4 => numbers, 1 => prop::collection::vec(any::<u8>(), 0..100)];
    let ran = runner.run(&(values, 0_usize..3), |(value, at)| {
        let mut server = server.borrow_mut();
        server.clear();
        let all = counters(1, "alice", false);
        redis::cmd("SET").arg(&all[at].0).arg(&value).exec(&mut server.connection).unwrap();
        let wait: u64 = script(&all, [Action::Try; 3]).invoke(&mut server.connection).unwrap();
        let (pace, wait) = (all[at].1, Duration::from_millis(wait));
        prop_assert!(wait <= pace.forget.max(pace.longest), "{wait:?}");
        // Once its time is written, the value ends by itself.
        let left: i64 = server.connection.pttl(&all[at].0).unwrap();
        let longest = i64::try_from((pace.forget * pace.most).as_millis()).unwrap();
        let is_written: Vec<u8> = server.connection.get(&all[at].0).unwrap();
        prop_assert!((1..=longest).contains(&left) || is_written == value, "{left} {is_written:?}");
        Ok(())
    });
    ran.unwrap();
    // A clock that moves back makes no delay longer, and the delay passes.
    let server = &mut *server.borrow_mut();
    server.clear();
    let all = counters(1, "alice", false);
    while server.run(&all, [Action::Try; 3]).is_zero() {}
    // The delay is of whole seconds, and a part of it has passed.
    let before = Duration::from_secs(server.run(&all, [Action::Try; 3]).as_millis().div_ceil(1000) as u64);
    for _ in 0..3 {
        server.shift(|at| at + 86_400_000);
        let wait = server.run(&all, [Action::Try; 3]);
        assert!(!wait.is_zero() && wait <= before, "{wait:?} after {before:?}");
    }
    server.shift(|at| at - u64::try_from(before.as_millis()).unwrap());
    assert!(server.run(&all, [Action::Try; 3]).is_zero());
}
