//! The buckets of one limit, in a table of fixed size. The size does not depend on the keys that clients invent.
//!
//! The memory of the table never grows. A look-up accesses one set of eight entries under a lock that is held for
//! nanoseconds. Keys must be fingerprints from a keyed hash.

use governor::nanos::Nanos;
use governor::state::StateStore;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The number of entries in a set: two cache lines, one of fingerprints and one of arrival times.
const WAYS: usize = 8;

/// The number of locks of a table, so that two cores seldom wait for the same lock.
const SHARDS: usize = 16;

/// A set: eight fingerprints, then eight theoretical arrival times in nanoseconds since the limit was created. In an
/// unused entry, both numbers are zero. No further mark is necessary: a bucket with arrival time 0 is full, like the
/// bucket of a key without an entry.
type Set = [[u64; WAYS]; 2];

/// A bounded [`StateStore`] for governor with 64-bit fingerprints as keys: set-associative, 16 bytes per entry.
///
/// When all eight entries of a set are in use, the key with the earliest arrival time is evicted. If this key is idle
/// (its arrival time is in the past), the eviction has no effect, because its bucket is already full. If more than
/// eight keys of one set are active at once, the evicted key gets a full bucket too early. This key is the one whose
/// bucket was the fullest.
///
/// Attackers who want to evict one of their own keys need other keys, each of which costs them a request. They cannot
/// choose keys of the same set: the hasher has a random key for each process. On average they need as many distinct
/// keys as the table has entries, and 65,536 keys already give them 65,536 bursts.
#[derive(Debug)]
pub struct BucketStore {
    shards: Box<[Shard]>,
    sets_a_shard: u64,
    /// The cost of one request in nanoseconds. The first arrival time of a new key minus this cost is the current time.
    cost: u64,
    displaced: Arc<AtomicU64>,
}

/// One lock and its sets, on a separate cache line. The sets are allocated for the first key, so an unused limit takes
/// no memory.
#[derive(Debug)]
#[repr(align(64))]
struct Shard(Mutex<Box<[Set]>>);

impl BucketStore {
    /// Creates a table of `capacity` entries, rounded up to a power of two (at least 128), for a limit that regains one
    /// request every `cost`. The table takes 16 bytes per entry once it is used: 1 MiB for 65,536 entries.
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

    /// Returns the counter of active keys that were evicted. If the counter grows, more keys are active at once than
    /// fit in the table.
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
        // Both moduli are powers of two, and all bits of a keyed hash are equally random.
        let shard = &self.shards[(key % SHARDS as u64) as usize];
        let index = (key / SHARDS as u64 % self.sets_a_shard) as usize;
        // The lock may be poisoned, but the entries behind it are complete: an entry is written by two plain stores,
        // which cannot panic.
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
