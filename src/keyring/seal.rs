//! Encrypts signing keys for the store, with AES-256-GCM under a key that is derived from a secret of the policy.
//!
//! The key's id, algorithm, time of creation and start are authenticated with it. A writer of the database can therefore
//! neither add a key nor move one to another time.

use super::fault::KeyringFault;
use crate::authenticate::Algorithm;
use crate::hex;
use crate::store::{SealedKey, StoredKey};
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;
use zeroize::Zeroizing;

/// The length of the tag that AES-256-GCM appends.
const TAG_LEN: usize = 16;
/// Separates these keys from all other uses of the same secret.
const SALT: &[u8] = b"portcullis: signing keys in the store, 1";

/// The secrets with which signing keys are encrypted: one that encrypts, and perhaps another that only decrypts.
pub struct SealSecrets {
    current: SealSecret,
    other: Option<SealSecret>,
}

struct SealSecret {
    /// The name of the secret in the store: 8 bytes that are derived from it, as hexadecimal digits.
    name: String,
    /// All 32 derived bytes, for comparisons.
    fingerprint: [u8; 32],
    key: RandomizedNonceKey,
}

impl SealSecret {
    fn of(secret: &[u8]) -> Result<Self, KeyringFault> {
        let prk = Salt::new(HKDF_SHA256, SALT).extract(secret);
        let fingerprint = derived(&prk, b"name")?;
        let key = RandomizedNonceKey::new(&AES_256_GCM, &*derived(&prk, b"key")?);
        let key = key.map_err(|_| KeyringFault::Internal("a key of AES-256 has 32 bytes".to_owned()))?;
        Ok(Self { name: hex::text(&fingerprint[..8]), fingerprint: *fingerprint, key })
    }

    fn is(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.fingerprint, &other.fingerprint).is_ok()
    }
}

fn derived(prk: &Prk, what: &[u8]) -> Result<Zeroizing<[u8; 32]>, KeyringFault> {
    let mut bytes = Zeroizing::new([0; 32]);
    let failed = |_| KeyringFault::Internal("HKDF gives 32 bytes".to_owned());
    let info = [what];
    prk.expand(&info, HKDF_SHA256).and_then(|okm| okm.fill(&mut *bytes)).map_err(failed)?;
    Ok(bytes)
}

impl fmt::Debug for SealSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(not shown)")
    }
}

impl SealSecrets {
    /// Derives the keys from the secret that encrypts and decrypts, and from another that only decrypts.
    ///
    /// # Errors
    /// Returns an error if the crypto library fails.
    pub fn new(current: &[u8], other: Option<&[u8]>) -> Result<Self, KeyringFault> {
        Ok(Self { current: SealSecret::of(current)?, other: other.map(SealSecret::of).transpose()? })
    }

    /// Whether the secrets are the same in the same roles.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let others = match (&self.other, &other.other) {
            (None, None) => true,
            (Some(one), Some(another)) => one.is(another),
            (Some(_), None) | (None, Some(_)) => false,
        };
        self.current.is(&other.current) && others
    }

    /// Whether this key is encrypted with the secret that encrypts.
    pub(super) fn is_current(&self, sealed: &SealedKey) -> bool {
        sealed.secret == self.current.name
    }

    /// Encrypts a private key in PKCS#8.
    ///
    /// # Errors
    /// Returns a fault if the crypto library fails.
    pub fn seal(
        &self,
        pkcs8: &[u8],
        algorithm: Algorithm,
        key: &StoredKey,
    ) -> Result<SealedKey, KeyringFault> {
        // The whole text is allocated at once: a reallocation would leave the key in memory.
        let mut text = Zeroizing::new(Vec::with_capacity(pkcs8.len() + TAG_LEN));
        text.extend_from_slice(pkcs8);
        let aad = Aad::from(facts(algorithm, key));
        let nonce = self.current.key.seal_in_place_append_tag(aad, &mut *text);
        let nonce =
            nonce.map_err(|_| KeyringFault::Internal("a signing key cannot be encrypted".to_owned()))?;
        let text = URL_SAFE_NO_PAD.encode([&nonce.as_ref()[..], &text[..]].concat());
        Ok(SealedKey { secret: self.current.name.clone(), text })
    }

    /// Decrypts a private key.
    ///
    /// # Errors
    /// Returns a fault if the key is encrypted with an unknown secret, or was changed since.
    pub fn open(
        &self,
        sealed: &SealedKey,
        algorithm: Algorithm,
        key: &StoredKey,
    ) -> Result<Zeroizing<Vec<u8>>, KeyringFault> {
        let secrets = [Some(&self.current), self.other.as_ref()];
        let known = secrets.into_iter().flatten().find(|secret| secret.name == sealed.secret);
        let Some(secret) = known else { return Err(KeyringFault::UnknownSeal(key.id.clone())) };
        let changed = || KeyringFault::Changed(key.id.clone());
        let bytes = URL_SAFE_NO_PAD.decode(&sealed.text).map_err(|_| changed())?;
        let (nonce, text) = bytes.split_at_checked(NONCE_LEN).ok_or_else(changed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| changed())?;
        let mut text = Zeroizing::new(text.to_vec());
        let length = secret.key.open_in_place(nonce, Aad::from(facts(algorithm, key)), &mut text);
        let length = length.map_err(|_| changed())?.len();
        text.truncate(length);
        Ok(text)
    }
}

