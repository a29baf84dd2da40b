//! Slows down password guessing, by account and by address, and never locks an owner out permanently.
//!
//! The throttle bounds the number of guesses that it admits in any period, regardless of their order, number and
//! concurrency (see `Throttle::try_attempt`). It uses a fixed amount of memory. The caller must call the throttle
//! before each check of a password and report the outcome. The caller also decides whether an address is known to an
//! account, and how to respond to the client.

mod table;

use crate::peer::network;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use table::{Debt, Table};

/// The delays and the bound of one kind of counter.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Number of failed attempts without a delay. The next attempt is delayed by one second, and each later delay is
    /// twice as long.
    free: u32,
    /// Maximum delay.
    longest: Duration,
    /// The time after which one failure is forgotten. Failures are forgotten one after the other.
    forget: Duration,
    /// Maximum number of failures that are not yet forgotten. At the maximum, one attempt is admitted each time a
    /// failure is forgotten.
    most: u32,
}

/// The pace of one account from one address. If the address is known to the account, only this pace applies; otherwise
/// the other two paces apply as well. This pace is slow enough that one stranger alone cannot keep [`ACCOUNT`] at its
/// maximum.
const PAIR: Pace =
    Pace { free: 5, longest: Duration::from_secs(60), forget: Duration::from_secs(24 * 60), most: 100 };

/// The pace of one account from all addresses that are not known to it. NIST sets the maximum of 100 (SP 800-63B
/// section 5.2.2).
const ACCOUNT: Pace =
    Pace { free: 5, longest: Duration::from_secs(60), forget: Duration::from_secs(12 * 60), most: 100 };

/// The pace of one address over all accounts to which the address is not known. It allows more failures than the other
/// paces, because all people of a household share an address.
const ADDRESS: Pace =
    Pace { free: 20, longest: Duration::from_secs(15 * 60), forget: Duration::from_secs(3 * 60), most: 100 };

/// Number of entries in each of the three tables (pairs, accounts, addresses). An entry takes 24 bytes; the tables take
/// 2.3 MiB in total.
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
            // The hash has a random key, so that an attacker cannot choose names that evict a victim's entry from a
            // table.
            keys: RandomState::new(),
            tables: Mutex::new(Tables { pairs: table(), accounts: table(), addresses: table() }),
        }
    }

    /// Admits a check of a password now, or returns how long to wait. An admitted attempt immediately counts as a
    /// failure, so that concurrent attempts have no advantage over sequential attempts. [`Self::succeeded`] or
    /// [`Self::withdrawn`] takes the failure back.
    ///
    /// `known` states whether somebody has logged in to this account from this address before. If so, only the failures
    /// of this pair of account and address count: strangers who guess at the account or from the address do not delay
    /// the owner.
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

    /// Reports a right password: forgets the failures of the account and of the pair. Of the address's failures, only
    /// this attempt is taken back. If all of the address's failures were forgotten, attackers with an account of their
    /// own could guess at other accounts without bound.
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

    /// Takes back an attempt whose password was not checked, because the queue was full or the store failed.
    pub fn withdrawn(&self, address: IpAddr, account: &str, known: bool) {
        let mut tables = self.tables();
        let counts = self.counts(&mut tables, address, account, known);
        counts.into_iter().flatten().for_each(|mut count| count.take_back());
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // The tables are consistent even if another thread panicked while it held the lock, because no change to an
        // entry can panic halfway.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the counters of an attempt, in the order pair, account, address. An attempt from a known address has
    /// only the counter of the pair.
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

    /// Converts a time to nanoseconds on the throttle's clock. The clock starts one second before the throttle's
    /// creation, so that no time is 0.
    fn nanos(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.began) + Duration::from_secs(1);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The failures of one account, of one address, or of a pair of both.
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
        // The number of failures that are not yet forgotten. A failure whose time has partly passed still counts.
        let failures = u32::try_from((gone - now).div_ceil(forget)).unwrap_or(u32::MAX);
        let next = match failures.checked_sub(self.pace.free) {
            None => 0,
            Some(over) => now + nanos(self.pace.longest.min(Duration::from_secs(1 << over.min(30)))),
        };
        self.table.put(self.key, Debt { gone, next }, now);
    }

    /// Takes one failure back. A running delay continues, because another failure may have caused it.
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
