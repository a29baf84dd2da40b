//! Verification keys. Each key has one algorithm and one issuer.
//!
//! The key determines the algorithm (RFC 8725 section 3.1): a token is verified only with keys whose algorithm equals
//! the token's `alg`.

mod algorithm;
mod der;
mod jwks;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(super) use algorithm::tests::{Sign, pair};
pub use algorithm::{Algorithm, ED25519};
use algorithm::{KeyKind, Verification};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ParsedPublicKey, RsaPublicKeyComponents};
use der::PublicKey;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use zeroize::Zeroizing;

/// A verification key.
pub struct Key {
    id: Option<Box<str>>,
    /// The `iss` of the tokens that the key may sign, if the key set states it (an extension of Entra).
    issuer: Option<Box<str>>,
    algorithm: Algorithm,
    material: Material,
    /// The length of the key's signatures in bytes.
    signature_bytes: usize,
    /// When the key last verified a token, in seconds since 1970; 0 if never.
    used: AtomicU64,
}

/// The key in the form that the library uses to verify signatures. The key is parsed only once.
enum Material {
    /// The key is boxed, because the state of an HMAC is far larger than a public key.
    Secret {
        bytes: Zeroizing<Vec<u8>>,
        key: Box<hmac::Key>,
    },
    Public(ParsedPublicKey),
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
    /// Creates a key from a shared secret.
    fn secret(id: Option<&str>, algorithm: Algorithm, secret: &[u8]) -> Result<Self, String> {
        let (Verification::Secret(mac), Some(bits)) = (algorithm.verification(), algorithm.signature_bytes())
        else {
            return Err(format!("a secret, and {algorithm} needs a public key"));
        };
        if let Some(what) = der::no_secret(secret) {
            return Err(what.to_owned());
        }
        // RFC 7518 section 3.2: a key must be at least as long as the output of the hash.
        if secret.len() < bits {
            return Err(format!(
                "a secret of {} bits, and {algorithm} needs {} (RFC 7518 section 3.2)",
                secret.len() * 8,
                bits * 8
            ));
        }
        let key = Box::new(hmac::Key::new(mac, secret));
        let material = Material::Secret { bytes: Zeroizing::new(secret.to_vec()), key };
        Ok(Self {
            id: id.map(Into::into),
            issuer: None,
            algorithm,
            material,
            signature_bytes: bits,
            used: AtomicU64::new(0),
        })
    }

    /// Creates a key from a public key, which must be of the algorithm's kind. Rejects an invalid key, such as a point
    /// that is not on the curve; without this check, the library would reject the key only at the first signature.
    fn public(id: Option<&str>, algorithm: Algorithm, key: &PublicKey<'_>) -> Result<Self, String> {
        let wrong =
            || format!("a {}, and {algorithm} needs a {}", key.kind().name(), algorithm.kind().name());
        let (material, signature_bytes) = match (algorithm.verification(), key) {
            (Verification::Rsa(parameters), PublicKey::Rsa { modulus, exponent }) => {
                let (n, e) = der::rsa_numbers(modulus, exponent)?;
                let parsed = RsaPublicKeyComponents { n, e }.to_parsed_public_key(parameters);
                (parsed.map_err(|_| "an invalid RSA key".to_owned())?, n.len())
            }
            (Verification::Public(verification), PublicKey::Plain(kind, bytes))
                if *kind == algorithm.kind() =>
            {
                if kind.key_bytes() != Some(bytes.len()) {
                    return Err(format!("a {} of the wrong length: {} bytes", kind.name(), bytes.len()));
                }
                let parsed = ParsedPublicKey::new(verification, bytes);
                let parsed =
                    parsed.map_err(|_| format!("an invalid {}: no such point or number", kind.name()))?;
                (parsed, algorithm.signature_bytes().ok_or_else(wrong)?)
            }
            (Verification::Secret(_) | Verification::Rsa(_) | Verification::Public(_), _) => {
                return Err(wrong());
            }
        };
        let material = Material::Public(material);
        Ok(Self {
            id: id.map(Into::into),
            issuer: None,
            algorithm,
            material,
            signature_bytes,
            used: AtomicU64::new(0),
        })
    }

