//! Slows down password guessing, by account and by address. Never locks an owner out permanently.
//!
//! The throttle bounds the number of guesses in any period, regardless of their order and concurrency (see
//! `Throttle::try_attempt`). It uses a fixed amount of memory. The caller must call the throttle before each check of a
//! password and report the outcome. Gateways with a shared state also count together ([`admission`]).

pub(super) mod admission;
mod fleet;
mod table;

use crate::peer::network;
use admission::Attempt;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use table::{Debt, Table};

/// The delays and the limit of one kind of counter.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Number of failed attempts without a delay. The next delay is one second, and each later delay is twice as long.
    free: u32,
    /// Maximum delay.
    longest: Duration,
    /// The time after which one failure is forgotten. Failures are forgotten one at a time.
    forget: Duration,
    /// Maximum number of remembered failures. At the maximum, an attempt is admitted only after a failure is forgotten.
    most: u32,
}

/// The limits for one account from one address. Only these limits apply if the address is known to the account. They
/// are strict enough that one stranger cannot keep [`ACCOUNT`] at its maximum.
const PAIR: Pace =
    Pace { free: 5, longest: Duration::from_secs(60), forget: Duration::from_secs(24 * 60), most: 100 };

/// The limits for one account from all addresses that are not known to it. NIST sets the maximum of 100 (SP 800-63B
/// section 5.2.2).
const ACCOUNT: Pace =
    Pace { free: 5, longest: Duration::from_secs(60), forget: Duration::from_secs(12 * 60), most: 100 };

/// The limits for one address over all accounts to which it is not known. They are less strict, because the people of a
/// household share an address.
const ADDRESS: Pace =
    Pace { free: 20, longest: Duration::from_secs(15 * 60), forget: Duration::from_secs(3 * 60), most: 100 };

/// Number of entries in each of the three tables (pairs, accounts, addresses). An entry takes 24 bytes. The tables take
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
            // The random key prevents an attacker from choosing names that evict a victim's entry.
            keys: RandomState::new(),
            tables: Mutex::new(Tables { pairs: table(), accounts: table(), addresses: table() }),
        }
    }

    /// Returns how long to wait before the next check of a password. Counts nothing.
    fn wait(&self, address: IpAddr, account: &str, known: bool, now: Instant) -> Duration {
        let now = self.nanos(now);
        let mut tables = self.tables();
        Duration::from_nanos(longest_wait(&mut self.counts(&mut tables, address, account, known), now))
    }

    /// Admits a check of a password now, or returns how long to wait.
    ///
    /// An admitted attempt immediately counts as a failure, so concurrent attempts have no advantage.
    /// [`Self::succeeded`] or [`Self::withdrawn`] takes the failure back.
    ///
    /// `known`: whether somebody has logged in to this account from this address before. If so, only the failures of
    /// this pair count, so strangers cannot delay the owner.
    ///
    /// In any period `t`, the throttle admits at most:
    /// - at one account, from all unknown addresses: `100 + t / 12 min` and `11 + t / 60 s + t / 12 min` guesses;
    /// - at one account from one address: `100 + t / 24 min` guesses;
    /// - from one address, at all accounts to which it is not known: `100 + t / 3 min` guesses.
    ///
    /// # Errors
    /// The time to wait. A rejected attempt is not counted and does not extend the wait.
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
        let wait = longest_wait(&mut counts, now);
        if wait > 0 {
            return Err(Duration::from_nanos(wait));
        }
        counts.iter_mut().flatten().for_each(|count| count.add(now));
        Ok(())
    }

    /// Reports a correct password. Forgets the failures of the account and of the pair, but only this attempt of the
    /// address. Otherwise attackers with an account could guess at other accounts without limit.
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
        // The tables are consistent even after a panic, because no change to an entry can panic halfway.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the counters of an attempt: pair, account, address. An attempt from a known address has only the counter
    /// of the pair.
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

    /// Converts a time to nanoseconds on the throttle's clock. The clock starts one second before the throttle, so that
    /// no time is 0.
    fn nanos(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.began) + Duration::from_secs(1);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Returns the time until all counters admit an attempt, in nanoseconds.
fn longest_wait(counts: &mut [Option<Count<'_>>], now: u64) -> u64 {
    counts.iter_mut().flatten().map(|count| count.wait(now)).max().unwrap_or_default()
}

/// The failures of an account, an address, or a pair.
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
        // The number of remembered failures. A failure counts until its time has fully passed.
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
