//! Creates sample requests and callers, which represent all other requests and callers in the access matrix and in
//! comparisons of policies.
//!
//! There is one request for each method of each route. It is chosen so that no more specific route matches it, if
//! possible. There is one caller for each minimal set of grants that a rule requires. A rule never refuses a caller for
//! having more grants, so every allowed caller has at least the grants of one of the sample callers. The samples
//! therefore show every difference between two policies.

use crate::authenticate::ClaimValue;
use crate::authorize::{Check, Expected};
use crate::clock::Now;
use crate::explain::describe::covers;
use crate::policy::{Policy, Question, Route};
use crate::route::{Head, HostPattern, Matcher};
use http::{HeaderMap, Method};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The text that is inserted for a parameter in a path or for a wildcard in a host.
const SAMPLE: &str = "sample";
/// The text that is inserted instead of `SAMPLE` if a more specific route contains `SAMPLE` as a literal.
const ANOTHER: &str = "another-sample";
/// The host of a sample request to a route for all hosts. It is in a reserved top-level domain (RFC 6761 section 6.4).
pub(super) const ANY_HOST: &str = "sample.invalid";
/// The subject of a token if the rule requires no particular subject. No sample path contains this text.
const SOMEBODY: &str = "somebody";
/// The maximum number of segments that are tried for `{*rest}`. More specific routes may match paths with fewer
/// segments.
const REST_MAX: usize = 4;

/// A request that represents all requests that a route matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// The position of the route in [`Policy::routes`]. A more specific route may match the request instead.
    pub route: usize,
    /// The host and path, as the policy writes them.
    pub covers: String,
    /// The method.
    pub method: Method,
    /// The URL.
    pub url: String,
}

/// Returns one request for each host, path and method of the policy's routes, in the order of the route table. For a
/// route that matches all methods, these are the standard methods and all other methods that the policy names.
pub(super) fn requests(policy: &Policy) -> impl Iterator<Item = Sample> + '_ {
    requests_to(policy, |_| true)
}

/// Returns the sample requests of the routes for which `is_wanted` is true. An endpoint of the authority has requests
/// for each host that the policy names.
pub(super) fn requests_to<'p>(
    policy: &'p Policy,
    is_wanted: impl Fn(&Route) -> bool + 'p,
) -> impl Iterator<Item = Sample> + 'p {
    let named: BTreeSet<&str> = policy
        .table
        .iter()
        .filter(|(matcher, _)| !matcher.methods.is_any())
        .flat_map(|(matcher, _)| matcher.methods.iter().map(Method::as_str))
        .collect();
    let wanted = policy.table.iter().filter(move |(_, route)| is_wanted(&policy.routes[**route]));
    wanted.flat_map(move |(matcher, &route)| {
        let url = url(policy, matcher, route);
        let covers = covers(matcher);
        let mut methods: Vec<Method> = matcher.methods.iter().cloned().collect();
        if matcher.methods.is_any() {
            let others = named.iter().filter(|name| !methods.iter().any(|method| method == **name));
            let others: Vec<_> = others.filter_map(|name| Method::from_bytes(name.as_bytes()).ok()).collect();
            methods.extend(others);
        }
        methods.into_iter().map(move |method| Sample {
            route,
            covers: covers.clone(),
            method,
            url: url.clone(),
        })
    })
}

/// Returns a URL that no more specific route matches, if there is one, and otherwise any URL that the route's pattern
/// matches.
fn url(policy: &Policy, matcher: &Matcher, route: usize) -> String {
    let method = matcher.methods.iter().next().cloned().unwrap_or(Method::GET);
    let candidates = candidates(matcher);
    let own = candidates.iter().find(|(host, path)| {
        let headers = HeaderMap::new();
        let head = Head {
            method: &method,
            host: Some(Cow::Borrowed(&**host)),
            port: None,
            path: Cow::Borrowed(&**path),
            query: None,
            headers: &headers,
        };
        policy.table.find(&head).is_ok_and(|found| *found.entry == route)
    });
    let (host, path) = own.or(candidates.first()).cloned().unwrap_or_default();
    format!("https://{host}{path}")
}

