//! Upstreams: their servers, the order in which a request tries the servers, and the servers that are set aside after
//! a failure.

use super::balance::{Balance, Key, Order, hash_of_origin};
use super::counters::UpstreamCounters;
use super::health::Health;
use super::members::{Configured, Current, Group, MemberSettings, Members, Names};
use super::resolve::{Nameservers, Question};
use super::retry_budget::RetryBudget;
use super::server_id::ServerId;
use http::HeaderValue;
use rustls::pki_types::ServerName;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio_rustls::TlsConnector;

/// A group of servers that are interchangeable for a client.
#[derive(Debug)]
pub struct Upstream {
    /// The upstream's name in the policy.
    pub(crate) name: Arc<str>,
    /// The servers.
    group: Group,
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
    /// The protocol of all servers.
    pub(crate) protocol: Protocol,
    /// The number of requests that may be repeated.
    pub(crate) retry_budget: RetryBudget,
    /// The time in which a server that has come back gets its whole share again.
    pub(crate) slow_start: Duration,
    /// All servers are used if fewer than this percentage of them is not set aside.
    pub(crate) panic_below: u8,
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
    /// The server's index in each core's table of pools.
    pub(crate) id: ServerId,
    /// `http://host:port` or `unix:/path`, as in the policy.
    url: Arc<str>,
    /// The name of a service, whose records have the hosts and ports (SRV).
    service: Option<Box<str>>,
    /// The URL, and the address if the URL has a name, for operators.
    pub(crate) origin: Arc<str>,
    /// The host name or address, without brackets.
    pub(crate) host: Box<str>,
    /// The TCP port.
    pub(crate) port: u16,
    /// The address; `None` if the host is a name that each connection resolves.
    pub(crate) address: Option<SocketAddr>,
    /// The nameservers for a host without an address.
    pub(crate) nameservers: Nameservers,
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
    /// Describes the settings for operators.
    pub(crate) description: Arc<str>,
    /// A digest of the trusted authorities, the name, the pins, and the gateway's certificate.
    pub(crate) identity: [u8; 32],
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Upstream {
    /// Creates an upstream. It has the same name as `counters`. `before` is the upstream in the previous policy, and
    /// `known` returns the equal server of the previous policy, if there is one.
    pub(crate) fn new(
        counters: Arc<UpstreamCounters>,
        settings: MemberSettings,
        servers: Vec<Configured>,
        before: Option<&Self>,
        known: &dyn Fn(Server) -> Arc<Server>,
    ) -> Self {
        Self {
            name: counters.name().clone(),
            slow_start: settings.slow_start,
            group: Group::new(counters.cores(), settings, servers, before.map(|before| &before.group), known),
            connect_timeout: Duration::ZERO,
            timeout: Duration::ZERO,
            share: 1,
            counters,
            balance: Balance::RoundRobin,
            protocol: Protocol::Http1,
            retry_budget: RetryBudget { percent: 100, floor: u64::MAX },
            panic_below: 0,
            cookies_reported: AtomicBool::new(false),
        }
    }

    /// Returns the servers at this moment.
    pub(crate) fn members(&self) -> Current<'_> {
        self.group.current()
    }

