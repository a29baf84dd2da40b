//! A cache of verified tokens; each core has its own. The cache stores the principal of a token and never a decision:
//! each route applies its own rule to every request.
//!
//! The key of an entry is the SHA-256 of the whole token. With a non-cryptographic hash, an attacker could craft a
//! token that collides with an accepted one. The token itself is not the key, because it would then stay readable in
//! memory. The principals of callers without a token have keys of [`super::digest::digest_of_facts`], which no request can
//! look up.

use super::digest::Digest;
use super::principal::Principal;
use crate::clock::Now;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

/// A hasher that returns the first eight bytes of the digest, which are effectively random. An attacker without an
/// issuer's key cannot choose the digests in the table, because only verified tokens are inserted.
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

/// The memory of an entry without its principal, in bytes: the entry itself and its slot in the table.
const ENTRY_BYTES: usize = size_of::<Entry>() + 72;
/// The number of entries that one call of [`TokenCache::weigh`] measures.
const WEIGHED: usize = 512;

/// The place of a token in the table of all tokens. A look-up reads the slot and the principal, and no entry.
#[derive(Debug)]
struct Slot {
    principal: Rc<Principal>,
    /// The index of the entry.
    place: usize,
}

#[derive(Debug)]
struct Entry {
    digest: Digest,
    principal: Rc<Principal>,
    /// The size of the entry in bytes, without the principal's proofs.
    bytes: usize,
    /// The size of the principal's proofs in bytes, as last measured.
    proofs: usize,
}

/// A cache of verified tokens, bounded in entries and in bytes. When the cache is full, it evicts an entry that was not
/// used recently. The CLOCK algorithm evicts one entry at a time, without a sweep that would delay requests.
#[derive(Debug)]
pub struct TokenCache {
    slots: HashMap<Digest, Slot, BuildHasherDefault<FirstBytes>>,
    entries: Vec<Entry>,
    capacity: usize,
    bytes_max: usize,
    bytes: usize,
    hand: usize,
    /// The index after which the next call of [`TokenCache::weigh`] continues.
    scale: usize,
    /// The newest trust epoch of a look-up.
    epoch: u64,
    /// Whether the last look-up was in an older trust epoch.
    is_outdated: bool,
    hits: u64,
    misses: u64,
    api_keys: [u64; ApiKeyOutcome::ALL.len()],
}

/// The outcome of a request with an API key, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiKeyOutcome {
    /// The key is valid.
    Accepted,
    /// No such key exists, or it was revoked.
    Unknown,
    /// The key has expired.
    Expired,
    /// The credential does not have the form of a key.
    Malformed,
}

impl ApiKeyOutcome {
    /// The outcomes, in the order of their counts.
    pub(crate) const ALL: [Self; 4] = [Self::Accepted, Self::Unknown, Self::Expired, Self::Malformed];

    /// Returns the name in metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Malformed => "malformed",
        }
    }
}

impl TokenCache {
    /// Creates a cache for `capacity` tokens (at least one) of any size. Memory is allocated as the cache fills.
    pub fn new(capacity: usize) -> Self {
        Self::bounded(capacity, usize::MAX)
    }

    /// Creates a cache for `capacity` tokens (at least one) whose entries together take at most `bytes_max` bytes.
    pub fn bounded(capacity: usize, bytes_max: usize) -> Self {
        Self {
            slots: HashMap::default(),
            entries: Vec::new(),
            capacity: capacity.max(1),
            bytes_max,
            bytes: 0,
            hand: 0,
            scale: 0,
            epoch: 0,
            is_outdated: false,
            hits: 0,
            misses: 0,
            api_keys: [0; ApiKeyOutcome::ALL.len()],
        }
    }

    /// Returns the principal of a token if the token was verified in the same trust epoch and is valid now. A newer epoch
    /// evicts everything. An older epoch, of a request that waits while the policy changes, evicts nothing.
    pub fn get(&mut self, digest: &Digest, epoch: u64, now: Now) -> Option<Rc<Principal>> {
        if self.epoch != epoch && !self.advance(epoch) {
            self.misses += 1;
            return None;
        }
        match self.slots.get(digest) {
            // An expired token counts as a miss: the caller verifies it again, which yields the reason for the refusal.
            // The expired entry remains until it is evicted.
            Some(Slot { principal, .. }) if (principal.not_before..principal.expires).contains(&now.unix) => {
                principal.is_used.set(true);
                principal.preload();
                self.hits += 1;
                Some(principal.clone())
            }
            Some(_) | None => {
                self.is_outdated = false;
                self.misses += 1;
                None
            }
        }
    }

