//! Tracks whether Redis answers, for the log, the metrics and `/readyz?verbose`.
//!
//! The log has the first error of an outage and the recovery. The counters include every error.

use crate::journal::{Journal, Level};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The reasons of failures, as labels of the metrics.
pub(super) const REASONS: [&str; 8] = ["connect", "tls", "login", "late", "lost", "refused", "busy", "down"];

/// Whether Redis answers, and the counts of its failures.
#[derive(Debug, Default)]
pub struct LinkHealth {
    failures: [AtomicU64; REASONS.len()],
    opened: AtomicU64,
    lost: Mutex<Option<Lost>>,
}

/// Why Redis does not answer, and since when.
#[derive(Clone, Debug)]
struct Lost {
    since: Instant,
    reason: &'static str,
    why: String,
}

impl LinkHealth {
    /// Counts a failure that leaves the connection in use.
    pub(super) fn count(&self, reason: &'static str) {
        if let Some(position) = REASONS.iter().position(|known| *known == reason) {
            self.failures[position].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records that there is no connection.
    pub(super) fn lose(&self, place: &str, reason: &'static str, why: &str, journal: &Journal) {
        let mut lost = self.lost();
        if let Some(lost) = &mut *lost {
            (lost.reason, lost.why) = (reason, why.to_owned());
            return;
        }
        *lost = Some(Lost { since: Instant::now(), reason, why: why.to_owned() });
        drop(lost);
        let fields = [("shared", place), ("reason", reason), ("error", why)];
        journal.event(Level::Error, "the shared state cannot be used", &fields);
    }

    /// Records that a new connection answers.
    pub(super) fn opened(&self, place: &str, journal: &Journal) {
        self.opened.fetch_add(1, Ordering::Relaxed);
        let Some(lost) = self.lost().take() else { return };
        let seconds = lost.since.elapsed().as_secs();
        let fields = [("shared", place.into()), ("reason", lost.reason.into()), ("seconds", seconds.into())];
        journal.event_with(Level::Info, "the shared state answers again", &fields);
    }

    /// Returns the number of failures for each reason.
    pub fn failures(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REASONS.into_iter().zip(self.failures.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// Returns the number of connections that were opened.
    pub fn connections(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Returns a line for operators: the servers, and whether they answer.
    pub fn line(&self, place: &str) -> String {
        match &*self.lost() {
            None => format!("shared: {place} answers\n"),
            Some(Lost { since, reason, why }) => {
                let (seconds, why) = (since.elapsed().as_secs(), why.replace(['\n', '\r'], " "));
                format!("shared: {place} has failed for {seconds} s ({reason}): {why}\n")
            }
        }
    }

    fn lost(&self) -> MutexGuard<'_, Option<Lost>> {
        // The value is consistent even if another thread panicked while it held the lock.
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
