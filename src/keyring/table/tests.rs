//! Tests of keys in a store, with an SQLite file. `tests/it/shared_keys.rs` has gateways with PostgreSQL.

use super::super::scratch::{START, Scratch};
use super::super::{
    KeyEvent, KeyState, KeyStorage, Keyring, LEAD, LEEWAY, MissingKey, RETENTION, RotationStart, Schedule,
    Watcher,
};
use super::*;
use crate::clock::Now;

const DAY: u64 = 86_400;
const MONTH: u64 = 30 * DAY;
const LIFE: u64 = 900;

/// A store with keys, in a folder of its own.
struct Shared(Scratch);

impl Shared {
    fn new() -> Self {
        Self(Scratch::new())
    }

    fn url(&self) -> String {
        format!("sqlite:{}/p.db", self.0.0.display())
    }

    fn try_open(&self, secrets: SealSecrets, now: u64) -> Result<Keyring, KeyringFault> {
        let storage = KeyStorage::Store(&self.url(), secrets);
        let schedule =
            Schedule { access_expires: Duration::from_secs(LIFE), rotate_keys: Duration::from_secs(MONTH) };
        let opened = Keyring::open_at(storage, Algorithm::EdDSA, None, MissingKey::Create, Now::at(now));
        opened.map(|keyring| keyring.with_schedule_at(schedule, Now::at(now)))
    }

    fn open(&self, now: u64) -> Keyring {
        self.try_open(secrets(1, None), now).unwrap()
    }

    /// Executes a statement past the keyring.
    fn sql(&self, statement: &str) {
        let url = self.url();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let pool = sqlx::AnyPool::connect(&url).await.unwrap();
            sqlx::query(sqlx::AssertSqlSafe(statement.to_owned())).execute(&pool).await.unwrap();
            pool.close().await;
        });
    }
}

fn secrets(current: u8, other: Option<u8>) -> SealSecrets {
    let other = other.map(|byte| [byte; 32]);
    SealSecrets::new(&[current; 32], other.as_ref().map(|secret| &secret[..])).unwrap()
}

fn signing(keyring: &Keyring, now: u64) -> String {
    keyring.signing(Now::at(now)).id().to_owned()
}

fn states(keyring: &Keyring, now: u64) -> Vec<KeyState> {
    keyring.list(Now::at(now)).iter().map(|key| key.state).collect()
}

/// Polls, and returns the events and the keys that were published.
fn look(watcher: &mut Watcher, now: u64) -> Vec<KeyEvent> {
    watcher.poll(Now::at(now), |_| {})
}