    /// Evicts everything for a newer trust epoch. Returns `false` for an older epoch.
    #[cold]
    fn advance(&mut self, epoch: u64) -> bool {
        self.is_outdated = epoch < self.epoch;
        if self.is_outdated {
            return false;
        }
        self.slots.clear();
        self.entries.clear();
        (self.bytes, self.hand, self.scale) = (0, 0, 0);
        self.epoch = epoch;
        true
    }

    /// Inserts a token that the last [`TokenCache::get`] did not find, and that was then verified in the same trust epoch. A
    /// token of an older epoch is not inserted, and neither is one whose entry alone exceeds the bound in bytes.
    pub fn insert(&mut self, digest: Digest, principal: Rc<Principal>) {
        if self.is_outdated {
            return;
        }
        if let Some(place) = self.slots.get(&digest).map(|slot| slot.place) {
            self.remove(place);
        }
        let bytes = ENTRY_BYTES + principal.bytes();
        if bytes > self.bytes_max {
            return;
        }
        while self.entries.len() >= self.capacity || self.bytes > self.bytes_max - bytes {
            self.evict();
        }
        self.bytes += bytes;
        principal.is_used.set(false);
        self.slots.insert(digest, Slot { principal: principal.clone(), place: self.entries.len() });
        self.entries.push(Entry { digest, principal, bytes, proofs: 0 });
    }

    /// Measures the proofs of up to `WEIGHED` entries again. A principal gains proofs after its insertion and loses
    /// expired ones. The worker calls this function at short intervals, so that the bound in bytes also covers proofs.
    pub fn weigh(&mut self, now: Now) {
        for _ in 0..WEIGHED.min(self.entries.len()) {
            self.scale = if self.scale + 1 < self.entries.len() { self.scale + 1 } else { 0 };
            let Some(entry) = self.entries.get_mut(self.scale) else { return };
            let proofs = entry.principal.weigh_proofs(now.unix);
            self.bytes = self.bytes - entry.proofs + proofs;
            entry.proofs = proofs;
        }
        while self.bytes > self.bytes_max {
            self.evict();
        }
    }

    /// Evicts one entry that was not used recently.
    fn evict(&mut self) {
        while let Some(entry) = self.entries.get(self.hand)
            && entry.principal.is_used.take()
        {
            self.hand = if self.hand + 1 < self.entries.len() { self.hand + 1 } else { 0 };
        }
        self.remove(self.hand);
        // `remove` moved the last (newest) entry to the hand's position. The hand skips the newest entry, which is
        // therefore the last candidate for eviction.
        self.hand = if self.hand + 1 < self.entries.len() { self.hand + 1 } else { 0 };
    }

    fn remove(&mut self, place: usize) {
        let gone = self.entries.swap_remove(place);
        self.bytes -= gone.bytes + gone.proofs;
        self.slots.remove(&gone.digest);
        if let Some(moved) = self.entries.get(place)
            && let Some(slot) = self.slots.get_mut(&moved.digest)
        {
            slot.place = place;
        }
        if self.hand >= self.entries.len() {
            self.hand = 0;
        }
    }

    /// Returns the size of all entries in bytes, as last measured.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the number of tokens in the cache.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether the cache is empty.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Counts a request with an API key. The counts are here because the cache belongs to one core.
    pub(super) fn count_api_key(&mut self, outcome: ApiKeyOutcome) {
        self.api_keys[outcome as usize] += 1;
    }

    /// Returns the numbers of requests with an API key, in the order of [`ApiKeyOutcome::ALL`].
    pub(crate) fn api_keys(&self) -> [u64; ApiKeyOutcome::ALL.len()] {
        self.api_keys
    }

    /// Returns the number of look-ups that found a valid entry.
    pub fn hits(&self) -> u64 {
        self.hits
    }

    /// Returns the number of look-ups that found no valid entry.
    pub fn misses(&self) -> u64 {
        self.misses
    }
}

