//! Where the buckets of one limit are kept: a table of fixed size, whatever keys clients invent.
//!
//! Promises that memory never grows and that a look-up touches one set of eight entries under a lock held for
//! nanoseconds. Assumes that keys are fingerprints of a keyed hash. What a key means is `bucket`'s business.

use governor::nanos::Nanos;
use governor::state::StateStore;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Entries of a set: two cache lines, one of fingerprints and one of arrival times.
const WAYS: usize = 8;

/// Locks of a table. Far more than the cores that could meet on one.
const SHARDS: usize = 16;

/// The places of one set: fingerprints first, then the theoretical arrival times in nanoseconds since the
/// limit was made. Zeros are a place that nobody used. That needs no mark of its own: a bucket with arrival
/// time 0 is full, which is what a key without a bucket has too.
type Set = [[u64; WAYS]; 2];

/// A bounded [`StateStore`] of governor's for 64-bit fingerprints: set-associative, 16 bytes an entry.
///
/// When all eight places of a set are taken, the key with the smallest arrival time gives up its place. An
/// idle key (an arrival time in the past) loses nothing by that: its bucket was full again anyway. Only when
/// more than eight keys of one set are active at once does one of them get its burst back too early, and then
/// it is the one that owed least.
///
/// An attacker who wants that for a key of his own must push it out with other keys, each of which costs him
/// a request of its own, and cannot aim: fingerprints come from a hasher keyed at random per process, so he
/// does not know which keys share a set. On average he needs as many distinct keys as the table has entries,
/// and whoever commands 65,536 keys has 65,536 bursts to spend without any such trick.
#[derive(Debug)]
pub struct BucketStore {
    shards: Box<[Shard]>,
    sets_a_shard: u64,
    /// What one request costs, in nanoseconds: tells "now" from a newcomer's first arrival time.
    cost: u64,
    displaced: Arc<AtomicU64>,
}

/// One lock and its sets, on a cache line of its own. The sets are there once a key has come: a limit that nobody meets
/// takes no memory, however many a policy defines.
#[derive(Debug)]
#[repr(align(64))]
struct Shard(Mutex<Box<[Set]>>);

impl BucketStore {
    /// A table of `capacity` entries, rounded up to a power of two (at least 128), for a limit that gives
    /// back one request each `cost`. Takes 16 bytes an entry once it is used: 1 MiB for 65,536.
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

    /// How often a key that was still active had to give up its place: a count to watch. When it grows, more
    /// keys are active at once than the table has room for.
    pub fn displaced(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.displaced)
    }

    /// How many entries the table can hold, ever.
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
        // Both moduli are powers of two; the bits of a keyed hash are all equally good.
        let shard = &self.shards[(key % SHARDS as u64) as usize];
        let index = (key / SHARDS as u64 % self.sets_a_shard) as usize;
        // A thread that panicked here left whole entries behind: each is two plain stores that cannot panic.
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
        // A newcomer's first arrival time is now and the cost of one request.
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
