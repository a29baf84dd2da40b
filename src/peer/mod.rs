//! Describes clients: the facts that a connection establishes, and the facts that a trusted proxy adds to a request.

pub(crate) mod activity;
mod coarse;
mod connection;
pub(crate) mod forwarded;
pub(crate) mod streams;

pub(crate) use coarse::{CoarseMillis, CoreState, coarse_millis};
pub(crate) use connection::Connection;

use std::net::{IpAddr, Ipv6Addr};

/// The URI scheme that the client used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Cleartext.
    Http,
    /// TLS, terminated here or at a trusted proxy.
    Https,
}

impl Scheme {
    /// Returns the scheme as spelled in a URI.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// Returns the default port of the scheme, which applies if an authority contains no port (RFC 9110 sections 4.2.1
    /// and 4.2.2).
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// The version of HTTP that a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// Returns the network that represents one client when addresses are counted.
///
/// For IPv6 this is the /64 network, because one household or host may use any address in it. For IPv4, including
/// IPv4-mapped IPv6, it is the address itself.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// The other end of a connection, as established by the connection alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The remote address of the socket. An IPv4-mapped IPv6 address is converted to IPv4.
    pub address: IpAddr,
    /// The scheme of the listener that accepted the connection.
    pub scheme: Scheme,
}

/// The client that sends a request: the peer itself, or the client that a trusted proxy names. Only the module
/// `forwarded` creates this value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The client's address, as used by limits and logs.
    pub address: IpAddr,
    /// The scheme that the client used.
    pub scheme: Scheme,
    /// Whether the peer is a trusted proxy. The forwarding fields that a trusted proxy sends are kept and extended.
    pub by_trusted_proxy: bool,
}

/// The facts that a trusted proxy states about the request that it forwards. The module `forwarded` reads them once per
/// request. Every forwarding field sent to an upstream is derived from them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// The addresses of the client and of the proxies through which the request passed, in this order. The last proxy
    /// is the peer and is not included. An element is `None` if its address is obfuscated or invalid.
    pub chain: Vec<Option<IpAddr>>,
    /// The host that the client requested, in canonical spelling, followed by `:port` if the field names a port.
    pub host: Option<Box<str>>,
    /// The port that the client connected to, from `X-Forwarded-Port`.
    pub port: Option<u16>,
}
