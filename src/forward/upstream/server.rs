//! One server of an upstream: its address, how to connect to it, and its health.

use super::balance::hash_of_origin;
use super::health::Health;
use super::resolve::{Nameservers, Question};
use super::server_id::ServerId;
use http::HeaderValue;
use rustls::pki_types::ServerName;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tokio_rustls::TlsConnector;

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
    pub(in crate::forward) hash: u64,
    pub(in crate::forward) health: Health,
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
    pub(in crate::forward) fn at_address(&self, address: SocketAddr) -> Self {
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
    pub(in crate::forward) fn question(&self) -> Question<'_> {
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