/// Returns hosts and paths that a route's pattern matches, the simplest first.
fn candidates(matcher: &Matcher) -> Vec<(String, String)> {
    let pattern = matcher.path.to_string();
    let mut all = Vec::new();
    for word in [SAMPLE, ANOTHER] {
        let host = match &matcher.host {
            HostPattern::Any => ANY_HOST.to_owned(),
            HostPattern::Below(parent) => format!("{word}.{parent}"),
            HostPattern::Exact(host) => host.to_string(),
        };
        for rest in rests(word) {
            let segments = pattern.split('/').map(|segment| match segment {
                // A segment that begins with a brace is a parameter, since a literal brace is written as %7B in a
                // pattern.
                _ if segment.starts_with("{*") => rest.as_str(),
                _ if segment.starts_with('{') => word,
                literal => literal,
            });
            let candidate = (host.clone(), segments.collect::<Vec<_>>().join("/"));
            if !all.contains(&candidate) {
                all.push(candidate);
            }
        }
    }
    all
}

/// Returns the values that are tried for `{*rest}`.
fn rests(word: &str) -> impl Iterator<Item = String> + '_ {
    (1..=REST_MAX).map(move |length| vec![word; length].join("/")).chain([String::new()])
}

/// The caller of a sample request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Caller {
    /// A caller without a token.
    Nobody,
    /// A caller with a valid token that contains these grants.
    WithToken(Grants),
}

/// The grants that a token contains.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Grants {
    /// The roles.
    pub roles: BTreeSet<String>,
    /// The scopes.
    pub scopes: BTreeSet<String>,
    /// The claims by path, each with its value as JSON. `None` represents the value of a parameter in the request's
    /// path.
    pub claims: BTreeMap<String, Option<String>>,
    /// Whether the token comes from a fresh login.
    pub fresh: bool,
}

/// Returns the minimal sets of grants that satisfy a route's rule. If any of several roles is sufficient, there is one
/// set for each role.
pub(super) fn minimal_grants(policy: &Policy, route: &Route) -> Vec<Grants> {
    let mut least = Grants::default();
    let mut any: Option<&[Box<str>]> = None;
    for check in route.rule.checks() {
        match check {
            Check::Roles(roles) => any = Some(roles),
            Check::AllRoles(roles) => least.roles.extend(roles.iter().map(ToString::to_string)),
            Check::Scopes { all, .. } => least.scopes.extend(all.iter().map(ToString::to_string)),
            Check::Claim { claim, equals, .. } => {
                let path = policy.trust.claims().get(usize::from(claim.0)).map(ToString::to_string);
                let value = match equals {
                    Expected::Literal(literal) => Some(json(literal).to_string()),
                    Expected::Param { .. } => None,
                };
                least.claims.insert(path.unwrap_or_default(), value);
            }
            Check::Fresh { .. } => least.fresh = true,
        }
    }
    match any {
        None => vec![least],
        Some(roles) => {
            let with = |role: &str| {
                let mut grants = least.clone();
                grants.roles.insert(role.to_owned());
                grants
            };
            let distinct: BTreeSet<Grants> = roles.iter().map(|role| with(role)).collect();
            distinct.into_iter().collect()
        }
    }
}

fn json(value: &ClaimValue) -> Value {
    match value {
        ClaimValue::Text(text) => Value::from(&**text),
        ClaimValue::Number(number) => Value::Number(number.clone()),
        ClaimValue::Bool(flag) => Value::Bool(*flag),
        ClaimValue::List(values) => values.iter().map(json).collect(),
        ClaimValue::Other => Value::Null,
    }
}

impl Grants {
    /// Whether these grants include all grants of `other`.
    pub(super) fn includes(&self, other: &Self) -> bool {
        self.roles.is_superset(&other.roles)
            && self.scopes.is_superset(&other.scopes)
            && other.claims.iter().all(|(path, value)| self.claims.get(path) == Some(value))
            && (self.fresh || !other.fresh)
    }

