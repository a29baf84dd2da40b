use super::*;
use proptest::prelude::*;

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLI;
const STALE_SECONDS: u64 = STALE as u64 / 1000;

fn terms(a_second: u64, burst: u32) -> Terms {
    Terms { interval: SECOND / a_second, burst }
}

fn view(gateways: u32) -> View {
    View { gateways, is_up: true, alone: true }
}

/// The fleet's bucket: what the script in Redis does, in whole nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    arrival: u64,
}

impl Bucket {
    fn serve(&mut self, terms: &Terms, order: &Order, now: u64) -> Granted {
        let cost = |tokens: u64| tokens * terms.interval;
        let arrival = self.arrival.max(now);
        let arrival = match order.debt {
            debt @ 0.. => arrival + cost(debt.unsigned_abs()),
            debt => arrival.saturating_sub(cost(debt.unsigned_abs())).max(now),
        };
        let tokens = order.want.min(terms.free(arrival, now));
        self.arrival = arrival + cost(u64::from(tokens));
        Granted { tokens, ahead: self.arrival - now }
    }
}

/// A gateway with one key.
#[derive(Clone, Debug, Default)]
struct Gateway {
    account: Account,
    /// The time of the next report.
    due: u64,
    /// The order that is on its way to Redis, and when it arrives there.
    sent: Option<(u64, Order)>,
    /// The answer that is on its way back, and when it arrives.
    answered: Option<(u64, Order, Granted)>,
    /// The part of a request that has not come yet.
    fraction: f64,
}

/// A fleet with one key, in virtual time.
struct Fleet {
    terms: Terms,
    bucket: Bucket,
    gateways: Vec<Gateway>,
    latency: u64,
    now: u64,
    seed: u64,
    admitted: u64,
    refused: u64,
    /// The lowest value of the admitted requests minus the regained tokens, and the largest rise above it.
    lowest: f64,
    excess: f64,
    /// The largest distance of the bucket's arrival time from now.
    furthest: u64,
}

/// The resolution of the simulation.
const TICK: u64 = MILLI / 4;

impl Fleet {
    fn new(gateways: usize, terms: Terms, latency: u64) -> Self {
        let gateways = vec![Gateway::default(); gateways];
        let bucket = Bucket::default();
        // The bucket is full at the start, and its arrival time is in the past.
        let now = 3600 * SECOND;
        let lowest = -(now as f64 / terms.interval as f64);
        Self {
            terms,
            bucket,
            gateways,
            latency,
            now,
            seed: 1,
            admitted: 0,
            refused: 0,
            lowest,
            excess: 0.0,
            furthest: 0,
        }
    }

    fn size(&self) -> u32 {
        u32::try_from(self.gateways.len()).unwrap()
    }

    /// A number from 0 to 1.
    fn random(&mut self) -> f64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 40) as f64 / (1_u64 << 24) as f64
    }

    /// Runs for a while. `load` returns the requests per second that come to a gateway.
    fn run(&mut self, time: u64, load: impl Fn(usize, u64) -> f64) {
        let (end, size) = (self.now + time, self.size());
        while self.now < end {
            for at in 0..self.gateways.len() {
                let jitter = 0.75 + 0.5 * self.random();
                let (now, terms) = (self.now, self.terms);
                let gateway = &mut self.gateways[at];
                if let Some((_, order, granted)) = gateway.answered.take_if(|(when, ..)| *when <= now) {
                    gateway.account.answer(&order, Some(granted), now);
                }
                if let Some((_, order)) = gateway.sent.take_if(|(when, _)| *when <= now) {
                    let granted = self.bucket.serve(&terms, &order, now);
                    self.furthest = self.furthest.max(granted.ahead);
                    gateway.answered = Some((now + self.latency, order, granted));
                }
                gateway.fraction += load(at, now) * TICK as f64 / SECOND as f64;
                while gateway.fraction >= 1.0 {
                    gateway.fraction -= 1.0;
                    if matches!(gateway.account.charge(&terms, &view(size), now), Charge::Admitted { .. }) {
                        self.admitted += 1;
                    } else {
                        self.refused += 1;
                    }
                }
                if gateway.due <= now && gateway.sent.is_none() && gateway.answered.is_none() {
                    gateway.due = now + (nanos(period(size)) as f64 * jitter) as u64;
                    if let Step::Send(order) = gateway.account.step(&terms, size, now) {
                        gateway.sent = Some((now + self.latency, order));
                    }
                }
            }
            let regained = self.now as f64 / self.terms.interval as f64;
            let balance = self.admitted as f64 - regained;
            self.excess = self.excess.max(balance - self.lowest);
            self.lowest = self.lowest.min(balance);
            self.now += TICK;
        }
    }

    /// The bound on the requests of a period beyond those that the rate gives.
    fn bound(&self) -> f64 {
        let (terms, size) = (self.terms, self.size());
        let each = terms.credit_max(size) + terms.lease_max(size);
        // One tick of the simulation may have both its requests and its regained token.
        f64::from(terms.burst) + f64::from(size) * f64::from(each) + 1.0
    }
}

