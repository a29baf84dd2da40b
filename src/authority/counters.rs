//! What the authority counts: logins, refreshes, revocations, by how they ended.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts by a closed list of outcomes.
#[derive(Debug)]
pub struct ByOutcome<const N: usize> {
    names: [&'static str; N],
    counts: [AtomicU64; N],
}

impl<const N: usize> ByOutcome<N> {
    fn new(names: [&'static str; N]) -> Self {
        Self { names, counts: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// Counts one.
    pub fn add(&self, outcome: &'static str) {
        debug_assert!(self.names.contains(&outcome), "{outcome}");
        if let Some(position) = self.names.iter().position(|name| *name == outcome) {
            self.counts[position].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The outcomes and their counts.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.names.iter().zip(&self.counts).map(|(name, count)| (*name, count.load(Ordering::Relaxed)))
    }
}

/// All that the authority counts.
#[derive(Debug)]
pub struct Counters {
    /// Logins with a password.
    pub logins: ByOutcome<6>,
    /// Refresh tokens that were presented.
    pub refreshes: ByOutcome<7>,
    /// What was revoked.
    pub revocations: ByOutcome<6>,
    /// Access tokens that were made, by size of what a request with them carries.
    pub tokens: ByOutcome<3>,
    /// Tokens that left out roles because of `role_limit`.
    pub trimmed: ByOutcome<1>,
    /// Access tokens that services got for themselves.
    pub services: ByOutcome<2>,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            logins: ByOutcome::new(["ok", "bad_credentials", "disabled", "throttled", "busy", "invalid"]),
            refreshes: ByOutcome::new(["ok", "grace", "reuse", "expired", "ended", "disabled", "unknown"]),
            revocations: ByOutcome::new(["logout", "logout_all", "session", "token", "reuse", "feed"]),
            tokens: ByOutcome::new(["normal", "over_4KiB", "over_8KiB"]),
            trimmed: ByOutcome::new(["roles"]),
            services: ByOutcome::new(["ok", "refused"]),
        }
    }
}
