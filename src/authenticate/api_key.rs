//! API keys: long-lived credentials of programs that cannot log in.
//!
//! A key consists of `pck_`, 32 random base62 digits (190 bits) and a checksum of 6 digits. Secret scanners find a key
//! by its prefix and its checksum. The checksum also lets the gateway reject a mistyped key without a look-up.
//!
//! The gateway stores only the SHA-256 of a key. A random key of 190 bits needs no slow hash, and the time of a look-up
//! by digest reveals nothing about a key.
//!
//! The set of keys is immutable. Each request looks its key up in the current set, so a revoked key is refused as soon
//! as a new set is published. No cache of a core delays this.

use super::claims::{ClaimPath, ClaimValue};
use super::digest::{Digest, digest_of_facts};
use super::error::CredentialError;
use super::identity::IdentityHeaders;
use super::principal::{Principal, Shape, Shapes};
use crate::clock::Now;
use crate::denial::{Denial, TokenPart};
use aws_lc_rs::rand;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use zeroize::Zeroizing;

/// The prefix of every API key.
pub const API_KEY_PREFIX: &str = "pck_";
/// The issuer of the principal of an API key. No `[[issuer]]` may have this name, so no token has it.
pub const API_KEY_ISSUER: &str = "urn:portcullis:api-key";
/// The prefix of the subject of an API key. The gateway refuses tokens with such a subject, because a service that
/// looks only at the subject could mistake the caller for an API key.
pub const API_KEY_SUBJECT: &str = "apikey:";

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// The number of random digits. Each digit has 5.95 bits.
const RANDOM_DIGITS: usize = 32;
/// The number of digits of the checksum: 62^6 is more than 2^32.
const CHECK_DIGITS: usize = 6;
/// The length of a key in bytes.
const LENGTH: usize = API_KEY_PREFIX.len() + RANDOM_DIGITS + CHECK_DIGITS;
/// The length of the hint in bytes: the beginning of a key, stored in clear so that people recognize the key. It
/// reveals 24 of 190 bits.
const HINT: usize = API_KEY_PREFIX.len() + 4;
/// The interval in seconds at which the time of the last use is updated.
const USE_STEP: u64 = 60;

/// Creates a key.
///
/// # Errors
/// Returns an error if the system has no random numbers.
pub fn generate() -> Result<Zeroizing<String>, String> {
    let mut key = Zeroizing::new(String::with_capacity(LENGTH));
    key.push_str(API_KEY_PREFIX);
    while key.len() < API_KEY_PREFIX.len() + RANDOM_DIGITS {
        let mut byte = [0];
        rand::fill(&mut byte).map_err(|_| "the system's random numbers failed".to_owned())?;
        // 248 is the greatest multiple of 62 in a byte. Larger values would make some digits more likely than others.
        if let Some(digit) = (byte[0] < 248).then(|| ALPHABET[usize::from(byte[0] % 62)]) {
            key.push(char::from(digit));
        }
    }
    let check = checksum(key.as_bytes());
    check.iter().for_each(|digit| key.push(char::from(*digit)));
    Ok(key)
}

/// Returns the beginning of a key, by which people recognize it.
pub fn hint_of(key: &str) -> &str {
    key.get(..HINT).unwrap_or_default()
}

/// Returns the CRC-32 (ISO-HDLC, as in gzip) of `text` in base62, the most significant digit first.
fn checksum(text: &[u8]) -> [u8; CHECK_DIGITS] {
    let crc = !text.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    });
    let mut digits = [0; CHECK_DIGITS];
    let mut rest = crc;
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(rest % 62) as usize];
        rest /= 62;
    }
    digits
}

