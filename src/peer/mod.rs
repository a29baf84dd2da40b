//! Describes clients: the facts known from a connection, and the facts that a trusted proxy adds to a request.

pub(crate) mod activity;
mod coarse;
mod connection;
pub(crate) mod forwarded;
mod known_token;
mod proxy_header;
pub(crate) mod streams;
mod takeover;

pub(crate) use coarse::{CoarseMillis, CoreState, coarse_millis};
pub(crate) use connection::{Connection, PeerLines};
pub use forwarded::read as read_forwarded;
pub(crate) use known_token::KnownToken;
pub use proxy_header::{PROXY_HEADER_MAX, ProxyHeader, ProxyHeaderFault};
pub(crate) use takeover::{ClientStream, Session, Takeover};

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
    /// Returns the scheme as it is written in a URI.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// Returns the default port of the scheme (RFC 9110 sections 4.2.1 and 4.2.2).
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// Returns the network that counts as one client.
///
/// For IPv6 this is the /64 network, because one household or host may use any address in it. For IPv4 and IPv4-mapped
/// IPv6, it is the IPv4 address.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// The remote end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The remote address of the socket. An IPv4-mapped IPv6 address is converted to IPv4.
    pub address: IpAddr,
    /// The scheme of the listener that accepted the connection.
    pub scheme: Scheme,
}

/// The client that sends a request: the peer, or the client that a trusted proxy names. Only the module `forwarded`
/// creates this value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The client's address, for limits and logs.
    pub address: IpAddr,
    /// The scheme that the client used.
    pub scheme: Scheme,
    /// Whether the peer is a trusted proxy. If so, the gateway keeps and extends the peer's forwarding fields.
    pub by_trusted_proxy: bool,
}

/// The facts that a trusted proxy states about a request. They are read once per request, by the module `forwarded`.
/// All forwarding fields for the upstream are written from them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// The addresses of the client and of the proxies, in the order in which the request passed them. The peer is not
    /// included. An element is `None` if its address is obfuscated or invalid.
    pub chain: Vec<Option<IpAddr>>,
    /// The host that the client requested, in canonical spelling, with `:port` if the field names a port.
    pub host: Option<Box<str>>,
    /// The port that the client connected to, from `X-Forwarded-Port`.
    pub port: Option<u16>,
}

impl Relayed {
    /// Returns whether the proxy forwards a request of another client.
    pub(crate) fn names_client(&self) -> bool {
        !self.chain.is_empty()
    }
}
