//! Describes why an order failed, for the log and `/readyz?verbose`.

use instant_acme::{Error, Problem};
use std::fmt;

/// The maximum number of characters of a server's text that are shown.
const DETAIL_MAX: usize = 400;

/// The reason why an order failed. It contains no secret. Text from the server is escaped and truncated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The type of the ACME problem, such as `urn:ietf:params:acme:error:rateLimited`, or a word for another failure.
    pub(crate) kind: String,
    /// The detail.
    pub(crate) detail: String,
    /// The time before which the server wants no further request, in seconds since 1970.
    pub(crate) not_before: Option<u64>,
}

impl Failure {
    /// Creates a failure of the gateway itself or of the exchange with the server.
    pub(crate) fn of(kind: &str, detail: impl Into<String>) -> Self {
        Self { kind: kind.to_owned(), detail: detail.into(), not_before: None }
    }

    /// Creates a failure from a problem document. `domain` is the domain whose challenge failed.
    pub(super) fn problem(problem: &Problem, domain: Option<&str>) -> Self {
        let mut detail = problem.detail.clone().unwrap_or_default();
        for part in &problem.subproblems {
            detail.push_str(&format!("; {part}"));
        }
        let detail = shown(&detail);
        let detail = domain.map_or_else(|| detail.clone(), |domain| format!("{domain}: {detail}"));
        let kind = problem.r#type.as_deref().map_or_else(|| "problem".to_owned(), shown);
        Self { kind, detail, not_before: None }
    }

    /// Returns whether the server reports this ACME error (RFC 8555 section 6.7).
    pub(super) fn is(&self, error: &str) -> bool {
        self.kind.strip_prefix("urn:ietf:params:acme:error:") == Some(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match &error {
            Error::Api(problem) => Self::problem(problem, None),
            Error::Timeout(_) => Self::of("timeout", "the server did not complete the order in time"),
            Error::Json(_) => Self::of("protocol", shown(&format!("the answer is malformed: {error}"))),
            Error::Unsupported(_) => Self::of("unsupported", shown(&error.to_string())),
            Error::Other(inner) => {
                let kind =
                    inner.downcast_ref::<crate::outbound::Error>().map_or("protocol", |own| own.kind());
                Self::of(kind, shown(&error.to_string()))
            }
            _ => Self::of("protocol", shown(&error.to_string())),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.detail)
    }
}

/// Returns a server's text, escaped and truncated.
pub(super) fn shown(text: &str) -> String {
    let mut characters = text.chars();
    let escape = |character: char| match character {
        '"' | '\'' => character.to_string(),
        character => character.escape_debug().to_string(),
    };
    let mut shown: String = characters.by_ref().take(DETAIL_MAX).map(escape).collect();
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_keeps_its_type_and_its_detail_and_no_control_characters() {
        let text = format!(
            r#"{{"type":"urn:ietf:params:acme:error:dns","detail":"a \"b\"\u001b[2J\n{}","status":400}}"#,
            "x".repeat(1000)
        );
        let problem: Problem = serde_json::from_str(&text).unwrap();
        let failure = Failure::from(Error::Api(problem.clone()));
        assert!(failure.is("dns") && !failure.is("connection"), "{failure}");
        assert!(failure.detail.starts_with(r#"a "b"\u{1b}[2J\nxxx"#), "{failure}");
        assert!(failure.detail.chars().count() < DETAIL_MAX + 20, "{failure}");
        let failure = Failure::problem(&problem, Some("a.test"));
        assert!(failure.to_string().starts_with("urn:ietf:params:acme:error:dns: a.test: a "), "{failure}");
    }

    #[test]
    fn a_problem_names_the_domains_of_its_parts() {
        let text = r#"{"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"refused","subproblems":
            [{"type":"urn:ietf:params:acme:error:caa","detail":"forbidden","identifier":{"type":"dns","value":"a.test"}}]}"#;
        let failure = Failure::from(Error::Api(serde_json::from_str(text).unwrap()));
        assert!(failure.detail.contains("a.test") && failure.detail.contains("forbidden"), "{failure}");
    }

    #[test]
    fn a_failed_exchange_has_the_kind_of_its_error() {
        let error = crate::outbound::Error::Name("no such host".to_owned());
        assert_eq!(Failure::from(Error::Other(Box::new(error))).kind, "name");
    }
}
