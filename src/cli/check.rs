//! `portcullis check`: loads the policy, reports all findings, and runs the policy's tests. If the policy does not
//! compile, the tests are not run.

mod junit;
mod tap;

use super::{OutputFormat, REFUSED, compiled, print_line};
use crate::clock::Now;
use crate::diagnostic::{Diagnostic, Severity};
use crate::keyring::MissingKey;
use crate::policy::{SortedFindings, WaivedFinding};
use crate::review::cases::{self, EXPLAINED_MAX, TestFailure, TestRun};
use crate::review::try_spellings;
use clap::Args;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

/// The name of the first test case in machine-readable reports.
const LOADS: &str = "the policy loads";

/// The arguments of `check`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Fail on any finding, not only on faults.
    #[arg(long)]
    strict: bool,
}

/// All findings about a policy.
#[derive(Debug)]
struct Report<'p> {
    path: &'p Path,
    strict: bool,
    /// The number of the policy's routes, and the number of the authority's endpoints. `None` if the policy does not
    /// compile.
    routes: Option<(usize, usize)>,
    /// Faults and warnings.
    found: Vec<Diagnostic>,
    /// Findings that the policy waives.
    waived: Vec<WaivedFinding>,
    tests: Vec<TestRun>,
    /// The shared state, and the behaviour of its uses while it does not answer.
    shared: Option<String>,
}

impl Report<'_> {
    fn count(&self, severity: Severity) -> usize {
        Diagnostic::count(&self.found, severity)
    }

    fn failed(&self) -> impl Iterator<Item = &TestFailure> {
        self.tests.iter().filter_map(|test| test.failed.as_ref())
    }

    /// Returns whether the policy passes.
    fn is_good(&self) -> bool {
        let warned = self.strict && !self.found.is_empty();
        self.routes.is_some() && self.count(Severity::Fault) == 0 && self.failed().next().is_none() && !warned
    }

    /// Returns the last line of the report: the verdict, and the counts of routes, tests and findings.
    fn verdict(&self) -> String {
        let counted =
            |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let verdict = if self.is_good() { "good" } else { "refused" };
        let mut parts = Vec::new();
        if let Some((own, endpoints)) = self.routes {
            let more = if endpoints > 0 { format!(" and {endpoints} of the gateway") } else { String::new() };
            parts.push(counted(own, "route") + &more);
        }
        if self.count(Severity::Fault) > 0 || self.routes.is_none() {
            parts.push(counted(self.count(Severity::Fault), "fault"));
        }
        parts.push(counted(self.count(Severity::Warning), "warning"));
        if !self.waived.is_empty() {
            parts.push(format!("{} waived", self.waived.len()));
        }
        if self.routes.is_some() {
            let (tests, failed) = (self.tests.len(), self.failed().count());
            parts.push(match (tests, failed) {
                (0, _) => counted(0, "test"),
                (_, 0) => format!("{}: {tests} passed", counted(tests, "test")),
                (_, _) => format!("{}: {} passed, {failed} failed", counted(tests, "test"), tests - failed),
            });
        }
        format!("{}: {verdict}: {}", self.path.display(), parts.join(", "))
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for found in Diagnostic::bounded(self.found.clone()) {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{found}");
        }
        for failure in self.failed() {
            let _ = write!(text, "{}", difference(failure));
        }
        if let Some(shared) = &self.shared {
            let _ = writeln!(text, "shared: {shared}");
        }
        text + &self.verdict()
    }

    fn json(&self) -> Value {
        let tests: Vec<_> = self
            .tests
            .iter()
            .map(|TestRun { case, failed }| {
                let mut reported =
                    json!({ "name": case.name, "place": case.place, "passed": failed.is_none() });
                if let Some(failed) = failed {
                    reported["differences"] = json!(failed.differences);
                    reported["explanation"] = json!(failed.explanation);
                }
                reported
            })
            .collect();
        json!({
            "ok": self.is_good(),
            "routes": self.routes.map(|(own, endpoints)| own + endpoints),
            "diagnostics": self.found,
            "waived": self.waived,
            "tests": tests,
            "shared": self.shared,
        })
    }
}

/// Describes a failed test: each difference, and then the explanation of the decision.
fn difference(failure: &TestFailure) -> String {
    let mut text = format!("{}: the test {:?} fails:\n", failure.place, failure.test);
    for difference in &failure.differences {
        let _ = writeln!(text, "  {}:", difference.what);
        let _ = writeln!(text, "    - {}", difference.expected);
        let _ = writeln!(text, "    + {}", difference.found);
    }
    if let Some(explanation) = &failure.explanation {
        for line in explanation.to_string().lines() {
            let _ = writeln!(text, "  | {line}");
        }
    }
    text
}

pub(super) fn run(path: &Path, format: OutputFormat, options: &Options) -> ExitCode {
    let strict = options.strict;
    let report = match compiled(path, MissingKey::Ephemeral) {
        Ok(compiled) => {
            let compiled = try_spellings(compiled, Severity::Fault);
            let tests = cases::run(&compiled.policy, compiled.cases, Now::read(), EXPLAINED_MAX);
            let own = compiled.policy.routes.iter().filter(|route| !route.handler.is_own()).count();
            let routes = Some((own, compiled.policy.routes.len() - own));
            let has_store = compiled.policy.issuer_settings.is_some();
            let shared = compiled.policy.shared_settings.as_ref().map(|settings| {
                format!("{}; without an answer: {}", settings.servers, settings.without_answer(has_store))
            });
            let sifted = compiled.waivers.sift(compiled.warnings);
            let unused = compiled.waivers.unused(&sifted);
            let SortedFindings { left: mut found, waived } = sifted;
            found.extend(unused);
            found.sort_by_key(Diagnostic::order);
            Report { path, strict, routes, found, waived, tests, shared }
        }
        Err(found) => {
            let (waived, tests) = (Vec::new(), Vec::new());
            Report { path, strict, routes: None, found, waived, tests, shared: None }
        }
    };
    match format {
        OutputFormat::Json => print_line(&format!("{:#}", report.json())),
        OutputFormat::Junit => print_line(&junit::write(&report)),
        OutputFormat::Tap => print_line(&tap::write(&report)),
        OutputFormat::Text | OutputFormat::Csv | OutputFormat::Markdown => print_line(&report.text()),
    }
    if report.is_good() { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) }
}
