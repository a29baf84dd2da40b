//! A route's rule, which is a list of checks. Authorization stops at the first check that fails; `explain` runs all
//! checks.

use super::expected::{Expected, RequestFacts};
use crate::authenticate::principal::Shape;
use crate::authenticate::{ClaimId, Principal};
use crate::denial::Denial;
use std::fmt;
use std::sync::Arc;

/// One check of a rule.
#[derive(Clone, Debug)]
pub enum Check {
    /// The caller has at least one of these roles.
    Roles(Box<[Box<str>]>),
    /// The caller has all of these roles.
    AllRoles(Box<[Box<str>]>),
    /// The caller has none of these roles. A token without roles passes.
    NotRoles(Box<[Box<str>]>),
    /// The token has all of these scopes.
    Scopes {
        /// The scopes.
        all: Box<[Box<str>]>,
        /// The scopes separated by spaces, for the `WWW-Authenticate` challenge.
        challenge: Arc<str>,
    },
    /// The token has at least one of these scopes.
    AnyScope {
        /// The scopes.
        any: Box<[Box<str>]>,
        /// The scopes separated by spaces, for the `WWW-Authenticate` challenge.
        challenge: Arc<str>,
    },
    /// One of these issuers made the token.
    Issuers(Box<[Box<str>]>),
    /// A claim has this value.
    Claim {
        /// The claim to compare.
        claim: ClaimId,
        /// The path of the claim, for messages.
        name: Box<str>,
        /// The required value.
        equals: Expected,
    },
    /// The caller has logged in with a password recently.
    Fresh {
        /// The maximum age of the login in seconds. 0 accepts any age, but rejects a token from a refresh.
        max_age: u32,
    },
    /// The token is bound to a key. Authentication has already verified the proof of possession of this key.
    Bound,
}

impl Check {
    /// Evaluates the check for a caller.
    ///
    /// # Errors
    /// Returns the denial if the check fails.
    pub fn verdict(&self, principal: &Principal, request: &RequestFacts<'_>) -> Result<(), Denial> {
        let has = |held: &[Box<str>], name: &str| held.iter().any(|held| **held == *name);
        match self {
            Self::Roles(any) if any.iter().any(|role| has(&principal.roles, role)) => Ok(()),
            Self::AllRoles(all) if all.iter().all(|role| has(&principal.roles, role)) => Ok(()),
            Self::NotRoles(none)
                if are_all_roles_known(principal) && !none.iter().any(|role| has(&principal.roles, role)) =>
            {
                Ok(())
            }
            Self::Roles(_) | Self::AllRoles(_) | Self::NotRoles(_) => Err(Denial::InsufficientRole),
            Self::Scopes { all, .. } if all.iter().all(|scope| has(&principal.scopes, scope)) => Ok(()),
            Self::AnyScope { any, .. } if any.iter().any(|scope| has(&principal.scopes, scope)) => Ok(()),
            Self::Scopes { challenge, .. } | Self::AnyScope { challenge, .. } => {
                Err(Denial::InsufficientScope(challenge.clone()))
            }
            Self::Issuers(any) if any.iter().any(|issuer| **issuer == *principal.issuer) => Ok(()),
            Self::Issuers(_) => Err(Denial::UnknownIssuer),
            Self::Claim { claim, equals, .. } => {
                let equal = principal.claim(*claim).is_some_and(|value| equals.is_met_by(value, request));
                if equal { Ok(()) } else { Err(Denial::ClaimMismatch) }
            }
            Self::Fresh { max_age } => {
                let (max_age, now) = (*max_age, request.now);
                // A refreshed token has the time of the original login. A login time in the future, beyond the
                // tolerated difference of clocks, is rejected.
                let recent = |time: u64| {
                    time <= now.unix.saturating_add(principal.lead_max)
                        && now.unix.saturating_sub(time) <= u64::from(max_age)
                };
                let fresh = match max_age {
                    0 => principal.fresh,
                    _ => principal.authenticated.is_some_and(recent),
                };
                if fresh { Ok(()) } else { Err(Denial::FreshTokenRequired { max_age }) }
            }
            Self::Bound if principal.confirmation.is_some() => Ok(()),
            Self::Bound => Err(Denial::UnboundToken),
        }
    }
}

/// Returns whether [`Principal::roles`] contains all roles of the token.
///
/// Text is read as one role. If the text contains a separator, the issuer may have meant several roles.
fn are_all_roles_known(principal: &Principal) -> bool {
    match principal.shapes.roles {
        Shape::Absent | Shape::List | Shape::Names => true,
        Shape::Text => !principal.roles.iter().any(|role| role.contains([' ', ',', ';'])),
        Shape::Mixed | Shape::Object | Shape::Other => false,
    }
}

