//! The accounts of one limit's keys, in a table of fixed size, and the list of keys to report.
//!
//! A request locks one of 16 shards for the look-up, as for a limit of one gateway. The list is under the same lock.

use super::{Account, Granted, Order, Step, Terms};
use crate::limit::charge::Charge;
use crate::limit::fleet_state::FleetState;
use governor::clock::{Clock, MonotonicClock};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The number of accounts in a set.
const WAYS: usize = 8;
/// The number of locks.
const SHARDS: usize = 16;
/// The maximum number of new keys in a shard's list. A key that finds no room comes on the list with a later request.
const LISTED_MAX: usize = 1024;

/// The accounts of one limit.
pub(in crate::limit) struct LeaseTable {
    /// The rate and the burst.
    pub(in crate::limit) terms: Terms,
    /// The identity of the limit in the fleet: the same on all gateways with the same limit.
    pub(in crate::limit) identity: u64,
    fleet: Arc<FleetState>,
    epoch: Instant,
    shards: Box<[Mutex<Shard>]>,
    sets_a_shard: u64,
    /// Chooses the set of a key. Attackers know neither number.
    spread: (u64, u64),
    /// Whether a list has new keys.
    has_new: AtomicBool,
    displaced: Arc<AtomicU64>,
}

#[derive(Default)]
#[repr(align(64))]
struct Shard {
    sets: Box<[Set]>,
    listed: Vec<Listed>,
}

#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Set {
    keys: [u64; WAYS],
    accounts: [Account; WAYS],
}

/// A key to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::limit) struct Listed {
    /// The key's fingerprint.
    pub(in crate::limit) key: u64,
    /// The tokens that an evicted account of the key owed; 0 if the key has an account.
    pub(in crate::limit) debt: u32,
}

impl fmt::Debug for LeaseTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseTable").field("terms", &self.terms).finish_non_exhaustive()
    }
}

