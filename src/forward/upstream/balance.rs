//! The ways in which requests choose a server, and the stable hashes of requests, servers and upstreams.

use crate::authenticate::credential::cookie;
use crate::authenticate::{ClaimId, ClaimValue, Principal};
use http::{HeaderMap, HeaderName};
use std::net::IpAddr;

/// The way in which a request chooses the server that it tries first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// The servers take turns.
    #[default]
    RoundRobin,
    /// The server with the fewest requests of this core.
    LeastRequests,
    /// The server with fewer requests of this core, out of two servers that are chosen at random.
    TwoChoices,
    /// The server that a hash of the request's key selects. The key is the first of these that the request has.
    Hash(Box<[HashBy]>),
}

/// A property of requests. Requests with the same value go to the same server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashBy {
    /// The address of the client. For IPv6, the network of 64 bits.
    ClientIp,
    /// The issuer and the subject of the token.
    Subject,
    /// The issuer and a claim of the token.
    Claim(ClaimId),
    /// The value of a header field that occurs once.
    Header(HeaderName),
    /// The value of a cookie that occurs once.
    Cookie(Box<str>),
}

/// The facts of a request from which its key is taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyFacts<'r> {
    pub(crate) principal: Option<&'r Principal>,
    pub(crate) headers: &'r HeaderMap,
    pub(crate) address: IpAddr,
}

/// The hash of a request's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(pub(in crate::forward) u64);

impl Balance {
    /// Returns the hash of the request's key; `None` if requests are not balanced by a key, or if the request has none
    /// of the properties.
    #[inline]
    pub(crate) fn key(&self, facts: KeyFacts<'_>) -> Option<Key> {
        match self {
            Self::RoundRobin | Self::LeastRequests | Self::TwoChoices => None,
            Self::Hash(properties) => properties.iter().find_map(|property| property.key(facts)),
        }
    }
}

impl HashBy {
    pub(in crate::forward) fn key(&self, facts: KeyFacts<'_>) -> Option<Key> {
        let hash = match self {
            Self::ClientIp => match facts.address.to_canonical() {
                IpAddr::V4(v4) => StableHash::new(0).with(&v4.octets()),
                // A client can choose any address of its network.
                IpAddr::V6(v6) => StableHash::new(1).with(v6.octets().first_chunk::<8>()?),
            },
            Self::Subject => {
                let principal = facts.principal?;
                StableHash::new(2).with(principal.issuer.as_bytes()).with(principal.subject.as_bytes())
            }
            Self::Claim(id) => {
                let principal = facts.principal?;
                let hash = StableHash::new(3).with(principal.issuer.as_bytes());
                match principal.claim(*id)? {
                    ClaimValue::Text(text) => hash.with(b"t").with(text.as_bytes()),
                    ClaimValue::Number(number) => hash.with(b"n").with(number.to_string().as_bytes()),
                    ClaimValue::Bool(flag) => hash.with(b"b").with(&[u8::from(*flag)]),
                    ClaimValue::List(_) | ClaimValue::Other => return None,
                }
            }
            Self::Header(name) => {
                let mut values = facts.headers.get_all(name).iter();
                let (Some(value), None) = (values.next(), values.next()) else { return None };
                StableHash::new(4).with(value.as_bytes())
            }
            Self::Cookie(name) => StableHash::new(5).with(cookie(facts.headers, name).ok()??),
        };
        Some(hash.finish())
    }
}

/// FNV-1a over parts. All gateways and all versions compute the same hash, so that they choose the same server.
#[derive(Clone, Copy)]
struct StableHash(u64);

impl StableHash {
    fn new(kind: u8) -> Self {
        Self(0xcbf2_9ce4_8422_2325).with(&[kind])
    }

    /// Adds a part. The length keeps two lists of parts from having the same bytes.
    fn with(self, part: &[u8]) -> Self {
        let length = (part.len() as u64).to_le_bytes();
        let bytes = length.iter().chain(part);
        Self(bytes.fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)))
    }

    fn finish(self) -> Key {
        Key(scatter(self.0))
    }
}

/// Returns the hash of a server's origin, for [`rank`].
pub(in crate::forward) fn hash_of_origin(origin: &str) -> u64 {
    StableHash::new(6).with(origin.as_bytes()).finish().0
}

/// Returns the hash of an upstream's name, for [`rank`].
pub(in crate::forward) fn hash_of_name(name: &str) -> u64 {
    StableHash::new(7).with(name.as_bytes()).finish().0
}

/// Returns the key of a single request.
pub(in crate::forward) fn key_of_request(id: &[u8; 32]) -> Key {
    StableHash::new(8).with(id).finish()
}

/// Returns a number below 100 that is the same for all uses of a request's id.
pub(in crate::forward) fn draw(id: &[u8; 32]) -> u64 {
    StableHash::new(9).with(id).finish().0 % 100
}

/// Returns the rank of a server for a key, by weighted rendezvous hashing: the server with the highest rank gets the
/// key. Each server's rank depends on this server alone. A server that is added or removed therefore moves only the
/// keys that it gets or had.
pub(in crate::forward) fn rank(key: Key, server: u64, weight: u16) -> u64 {
    let hash = scatter(key.0 ^ server);
    // A uniform number above 0 and at most 1. The logarithm makes the chance of the highest rank proportional to
    // the weight.
    let uniform = ((hash >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    let distance = -uniform.ln() / f64::from(weight);
    // The bits of positive numbers have the order of the numbers.
    !distance.abs().to_bits()
}

/// Returns a number that looks random, for each of a sequence of numbers (the finalizer of `SplitMix64`).
pub(in crate::forward) fn scatter(number: u64) -> u64 {
    let mut bits = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