impl fmt::Display for Check {
    /// Describes the check for operators, for example `any role of admin, clerk`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Roles(any) => write!(f, "any role of {}", any.join(", ")),
            Self::AllRoles(all) => write!(f, "all roles of {}", all.join(", ")),
            Self::NotRoles(none) => write!(f, "none of the roles {}", none.join(", ")),
            Self::Scopes { all, .. } => write!(f, "all scopes of {}", all.join(", ")),
            Self::AnyScope { any, .. } => write!(f, "any scope of {}", any.join(", ")),
            Self::Issuers(any) => write!(f, "a token of {}", any.join(" or ")),
            Self::Claim { name, equals, .. } => write!(f, "claim {name} = {equals}"),
            Self::Fresh { max_age: 0 } => write!(f, "a token from a login"),
            Self::Fresh { max_age } => write!(f, "a login at most {max_age} seconds ago"),
            Self::Bound => write!(f, "a token that is bound to a key or certificate of its sender"),
        }
    }
}

/// The checks of a route.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    checks: Box<[Check]>,
}

impl Rule {
    /// Creates a rule from these checks. A rule without checks accepts every caller, including anonymous callers.
    pub fn new(checks: Vec<Check>) -> Self {
        Self { checks: checks.into() }
    }

    /// Returns the checks in the order in which they run.
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// Returns the first check that fails for this caller.
    pub fn first_failure(&self, principal: &Principal, request: &RequestFacts<'_>) -> Option<&Check> {
        self.checks.iter().find(|check| check.verdict(principal, request).is_err())
    }

