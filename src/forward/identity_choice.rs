//! The part of the caller's identity that one route's upstream receives.
//!
//! A choice only ever sends less. Clients' fields of all identity headers are removed on every route, chosen or not.

use crate::authenticate::ClaimId;
use http::{HeaderName, HeaderValue};

/// What a route's upstream receives of the caller's identity, in header fields and in proofs.
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
    /// The header fields that carry all of these.
    pub headers: Vec<HeaderName>,
}

impl IdentityChoice {
    /// Returns the fields of an identity that the choice includes.
    pub(super) fn of<'p>(
        &self,
        all: &'p [(HeaderName, HeaderValue)],
    ) -> impl Iterator<Item = &'p (HeaderName, HeaderValue)> {
        all.iter().filter(|(name, _)| self.headers.contains(name))
    }

    /// Returns a text that differs for each choice. It contains no line break.
    pub(super) fn key(&self) -> String {
        let Self { subject, roles, scopes, issuer, claims, headers } = self;
        let claims: Vec<u16> = claims.iter().map(|claim| claim.0).collect();
        let headers: Vec<&str> = headers.iter().map(HeaderName::as_str).collect();
        format!("{subject} {roles} {scopes} {issuer} {claims:?} {headers:?}")
    }
}
