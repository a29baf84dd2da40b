//! Slows down password guessing, by account and by address, without ever locking an owner out for good.
//!
//! Guarantees a bound on the guesses admitted in any period, whatever their order, number and concurrency (see
//! `Throttle::try_attempt`), in a fixed amount of memory. The caller must ask before each check of a password and
//! report its outcome. The caller also decides whether an address is known to an account, and how to respond to the
//! client.

mod table;

use crate::peer::network;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use table::{Debt, Table};

/// The delays and the bound of one kind of count.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Number of failures without a delay. The next attempt is delayed by one second, and each further delay is twice
    /// as long.
    free: u32,
    /// Maximum delay.
    longest: Duration,
    /// The time in which one failure is forgotten.
    forget: Duration,
    /// Maximum number of failures that are not yet forgotten. Once it is reached, one attempt is admitted for each
    /// failure that is forgotten.
    most: u32,
}

/// The pace of one account from one address. At an address known to the account, only this count applies. A stranger is
/// also counted by the other two. This pace is slow enough that one stranger alone cannot keep [`ACCOUNT`] at its
/// maximum.
const PAIR: Pace =
    Pace { free: 5, longest: Duration::from_secs(60), forget: Duration::from_secs(24 * 60), most: 100 };

/// The pace of one account from all addresses that are not known to it. The maximum of 100 is NIST's (SP 800-63B
/// section 5.2.2).
const ACCOUNT: Pace =
    Pace { free: 5, longest: Duration::from_secs(60), forget: Duration::from_secs(12 * 60), most: 100 };

/// The pace of one address over all accounts to which it is not known. It is more generous, because a household
/// mistypes more often than one person.
const ADDRESS: Pace =
    Pace { free: 20, longest: Duration::from_secs(15 * 60), forget: Duration::from_secs(3 * 60), most: 100 };

/// Number of accounts, of pairs and of addresses held at once: 24 bytes an entry, 2.3 MiB in all.
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
    /// Creates a throttle without failures.
    pub fn new() -> Self {
        let table = || Table::new(REMEMBERED);
        Self {
            began: Instant::now(),
            // The hash is keyed at random, so that an attacker cannot choose names that evict each other, or a victim,
            // from a table.
            keys: RandomState::new(),
            tables: Mutex::new(Tables { pairs: table(), accounts: table(), addresses: table() }),
        }
    }

    /// Admits a check of a password now, or returns how long to wait. An admitted attempt counts as a failure from this
    /// moment, so that concurrent attempts gain nothing over sequential ones. [`Self::succeeded`] or
    /// [`Self::withdrawn`] takes the failure back.
    ///
    /// `known` states that somebody logged in to this account from this address before. The pair is then counted by
    /// itself, and failures of strangers, at the account or at the address, do not affect it.
    ///
    /// In any period `t`, the throttle admits at most:
    /// - at one account, from all unknown addresses: `100 + t / 12 min` and `11 + t / 60 s + t / 12 min` guesses;
    /// - at one account from one address: `100 + t / 24 min` guesses;
    /// - from one address, at all accounts to which it is not known: `100 + t / 3 min` guesses.
    ///
    /// # Errors
    /// The time to wait. An attempt that is not admitted is not counted and does not extend the wait.
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

    /// Forgets the failures of the account and the pair, because the password was right. At the address only this
    /// attempt is taken back: otherwise attackers with an account of their own could guess at other accounts without
    /// bound.
    pub fn succeeded(&self, address: IpAddr, account: &str, known: bool) {
        let mut tables = self.tables();
        let [pair, of_account, of_address] = self.counts(&mut tables, address, account, known);
        for mut count in [pair, of_account].into_iter().flatten() {
            count.clear();
        }
        if let Some(mut count) = of_address {
            count.take_back();
        }
    }

    /// Takes an attempt back whose password was not checked, for lack of room or of a store.
    pub fn withdrawn(&self, address: IpAddr, account: &str, known: bool) {
        let mut tables = self.tables();
        let counts = self.counts(&mut tables, address, account, known);
        counts.into_iter().flatten().for_each(|mut count| count.take_back());
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // A thread that panicked here left complete entries: none of the steps below can panic halfway.
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

    /// Returns nanoseconds on the throttle's clock, which starts one second before its creation, so that no time is 0.
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

    /// Returns the time until the next attempt is admitted, in nanoseconds.
    fn wait(&mut self, now: u64) -> u64 {
        let Debt { gone, next } = self.table.get(self.key);
        let room = gone.saturating_sub(self.forget() * u64::from(self.pace.most - 1));
        next.max(room).saturating_sub(now)
    }

    /// Counts a failure.
    fn add(&mut self, now: u64) {
        let forget = self.forget();
        let gone = self.table.get(self.key).gone.max(now) + forget;
        // The failures that are not forgotten. A failure that is partly forgotten still counts.
        let failures = u32::try_from((gone - now).div_ceil(forget)).unwrap_or(u32::MAX);
        let next = match failures.checked_sub(self.pace.free) {
            None => 0,
            Some(over) => now + nanos(self.pace.longest.min(Duration::from_secs(1 << over.min(30)))),
        };
        self.table.put(self.key, Debt { gone, next }, now);
    }

    /// Takes one failure back. A running delay continues, because it may belong to another failure.
    fn take_back(&mut self) {
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
