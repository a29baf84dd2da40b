//! Upstreams: their servers, the order in which a request tries the servers, and the servers that are set aside after
//! a failure.

use super::balance::{Balance, Key, Order, Turns, hash_of_origin};
use super::check::Check;
use super::counters::UpstreamCounters;
use super::health::Health;
use super::retry_budget::RetryBudget;
use http::HeaderValue;
use rustls::pki_types::ServerName;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio_rustls::TlsConnector;

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
    /// The order in which the servers take turns, by weight.
    pub(super) turns: Turns,
    /// The protocol of all servers.
    pub(crate) protocol: Protocol,
    /// The number of requests that may be repeated.
    pub(crate) retry_budget: RetryBudget,
    /// The time in which a server that has come back gets its whole share again.
    pub(crate) slow_start: Duration,
    /// All servers are used if fewer than this percentage of them is not set aside.
    pub(crate) panic_below: u8,
    /// The active checks: one for each server, or none.
    pub(crate) checks: Vec<Arc<Check>>,
    /// Whether the log already reports that this upstream sets cookies with the gateway's names.
    cookies_reported: AtomicBool,
}

/// The version of HTTP that servers use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2: by ALPN over TLS, otherwise with prior knowledge.
    Http2,
}

/// One server.
pub struct Server {
    /// The server's index in each core's table of pools, unique within this process.
    pub(crate) id: usize,
    /// `http://host:port` or `unix:/path`, as in the policy.
    pub(crate) origin: Arc<str>,
    /// The host name or address, without brackets.
    pub(crate) host: Box<str>,
    /// The TCP port.
    pub(crate) port: u16,
    /// The path of a server at a Unix socket.
    pub(crate) socket: Option<Box<Path>>,
    /// The TLS settings of an `https` server.
    pub(crate) tls: Option<Tls>,
    /// The hash of `origin`.
    pub(super) hash: u64,
    pub(super) health: Health,
}

/// The TLS settings for connections to a server.
#[derive(Clone)]
pub struct Tls {
    /// Performs TLS handshakes.
    pub(crate) connector: TlsConnector,
    /// The name that the gateway asks for and verifies; `None` for the server's own host.
    pub(crate) name: Option<ServerName<'static>>,
    /// A digest of the trusted authorities, the name, the pins, and the gateway's certificate.
    pub(crate) identity: [u8; 32],
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("origin", &self.origin).finish_non_exhaustive()
    }
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
            turns: Turns::new(&vec![1; servers.len()]),
            servers: servers.into(),
            connect_timeout,
            timeout,
            share: share.max(1),
            counters,
            balance: Balance::RoundRobin,
            protocol: Protocol::Http1,
            retry_budget: RetryBudget { percent: 100, floor: u64::MAX },
            slow_start: Duration::ZERO,
            panic_below: 0,
            checks: Vec::new(),
            cookies_reported: AtomicBool::new(false),
        }
    }

    /// Returns true on the first call only, so that the log reports the cookies once even if every answer sets them.
    pub(super) fn is_first_report_of_cookies(&self) -> bool {
        !self.cookies_reported.swap(true, Ordering::Relaxed)
    }

    /// Sets the way in which requests choose their servers. A weight of 2 gets twice as many requests as a weight of 1.
    /// There are as many weights as servers.
    pub(crate) fn balanced(mut self, balance: Balance, weights: &[u16]) -> Self {
        assert_eq!(self.servers.len(), weights.len(), "the compiler refuses other numbers of weights");
        (self.balance, self.turns) = (balance, Turns::new(weights));
        self
    }

    /// Takes one retry of a core's request from the budget. Returns whether the request may be sent again.
    #[cold]
    pub(super) fn take_retry(&self, core: usize) -> bool {
        let counts = self.counters.of(core);
        counts.is_none_or(|counts| counts.take_retry(self.retry_budget, Instant::now()))
    }

    /// Whether so few servers are left that all are used, also those that are set aside.
    pub(crate) fn is_in_panic(&self, now: Instant) -> bool {
        self.is_panic(self.servers.iter().filter(|server| server.is_set_aside(now)).count())
    }

    /// Whether all servers are used if this number is set aside.
    pub(super) fn is_panic(&self, aside: usize) -> bool {
        let count = self.servers.len();
        aside > 0 && (count - aside) * 100 < count * usize::from(self.panic_below)
    }

    /// Returns the servers in the order in which one request should try them. The order starts with the server that
    /// `balance` chooses by the request's key or the servers' `load`, and servers that are set aside come last. These
    /// servers are still tried, because otherwise the request would certainly be answered with a 503.
    pub(crate) fn in_turn(
        &self,
        now: Instant,
        key: Option<Key>,
        load: impl Fn(&Server) -> usize,
    ) -> Order<'_> {
        Order::new(self, now, key, load)
    }
}

impl Server {
    /// Returns the server's address in canonical form, so that two spellings of one address count as one server.
    pub(crate) fn address(&self) -> String {
        match &self.socket {
            Some(path) => format!("unix:{}", path.display()),
            None => format!("{}:{}", self.host.to_ascii_lowercase(), self.port),
        }
    }

    /// Creates a server that has not failed.
    pub(crate) fn new(origin: Arc<str>, host: Box<str>, port: u16, tls: Option<Tls>) -> Self {
        static IDS: AtomicUsize = AtomicUsize::new(0);
        let hash = hash_of_origin(&origin);
        Self {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            origin,
            host,
            port,
            socket: None,
            tls,
            hash,
            health: Health::new(),
        }
    }

    /// Creates a server at a Unix socket that has not failed.
    pub(crate) fn at_socket(origin: Arc<str>, path: &Path) -> Self {
        Self { socket: Some(path.into()), ..Self::new(origin, "localhost".into(), 0, None) }
    }

    /// Whether the server failed so recently, or fails its checks, that requests try other servers first.
    #[inline]
    pub(crate) fn is_set_aside(&self, now: Instant) -> bool {
        self.health.is_set_aside(now)
    }

    /// Records that the server was unreachable or failed before its answer. Returns whether this is its first failure
    /// in a row.
    pub(crate) fn record_failure(&self, now: Instant) -> bool {
        self.health.record_failure(now)
    }

    /// Records that the server answered. Returns whether the server was down before.
    #[inline]
    pub(crate) fn record_response(&self) -> bool {
        self.health.record_response()
    }

    /// Whether the server passes its checks and has answered since its last failure.
    pub(crate) fn is_up(&self) -> bool {
        self.health.is_up()
    }

    /// Forgets the results of checks that no longer run.
    pub(crate) fn end_checks(&self) {
        self.health.end_checks();
    }

    /// Returns the server's host and port, which are sent as `Host` if the client named no host. A Unix socket is
    /// `localhost`.
    pub(crate) fn authority(&self) -> Option<HeaderValue> {
        if self.socket.is_some() {
            return Some(HeaderValue::from_static("localhost"));
        }
        HeaderValue::try_from(self.origin.split_once("://").map_or(&*self.origin, |(_, rest)| rest)).ok()
    }
}