#[test]
fn a_thousand_a_second_over_three_gateways_admits_within_three_percent_under_uneven_load() {
    for shares in [[0.7, 0.25, 0.05], [0.98, 0.01, 0.01], [0.34, 0.33, 0.33], [1.0, 0.0, 0.0]] {
        let mut fleet = Fleet::new(3, terms(1_000, 1_000), MILLI / 2);
        fleet.run(5 * SECOND, |at, _| 2_000.0 * shares[at]);
        let allowed = 1_000.0 + 5.0 * 1_000.0;
        let error = fleet.admitted as f64 / allowed - 1.0;
        assert!(error.abs() < 0.03, "{shares:?}: {} admitted, {allowed} allowed", fleet.admitted);
    }
}

#[test]
fn load_that_moves_between_gateways_gets_the_whole_limit() {
    let mut fleet = Fleet::new(3, terms(1_000, 200), MILLI);
    fleet.run(6 * SECOND, |at, now| if (now / SECOND) % 3 == at as u64 { 3_000.0 } else { 0.0 });
    let error = fleet.admitted as f64 / 6_200.0 - 1.0;
    assert!(error.abs() < 0.03, "{}", fleet.admitted);
}

#[test]
fn less_than_the_limit_is_never_refused() {
    let mut fleet = Fleet::new(3, terms(1_000, 1_000), MILLI);
    fleet.run(3 * SECOND, |at, _| [600.0, 200.0, 50.0][at]);
    assert_eq!(fleet.refused, 0, "{} admitted", fleet.admitted);
}

#[test]
fn a_hundred_gateways_stay_within_the_bound_and_at_the_rate() {
    let mut fleet = Fleet::new(100, terms(1_000, 1_000), MILLI);
    fleet.run(4 * SECOND, |at, _| if at < 10 { 300.0 } else { 20.0 });
    assert!(fleet.excess <= fleet.bound(), "{} of {}", fleet.excess, fleet.bound());
    let allowed = 1_000.0 + 4.0 * 1_000.0;
    let error = fleet.admitted as f64 / allowed - 1.0;
    assert!(error.abs() < 0.05, "{} admitted, {allowed} allowed", fleet.admitted);
}

#[test]
fn a_flood_at_a_hundred_gateways_at_once_is_paid_back() {
    let mut fleet = Fleet::new(100, terms(10, 10), MILLI);
    fleet.run(SECOND, |_, _| 1_000.0);
    assert!(fleet.excess <= fleet.bound(), "{} of {}", fleet.excess, fleet.bound());
    let first = fleet.admitted;
    assert!(first <= 100 * 10 + 20, "{first}");
    // The debt of the first second is more than the tokens of the next minute.
    fleet.run(2 * SECOND, |_, _| 1_000.0);
    assert_eq!(fleet.admitted, first);
}

#[test]
fn a_burst_at_one_gateway_is_admitted_without_an_answer() {
    for (gateways, burst, passed) in [(1, 100, 100), (3, 100, 34), (3, 12, 12), (100, 1_000, 16), (100, 5, 5)]
    {
        let terms = terms(1, burst);
        let mut account = Account::default();
        let now = 3600 * SECOND;
        let mut charge = || account.charge(&terms, &view(gateways), now);
        let admitted = (0..200).filter(|_| matches!(charge(), Charge::Admitted { .. })).count();
        assert_eq!(admitted, passed, "{burst} at once, {gateways} gateways");
    }
}

#[test]
fn tokens_that_nobody_uses_are_given_back() {
    let mut fleet = Fleet::new(3, terms(100, 100), MILLI);
    fleet.run(SECOND / 5, |at, _| if at == 0 { 400.0 } else { 0.0 });
    assert!(fleet.admitted > 50);
    fleet.run(SECOND, |_, _| 0.0);
    let used = Bucket { arrival: fleet.bucket.arrival };
    let free = fleet.terms.free(used.arrival, fleet.now);
    assert_eq!(fleet.gateways[0].account.balance, 0);
    assert!(free >= 99, "{free} of 100 after a second without requests");
}

#[test]
fn the_answer_speaks_of_the_whole_fleet() {
    let terms = terms(1, 10);
    let now = 3600 * SECOND;
    let mut account = Account::default();
    account.learn(7 * SECOND, now);
    let charge = account.charge(&terms, &view(3), now);
    assert_eq!(charge, Charge::Admitted { remaining: 2, next: Duration::from_secs(1) });
    account.learn(12 * SECOND, now);
    let Charge::Refused { wait } = account.charge(&terms, &view(3), now) else {
        panic!("the bucket is empty")
    };
    // The bucket owes 12 s, and one request is owed here. It has a token for another one after 4 s.
    assert_eq!(wait, Duration::from_secs(4));
}

