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
pub struct Store {
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

impl Store {
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

impl StateStore for Store {
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
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// Sets the arrival time of a key; tells the old one.
    fn put(store: &Store, key: u64, arrival: u64) -> Option<u64> {
        let answer: Result<_, ()> =
            store.measure_and_replace(&key, |old| Ok((old.map(|o| o.as_u64()), Nanos::new(arrival))));
        answer.unwrap()
    }

    /// Looks a key up without changing it.
    fn peek(store: &Store, key: u64) -> Option<u64> {
        store.measure_and_replace::<(), _, _>(&key, |old| Err(old.map(|o| o.as_u64()))).unwrap_err()
    }

    /// Keys that all fall into the first set of the first shard.
    fn neighbours(store: &Store) -> impl Iterator<Item = u64> + use<> {
        let stride = SHARDS as u64 * store.sets_a_shard;
        (1..).map(move |n| n * stride)
    }

    #[test]
    fn a_table_takes_memory_where_keys_have_come() {
        let store = Store::new(65_536, Duration::from_secs(1));
        let sets = || store.shards.iter().map(|shard| shard.0.lock().unwrap().len()).sum::<usize>();
        assert_eq!(sets(), 0);
        put(&store, 5, 1);
        assert_eq!(sets(), store.sets_a_shard as usize);
        for key in 0..10_000 {
            put(&store, key, 1);
        }
        assert_eq!(sets() * WAYS, store.capacity());
    }

    #[test]
    fn capacity_is_what_was_asked_rounded_up_to_a_power_of_two() {
        assert_eq!(Store::new(65_536, Duration::from_secs(1)).capacity(), 65_536);
        assert_eq!(Store::new(65_537, Duration::from_secs(1)).capacity(), 131_072);
        assert_eq!(Store::new(0, Duration::from_secs(1)).capacity(), 128);
    }

    #[test]
    fn a_table_never_grows_under_millions_of_invented_keys() {
        let store = Store::new(1024, Duration::from_nanos(10));
        let mut key = 1_u64;
        for n in 0..2_000_000 {
            // A linear congruential walk: distinct keys, spread over all sets.
            key = key.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            put(&store, key, 1_000 + n);
        }
        let held: usize = store.shards.iter().map(|s| s.0.lock().unwrap().len() * WAYS).sum();
        assert_eq!(held, 1024);
        assert_eq!(held, store.capacity());
    }

    #[test]
    fn the_key_that_owes_least_gives_up_its_place() {
        let store = Store::new(128, Duration::from_nanos(100));
        let keys: Vec<_> = neighbours(&store).take(WAYS + 1).collect();
        for (n, key) in keys[..WAYS].iter().enumerate() {
            put(&store, *key, 5_000 - n as u64);
        }
        put(&store, keys[WAYS], 1_100);
        assert_eq!(peek(&store, keys[WAYS - 1]), None);
        assert_eq!(peek(&store, keys[WAYS - 2]), Some(5_000 - 6));
        assert_eq!(peek(&store, keys[WAYS]), Some(1_100));
    }

    #[test]
    fn only_the_loss_of_an_active_key_is_counted() {
        let store = Store::new(128, Duration::from_nanos(100));
        let keys: Vec<_> = neighbours(&store).take(WAYS + 2).collect();
        for key in &keys[..WAYS] {
            put(&store, *key, 1_000);
        }
        // It is 1,000 now: the eight have just become idle.
        put(&store, keys[WAYS], 1_100);
        assert_eq!(store.displaced().load(Ordering::Relaxed), 0);
        // It is 999 now: they are still active.
        put(&store, keys[WAYS + 1], 1_099);
        assert_eq!(store.displaced().load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_refused_request_changes_nothing() {
        let store = Store::new(128, Duration::from_nanos(100));
        put(&store, 7, 500);
        let refused: Result<(), _> = store.measure_and_replace(&7, |_| Err("too fast"));
        assert_eq!(refused, Err("too fast"));
        assert_eq!(peek(&store, 7), Some(500));
        assert_eq!(peek(&store, 8), None);
    }

    #[test]
    fn a_panic_under_the_lock_does_not_end_the_limit() {
        let store = Store::new(128, Duration::from_nanos(100));
        put(&store, 7, 500);
        let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _: Result<(), ()> = store.measure_and_replace(&7, |_| panic!("a fault in the closure"));
        }));
        assert!(broken.is_err());
        assert_eq!(peek(&store, 7), Some(500));
    }

    proptest! {
        /// As long as no set overflows, the table and a plain map cannot be told apart.
        #[test]
        fn the_table_agrees_with_a_map(steps in prop::collection::vec((0_u64..8, 1_u64..1_000_000), 1..200)) {
            let store = Store::new(128, Duration::from_nanos(1));
            let mut model = HashMap::new();
            for (key, arrival) in steps {
                // Key 0 reads an unused place as its own: an arrival time of 0, as good as none.
                let old = put(&store, key, arrival).filter(|old| *old != 0);
                prop_assert_eq!(old, model.insert(key, arrival));
            }
        }
    }
}
