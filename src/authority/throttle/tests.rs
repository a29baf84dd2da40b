//! Tests that the throttle slows down guessing but not the owner of an account.

use super::*;
use proptest::prelude::*;
use std::net::Ipv6Addr;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Returns the nth test address. Each address is in a different network.
fn address(n: u32) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, (n >> 16) as u16, n as u16, 0, 0, 0, 1))
}

/// Whether the throttle admits a stranger's guess.
fn guess(throttle: &Throttle, from: u32, account: &str, at: Duration) -> bool {
    throttle.try_attempt(address(from), account, false, throttle.began + at).is_ok()
}

/// Attempts a login from an address known to the account, as its owner would.
fn owner(throttle: &Throttle, from: u32, account: &str, at: Duration) -> Result<(), Duration> {
    throttle.try_attempt(address(from), account, true, throttle.began + at)
}

/// Repeats `ask` until it returns false, and returns how often it returned true.
fn burst(mut ask: impl FnMut() -> bool) -> u32 {
    (0..1_000).take_while(|_| ask()).count() as u32
}

#[test]
fn five_failures_are_free_then_the_delay_doubles_up_to_a_minute() {
    let throttle = Throttle::new();
    let mut now = Duration::ZERO;
    assert_eq!(burst(|| owner(&throttle, 1, "alice", now).is_ok()), 5);
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
        let wait = Duration::from_secs(seconds);
        assert_eq!(owner(&throttle, 1, "alice", now), Err(wait));
        assert!(owner(&throttle, 1, "alice", now + wait - Duration::from_millis(1)).is_err());
        now += wait;
        assert_eq!(owner(&throttle, 1, "alice", now), Ok(()));
    }
}

#[test]
fn asking_too_early_does_not_make_the_wait_longer() {
    let throttle = Throttle::new();
    burst(|| guess(&throttle, 1, "alice", Duration::ZERO));
    for n in 0..1_000 {
        assert!(!guess(&throttle, 1, "alice", Duration::from_micros(n)));
    }
    assert!(guess(&throttle, 1, "alice", SECOND));
}

