//! The compiled form of a `[[test]]`: a request and its expected outcome.

use super::Question;
use crate::clock::Now;
use crate::diagnostic::Place;
use http::HeaderName;
use std::fmt;

/// A test of the policy.
#[derive(Clone, Debug)]
pub struct Case {
    /// The name of the test.
    pub name: String,
    /// The key of the table, such as `test[3]`.
    pub key: String,
    /// The place of the table in the file.
    pub place: Place,
    /// The request to evaluate.
    pub question: Question,
    /// Whether the time of the test run replaces the time in `question`.
    pub now: bool,
    /// The expected outcome.
    pub expected: Expectation,
}

/// The expected outcome of a request. Fields that are `None` or empty are not compared.
#[derive(Clone, Debug, Default)]
pub struct Expectation {
    /// The verdict.
    pub verdict: Option<ExpectedVerdict>,
    /// The status of the response, if the request is rejected or redirected to https.
    pub status: Option<u16>,
    /// The name of the matching route.
    pub route: Option<String>,
    /// The name of the upstream that receives the request.
    pub upstream: Option<String>,
    /// The path and query that the upstream receives.
    pub path: Option<String>,
    /// Headers that the upstream receives, with names in lower case. An empty value means an absent header.
    pub headers: Vec<(String, String)>,
    /// Headers that the client receives from an upstream that does not send them. An empty value means a header that the
    /// client never receives.
    pub response_headers: Vec<(HeaderName, String)>,
    /// The URL of the route's redirect.
    pub redirect: Option<String>,
    /// The name of the upstream that gets a copy. Empty if the request is not copied.
    pub mirror: Option<String>,
    /// The content coding of the answer. Empty if the answer is not compressed.
    pub compress: Option<String>,
    /// `expiry` or `open`.
    pub streams: Option<&'static str>,
    /// The server that the request tries first.
    pub server: Option<String>,
    /// The longest wait for the head of the answer, as in the policy.
    pub timeout: Option<String>,
    /// The longest silence in the body of the answer or in a WebSocket, as in the policy.
    pub silence: Option<String>,
    /// Whether the request may be sent again after a server has failed.
    pub retry: Option<bool>,
    /// The names of the trailers that the upstream may receive, in lower case.
    pub trailers: Option<Vec<String>>,
    /// Whether all servers of the upstream are reached over TLS.
    pub upstream_tls: Option<bool>,
    /// `required`, `optional` or `none`.
    pub client_certificate: Option<&'static str>,
    /// Whether a browser lets scripts of the request's `Origin` read the answer, or send the request after a preflight.
    pub cors: Option<bool>,
    /// The names of the rate limits to which the request is charged.
    pub rate_limits: Option<Vec<String>>,
    /// Whether the route is in maintenance. A test of the rule ignores maintenance.
    pub maintenance: Option<bool>,
}

/// The verdict that a test expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedVerdict {
    /// The request is allowed.
    Allow,
    /// The request is rejected with any code.
    Deny,
    /// The request is rejected with this code.
    DenyWith(&'static str),
}

impl Case {
    /// Returns the request to evaluate. `now` applies unless the test sets a time.
    pub fn question_at(&self, now: Now) -> Question {
        if self.now { self.question.clone().at(now) } else { self.question.clone() }
    }
}

impl Expectation {
    /// Whether the test has an expectation about an allowed request: what the upstream receives, or how it is answered.
    pub fn is_of_allowed(&self) -> bool {
        let Self {
            verdict: _,
            status: _,
            route: _,
            client_certificate: _,
            cors: _,
            rate_limits: _,
            maintenance: _,
            upstream,
            path,
            headers,
            response_headers,
            redirect,
            mirror,
            compress,
            streams,
            server,
            timeout,
            silence,
            retry,
            trailers,
            upstream_tls,
        } = self;
        let texts = [upstream, path, redirect, mirror, compress, server, timeout, silence];
        texts.iter().any(|text| text.is_some())
            || !headers.is_empty()
            || !response_headers.is_empty()
            || streams.is_some()
            || retry.is_some()
            || trailers.is_some()
            || upstream_tls.is_some()
    }

    /// Whether the test expects anything.
    pub fn is_any(&self) -> bool {
        self.verdict.is_some()
            || self.status.is_some()
            || self.route.is_some()
            || self.client_certificate.is_some()
            || self.cors.is_some()
            || self.rate_limits.is_some()
            || self.maintenance.is_some()
            || self.is_of_allowed()
    }
}

impl fmt::Display for ExpectedVerdict {
    /// Formats the verdict as in a policy file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allow => f.write_str("allow"),
            Self::Deny => f.write_str("deny with any code"),
            Self::DenyWith(code) => write!(f, "deny {code:?}"),
        }
    }
}
