//! The report in the Test Anything Protocol, version 14: one line per test, with YAML below those that fail.

use super::{LOADS, Report};
use crate::diagnostic::Severity;
use crate::review::cases::{TestFailure, TestRun};
use serde_json::{Value, json};
use std::fmt::Write;

pub(super) fn write(report: &Report<'_>) -> String {
    let mut out = String::from("TAP version 14\n");
    // The policy itself is the first test: a plan of zero tests would mean that all were skipped.
    let count = 1 + report.found.len() + report.tests.len();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "1..{count}");
    let mut number = 0;
    let mut line = |out: &mut String, passed: bool, name: &str, details: Option<String>| {
        number += 1;
        let _ = writeln!(out, "{}ok {number} - {}", if passed { "" } else { "not " }, escaped(name));
        if let Some(details) = details {
            let _ = writeln!(out, "  ---\n{details}  ...");
        }
    };
    line(&mut out, report.routes.is_some(), LOADS, None);
    for found in &report.found {
        let passed = found.severity == Severity::Warning && !report.strict;
        line(&mut out, passed, &format!("{}: {found}", found.id), Some(key("finding", &json!(found))));
    }
    for TestRun { case, failed } in &report.tests {
        let details = failed.as_ref().map(diagnostic);
        line(&mut out, failed.is_none(), &case.name, details);
    }
    out.truncate(out.trim_end().len());
    out
}

/// Describes a failed test: each difference, then the whole explanation.
fn diagnostic(failure: &TestFailure) -> String {
    let mut yaml = key("message", &json!(failure.to_string()));
    yaml += &key("at", &json!(failure.place));
    yaml += "  differences:\n";
    for difference in &failure.differences {
        let _ = writeln!(yaml, "    - {}", written(&json!(difference)));
    }
    if let Some(explanation) = &failure.explanation {
        // A block scalar may hold it unescaped: every line is printable, and the first is not indented.
        yaml += "  explanation: |\n";
        for line in explanation.to_string().lines() {
            let _ = writeln!(yaml, "    {line}");
        }
    }
    yaml
}

fn key(name: &str, value: &Value) -> String {
    format!("  {name}: {}\n", written(value))
}

/// Writes a value as JSON, which is YAML without its quoting rules. Characters that YAML does not allow unescaped (YAML
/// 1.2.2, section 5.1) occur only in strings, and are escaped by number.
fn written(value: &Value) -> String {
    let mut out = String::new();
    for c in value.to_string().chars() {
        match c {
            '\u{7f}'..='\u{9f}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// Escapes a test description, which is one line. A number sign in it would begin a directive.
fn escaped(name: &str) -> String {
    let one_line: String = name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    one_line.replace('\\', "\\\\").replace('#', "\\#")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_one_line_and_no_directive() {
        assert_eq!(escaped("a # SKIP \\ \n b"), "a \\# SKIP \\\\   b");
    }

    #[test]
    fn what_yaml_cannot_hold_is_written_by_its_number() {
        let text = "a\u{7f}\u{85}\n\"\u{feff}é";
        let yaml = written(&json!(text));
        assert_eq!(yaml, "\"a\\u007f\\u0085\\n\\\"\\ufeffé\"");
        assert_eq!(serde_json::from_str::<String>(&yaml).unwrap(), text);
    }
}