/// Checks the form of a key.
///
/// # Errors
/// Returns [`Denial::MalformedToken`] with a description of the fault.
pub fn check_form(credential: &[u8]) -> Result<(), CredentialError> {
    let flaw = match credential.strip_prefix(API_KEY_PREFIX.as_bytes()) {
        None => "does not begin with pck_".to_owned(),
        Some(_) if credential.len() != LENGTH => {
            format!("has {} bytes, a key has {LENGTH}", credential.len())
        }
        Some(digits) if !digits.iter().all(u8::is_ascii_alphanumeric) => {
            "contains a character other than a letter or digit".to_owned()
        }
        Some(_) => {
            let (text, check) = credential.split_at(LENGTH - CHECK_DIGITS);
            if checksum(text) == *check {
                return Ok(());
            }
            "has a wrong checksum: a character was lost or changed".to_owned()
        }
    };
    let detail = format!("the API key {flaw}");
    Err(CredentialError::because(Denial::MalformedToken(TokenPart::Field), detail))
}

/// The facts of a key, without the key itself.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiKeyFacts {
    /// The name, by which people manage the key. It becomes the subject.
    pub name: Box<str>,
    /// The SHA-256 of the key.
    pub digest: Digest,
    /// The beginning of the key, for people.
    pub hint: Box<str>,
    /// The roles.
    pub roles: Box<[Box<str>]>,
    /// The scopes.
    pub scopes: Box<[Box<str>]>,
    /// Further claims.
    pub claims: Map<String, Value>,
    /// The time of creation in seconds since 1970.
    pub created: u64,
    /// The time of expiry in seconds since 1970; `None` if the key does not expire.
    pub expires: Option<u64>,
}

impl ApiKeyFacts {
    /// Returns the subject of the key's principal.
    pub fn subject(&self) -> String {
        format!("{API_KEY_SUBJECT}{}", self.name)
    }
}

/// A key that is in force.
#[derive(Debug)]
pub struct ApiKey {
    pub(super) facts: ApiKeyFacts,
    /// The digest of all facts. A core caches the principal under this digest, so a key with changed facts gets a new
    /// principal.
    pub(super) identity: Digest,
    /// The time of the last use in seconds since 1970, accurate to `USE_STEP`; 0 if the key was never used.
    used: Arc<AtomicU64>,
}

impl ApiKey {
    /// Returns the facts of the key.
    pub const fn facts(&self) -> &ApiKeyFacts {
        &self.facts
    }

    /// Returns the time at which this process last accepted the key, in seconds since 1970, accurate to `USE_STEP`.
    pub fn last_used(&self) -> Option<u64> {
        Some(self.used.load(Ordering::Relaxed)).filter(|used| *used > 0)
    }

    /// Records a use of the key.
    pub(super) fn note_use(&self, now: Now) {
        // A store for each request would move the cache line between the cores.
        if now.unix >= self.used.load(Ordering::Relaxed).saturating_add(USE_STEP) {
            self.used.store(now.unix, Ordering::Relaxed);
        }
    }

    /// Returns the caller with this key.
    ///
    /// # Errors
    /// If a fact of the key is too long for a header field.
    pub(super) fn principal(
        &self,
        paths: &[ClaimPath],
        identity: &IdentityHeaders,
        issuer: &Arc<str>,
    ) -> Result<Principal, CredentialError> {
        let facts = &self.facts;
        let subject = facts.subject();
        let mut claims = facts.claims.clone();
        claims.insert("iss".to_owned(), API_KEY_ISSUER.into());
        claims.insert("sub".to_owned(), subject.as_str().into());
        let mut principal = Principal {
            issuer: issuer.clone(),
            subject: subject.into(),
            roles: facts.roles.clone(),
            scopes: facts.scopes.clone(),
            shapes: Shapes { roles: Shape::List, scopes: Shape::List },
            claims: paths.iter().map(|path| path.find(&claims).map(ClaimValue::from)).collect(),
            not_before: 0,
            expires: facts.expires.unwrap_or(u64::MAX),
            api_key: Some(Box::new(facts.digest)),
            ..Principal::nobody()
        };
        principal.headers = identity.render(&principal).ok_or_else(|| {
            let detail = "the name, the roles or the scopes of the API key are too long for a header field";
            CredentialError::because(Denial::MalformedToken(TokenPart::Claims), detail)
        })?;
        Ok(principal)
    }
}

/// The keys in force.
pub struct ApiKeys {
    pub(super) issuer: Arc<str>,
    /// The number of the set. A later set has a higher number.
    number: u64,
    by_digest: HashMap<Digest, Arc<ApiKey>>,
}

