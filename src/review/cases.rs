//! Runs the tests of a policy file.
//!
//! Tests ignore shadow mode, because they describe the intended policy. Thousands of tests run in a second, so the
//! gateway runs all of them before it serves requests.

use crate::clock::Now;
use crate::config::is_secret_field;
use crate::diagnostic::{Diagnostic, Place, Severity};
use crate::explain::text::Line;
use crate::explain::{Examiner, Explanation, NOT_SHOWN, Outcome, Responder, UpstreamRequest, Verdict};
use crate::forward::edits::AnswerFields;
use crate::policy::{Case, Expectation, ExpectedVerdict, Policy, Route};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use std::fmt::{self, Display};

/// A difference between the expected and the actual result of a test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Discrepancy {
    /// The property that differs: a key of `expect`, `verdict`, `header x-auth-subject` or `response header server`.
    pub what: String,
    /// The expected value.
    pub expected: String,
    /// The actual value.
    pub found: String,
}

/// A failed test.
#[derive(Clone, Debug, Serialize)]
pub struct TestFailure {
    /// The name of the test.
    pub test: String,
    /// The place of the test in the policy file.
    pub place: Place,
    /// The differences. Never empty.
    pub differences: Vec<Discrepancy>,
    /// The reason for a rejection. `None` if the verdict is as expected.
    pub reason: Option<String>,
    /// The full explanation. `None` except for the first failed tests.
    pub explanation: Option<Box<Explanation>>,
}

impl fmt::Display for TestFailure {
    /// Formats the differences on one line: `route: expected "orders", found "open"; ...`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, Discrepancy { what, expected, found }) in self.differences.iter().enumerate() {
            let separator = if position == 0 { "" } else { "; " };
            write!(f, "{separator}{what}: expected {expected}, found {found}")?;
            if let ("verdict", Some(reason)) = (&**what, &self.reason) {
                write!(f, " ({})", Line(reason))?;
            }
        }
        Ok(())
    }
}

/// The maximum number of failed tests to explain. Each explanation examines all routes.
pub const EXPLAINED_MAX: usize = 20;

/// The result of a test.
#[derive(Debug)]
pub struct TestRun {
    /// The test.
    pub case: Case,
    /// The failure. `None` if the test passed.
    pub failed: Option<TestFailure>,
}

/// Runs all tests and returns the results in order. Explains the first `explained_max` failures.
pub fn run(policy: &Policy, cases: Vec<Case>, now: Now, explained_max: usize) -> Vec<TestRun> {
    let examiner = Examiner::new(policy);
    let mut explained = 0;
    let mut run = |case: &Case| {
        let mut failure = TestFailure::of(case, &examiner, now)?;
        if explained < explained_max {
            explained += 1;
            failure.explanation = Some(Box::new(examiner.explain(&case.question_at(now))));
        }
        Some(failure)
    };
    cases.into_iter().map(|case| TestRun { failed: run(&case), case }).collect()
}

/// The maximum number of failed tests that have their own finding.
const REPORTED_MAX: usize = 20;

/// Runs the tests and returns a finding for each failure. After `REPORTED_MAX` failures, the last finding states how
/// many were omitted.
pub fn failures(policy: &Policy, cases: &[Case], severity: Severity, now: Now) -> Vec<Diagnostic> {
    let hint = "correct the policy or the test; `portcullis check` explains the difference";
    let examiner = Examiner::new(policy);
    let mut failed = cases.iter().filter_map(|case| Some((case, TestFailure::of(case, &examiner, now)?)));
    let diagnostic = |(case, failure): (&Case, TestFailure)| Diagnostic {
        severity,
        id: "failed_test",
        found: format!("the test \"{}\" fails: {failure}", failure.test),
        place: failure.place,
        key: case.key.clone(),
        hint: hint.to_owned(),
        refers_to: None,
    };
    let mut reported: Vec<_> = failed.by_ref().take(REPORTED_MAX).map(diagnostic).collect();
    let more = failed.count();
    if let (1.., Some(Diagnostic { place: Place::Line { file, .. }, .. })) = (more, reported.last()) {
        let found = format!("{more} more failed test{}", plural(more));
        reported.push(Diagnostic::more(severity, Place::File(file.clone()), found));
    }
    reported
}

const fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

impl TestFailure {
    /// Runs a test. Returns `None` if the test passes. The failure has no explanation.
    pub fn of(case: &Case, examiner: &Examiner<'_>, now: Now) -> Option<Self> {
        let Case { expected, .. } = case;
        let question = case.question_at(now);
        // Building the upstream request is slow, so it is built only if the test has an expectation about it.
        let (verdict, outgoing) = if expected.is_of_allowed() {
            examiner.verdict_and_request(&question)
        } else {
            (examiner.verdict(&question), None)
        };
        let route = verdict.route.and_then(|route| examiner.policy().routes.get(route));
        let mut differences = differences_of_verdict(expected, &verdict, route);
        if let Some(wanted) = expected.client_certificate {
            differ(&mut differences, "client_certificate", wanted, examiner.client_certificate(&question));
        }
        let cross_origin = || examiner.cross_origin(&question, &verdict);
        if let Some(wanted) = expected.cors {
            let found = match cross_origin().map(|found| found.is_allowed) {
                Some(Some(is_allowed)) => is_allowed.to_string(),
                Some(None) => "none: the upstream decides".to_owned(),
                None => "none: the request has no single origin".to_owned(),
            };
            differ(&mut differences, "cors", wanted.to_string(), found);
        }
        if let Some(wanted) = &expected.rate_limits {
            // A preflight is answered before any limit. A refused request has no caller to charge.
            let charged = route.filter(|_| !cross_origin().is_some_and(|found| found.is_preflight));
            let by_address = charged.map_or(&[][..], |route| &route.limits.by_address);
            let by_caller =
                charged.filter(|_| verdict.reaches()).map_or(&[][..], |route| &route.limits.by_caller);
            let found = by_address.iter().chain(by_caller).map(|limit| limit.name().to_string()).collect();
            differ(&mut differences, "rate_limits", names(wanted.clone()), names(found));
        }
        if let Some(wanted) = expected.maintenance {
            let is_refusing = route.is_some_and(|route| route.maintenance.is_some());
            differ(&mut differences, "maintenance", wanted, is_refusing);
        }
        // If the request is rejected, the upstream receives nothing. The verdict is then already reported as different.
        if let (true, Some(outgoing)) = (verdict.outcome.passes(), &outgoing) {
            differences.extend(differences_upstream(expected, outgoing));
            let changes = route.and_then(Route::answer_fields);
            differences.extend(differences_of_answer(&expected.response_headers, changes));
        }
        let is_verdict = differences.iter().any(|difference| difference.what == "verdict");
        let reason = if is_verdict { examiner.reason(&question) } else { None };
        let (test, place) = (case.name.clone(), case.place.clone());
        (!differences.is_empty()).then_some(Self { test, place, differences, reason, explanation: None })
    }
}