#[test]
fn gateways_that_start_together_have_one_key() {
    let shared = Shared::new();
    let ids: Vec<String> = std::thread::scope(|scope| {
        let shared = &shared;
        let threads: Vec<_> =
            (0..4).map(|n| scope.spawn(move || signing(&shared.open(START + n), START))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[test]
fn one_of_many_gateways_creates_the_next_key_and_all_publish_it_before_any_signs() {
    let shared = Shared::new();
    let gateways: Vec<Keyring> = (0..3).map(|_| shared.open(START)).collect();
    let mut watchers: Vec<Watcher> = gateways.iter().map(|keyring| keyring.watcher(Now::at(START))).collect();
    let first = signing(&gateways[0], START);
    let due = START + MONTH - LEAD;
    // The clocks differ by less than a minute.
    let clock = |gateway: usize, now: u64| now + 20 * u64::try_from(gateway).unwrap();
    for (gateway, watcher) in watchers.iter_mut().enumerate() {
        look(watcher, clock(gateway, due));
    }
    for (gateway, watcher) in watchers.iter_mut().enumerate() {
        look(watcher, clock(gateway, due + 1));
        assert_eq!(states(&gateways[gateway], due + 1), [KeyState::Signing, KeyState::Next], "{gateway}");
    }
    let set = gateways[0].jwks();
    assert!(gateways.iter().all(|keyring| keyring.jwks() == set));
    for now in [due + 1, START + MONTH - 1] {
        assert!(gateways.iter().all(|keyring| signing(keyring, now) == first), "{now}");
    }
    let next = signing(&gateways[0], START + MONTH);
    assert!(next != first && gateways.iter().all(|keyring| signing(keyring, START + MONTH) == next));
    // The old key stays until the last token that it signed has expired.
    for (after, published) in [(LIFE + LEEWAY - 1, 2), (LIFE + LEEWAY, 1)] {
        watchers.iter_mut().for_each(|watcher| drop(look(watcher, START + MONTH + after)));
        for keyring in &gateways {
            assert_eq!(keyring.key_set().unwrap().iter().count(), published, "{after}");
        }
    }
    let removed = look(&mut watchers[1], START + MONTH + LIFE + LEEWAY + RETENTION);
    assert!(removed.contains(&KeyEvent::Removed { id: first }), "{removed:?}");
}

#[test]
fn a_gateway_that_dies_during_a_change_changes_nothing_and_frees_the_lock() {
    let shared = Shared::new();
    let keyring = shared.open(START);
    let mut watcher = keyring.watcher(Now::at(START));
    let table = KeyTable::open(&shared.url(), secrets(1, None)).unwrap();
    let change = table.change(Duration::ZERO).unwrap();
    change.create_key(Algorithm::EdDSA, START + 5, START).unwrap();
    assert_eq!(look(&mut watcher, START), [], "the change is in force for nobody else");
    drop(change);
    assert_eq!(look(&mut watcher, START + 1), []);
    let rotated = keyring.rotate(RotationStart::Immediate, Now::at(START)).unwrap();
    assert_eq!((rotated.signs_from, shared.open(START).list(Now::at(START)).len()), (START + 2, 2));
}

#[test]
fn a_key_that_somebody_changed_in_the_store_is_not_used() {
    let shared = Shared::new();
    let keyring = shared.open(START);
    let mut watcher = keyring.watcher(Now::at(START));
    let first = signing(&keyring, START);
    let second = keyring.rotate(RotationStart::AfterLead, Now::at(START)).unwrap().id;
    shared.sql(&format!("UPDATE signing_keys SET signs_from = signs_from - 1000 WHERE kid = '{second}'"));
    let fault = shared.try_open(secrets(1, None), START + 1).unwrap_err();
    assert_eq!(fault, KeyringFault::Changed(second.clone()));
    let events = look(&mut watcher, START + 1);
    assert!(events.contains(&KeyEvent::Fault(KeyringFault::Changed(second.clone()))), "{events:?}");
    assert_eq!(signing(&keyring, START + 1), first);
    shared.sql(&format!("UPDATE signing_keys SET signs_from = signs_from + 1000 WHERE kid = '{second}'"));
    assert!(look(&mut watcher, START + 2).contains(&KeyEvent::Recovered));
    // One key's private half under the id of the other.
    shared.sql(&format!(
        "UPDATE signing_keys SET sealed = (SELECT sealed FROM signing_keys WHERE kid = '{first}') WHERE kid = '{second}'"
    ));
    assert_eq!(shared.try_open(secrets(1, None), START).unwrap_err(), KeyringFault::Changed(second));
}

#[test]
fn revoked_keys_stay_revoked_and_their_private_half_is_gone() {
    let shared = Shared::new();
    let keyring = shared.open(START);
    let other = shared.open(START);
    let mut watcher = other.watcher(Now::at(START));
    let first = signing(&keyring, START);
    let new = keyring.revoke(&first, Now::at(START + 9)).unwrap().unwrap();
    assert_eq!(states(&keyring, START + 9), [KeyState::Revoked, KeyState::Signing]);
    let events = look(&mut watcher, START + 9);
    assert!(events.contains(&KeyEvent::Revoked { id: first.clone() }), "{events:?}");
    assert_eq!(signing(&other, START + 9), new);
    let (revoked, newest) = keyring.revoke_all(Now::at(START + 20)).unwrap();
    assert_eq!(revoked, [new]);
    assert_eq!(signing(&shared.open(START + 20), START + 20), newest);
    let table = KeyTable::open(&shared.url(), secrets(1, None)).unwrap();
    let listed = table.list(Algorithm::EdDSA).unwrap();
    assert_eq!(listed.iter().filter(|key| key.sealed.is_some()).count(), 1);
}

#[test]
fn the_secret_can_be_changed_without_a_new_key() {
    let shared = Shared::new();
    let first = signing(&shared.open(START), START);
    let unknown = shared.try_open(secrets(2, None), START).unwrap_err();
    assert_eq!(unknown, KeyringFault::UnknownSeal(first.clone()));
    let both = shared.try_open(secrets(2, Some(1)), START).unwrap();
    assert_eq!(signing(&both, START), first);
    assert_eq!(both.reseal().unwrap(), std::slice::from_ref(&first));
    assert!(both.reseal().unwrap().is_empty());
    assert_eq!(signing(&shared.try_open(secrets(2, None), START).unwrap(), START), first);
    assert!(shared.try_open(secrets(1, None), START).is_err());
}

#[test]
fn a_policy_with_other_secrets_or_another_store_opens_the_keys_again() {
    let shared = Shared::new();
    let keyring = shared.open(START);
    let url = shared.url();
    let carried = |url: &str, secrets: SealSecrets| {
        let storage = KeyStorage::Store(url, secrets);
        keyring.carry_over(&storage, Algorithm::EdDSA, None, Schedule::default()).is_some()
    };
    assert!(carried(&url, secrets(1, None)));
    assert!(!carried(&url, secrets(1, Some(2))) && !carried(&url, secrets(2, None)));
    assert!(!carried("sqlite:/elsewhere.db", secrets(1, None)));
    let folder = KeyStorage::Folder(&shared.0.0);
    assert!(keyring.carry_over(&folder, Algorithm::EdDSA, None, Schedule::default()).is_none());
    assert_eq!(format!("{:?}", KeyStorage::Store("u", secrets(1, None))), "Store");
}

#[test]
fn keys_of_another_algorithm_are_another_ring() {
    let shared = Shared::new();
    let first = signing(&shared.open(START), START);
    let storage = KeyStorage::Store(&shared.url(), secrets(1, None));
    let other =
        Keyring::open_at(storage, Algorithm::ES256, None, MissingKey::Create, Now::at(START)).unwrap();
    assert_ne!(signing(&other, START), first);
    assert_eq!(signing(&shared.open(START), START), first);
    let storage = KeyStorage::Store("sqlite:/no/such/folder/p.db", secrets(1, None));
    let inspected = Keyring::open_at(storage, Algorithm::ES256, None, MissingKey::Ephemeral, Now::at(START));
    assert!(inspected.unwrap().is_ephemeral(), "nothing was opened");
}
