//! What a connection established before any request came over it.

use std::net::IpAddr;

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

/// The other end of a connection, as far as the connection itself proves it.
///
/// What a *request* says of its sender (`X-Forwarded-For`) is no part of it: that is read, and believed only
/// from trusted proxies, in [`crate::accept::forwarded`].
#[derive(Clone, Debug)]
pub struct Peer {
    /// The address of the socket's other end; an IPv4 address mapped into IPv6 is unmapped.
    pub address: IpAddr,
    /// How the connection came in.
    pub scheme: Scheme,
}