/// Returns names in the order of the alphabet.
fn names(mut names: Vec<String>) -> String {
    names.sort();
    names.dedup();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn differ<T: Display + PartialEq>(differences: &mut Vec<Discrepancy>, what: &str, expected: T, found: T) {
    if expected != found {
        let (expected, found) = (expected.to_string(), found.to_string());
        differences.push(Discrepancy { what: what.to_owned(), expected, found });
    }
}

fn differences_of_verdict(test: &Expectation, verdict: &Verdict, route: Option<&Route>) -> Vec<Discrepancy> {
    let mut differences = Vec::new();
    let of_route = route.and_then(|route| route.handler.redirect_status()).map(|status| status.as_u16());
    let route = route.map(|route| &*route.name);
    let mut differs = |what: &str, expected: String, found: String| {
        differences.push(Discrepancy { what: what.to_owned(), expected, found });
    };
    // An expectation about the handling of an allowed request implies that it is allowed.
    let wanted = test.verdict.or_else(|| test.is_of_allowed().then_some(ExpectedVerdict::Allow));
    let is_right = match (wanted, &verdict.outcome) {
        (None, _) => true,
        (Some(ExpectedVerdict::Allow), outcome) => outcome.passes(),
        (Some(ExpectedVerdict::Deny), outcome) => matches!(outcome, Outcome::Refused(_)),
        (Some(ExpectedVerdict::DenyWith(code)), outcome) => {
            matches!(outcome, Outcome::Refused(denial) if denial.code() == code)
        }
    };
    if let (false, Some(wanted)) = (is_right, wanted) {
        differs("verdict", wanted.to_string(), describe_verdict(verdict));
    }
    let status = match &verdict.outcome {
        Outcome::Passed => of_route,
        Outcome::Redirected => Some(StatusCode::PERMANENT_REDIRECT.as_u16()),
        Outcome::Refused(denial) => Some(denial.status().as_u16()),
    };
    if test.status.is_some() && test.status != status {
        let shown = |status: Option<u16>| {
            status.map_or_else(|| "the upstream's".to_owned(), |status| status.to_string())
        };
        differs("status", shown(test.status), shown(status));
    }
    if test.route.is_some() && test.route.as_deref() != route {
        let shown =
            |route: Option<&str>| route.map_or_else(|| "none".to_owned(), |route| format!("{route:?}"));
        differs("route", shown(test.route.as_deref()), shown(route));
    }
    differences
}

fn differences_upstream(test: &Expectation, outgoing: &UpstreamRequest) -> Vec<Discrepancy> {
    let mut differences = Vec::new();
    if let Some(upstream) = test.upstream.as_ref().filter(|upstream| **upstream != outgoing.upstream) {
        let (expected, found) = (format!("{upstream:?}"), format!("{:?}", outgoing.upstream));
        differences.push(Discrepancy { what: "upstream".to_owned(), expected, found });
    }
    if let Some(path) = test.path.as_ref().filter(|path| **path != outgoing.path) {
        let (expected, found) = (format!("{path:?}"), format!("{:?}", outgoing.path));
        differences.push(Discrepancy { what: "path".to_owned(), expected, found });
    }
    let quoted = |text: &str| if text.is_empty() { "none".to_owned() } else { format!("{text:?}") };
    for (what, wanted, found) in
        [("mirror", &test.mirror, &outgoing.mirror), ("compress", &test.compress, &outgoing.compress)]
    {
        if let Some(wanted) = wanted {
            differ(&mut differences, what, quoted(wanted), quoted(found.as_deref().unwrap_or_default()));
        }
    }
    if let Some(wanted) = test.streams {
        let found = outgoing
            .streams
            .as_deref()
            .unwrap_or("none: the request has no token, or its route has no streams");
        differ(&mut differences, "streams", wanted, found);
    }
    if let Some(wanted) = &test.server {
        let found = match &outgoing.server {
            Some(server) => quoted(server),
            None if outgoing.servers.is_empty() => "none".to_owned(),
            None => format!("any of {}", outgoing.servers.join(", ")),
        };
        differ(&mut differences, "server", quoted(wanted), found);
    }
    let without = "none: no upstream gets the request";
    for (what, wanted, found) in
        [("timeout", &test.timeout, &outgoing.timeout), ("silence", &test.silence, &outgoing.silence)]
    {
        if let Some(wanted) = wanted {
            differ(&mut differences, what, wanted.as_str(), found.as_deref().unwrap_or(without));
        }
    }
    if let Some(wanted) = test.retry {
        let found = outgoing.is_repeatable.map_or_else(|| without.to_owned(), |found| found.to_string());
        differ(&mut differences, "retry", wanted.to_string(), found);
    }
    if let Some(wanted) = &test.trailers {
        differ(&mut differences, "trailers", names(wanted.clone()), names(outgoing.trailers.clone()));
    }
    if let Some(wanted) = test.upstream_tls {
        let is_tls = |server: &String| server.starts_with("https://");
        let found = outgoing.responder == Responder::Upstream && outgoing.servers.iter().all(is_tls);
        differ(&mut differences, "upstream_tls", wanted, found);
    }
    if let Some(wanted) = &test.redirect {
        let is_redirect = outgoing.responder == Responder::Redirect;
        let found = Some(&outgoing.path).filter(|_| is_redirect);
        differ(&mut differences, "redirect", quoted(wanted), quoted(found.map_or("", String::as_str)));
    }
    for (name, wanted) in &test.headers {
        let hidden = outgoing.hidden.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let value = |value| match hidden {
            Some(hidden) if value == NOT_SHOWN => hidden,
            Some(_) | None => value,
        };
        let sent = outgoing.headers.iter().filter(|(known, _)| known == name);
        let sent: Vec<&str> = sent.map(|(_, sent)| value(sent.as_str())).collect();
        differences.extend(difference_of_field(format!("header {name}"), wanted, &sent, hidden.is_some()));
    }
    differences
}

/// Compares the values of a field. An empty value is expected to be absent. Several lines of a field are one list (RFC
/// 9110 section 5.3). The report of a secret has no values.
fn difference_of_field(what: String, wanted: &str, sent: &[&str], is_secret: bool) -> Option<Discrepancy> {
    let is_right = if wanted.is_empty() { sent.is_empty() } else { sent.join(", ") == wanted };
    if is_right {
        return None;
    }
    let quoted = |value: &&str| format!("{value:?}");
    let expected = match wanted {
        "" => "absent".to_owned(),
        _ if is_secret => "a value that is not shown".to_owned(),
        wanted => quoted(&wanted),
    };
    let found = match sent {
        [] => "absent".to_owned(),
        _ if is_secret => "another value that is not shown".to_owned(),
        sent => sent.iter().map(quoted).collect::<Vec<_>>().join(" and "),
    };
    Some(Discrepancy { what, expected, found })
}

/// The value of a field that the upstream sends.
const OF_UPSTREAM: &str = "<the upstream's>";

/// Compares the fields of an answer. A value is compared with an answer to which the upstream adds no such field. An
/// absent field is compared with an answer that has it.
fn differences_of_answer(
    expected: &[(HeaderName, String)],
    changes: Option<&AnswerFields>,
) -> Vec<Discrepancy> {
    let difference = |(name, wanted): &(HeaderName, String)| {
        let mut answer = HeaderMap::new();
        if wanted.is_empty() {
            answer.insert(name, HeaderValue::from_static(OF_UPSTREAM));
        }
        if let Some(changes) = changes {
            changes.apply(&mut answer);
        }
        let values = answer.get_all(name).iter().map(|value| value.to_str().unwrap_or_default());
        let values: Vec<&str> = values.collect();
        let is_secret = values.iter().any(|value| is_secret_field(name.as_str(), value));
        difference_of_field(format!("response header {name}"), wanted, &values, is_secret)
    };
    expected.iter().filter_map(difference).collect()
}

/// Describes the outcome as a test would expect it, for example `deny "missing_token"`.
fn describe_verdict(verdict: &Verdict) -> String {
    let shadow = if verdict.shadow { ", allowed by shadow mode" } else { "" };
    match &verdict.outcome {
        Outcome::Passed => "allow".to_owned(),
        Outcome::Redirected => "a redirect to https".to_owned(),
        Outcome::Refused(denial) => format!("deny {:?}{shadow}", denial.code()),
    }
}

#[cfg(test)]
mod keys;
#[cfg(test)]
mod tests;
