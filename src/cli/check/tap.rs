//! Writes the report in the Test Anything Protocol, version 14: one line per test. YAML follows a failed test.

use super::{LOADS, Report};
use crate::diagnostic::Severity;
use crate::review::cases::{TestFailure, TestRun};
use serde_json::{Value, json};
use std::fmt::Write;

pub(super) fn write(report: &Report<'_>) -> String {
    let mut out = String::from("TAP version 14\n");
    // Loading the policy is the first test. A plan of zero tests would mean that all tests were skipped.
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

/// Describes a failed test in YAML: each difference, and then the explanation of the decision.
fn diagnostic(failure: &TestFailure) -> String {
    let mut yaml = key("message", &json!(failure.to_string()));
    yaml += &key("at", &json!(failure.place));
    yaml += "  differences:\n";
    for difference in &failure.differences {
        let _ = writeln!(yaml, "    - {}", written(&json!(difference)));
    }
    if let Some(explanation) = &failure.explanation {
        // Every line is printable and the first line is not indented, so a block scalar needs no escapes.
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

/// Writes a value as JSON, which is valid YAML. Characters that YAML does not allow (YAML 1.2.2, section 5.1) occur
/// only in strings. They are escaped as `\u` with four digits.
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

/// Escapes the description of a test: it must be one line, and an unescaped `#` would begin a directive.
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
    fn characters_outside_yaml_are_escaped() {
        let text = "a\u{7f}\u{85}\n\"\u{feff}é";
        let yaml = written(&json!(text));
        assert_eq!(yaml, "\"a\\u007f\\u0085\\n\\\"\\ufeffé\"");
        assert_eq!(serde_json::from_str::<String>(&yaml).unwrap(), text);
    }
}