    /// Returns the key's id (`kid`).
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Returns the `iss` of the tokens that the key may sign, if the key set states it.
    pub(super) fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// Returns the key's algorithm.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the length of the key's signatures in bytes.
    pub const fn signature_bytes(&self) -> usize {
        self.signature_bytes
    }

    /// Returns whether this key made the signature of the message.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Secret { key, .. } => hmac::verify(key, message, signature).is_ok(),
            Material::Public(key) => key.verify_sig(message, signature).is_ok(),
        }
    }

    /// Returns when the key last verified a token that was not cached, in seconds since 1970.
    pub fn last_used(&self) -> Option<u64> {
        Some(self.used.load(Ordering::Relaxed)).filter(|used| *used > 0)
    }

    /// Records that the key verified a token.
    pub(super) fn record_use(&self, now: u64) {
        if self.used.load(Ordering::Relaxed) < now {
            self.used.store(now, Ordering::Relaxed);
        }
    }

    /// Returns whether both keys have the same id and verify the same signatures.
    fn is_same(&self, other: &Self) -> bool {
        let same_material = match (&self.material, &other.material) {
            (Material::Secret { bytes: ours, .. }, Material::Secret { bytes: theirs, .. }) => {
                verify_slices_are_equal(ours, theirs).is_ok()
            }
            (Material::Public(ours), Material::Public(theirs)) => ours.as_ref() == theirs.as_ref(),
            (Material::Secret { .. }, Material::Public(_))
            | (Material::Public(_), Material::Secret { .. }) => false,
        };
        self.id == other.id
            && self.issuer == other.issuer
            && self.algorithm == other.algorithm
            && same_material
    }
}

/// The keys of one issuer. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct KeySet(Vec<Arc<Key>>);

/// The maximum number of keys that are tried for one token. More than one key can fit if the token or the keys have no
/// `kid`.
pub(super) const CANDIDATES_MAX: usize = 4;

impl KeySet {
    /// Adds a shared secret for this algorithm.
    ///
    /// # Errors
    /// Returns an error if the secret is shorter than the algorithm's hash, or is the text of a key of another kind.
    /// With a public key's text as the secret, anyone who has the public key could sign tokens (RFC 8725 section 2.1).
    pub fn add_secret(
        &mut self,
        id: Option<&str>,
        algorithm: Algorithm,
        secret: &[u8],
    ) -> Result<(), String> {
        self.insert(Key::secret(id, algorithm, secret)?)
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

    /// Returns whether the set has no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns this set with the other set's objects for the keys that both have, so that these keep their last use.
    #[must_use]
    pub(super) fn keeping(&self, other: &Self) -> Self {
        let known = |key: &Arc<Key>| other.0.iter().find(|known| known.is_same(key)).unwrap_or(key).clone();
        Self(self.0.iter().map(known).collect())
    }

    /// Returns whether both sets contain the same keys.
    pub fn is_same(&self, other: &Self) -> bool {
        self.covers(other) && other.covers(self)
    }

    /// Returns whether this set contains the key.
    pub(super) fn contains(&self, key: &Key) -> bool {
        self.0.iter().any(|ours| ours.is_same(key))
    }

    /// Returns whether this set contains every key of the other.
    pub(super) fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|key| self.contains(key))
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
                *place = Some(key);
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
    Keys([Option<&'k Arc<Key>>; CANDIDATES_MAX]),
    /// The keys that were found have another algorithm.
    OtherAlgorithm,
    /// The search found more than `CANDIDATES_MAX` keys; the field is their number.
    TooMany(usize),
    /// The search found no key.
    None,
}