    /// Explains to the operator why the rule refuses this caller. Names the first check that fails and the values in
    /// the caller's token. Returns `None` if all checks pass.
    pub fn why(&self, principal: &Principal, request: &RequestFacts<'_>) -> Option<String> {
        let check = self.first_failure(principal, request)?;
        let remark = |shape: Shape| shape.remark().map(|remark| format!(" ({remark})")).unwrap_or_default();
        let held = match check {
            Check::Roles(_) | Check::AllRoles(_) | Check::NotRoles(_) => {
                // Splitting the string could grant roles that the issuer did not intend.
                let whole = principal.shapes.roles == Shape::Text
                    && principal.roles.iter().any(|role| role.contains([' ', ',']));
                let whole = if whole { " (the claim is text, which is one role, whole)" } else { "" };
                let remark = remark(principal.shapes.roles);
                format!("; the caller's roles: [{}]{whole}{remark}", principal.roles.join(", "))
            }
            Check::Scopes { .. } | Check::AnyScope { .. } => {
                format!(
                    "; the token's scopes: [{}]{}",
                    principal.scopes.join(", "),
                    remark(principal.shapes.scopes)
                )
            }
            Check::Claim { claim, .. } if principal.claim(*claim).is_none() => {
                "; the token has no such claim".to_owned()
            }
            Check::Claim { equals, .. } => {
                equals.missing(request).map(|why| format!("; {why}")).unwrap_or_default()
            }
            Check::Issuers(_) => format!("; the token's issuer: {}", principal.issuer),
            Check::Bound => "; the token has no cnf".to_owned(),
            Check::Fresh { .. } => match principal.authenticated {
                Some(time) => format!("; the login was {} s ago", request.now.unix.saturating_sub(time)),
                None => "; the token does not say when its login was (auth_time)".to_owned(),
            },
        };
        Some(format!("the route asks for {check}{held}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::expected::asking;
    use super::*;
    use crate::authenticate::ClaimValue;
    use crate::authenticate::principal::Shapes;
    use crate::route::Params;

    /// Calls `ask` with the facts of a request at this time.
    fn at<T>(now: u64, ask: impl FnOnce(&RequestFacts<'_>) -> T) -> T {
        asking("h", &[], &Params::default(), now, ask)
    }

    fn names(names: &[&str]) -> Box<[Box<str>]> {
        names.iter().map(|name| Box::from(*name)).collect()
    }

    fn claim(equals: Expected) -> Check {
        Check::Claim { claim: ClaimId(0), name: "org.tenant".into(), equals }
    }

    #[test]
    fn a_check_reads_as_what_it_asks() {
        let literal = |json: serde_json::Value| claim(Expected::Literal(ClaimValue::from(&json)));
        for (check, text) in [
            (Check::Roles(names(&["admin", "clerk"])), "any role of admin, clerk"),
            (Check::AllRoles(names(&["admin", "clerk"])), "all roles of admin, clerk"),
            (
                Check::Scopes { all: names(&["a:read", "b"]), challenge: Arc::from("a:read b") },
                "all scopes of a:read, b",
            ),
            (Check::NotRoles(names(&["banned", "left"])), "none of the roles banned, left"),
            (
                Check::AnyScope { any: names(&["a:read", "b"]), challenge: Arc::from("a:read b") },
                "any scope of a:read, b",
            ),
            (Check::Issuers(names(&["https://a/", "https://b/"])), "a token of https://a/ or https://b/"),
            (
                claim(Expected::AnyOf(Box::new([ClaimValue::Bool(true), ClaimValue::Text("x".into())]))),
                "claim org.tenant = true or \"x\"",
            ),
            (
                claim(Expected::HostLabel("h.example".into())),
                "claim org.tenant = the * of the host *.h.example",
            ),
            (claim(Expected::HostName), "claim org.tenant = the host"),
            (
                claim(Expected::Header(http::HeaderName::from_static("x-t"))),
                "claim org.tenant = the header x-t",
            ),
            (literal(serde_json::json!("acme")), "claim org.tenant = \"acme\""),
            (literal(serde_json::json!(7)), "claim org.tenant = 7"),
            (literal(serde_json::json!(true)), "claim org.tenant = true"),
            (literal(serde_json::json!([1])), "claim org.tenant = an impossible value"),
            (
                claim(Expected::Param { position: 0, name: "tenant".into() }),
                "claim org.tenant = the path's {tenant}",
            ),
        ] {
            assert_eq!(check.to_string(), text);
        }
    }

    #[test]
    fn a_login_that_is_yet_to_come_is_not_fresh_beyond_what_clocks_may_differ() {
        // RFC 9068, section 2.2.1: `auth_time` is the time of the authentication, so a time in the future is invalid.
        for (authenticated, lead_max, fresh) in [
            (Some(1000), 0, true),
            (Some(940), 0, true),
            (Some(939), 0, false),
            (Some(1001), 0, false),
            (Some(1030), 30, true),
            (Some(1031), 30, false),
            (Some(253_402_300_799), 30, false),
            (None, 30, false),
        ] {
            let principal = Principal { authenticated, lead_max, ..principal(Shape::List) };
            let verdict = at(1000, |request| Check::Fresh { max_age: 60 }.verdict(&principal, request));
            assert_eq!(verdict.is_ok(), fresh, "{authenticated:?} {lead_max}");
        }
    }

    fn principal(roles: Shape) -> Principal {
        Principal {
            issuer: Arc::from("i"),
            subject: "s".into(),
            roles: names(&["clerk"]),
            scopes: names(&["a"]),
            shapes: Shapes { roles, scopes: Shape::List },
            ..Principal::for_tests()
        }
    }

    #[test]
    fn the_operator_reads_what_came_where_roles_were_looked_for() {
        // A string is one role, and an object yields no roles.
        let why = |roles: &[&str], shape: Shape| {
            let principal = Principal { roles: names(roles), ..principal(shape) };
            let rule = Rule::new(vec![Check::Roles(names(&["admin"]))]);
            at(0, |request| rule.why(&principal, request)).unwrap()
        };
        let begins = "the route asks for any role of admin; the caller's roles: ";
        for (roles, shape, rest) in [
            (&["user admin"][..], Shape::Text, "[user admin] (the claim is text, which is one role, whole)"),
            (&["user admin"], Shape::List, "[user admin]"),
            (&[], Shape::Object, "[] (the claim is an object, and its names are ignored)"),
            (&[], Shape::Absent, "[] (the claim is missing)"),
            (&["a"], Shape::Mixed, "[a] (elements of the list that are not text are ignored)"),
        ] {
            assert_eq!(why(roles, shape), format!("{begins}{rest}"));
        }
    }

    #[test]
    fn the_first_failure_is_returned_and_none_where_all_pass() {
        let principal = principal(Shape::List);
        let scope = |name: &str| Check::Scopes { all: names(&[name]), challenge: Arc::from(name) };
        let failure = |checks: Vec<Check>| {
            let rule = Rule::new(checks);
            at(0, |request| rule.first_failure(&principal, request).map(Check::to_string))
        };
        assert_eq!(failure(vec![Check::Roles(names(&["clerk"])), scope("a")]), None);
        assert_eq!(
            failure(vec![Check::Roles(names(&["clerk"])), scope("b"), Check::Roles(names(&["admin"]))]),
            Some("all scopes of b".to_owned())
        );
        assert_eq!(
            failure(vec![Check::Roles(names(&[]))]),
            Some("any role of ".to_owned()),
            "any of none is none"
        );
        assert_eq!(
            failure(vec![claim(Expected::Literal(ClaimValue::Other))]),
            Some("claim org.tenant = an impossible value".to_owned())
        );
    }
}
