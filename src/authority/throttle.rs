//! Slows the guessing of passwords down, by account and by address, and never locks an owner out for good.
//!
//! Promises a bound on the guesses that are let through in any time, whatever order, number and concurrency they come
//! in (see [`Throttle::ask`]), in memory of a fixed size. Assumes that the caller asks before each check of a password
//! and tells how it ended. Whether an address is known to an account is the caller's knowledge; so is what the client
//! is told.

mod table;

use crate::peer::network;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use table::{Debt, Table};

/// How one of the counts slows down.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Failures without a delay. The next one is delayed by a second, and each after that by twice as much.
    free: u32,
    /// The longest delay.
    longest: Duration,
    /// In this time one failure is forgotten.
    forget: Duration,
    /// So many failures not yet forgotten, and no more: then one is let through for each that is forgotten.
    most: u32,
}

/// One account from one address. All that counts for an owner where the account is known; for a stranger, who is
/// counted by the other two as well, it is slow enough that alone he cannot keep [`ACCOUNT`] at its most.
const PAIR: Pace =
    Pace { free: 5, longest: Duration::from_secs(60), forget: Duration::from_secs(24 * 60), most: 100 };

/// One account, from all addresses where it is not known. The hundred are NIST's (SP 800-63B section 5.2.2).
const ACCOUNT: Pace =
    Pace { free: 5, longest: Duration::from_secs(60), forget: Duration::from_secs(12 * 60), most: 100 };

/// One address, all accounts that are not known there: a house full of people mistypes more than one person.
const ADDRESS: Pace =
    Pace { free: 20, longest: Duration::from_secs(15 * 60), forget: Duration::from_secs(3 * 60), most: 100 };

/// Accounts, pairs and addresses that are remembered at once, each: 24 bytes an entry, 2.3 MiB in all.
const REMEMBERED: usize = 32_768;

/// Counts failed attempts to log in.
pub struct Throttle {
    began: Instant,
    keys: RandomState,
    tables: Mutex<Tables>,
}

struct Tables {
    pairs: Table,
    accounts: Table,
    addresses: Table,
}

impl std::fmt::Debug for Throttle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Throttle").finish_non_exhaustive()
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new()
    }
}

impl Throttle {
    /// Nobody has failed yet.
    pub fn new() -> Self {
        let table = || Table::new(REMEMBERED);
        Self {
            began: Instant::now(),
            // Keyed at random, so that nobody can choose names that push each other, or a victim's, out of a table.
            keys: RandomState::new(),
            tables: Mutex::new(Tables { pairs: table(), accounts: table(), addresses: table() }),
        }
    }

    /// Whether a password may be checked now. If so, the attempt counts as a failure from here on: of many at once, no
    /// more are let through than one after the other. [`Self::succeeded`] or [`Self::withdrawn`] takes it back.
    ///
    /// `known` says that this account was logged in to from this address before: then it is counted by itself, and
    /// failures of strangers, at the account or at the address, do not touch it.
    ///
    /// Lets through, in any time `t`: at one account from all unknown addresses together `100 + t / 12 min` guesses at
    /// most, and `11 + t / 60 s + t / 12 min`; at one account from one address `100 + t / 24 min`; from one address at
    /// all accounts together, other than those known there, `100 + t / 3 min`.
    ///
    /// # Errors
    /// How long to wait. Asking too early is not counted, and makes the wait no longer.
    pub fn try_attempt(
        &self,
        address: IpAddr,
        account: &str,
        known: bool,
        now: Instant,
    ) -> Result<(), Duration> {
        let now = self.nanos(now);
        let mut tables = self.tables();
        let mut counts = self.counts(&mut tables, address, account, known);
        let wait = counts.iter_mut().flatten().map(|count| count.wait(now)).max().unwrap_or_default();
        if wait > 0 {
            return Err(Duration::from_nanos(wait));
        }
        counts.iter_mut().flatten().for_each(|count| count.add(now));
        Ok(())
    }

    /// The password was wrong. The attempt was already counted when it began.
    pub fn failed(&self, _address: IpAddr, _account: &str, _known: bool, _now: Instant) {}

    /// The password was right: what was counted of the account is forgotten. Of the address only this attempt is, or
    /// whoever has an account of his own could guess at others' for ever.
    pub fn succeeded(&self, address: IpAddr, account: &str, known: bool) {
        let mut tables = self.tables();
        let [pair, of_account, of_address] = self.counts(&mut tables, address, account, known);
        for mut count in [pair, of_account].into_iter().flatten() {
            count.clear();
        }
        if let Some(mut count) = of_address {
            count.expire_session_cookies();
        }
    }

    /// The password was not checked after all: there was no room for it, or no store.
    pub fn withdrawn(&self, address: IpAddr, account: &str, known: bool) {
        let mut tables = self.tables();
        let counts = self.counts(&mut tables, address, account, known);
        counts.into_iter().flatten().for_each(|mut count| count.expire_session_cookies());
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // A thread that panicked here left whole entries behind: none of the steps below can panic halfway.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keys that count an attempt: pair, account, address.
    fn counts<'t>(
        &self,
        tables: &'t mut Tables,
        address: IpAddr,
        account: &str,
        known: bool,
    ) -> [Option<Count<'t>>; 3] {
        let address = network(address);
        let count = |table: &'t mut Table, key, pace| Count { table, key, pace };
        let pair = count(&mut tables.pairs, self.keys.hash_one((address, account)), PAIR);
        let strangers = (!known).then(|| {
            let account = count(&mut tables.accounts, self.keys.hash_one(account), ACCOUNT);
            let address = count(&mut tables.addresses, self.keys.hash_one(address), ADDRESS);
            (account, address)
        });
        let (account, address) = strangers.unzip();
        [Some(pair), account, address]
    }

    /// Nanoseconds since this was made. Its clock begins a while before, so that 0 is never now.
    fn nanos(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.began) + Duration::from_secs(1);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The failures of one account, address or both.
struct Count<'t> {
    table: &'t mut Table,
    key: u64,
    pace: Pace,
}

impl Count<'_> {
    fn forget(&self) -> u64 {
        nanos(self.pace.forget)
    }

    /// How long until an attempt may be made.
    fn wait(&mut self, now: u64) -> u64 {
        let Debt { gone, next } = self.table.get(self.key);
        let room = gone.saturating_sub(self.forget() * u64::from(self.pace.most - 1));
        next.max(room).saturating_sub(now)
    }

    /// Counts a failure.
    fn add(&mut self, now: u64) {
        let forget = self.forget();
        let gone = self.table.get(self.key).gone.max(now) + forget;
        // Failures that are not forgotten; one of which a part is forgotten still counts.
        let failures = u32::try_from((gone - now).div_ceil(forget)).unwrap_or(u32::MAX);
        let next = match failures.checked_sub(self.pace.free) {
            None => 0,
            Some(over) => now + nanos(self.pace.longest.min(Duration::from_secs(1 << over.min(30)))),
        };
        self.table.put(self.key, Debt { gone, next }, now);
    }

    /// Takes one failure back. A delay that is running goes on: it may be another failure's.
    fn expire_session_cookies(&mut self) {
        let Debt { gone, next } = self.table.get(self.key);
        if gone > 0 {
            let gone = gone.saturating_sub(self.forget());
            self.table.put(self.key, Debt { gone, next }, 0);
        }
    }

    fn clear(&mut self) {
        self.table.remove(self.key);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
