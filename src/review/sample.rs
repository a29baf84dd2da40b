//! Creates sample requests and callers for the access matrix and for comparisons of policies.
//!
//! There is one request for each method of each route. There is one caller for each minimal set of grants that a rule
//! requires. These callers are sufficient: additional grants never make a rule reject a caller. The only exception is
//! an excluded role, which the module `diff` adds.

use crate::authenticate::{ClaimValue, Thumbprint};
use crate::authorize::{Check, Expected};
use crate::explain::describe::covers;
use crate::policy::{Policy, Question, Route};
use crate::route::{Fields, Head, HostPattern, Matcher};
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The sample value of path parameters and host wildcards.
const SAMPLE: &str = "sample";
/// The sample value if a more specific route contains `SAMPLE` as a literal.
const ANOTHER: &str = "another-sample";
/// The host in sample requests to a route for all hosts. Its top-level domain is reserved (RFC 6761 section 6.4).
pub(super) const ANY_HOST: &str = "sample.invalid";
/// The sample value of a header that a claim must equal.
const SAMPLE_HEADER: &str = "sample-header";
/// The subject of a token if the rule requires no specific subject. No sample path contains this text.
const SOMEBODY: &str = "somebody";
/// The maximum number of segments for `{*rest}`. More segments may be needed to avoid a more specific route.
const REST_MAX: usize = 4;

/// A sample request of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// The index of the route in [`Policy::routes`]. A more specific route may cover the request instead.
    pub route: usize,
    /// The host and path pattern, as written in the policy.
    pub covers: String,
    /// The method.
    pub method: Method,
    /// The URL.
    pub url: String,
    /// The header fields that the route requires.
    pub fields: Fields,
}

/// Returns one request for each host, path and method, in the order of the route table. A route for all methods has a
/// request for each standard method and each method that the policy names.
pub(super) fn requests(policy: &Policy) -> impl Iterator<Item = Sample> + '_ {
    requests_to(policy, |_| true)
}

impl Sample {
    /// Returns the request as a [`Question`] without a credential. The result is never `None`, because the URL is
    /// valid.
    pub(super) fn question(&self) -> Option<Question> {
        question(&self.method, &self.url, &self.fields)
    }
}

/// Returns a [`Question`] for a request with these header fields.
pub(super) fn question(method: &Method, url: &str, fields: &Fields) -> Option<Question> {
    let mut question = Question::new(method.as_str(), url).ok()?;
    fields.set(&mut question.parts.headers);
    Some(question)
}

/// Returns the sample requests of the routes for which `is_wanted` returns true. An endpoint of the authority has a
/// request for each host that the policy names.
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
            fields: matcher.fields.clone(),
        })
    })
}