#[cfg(test)]
mod tests {
    use super::super::digest::digest_of;
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn principal(not_before: u64, expires: u64) -> Rc<Principal> {
        Rc::new(Principal {
            issuer: Arc::from("i"),
            subject: "s".into(),
            not_before,
            expires,
            ..Principal::for_tests()
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

    /// A request that waits is judged by the policy under which it arrived.
    #[test]
    fn an_older_epoch_evicts_nothing_and_inserts_nothing() {
        let (mut cache, now) = (TokenCache::new(4), Now::at(0));
        let (old, new) = (digest_of("old"), digest_of("new"));
        assert!(cache.get(&new, 2, now).is_none());
        cache.insert(new, principal(0, 10));
        assert!(cache.get(&new, 1, now).is_none());
        assert!(cache.get(&old, 1, now).is_none());
        cache.insert(old, principal(0, 10));
        assert!(cache.get(&new, 2, now).is_some());
        assert!(cache.get(&old, 2, now).is_none());
        cache.insert(old, principal(0, 10));
        assert!(cache.get(&old, 2, now).is_some());
        assert!(cache.get(&new, 3, now).is_none() && cache.is_empty());
    }

    #[test]
    fn a_recently_used_entry_stays() {
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

    /// Returns a principal whose scope has this many bytes.
    fn sized(bytes: usize) -> Rc<Principal> {
        let mut principal = Rc::into_inner(principal(0, u64::MAX)).unwrap();
        principal.scopes = Box::new(["x".repeat(bytes).into()]);
        Rc::new(principal)
    }

    #[test]
    fn large_tokens_take_no_more_bytes_than_the_bound() {
        // In a load test without this bound, 36,000 tokens of 7.7 KiB took 629 MiB.
        let mut cache = TokenCache::bounded(1000, 100_000);
        let now = Now::at(0);
        cache.get(&digest_of("x"), 1, now);
        for token in 0..100 {
            cache.insert(digest_of(token.to_string()), sized(9_000));
            assert!(cache.bytes() <= 100_000);
        }
        assert!((9..=11).contains(&cache.len()), "{}", cache.len());
        assert!(cache.get(&digest_of("99"), 1, now).is_some());
        cache.insert(digest_of("huge"), sized(100_000));
        assert!(cache.get(&digest_of("huge"), 1, now).is_none(), "one that alone is larger is not kept");
        assert!(cache.get(&digest_of("99"), 1, now).is_some(), "and displaces none");
        for token in 0..100 {
            cache.insert(digest_of(format!("small {token}")), sized(100));
        }
        assert!(cache.len() > 90, "{}", cache.len());
    }

    #[test]
    fn proofs_that_are_made_later_count_until_they_run_out() {
        let mut cache = TokenCache::bounded(1000, 100_000);
        cache.get(&digest_of("x"), 1, Now::at(0));
        let kept: Vec<_> = (0..20).map(|_| sized(1_000)).collect();
        for (token, principal) in kept.iter().enumerate() {
            cache.insert(digest_of(token.to_string()), principal.clone());
        }
        let light = cache.bytes();
        for principal in &kept {
            let value = http::HeaderValue::try_from("x".repeat(8_000)).unwrap();
            let proof = crate::authenticate::principal::Proven {
                audience: Arc::from("a"),
                value,
                made: 0,
                until: 50,
            };
            principal.proofs.borrow_mut().push(proof);
        }
        cache.weigh(Now::at(10));
        assert!(cache.bytes() <= 100_000 && cache.len() < 20, "{} {}", cache.bytes(), cache.len());
        cache.weigh(Now::at(50));
        assert!(cache.bytes() < light, "what ran out counts no more");
    }

    proptest! {
        #[test]
        fn it_never_exceeds_its_bound_never_outlives_an_expiry_and_never_crosses_an_epoch(
            capacity in 1..8usize,
            bytes_max in 0..4000usize,
            steps in proptest::collection::vec((0..20u8, 1..4u64, 0..50u64, 0..50u64), 1..200),
        ) {
            let mut cache = TokenCache::bounded(capacity, bytes_max);
            let (mut verified, mut newest) = (std::collections::HashMap::new(), 0);
            for (token, epoch, time, expires) in steps {
                let digest = digest_of(token.to_string());
                if let Some(found) = cache.get(&digest, epoch, Now::at(time)) {
                    prop_assert!(time < found.expires);
                    prop_assert!(epoch >= newest);
                    prop_assert_eq!(verified.get(&(token, epoch)), Some(&found.expires));
                } else {
                    cache.insert(digest, principal(0, expires));
                    if epoch >= newest {
                        verified.insert((token, epoch), expires);
                    }
                }
                newest = newest.max(epoch);
                prop_assert!(cache.len() <= capacity && cache.bytes() <= bytes_max);
                prop_assert_eq!(cache.bytes(), cache.entries.iter().map(|entry| entry.bytes + entry.proofs).sum::<usize>());
                for (digest, slot) in &cache.slots {
                    prop_assert_eq!(&cache.entries[slot.place].digest, digest);
                }
                prop_assert_eq!(cache.slots.len(), cache.entries.len());
            }
        }
    }
}
