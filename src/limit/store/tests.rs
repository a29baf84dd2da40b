use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

/// Sets the arrival time of a key and returns the old one.
fn put(store: &BucketStore, key: u64, arrival: u64) -> Option<u64> {
    let answer: Result<_, ()> =
        store.measure_and_replace(&key, |old| Ok((old.map(|o| o.as_u64()), Nanos::new(arrival))));
    answer.unwrap()
}

/// Looks a key up without changing it.
fn peek(store: &BucketStore, key: u64) -> Option<u64> {
    store.measure_and_replace::<(), _, _>(&key, |old| Err(old.map(|o| o.as_u64()))).unwrap_err()
}

/// Returns keys that all fall into the first set of the first shard.
fn neighbours(store: &BucketStore) -> impl Iterator<Item = u64> + use<> {
    let stride = SHARDS as u64 * store.sets_a_shard;
    (1..).map(move |n| n * stride)
}

#[test]
fn a_table_takes_memory_where_keys_have_come() {
    let store = BucketStore::new(65_536, Duration::from_secs(1));
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
    assert_eq!(BucketStore::new(65_536, Duration::from_secs(1)).capacity(), 65_536);
    assert_eq!(BucketStore::new(65_537, Duration::from_secs(1)).capacity(), 131_072);
    assert_eq!(BucketStore::new(0, Duration::from_secs(1)).capacity(), 128);
}

#[test]
fn a_table_never_grows_under_millions_of_invented_keys() {
    let store = BucketStore::new(1024, Duration::from_nanos(10));
    let mut key = 1_u64;
    for n in 0..2_000_000 {
        // A linear congruential generator yields distinct keys that are spread over all sets.
        key = key.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        put(&store, key, 1_000 + n);
    }
    let held: usize = store.shards.iter().map(|s| s.0.lock().unwrap().len() * WAYS).sum();
    assert_eq!(held, 1024);
    assert_eq!(held, store.capacity());
}

#[test]
fn the_key_that_owes_least_gives_up_its_place() {
    let store = BucketStore::new(128, Duration::from_nanos(100));
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
    let store = BucketStore::new(128, Duration::from_nanos(100));
    let keys: Vec<_> = neighbours(&store).take(WAYS + 2).collect();
    for key in &keys[..WAYS] {
        put(&store, *key, 1_000);
    }
    // The arrival time 1,100 implies the current time 1,000. At this time, the eight keys have just become idle.
    put(&store, keys[WAYS], 1_100);
    assert_eq!(store.displaced().load(Ordering::Relaxed), 0);
    // The arrival time 1,099 implies the current time 999. At this time, the other keys are still active.
    put(&store, keys[WAYS + 1], 1_099);
    assert_eq!(store.displaced().load(Ordering::Relaxed), 1);
}

#[test]
fn a_refused_request_changes_nothing() {
    let store = BucketStore::new(128, Duration::from_nanos(100));
    put(&store, 7, 500);
    let refused: Result<(), _> = store.measure_and_replace(&7, |_| Err("too fast"));
    assert_eq!(refused, Err("too fast"));
    assert_eq!(peek(&store, 7), Some(500));
    assert_eq!(peek(&store, 8), None);
}

#[test]
fn a_panic_under_the_lock_does_not_end_the_limit() {
    let store = BucketStore::new(128, Duration::from_nanos(100));
    put(&store, 7, 500);
    let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _: Result<(), ()> = store.measure_and_replace(&7, |_| panic!("a fault in the closure"));
    }));
    assert!(broken.is_err());
    assert_eq!(peek(&store, 7), Some(500));
}

proptest! {
    /// While no set overflows, the table behaves like a plain map.
    #[test]
    fn the_table_agrees_with_a_map(steps in prop::collection::vec((0_u64..8, 1_u64..1_000_000), 1..200)) {
        let store = BucketStore::new(128, Duration::from_nanos(1));
        let mut model = HashMap::new();
        for (key, arrival) in steps {
            // An unused entry has key 0, so a look-up of key 0 finds it. Its arrival time 0 means that the bucket is
            // full.
            let old = put(&store, key, arrival).filter(|old| *old != 0);
            prop_assert_eq!(old, model.insert(key, arrival));
        }
    }
}