    /// Returns the claims of a token with these grants, in the form of the policy's first issuer.
    pub(super) fn claims(&self, policy: &Policy, now: Now) -> Map<String, Value> {
        let mut claims = Map::new();
        let roles: Vec<Value> = self.roles.iter().map(|role| Value::from(&**role)).collect();
        let scopes: Vec<&str> = self.scopes.iter().map(String::as_str).collect();
        if let Some(issuer) = policy.trust.issuers().first() {
            issuer.roles.put(&mut claims, Value::Array(roles));
            issuer.scopes.put(&mut claims, Value::from(scopes.join(" ")));
        }
        for path in policy.trust.claims() {
            match self.claims.get(&path.to_string()) {
                Some(Some(value)) => {
                    let value = serde_json::from_str(value).unwrap_or(Value::Null);
                    path.put(&mut claims, value);
                }
                Some(None) if path.is_name("sub") => {
                    path.put(&mut claims, SAMPLE.into());
                }
                // The claim is a list of all values that a sample path may contain, so it matches any of them.
                Some(None) => {
                    let said = [SAMPLE, ANOTHER].into_iter().flat_map(rests).map(Value::from);
                    path.put(&mut claims, said.collect());
                }
                None => {}
            }
        }
        if self.fresh {
            claims.insert("fresh".to_owned(), Value::Bool(true));
            claims.insert("auth_time".to_owned(), now.unix.into());
        }
        claims.entry("sub").or_insert_with(|| SOMEBODY.into());
        claims
    }
}

impl Caller {
    /// Returns the request with the credential of this caller.
    pub(super) fn question(&self, policy: &Policy, question: Question) -> Question {
        match self {
            Self::Nobody => question,
            Self::WithToken(grants) => {
                let claims = grants.claims(policy, question.now);
                question.claims(claims)
            }
        }
    }
}

impl fmt::Display for Caller {
    /// Formats the caller for operators, such as `without a token`, `any token` or `role clerk and scope orders:read`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("without a token"),
            Self::WithToken(grants) => grants.fmt(f),
        }
    }
}

