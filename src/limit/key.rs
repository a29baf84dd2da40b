//! The key by which a limit groups requests, and its hash.

use crate::authenticate::{ClaimId, ClaimValue, Principal};
use http::{HeaderMap, HeaderName};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

/// The facts of a request that select a bucket.
#[derive(Clone, Copy, Debug)]
pub struct LimitKey<'a> {
    /// The client's address.
    pub address: IpAddr,
    /// The request's header fields.
    pub headers: &'a HeaderMap,
    /// The route's name. A reload of the policy may change the route's position, but not its name.
    pub route: &'a str,
    /// The caller; `None` before authentication and for anonymous callers.
    pub principal: Option<&'a Principal>,
}

/// The key by which a limit groups requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// The client's address. IPv6 addresses are grouped by /64, the usual allocation of one subscriber.
    ClientIp,
    /// The caller, identified by issuer and subject.
    Subject,
    /// The route: all its requests share one bucket.
    Route,
    /// The value of a header field. Requests without the field, or with a repeated field, share one bucket.
    ///
    /// Clients choose the value. This key is useful only if another component verifies the value.
    Header(HeaderName),
    /// The value of a claim, separately for each issuer. A caller without the claim is identified by issuer and
    /// subject.
    Claim(ClaimId),
}

impl By {
    /// Returns whether the key depends on the caller. Such a limit is charged after authentication, because anyone can
    /// write any subject into an unverified token.
    pub const fn needs_caller(&self) -> bool {
        match self {
            Self::Subject | Self::Claim(_) => true,
            Self::ClientIp | Self::Route | Self::Header(_) => false,
        }
    }

    /// Returns the limit's rank. Lower ranks are charged first: limits per client before shared limits.
    pub(super) const fn rank(&self) -> u8 {
        match self {
            Self::ClientIp | Self::Subject => 0,
            Self::Header(_) | Self::Claim(_) => 1,
            Self::Route => 2,
        }
    }

    /// Returns the hash of the values of a request that the key takes. The first hashed byte is the kind of key, so a claim
    /// and an address never have the same hash input. `of_caller` returns the hash of a caller as a whole.
    #[inline]
    pub(super) fn hash<H: Hasher>(
        &self,
        key: &LimitKey<'_>,
        mut hasher: H,
        of_caller: impl Fn(&Principal, H) -> u64,
    ) -> u64 {
        match (self, key.principal) {
            (Self::ClientIp, _) | (Self::Subject | Self::Claim(_), None) => {
                hash_address(key.address, &mut hasher)
            }
            (Self::Subject, Some(principal)) => return of_caller(principal, hasher),
            (Self::Route, _) => (2_u8, key.route).hash(&mut hasher),
            (Self::Header(name), _) => {
                let mut values = key.headers.get_all(name).iter();
                match (values.next(), values.next()) {
                    (Some(value), None) => (3_u8, value.as_bytes()).hash(&mut hasher),
                    // Otherwise a client could repeat the field and vary one value to change its bucket.
                    (None, _) | (Some(_), Some(_)) => hasher.write_u8(4),
                }
            }
            (Self::Claim(id), Some(principal)) => match principal.claim(*id) {
                Some(value) => {
                    (5_u8, &principal.issuer).hash(&mut hasher);
                    hash_claim(value, &mut hasher);
                }
                // If callers without the claim shared a bucket, they could lock each other out.
                None => return of_caller(principal, hasher),
            },
        }
        hasher.finish()
    }
}

fn hash_address(address: IpAddr, hasher: &mut impl Hasher) {
    match address.to_canonical() {
        IpAddr::V4(v4) => (0_u8, 4_u8, v4.to_bits()).hash(hasher),
        IpAddr::V6(v6) => (0_u8, 6_u8, v6.to_bits() >> 64).hash(hasher),
    }
}

fn hash_claim(value: &ClaimValue, hasher: &mut impl Hasher) {
    match value {
        ClaimValue::Text(text) => (0_u8, text).hash(hasher),
        ClaimValue::Number(number) => (1_u8, number).hash(hasher),
        ClaimValue::Bool(bool) => (2_u8, bool).hash(hasher),
        ClaimValue::List(values) => {
            (3_u8, values.len()).hash(hasher);
            for value in values {
                hash_claim(value, hasher);
            }
        }
        ClaimValue::Other => hasher.write_u8(4),
    }
}
