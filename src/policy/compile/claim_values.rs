//! Compiles the values that a rule requires of a claim: literals and placeholders.

use super::Faults;
use super::identity::is_reserved;
use crate::authenticate::{ClaimValue, IdentityHeaders};
use crate::authorize::Expected;
use crate::config::values::{ClaimValues, Literal};
use crate::forward::strip;
use http::HeaderName;

/// The value that a rule requires of a claim.
#[derive(Clone)]
pub(super) enum Wanted {
    /// A value that is the same for all routes.
    Fixed(Expected),
    /// `{name}`: the segment of this path parameter.
    Param(Box<str>),
    /// `{host:*}`: the label that the wildcard of the route's host covers.
    HostLabel,
    /// `{header:NAME}`: the value of this header.
    Header(HeaderName),
}

/// The forms of placeholders, for hints.
const FORMS: &str = "{PARAMETER} of the path, {host:*}, {host:name} or {header:NAME}";

/// Compiles the values of one claim.
pub(super) fn wanted(
    key: &str,
    values: &ClaimValues,
    identity: &IdentityHeaders,
    faults: &mut Faults<'_>,
) -> Option<Wanted> {
    match values {
        ClaimValues::One(Literal::Text(text)) => match placeholder(text) {
            Some(inside) => of_request(key, inside, identity, faults),
            None => Some(Wanted::Fixed(Expected::Literal(ClaimValue::Text(text.as_str().into())))),
        },
        ClaimValues::One(literal) => Some(Wanted::Fixed(Expected::Literal(value(literal)))),
        ClaimValues::Any(literals) if literals.is_empty() => {
            let hint = "the accepted values, such as [\"gold\", \"silver\"]";
            faults.fault("bad_value", key, "an empty list, which no claim equals", hint);
            None
        }
        ClaimValues::Any(literals) => {
            let is_placeholder = |literal: &&Literal| match literal {
                Literal::Text(text) => placeholder(text).is_some(),
                Literal::Integer(_) | Literal::Boolean(_) => false,
            };
            if let Some(Literal::Text(text)) = literals.iter().find(is_placeholder) {
                let hint = "a list holds fixed values; a placeholder is a value of its own";
                faults.fault("bad_value", key, format!("\"{text}\" in a list"), hint);
                return None;
            }
            Some(Wanted::Fixed(Expected::AnyOf(literals.iter().map(value).collect())))
        }
    }
}

/// Compiles the values of a claim that an issuer's tokens must have. Placeholders are rejected.
pub(super) fn fixed(key: &str, values: &ClaimValues, faults: &mut Faults<'_>) -> Option<Box<[ClaimValue]>> {
    let literals = values.literals();
    if literals.is_empty() {
        let hint = "the accepted values, such as [\"acme\", \"umbrella\"]";
        faults.fault("bad_value", key, "an empty list, which no claim equals", hint);
        return None;
    }
    for literal in literals {
        if let Literal::Text(text) = literal
            && placeholder(text).is_some()
        {
            let hint = "a fixed value: an issuer's tokens are verified before any route is known";
            faults.fault("bad_value", key, format!("the placeholder \"{text}\""), hint);
            return None;
        }
    }
    Some(literals.iter().map(value).collect())
}

fn value(literal: &Literal) -> ClaimValue {
    match literal {
        Literal::Text(text) => ClaimValue::Text(text.as_str().into()),
        Literal::Integer(number) => ClaimValue::Number((*number).into()),
        Literal::Boolean(flag) => ClaimValue::Bool(*flag),
    }
}

/// Returns the text between the braces.
fn placeholder(text: &str) -> Option<&str> {
    text.strip_prefix('{')?.strip_suffix('}')
}

fn of_request(
    key: &str,
    inside: &str,
    identity: &IdentityHeaders,
    faults: &mut Faults<'_>,
) -> Option<Wanted> {
    // A parameter name contains no colon.
    match inside.split_once(':') {
        None => Some(Wanted::Param(inside.into())),
        Some(("host", "*")) => Some(Wanted::HostLabel),
        Some(("host", "name")) => Some(Wanted::Fixed(Expected::HostName)),
        Some(("header", name)) => match name.parse::<HeaderName>() {
            Ok(name) if !is_reserved(&name) && strip::passes(&name, identity) => Some(Wanted::Header(name)),
            Ok(name) => {
                faults.fault(
                    "bad_header",
                    key,
                    format!("the gateway removes or rewrites \"{name}\", so the upstream would not see the compared value"),
                    "use a header that the upstream reads, such as \"X-Tenant\"",
                );
                None
            }
            Err(_) => {
                faults.fault("bad_header", key, format!("\"{name}\" is not a header name"), FORMS);
                None
            }
        },
        Some(_) => {
            faults.fault("bad_value", key, format!("\"{{{inside}}}\""), FORMS);
            None
        }
    }
}