impl fmt::Display for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        parts.extend(self.roles.iter().map(|role| format!("role {role}")));
        parts.extend(self.scopes.iter().map(|scope| format!("scope {scope}")));
        parts.extend(self.claims.iter().map(|(path, value)| match value {
            Some(value) => format!("claim {path} = {value}"),
            None => format!("claim {path} as in the path"),
        }));
        if self.fresh {
            parts.push("a fresh login".to_owned());
        }
        f.write_str(if parts.is_empty() { "any token" } else { "" })?;
        f.write_str(&parts.join(" and "))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::explain::Examiner;
    use crate::keyring::MissingKey;

    /// Compiles a policy that consists of an issuer, an echo upstream and the given text.
    pub(in crate::review) fn policy(rest: &str) -> Policy {
        let text = format!(
            "[[issuer]]\nissuer = \"https://id.example.com/\"\naudience = [\"a\"]\nalgorithms = [\"HS256\"]\n\
             secret = \"0123456789abcdef0123456789abcdef\"\n[upstream.echo]\nbuiltin = \"echo\"\n{rest}"
        );
        let loaded = crate::config::load_text("gateway.toml", text, ".".into(), Vec::new());
        crate::policy::compile(&loaded.unwrap(), MissingKey::Ephemeral).unwrap().policy
    }

    /// Returns the callers that the policies distinguish: a caller without a token, a caller whose token contains no
    /// grants, and for each rule the callers with exactly the required grants.
    fn callers(policies: &[&Policy]) -> Vec<Caller> {
        let mut callers = vec![Caller::Nobody, Caller::WithToken(Grants::default())];
        let mut known: BTreeSet<Caller> = callers.iter().cloned().collect();
        for policy in policies {
            for route in policy.routes.iter() {
                for grants in minimal_grants(policy, route) {
                    let caller = Caller::WithToken(grants);
                    if known.insert(caller.clone()) {
                        callers.push(caller);
                    }
                }
            }
        }
        callers
    }

    fn route(path: &str, rest: &str) -> String {
        format!("[[route]]\npath = \"{path}\"\nupstream = \"echo\"\n{rest}\n")
    }

    #[test]
    fn each_route_has_a_request_that_it_covers_itself_where_there_is_one() {
        let routes = [
            ("/orders/{id}", ""),
            ("/orders/sample", ""),
            ("/orders/{*rest}", ""),
            ("/{*rest}", "host = \"*.example.com\""),
            ("/x%20y", "host = \"api.example.com\"\nmethods = [\"GET\", \"PURGE\"]"),
        ];
        let policy = policy(&routes.map(|(path, rest)| route(path, rest)).concat());
        let samples: Vec<_> = requests(&policy).collect();
        let url = |route: usize| &*samples.iter().find(|sample| sample.route == route).unwrap().url;
        assert_eq!(url(0), "https://sample.invalid/orders/another-sample");
        assert_eq!(url(1), "https://sample.invalid/orders/sample");
        assert_eq!(url(2), "https://sample.invalid/orders/sample/sample");
        assert_eq!(url(3), "https://sample.example.com/sample");
        assert_eq!(url(4), "https://api.example.com/x%20y");
        let examiner = Examiner::new(&policy);
        for sample in &samples {
            let question = Question::new(sample.method.as_str(), &sample.url).unwrap();
            assert_eq!(examiner.verdict(&question).route, Some(sample.route), "{sample:?}");
        }
        let methods =
            |route| samples.iter().filter(move |sample| sample.route == route).map(|s| s.method.as_str());
        assert_eq!(methods(4).collect::<Vec<_>>(), ["GET", "HEAD", "PURGE"]);
        assert!(methods(0).any(|method| method == "PURGE"), "a route for all methods is asked with it too");
        assert_eq!(samples[0].covers, "/orders/{id}");
        assert_eq!(samples.last().unwrap().covers, "api.example.com/x%20y");
    }

    #[test]
    fn whoever_holds_what_a_rule_asks_for_passes_and_with_less_nobody_does() {
        let policy = policy(
            &[
                route(
                    "/a",
                    "roles = [\"admin\", \"clerk\"]\nall_roles = [\"staff\"]\nscopes = [\"x\", \"y\"]",
                ),
                route(
                    "/t/{tenant}/{*rest}",
                    "claims = { \"org.tenant\" = \"{tenant}\", level = 7, path = \"{rest}\" }",
                ),
                route("/u/{user}", "claims = { sub = \"{user}\" }"),
                route("/fresh", "fresh = \"10m\""),
                route("/open", "access = \"public\""),
            ]
            .concat(),
        );
        let callers = callers(&[&policy, &policy]);
        let names: Vec<_> = callers.iter().map(ToString::to_string).collect();
        assert_eq!(
            names,
            [
                "without a token",
                "any token",
                "role admin and role staff and scope x and scope y",
                "role clerk and role staff and scope x and scope y",
                "claim level = 7 and claim org.tenant as in the path and claim path as in the path",
                "claim sub as in the path",
                "a fresh login",
            ]
        );
        let examiner = Examiner::new(&policy);
        for sample in requests(&policy) {
            let ask = |caller: &Caller| {
                let question = Question::new(sample.method.as_str(), &sample.url).unwrap();
                examiner.verdict(&caller.question(&policy, question)).reaches()
            };
            let own = minimal_grants(&policy, &policy.routes[sample.route]);
            for grants in &own {
                assert!(ask(&Caller::WithToken(grants.clone())), "{sample:?} {grants}");
            }
            let others = callers.iter().filter(|caller| match caller {
                Caller::Nobody => true,
                Caller::WithToken(grants) => !own.iter().any(|own| grants.includes(own)),
            });
            for caller in others {
                assert_eq!(ask(caller), sample.covers == "/open", "{sample:?} {caller}");
            }
        }
    }
}
