//! Who is at the other end: what a connection established before any request, and what a request may add.

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
/// [`crate::accept::forwarded::caller`] alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The client's address: what limits count and logs name.
    pub address: IpAddr,
    /// The scheme that the client used.
    pub scheme: Scheme,
    /// Whether the peer is a trusted proxy, so that its forwarding fields are kept and added to.
    pub by_trusted_proxy: bool,
}
