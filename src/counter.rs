//! Counts without locked instructions: each core writes to a separate shard, and a scrape sums the shards.

use http::HeaderValue;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// A count that one thread writes and other threads read.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds `n` without a locked instruction. Two concurrent writers would lose counts.
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.get().wrapping_add(n), Ordering::Relaxed);
    }

    /// Subtracts `n` from a gauge. The result is at least zero.
    pub(crate) fn sub(&self, n: u64) {
        self.0.store(self.get().saturating_sub(n), Ordering::Relaxed);
    }

    /// Sets the value of a gauge.
    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The upper bounds of duration histograms, in microseconds and as text in seconds. They extend beyond the default
/// timeout of an upstream (30 s), so a histogram distinguishes slow requests from timeouts.
pub(crate) const BOUNDS: [(u64, &str); 18] = [
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (500_000, "0.5"),
    (1_000_000, "1"),
    (2_500_000, "2.5"),
    (5_000_000, "5"),
    (10_000_000, "10"),
    (30_000_000, "30"),
    (60_000_000, "60"),
    (120_000_000, "120"),
    (300_000_000, "300"),
];

#[derive(Debug, Default)]
pub(crate) struct Durations {
    /// The number of durations in each bucket, not cumulative. The last bucket is for durations above all bounds.
    buckets: [Counter; BOUNDS.len() + 1],
    micros: Counter,
}

impl Durations {
    pub(crate) fn record(&self, micros: u64) {
        let bucket = BOUNDS.iter().position(|(bound, _)| micros <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket].add(1);
        self.micros.add(micros);
    }

    /// Returns the number of durations.
    pub(crate) fn count(&self) -> u64 {
        total(self.buckets.iter().map(Counter::get))
    }

    /// Returns the count of one bucket, not cumulative.
    pub(crate) fn bucket(&self, bucket: usize) -> u64 {
        self.buckets[bucket].get()
    }

    /// Returns the sum of all durations, in microseconds.
    pub(crate) fn micros(&self) -> u64 {
        self.micros.get()
    }
}

/// One shard per core. A shard is allocated when its core first counts. With ten thousand routes and many cores, most
/// shards are never used.
#[derive(Debug)]
pub(crate) struct Sharded<S>(Box<[OnceLock<Box<S>>]>);

impl<S: Default> Sharded<S> {
    /// Creates shards for `cores` cores (at least one).
    pub(crate) fn new(cores: usize) -> Self {
        Self((0..cores.max(1)).map(|_| OnceLock::new()).collect())
    }

    pub(crate) fn cores(&self) -> usize {
        self.0.len()
    }

    /// Returns the shard of one core, or `None` if there is no such core. Only this core may write to the shard.
    pub(crate) fn of(&self, core: usize) -> Option<&S> {
        self.0.get(core).map(|shard| &**shard.get_or_init(Box::default))
    }

    /// Returns the shards that have been used.
    pub(crate) fn used(&self) -> impl Iterator<Item = &S> + Clone {
        self.0.iter().filter_map(OnceLock::get).map(|shard| &**shard)
    }

    /// Sums a count over all cores.
    pub(crate) fn sum(&self, count: impl Fn(&S) -> u64) -> u64 {
        total(self.used().map(count))
    }
}

/// Adds counts up. A sum wraps around as its counters do, because a reader of metrics sees both as a restart.
pub(crate) fn total(counts: impl Iterator<Item = u64>) -> u64 {
    counts.fold(0, u64::wrapping_add)
}

/// The number of copies of a [`CoreValue`]. Cores beyond it share copies.
const COPIES: usize = 16;

/// A field value of the policy that all cores send. Each core clones a copy of its own, because all clones of one value
/// change the same reference count.
#[derive(Clone, Debug)]
pub(crate) struct CoreValue {
    value: HeaderValue,
    copies: Box<[OnceLock<HeaderValue>; COPIES]>,
}

impl CoreValue {
    pub(crate) fn new(value: HeaderValue) -> Self {
        Self { value, copies: Box::default() }
    }

    /// Returns the value, for a response of this core.
    pub(crate) fn of(&self, core: usize) -> HeaderValue {
        let copy = || HeaderValue::from_bytes(self.value.as_bytes()).unwrap_or_else(|_| self.value.clone());
        self.copies[core % COPIES].get_or_init(copy).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_core_sends_the_same_value_from_a_copy_of_its_own() {
        let value = CoreValue::new(HeaderValue::try_from("a=1".to_owned()).unwrap());
        let of = |core| value.of(core);
        for core in [0, 1, 2 * COPIES] {
            assert_eq!(of(core), "a=1");
        }
        let place = |core| of(core).as_bytes().as_ptr();
        assert!(place(0) == place(0) && place(0) != place(1));
    }

    #[test]
    fn a_duration_on_a_bound_is_within_it() {
        for (place, (bound, _)) in BOUNDS.iter().enumerate() {
            let durations = Durations::default();
            durations.record(*bound);
            durations.record(*bound + 1);
            assert_eq!((durations.bucket(place), durations.bucket(place + 1)), (1, 1));
            assert_eq!(durations.micros(), 2 * bound + 1);
        }
    }

    #[test]
    fn the_bounds_in_seconds_are_the_bounds_in_microseconds() {
        for (micros, shown) in BOUNDS {
            assert_eq!(shown.parse::<f64>().unwrap(), micros as f64 / 1e6);
        }
        assert!(BOUNDS.is_sorted());
    }

    #[test]
    fn a_core_without_a_shard_is_not_counted() {
        let sharded: Sharded<Counter> = Sharded::new(2);
        sharded.of(1).unwrap().add(3);
        assert!(sharded.of(2).is_none());
        assert_eq!((sharded.used().count(), sharded.sum(Counter::get)), (1, 3));
    }
}