impl LeaseTable {
    /// Creates a table of `capacity` accounts, rounded up to a power of two. An account takes 40 bytes. The memory is
    /// allocated on first use.
    pub(in crate::limit) fn new(
        terms: Terms,
        identity: u64,
        capacity: usize,
        fleet: Arc<FleetState>,
    ) -> Arc<Self> {
        let random = RandomState::new();
        Arc::new(Self {
            terms,
            identity,
            fleet,
            epoch: MonotonicClock.now(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            sets_a_shard: capacity.div_ceil(WAYS * SHARDS).next_power_of_two() as u64,
            spread: (random.hash_one(0), random.hash_one(1) | 1),
            has_new: AtomicBool::new(false),
            displaced: Arc::default(),
        })
    }

    /// Returns the counter of active keys that were evicted from a full set.
    pub(in crate::limit) fn displaced(&self) -> &Arc<AtomicU64> {
        &self.displaced
    }

    /// Returns the state of the table's fleet.
    pub(in crate::limit) fn fleet(&self) -> &Arc<FleetState> {
        &self.fleet
    }

    /// Returns the time since the table was created, in nanoseconds.
    pub(in crate::limit) fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Charges one request.
    pub(in crate::limit) fn charge(&self, key: u64, alone: bool, now: u64) -> Charge {
        let view = self.fleet.view(alone);
        let (mut shard, set) = self.shard(key);
        let Shard { sets, listed } = &mut *shard;
        let account = self.account(sets, listed, set, key, now);
        if account.is_apart(&view) {
            self.fleet.count_apart(alone);
        }
        let charge = account.charge(&self.terms, &view, now);
        if !account.is_listed && listed.len() < LISTED_MAX {
            account.is_listed = true;
            listed.push(Listed { key, debt: 0 });
            self.has_new.store(true, Ordering::SeqCst);
            self.fleet.wake();
        }
        charge
    }

    /// Charges one request about which the fleet could not be asked.
    pub(in crate::limit) fn charge_alone(&self, key: u64, alone: bool, now: u64) -> Charge {
        self.fleet.count_apart(alone);
        match alone {
            true => self.with(key, now, |account| account.charge_alone(&self.terms, now)),
            false => Charge::Unavailable,
        }
    }

    /// Returns the distance of the arrival time of a key's bucket from now, in nanoseconds.
    pub(in crate::limit) fn ahead(&self, key: u64, now: u64) -> u64 {
        let (mut shard, set) = self.shard(key);
        find(&mut shard, set, key).map_or(0, |account| account.ahead(now))
    }

    /// Takes over the arrival time of the fleet's bucket.
    pub(in crate::limit) fn learn(&self, key: u64, ahead: u64, now: u64) {
        self.with(key, now, |account| account.learn(ahead, now));
    }

    /// Moves the new keys of all lists to `keys`.
    pub(in crate::limit) fn take_listed(&self, keys: &mut Vec<Listed>) {
        if self.has_new.swap(false, Ordering::SeqCst) {
            for shard in &self.shards {
                keys.append(&mut lock(shard).listed);
            }
        }
    }

    /// Returns whether a list has new keys.
    pub(in crate::limit) fn has_listed(&self) -> bool {
        self.has_new.load(Ordering::SeqCst)
    }

    /// Returns the next step for a key on the list.
    pub(in crate::limit) fn step(&self, listed: &Listed, now: u64) -> Step {
        if listed.debt > 0 {
            return Step::Send(Order { debt: i64::from(listed.debt), want: 0, ahead: 0 });
        }
        let (mut shard, set) = self.shard(listed.key);
        match find(&mut shard, set, listed.key) {
            Some(account) => account.step(&self.terms, self.fleet.gateways(), now),
            None => Step::Forget,
        }
    }

    /// Takes the answer to an order; `None` if there was none.
    pub(in crate::limit) fn answer(&self, key: u64, order: &Order, granted: Option<Granted>, now: u64) {
        let (mut shard, set) = self.shard(key);
        if let Some(account) = find(&mut shard, set, key) {
            account.answer(order, granted, now);
        }
    }

    fn shard(&self, key: u64) -> (MutexGuard<'_, Shard>, usize) {
        let mixed = (key ^ self.spread.0).wrapping_mul(self.spread.1);
        let mixed = mixed ^ (mixed >> 32);
        let shard = lock(&self.shards[(mixed % SHARDS as u64) as usize]);
        (shard, (mixed / SHARDS as u64 % self.sets_a_shard) as usize)
    }

    fn with<T>(&self, key: u64, now: u64, work: impl FnOnce(&mut Account) -> T) -> T {
        let (mut shard, set) = self.shard(key);
        let Shard { sets, listed } = &mut *shard;
        work(self.account(sets, listed, set, key, now))
    }

    /// Returns the account of a key. A new key of a full set evicts the account whose bucket is the fullest.
    fn account<'s>(
        &self,
        sets: &'s mut Box<[Set]>,
        listed: &mut Vec<Listed>,
        set: usize,
        key: u64,
        now: u64,
    ) -> &'s mut Account {
        if sets.is_empty() {
            *sets = vec![Set::default(); self.sets_a_shard as usize].into();
            listed.reserve_exact(LISTED_MAX);
        }
        let Set { keys, accounts } = &mut sets[set];
        let way = keys.iter().position(|known| *known == key).unwrap_or_else(|| {
            let weight = |way: &usize| (accounts[*way].owed() > 0, accounts[*way].arrival, *way);
            let way = (0..WAYS).min_by_key(weight).unwrap_or(0);
            let evicted = std::mem::take(&mut accounts[way]);
            if evicted.arrival > now || evicted.is_listed {
                self.displaced.fetch_add(1, Ordering::Relaxed);
            }
            let debt = u32::try_from(evicted.balance.saturating_neg()).unwrap_or(0);
            if debt > 0 && listed.len() < LISTED_MAX {
                listed.push(Listed { key: keys[way], debt });
                self.has_new.store(true, Ordering::SeqCst);
            }
            keys[way] = key;
            way
        });
        &mut accounts[way]
    }
}

fn find(shard: &mut Shard, set: usize, key: u64) -> Option<&mut Account> {
    let Set { keys, accounts } = shard.sets.get_mut(set)?;
    keys.iter().position(|known| *known == key).map(|way| &mut accounts[way])
}

/// A poisoned lock is harmless: a panic cannot leave an account half-written.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