/// Returns the facts that are authenticated with a key. The id of a genuine key has no line break.
fn facts(algorithm: Algorithm, key: &StoredKey) -> Vec<u8> {
    let StoredKey { id, signs_from, created, .. } = key;
    format!("{algorithm}\n{signs_from}\n{created}\n{id}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> StoredKey {
        StoredKey { id: "kid".to_owned(), signs_from: 1000, created: 400, sealed: None }
    }

    fn secrets(current: u8, other: Option<u8>) -> SealSecrets {
        let other = other.map(|byte| [byte; 32]);
        SealSecrets::new(&[current; 32], other.as_ref().map(|secret| &secret[..])).unwrap()
    }

    #[test]
    fn a_key_opens_with_its_secret_and_its_facts_and_with_no_others() {
        let seals = secrets(1, None);
        let sealed = seals.seal(b"private", Algorithm::ES256, &key()).unwrap();
        let open = |seals: &SealSecrets, algorithm, key: &StoredKey| seals.open(&sealed, algorithm, key);
        assert_eq!(&**open(&seals, Algorithm::ES256, &key()).unwrap(), b"private");
        for (what, key) in [
            ("the id", StoredKey { id: "kie".to_owned(), ..key() }),
            ("the start", StoredKey { signs_from: 1001, ..key() }),
            ("the creation", StoredKey { created: 401, ..key() }),
        ] {
            assert!(matches!(open(&seals, Algorithm::ES256, &key), Err(KeyringFault::Changed(_))), "{what}");
        }
        assert!(matches!(open(&seals, Algorithm::EdDSA, &key()), Err(KeyringFault::Changed(_))));
        let stranger = secrets(2, Some(3));
        assert!(matches!(open(&stranger, Algorithm::ES256, &key()), Err(KeyringFault::UnknownSeal(_))));
        // The name of a secret in the store proves nothing.
        let renamed = SealedKey { secret: stranger.current.name.clone(), ..sealed.clone() };
        assert!(matches!(stranger.open(&renamed, Algorithm::ES256, &key()), Err(KeyringFault::Changed(_))));
    }

    #[test]
    fn the_other_secret_opens_and_does_not_seal() {
        let (old, both) = (secrets(1, None), secrets(2, Some(1)));
        let sealed = old.seal(b"private", Algorithm::ES256, &key()).unwrap();
        assert!(both.open(&sealed, Algorithm::ES256, &key()).is_ok() && !both.is_current(&sealed));
        let resealed = both.seal(b"private", Algorithm::ES256, &key()).unwrap();
        assert!(both.is_current(&resealed) && old.open(&resealed, Algorithm::ES256, &key()).is_err());
        assert!(both.is_same(&secrets(2, Some(1))) && !both.is_same(&secrets(1, Some(2))));
        assert!(!both.is_same(&secrets(2, None)));
    }

    #[test]
    fn two_seals_of_one_key_differ_and_show_nothing_of_the_secret() {
        let seals = secrets(1, None);
        let seal = || seals.seal(b"private", Algorithm::ES256, &key()).unwrap();
        assert_ne!(seal().text, seal().text);
        assert_eq!(format!("{seals:?}"), "(not shown)");
    }

    proptest! {
        #[test]
        fn no_changed_text_opens(at in 0_usize..200, bit in 0_u8..8, noise in ".{0,64}") {
            let seals = secrets(1, None);
            let mut sealed = seals.seal(&[7; 100], Algorithm::ES256, &key()).unwrap();
            let mut bytes = URL_SAFE_NO_PAD.decode(&sealed.text).unwrap();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            sealed.text = URL_SAFE_NO_PAD.encode(&bytes);
            prop_assert!(seals.open(&sealed, Algorithm::ES256, &key()).is_err());
            sealed.text = noise;
            prop_assert!(seals.open(&sealed, Algorithm::ES256, &key()).is_err());
        }
    }
}
