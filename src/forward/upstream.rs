//! Upstreams: their servers, the order in which a request tries the servers, and the servers that are set aside after
//! a failure.

use super::counters::UpstreamCounters;
use http::HeaderValue;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio_rustls::TlsConnector;

/// How long a server is set aside after its first failure. The time doubles with each further failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The maximum time for which a server is set aside.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A group of servers that are interchangeable for a client.
#[derive(Debug)]
pub struct Upstream {
    /// The upstream's name in the policy.
    pub(crate) name: Arc<str>,
    /// The servers, of which there is at least one.
    pub(crate) servers: Box<[Arc<Server>]>,
    /// The timeout for opening a connection, including the TLS handshake.
    pub(crate) connect_timeout: Duration,
    /// The timeout for the head of the answer, and then for each read of its body.
    pub(crate) timeout: Duration,
    /// The maximum number of connections of one core to each server, including idle ones.
    pub(crate) share: usize,
    /// The upstream's counters.
    pub(crate) counters: Arc<UpstreamCounters>,
    /// The way in which a request chooses its first server.
    pub(crate) balance: Balance,
    next: AtomicUsize,
    /// Whether the log already reports that this upstream sets cookies with the gateway's names.
    cookies_reported: AtomicBool,
}

/// The way in which a request chooses the server that it tries first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// The servers take turns.
    #[default]
    RoundRobin,
    /// The server with the fewest requests of this core.
    LeastRequests,
    /// The server with fewer requests of this core, out of two servers that are chosen at random.
    TwoChoices,
}

/// One server.
pub struct Server {
    /// The server's index in each core's table of pools, unique within this process.
    pub(crate) id: usize,
    /// `http://host:port`, as in the policy.
    pub(crate) origin: Arc<str>,
    /// The host name or address, without brackets.
    pub(crate) host: Box<str>,
    /// The TCP port.
    pub(crate) port: u16,
    /// The TLS settings of an `https` server.
    pub(crate) tls: Option<Tls>,
    health: Health,
}

/// The TLS settings for connections to a server.
#[derive(Clone)]
pub struct Tls {
    /// Performs TLS handshakes.
    pub(crate) connector: TlsConnector,
    /// A digest of the trusted certificate authorities. Equal digests mean equal authorities.
    pub(crate) authorities: [u8; 32],
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// The recent state of a server, as this process knows it.
#[derive(Debug)]
struct Health {
    since: Instant,
    failures: AtomicU32,
    /// The time until which the server is set aside, in nanoseconds after `since`.
    aside_until: AtomicU64,
}

impl Upstream {
    /// Creates an upstream with these servers. The upstream has the same name as `counters`.
    pub(crate) fn new(
        counters: Arc<UpstreamCounters>,
        servers: Vec<Arc<Server>>,
        connect_timeout: Duration,
        timeout: Duration,
        share: usize,
    ) -> Self {
        assert!(!servers.is_empty(), "the compiler refuses an upstream without servers");
        Self {
            name: counters.name().clone(),
            servers: servers.into(),
            connect_timeout,
            timeout,
            share: share.max(1),
            counters,
            balance: Balance::RoundRobin,
            next: AtomicUsize::new(0),
            cookies_reported: AtomicBool::new(false),
        }
    }

    /// Returns true on the first call only, so that the log reports the cookies once even if every answer sets them.
    pub(super) fn is_first_report_of_cookies(&self) -> bool {
        !self.cookies_reported.swap(true, Ordering::Relaxed)
    }

    /// Returns the servers in the order in which one request should try them. The order starts with the server that
    /// `balance` chooses by the servers' `load`, and servers that are set aside come last. These servers are still tried, because otherwise the request
    /// would certainly be answered with a 503. Each server occurs once, even if it fails in the meantime.
    pub(crate) fn in_turn(
        &self,
        now: Instant,
        load: impl Fn(&Server) -> usize,
    ) -> impl Iterator<Item = &Arc<Server>> {
        let count = self.servers.len();
        let start = if count == 1 { 0 } else { self.first(now, load) };
        let all = move || (0..count).map(move |i| (start + i) % count);
        // This list is nearly always empty, and an empty list does not allocate. For a single server, the order does
        // not matter.
        let aside: Vec<usize> = match count {
            1 => Vec::new(),
            _ => all().filter(|at| self.servers[*at].is_set_aside(now)).collect(),
        };
        let good = {
            let aside = aside.clone();
            all().filter(move |at| !aside.contains(at))
        };
        good.chain(aside).map(|at| &self.servers[at])
    }

