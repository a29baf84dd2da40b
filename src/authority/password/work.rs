//! Counts the cost of checking a password. `equalize` uses the cost to make each failed attempt cost the same.
//!
//! Each kind of hash has a unit of work, and the time of a hash is proportional to its units. For each kind of hash in
//! the store, a failed attempt costs as much as the most expensive hash of that kind.

/// A unit of work, one for each kind of hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WorkUnit {
    /// The number of KiB that Argon2 writes.
    Argon2,
    /// The number of rounds of bcrypt's key schedule.
    Bcrypt,
    /// The cost of a scrypt hash is the number of 128-byte blocks that scrypt mixes.
    Scrypt,
    /// The number of iterations of PBKDF2 with SHA-1.
    Sha1,
    /// The number of iterations of PBKDF2 with SHA-256.
    Sha256,
    /// The number of iterations of PBKDF2 with SHA-512.
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

    /// Returns the amount of one unit.
    pub(super) fn units(&self, kind: WorkUnit) -> u64 {
        self.0[kind as usize]
    }

    /// Raises each amount to at least the amount in `other`.
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

    /// Returns the work that is left after `done`.
    pub(super) fn less(&self, done: &Self) -> Self {
        let mut left = *self;
        for (units, done) in left.0.iter_mut().zip(done.0) {
            *units = units.saturating_sub(done);
        }
        left
    }
}