impl fmt::Debug for ApiKeys {
    /// Shows the number of keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ApiKeys").field(&self.by_digest.len()).finish()
    }
}

impl ApiKeys {
    /// Creates a set of keys. Takes over the times of the last use from the previous set.
    pub fn after(all: impl IntoIterator<Item = ApiKeyFacts>, before: Option<&Self>) -> Self {
        let key = |facts: ApiKeyFacts| {
            let known = before.and_then(|before| before.by_digest.get(&facts.digest));
            let used = known.map(|known| known.used.clone()).unwrap_or_default();
            let identity = digest_of_facts("api key", format!("{facts:?}").as_bytes());
            (facts.digest, Arc::new(ApiKey { facts, identity, used }))
        };
        static LAST: AtomicU64 = AtomicU64::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        Self { issuer: Arc::from(API_KEY_ISSUER), number, by_digest: all.into_iter().map(key).collect() }
    }

    /// Returns whether the other set was created earlier.
    pub(super) fn is_later_than(&self, other: &Self) -> bool {
        self.number > other.number
    }

    /// Returns the key in force with this digest.
    pub(super) fn get(&self, digest: &Digest) -> Option<&Arc<ApiKey>> {
        self.by_digest.get(digest)
    }

    /// Returns whether a key is in force.
    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.by_digest.contains_key(digest)
    }

    /// Returns the keys, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &ApiKey> {
        self.by_digest.values().map(Arc::as_ref)
    }

    /// Returns whether both sets contain the same keys with the same facts.
    pub fn is_same(&self, other: &Self) -> bool {
        let is_known = |(digest, key): (&Digest, &Arc<ApiKey>)| {
            other.by_digest.get(digest).is_some_and(|known| known.identity == key.identity)
        };
        self.by_digest.len() == other.by_digest.len() && self.by_digest.iter().all(is_known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authenticate::verify_api_key::verify_api_key as authenticate;
    use crate::authenticate::{TokenCache, Trust, digest_of};
    use proptest::prelude::*;

    fn facts(name: &str, key: &str) -> ApiKeyFacts {
        ApiKeyFacts {
            name: name.into(),
            digest: digest_of(key),
            hint: hint_of(key).into(),
            roles: Box::new(["clerk".into()]),
            scopes: Box::new(["orders:read".into()]),
            claims: serde_json::from_str(r#"{"tenant":"acme","sub":"root","iss":"https://id.example.com/"}"#)
                .unwrap(),
            created: 100,
            expires: Some(200),
        }
    }

    fn trust(keys: ApiKeys) -> Trust {
        let paths = ["tenant", "sub", "iss"].map(|path| ClaimPath::parse(path).unwrap());
        let trust = Trust::new(Vec::new(), paths.to_vec(), IdentityHeaders::default());
        trust.with_api_keys(Arc::new(keys))
    }

    fn ask(key: &str, trust: &Trust, now: u64, tokens: &mut TokenCache) -> Result<String, Denial> {
        authenticate(key.as_bytes(), trust, Now::at(now), tokens)
            .map(|principal| principal.subject.to_string())
            .map_err(|refused| refused.denial)
    }

    #[test]
    fn a_key_is_accepted_until_it_expires_and_not_after_it_was_revoked() {
        let (ours, other) = (generate().unwrap(), generate().unwrap());
        let before = trust(ApiKeys::after([facts("ci", &ours)], None));
        let mut tokens = TokenCache::new(8);
        for _ in 0..2 {
            assert_eq!(ask(&ours, &before, 150, &mut tokens), Ok("apikey:ci".into()));
            assert_eq!(ask(&ours, &before, 199, &mut tokens), Ok("apikey:ci".into()));
            assert_eq!(ask(&ours, &before, 200, &mut tokens), Err(Denial::ExpiredToken));
            assert_eq!(ask(&other, &before, 150, &mut tokens), Err(Denial::UnknownApiKey));
        }
        assert_eq!(tokens.len(), 1);
        // Without a new epoch: the snapshot alone decides.
        let after =
            before.with_api_keys(Arc::new(ApiKeys::after([facts("other", &other)], before.api_keys())));
        assert_eq!(after.epoch(), before.epoch());
        assert_eq!(ask(&ours, &after, 150, &mut tokens), Err(Denial::UnknownApiKey));
        assert_eq!(ask(&other, &after, 150, &mut tokens), Ok("apikey:other".into()));
        assert_eq!(
            ask(&ours, &trust(ApiKeys::after([], None)), 150, &mut tokens),
            Err(Denial::UnknownApiKey)
        );
    }

    #[test]
    fn a_key_whose_facts_change_gets_another_principal() {
        let key = generate().unwrap();
        let roles = |roles: &[&str]| ApiKeyFacts {
            roles: roles.iter().map(|role| (*role).into()).collect(),
            ..facts("ci", &key)
        };
        let before = trust(ApiKeys::after([roles(&["admin"])], None));
        let after = before.with_api_keys(Arc::new(ApiKeys::after([roles(&["clerk"])], before.api_keys())));
        let mut tokens = TokenCache::new(8);
        for (trust, role) in [(&before, "admin"), (&after, "clerk"), (&before, "admin")] {
            let principal = authenticate(key.as_bytes(), trust, Now::at(150), &mut tokens).unwrap();
            assert_eq!(&*principal.roles[0], role);
        }
        let used = |trust: &Trust| trust.api_keys().unwrap().iter().next().unwrap().last_used();
        assert_eq!((used(&before), used(&after)), (Some(150), Some(150)), "one time for both snapshots");
    }

    #[test]
    fn the_principal_has_the_claims_of_the_key_and_an_identity_that_no_claim_changes() {
        let key = generate().unwrap();
        let trust = trust(ApiKeys::after([facts("ci", &key)], None));
        let principal = authenticate(key.as_bytes(), &trust, Now::at(150), &mut TokenCache::new(1)).unwrap();
        let text = |text: &str| Some(ClaimValue::Text(text.into()));
        assert_eq!(*principal.claims, [text("acme"), text("apikey:ci"), text(API_KEY_ISSUER)]);
        assert_eq!((&*principal.issuer, &*principal.subject), (API_KEY_ISSUER, "apikey:ci"));
        let headers: Vec<_> = principal.headers.iter().map(|(_, value)| value.to_str().unwrap()).collect();
        assert!(headers.contains(&"apikey:ci") && headers.contains(&API_KEY_ISSUER), "{headers:?}");
    }

    #[test]
    fn the_checksum_is_that_of_gzip() {
        // The check value of CRC-32/ISO-HDLC: 0xcbf43926 = 3421780262.
        assert_eq!(checksum(b"123456789"), *b"3jZRME");
    }

    #[test]
    fn a_token_is_not_a_key_and_each_flaw_is_named() {
        for (text, flaw) in [
            ("", "does not begin"),
            ("eyJh.eyJz.c2ln", "does not begin"),
            ("PCK_0", "does not begin"),
            ("pck_", "has 4 bytes, a key has 42"),
            ("pck_00000000000000000000000000000000000_00", "a letter or digit"),
            ("pck_00000000000000000000000000000000000000", "checksum"),
        ] {
            let error = check_form(text.as_bytes()).unwrap_err();
            assert_eq!(error.denial, Denial::MalformedToken(TokenPart::Field));
            assert!(error.detail.as_deref().is_some_and(|detail| detail.contains(flaw)), "{text}: {error:?}");
        }
    }

    proptest! {
        #[test]
        fn a_key_with_one_character_changed_is_no_key(at in 0..LENGTH, byte in 0_u8..) {
            let key = generate().unwrap();
            let mut changed = key.as_bytes().to_vec();
            changed[at] = byte;
            prop_assert_eq!(check_form(&changed).is_ok(), key.as_bytes() == changed);
        }

        #[test]
        fn no_text_makes_the_check_panic(text in proptest::collection::vec(0_u8.., 0..60)) {
            let _ = check_form(&text);
        }
    }
}
