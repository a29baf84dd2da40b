//! Verification keys: each with one algorithm, each belonging to one issuer.
//!
//! The key decides the algorithm, never the token (RFC 8725 section 3.1): a set is searched for a key with a given id
//! and algorithm.

mod der;
mod jwks;
#[cfg(test)]
mod tests;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use jsonwebtoken::{DecodingKey, DecodingKeyKind};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A JWS signature algorithm that the gateway supports. `none` is not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    HS256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519, under its names `EdDSA` (RFC 8037) and `Ed25519` (RFC 9864).
    EdDSA,
}

/// The name that RFC 9864 section 2.2 gives to `EdDSA` with Ed25519.
pub const ED25519: &str = "Ed25519";

impl Algorithm {
    /// Returns the name (RFC 7518 section 3.1).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::RS256 => "RS256",
            Self::ES256 => "ES256",
            Self::EdDSA => "EdDSA",
        }
    }

    /// Returns the library's value.
    pub(crate) const fn as_library(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::HS256 => jsonwebtoken::Algorithm::HS256,
            Self::RS256 => jsonwebtoken::Algorithm::RS256,
            Self::ES256 => jsonwebtoken::Algorithm::ES256,
            Self::EdDSA => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

impl FromStr for Algorithm {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        // RFC 9864 section 4.1 deprecates `EdDSA`, which leaves the curve to the key. Here the curve is always Ed25519,
        // so both names mean the same.
        if text == ED25519 {
            return Ok(Self::EdDSA);
        }
        [Self::HS256, Self::RS256, Self::ES256, Self::EdDSA]
            .into_iter()
            .find(|a| a.as_str() == text)
            .ok_or(())
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One verification key.
pub struct Key {
    id: Option<Box<str>>,
    algorithm: Algorithm,
    key: DecodingKey,
    /// The length of its signatures in bytes.
    signature_bytes: usize,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

impl Key {
    fn new(id: Option<&str>, algorithm: Algorithm, key: DecodingKey, signature_bytes: usize) -> Self {
        Self { id: id.map(Into::into), algorithm, key, signature_bytes }
    }

    fn secret(id: Option<&str>, secret: &[u8]) -> Self {
        Self::new(id, Algorithm::HS256, DecodingKey::from_secret(secret), 32)
    }

    /// Returns the id (`kid`).
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Returns the algorithm.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the length of its signatures in bytes.
    pub const fn signature_bytes(&self) -> usize {
        self.signature_bytes
    }

    pub(super) const fn decoding_key(&self) -> &DecodingKey {
        &self.key
    }

    /// Returns whether both keys have the same id and verify the same signatures.
    fn is_same(&self, other: &Self) -> bool {
        use DecodingKeyKind::{RsaModulusExponent, SecretOrDer};
        let same_material = match (self.key.kind(), other.key.kind()) {
            (SecretOrDer(ours), SecretOrDer(theirs)) => verify_slices_are_equal(ours, theirs).is_ok(),
            (RsaModulusExponent { n, e }, RsaModulusExponent { n: their_n, e: their_e }) => {
                n == their_n && e == their_e
            }
            (SecretOrDer(_), RsaModulusExponent { .. }) | (RsaModulusExponent { .. }, SecretOrDer(_)) => {
                false
            }
        };
        self.id == other.id && self.algorithm == other.algorithm && same_material
    }
}

/// The keys of one issuer. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct KeySet(Vec<Arc<Key>>);

/// The maximum number of keys tried for one token: those without `kid`, or all of an algorithm for a token without one.
pub(super) const CANDIDATES_MAX: usize = 4;
/// The minimum length of an HMAC key in bytes: that of its hash (RFC 7518 section 3.2).
const SECRET_MIN: usize = 32;

impl KeySet {
    /// Adds a shared secret for HS256.
    ///
    /// # Errors
    /// When it is too short, or a key of another kind: with the text of a public key as the secret, whoever has that
    /// key could sign (RFC 8725 section 2.1).
    pub fn add_secret(&mut self, id: Option<&str>, secret: &[u8]) -> Result<(), String> {
        Self::check_secret(secret)?;
        self.insert(Key::secret(id, secret))
    }

    fn check_secret(secret: &[u8]) -> Result<(), String> {
        if let Some(what) = der::no_secret(secret) {
            return Err(what.to_owned());
        }
        if secret.len() < SECRET_MIN {
            return Err(format!(
                "a secret of {} bits, and HS256 needs 256 (RFC 7518 section 3.2)",
                secret.len() * 8
            ));
        }
        Ok(())
    }

    /// Adds a key.
    ///
    /// # Errors
    /// When a token could not identify one of two keys, or would have to be tried against too many.
    fn insert(&mut self, key: Key) -> Result<(), String> {
        let algorithm = key.algorithm;
        if self.0.iter().any(|known| known.is_same(&key)) {
            return Ok(());
        }
        let alike = self.0.iter().filter(|known| known.id == key.id && known.algorithm == algorithm).count();
        match &key.id {
            Some(_) if alike > 0 => return Err(format!("a second key for {algorithm} under the same kid")),
            None if alike >= CANDIDATES_MAX => {
                return Err(format!(
                    "more than {CANDIDATES_MAX} keys for {algorithm} without kid: each of their tokens would be tried \
                     against all"
                ));
            }
            Some(_) | None => {}
        }
        self.0.push(Arc::new(key));
        Ok(())
    }

    /// Returns the keys, for listing.
    pub fn iter(&self) -> impl Iterator<Item = &Key> + Clone {
        self.0.iter().map(Arc::as_ref)
    }

    /// Returns whether both sets contain the same keys.
    pub fn is_same(&self, other: &Self) -> bool {
        self.covers(other) && other.covers(self)
    }

    /// Returns whether this set contains every key of the other.
    pub(super) fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|key| self.0.iter().any(|ours| ours.is_same(key)))
    }

    /// Returns the keys that may have signed a token with this `kid` and algorithm (RFC 7517 section 4.5: `kid` is
    /// optional on both sides). For a token with a `kid`, this is the key with that `kid`; if no key has it, the keys
    /// without one. A token without `kid` may be signed by any key of its algorithm. The number is bounded, so that a
    /// forged token cannot cause many verifications.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> KeyMatch<'_> {
        let has_id = |key: &&Arc<Key>| id.is_some() && key.id.as_deref() == id;
        let other = self.0.iter().filter(|key| key.algorithm != algorithm);
        let known = id.is_some() && self.0.iter().any(|key| has_id(&key));
        let fitting = self.0.iter().filter(|key| {
            key.algorithm == algorithm && (id.is_none() || if known { has_id(key) } else { key.id.is_none() })
        });
        let mut candidates = [None; CANDIDATES_MAX];
        let mut count = 0;
        for key in fitting {
            if let Some(place) = candidates.get_mut(count) {
                *place = Some(&**key);
            }
            count += 1;
        }
        match count {
            0 if id.is_none() || known => match other.map(|key| key.algorithm).next() {
                Some(_) => KeyMatch::OtherAlgorithm,
                None => KeyMatch::None,
            },
            0 => KeyMatch::None,
            1..=CANDIDATES_MAX => KeyMatch::Keys(candidates),
            _ => KeyMatch::TooMany(count),
        }
    }
}

/// The result of a search for an id and an algorithm.
pub(super) enum KeyMatch<'k> {
    /// The keys to try, at least one.
    Keys([Option<&'k Key>; CANDIDATES_MAX]),
    /// Only keys for another algorithm.
    OtherAlgorithm,
    /// More keys than are tried for one token.
    TooMany(usize),
    /// No key with this id.
    None,
}
