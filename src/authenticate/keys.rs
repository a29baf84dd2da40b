//! Verification keys. Each key has one algorithm and one issuer.
//!
//! The key determines the algorithm (RFC 8725 section 3.1): a token is verified only with keys whose algorithm equals
//! the token's `alg`.

mod der;
mod jwks;
#[cfg(test)]
mod tests;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use jsonwebtoken::{DecodingKey, DecodingKeyKind};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A JWS signature algorithm that the gateway supports. `none` is not supported.
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

/// The name that RFC 9864 section 2.2 defines for `EdDSA` with Ed25519.
pub const ED25519: &str = "Ed25519";

impl Algorithm {
    /// Returns the algorithm's name in `alg` (RFC 7518 section 3.1).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::RS256 => "RS256",
            Self::ES256 => "ES256",
            Self::EdDSA => "EdDSA",
        }
    }

    /// Returns the `jsonwebtoken` library's value for the algorithm.
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
        // RFC 9864 section 4.1 deprecates `EdDSA` because this name does not specify the curve. The gateway supports
        // only Ed25519, so both names have the same meaning here.
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

/// A verification key.
pub struct Key {
    id: Option<Box<str>>,
    algorithm: Algorithm,
    key: DecodingKey,
    /// The length of the key's signatures in bytes.
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

    /// Returns the key's id (`kid`).
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Returns the key's algorithm.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the length of the key's signatures in bytes.
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

/// The maximum number of keys that are tried for one token. More than one key can fit if the token or the keys have no
/// `kid`.
pub(super) const CANDIDATES_MAX: usize = 4;
/// The minimum length of an HMAC key in bytes, which is the length of the SHA-256 hash (RFC 7518 section 3.2).
const SECRET_MIN: usize = 32;

impl KeySet {
    /// Adds a shared secret for HS256.
    ///
    /// # Errors
    /// Returns an error if the secret is too short or is the text of a key of another kind. With a public key's text as
    /// the secret, anyone who has the public key could sign tokens (RFC 8725 section 2.1).
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

    /// Adds a key. A key that the set already contains is not added again.
    ///
    /// # Errors
    /// Returns an error if the set contains another key with the same `kid` and algorithm, or already contains
    /// `CANDIDATES_MAX` keys of the algorithm without `kid`.
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

    /// Returns the keys that may have signed a token with this `kid` and algorithm. `kid` is optional in tokens (RFC
    /// 7515 section 4.1.4) and in keys (RFC 7517 section 4.5).
    ///
    /// A token with a `kid` is tried with the key of that `kid`, or with the keys without `kid` if no key has that
    /// `kid`. A token without `kid` is tried with all keys of its algorithm. The number of keys is bounded, so that a
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

/// The result of a search for a `kid` and an algorithm.
pub(super) enum KeyMatch<'k> {
    /// The keys to try; there is at least one.
    Keys([Option<&'k Key>; CANDIDATES_MAX]),
    /// The keys that were found have another algorithm.
    OtherAlgorithm,
    /// The search found more than `CANDIDATES_MAX` keys; the field is their number.
    TooMany(usize),
    /// The search found no key.
    None,
}
