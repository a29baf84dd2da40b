//! What checking a hash costs, counted, so that a failed attempt can be made to cost the same for every account.
//!
//! Each kind of hash counts in its own unit, in which its time is linear. A failed attempt spends, of each kind that
//! any account has, as much as the dearest hash of that kind: what the account's own hash did not cost is spent on
//! nothing. However many different hashes an import brings, that is one of each kind.

/// A unit of work that is counted by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WorkUnit {
    /// KiB written.
    Argon2,
    /// Rounds of the key schedule.
    Bcrypt,
    /// Blocks of 128 bytes mixed.
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

/// An amount of work: units of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Work([u64; WORK_UNITS.len()]);

impl Work {
    pub(super) fn of(kind: WorkUnit, units: u64) -> Self {
        let mut work = Self::default();
        work.0[kind as usize] = units;
        work
    }

    /// Units of this kind.
    pub(super) fn units(&self, kind: WorkUnit) -> u64 {
        self.0[kind as usize]
    }

    /// Raises each kind to at least the units of the other.
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
