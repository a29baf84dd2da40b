//! Tracks whether the store answers, for the log, the metrics and `/readyz?verbose`.
//!
//! The log reports only the first error of an outage and the recovery. The counters include every error.

use crate::journal::{Journal, Level};
use crate::store::{Reason, StoreError};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Whether the store answers, and the count of its failures.
#[derive(Debug)]
pub struct StoreHealth {
    place: String,
    failures: [AtomicU64; StoreError::REASONS.len()],
    lost: Mutex<Option<Lost>>,
}

/// Why the store does not answer, and since when.
#[derive(Clone, Debug)]
struct Lost {
    since: Instant,
    reason: &'static str,
    why: String,
}

impl StoreHealth {
    pub(super) fn new(place: &str) -> Self {
        Self {
            place: place.to_owned(),
            failures: std::array::from_fn(|_| AtomicU64::new(0)),
            lost: Mutex::new(None),
        }
    }

    /// Counts an error, and logs it unless it is part of an outage that is already in the log.
    pub(super) fn failed(&self, error: &StoreError, journal: &Journal) {
        self.count(error);
        if let StoreError::Unavailable(_) = error {
            return self.lose(error, journal);
        }
        // The error concerns a single row or value, so the store is not lost. If the store is already lost for the same
        // reason, do not log the error again: the upkeep task would log it every second.
        let reason = error.reason();
        if self.lost().as_ref().is_none_or(|lost| lost.reason != reason) {
            self.log(journal, Level::Error, "the store cannot be used", reason, &error.to_string());
        }
    }

    /// Counts an error of the task that reads marks. Any such error marks the store as lost, because the gateway then
    /// refuses the authority's tokens.
    pub(super) fn feed_failed(&self, error: &StoreError, journal: &Journal) {
        self.count(error);
        self.lose(error, journal);
    }

    fn count(&self, error: &StoreError) {
        let reason = error.reason();
        if let Some(position) = StoreError::REASONS.iter().position(|known| *known == reason) {
            self.failures[position].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn lose(&self, error: &StoreError, journal: &Journal) {
        let (reason, why) = (error.reason(), error.to_string());
        let mut lost = self.lost();
        match &mut *lost {
            None => {
                *lost = Some(Lost { since: Instant::now(), reason, why: why.clone() });
                drop(lost);
                self.log(journal, Level::Error, "the store cannot be used", reason, &why);
            }
            // "No free connection" is only a consequence of the earlier reason.
            Some(_) if reason == Reason::NoConnection.as_str() => {}
            Some(lost) => (lost.reason, lost.why) = (reason, why),
        }
    }

    /// Records that the store has just completed a read and a write.
    pub(super) fn answered(&self, journal: &Journal) {
        let Some(lost) = self.lost().take() else { return };
        let seconds = lost.since.elapsed().as_secs();
        let fields =
            [("store", (&self.place).into()), ("reason", lost.reason.into()), ("seconds", seconds.into())];
        journal.event_with(Level::Info, "the store answers again", &fields);
    }

    fn log(&self, journal: &Journal, level: Level, event: &'static str, reason: &str, why: &str) {
        journal.event(level, event, &[("store", &self.place), ("reason", reason), ("error", why)]);
    }

    /// Whether the store answered when it was last used.
    pub fn is_up(&self) -> bool {
        self.lost().is_none()
    }

    /// Returns the number of errors for each reason.
    pub fn failures(&self) -> impl Iterator<Item = (&'static str, u64)> {
        StoreError::REASONS.into_iter().zip(self.failures.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// Returns a line for operators: the store's name, and whether it answers.
    pub fn line(&self) -> String {
        let place = &self.place;
        match &*self.lost() {
            None => format!("store: {place} answers\n"),
            Some(Lost { since, reason, why }) => {
                let seconds = since.elapsed().as_secs();
                // The error text may already begin with the store's name, and may contain line breaks.
                let why =
                    why.strip_prefix(place.as_str()).map_or(why.as_str(), |why| why.trim_start_matches(": "));
                let why = why.replace(['\n', '\r'], " ");
                format!("store: {place} has failed for {seconds} s ({reason}): {why}\n")
            }
        }
    }

    fn lost(&self) -> MutexGuard<'_, Option<Lost>> {
        // The value is consistent even if another thread panicked while it held the lock.
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
