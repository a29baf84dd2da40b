//! A `[[test]]` of the policy file as data: a request, and its expected outcome.

use super::Question;
use crate::clock::Now;
use crate::diagnostic::Place;
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
    pub expected: Expectation,
}

/// What is to become of a request.
#[derive(Clone, Debug, Default)]
pub struct Expectation {
    /// Whether it passes.
    pub verdict: Option<ExpectedVerdict>,
    /// The status of its refusal, or of its redirect to https.
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
pub enum ExpectedVerdict {
    /// It passes.
    Allow,
    /// It is refused, for whatever reason.
    Deny,
    /// It is refused with this code.
    DenyWith(&'static str),
}

impl Case {
    /// The request, as it is made when the test is run.
    pub fn question_at(&self, now: Now) -> Question {
        if self.now { self.question.clone().at(now) } else { self.question.clone() }
    }
}

impl Expectation {
    /// Whether anything is expected of what goes upstream.
    pub fn is_upstream(&self) -> bool {
        self.path.is_some() || !self.headers.is_empty()
    }
}

impl fmt::Display for ExpectedVerdict {
    /// In the words of the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allow => f.write_str("allow"),
            Self::Deny => f.write_str("deny with any code"),
            Self::DenyWith(code) => write!(f, "deny {code:?}"),
        }
    }
}
