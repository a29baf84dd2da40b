//! Stores failures in a table of a fixed size. The number of names and addresses that clients can invent is unbounded.
//!
//! Each key has one set of eight entries. In a full set, a new key evicts the key whose failures would be forgotten
//! first. To evict a victim's entry, an attacker must cause more failures for eight other keys of the set. Attackers
//! cannot find such keys, because keys are hashes with a random secret.

/// Number of entries in a set.
const WAYS: usize = 8;

/// The state of a key, in nanoseconds of the throttle's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Debt {
    /// When the key's last failure will be forgotten. Each failure moves this time later.
    pub(super) gone: u64,
    /// The time before which no attempt is admitted.
    pub(super) next: u64,
}

/// A key and its state. An entry of zeros is free.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    key: u64,
    debt: Debt,
}

/// A table of a fixed size.
pub(super) struct Table(Box<[Entry]>);

impl Table {
    /// Creates a table for `entries`, rounded up to a power of two.
    pub(super) fn new(entries: usize) -> Self {
        Self(vec![Entry::default(); entries.max(WAYS).next_power_of_two()].into_boxed_slice())
    }

    fn set(&mut self, key: u64) -> &mut [Entry] {
        let sets = self.0.len() / WAYS;
        let at = (key as usize & (sets - 1)) * WAYS;
        &mut self.0[at..at + WAYS]
    }

    /// Returns the state of a key, or zeros if the key is not in the table.
    pub(super) fn get(&mut self, key: u64) -> Debt {
        let found = self.set(key).iter().find(|entry| entry.key == key);
        found.map_or_else(Debt::default, |entry| entry.debt)
    }

    /// Stores the state of a key. In a full set, replaces the entry that stops mattering first.
    pub(super) fn put(&mut self, key: u64, debt: Debt, now: u64) {
        let set = self.set(key);
        let at = set.iter().position(|entry| entry.key == key).unwrap_or_else(|| {
            // A delay may outlast its failures, so an entry matters until both times have passed.
            let matters = |entry: &Entry| entry.debt.gone.max(entry.debt.next).saturating_sub(now);
            let least = set.iter().enumerate().min_by_key(|(_, entry)| matters(entry));
            least.map_or(0, |(at, _)| at)
        });
        set[at] = Entry { key, debt };
    }

    /// Removes a key.
    pub(super) fn remove(&mut self, key: u64) {
        if let Some(entry) = self.set(key).iter_mut().find(|entry| entry.key == key) {
            *entry = Entry::default();
        }
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn debt(gone: u64) -> Debt {
        Debt { gone, next: 0 }
    }

    #[test]
    fn an_inserted_entry_stays_until_it_is_removed() {
        let mut table = Table::new(64);
        assert_eq!(table.get(7), Debt::default());
        table.put(7, debt(100), 1);
        assert_eq!(table.get(7), debt(100));
        table.put(7, debt(200), 1);
        assert_eq!(table.get(7), debt(200));
        table.remove(7);
        assert_eq!(table.get(7), Debt::default());
    }

    #[test]
    fn the_entry_that_matters_least_gives_up_its_place() {
        let mut table = Table::new(64);
        let sets = 64 / WAYS as u64;
        for n in 1..=8 {
            table.put(n * sets, debt(1_000 - n), 1);
        }
        table.put(9 * sets, debt(500), 1);
        assert_eq!(table.get(8 * sets), Debt::default());
        assert_eq!(table.get(7 * sets), debt(993));
        assert_eq!(table.get(9 * sets), debt(500));
        // New keys do not evict entries with more failures.
        for n in 10..10_000 {
            table.put(n * sets, debt(500), 1);
        }
        for n in 1..8 {
            assert_eq!(table.get(n * sets), debt(1_000 - n));
        }
    }

    #[test]
    fn a_table_never_grows() {
        let mut table = Table::new(100);
        assert_eq!(table.entries(), 128);
        for key in 1..100_000 {
            table.put(key, debt(key), 1);
        }
        assert_eq!(table.entries(), 128);
    }
}
