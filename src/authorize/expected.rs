//! The value that a claim must have: written in the policy, or taken from the request.

use crate::authenticate::ClaimValue;
use crate::clock::Now;
use crate::route::field::Field;
use crate::route::path::has_parameters;
use crate::route::{Head, HostPattern, Params};
use http::HeaderName;
use std::fmt;

/// The facts of a request that a rule can check, besides the caller.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'r> {
    /// The head of the request.
    pub head: &'r Head<'r>,
    /// The values of the path's parameters.
    pub params: &'r Params<'r>,
    /// The time of the request.
    pub now: Now,
}

/// The value that a claim is compared with. If the request lacks the value or states it ambiguously, no claim equals
/// it.
#[derive(Clone, Debug)]
pub enum Expected {
    /// A fixed value.
    Literal(ClaimValue),
    /// One of these fixed values.
    AnyOf(Box<[ClaimValue]>),
    /// The segment that a parameter of the route's path matched.
    Param {
        /// The parameter's position in the path.
        position: usize,
        /// The parameter's name, for messages.
        name: Box<str>,
    },
    /// The label that the `*` of the route's host matched. The field is the part of the host after the label.
    HostLabel(Box<str>),
    /// The whole host in canonical form, without a port.
    HostName,
    /// The value of a header field.
    Header(HeaderName),
}

impl Expected {
    /// Returns whether a claim has this value. Does not allocate.
    pub fn is_met_by(&self, value: &ClaimValue, request: &RequestFacts<'_>) -> bool {
        match self {
            Self::Literal(literal) => value.matches(literal),
            Self::AnyOf(literals) => literals.iter().any(|literal| value.matches(literal)),
            Self::Param { position, .. } => {
                // Some upstreams read `acme;x` as `acme`.
                let segment = request.params.get(*position).filter(|segment| !has_parameters(segment));
                segment.is_some_and(|segment| value.matches_segment(segment))
            }
            Self::HostLabel(parent) => {
                let host = request.head.host.as_deref();
                let label = host.and_then(|host| host.strip_suffix(&**parent)?.strip_suffix('.'));
                // For the host `a.b.example.com`, one upstream may read `a` as the tenant, and another may read `b`.
                label.filter(|label| !label.contains('.')).is_some_and(|label| value.matches_text(label))
            }
            Self::HostName => request.head.host.as_deref().is_some_and(|host| value.matches_text(host)),
            Self::Header(name) => {
                let word = Field::read(request.head.headers, name).word();
                word.is_some_and(|word| value.matches_text(word))
            }
        }
    }

    /// Returns the expected value for a route with this host; `None` if the host has no `*`.
    pub(crate) fn host_label(host: &HostPattern) -> Option<Self> {
        match host {
            HostPattern::Below(parent) => Some(Self::HostLabel(parent.clone())),
            HostPattern::Any | HostPattern::Exact(_) => None,
        }
    }

