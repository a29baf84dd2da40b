//! `portcullis check`: load the policy, report every fault.

use super::{Format, REFUSED, compiled, say};
use crate::authority::Absent;
use crate::diagnostic::{Diagnostic, Severity};
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;

pub(super) fn run(path: &Path, format: Format) -> ExitCode {
    let (found, routes) = match compiled(path, Absent::Pretend) {
        Ok(compiled) => (compiled.warnings, Some(compiled.policy.routes.len())),
        Err(faults) => (faults, None),
    };
    let count = |severity| Diagnostic::count(&found, severity);
    let (faults, warnings) = (count(Severity::Fault), count(Severity::Warning));
    match format {
        Format::Json => {
            let report = json!({ "ok": routes.is_some(), "routes": routes, "diagnostics": found });
            say(&format!("{report:#}"));
        }
        Format::Text => {
            for diagnostic in &found {
                say(&diagnostic.to_string());
            }
            let counted =
                |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
            let verdict = match routes {
                Some(routes) => format!(
                    "{}: good: {}, {}",
                    path.display(),
                    counted(routes, "route"),
                    counted(warnings, "warning")
                ),
                None => format!(
                    "{}: refused: {}, {}",
                    path.display(),
                    counted(faults, "fault"),
                    counted(warnings, "warning")
                ),
            };
            say(&verdict);
        }
    }
    if routes.is_some() { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) }
}