/// Returns a URL of the route, if possible one that no more specific route covers.
fn url(policy: &Policy, matcher: &Matcher, route: usize) -> String {
    let method = matcher.methods.iter().next().cloned().unwrap_or(Method::GET);
    let candidates = candidates(matcher);
    let own = candidates.iter().find(|(host, path)| {
        let mut headers = HeaderMap::new();
        matcher.fields.set(&mut headers);
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

/// Returns URLs that a matcher covers, simplest first. More specific routes may cover some of them.
pub(super) fn urls(matcher: &Matcher) -> impl Iterator<Item = String> {
    candidates(matcher).into_iter().map(|(host, path)| format!("https://{host}{path}"))
}

/// Returns hosts and paths that a route covers, simplest first.
fn candidates(matcher: &Matcher) -> Vec<(String, String)> {
    let pattern = matcher.path.to_string();
    let mut all = Vec::new();
    for word in [SAMPLE, ANOTHER] {
        let host = match &matcher.host {
            HostPattern::Any => ANY_HOST.to_owned(),
            HostPattern::Below(parent) => format!("{word}-host.{parent}"),
            HostPattern::Exact(host) => host.to_string(),
        };
        for rest in rests(word) {
            let segments = pattern.split('/').map(|segment| match segment {
                // A literal brace is written as `%7B`, so a segment that begins with a brace is a parameter.
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

/// Returns values to try for `{*rest}`.
fn rests(word: &str) -> impl Iterator<Item = String> + '_ {
    (1..=REST_MAX).map(move |length| vec![word; length].join("/")).chain([String::new()])
}

/// The caller of a sample request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Caller {
    /// A caller without a token.
    Nobody,
    /// A caller with a valid token that has these grants.
    WithToken(Grants),
}

/// The grants of a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Grants {
    /// The roles.
    pub roles: BTreeSet<String>,
    /// The scopes.
    pub scopes: BTreeSet<String>,
    /// The values of claims, by claim path.
    pub claims: BTreeMap<String, BTreeSet<ClaimGrant>>,
    /// The issuer. `None` means the first issuer of the policy.
    pub issuer: Option<String>,
    /// Whether the login is fresh.
    pub fresh: bool,
    /// Whether the token is bound to a key.
    pub bound: bool,
}

/// Returns the `cnf` claim of a bound token.
pub(super) fn some_binding() -> Value {
    serde_json::json!({ "jkt": Thumbprint([0; 32]).to_string() })
}

/// The value of a claim.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ClaimGrant {
    /// A fixed value, as JSON.
    Value(String),
    /// The value of the path parameter.
    InPath,
    /// The host of the request.
    InHost,
    /// The label of the host that the wildcard covers.
    InHostLabel,
    /// The value of this header.
    InHeader(String),
}

/// Returns the minimal sets of grants that satisfy a rule, one for each combination of alternatives. The compiler
/// limits the number of combinations.
pub(super) fn minimal_grants(policy: &Policy, route: &Route) -> Vec<Grants> {
    let mut ways = BTreeSet::from([Grants::default()]);
    let mut excluded: BTreeSet<&str> = BTreeSet::new();
    for check in route.rule.checks() {
        match check {
            Check::Roles(any) => ways = each(&ways, any, |way, role| way.roles.insert(role.to_string())),
            Check::AllRoles(all) => {
                ways = all_of(ways, |way| way.roles.extend(all.iter().map(ToString::to_string)));
            }
            Check::NotRoles(none) => excluded.extend(none.iter().map(|role| &**role)),
            Check::Scopes { all, .. } => {
                ways = all_of(ways, |way| way.scopes.extend(all.iter().map(ToString::to_string)));
            }
            Check::AnyScope { any, .. } => {
                ways = each(&ways, any, |way, scope| way.scopes.insert(scope.to_string()));
            }
            Check::Issuers(any) => {
                ways = each(&ways, any, |way, issuer| {
                    let is_possible = way.issuer.as_deref().is_none_or(|known| known == &**issuer);
                    way.issuer = Some(issuer.to_string());
                    is_possible
                });
            }
            Check::Claim { claim, equals, .. } => {
                let path = policy.trust.claims().get(usize::from(claim.0)).map(ToString::to_string);
                let path = path.unwrap_or_default();
                ways = each(&ways, &claim_grants(equals), |way, value| {
                    way.claims.entry(path.clone()).or_default().insert(value.clone());
                    true
                });
            }
            Check::Fresh { .. } => ways = all_of(ways, |way| way.fresh = true),
            Check::Bound => ways = all_of(ways, |way| way.bound = true),
        }
    }
    ways.retain(|way| !way.roles.iter().any(|role| excluded.contains(role.as_str())));
    ways.into_iter().collect()
}

/// Combines each set of grants with each alternative. Drops a combination if `add` returns false, unless the set
/// already contains the alternative.
fn each<T>(ways: &BTreeSet<Grants>, any: &[T], add: impl Fn(&mut Grants, &T) -> bool) -> BTreeSet<Grants> {
    let with = |way: &Grants, one: &T| {
        let mut more = way.clone();
        let is_added = add(&mut more, one);
        (is_added || more == *way).then_some(more)
    };
    ways.iter().flat_map(|way| any.iter().filter_map(move |one| with(way, one))).collect()
}

fn all_of(ways: BTreeSet<Grants>, add: impl Fn(&mut Grants)) -> BTreeSet<Grants> {
    let with = |mut way: Grants| {
        add(&mut way);
        way
    };
    ways.into_iter().map(with).collect()
}

/// Returns the values that satisfy a check of a claim.
fn claim_grants(expected: &Expected) -> Vec<ClaimGrant> {
    match expected {
        Expected::Literal(literal) => vec![ClaimGrant::Value(json(literal).to_string())],
        Expected::AnyOf(literals) => {
            literals.iter().map(|literal| ClaimGrant::Value(json(literal).to_string())).collect()
        }
        Expected::Param { .. } => vec![ClaimGrant::InPath],
        Expected::HostLabel(_) => vec![ClaimGrant::InHostLabel],
        Expected::HostName => vec![ClaimGrant::InHost],
        Expected::Header(name) => vec![ClaimGrant::InHeader(name.to_string())],
    }
}

/// Returns the roles that a rule excludes. Only an excluded role can make a rule reject a caller with more grants.
pub(super) fn excluded_roles(route: &Route) -> impl Iterator<Item = String> + '_ {
    route.rule.checks().iter().flat_map(|check| match check {
        Check::NotRoles(none) => none.iter().map(ToString::to_string).collect(),
        Check::Roles(_)
        | Check::AllRoles(_)
        | Check::Scopes { .. }
        | Check::AnyScope { .. }
        | Check::Issuers(_)
        | Check::Claim { .. }
        | Check::Fresh { .. }
        | Check::Bound => Vec::new(),
    })
}

/// Whether a rule accepts only some issuers.
pub(super) fn names_issuers(route: &Route) -> bool {
    route.rule.checks().iter().any(|check| matches!(check, Check::Issuers(_)))
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

impl ClaimGrant {
    /// Returns the values of the claim for a request.
    fn values(&self, question: &Question) -> Vec<Value> {
        let host = || {
            let host = question.parts.headers.get(HOST).and_then(|host| host.to_str().ok());
            host.unwrap_or_default().to_owned()
        };
        match self {
            Self::Value(value) => vec![serde_json::from_str(value).unwrap_or(Value::Null)],
            // Every value that a sample path may contain.
            Self::InPath => [SAMPLE, ANOTHER].into_iter().flat_map(rests).map(Value::from).collect(),
            Self::InHost => vec![host().into()],
            Self::InHostLabel => vec![host().split('.').next().unwrap_or_default().into()],
            Self::InHeader(name) => {
                let sent = question.parts.headers.get(name).and_then(|value| value.to_str().ok());
                vec![sent.unwrap_or(SAMPLE_HEADER).into()]
            }
        }
    }
}

impl Grants {
    /// Whether these grants include all grants in `other`.
    pub(super) fn includes(&self, other: &Self) -> bool {
        let has = |(path, values): (&String, &BTreeSet<ClaimGrant>)| {
            self.claims.get(path).is_some_and(|own| own.is_superset(values))
        };
        self.roles.is_superset(&other.roles)
            && self.scopes.is_superset(&other.scopes)
            && other.claims.iter().all(has)
            && (other.issuer.is_none() || self.issuer == other.issuer)
            && (self.fresh || !other.fresh)
            && (self.bound || !other.bound)
    }

    /// Whether the token has no grants. Ignores the issuer.
    pub(super) fn is_bare(&self) -> bool {
        *self == Self { issuer: self.issuer.clone(), ..Self::default() }
    }

    /// Returns the claims of a token with these grants. The issuer determines the claims of roles and scopes.
    /// `question` is the request, which some grants depend on.
    pub(super) fn claims(&self, policy: &Policy, question: &Question) -> Map<String, Value> {
        let mut claims = Map::new();
        let roles: Vec<Value> = self.roles.iter().map(|role| Value::from(&**role)).collect();
        let scopes: Vec<&str> = self.scopes.iter().map(String::as_str).collect();
        let issuers = policy.trust.issuers();
        let issuer = match &self.issuer {
            Some(name) => issuers.iter().find(|issuer| issuer.is_named(name)),
            None => issuers.first(),
        };
        if let Some(issuer) = issuer {
            issuer.roles.put(&mut claims, Value::Array(roles));
            issuer.scopes.put(&mut claims, Value::from(scopes.join(" ")));
        }
        for path in policy.trust.claims() {
            let Some(grants) = self.claims.get(&path.to_string()) else { continue };
            let mut values: Vec<Value> = grants.iter().flat_map(|grant| grant.values(question)).collect();
            // `sub` cannot be a list, so it is the first possible value.
            let is_one = values.len() == 1 || (path.is_name("sub") && grants.len() == 1);
            let value = if is_one { values.swap_remove(0) } else { Value::Array(values) };
            path.put(&mut claims, value);
        }
        if let Some(name) = &self.issuer {
            claims.entry("iss").or_insert_with(|| name.as_str().into());
        }
        if self.fresh {
            claims.insert("fresh".to_owned(), Value::Bool(true));
            claims.insert("auth_time".to_owned(), question.now.unix.into());
        }
        if self.bound {
            claims.insert("cnf".to_owned(), some_binding());
        }
        claims.entry("sub").or_insert_with(|| SOMEBODY.into());
        claims
    }
}

impl Caller {
    /// Adds the credential of this caller, and the header fields that its claims must equal.
    pub(super) fn question(&self, policy: &Policy, mut question: Question) -> Question {
        match self {
            Self::Nobody => question,
            Self::WithToken(grants) => {
                for grant in grants.claims.values().flatten() {
                    if let ClaimGrant::InHeader(name) = grant
                        && let Ok(name) = name.parse::<HeaderName>()
                    {
                        let sample = HeaderValue::from_static(SAMPLE_HEADER);
                        question.parts.headers.entry(name).or_insert(sample);
                    }
                }
                let claims = grants.claims(policy, &question);
                question.claims(claims)
            }
        }
    }
}

impl fmt::Display for Caller {
    /// Formats the caller for operators: `without a token`, `any token`, or `role clerk and scope orders:read`.
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
        for (path, values) in &self.claims {
            parts.extend(values.iter().map(|value| match value {
                ClaimGrant::Value(value) => format!("claim {path} = {value}"),
                ClaimGrant::InPath => format!("claim {path} as in the path"),
                ClaimGrant::InHost | ClaimGrant::InHostLabel => format!("claim {path} as in the host"),
                ClaimGrant::InHeader(name) => format!("claim {path} as in the header {name}"),
            }));
        }
        parts.extend(self.issuer.iter().map(|issuer| format!("a token of {issuer}")));
        if self.fresh {
            parts.push("a fresh login".to_owned());
        }
        if self.bound {
            parts.push("a bound token".to_owned());
        }
        f.write_str(if parts.is_empty() { "any token" } else { "" })?;
        f.write_str(&parts.join(" and "))
    }
}

#[cfg(test)]
pub(super) mod tests;