    /// Returns the reason, for operators, why the request has no value to compare. Returns `None` if it has a value.
    pub(super) fn missing(&self, request: &RequestFacts<'_>) -> Option<&'static str> {
        match self {
            Self::Literal(_) | Self::AnyOf(_) | Self::HostName => None,
            Self::Param { position, .. } => {
                let is_odd = request.params.get(*position).is_some_and(has_parameters);
                is_odd.then_some("the segment has a parameter (;), so it equals no claim")
            }
            Self::HostLabel(parent) => {
                let label = request.head.host.as_deref().and_then(|host| host.strip_suffix(&**parent));
                let is_deep = label.is_some_and(|label| label.trim_end_matches('.').contains('.'));
                is_deep.then_some("the * matched more than one label, so it equals no claim")
            }
            Self::Header(name) => match Field::read(request.head.headers, name) {
                Field::Absent => Some("the request does not have the header"),
                Field::Ambiguous => Some(
                    "the request has the header twice, in another spelling, or named in Connection, so it equals no claim",
                ),
                field @ Field::Once(_) => {
                    let is_odd = field.word().is_none();
                    is_odd
                        .then_some("the header is not a single word of visible ASCII, so it equals no claim")
                }
            },
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(literal) => write_literal(f, literal),
            Self::AnyOf(literals) => {
                for (position, literal) in literals.iter().enumerate() {
                    f.write_str(if position == 0 { "" } else { " or " })?;
                    write_literal(f, literal)?;
                }
                Ok(())
            }
            Self::Param { name, .. } => write!(f, "the path's {{{name}}}"),
            Self::HostLabel(parent) => write!(f, "the * of the host *.{parent}"),
            Self::HostName => f.write_str("the host"),
            Self::Header(name) => write!(f, "the header {name}"),
        }
    }
}

fn write_literal(f: &mut fmt::Formatter<'_>, literal: &ClaimValue) -> fmt::Result {
    match literal {
        ClaimValue::Text(text) => write!(f, "\"{text}\""),
        ClaimValue::Number(number) => write!(f, "{number}"),
        ClaimValue::Bool(flag) => write!(f, "{flag}"),
        ClaimValue::List(_) | ClaimValue::Other => f.write_str("an impossible value"),
    }
}

/// Calls `ask` with the facts of a request that has this host and these header fields and path parameters.
#[cfg(test)]
pub(super) fn asking<T>(
    host: &str,
    fields: &[(&str, &str)],
    params: &Params<'_>,
    now: u64,
    ask: impl FnOnce(&RequestFacts<'_>) -> T,
) -> T {
    let mut headers = http::HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    let method = http::Method::GET;
    let host = Some(host.into());
    let head = Head { method: &method, host, port: None, path: "/".into(), query: None, headers: &headers };
    ask(&RequestFacts { head: &head, params, now: Now::at(now) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn is_met(expected: &Expected, claim: &Value, host: &str, fields: &[(&str, &str)]) -> bool {
        let claim = ClaimValue::from(claim);
        asking(host, fields, &Params::default(), 0, |request| expected.is_met_by(&claim, request))
    }

    fn label() -> Expected {
        Expected::host_label(&HostPattern::parse("*.example.com").unwrap()).unwrap()
    }

    #[test]
    fn a_claim_is_the_one_label_that_the_host_leaves_open() {
        for (claim, host, is_equal) in [
            (json!("acme"), "acme.example.com", true),
            (json!(["x", "acme"]), "acme.example.com", true),
            (json!(7), "7.example.com", true),
            (json!("ACME"), "acme.example.com", false),
            (json!("acm"), "acme.example.com", false),
            (json!("a.b"), "a.b.example.com", false),
            (json!("a"), "a.b.example.com", false),
            (json!("b"), "a.b.example.com", false),
            (json!(""), "example.com", false),
            (json!("example"), "example.com", false),
            (json!("acme"), "acme.example.org", false),
            (json!(true), "true.example.com", false),
        ] {
            assert_eq!(is_met(&label(), &claim, host, &[]), is_equal, "{claim} {host}");
        }
        assert!(is_met(&Expected::HostName, &json!("a.b.example.com"), "a.b.example.com", &[]));
        assert!(!is_met(&Expected::HostName, &json!("example.com"), "a.example.com", &[]));
        assert!(Expected::host_label(&HostPattern::parse("api.example.com").unwrap()).is_none());
        assert!(Expected::host_label(&HostPattern::Any).is_none());
    }

    #[test]
    fn a_claim_is_the_header_that_every_reader_finds() {
        let header = Expected::Header(HeaderName::from_static("x-tenant"));
        for (claim, fields, is_equal) in [
            (json!("acme"), &[("x-tenant", "acme")][..], true),
            (json!(7), &[("x-tenant", "7")], true),
            (json!("acme"), &[("x-tenant", "ACME")], false),
            (json!("acme"), &[], false),
            (json!(""), &[("x-tenant", "")], false),
            (json!("acme"), &[("x-tenant", "acme"), ("x-tenant", "acme")], false),
            (json!("acme"), &[("x-tenant", "acme"), ("x_tenant", "other")], false),
            (json!("acme"), &[("x-tenant", "acme"), ("connection", "x-tenant")], false),
            (json!("acme,other"), &[("x-tenant", "acme,other")], false),
            (json!("acme;x"), &[("x-tenant", "acme;x")], false),
        ] {
            assert_eq!(is_met(&header, &claim, "h", fields), is_equal, "{claim} {fields:?}");
            let why = asking("h", fields, &Params::default(), 0, |request| header.missing(request));
            assert!(is_equal || why.is_some() || fields == [("x-tenant", "ACME")], "{fields:?}");
        }
    }

    #[test]
    fn any_of_several_values_is_enough_and_each_keeps_its_type() {
        let any =
            Expected::AnyOf([json!("gold"), json!(7), json!(true)].iter().map(ClaimValue::from).collect());
        for (claim, is_equal) in [
            (json!("gold"), true),
            (json!(7), true),
            (json!(true), true),
            (json!(["x", 7]), true),
            (json!("7"), false),
            (json!("true"), false),
            (json!("Gold"), false),
            (json!(null), false),
            (json!([]), false),
        ] {
            assert_eq!(is_met(&any, &claim, "h", &[]), is_equal, "{claim}");
        }
        assert!(!is_met(&Expected::AnyOf(Box::new([])), &json!(null), "h", &[]), "none of none");
    }

    proptest! {
        #[test]
        fn a_claim_never_equals_a_label_that_is_not_whole(label_of_host in "[a-c.]{0,6}", claim in "[a-c.]{0,6}") {
            let host = format!("{label_of_host}.example.com");
            let is_whole = !claim.is_empty() && claim == label_of_host && !claim.contains('.');
            if is_met(&label(), &json!(claim.clone()), &host, &[]) {
                prop_assert!(is_whole || claim.is_empty() && label_of_host.is_empty(), "{} {}", claim, host);
            } else {
                prop_assert!(!is_whole, "{} {}", claim, host);
            }
        }
    }
}
