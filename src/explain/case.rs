//! The policy's own tests: a request, and what is to become of it.
//!
//! What a route in the shadow would refuse is refused here: a test says what the policy means, so that it holds before and
//! after the shadow.

use super::{Examiner, Explanation, Outcome, Question};
use crate::clock::Now;
use crate::diagnostic::{Diagnostic, Place, Severity};
use crate::policy::Policy;
use serde::Serialize;
use std::fmt;

/// A test of a policy.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it says, in words.
    pub name: String,
    /// The key of its table, such as `test[3]`.
    pub key: String,
    /// Where that stands.
    pub place: Place,
    /// The request.
    pub question: Question,
    /// Whether the request is made when the test is run; otherwise, at the question's own time.
    pub now: bool,
    /// What is to become of it.
    pub expected: Expected,
}

/// What is to become of a request.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Whether it passes.
    pub verdict: Option<Wanted>,
    /// The status of its refusal.
    pub status: Option<u16>,
    /// The route that covers it.
    pub route: Option<String>,
    /// The path and query that the upstream gets.
    pub path: Option<String>,
    /// Fields that the upstream gets, names in lower case; empty: it does not get this one.
    pub headers: Vec<(String, String)>,
}

/// The verdict that a test asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It passes.
    Passed,
    /// It is refused, for whatever reason.
    Refused,
    /// It is refused with this code.
    RefusedWith(&'static str),
}

/// One thing that is not as it was expected to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What.
    pub what: String,
    /// As the test has it.
    pub expected: String,
    /// As it is.
    pub found: String,
}

/// How a test failed.
#[derive(Clone, Debug, Serialize)]
pub struct Mismatch {
    /// The test's name.
    pub test: String,
    /// Where it stands.
    pub place: Place,
    /// What differs, at least one thing.
    pub differences: Vec<Difference>,
    /// What becomes of the request, and why.
    pub explanation: Box<Explanation>,
}

impl fmt::Display for Mismatch {
    /// In one line: `the route: expected "orders", found "open"; …`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, Difference { what, expected, found }) in self.differences.iter().enumerate() {
            let separator = if position == 0 { "" } else { "; " };
            write!(f, "{separator}{what}: expected {expected}, found {found}")?;
        }
        Ok(())
    }
}

impl Case {
    /// Runs the test.
    ///
    /// # Errors
    /// What differs, and why.
    pub fn run(&self, examiner: &Examiner<'_>, now: Now) -> Result<(), Mismatch> {
        let asked;
        let question = if self.now {
            asked = self.question.clone().at(now);
            &asked
        } else {
            &self.question
        };
        let expected = &self.expected;
        // What goes upstream takes longer to find out, and few tests ask for it.
        if expected.path.is_none() && expected.headers.is_empty() {
            let verdict = examiner.verdict(question);
            let route = verdict.route.map(|route| &*examiner.policy().routes[route].name);
            if expected.differences(&verdict.outcome, route).is_empty() {
                return Ok(());
            }
        }
        let explanation = Box::new(examiner.explain(question));
        let route = explanation.route.as_ref().map(|route| &*route.name);
        let mut differences = expected.differences(&explanation.outcome, route);
        differences.extend(expected.differences_upstream(&explanation));
        if differences.is_empty() {
            return Ok(());
        }
        Err(Mismatch { test: self.name.clone(), place: self.place.clone(), differences, explanation })
    }
}