    /// Returns the servers at this moment, for a request of this core. A request uses one result to its end.
    #[inline]
    pub(super) fn members_of(&self, core: usize) -> Current<'_> {
        self.group.of_core(core)
    }

    /// Returns the servers with names, if each of their addresses is a server.
    pub(crate) fn names(&self) -> Option<&Arc<Names>> {
        match &self.group {
            Group::Fixed(_) => None,
            Group::Named(names) => Some(names),
        }
    }

    /// Returns the servers at this moment, and those of the policy.
    pub(crate) fn all_servers(&self) -> Vec<Arc<Server>> {
        let mut servers = self.members().servers.to_vec();
        if let Group::Named(names) = &self.group {
            servers.extend(names.configured().iter().map(|configured| configured.server.clone()));
        }
        servers
    }

    /// Returns the addresses of the servers in the policy, in canonical form.
    pub(crate) fn addresses(&self) -> Vec<String> {
        match &self.group {
            Group::Fixed(members) => members.servers.iter().map(|server| server.address()).collect(),
            Group::Named(names) => {
                names.configured().iter().map(|configured| configured.server.address()).collect()
            }
        }
    }

    /// Returns true on the first call only, so that the log reports the cookies once even if every answer sets them.
    pub(super) fn is_first_report_of_cookies(&self) -> bool {
        !self.cookies_reported.swap(true, Ordering::Relaxed)
    }

    /// Takes one retry of a core's request from the budget. Returns whether the request may be sent again.
    #[cold]
    pub(super) fn take_retry(&self, core: usize) -> bool {
        let counts = self.counters.of(core);
        counts.is_none_or(|counts| counts.take_retry(self.retry_budget, Instant::now()))
    }

    /// Whether so few servers are left that all are used, also those that are set aside.
    pub(crate) fn is_in_panic(&self, now: Instant) -> bool {
        let members = self.members();
        let aside = members.servers.iter().filter(|server| server.is_set_aside(now)).count();
        self.is_panic(&members, aside)
    }

    /// Whether all servers are used if this number is set aside.
    pub(super) fn is_panic(&self, members: &Members, aside: usize) -> bool {
        let count = members.servers.len();
        aside > 0 && (count - aside) * 100 < count * usize::from(self.panic_below)
    }

    /// Returns the servers in the order in which one request of a core should try them. The order starts with the server that
    /// `balance` chooses by the request's key or the servers' `load`, and servers that are set aside come last. These
    /// servers are still tried, because otherwise the request would certainly be answered with a 503.
    pub(crate) fn in_turn<'u>(
        &'u self,
        core: usize,
        members: &'u Members,
        now: Instant,
        key: Option<Key>,
        load: impl Fn(&Server) -> usize,
    ) -> Order<'u> {
        Order::new(self, core, members, now, key, load)
    }
}

impl Server {
    /// Returns the server's address in canonical form, so that two spellings of one address count as one server.
    pub(crate) fn address(&self) -> String {
        match &self.socket {
            Some(path) => format!("unix:{}", path.display()),
            None => match &self.service {
                Some(service) => format!("srv:{}", service.to_ascii_lowercase()),
                None => format!("{}:{}", self.host.to_ascii_lowercase(), self.port),
            },
        }
    }

    /// Creates a server that has not failed.
    pub(crate) fn new(origin: Arc<str>, host: Box<str>, port: u16, tls: Option<Tls>) -> Self {
        Self {
            id: ServerId::new(),
            url: origin.clone(),
            service: None,
            hash: hash_of_origin(&origin),
            origin,
            address: host.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, port)),
            nameservers: Nameservers::default(),
            host,
            port,
            socket: None,
            tls,
            health: Health::new(),
        }
    }

    /// Creates a server at a Unix socket that has not failed.
    pub(crate) fn at_socket(origin: Arc<str>, path: &Path) -> Self {
        Self { socket: Some(path.into()), ..Self::new(origin, "localhost".into(), 0, None) }
    }

    /// Makes a server with a name use these nameservers.
    pub(crate) fn with_nameservers(self, nameservers: Nameservers) -> Self {
        Self { nameservers, ..self }
    }

    /// Creates a server at one address of this server's name.
    pub(super) fn at_address(&self, address: SocketAddr) -> Self {
        let origin: Arc<str> = match self.service {
            Some(_) => format!("{} ({address})", self.url).into(),
            None => format!("{} ({})", self.url, address.ip()).into(),
        };
        Self {
            url: self.url.clone(),
            service: self.service.clone(),
            address: Some(address),
            ..Self::new(origin, self.host.clone(), self.port, self.tls.clone())
        }
    }

    /// Creates a server whose hosts and ports are in the SRV records of `service`. `host` is the domain of the service,
    /// for which its hosts have certificates (RFC 6125 section 6.2.1).
    pub(crate) fn of_service(origin: Arc<str>, service: &str, host: Box<str>, tls: Option<Tls>) -> Self {
        Self { service: Some(service.into()), address: None, ..Self::new(origin, host, 0, tls) }
    }

    /// Returns the name to look up for a server without an address.
    pub(super) fn question(&self) -> Question<'_> {
        match &self.service {
            Some(service) => Question::Service(service),
            None => Question::Host(&self.host, self.port),
        }
    }

    /// Whether the hosts and ports are in SRV records.
    pub(crate) fn is_service(&self) -> bool {
        self.service.is_some()
    }

    /// Whether the host is a name.
    pub(crate) fn has_name(&self) -> bool {
        self.socket.is_none() && self.address.is_none()
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
        if self.is_service() {
            return HeaderValue::from_str(&self.host).ok();
        }
        HeaderValue::try_from(self.url.split_once("://").map_or(&*self.url, |(_, rest)| rest)).ok()
    }
}
