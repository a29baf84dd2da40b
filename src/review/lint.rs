//! Lints a compiled policy: reports settings that an experienced reviewer would question.
//!
//! Each kind of finding has an id. A policy file can waive a finding with a reason.

mod exposure;
mod names;
mod routes;
mod settings;
mod tokens;

use crate::config::Loaded;
use crate::config::file::File;
use crate::diagnostic::Diagnostic;
use crate::policy::{Case, Compiled, Faults, Policy, ServerSettings};

/// A policy to lint, and its file.
struct Subject<'s> {
    file: &'s File,
    policy: &'s Policy,
    settings: &'s ServerSettings,
    cases: &'s [Case],
}

/// Lints a compiled policy. Adds the findings to the warnings, in the order of the file.
#[must_use]
pub fn lint(loaded: &Loaded, mut compiled: Compiled) -> Compiled {
    let mut faults = Faults::of(loaded);
    let Compiled { policy, settings, cases, .. } = &compiled;
    let subject = Subject { file: &loaded.file, policy, settings, cases };
    exposure::lint(&subject, &mut faults);
    tokens::lint(&subject, &mut faults);
    routes::lint(&subject, &mut faults);
    names::lint(&subject, &mut faults);
    settings::lint(&subject, &mut faults);
    compiled.warnings.extend(faults.into_diagnostics());
    compiled.warnings.sort_by_key(Diagnostic::order);
    compiled
}

#[cfg(test)]
mod tests;