impl Expected {
    fn differences(&self, outcome: &Outcome, route: Option<&str>) -> Vec<Difference> {
        let mut differences = Vec::new();
        let status = match outcome {
            Outcome::Refused(denial) => Some(denial.status().as_u16()),
            Outcome::Passed | Outcome::Redirected => None,
        };
        let found = match (outcome, status) {
            (Outcome::Passed, _) => "it passes".to_owned(),
            (Outcome::Redirected, _) => "it is redirected to https".to_owned(),
            (Outcome::Refused(denial), _) => format!("it is refused, with {}", denial.code()),
        };
        let (is_right, expected) = match (self.verdict, outcome) {
            (None, _) => (true, String::new()),
            (Some(Wanted::Passed), outcome) => (outcome.passes(), "it passes".to_owned()),
            (Some(Wanted::Refused), outcome) => {
                (matches!(outcome, Outcome::Refused(_)), "it is refused".to_owned())
            }
            (Some(Wanted::RefusedWith(code)), outcome) => {
                (outcome.word() == code, format!("it is refused, with {code}"))
            }
        };
        if !is_right {
            differences.push(Difference { what: "the verdict".to_owned(), expected, found });
        }
        let none = || "none".to_owned();
        if self.status.is_some() && self.status != status {
            let shown = |status: Option<u16>| status.map_or_else(none, |status| status.to_string());
            let (expected, found) = (shown(self.status), shown(status));
            differences.push(Difference { what: "the refusal's status".to_owned(), expected, found });
        }
        if self.route.is_some() && self.route.as_deref() != route {
            let shown = |route: Option<&str>| route.map_or_else(none, |route| format!("{route:?}"));
            let (expected, found) = (shown(self.route.as_deref()), shown(route));
            differences.push(Difference { what: "the route".to_owned(), expected, found });
        }
        differences
    }

    fn differences_upstream(&self, explanation: &Explanation) -> Vec<Difference> {
        let mut differences = Vec::new();
        let outgoing = explanation.outgoing.as_ref();
        let nothing = || "nothing is sent".to_owned();
        if let Some(path) = &self.path
            && outgoing.map(|outgoing| &outgoing.path) != Some(path)
        {
            let found = outgoing.map_or_else(nothing, |outgoing| format!("{:?}", outgoing.path));
            let what = "the path that the upstream gets".to_owned();
            differences.push(Difference { what, expected: format!("{path:?}"), found });
        }
        for (name, wanted) in &self.headers {
            let sent: Option<Vec<&str>> = outgoing.map(|outgoing| {
                let fields = outgoing.headers.iter().filter(|(known, _)| known == name);
                fields.map(|(_, value)| value.as_str()).collect()
            });
            let is_right = match &sent {
                None => false,
                Some(values) if wanted.is_empty() => values.is_empty(),
                Some(values) => values[..] == [wanted.as_str()],
            };
            if !is_right {
                let expected = if wanted.is_empty() { "absent".to_owned() } else { format!("{wanted:?}") };
                let found = match sent {
                    None => nothing(),
                    Some(values) if values.is_empty() => "absent".to_owned(),
                    Some(values) => format!("{:?}", values.join(", ")),
                };
                let what = format!("the header {name} that the upstream gets");
                differences.push(Difference { what, expected, found });
            }
        }
        differences
    }
}

/// So many tests that fail are told one by one as findings.
const TOLD_MAX: usize = 20;

/// Runs all tests of a policy, and tells those that fail.
pub fn run(policy: &Policy, cases: &[Case], now: Now) -> Vec<Mismatch> {
    if cases.is_empty() {
        return Vec::new();
    }
    let examiner = Examiner::new(policy);
    cases.iter().filter_map(|case| case.run(&examiner, now).err()).collect()
}

/// The tests that fail, as findings about the policy.
pub fn failures(policy: &Policy, cases: &[Case], severity: Severity, now: Now) -> Vec<Diagnostic> {
    let mut mismatches = run(policy, cases, now);
    let more = mismatches.split_off(mismatches.len().min(TOLD_MAX)).len();
    let told = |mismatch: Mismatch| Diagnostic {
        severity,
        id: "failed_test",
        place: mismatch.place.clone(),
        key: String::new(),
        found: format!("the test \"{}\" fails: {mismatch}", mismatch.test),
        hint: "portcullis check tells more".to_owned(),
    };
    let mut told: Vec<_> = mismatches.into_iter().map(told).collect();
    if let Some(last) = told.last_mut().filter(|_| more > 0) {
        last.hint = format!("portcullis check tells more, and of {more} more tests that fail");
    }
    told
}
