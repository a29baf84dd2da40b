//! What was found, by the Test Anything Protocol, version 14: one line a test, with YAML below those that fail.

use super::Report;
use crate::diagnostic::Severity;
use crate::explain::case::Tried;
use serde_json::json;
use std::fmt::Write;

pub(super) fn write(report: &Report<'_>) -> String {
    let mut out = String::from("TAP version 14\n");
    let count = report.found.len() + report.tests.len();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "1..{count}");
    let mut number = 0;
    let mut line = |out: &mut String, passed: bool, name: &str, details: Option<String>| {
        number += 1;
        let _ = writeln!(out, "{}ok {number} - {}", if passed { "" } else { "not " }, escaped(name));
        if let Some(details) = details {
            // JSON is YAML, and needs no rules of its own for what has to be quoted.
            let _ = writeln!(out, "  ---\n  {details}\n  ...");
        }
    };
    for found in &report.found {
        let passed = found.severity == Severity::Warning && !report.strict;
        line(&mut out, passed, &format!("{}: {found}", found.id), Some(json!(found).to_string()));
    }
    for Tried { case, failed } in &report.tests {
        let details = failed.as_ref().map(|failed| {
            json!({ "at": failed.place, "differences": failed.differences, "explanation": failed.explanation })
                .to_string()
        });
        line(&mut out, failed.is_none(), &case.name, details);
    }
    out.truncate(out.trim_end().len());
    out
}

/// A description: one line, in which a number sign would begin a directive.
fn escaped(name: &str) -> String {
    let one_line: String = name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    one_line.replace('\\', "\\\\").replace('#', "\\#")
}
