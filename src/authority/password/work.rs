//! Counts the cost of checking a hash, so that a failed attempt can be made to cost the same for every account.
//!
//! Each kind of hash has its own unit, in which its time is linear. A failed attempt spends, for each kind that any
//! account has, as much as the most expensive hash of that kind. The difference to the cost of the account's own hash
//! is spent on discarded hashes. Whatever number of different hashes an import brings, that is one hash of each kind.

/// A unit of work that is counted by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WorkUnit {
    /// KiB written.
    Argon2,
    /// Rounds of the key schedule.
    Bcrypt,
    /// The number of 128-byte blocks that scrypt mixes.
    Scrypt,
    /// Iterations.
    Sha1,
    /// Iterations.
    Sha256,
    /// Iterations.
    Sha512,
}

pub(super) const WORK_UNITS: [WorkUnit; 6] = [
    WorkUnit::Argon2,
    WorkUnit::Bcrypt,
    WorkUnit::Scrypt,
    WorkUnit::Sha1,
    WorkUnit::Sha256,
    WorkUnit::Sha512,
];

/// An amount of work, in units of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Work([u64; WORK_UNITS.len()]);

impl Work {
    pub(super) fn of(kind: WorkUnit, units: u64) -> Self {
        let mut work = Self::default();
        work.0[kind as usize] = units;
        work
    }

    /// Returns the units of one kind.
    pub(super) fn units(&self, kind: WorkUnit) -> u64 {
        self.0[kind as usize]
    }

    /// Raises each kind to at least the units of `other`.
    pub(super) fn raise_to(&mut self, other: &Self) {
        for (units, more) in self.0.iter_mut().zip(other.0) {
            *units = more.max(*units);
        }
    }

    pub(super) fn add(&mut self, more: &Self) {
        for (units, more) in self.0.iter_mut().zip(more.0) {
            *units += more;
        }
    }

    /// Returns the rest of the work after a part of it.
    pub(super) fn less(&self, done: &Self) -> Self {
        let mut left = *self;
        for (units, done) in left.0.iter_mut().zip(done.0) {
            *units = units.saturating_sub(done);
        }
        left
    }
}