#[test]
fn without_the_fleet_a_gateway_applies_the_limit_alone_or_refuses() {
    let terms = terms(1, 10);
    let now = 3600 * SECOND;
    for (alone, passed) in [(true, 10), (false, 0)] {
        let view = View { gateways: 3, is_up: false, alone };
        let mut account = Account::default();
        let mut charge = || account.charge(&terms, &view, now);
        assert_eq!((0..50).filter(|_| matches!(charge(), Charge::Admitted { .. })).count(), passed);
        let refused = charge();
        assert_eq!(matches!(refused, Charge::Unavailable), !alone, "{refused:?}");
    }
}

#[test]
fn an_outage_leaves_no_debt_to_the_fleet() {
    let terms = terms(1, 10);
    let now = 3600 * SECOND;
    let mut account = Account::default();
    let down = View { gateways: 3, is_up: false, alone: true };
    assert!((0..10).all(|_| matches!(account.charge(&terms, &down, now), Charge::Admitted { .. })));
    let Step::Send(order) = account.step(&terms, 3, now) else { panic!("the requests are news") };
    assert_eq!(order.debt, 0);
}

#[test]
fn a_report_without_an_answer_is_sent_again() {
    let terms = terms(1, 10);
    let now = 3600 * SECOND;
    let mut account = Account::default();
    account.charge(&terms, &view(3), now);
    account.charge(&terms, &view(3), now);
    let Step::Send(order) = account.step(&terms, 3, now) else { panic!("a debt") };
    assert_eq!(order.debt, 2);
    assert_eq!(account.step(&terms, 3, now), Step::Wait);
    account.answer(&order, None, now);
    // The key now follows the limit alone, until a report is answered.
    let deny = View { alone: false, ..view(3) };
    assert_eq!(account.charge(&terms, &deny, now), Charge::Unavailable);
    let Step::Send(again) = account.step(&terms, 3, now) else { panic!("a debt") };
    assert_eq!(again.debt, 2);
    account.answer(&again, Some(Granted { tokens: 0, ahead: 2 * SECOND }), now);
    assert!(matches!(account.charge(&terms, &deny, now), Charge::Admitted { remaining: 7, .. }));
}

#[test]
fn a_wrong_answer_about_a_bucket_counts_for_a_few_seconds_only() {
    let (terms, view) = (terms(10, 10), view(1));
    let mut account = Account::default();
    let start = 1000 * SECOND;
    account.learn(u64::MAX / 2, start);
    // One request in a while, which alone says nothing about the demand.
    for seconds in 1..STALE_SECONDS {
        let now = start + seconds * SECOND;
        assert!(matches!(account.charge(&terms, &view, now), Charge::Refused { .. }));
        assert!(!matches!(account.step(&terms, 1, now), Step::Send(_)), "{seconds}");
    }
    let now = start + STALE_SECONDS * SECOND;
    assert!(matches!(account.charge(&terms, &view, now), Charge::Refused { .. }));
    let Step::Send(order) = account.step(&terms, 1, now) else { panic!("the fleet is not asked again") };
    assert_eq!((order.debt, order.want), (0, 1));
    let granted = Bucket::default().serve(&terms, &order, now);
    account.answer(&order, Some(granted), now);
    assert!(matches!(account.charge(&terms, &view, now), Charge::Admitted { .. }));
}

#[test]
fn a_client_that_is_refused_for_long_causes_few_reports() {
    let terms = terms(1, 10);
    let mut now = 3600 * SECOND;
    let mut account = Account::default();
    account.learn(40 * SECOND, now);
    let mut reports = 0;
    for _ in 0..500 {
        now += 2 * MILLI;
        for _ in 0..5 {
            assert!(matches!(account.charge(&terms, &view(3), now), Charge::Refused { .. }));
        }
        if let Step::Send(order) = account.step(&terms, 3, now) {
            reports += 1;
            account.answer(&order, Some(Granted { tokens: 0, ahead: 40 * SECOND }), now);
        }
    }
    assert!((1..=25).contains(&reports), "{reports} reports in a second");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// In each period, the fleet admits at most what the documentation promises, and the long run has the rate.
    #[test]
    fn the_error_is_bounded(
        size in 1_usize..8,
        a_second in prop::sample::select(vec![1_u64, 10, 100, 1_000, 5_000]),
        burst in 1_u32..500,
        latency in 0_u64..8,
        loads in prop::collection::vec(prop::collection::vec(0_u32..3_000, 8), 1..6),
    ) {
        let mut fleet = Fleet::new(size, terms(a_second, burst), latency * MILLI);
        for load in &loads {
            fleet.run(SECOND / 5, |at, _| f64::from(load[at]));
        }
        prop_assert!(fleet.excess <= fleet.bound(), "{} of {}", fleet.excess, fleet.bound());
        // A gateway never holds or owes more than its share.
        for gateway in &fleet.gateways {
            let size = fleet.size();
            let owed = gateway.account.owed();
            prop_assert!(owed <= fleet.terms.credit_max(size), "{owed}");
            let held = u32::try_from(gateway.account.balance).unwrap_or(0);
            prop_assert!(held <= fleet.terms.lease_max(size), "{held}");
        }
        // The script of the bucket corrects a time that lies further ahead.
        prop_assert!(fleet.furthest <= fleet.terms.ahead_max(fleet.size()), "{}", fleet.furthest);
    }
}
