//! Records the errors of the store.

use super::runtime::Authority;
use crate::health::Words;
use crate::store::{Reason, StoreError};

/// The words for the store.
pub(super) static WORDS: Words = Words {
    name: "store",
    fails: "the store cannot be used",
    answers: "the store answers again",
    reasons: &StoreError::REASONS,
};

impl Authority {
    /// Counts an error of the store, and logs it unless it is part of an outage that is already in the log.
    pub(super) fn store_failed(&self, error: &StoreError) {
        if let StoreError::Unavailable(_) = error {
            return self.feed_failed(error);
        }
        let reason = error.reason();
        self.health.count(reason);
        // The error concerns a single row or value, so the store is not lost. If the store is already lost for the same
        // reason, do not log the error again: the upkeep task would log it every second.
        if self.health.lost_by() != Some(reason) {
            self.health.log(self.store.place(), reason, &error.to_string(), &self.journal);
        }
    }

    /// Counts an error of the task that reads marks. Any such error marks the store as lost, because the gateway then
    /// refuses the authority's tokens.
    pub(super) fn feed_failed(&self, error: &StoreError) {
        let reason = error.reason();
        self.health.count(reason);
        // "No free connection" is only a consequence of the earlier reason.
        if reason != Reason::NoConnection.as_str() || self.health.is_up() {
            self.health.lose(self.store.place(), reason, &error.to_string(), &self.journal);
        }
    }
}
