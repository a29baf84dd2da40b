//! Splits a JSON Web Signature in compact form (RFC 7515 section 7.1) into its parts and verifies the signature. The
//! claims in the payload are checked in `verify`.

use super::error::{ClaimText, CredentialError, Listed, Quoted, quoted};
use super::json;
use super::keys::{Algorithm, CANDIDATES_MAX, Key, KeyMatch, KeySet};
use crate::denial::{Denial, TokenPart};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use std::sync::Arc;

/// The maximum length of a token in bytes.
pub(super) const TOKEN_MAX: usize = 16 * 1024;

/// The parts of a token, not yet verified. Only the header is parsed, because a token that waits for its turn is read again
/// after the wait.
#[derive(Debug)]
pub(super) struct Jws<'t> {
    message: &'t str,
    payload: &'t str,
    signature: &'t str,
    header: Map<String, Value>,
}

impl<'t> Jws<'t> {
    /// Splits a token into its parts, and parses the header.
    ///
    /// # Errors
    /// [`Denial::MalformedToken`] with the part that cannot be parsed.
    pub(super) fn read(token: &'t str) -> Result<Self, CredentialError> {
        let malformed = |part| CredentialError::from(Denial::MalformedToken(part));
        if token.len() > TOKEN_MAX {
            let detail = format!("the token has {} bytes, and at most {TOKEN_MAX} are read", token.len());
            return Err(CredentialError::because(Denial::MalformedToken(TokenPart::Length), detail));
        }
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            let count = token.split('.').count();
            let kind = if count == 5 { ": it is encrypted (JWE), which is not supported" } else { "" };
            let parts = if count == 1 { "part" } else { "parts" };
            let detail = format!("the token has {count} {parts}, and a JWS has three{kind}");
            return Err(CredentialError::because(Denial::MalformedToken(TokenPart::Shape), detail));
        };
        if header.is_empty() || payload.is_empty() {
            return Err(malformed(TokenPart::Shape));
        }
        let message = &token[..header.len() + 1 + payload.len()];
        let header = decode(header).ok_or_else(|| malformed(TokenPart::Header))?;
        let header = json::object(&header).map_err(|_| malformed(TokenPart::Header))?;
        // A recipient must reject a token whose `crit` names an extension that the recipient does not support (RFC 7515
        // section 4.1.11). The gateway supports no extension.
        if header.contains_key("crit") {
            return Err(malformed(TokenPart::Critical));
        }
        // Compression is defined only for encrypted tokens (RFC 7516 section 4.1.3). The gateway never decompresses a
        // payload.
        if header.contains_key("zip") {
            return Err(malformed(TokenPart::Header));
        }
        Ok(Self { message, payload, signature, header })
    }

    /// Returns the JOSE header. Its members `jku`, `x5u`, `jwk` and `x5c` are never used (RFC 8725 section 3.10).
    pub(super) fn header(&self) -> &Map<String, Value> {
        &self.header
    }

    /// Returns whether `alg` names a MAC, whose check takes less time than the rest of a request. A false name gains nothing:
    /// a MAC is not accepted for a public key.
    pub(super) fn names_mac(&self) -> bool {
        let named = self.header.get("alg").and_then(Value::as_str).and_then(|name| name.parse().ok());
        named.is_some_and(|algorithm: Algorithm| algorithm.has_secret())
    }

    /// Parses the payload as claims.
    ///
    /// # Errors
    /// [`Denial::MalformedToken`] if the payload is not a JSON object in base64url.
    pub(super) fn claims(&self) -> Result<Map<String, Value>, Denial> {
        let malformed = Denial::MalformedToken(TokenPart::Claims);
        let payload = decode(self.payload).ok_or(malformed.clone())?;
        json::object(&payload).map_err(|_| malformed)
    }

    /// Returns the part that is signed, and the signature in base64url.
    pub(super) fn signed(&self) -> (&str, &str) {
        (self.message, self.signature)
    }

    /// Verifies the signature with one of these keys, if the token's algorithm is one of the accepted algorithms.
    /// Returns the key that verified the signature.
    ///
    /// # Errors
    /// Returns the first fault. The checks run in this order: algorithm, key, length of the signature, signature.
    pub(super) fn verify<'k>(
        &self,
        keys: &'k KeySet,
        accepted: &[Algorithm],
    ) -> Result<&'k Arc<Key>, CredentialError> {
        let malformed = Denial::MalformedToken(TokenPart::Header);
        let Some(Value::String(named)) = self.header.get("alg") else {
            return Err(CredentialError::because(
                malformed,
                format!("alg is {}", ClaimText(self.header.get("alg"))),
            ));
        };
        let Some(algorithm) = named.parse().ok().filter(|algorithm| accepted.contains(algorithm)) else {
            let detail =
                format!("alg is {}; the issuer's algorithms: {}", Quoted(named), Listed(accepted.iter()));
            return Err(CredentialError::because(Denial::UnsupportedAlgorithm, detail));
        };
        let id = match self.header.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.as_str()),
            other @ Some(_) => {
                return Err(CredentialError::because(malformed, format!("kid is {}", ClaimText(other))));
            }
        };
        match keys.find(id, algorithm) {
            KeyMatch::Keys(candidates) => self.verify_by_any(&candidates),
            KeyMatch::OtherAlgorithm => {
                let others = keys.iter().filter(|key| id.is_none() || key.id() == id).map(Key::algorithm);
                let detail = match id {
                    Some(id) => {
                        format!("the key {} is for {}, not for {algorithm}", Quoted(id), Listed(others))
                    }
                    None => format!("no key of the issuer is for {algorithm}, only for {}", Listed(others)),
                };
                Err(CredentialError::because(Denial::UnsupportedAlgorithm, detail))
            }
            KeyMatch::TooMany(count) => Err(CredentialError::because(
                Denial::UnknownKey,
                format!(
                    "the token has no kid, and the issuer has {count} keys for {algorithm}: at most {CANDIDATES_MAX} are tried"
                ),
            )),
            KeyMatch::None => {
                let known = keys.iter().map(|key| key.id().unwrap_or("(a key without kid)"));
                let detail = match id {
                    Some(id) => format!("kid is {}; the issuer's keys: {}", Quoted(id), quoted(known)),
                    None => format!("the token has no kid; the issuer's keys: {}", quoted(known)),
                };
                Err(CredentialError::because(Denial::UnknownKey, detail))
            }
        }
    }

    /// Verifies the signature with a few candidate keys.
    fn verify_by_any<'k>(
        &self,
        keys: &[Option<&'k Arc<Key>>; CANDIDATES_MAX],
    ) -> Result<&'k Arc<Key>, CredentialError> {
        // A signature of the wrong length is rejected before it is verified. For example, an ES256 signature consists
        // of two numbers of 32 bytes (RFC 7518 section 3.4), so a signature in DER is rejected.
        let malformed = Denial::MalformedToken(TokenPart::Signature);
        let signature = decode(self.signature).ok_or(malformed.clone())?;
        let length = signature.len();
        let mut tried = 0;
        for key in keys.iter().flatten().filter(|key| key.signature_bytes() == length) {
            if key.verifies(self.message.as_bytes(), &signature) {
                return Ok(key);
            }
            tried += 1;
        }
        let all = || keys.iter().flatten();
        if tried == 0 {
            let wanted = Listed(all().map(|key| key.signature_bytes()));
            let detail = format!("the signature has {length} bytes; a signature of the key has {wanted}");
            return Err(CredentialError::because(malformed, detail));
        }
        let detail = match (all().next(), tried) {
            (Some(key), 1) => match key.id() {
                Some(id) => format!("not by the key {} ({})", Quoted(id), key.algorithm()),
                None => format!("not by the issuer's key for {}, which has no kid", key.algorithm()),
            },
            (Some(key), several) => format!("by none of {several} keys for {}", key.algorithm()),
            (None, _) => String::new(),
        };
        Err(CredentialError::because(Denial::BadSignature, detail))
    }
}

/// Normalizes a `typ` for comparison: converts it to lower case and removes `application/`, which issuers may omit (RFC
/// 7515 section 4.1.9).
pub(super) fn canonical_type(text: &str) -> String {
    const PREFIX: &str = "application/";
    let rest = match text.split_at_checked(PREFIX.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) => rest,
        Some(_) | None => "",
    };
    // A bare prefix stays unchanged, because `""` represents an absent `typ`.
    let kind = if rest.is_empty() || rest.contains('/') { text } else { rest };
    kind.to_ascii_lowercase()
}

/// Decodes base64url without padding and accepts only the canonical spelling (RFC 7515 section 2).
fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests;
