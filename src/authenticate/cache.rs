//! Verifications that need not be made twice, for one core. It holds verifications, never verdicts: what a token may
//! do is asked of every route anew.
//!
//! The key is the SHA-256 of the whole token. A shorter hash that is not a cryptographic one could be collided into an
//! accepted token; the token itself would lie readable in memory for as long as it is remembered.

use super::principal::Principal;
use crate::clock::Now;
use aws_lc_rs::digest::{SHA256, digest};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

/// What a token or another secret is remembered by: its SHA-256.
pub type Digest = [u8; 32];

/// The digest of a token, or of another secret that is too long and random to be guessed.
pub fn digest_of(secret: impl AsRef<[u8]>) -> Digest {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, secret.as_ref()).as_ref());
    out
}

/// A digest is as good as random already: its first bytes are its hash. Only verified tokens are entered, so nobody
/// without an issuer's key can choose what is.
#[derive(Debug, Default)]
struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    fn write_usize(&mut self, _length: usize) {}
}

#[derive(Debug)]
struct Entry {
    digest: Digest,
    principal: Rc<Principal>,
    /// Looked up since the hand last passed.
    used: bool,
}

/// A bounded memory of verified tokens. When it is full, the entry that goes is one that was not asked for lately (the
/// CLOCK algorithm: one at a time, no sweep that would hold up requests).
#[derive(Debug)]
pub struct TokenCache {
    places: HashMap<Digest, usize, BuildHasherDefault<FirstBytes>>,
    entries: Vec<Entry>,
    capacity: usize,
    hand: usize,
    epoch: u64,
    hits: u64,
    misses: u64,
}

impl TokenCache {
    /// Room for so many tokens (at least one). Memory is taken as it is filled.
    pub fn new(capacity: usize) -> Self {
        Self {
            places: HashMap::default(),
            entries: Vec::new(),
            capacity: capacity.max(1),
            hand: 0,
            epoch: 0,
            hits: 0,
            misses: 0,
        }
    }

    /// Whose token this is, if it was verified under the same trust and holds now.
    pub fn get(&mut self, digest: &Digest, epoch: u64, now: Now) -> Option<Rc<Principal>> {
        if self.epoch != epoch {
            self.places.clear();
            self.entries.clear();
            self.hand = 0;
            self.epoch = epoch;
        }
        let found = self.places.get(digest).map(|place| &mut self.entries[*place]);
        match found {
            // One that holds no more is verified anew, which says why it is refused; its place is taken in time.
            Some(entry) if (entry.principal.not_before..entry.principal.expires).contains(&now.unix) => {
                entry.used = true;
                self.hits += 1;
                Some(entry.principal.clone())
            }
            Some(_) | None => {
                self.misses += 1;
                None
            }
        }
    }

    /// Remembers a token that was verified under the trust of the last [`TokenCache::get`].
    pub fn insert(&mut self, digest: Digest, principal: Rc<Principal>) {
        let entry = Entry { digest, principal, used: false };
        if let Some(place) = self.places.get(&digest) {
            self.entries[*place] = entry;
        } else if self.entries.len() < self.capacity {
            self.places.insert(digest, self.entries.len());
            self.entries.push(entry);
        } else {
            while std::mem::take(&mut self.entries[self.hand].used) {
                self.hand = (self.hand + 1) % self.capacity;
            }
            self.places.remove(&self.entries[self.hand].digest);
            self.places.insert(digest, self.hand);
            self.entries[self.hand] = entry;
            self.hand = (self.hand + 1) % self.capacity;
        }
    }

    /// How many tokens are remembered.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Look-ups that found what they asked for.
    pub fn hits(&self) -> u64 {
        self.hits
    }

    /// Look-ups that did not.
    pub fn misses(&self) -> u64 {
        self.misses
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn principal(not_before: u64, expires: u64) -> Rc<Principal> {
        Rc::new(Principal {
            issuer: Arc::from("i"),
            subject: "s".into(),
            token_id: None,
            roles: Box::new([]),
            scopes: Box::new([]),
            claims: Box::new([]),
            not_before,
            expires,
            authenticated: None,
            leeway: 0,
            fresh: false,
            local: None,
            proofs: Default::default(),
            headers: Box::new([]),
        })
    }

    #[test]
    fn a_token_is_remembered_while_it_holds_and_no_longer() {
        let mut cache = TokenCache::new(4);
        let digest = digest_of("a");
        assert!(cache.get(&digest, 1, Now::at(100)).is_none());
        cache.insert(digest, principal(90, 110));
        for (time, holds) in [(89, false), (90, true), (109, true), (110, false)] {
            assert_eq!(cache.get(&digest, 1, Now::at(time)).is_some(), holds, "{time}");
        }
        assert!(cache.get(&digest_of("b"), 1, Now::at(100)).is_none());
    }

    #[test]
    fn what_was_asked_for_lately_stays() {
        let mut cache = TokenCache::new(3);
        let now = Now::at(0);
        cache.get(&digest_of("x"), 1, now);
        for token in ["a", "b", "c"] {
            cache.insert(digest_of(token), principal(0, 10));
        }
        assert!(cache.get(&digest_of("a"), 1, now).is_some());
        cache.insert(digest_of("d"), principal(0, 10));
        assert!(cache.get(&digest_of("a"), 1, now).is_some());
        assert!(cache.get(&digest_of("b"), 1, now).is_none());
    }

    proptest! {
        #[test]
        fn it_never_exceeds_its_bound_never_outlives_an_expiry_and_never_crosses_an_epoch(
            capacity in 1..8usize,
            steps in proptest::collection::vec((0..20u8, 1..4u64, 0..50u64, 0..50u64), 1..200),
        ) {
            let mut cache = TokenCache::new(capacity);
            let mut verified = std::collections::HashMap::new();
            for (token, epoch, time, expires) in steps {
                let digest = digest_of(token.to_string());
                if let Some(found) = cache.get(&digest, epoch, Now::at(time)) {
                    prop_assert!(time < found.expires);
                    prop_assert_eq!(verified.get(&(token, epoch)), Some(&found.expires));
                }
                cache.insert(digest, principal(0, expires));
                verified.insert((token, epoch), expires);
                prop_assert!(cache.len() <= capacity);
                prop_assert_eq!(cache.places.len(), cache.entries.len());
            }
        }
    }
}
