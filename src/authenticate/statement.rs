//! Statements of an issuer other than access tokens: security event tokens (RFC 8417) and logout tokens (OpenID Connect
//! Back-Channel Logout). `signals` checks their claims.

use super::error::CredentialError;
use super::jws::{Jws, canonical_type};
use super::keys::{Algorithm, KeySet};
use super::postponed::until_keys;
use crate::key_source::KeySource;
use serde_json::{Map, Value};
use std::sync::Arc;

/// A statement that was parsed but not yet verified.
#[derive(Debug)]
pub struct Statement<'t> {
    jws: Jws<'t>,
    claims: Map<String, Value>,
}

impl<'t> Statement<'t> {
    /// Parses a statement.
    ///
    /// # Errors
    /// [`Denial::MalformedToken`](crate::denial::Denial::MalformedToken) with the part that cannot be parsed.
    pub fn read(text: &'t str) -> Result<Self, CredentialError> {
        let jws = Jws::read(text)?;
        let claims = jws.claims()?;
        Ok(Self { jws, claims })
    }

    /// Returns the header, which is not yet verified.
    pub fn header(&self) -> &Map<String, Value> {
        self.jws.header()
    }

    /// Returns the claims, which are not yet verified.
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }

    /// Verifies the signature, and returns the claims. `source` is the source of the keys, if they are fetched. If
    /// `is_current` is false, the caller rejects the statement for another reason, so the statement does not wait for a
    /// new key.
    ///
    /// # Errors
    /// Returns the first fault. The checks run in this order: algorithm, key, length of the signature, signature.
    pub fn verify(
        self,
        (keys, source): (&KeySet, Option<&Arc<KeySource>>),
        accepted: &[Algorithm],
        is_current: bool,
    ) -> Result<Map<String, Value>, CredentialError> {
        match self.jws.verify(keys, accepted) {
            Ok(_) => Ok(self.claims),
            Err(refused) => Err(until_keys(refused, self.jws.header(), (keys, source), is_current)),
        }
    }
}

/// Returns whether a header has one of these types. The types are in lower case and without `application/`; `""` accepts
/// a header without `typ`.
pub fn has_type(header: &Map<String, Value>, accepted: &[&str]) -> bool {
    match header.get("typ") {
        None => accepted.contains(&""),
        Some(Value::String(kind)) if !kind.is_empty() => accepted.contains(&&*canonical_type(kind)),
        Some(_) => false,
    }
}
