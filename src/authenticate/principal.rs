//! Someone whose token this process verified.

use super::claims::{ClaimId, ClaimValue};
use http::{HeaderName, HeaderValue};
use std::sync::Arc;

/// Who calls, as their issuer vouches and this process verified. Holds what the policy uses of the token, and
/// nothing else of it.
#[derive(Debug)]
pub struct Principal {
    /// `iss`.
    pub issuer: Arc<str>,
    /// `sub`.
    pub subject: Box<str>,
    /// `jti`, when the token has one.
    pub token_id: Option<Box<str>>,
    /// The roles, from where the issuer's `roles` path points.
    pub roles: Box<[Box<str>]>,
    /// The scopes, from where the issuer's `scopes` path points.
    pub scopes: Box<[Box<str>]>,
    /// The other claims that the policy uses, by [`ClaimId`].
    pub claims: Box<[Option<ClaimValue>]>,
    /// From when this holds, seconds since 1970, the issuer's leeway taken off.
    pub not_before: u64,
    /// Until when this holds (exclusive), seconds since 1970, the issuer's leeway added.
    pub expires: u64,
    /// The identity headers for the upstream, ready-made, so that sending them is counting references.
    pub headers: Box<[(HeaderName, HeaderValue)]>,
}

impl Principal {
    /// The value of a claim that the policy uses; `None` when the token lacks it.
    pub fn claim(&self, id: ClaimId) -> Option<&ClaimValue> {
        self.claims.get(usize::from(id.0)).and_then(Option::as_ref)
    }
}
