//! Collects findings, each with the place of its key in the file.

use super::findings::{Kind, kind};
use crate::config::Loaded;
use crate::config::place::nearest;
use crate::config::secret::Secret;
use crate::diagnostic::{Diagnostic, REPORTED_MAX, Severity};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Maximum number of defined names in the hint for an unknown name.
const NAMES_MAX: usize = 20;

/// A collector of faults and warnings.
pub(crate) struct Faults<'l> {
    pub(crate) loaded: &'l Loaded,
    pub(crate) found: Vec<Diagnostic>,
    /// The number of faults, including those that are not in `found`. Only the first `REPORTED_MAX` faults are kept,
    /// because finding the place of a fault is slow.
    pub(crate) fault_count: usize,
    /// The files that the policy reads.
    files: BTreeSet<PathBuf>,
    /// All files and folders that the policy names, which no route may serve.
    named: BTreeSet<PathBuf>,
}

impl<'l> Faults<'l> {
    /// Creates a collector without findings.
    pub(crate) const fn of(loaded: &'l Loaded) -> Self {
        Self { loaded, found: Vec::new(), fault_count: 0, files: BTreeSet::new(), named: BTreeSet::new() }
    }

    /// Resolves the path of a file that the policy reads, relative to the folder of the policy file. With
    /// `reload = "watch"`, a change of the file reloads the policy.
    pub(crate) fn file(&mut self, text: &str) -> PathBuf {
        let path = self.unwatched_path(text);
        self.files.insert(path.clone());
        path
    }

    /// Reads a secret. If it is in a file, this is a file that the policy reads.
    ///
    /// # Errors
    /// Returns a message that names the reference and never contains the secret.
    pub(crate) fn secret(&mut self, secret: &Secret) -> Result<Vec<u8>, String> {
        if let Secret::File(path) = secret {
            self.file(path);
        }
        secret.resolve(&self.loaded.base)
    }

    /// Returns the files that the policy read so far.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        self.files.iter().cloned().collect()
    }

    pub(crate) fn fault(
        &mut self,
        id: &'static str,
        key: &str,
        found: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add(Severity::Fault, id, key, found.into(), hint.into(), None);
    }

    pub(crate) fn warn(
        &mut self,
        id: &'static str,
        key: &str,
        found: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add(Severity::Warning, id, key, found.into(), hint.into(), None);
    }

    /// Reports a reference to an undefined name. `what` is the kind of the name, such as "upstream".
    pub(crate) fn undefined<'n>(
        &mut self,
        key: &str,
        what: &str,
        name: &str,
        defined: impl Iterator<Item = &'n str>,
    ) {
        // Finding the nearest name requires a pass over all names, so the hint is computed only if the fault is kept.
        let hint = if self.is_full() { String::new() } else { defined_names(name, defined) };
        let found = format!("no {what} named \"{name}\"");
        self.add(Severity::Fault, "unknown_name", key, found, hint, Some(name.to_owned()));
    }

    fn add(
        &mut self,
        severity: Severity,
        id: &'static str,
        key: &str,
        found: String,
        hint: String,
        refers_to: Option<String>,
    ) {
        let is_fault = severity == Severity::Fault;
        debug_assert_eq!(kind(id).map(|kind| kind == Kind::Fault), Some(is_fault), "{id} in findings");
        self.fault_count += usize::from(is_fault);
        // All warnings are kept, because the file may waive any of them.
        if severity == Severity::Warning || self.fault_count <= REPORTED_MAX {
            let place = self.loaded.places.of(key);
            self.found.push(Diagnostic { severity, id, place, key: key.to_owned(), found, hint, refers_to });
        }
    }

    /// Resolves a path whose changes do not reload the policy: the gateway writes it, or watches it by other means.
    pub(crate) fn unwatched_path(&mut self, text: &str) -> PathBuf {
        let path = self.loaded.base.join(text);
        if !text.is_empty() {
            self.named.insert(path.clone());
        }
        path
    }

    /// Returns all files and folders that the policy named so far.
    pub(crate) fn named(&self) -> impl Iterator<Item = &Path> {
        self.named.iter().map(PathBuf::as_path)
    }

    /// Returns the state folder.
    pub(crate) fn state_dir(&mut self) -> PathBuf {
        self.unwatched_path(&self.loaded.file.state.dir)
    }

    /// Returns the place of another key, for the message of a fault.
    pub(crate) fn place_of(&self, key: &str) -> String {
        // Finding a place is slow.
        if self.is_full() { String::new() } else { self.loaded.places.of(key).to_string() }
    }

    /// Whether further faults are only counted.
    const fn is_full(&self) -> bool {
        self.fault_count >= REPORTED_MAX
    }

    /// Returns the findings in the order of the file. If there are faults, returns at most [`REPORTED_MAX`] faults,
    /// [`REPORTED_MAX`] warnings of each kind, and the number of omitted findings.
    pub(crate) fn into_diagnostics(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(Diagnostic::order);
        if self.fault_count == 0 {
            return self.found;
        }
        let mut diagnostics = Diagnostic::bounded(self.found);
        if let Some(more @ 1..) = self.fault_count.checked_sub(REPORTED_MAX) {
            let found = format!("{more} more fault{}", if more == 1 { "" } else { "s" });
            diagnostics.push(Diagnostic::more(Severity::Fault, self.loaded.places.whole(), found));
        }
        diagnostics
    }
}

/// Returns the nearest name and the defined names.
fn defined_names<'n>(name: &str, defined: impl Iterator<Item = &'n str>) -> String {
    let defined: Vec<&str> = defined.collect();
    if defined.is_empty() {
        return "none is defined".to_owned();
    }
    let mut hint =
        nearest(name, &defined).map(|near| format!("the nearest is \"{near}\"; ")).unwrap_or_default();
    hint.push_str("defined: ");
    hint.push_str(&defined[..defined.len().min(NAMES_MAX)].join(", "));
    if defined.len() > NAMES_MAX {
        hint.push_str(&format!(" and {} more", defined.len() - NAMES_MAX));
    }
    hint
}
