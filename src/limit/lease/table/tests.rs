use super::*;
use std::hash::{BuildHasherDefault, DefaultHasher};

const NOW: u64 = 3_600_000_000_000;

fn table(capacity: usize) -> (Arc<FleetState>, Arc<LeaseTable>) {
    let fleet = Arc::new(FleetState::default());
    fleet.set_up(true);
    fleet.set_gateways(3);
    let terms = Terms { interval: 1_000_000_000, burst: 4 };
    (fleet.clone(), LeaseTable::new(terms, 7, capacity, fleet))
}

fn listed(table: &LeaseTable) -> Vec<Listed> {
    let mut keys = Vec::new();
    table.take_listed(&mut keys);
    keys
}

#[test]
fn a_key_is_listed_once_until_it_is_idle() {
    let (_, table) = table(128);
    for _ in 0..3 {
        assert!(matches!(table.charge(5, true, NOW), Charge::Admitted { .. }));
    }
    let found = listed(&table);
    assert_eq!(found, [Listed { key: 5, debt: 0 }]);
    table.charge(5, true, NOW);
    assert_eq!(listed(&table), []);
    let Step::Send(order) = table.step(&found[0], NOW) else { panic!("a debt") };
    assert_eq!(order.debt, 4);
    table.answer(5, &order, Some(Granted { tokens: 0, ahead: 4_000_000_000 }), NOW);
    let later = NOW + 150_000_000;
    assert_eq!(table.step(&found[0], later), Step::Forget);
    table.charge(5, true, later);
    assert_eq!(listed(&table), found);
}

#[test]
fn keys_have_accounts_of_their_own() {
    let (_, table) = table(1024);
    // Keys are hashes. With an unlucky spread, the table puts consecutive numbers into few sets.
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    for key in (1..100_u64).map(|number| hasher.hash_one(number)) {
        let charge = table.charge(key, true, NOW);
        assert!(matches!(charge, Charge::Admitted { remaining: 3, .. }), "{charge:?}");
    }
    assert_eq!(listed(&table).len(), 99);
    assert_eq!(table.displaced().load(Ordering::Relaxed), 0);
}

#[test]
fn invented_keys_do_not_grow_the_table_and_an_evicted_debt_is_reported() {
    let (_, table) = table(128);
    for key in 1..5_000 {
        table.charge(key, true, NOW);
    }
    let accounts: usize = table.shards.iter().map(|shard| lock(shard).sets.len() * WAYS).sum();
    assert_eq!(accounts, 128);
    let found = listed(&table);
    assert!(found.len() <= SHARDS * LISTED_MAX);
    let evicted = found.iter().filter(|listed| listed.debt > 0).count();
    assert_eq!(evicted, 4_999 - 128, "each evicted account owed one token");
    let orphan = found.iter().find(|listed| listed.debt > 0).unwrap();
    assert_eq!(table.step(orphan, NOW), Step::Send(Order { debt: 1, want: 0, ahead: 0 }));
    assert!(table.displaced().load(Ordering::Relaxed) > 4_000);
}

#[test]
fn the_first_request_of_a_key_asks_for_a_report() {
    let (_, table) = table(128);
    assert!(!table.has_listed());
    table.charge(5, true, NOW);
    assert!(table.has_listed());
}
