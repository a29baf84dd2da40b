//! Runs the tests of a policy file.
//!
//! Tests ignore shadow mode, because they describe the intended policy. Thousands of tests run in a second, so the
//! gateway runs all of them before it serves requests.

use crate::clock::Now;
use crate::diagnostic::{Diagnostic, Place, Severity};
use crate::explain::text::Line;
use crate::explain::{Examiner, Explanation, Outcome, UpstreamRequest, Verdict};
use crate::policy::{Case, Expectation, ExpectedVerdict, Policy};
use http::StatusCode;
use serde::Serialize;
use std::fmt;

/// A difference between the expected and the actual result of a test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Discrepancy {
    /// The property that differs: `verdict`, `status`, `route`, `upstream`, `path` or `header x-auth-subject`.
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
        let (verdict, outgoing) = if expected.is_upstream() {
            examiner.verdict_and_request(&question)
        } else {
            (examiner.verdict(&question), None)
        };
        let route = verdict.route.and_then(|route| examiner.policy().routes.get(route));
        let mut differences = differences_of_verdict(expected, &verdict, route.map(|route| &*route.name));
        // If the request is rejected, the upstream receives nothing. The verdict is then already reported as different.
        if let (true, Some(outgoing)) = (verdict.outcome.passes(), &outgoing) {
            differences.extend(differences_upstream(expected, outgoing));
        }
        let is_verdict = differences.iter().any(|difference| difference.what == "verdict");
        let reason = if is_verdict { examiner.reason(&question) } else { None };
        let (test, place) = (case.name.clone(), case.place.clone());
        (!differences.is_empty()).then_some(Self { test, place, differences, reason, explanation: None })
    }
}

