//! Compiles the requirements of a `[[route]]` on tokens: `roles`, `all_roles`, `scopes`, `fresh` and `claims`.
//!
//! To add a check, write a function that returns it, and call that function in [`compile`].

use super::Faults;
use super::trust::{Claims, claim_path};
use crate::authenticate::ClaimValue;
use crate::authorize::{Check, Expected, Rule};
use crate::config::file::{self, RouteSection};
use crate::config::values::{Fresh, Literal};
use crate::route::PathPattern;
use std::sync::Arc;
use std::time::Duration;

/// Compiles the rule of a route; returns `None` if a key has a fault. Requests are checked in the order in which this
/// function adds the checks. If the route's path has a fault, `path` is `None` and its parameters are unknown.
pub(super) fn compile(
    key: &str,
    table: &RouteSection,
    path: Option<&PathPattern>,
    claims: &mut Claims,
    faults: &mut Faults<'_>,
) -> Option<Rule> {
    let before = faults.fault_count;
    let mut checks = Vec::new();
    checks.extend(names(key, "roles", &table.roles, faults).map(Check::Roles));
    checks.extend(names(key, "all_roles", &table.all_roles, faults).map(Check::AllRoles));
    checks.extend(scopes(key, table, faults));
    checks.extend(fresh(key, table, faults));
    let mut are_claims_known = true;
    for (name, value) in &table.claims {
        let check = claim(&format!("{key}.claims.{name}"), name, value, path, claims, faults);
        are_claims_known &= check.is_some();
        checks.extend(check);
    }
    if faults.fault_count > before || !are_claims_known {
        return None;
    }
    if table.access == file::Access::Public && !checks.is_empty() {
        faults.fault(
            "impossible_rule",
            &format!("{key}.access"),
            "\"public\" with roles, scopes, claims or fresh: a public route does not read tokens",
            "set access = \"authenticated\", or remove them",
        );
        return None;
    }
    Some(Rule::new(checks))
}

/// Returns the names in the list at `key.name`; `None` if the list is empty or contains an empty name.
fn names(key: &str, name: &str, list: &[String], faults: &mut Faults<'_>) -> Option<Box<[Box<str>]>> {
    if list.iter().any(String::is_empty) {
        faults.fault(
            "bad_value",
            &format!("{key}.{name}"),
            "an empty name",
            "use the names that tokens contain",
        );
        return None;
    }
    (!list.is_empty()).then(|| list.iter().map(|text| text.as_str().into()).collect())
}

fn scopes(key: &str, table: &RouteSection, faults: &mut Faults<'_>) -> Option<Check> {
    let all = scope_names(key, "scopes", &table.scopes, faults)?;
    Some(Check::Scopes { all, challenge: Arc::from(table.scopes.join(" ")) })
}

/// Returns the scopes in the list at `key.name`; `None` if the list is empty or contains an invalid scope.
fn scope_names(key: &str, name: &str, list: &[String], faults: &mut Faults<'_>) -> Option<Box<[Box<str>]>> {
    let scopes = names(key, name, list, faults)?;
    if let Some(scope) = list.iter().find(|scope| !is_scope_token(scope)) {
        faults.fault(
            "bad_value",
            &format!("{key}.{name}"),
            format!("\"{scope}\""),
            "a scope token has no spaces, quotes or backslashes (RFC 6749 section 3.3)",
        );
        return None;
    }
    Some(scopes)
}

/// Whether a text is a scope-token (RFC 6749 section 3.3): visible ASCII characters except quotes and backslashes.
fn is_scope_token(scope: &str) -> bool {
    !scope.is_empty() && scope.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
}

fn fresh(key: &str, table: &RouteSection, faults: &mut Faults<'_>) -> Option<Check> {
    let age = match table.fresh {
        Fresh::Any => return None,
        Fresh::Login => return Some(Check::Fresh { max_age: 0 }),
        Fresh::Within(age) => Duration::from(age),
    };
    let max_age = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
    if max_age == 0 {
        let hint = "true, or a duration such as \"10m\"";
        faults.fault("bad_value", &format!("{key}.fresh"), "less than a second", hint);
        return None;
    }
    Some(Check::Fresh { max_age })
}

fn claim(
    key: &str,
    name: &str,
    value: &Literal,
    path: Option<&PathPattern>,
    claims: &mut Claims,
    faults: &mut Faults<'_>,
) -> Option<Check> {
    let claim = claims.id(claim_path(key, name, faults)?);
    let equals = match value {
        Literal::Text(text) => match text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) {
            Some(param) => parameter(key, param, path?, faults)?,
            None => Expected::Literal(ClaimValue::Text(text.as_str().into())),
        },
        Literal::Integer(number) => Expected::Literal(ClaimValue::Number((*number).into())),
        Literal::Boolean(flag) => Expected::Literal(ClaimValue::Bool(*flag)),
    };
    Some(Check::Claim { claim, name: name.into(), equals })
}

fn parameter(key: &str, name: &str, path: &PathPattern, faults: &mut Faults<'_>) -> Option<Expected> {
    match path.params().iter().position(|known| **known == *name) {
        Some(position) => Some(Expected::Param { position, name: name.into() }),
        None => {
            faults.fault(
                "unknown_name",
                key,
                format!("the path \"{path}\" has no parameter {{{name}}}"),
                "use a parameter of the route's path, or a literal value",
            );
            None
        }
    }
}
