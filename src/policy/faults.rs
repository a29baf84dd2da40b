//! Collects the findings of a compilation or a review, each with the place of its key in the file.

use super::findings::{Kind, kind};
use crate::config::Loaded;
use crate::diagnostic::{Diagnostic, REPORTED_MAX, Severity};
use std::path::PathBuf;

/// Gathers faults and warnings as the parts of a file are compiled.
pub(crate) struct Faults<'l> {
    pub(crate) loaded: &'l Loaded,
    pub(crate) found: Vec<Diagnostic>,
    /// How many faults there are: not all of them are kept, since each takes time to find the place of.
    pub(crate) faults: usize,
}

impl<'l> Faults<'l> {
    /// Nothing was found yet in this file.
    pub(crate) const fn of(loaded: &'l Loaded) -> Self {
        Self { loaded, found: Vec::new(), faults: 0 }
    }

    pub(crate) fn fault(
        &mut self,
        id: &'static str,
        key: &str,
        found: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add(Severity::Fault, id, key, found.into(), hint.into());
    }

    pub(crate) fn warn(
        &mut self,
        id: &'static str,
        key: &str,
        found: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add(Severity::Warning, id, key, found.into(), hint.into());
    }

    fn add(&mut self, severity: Severity, id: &'static str, key: &str, found: String, hint: String) {
        let is_fault = severity == Severity::Fault;
        debug_assert_eq!(kind(id).map(|kind| kind == Kind::Fault), Some(is_fault), "{id} in findings");
        self.faults += usize::from(is_fault);
        // Of warnings none is left out here: the file may accept the first hundred.
        if severity == Severity::Warning || self.faults <= REPORTED_MAX {
            let place = self.loaded.places.of(key);
            self.found.push(Diagnostic { severity, id, place, key: key.to_owned(), found, hint });
        }
    }

    /// A file that the policy names, relative to the policy's own folder.
    pub(crate) fn path(&self, text: &str) -> PathBuf {
        self.loaded.base.join(text)
    }

    /// Whether another fault would not be told: then nobody need find out what would be right.
    pub(crate) const fn is_full(&self) -> bool {
        self.faults >= REPORTED_MAX
    }

    /// What was found, in the order in which it stands in the file.
    pub(crate) fn told(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(Diagnostic::order);
        if self.faults == 0 {
            return self.found;
        }
        let mut told = Diagnostic::bounded(self.found);
        if let Some(more @ 1..) = self.faults.checked_sub(REPORTED_MAX) {
            let found = format!("{more} more fault{}", if more == 1 { "" } else { "s" });
            told.push(Diagnostic::more(Severity::Fault, self.loaded.places.whole(), found));
        }
        told
    }
}
