//! Writes the report as JUnit XML, which continuous integration systems display.
//!
//! JUnit XML has no official schema. The report uses only elements that all readers support: suites, cases, and at most
//! one failure per case.

use super::{LOADS, Report, difference};
use crate::diagnostic::{Diagnostic, Place, Severity};
use crate::review::cases::TestRun;
use std::fmt::{self, Write};

pub(super) fn write(report: &Report<'_>) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing to a string cannot fail.
    let _ = write_to(report, &mut out);
    out
}

fn write_to(report: &Report<'_>, out: &mut String) -> fmt::Result {
    let policy = report.path.display().to_string();
    let is_failure = |found: &&Diagnostic| found.severity == Severity::Fault || report.strict;
    let (found, failed) = (report.found.len(), report.failed().count());
    let failures = report.found.iter().filter(is_failure).count();
    // Loading the policy is also a case, because some readers reject a report without cases.
    let (found, failures) = (found + 1, failures + usize::from(report.routes.is_none()));
    writeln!(
        out,
        "<testsuites name=\"{}\" tests=\"{}\" failures=\"{}\">",
        Escaped(&policy),
        found + report.tests.len(),
        failures + failed
    )?;
    writeln!(out, "  <testsuite name=\"findings\" tests=\"{found}\" failures=\"{failures}\">")?;
    case(out, LOADS, "findings", &Place::File(policy.clone()))?;
    match report.routes {
        Some(_) => writeln!(out, "/>")?,
        None => failure(out, "the policy does not load", &report.verdict())?,
    }
    for diagnostic in &report.found {
        let text = diagnostic.to_string();
        case(out, diagnostic.id, "findings", &diagnostic.place)?;
        match is_failure(&diagnostic) {
            true => failure(out, &diagnostic.found, &text)?,
            false => {
                writeln!(out, ">\n      <system-out>{}</system-out>\n    </testcase>", Escaped(&text))?;
            }
        }
    }
    writeln!(out, "  </testsuite>")?;
    writeln!(out, "  <testsuite name=\"tests\" tests=\"{}\" failures=\"{failed}\">", report.tests.len())?;
    for TestRun { case: tested, failed } in &report.tests {
        case(out, &tested.name, "tests", &tested.place)?;
        match failed {
            None => writeln!(out, "/>")?,
            Some(failed) => failure(out, &failed.to_string(), &difference(failed))?,
        }
    }
    write!(out, "  </testsuite>\n</testsuites>")
}

/// Writes the start tag of a case, without its closing bracket.
fn case(out: &mut String, name: &str, class: &str, place: &Place) -> fmt::Result {
    write!(out, "    <testcase name=\"{}\" classname=\"{class}\"", Escaped(name))?;
    match place {
        Place::Line { file, line, .. } => write!(out, " file=\"{}\" line=\"{line}\"", Escaped(file)),
        Place::File(file) => write!(out, " file=\"{}\"", Escaped(file)),
        Place::Environment(_) => Ok(()),
    }
}

fn failure(out: &mut String, message: &str, text: &str) -> fmt::Result {
    // Line breaks in the text of an element are not escaped, which keeps the file readable.
    let (message, text) = (Escaped(message), Escaped(text).to_string().replace("&#10;", "\n"));
    writeln!(out, ">\n      <failure message=\"{message}\">{text}</failure>\n    </testcase>")
}

/// Escapes text for an element or an attribute in XML 1.0. Characters that XML does not allow become U+FFFD.
struct Escaped<'t>(&'t str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                // An XML reader replaces an unescaped line break in an attribute with a space.
                '\n' => f.write_str("&#10;")?,
                '\t' => f.write_str("&#9;")?,
                c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => f.write_char('\u{fffd}')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_is_markup_or_what_xml_cannot_hold(text in "\\PC{0,20}[\\x00-\\x7f\u{fffe}<>&\"]{0,20}") {
            let escaped = Escaped(&text).to_string();
            let is_right = |c: char| !matches!(c, '<' | '>' | '"' | '\u{fffe}' | '\u{ffff}') && !c.is_control();
            prop_assert!(escaped.chars().all(is_right), "{escaped:?}");
            let back = escaped.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
            let back = back.replace("&#10;", "\n").replace("&#9;", "\t").replace("&amp;", "&");
            let kept = |c: char| if c.is_control() && c != '\n' && c != '\t' || c == '\u{fffe}' { '\u{fffd}' } else { c };
            prop_assert_eq!(back, text.chars().map(kept).collect::<String>());
        }
    }
}
