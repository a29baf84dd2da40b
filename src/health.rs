//! Tracks whether a server answers that the gateway depends on, for the log, the metrics and `/readyz?verbose`.
//!
//! The log has the first error of an outage and the recovery. The counters include every error.

use crate::journal::{Journal, Level};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The words for a server.
#[derive(Debug)]
pub(crate) struct Words {
    /// The server's key in the log.
    pub(crate) name: &'static str,
    /// The log event when the server fails.
    pub(crate) fails: &'static str,
    /// The log event when the server answers again.
    pub(crate) answers: &'static str,
    /// The reasons of failures, as labels of the metrics.
    pub(crate) reasons: &'static [&'static str],
}

/// Whether a server answers, and the counts of its failures.
#[derive(Debug)]
pub struct Health {
    words: &'static Words,
    failures: Box<[AtomicU64]>,
    lost: Mutex<Option<Lost>>,
}

/// The reason why the server does not answer, and since when.
#[derive(Clone, Debug)]
struct Lost {
    since: Instant,
    reason: &'static str,
    why: String,
}

impl Health {
    pub(crate) fn new(words: &'static Words) -> Self {
        let failures = words.reasons.iter().map(|_| AtomicU64::new(0)).collect();
        Self { words, failures, lost: Mutex::new(None) }
    }

    /// Counts a failure.
    pub(crate) fn count(&self, reason: &'static str) {
        if let Some(position) = self.words.reasons.iter().position(|known| *known == reason) {
            self.failures[position].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Logs a failure.
    pub(crate) fn log(&self, place: &str, reason: &'static str, why: &str, journal: &Journal) {
        let fields = [(self.words.name, place), ("reason", reason), ("error", why)];
        journal.event(Level::Error, self.words.fails, &fields);
    }

    /// Records that the server does not answer, and logs the beginning of an outage.
    pub(crate) fn lose(&self, place: &str, reason: &'static str, why: &str, journal: &Journal) {
        let mut lost = self.lost();
        if let Some(lost) = &mut *lost {
            (lost.reason, lost.why) = (reason, why.to_owned());
            return;
        }
        *lost = Some(Lost { since: Instant::now(), reason, why: why.to_owned() });
        drop(lost);
        self.log(place, reason, why, journal);
    }

    /// Records that the server answers, and logs the end of an outage.
    pub(crate) fn answered(&self, place: &str, journal: &Journal) {
        let Some(lost) = self.lost().take() else { return };
        let seconds = lost.since.elapsed().as_secs();
        let fields =
            [(self.words.name, place.into()), ("reason", lost.reason.into()), ("seconds", seconds.into())];
        journal.event_with(Level::Info, self.words.answers, &fields);
    }

    /// Whether the server answered when it was last used.
    pub(crate) fn is_up(&self) -> bool {
        self.lost().is_none()
    }

    /// Returns the reason of the outage, or `None` if the server answered when it was last used.
    pub(crate) fn lost_by(&self) -> Option<&'static str> {
        self.lost().as_ref().map(|lost| lost.reason)
    }

    /// Returns the number of failures for each reason.
    pub fn failures(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.failures.iter().map(|count| count.load(Ordering::Relaxed));
        self.words.reasons.iter().copied().zip(counts)
    }

    /// Returns a line for operators: the server, and whether it answers.
    pub(crate) fn line(&self, place: &str) -> String {
        let name = self.words.name;
        match &*self.lost() {
            None => format!("{name}: {place} answers\n"),
            Some(Lost { since, reason, why }) => {
                let seconds = since.elapsed().as_secs();
                // The text of the error may already begin with the server's name, and may contain line breaks.
                let why = why.strip_prefix(place).map_or(why.as_str(), |why| why.trim_start_matches(": "));
                let why = why.replace(['\n', '\r'], " ");
                format!("{name}: {place} has failed for {seconds} s ({reason}): {why}\n")
            }
        }
    }

    fn lost(&self) -> MutexGuard<'_, Option<Lost>> {
        // The value is consistent even if another thread panicked while it held the lock.
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
