//! Selects the part of the caller's identity that a route sends to its upstream.
//!
//! A choice only affects the fields that the gateway sends. The gateway removes all identity fields of the client on
//! every route.

use crate::authenticate::ClaimId;
use http::{HeaderName, HeaderValue};

/// The part of the caller's identity that an upstream receives, in header fields and in proofs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityChoice {
    /// Whether the upstream receives the subject.
    pub subject: bool,
    /// Whether the upstream receives the roles.
    pub roles: bool,
    /// Whether the upstream receives the scopes.
    pub scopes: bool,
    /// Whether the upstream receives the issuer.
    pub issuer: bool,
    /// The claims that the upstream receives.
    pub claims: Vec<ClaimId>,
    /// The header fields for this part of the identity.
    pub headers: Vec<HeaderName>,
}

impl IdentityChoice {
    /// Returns the identity fields that the choice includes.
    pub(in crate::forward) fn of<'p>(
        &self,
        all: &'p [(HeaderName, HeaderValue)],
    ) -> impl Iterator<Item = &'p (HeaderName, HeaderValue)> {
        all.iter().filter(|(name, _)| self.headers.contains(name))
    }

    /// Returns a text without line breaks that is different for each choice.
    pub(in crate::forward) fn key(&self) -> String {
        let Self { subject, roles, scopes, issuer, claims, headers } = self;
        let claims: Vec<u16> = claims.iter().map(|claim| claim.0).collect();
        let headers: Vec<&str> = headers.iter().map(HeaderName::as_str).collect();
        format!("{subject} {roles} {scopes} {issuer} {claims:?} {headers:?}")
    }
}