fn differences_of_verdict(test: &Expectation, verdict: &Verdict, route: Option<&str>) -> Vec<Discrepancy> {
    let mut differences = Vec::new();
    let mut differs = |what: &str, expected: String, found: String| {
        differences.push(Discrepancy { what: what.to_owned(), expected, found });
    };
    // An expectation about the upstream request implies that the request is allowed.
    let wanted = test.verdict.or_else(|| test.is_upstream().then_some(ExpectedVerdict::Allow));
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
        Outcome::Passed => None,
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
    for (name, wanted) in &test.headers {
        let sent: Vec<&str> = outgoing
            .headers
            .iter()
            .filter(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
            .collect();
        let is_right = if wanted.is_empty() { sent.is_empty() } else { sent[..] == [wanted.as_str()] };
        if !is_right {
            let quoted = |value: &&str| format!("{value:?}");
            let expected = if wanted.is_empty() { "absent".to_owned() } else { format!("{wanted:?}") };
            let found = match &sent[..] {
                [] => "absent".to_owned(),
                sent => sent.iter().map(quoted).collect::<Vec<_>>().join(" and "),
            };
            differences.push(Discrepancy { what: format!("header {name}"), expected, found });
        }
    }
    differences
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
mod tests {
    use super::*;
    use crate::keyring::MissingKey;
    use crate::policy::Compiled;

    const ROUTES: &str = r#"
[identity]
claims = { "X-Auth-Tenant" = "tenant" }
[[route]]
name = "orders"
path = "/orders/{id}"
upstream = "echo"
roles = ["clerk"]
strip_prefix = "/orders"
[[route]]
name = "watched"
path = "/watched"
upstream = "echo"
roles = ["clerk"]
mode = "shadow"
[[route]]
name = "open"
path = "/open"
upstream = "echo"
access = "public"
"#;

    fn compiled(tests: &str) -> Result<Compiled, Vec<Diagnostic>> {
        let text = format!(
            "[[issuer]]\nissuer = \"https://id.example.com/\"\naudience = [\"a\"]\nalgorithms = [\"HS256\"]\n\
             secret = \"0123456789abcdef0123456789abcdef\"\n[upstream.echo]\nbuiltin = \"echo\"\n{ROUTES}{tests}"
        );
        let loaded = crate::config::load_text("gateway.toml", text, ".".into(), Vec::new());
        crate::policy::compile(&loaded.unwrap(), MissingKey::Ephemeral)
    }

    const CLERK: &str = "claims = { sub = \"u1\", roles = [\"clerk\"], tenant = \"acme\" }";

    /// Runs a test and returns the differences on one line. Empty if the test passes.
    #[track_caller]
    fn ended(request: &str, rest: &str, expect: &str) -> String {
        let test =
            format!("[[test]]\nname = \"t\"\nrequest = \"{request}\"\n{rest}\nexpect = {{ {expect} }}\n");
        let compiled = compiled(&test).unwrap_or_else(|faults| panic!("{faults:#?}"));
        let examiner = Examiner::new(&compiled.policy);
        let failure = TestFailure::of(&compiled.cases[0], &examiner, Now::read());
        failure.map(|failure| failure.to_string()).unwrap_or_default()
    }

    #[test]
    fn each_unmet_expectation_is_reported_and_no_met_one() {
        let orders = "GET https://h/orders/7?q=1";
        for (request, rest, right, wrong, expected) in [
            (
                orders,
                CLERK,
                "allow = true",
                "allow = false",
                "verdict: expected deny with any code, found allow",
            ),
            (
                orders,
                "",
                "allow = false",
                "allow = true",
                "verdict: expected allow, found deny \"missing_token\"",
            ),
            (
                orders,
                "claims = { sub = \"u1\" }",
                "deny = \"insufficient_role\"",
                "deny = \"insufficient_scope\"",
                "verdict: expected deny \"insufficient_scope\", found deny \"insufficient_role\" (the route asks for any role \
                 of clerk; the caller's roles: [] (the claim is missing))",
            ),
            (orders, "", "status = 401", "status = 403", "status: expected 403, found 401"),
            (orders, CLERK, "allow = true", "status = 403", "status: expected 403, found the upstream's"),
            (
                orders,
                "",
                "route = \"orders\"",
                "route = \"open\"",
                "route: expected \"open\", found \"orders\"",
            ),
            (
                "https://h/nowhere",
                "",
                "deny = \"no_route\"",
                "route = \"open\"",
                "route: expected \"open\", found none",
            ),
            (
                orders,
                CLERK,
                "path = \"/7?q=1\"",
                "path = \"/orders/7\"",
                "path: expected \"/orders/7\", found \"/7?q=1\"",
            ),
            (
                orders,
                CLERK,
                "headers = { \"X-Auth-Tenant\" = \"acme\" }",
                "headers = { \"X-Auth-Tenant\" = \"other\" }",
                "header x-auth-tenant: expected \"other\", found \"acme\"",
            ),
            (
                orders,
                CLERK,
                "headers = { Authorization = \"\" }",
                "headers = { \"X-Auth-Subject\" = \"\" }",
                "header x-auth-subject: expected absent, found \"u1\"",
            ),
            (
                "https://h/open",
                "headers = { \"X-Auth-Subject\" = \"root\" }",
                "headers = { \"x-auth-subject\" = \"\" }",
                "headers = { \"x-auth-subject\" = \"root\" }",
                "header x-auth-subject: expected \"root\", found absent",
            ),
        ] {
            assert_eq!(ended(request, rest, right), "", "{request} {rest}");
            assert_eq!(ended(request, rest, wrong), expected, "{request} {rest}");
        }
    }

    #[test]
    fn expected_upstream_fields_need_an_allowed_request() {
        let expected =
            ended("https://h/orders/7", "", "path = \"/7\", headers = { \"X-Auth-Subject\" = \"u1\" }");
        assert_eq!(expected, "verdict: expected allow, found deny \"missing_token\"");
    }

    #[test]
    fn a_refusal_in_the_shadow_is_a_refusal() {
        let watched = "https://h/watched";
        assert_eq!(ended(watched, "", "deny = \"missing_token\""), "");
        for expect in ["allow = true", "path = \"/watched\"", "headers = { Authorization = \"\" }"] {
            let expected = "verdict: expected allow, found deny \"missing_token\", allowed by shadow mode";
            assert_eq!(ended(watched, "", expect), expected);
        }
        assert_eq!(ended(watched, CLERK, "allow = true, path = \"/watched\""), "");
    }

    #[test]
    fn a_test_is_made_at_its_own_time_or_else_now() {
        let at = |time: &str, claims: &str| {
            let rest = format!("claims = {{ sub = \"u1\", roles = [\"clerk\"], {claims} }}\n{time}");
            ended("https://h/orders/7", &rest, "deny = \"expired_token\"").is_empty()
        };
        let of_1970 = "time = \"1970-01-01T00:20:00Z\"";
        assert!(at("", "exp = 2000"), "now is later");
        assert!(!at(of_1970, "exp = 2000"));
        assert!(at(of_1970, "exp = 1000"));
    }

    #[test]
    fn as_many_are_explained_as_were_asked_for_and_the_rest_is_counted() {
        let test = |n: usize| {
            format!(
                "[[test]]\nname = \"t{n}\"\nrequest = \"https://h/open\"\nexpect = {{ allow = {} }}\n",
                n.is_multiple_of(2)
            )
        };
        let compiled = compiled(&(0..44).map(test).collect::<String>()).unwrap();
        let tried = run(&compiled.policy, compiled.cases.clone(), Now::read(), 3);
        let failed: Vec<_> = tried.iter().filter_map(|tried| tried.failed.as_ref()).collect();
        let explained = failed.iter().filter(|failure| failure.explanation.is_some());
        assert_eq!((failed.len(), explained.count()), (22, 3));
        let findings = failures(&compiled.policy, &compiled.cases, Severity::Fault, Now::read());
        assert_eq!(findings.len(), REPORTED_MAX + 1);
        assert_eq!(
            (&*findings[0].key, findings[0].place.order()),
            ("test[1]", compiled.cases[1].place.order())
        );
        assert_eq!(findings.last().unwrap().found, "2 more failed tests");
    }
}