    /// Returns the index of the server that a request tries first. There are at least two servers.
    fn first(&self, now: Instant, load: impl Fn(&Server) -> usize) -> usize {
        let count = self.servers.len();
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let cost = |at: &usize| (self.servers[*at].is_set_aside(now), load(&self.servers[*at]));
        match self.balance {
            Balance::RoundRobin => turn % count,
            // Of several servers with equal load, `min_by_key` returns the first. The rotation lets them take turns.
            Balance::LeastRequests => {
                (0..count).map(|at| (turn + at) % count).min_by_key(cost).unwrap_or_default()
            }
            Balance::TwoChoices => {
                let random = scatter(turn);
                let one = random % count;
                let other = (one + 1 + (random / count) % (count - 1)) % count;
                [one, other].into_iter().min_by_key(cost).unwrap_or_default()
            }
        }
    }
}

/// Returns a number that looks random, for each of a sequence of numbers (the finalizer of `SplitMix64`).
fn scatter(number: usize) -> usize {
    let mut bits = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    // The upper bits are lost on 32-bit systems only.
    usize::try_from((bits ^ (bits >> 31)) >> 8).unwrap_or_default()
}

impl Server {
    /// Returns the server's address in canonical form, so that two spellings of one address count as one server.
    pub(crate) fn address(&self) -> String {
        format!("{}:{}", self.host.to_ascii_lowercase(), self.port)
    }

    /// Creates a server that has not failed.
    pub(crate) fn new(origin: Arc<str>, host: Box<str>, port: u16, tls: Option<Tls>) -> Self {
        static IDS: AtomicUsize = AtomicUsize::new(0);
        let health =
            Health { since: Instant::now(), failures: AtomicU32::new(0), aside_until: AtomicU64::new(0) };
        Self { id: IDS.fetch_add(1, Ordering::Relaxed), origin, host, port, tls, health }
    }

    /// Whether the server failed so recently that requests try other servers first.
    pub(crate) fn is_set_aside(&self, now: Instant) -> bool {
        let until = self.health.aside_until.load(Ordering::Relaxed);
        until > 0 && self.nanos(now) < until
    }

    /// Records that the server was unreachable or failed before its answer. Returns whether this is its first failure
    /// in a row.
    pub(crate) fn record_failure(&self, now: Instant) -> bool {
        if self.is_set_aside(now) {
            // A failure during the pause does not extend the pause. The request was sent before the pause began, or all
            // servers of the upstream were set aside.
            return false;
        }
        let failures = self.health.failures.fetch_add(1, Ordering::Relaxed);
        let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(5)).min(LONGEST_PAUSE);
        self.health.aside_until.store(self.nanos(now + pause), Ordering::Relaxed);
        failures == 0
    }

    /// Whether the server has answered since its last failure. The end of the time for which the server is set aside
    /// does not count as an answer, because an alert must not end before the problem does.
    pub(crate) fn is_up(&self) -> bool {
        self.health.failures.load(Ordering::Relaxed) == 0
    }

    /// Records that the server answered. Returns whether the server was down before.
    pub(crate) fn record_response(&self) -> bool {
        // The value is read first, because a store on each request would move the cache line between the cores.
        if self.is_up() {
            return false;
        }
        self.health.aside_until.store(0, Ordering::Relaxed);
        self.health.failures.swap(0, Ordering::Relaxed) != 0
    }

    /// Returns the server's host and port, which are sent as `Host` if the client named no host.
    pub(crate) fn authority(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(self.origin.split_once("://").map_or(&*self.origin, |(_, rest)| rest)).ok()
    }

