//! The buckets of one limit, in a table of fixed size. Clients can invent keys without increasing its memory.
//!
//! A look-up accesses one set of eight entries under a short lock. Keys must be fingerprints from a keyed hash.

use governor::nanos::Nanos;
use governor::state::StateStore;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The number of entries in a set: two cache lines, one of fingerprints and one of arrival times.
const WAYS: usize = 8;

/// The number of locks of a table. With 16 locks, two cores seldom wait for the same lock.
const SHARDS: usize = 16;

/// A set: eight fingerprints, then eight theoretical arrival times in nanoseconds since the limit was created. An
/// unused entry contains two zeros. A bucket with arrival time 0 is full, like the bucket of a new key.
type Set = [[u64; WAYS]; 2];

/// A bounded [`StateStore`] for governor: set-associative, 16 bytes per entry, with 64-bit fingerprints as keys.
///
/// If a set is full, a new key evicts the key with the earliest arrival time. That key has the fullest bucket. If the
/// arrival time is in the past, the bucket is already full, and the eviction changes nothing. Otherwise the evicted key
/// gets a full bucket too early.
///
/// Attackers cannot choose keys of the same set, because the hasher has a random key for each process. To evict one of
/// their keys, attackers need on average as many other keys as the table has entries, and each key costs a request.
/// 65,536 keys already have 65,536 bursts without any eviction.
#[derive(Debug)]
pub struct BucketStore {
    shards: Box<[Shard]>,
    sets_a_shard: u64,
    /// The cost of one request in nanoseconds: the difference between a new key's first arrival time and the current
    /// time.
    cost: u64,
    displaced: Arc<AtomicU64>,
}

/// One lock and its sets, on a separate cache line. The first key allocates the sets.
#[derive(Debug)]
#[repr(align(64))]
struct Shard(Mutex<Box<[Set]>>);

impl BucketStore {
    /// Creates a table of `capacity` entries, rounded up to a power of two (at least 128). The limit regains one
    /// request every `cost`.
    ///
    /// The table takes 16 bytes per entry: 1 MiB for 65,536 entries. The memory is allocated on first use.
    pub fn new(capacity: usize, cost: Duration) -> Self {
        let sets = capacity.div_ceil(WAYS * SHARDS).next_power_of_two();
        let shard = || Shard(Mutex::new(Box::new([])));
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            sets_a_shard: sets as u64,
            cost: Nanos::from(cost).as_u64(),
            displaced: Arc::default(),
        }
    }

    /// Returns the counter of active keys that were evicted from a full set. If the counter grows, the table is too
    /// small.
    pub fn displaced(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.displaced)
    }

    /// Returns the maximum number of entries.
    pub fn capacity(&self) -> usize {
        self.shards.len() * self.sets_a_shard as usize * WAYS
    }
}

impl StateStore for BucketStore {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        // Both moduli are powers of two, and all bits of a keyed hash are random, so the distribution is even.
        let shard = &self.shards[(key % SHARDS as u64) as usize];
        let index = (key / SHARDS as u64 % self.sets_a_shard) as usize;
        // A poisoned lock is harmless: a panic cannot leave an entry half-written.
        let mut sets = shard.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sets.is_empty() {
            *sets = vec![[[0; WAYS]; 2]; self.sets_a_shard as usize].into();
        }
        let [keys, arrivals] = &mut sets[index];

        if let Some(arrival) = keys.iter().zip(arrivals.iter_mut()).find_map(|(k, a)| (k == key).then_some(a))
        {
            let (outcome, next) = f(Some(Nanos::new(*arrival)))?;
            *arrival = next.as_u64();
            return Ok(outcome);
        }

        let (outcome, next) = f(None)?;
        let next = next.as_u64();
        let mut least = 0;
        for way in 1..WAYS {
            if arrivals[way] < arrivals[least] {
                least = way;
            }
        }
        // The first arrival time of a new key is the current time plus the cost of one request.
        if arrivals[least] > next.saturating_sub(self.cost) {
            self.displaced.fetch_add(1, Ordering::Relaxed);
        }
        keys[least] = *key;
        arrivals[least] = next;
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests;
