//! Describes clients: the facts that a connection establishes, and those that a trusted proxy adds to a request.

pub(crate) mod activity;
mod coarse;
mod connection;
pub mod forwarded;
pub(crate) mod streams;

pub(crate) use coarse::{CoarseMillis, CoreState, coarse_millis};
pub(crate) use connection::Connection;

use std::net::{IpAddr, Ipv6Addr};

/// `http` or `https`, as the client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Cleartext.
    Http,
    /// TLS, ended here or at a trusted proxy.
    Https,
}

impl Scheme {
    /// The scheme as it stands in a URI.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that an authority without one means (RFC 9110 sections 4.2.1 and 4.2.2).
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

/// The network that counts for an address: an IPv6 network of 64 bits belongs to one household or one host, which may use
/// any address in it. An IPv4 address counts by itself, mapped into IPv6 or not.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// The other end of a connection, as far as the connection itself proves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The address of the socket's other end; an IPv4 address mapped into IPv6 is unmapped.
    pub address: IpAddr,
    /// How the connection came in.
    pub scheme: Scheme,
}

/// Who sends a request: the peer itself, or whom a trusted proxy names. Made by
/// [`forwarded`] alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The client's address: what limits count and logs name.
    pub address: IpAddr,
    /// The scheme that the client used.
    pub scheme: Scheme,
    /// Whether the peer is a trusted proxy, so that its forwarding fields are kept and added to.
    pub by_trusted_proxy: bool,
}

/// A trusted proxy's account of the request that it forwards: read once, by [`forwarded`] alone, and the
/// source of every field in which an upstream reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// The addresses that the request came by before the proxy itself, the client's end first; `None` for one that is
    /// hidden or cannot be read.
    pub chain: Vec<Option<IpAddr>>,
    /// The host that the client asked, in canonical spelling, with the port where one is named beside it.
    pub host: Option<Box<str>>,
    /// The port that the client reached.
    pub port: Option<u16>,
}