    fn nanos(&self, at: Instant) -> u64 {
        let elapsed = at.saturating_duration_since(self.health.since).as_nanos();
        u64::try_from(elapsed).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(count: usize) -> Upstream {
        let server =
            |n: usize| Arc::new(Server::new(Arc::from(format!("http://s{n}:80")), "s".into(), 80, None));
        let timeout = Duration::from_secs(1);
        let counters = Arc::new(UpstreamCounters::new(Arc::from("u"), 1));
        Upstream::new(counters, (0..count).map(server).collect(), timeout, timeout, 10)
    }

    fn order(upstream: &Upstream, now: Instant) -> Vec<String> {
        upstream.in_turn(now, |_| 0).map(|server| server.origin[7..9].to_owned()).collect()
    }

    #[test]
    fn servers_take_turns() {
        let upstream = upstream(3);
        let now = Instant::now();
        assert_eq!(order(&upstream, now), ["s0", "s1", "s2"]);
        assert_eq!(order(&upstream, now), ["s1", "s2", "s0"]);
        assert_eq!(order(&upstream, now), ["s2", "s0", "s1"]);
    }

    /// Returns the number of times that each of four servers with these loads is chosen, out of 4,000.
    fn chosen(balance: Balance, loads: [usize; 4], aside: &[usize]) -> [usize; 4] {
        let mut upstream = upstream(4);
        upstream.balance = balance;
        let now = Instant::now();
        for at in aside {
            upstream.servers[*at].record_failure(now);
        }
        let load = |server: &Server| {
            loads[upstream.servers.iter().position(|known| known.id == server.id).expect("one of the four")]
        };
        let mut counts = [0; 4];
        for _ in 0..4_000 {
            let order: Vec<_> = upstream.in_turn(now, load).collect();
            assert_eq!(order.len(), 4, "each server is tried");
            let first = upstream.servers.iter().position(|known| known.id == order[0].id);
            counts[first.expect("one of the four")] += 1;
        }
        counts
    }

    #[test]
    fn the_least_loaded_server_comes_first_and_equals_take_turns() {
        let least = Balance::LeastRequests;
        assert_eq!(chosen(least, [3, 1, 2, 5], &[]), [0, 4_000, 0, 0]);
        assert_eq!(chosen(least, [0, 0, 0, 0], &[]), [1_000; 4]);
        assert_eq!(
            chosen(least, [3, 1, 2, 5], &[1]),
            [0, 0, 4_000, 0],
            "a server that failed has no advantage"
        );
        assert_eq!(chosen(least, [3, 1, 2, 5], &[0, 1, 2, 3]), [0, 4_000, 0, 0], "all are tried");
    }

    #[test]
    fn of_two_random_servers_the_less_loaded_one_comes_first() {
        let counts = chosen(Balance::TwoChoices, [0, 1, 2, 3], &[]);
        // Half of all pairs contain the best server, and no pair prefers the worst.
        assert!((1_850..2_150).contains(&counts[0]), "{counts:?}");
        assert!(counts[0] > counts[1] && counts[1] > counts[2] && counts[3] == 0, "{counts:?}");
        let equal = chosen(Balance::TwoChoices, [7; 4], &[]);
        assert!(equal.iter().all(|count| (850..1_150).contains(count)), "{equal:?}");
        assert_eq!(chosen(Balance::TwoChoices, [0, 1, 2, 3], &[0, 1, 2]), [0, 0, 0, 4_000]);
    }

    #[test]
    fn a_server_that_failed_comes_last_until_its_pause_is_over() {
        let upstream = upstream(2);
        let now = Instant::now();
        assert!(upstream.servers[0].record_failure(now));
        assert_eq!(order(&upstream, now), ["s1", "s0"]);
        assert_eq!(order(&upstream, now), ["s1", "s0"]);
        let later = now + Duration::from_millis(1_001);
        assert_eq!(order(&upstream, later), ["s0", "s1"]);
    }

    #[test]
    fn a_server_that_fails_while_it_is_tried_is_not_tried_twice() {
        let upstream = upstream(2);
        let now = Instant::now();
        let tried: Vec<_> =
            upstream.in_turn(now, |_| 0).inspect(|server| assert!(server.record_failure(now))).collect();
        assert_eq!(tried.len(), 2);
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_an_answer_ends_them() {
        let upstream = upstream(1);
        let server = &upstream.servers[0];
        let mut now = Instant::now();
        for (round, pause) in [1, 2, 4, 8, 16, 30, 30].into_iter().enumerate() {
            assert_eq!(server.record_failure(now), round == 0, "only the first failure brings it down");
            assert!(!server.record_failure(now), "a failure while set aside counts once");
            now += Duration::from_secs(pause);
            assert!(!server.is_set_aside(now), "after {pause} s");
            assert!(server.is_set_aside(now - Duration::from_millis(1)), "before {pause} s");
        }
        server.record_failure(now);
        assert!(!server.is_up());
        server.record_response();
        assert!(!server.is_set_aside(now) && server.is_up());
    }

    #[test]
    fn a_server_is_up_again_once_it_has_answered_and_not_before() {
        let upstream = upstream(1);
        let (server, now) = (&upstream.servers[0], Instant::now());
        assert!(server.is_up());
        server.record_failure(now);
        let later = now + Duration::from_secs(60);
        assert!(!server.is_set_aside(later), "its pause is over, and it is tried again");
        assert!(!server.is_up(), "but it has not answered yet");
        assert!(server.record_response() && server.is_up());
        assert!(!server.record_response(), "it was up already");
    }
}