#[test]
fn many_at_once_are_no_more_than_one_after_the_other() {
    let throttle = Throttle::new();
    let now = Instant::now();
    let passed: usize = std::thread::scope(|scope| {
        let guess =
            || (0..100).filter(|_| throttle.try_attempt(address(1), "alice", false, now).is_ok()).count();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(guess)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(passed, 5);
}

#[test]
fn failures_are_forgotten_one_after_the_other_and_after_an_hour_the_free_five_are_back() {
    for (quiet, free) in
        [(MINUTE * 11, 1), (MINUTE * 12, 1), (MINUTE * 24, 2), (HOUR - MINUTE, 4), (HOUR, 5), (HOUR * 9, 5)]
    {
        let throttle = Throttle::new();
        burst(|| guess(&throttle, 1, "alice", Duration::ZERO));
        // The delay of one second is over in each case, so at least one guess is admitted.
        assert_eq!(burst(|| guess(&throttle, 2, "alice", quiet)), free, "{quiet:?}");
    }
}

#[test]
fn a_right_password_gives_the_free_failures_back() {
    let throttle = Throttle::new();
    for _ in 0..20 {
        for _ in 0..4 {
            assert!(owner(&throttle, 1, "alice", Duration::ZERO).is_ok());
        }
        assert!(owner(&throttle, 1, "alice", Duration::ZERO).is_ok());
        throttle.succeeded(address(1), "alice", true);
    }
}

#[test]
fn strangers_do_not_delay_the_owner_where_the_account_is_known() {
    let throttle = Throttle::new();
    for n in 0..10_000 {
        let _ = guess(&throttle, 100 + n % 500, "alice", SECOND * n);
    }
    let now = SECOND * 10_000;
    // From an unknown address, the owner waits as strangers do. From a known address, the owner does not wait.
    assert!(!guess(&throttle, 7, "alice", now));
    assert_eq!(burst(|| owner(&throttle, 7, "alice", now).is_ok()), 5);
}

#[test]
fn strangers_at_her_address_who_try_other_accounts_do_not_delay_the_owner() {
    let throttle = Throttle::new();
    for n in 0..1_000 {
        let _ = guess(&throttle, 1, &format!("account {n}"), Duration::ZERO);
    }
    assert!(!guess(&throttle, 1, "bob", Duration::ZERO));
    assert_eq!(owner(&throttle, 1, "alice", Duration::ZERO), Ok(()));
}

#[test]
fn one_address_tries_twenty_accounts_for_free_and_not_more() {
    let throttle = Throttle::new();
    let mut n = 0;
    let passed = burst(|| {
        n += 1;
        guess(&throttle, 1, &format!("account {n}"), Duration::ZERO)
    });
    assert_eq!(passed, 20);
    assert!(guess(&throttle, 2, "account 1", Duration::ZERO));
}

#[test]
fn an_ipv6_network_is_one_address_and_a_mapped_address_is_what_it_maps() {
    let throttle = Throttle::new();
    let now = throttle.began;
    let ask = |text: &str| throttle.try_attempt(text.parse().unwrap(), "alice", true, now).is_ok();
    let mut n = 0;
    let passed = burst(|| {
        n += 1;
        ask(&format!("2001:db8::{n:x}"))
    });
    assert_eq!(passed, 5);
    assert!(ask("2001:db8:0:1::1"));
    assert_eq!(burst(|| ask("192.0.2.1")), 5);
    assert!(!ask("::ffff:192.0.2.1"));
    assert!(ask("192.0.2.2"));
}

#[test]
fn an_account_of_his_own_gives_a_guesser_no_more_guesses() {
    let throttle = Throttle::new();
    let mut passed = 0;
    for n in 0..1_000 {
        passed += u32::from(guess(&throttle, 1, &format!("victim {n}"), Duration::ZERO));
        if throttle.try_attempt(address(1), "his own", false, throttle.began).is_ok() {
            throttle.succeeded(address(1), "his own", false);
        }
    }
    assert!(passed <= 20, "{passed}");
}

#[test]
fn a_withdrawn_attempt_is_not_counted() {
    let throttle = Throttle::new();
    for _ in 0..1_000 {
        for known in [true, false] {
            assert!(throttle.try_attempt(address(1), "alice", known, throttle.began).is_ok());
            throttle.withdrawn(address(1), "alice", known);
        }
    }
}

#[test]
fn one_address_alone_cannot_keep_others_from_an_account() {
    let throttle = Throttle::new();
    // The attacker makes one guess each second for a week.
    let mut late = 0;
    for n in 0..7 * 24 * 3600 {
        let now = SECOND * n;
        let passed = guess(&throttle, 1, "alice", now);
        late += u32::from(passed && n > 24 * 3600);
    }
    assert!(late <= 6 * 24 * 60 / 24, "{late}");
    // The owner logs in from a new address, right after the attacker's last guess. The owner waits at most one minute.
    let now = SECOND * 7 * 24 * 3600;
    let wait =
        throttle.try_attempt(address(2), "alice", false, throttle.began + now).err().unwrap_or_default();
    assert!(wait <= MINUTE, "{wait:?}");
}

#[test]
fn invented_names_do_not_push_out_an_account_that_is_attacked() {
    let throttle = Throttle::new();
    for n in 0..50 {
        let _ = guess(&throttle, n, "alice", Duration::ZERO);
    }
    // Each guess comes from another address; otherwise the throttle would refuse the address.
    for n in 0..200_000_u32 {
        let _ = guess(&throttle, 1_000 + n, &format!("invented {n}"), Duration::ZERO);
    }
    assert!(!guess(&throttle, 900, "alice", Duration::ZERO));
    let tables = throttle.tables.lock().unwrap();
    for table in [&tables.pairs, &tables.accounts, &tables.addresses] {
        assert_eq!(table.entries(), REMEMBERED);
    }
}

/// Returns the largest number by which the guesses of any period exceed the formula, or 0 if the formula holds.
fn excess(passed: &[Duration], allowed: impl Fn(Duration) -> f64) -> f64 {
    let mut worst = 0.0_f64;
    for (first, from) in passed.iter().enumerate() {
        for (last, to) in passed.iter().enumerate().skip(first) {
            worst = worst.max((last - first + 1) as f64 - allowed(*to - *from));
        }
    }
    worst
}

fn per(time: Duration, each: Duration) -> f64 {
    time.as_secs_f64() / each.as_secs_f64()
}

/// Generates the pause before the next guess: often zero, sometimes so long that many failures are forgotten.
fn pause() -> impl Strategy<Value = Duration> {
    prop_oneof![
        5 => Just(Duration::ZERO),
        5 => (0_u64..90_000).prop_map(Duration::from_millis),
        1 => (0_u64..20_000).prop_map(Duration::from_secs),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn guesses_at_one_account_are_always_bounded_from_however_many_addresses(
        steps in prop::collection::vec((pause(), 0_u32..1_000), 1..400),
    ) {
        let throttle = Throttle::new();
        let mut now = Duration::ZERO;
        let mut passed = Vec::new();
        for (pause, from) in steps {
            now += pause;
            if guess(&throttle, from, "alice", now) {
                passed.push(now);
            }
        }
        prop_assert!(excess(&passed, |time| 100.0 + per(time, MINUTE * 12)) <= 0.0);
        prop_assert!(excess(&passed, |time| 11.0 + per(time, MINUTE) + per(time, MINUTE * 12)) <= 0.0);
    }

    #[test]
    fn guesses_from_one_address_are_always_bounded_at_however_many_accounts(
        steps in prop::collection::vec((pause(), 0_u32..1_000), 1..400),
    ) {
        let throttle = Throttle::new();
        let mut now = Duration::ZERO;
        let mut passed = Vec::new();
        for (pause, account) in steps {
            now += pause;
            if guess(&throttle, 1, &format!("account {account}"), now) {
                passed.push(now);
            }
        }
        prop_assert!(excess(&passed, |time| 100.0 + per(time, MINUTE * 3)) <= 0.0);
    }

    #[test]
    fn an_owner_who_respects_retry_after_is_never_refused_where_the_account_is_known(
        strangers in prop::collection::vec((0_u32..50, 0_u32..3), 0..200),
        mistakes in 1_u32..40,
    ) {
        let throttle = Throttle::new();
        let mut now = Duration::ZERO;
        for _ in 0..mistakes {
            for (from, account) in &strangers {
                let _ = guess(&throttle, 100 + from, ["alice", "bob", "carol"][*account as usize], now);
            }
            let wait = owner(&throttle, 1, "alice", now).err().unwrap_or_default();
            prop_assert!(wait <= MINUTE);
            now += wait;
            if !wait.is_zero() {
                prop_assert_eq!(owner(&throttle, 1, "alice", now), Ok(()));
            }
        }
        throttle.succeeded(address(1), "alice", true);
        prop_assert_eq!(owner(&throttle, 1, "alice", now), Ok(()));
    }
}

#[test]
fn a_hundred_failures_in_a_row_are_the_most_and_then_one_each_twelve_minutes() {
    let throttle = Throttle::new();
    // The attackers make one guess each second for two days, each from another address.
    let days: u32 = 2;
    let mut passed = Vec::new();
    for n in 0..days * 24 * 3600 {
        if guess(&throttle, n, "alice", SECOND * n) {
            passed.push(SECOND * n);
        }
    }
    let all = passed.len() as u32;
    assert!(all <= 100 + days * 24 * 5, "{all}");
    // The account is not locked: at least one guess is admitted every twelve minutes.
    assert!(passed.windows(2).all(|pair| pair[1] - pair[0] <= MINUTE * 12 + SECOND));
}
