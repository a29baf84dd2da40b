//! Compiles the rule of a `[[route]]`: the checks of its `[rule.NAME]` tables, then the checks of its own keys.
//!
//! A `[rule.NAME]` table only adds checks, so it never makes a route less strict. To add a kind of check, add its key
//! to [`draft`] and a function that returns the check.

use super::claim_values::{Wanted, wanted};
use super::claims::{Claims, claim_path};
use super::profile::tenant_names;
use super::{Faults, contradictions};
use crate::authenticate::{
    API_KEY_ISSUER, CLIENT_CERTIFICATE_ISSUER, ClaimId, IdentityHeaders, Source, Sources,
};
use crate::authorize::{Check, Expected, Rule};
use crate::config::file::{self, File, RouteSection};
use crate::config::requirements::Requirements;
use crate::config::values::{Fresh, TokenSource};
use crate::route::Matcher;
use http::HeaderName;
use http::header::SEC_WEBSOCKET_PROTOCOL;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The checks of one table. Checks of claims are completed for each route, because they may refer to its path or host.
type Draft = Vec<Drafted>;

#[derive(Clone)]
enum Drafted {
    Ready(Check),
    Claim { claim: ClaimId, name: Box<str>, wanted: Wanted },
}

/// The `[rule.NAME]` tables by name. `None` if a fault of the table has already been reported.
pub(super) struct NamedRules<'f> {
    drafts: BTreeMap<&'f str, Option<Draft>>,
}

/// The parts of the policy that a rule may refer to.
pub(super) struct RuleContext<'r> {
    pub(super) file: &'r File,
    pub(super) identity: &'r IdentityHeaders,
}

/// The parts of a route that its rule may refer to. `matcher` is `None` if its fault has already been reported.
pub(super) struct RouteContext<'r> {
    pub(super) matcher: Option<&'r Matcher>,
    pub(super) sources: &'r Sources,
}

/// Compiles the `[rule.NAME]` tables.
pub(super) fn named<'f>(
    context: &RuleContext<'f>,
    claims: &mut Claims,
    faults: &mut Faults<'_>,
) -> NamedRules<'f> {
    let mut drafts = BTreeMap::new();
    for (name, table) in &context.file.rule {
        let key = format!("rule.{name}");
        let draft = draft(&key, table.requirements(), context, claims, faults);
        if draft.as_ref().is_some_and(Vec::is_empty) {
            faults.fault(
                "missing_key",
                &key,
                "no requirement: the rule would accept every token",
                "roles, all_roles, not_roles, scopes, any_scopes, claims, issuers, fresh or require_bound",
            );
        }
        drafts.insert(name.as_str(), draft);
    }
    NamedRules { drafts }
}

/// Compiles the rule of a route. Returns `None` if a key has a fault. The checks run in the order of this function.
pub(super) fn compile(
    key: &str,
    table: &RouteSection,
    route: &RouteContext<'_>,
    rules: &NamedRules<'_>,
    context: &RuleContext<'_>,
    claims: &mut Claims,
    faults: &mut Faults<'_>,
) -> Option<Rule> {
    let before = faults.fault_count;
    let mut checks = Vec::new();
    let mut is_whole = true;
    for (index, name) in table.rule.iter().enumerate() {
        let at = format!("{key}.rule[{index}]");
        match rules.drafts.get(name.as_str()) {
            Some(Some(draft)) => {
                for drafted in draft {
                    checks.extend(resolve(&|_| at.clone(), drafted, Some(name), route, faults));
                }
                if requires_bound(draft) {
                    check_bound(&at, Some(name), table, faults);
                }
            }
            Some(None) => is_whole = false,
            None => faults.undefined(&at, "rule", name, rules.drafts.keys().copied()),
        }
    }
    let own = draft(key, table.requirements(), context, claims, faults);
    for drafted in own.iter().flatten() {
        let at = |claim: &str| format!("{key}.claims.{claim}");
        checks.extend(resolve(&at, drafted, None, route, faults));
    }
    if table.require_bound {
        check_bound(&format!("{key}.require_bound"), None, table, faults);
    }
    if faults.fault_count > before || own.is_none() || !is_whole || route.matcher.is_none() {
        return None;
    }
    if table.access == file::Access::Public && !checks.is_empty() {
        faults.fault(
            "impossible_rule",
            &format!("{key}.access"),
            "\"public\" with a rule, roles, scopes, claims, issuers, fresh or require_bound: a public route does not read tokens",
            "set access = \"authenticated\", or remove them",
        );
        return None;
    }
    contradictions::check(key, &checks, faults)?;
    join_challenges(&mut checks);
    Some(Rule::new(checks))
}

/// Sets the challenge of each scope check to the scopes of all scope checks. Otherwise, a client that requests the
/// challenged scopes would be rejected by the next check (RFC 6750 section 3.1).
fn join_challenges(checks: &mut [Check]) {
    let required = |check: &Check| match check {
        Check::Scopes { all, .. } => all.iter().map(ToString::to_string).collect(),
        Check::Roles(_)
        | Check::AllRoles(_)
        | Check::NotRoles(_)
        | Check::AnyScope { .. }
        | Check::Issuers(_)
        | Check::Claim { .. }
        | Check::Fresh { .. }
        | Check::Bound => Vec::new(),
    };
    let mut scopes: Vec<String> = Vec::new();
    for scope in checks.iter().flat_map(required) {
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    let joined: Arc<str> = Arc::from(scopes.join(" "));
    for check in checks {
        if let Check::Scopes { challenge, .. } = check {
            *challenge = joined.clone();
        }
    }
}

/// Compiles the keys of one table. Returns `None` if a key has a fault.
fn draft(
    key: &str,
    table: Requirements<'_>,
    context: &RuleContext<'_>,
    claims: &mut Claims,
    faults: &mut Faults<'_>,
) -> Option<Draft> {
    let before = faults.fault_count;
    let mut checks = Vec::new();
    checks.extend(issuers(key, table, context, faults));
    checks.extend(names(key, "roles", table.roles, faults).map(Check::Roles));
    checks.extend(names(key, "all_roles", table.all_roles, faults).map(Check::AllRoles));
    checks.extend(names(key, "not_roles", table.not_roles, faults).map(Check::NotRoles));
    checks.extend(
        scope_names(key, "scopes", table.scopes, faults)
            .map(|all| Check::Scopes { all, challenge: Arc::from(table.scopes.join(" ")) }),
    );
    checks.extend(
        scope_names(key, "any_scopes", table.any_scopes, faults)
            .map(|any| Check::AnyScope { any, challenge: Arc::from(table.any_scopes.join(" ")) }),
    );
    checks.extend(fresh(key, table.fresh, faults));
    let mut drafts: Draft = checks.into_iter().map(Drafted::Ready).collect();
    let mut are_claims_known = true;
    for (name, values) in table.claims {
        let key = format!("{key}.claims.{name}");
        let path = claim_path(&key, name, faults);
        let wanted = wanted(&key, values, context.identity, faults);
        let (Some(path), Some(wanted)) = (path, wanted) else {
            are_claims_known = false;
            continue;
        };
        drafts.push(Drafted::Claim { claim: claims.id(path), name: name.as_str().into(), wanted });
    }
    drafts.extend(table.require_bound.then_some(Drafted::Ready(Check::Bound)));
    (faults.fault_count == before && are_claims_known).then_some(drafts)
}

/// Completes a check for a route. `at` returns the key of a claim check for reports. `rule` is the name of the
/// `[rule.NAME]` table, or `None` for a key of the route itself.
fn resolve(
    at: &dyn Fn(&str) -> String,
    drafted: &Drafted,
    rule: Option<&str>,
    route: &RouteContext<'_>,
    faults: &mut Faults<'_>,
) -> Option<Check> {
    let (claim, name, wanted) = match drafted {
        Drafted::Ready(check) => return Some(check.clone()),
        Drafted::Claim { claim, name, wanted } => (*claim, name, wanted),
    };
    let matcher = route.matcher?;
    let mut fault = |id: &'static str, found: String, hint: &str| {
        let rule = rule.map(|rule| format!("rule \"{rule}\": ")).unwrap_or_default();
        faults.fault(id, &at(name), rule + &found, hint);
        None
    };
    let equals = match wanted {
        Wanted::Fixed(expected) => Some(expected.clone()),
        Wanted::Param(param) => {
            let position = matcher.path.params().iter().position(|known| **known == **param);
            let equals = position.map(|position| Expected::Param { position, name: param.clone() });
            equals.or_else(|| {
                let found = format!("the path \"{}\" has no parameter {{{param}}}", matcher.path);
                fault("unknown_name", found, "use a parameter of the route's path, or a literal value")
            })
        }
        Wanted::HostLabel => Expected::host_label(&matcher.host).or_else(|| {
            let found = "the route's host has no *".to_owned();
            fault("unknown_name", found, "set host = \"*.example.com\", or compare with {host:name}")
        }),
        Wanted::Header(header) => match is_source(route.sources, header) {
            true => fault(
                "bad_header",
                format!("the route takes tokens from \"{header}\", which is not passed on"),
                "use another header",
            ),
            false => Some(Expected::Header(header.clone())),
        },
    };
    Some(Check::Claim { claim, name: name.clone(), equals: equals? })
}

fn is_source(sources: &Sources, header: &HeaderName) -> bool {
    sources.others.iter().any(|source| match source {
        Source::Header(field) => field.name == *header,
        Source::ApiKey(name) => name == header,
        Source::WebSocket(_) => *header == SEC_WEBSOCKET_PROTOCOL,
        Source::Cookie(_) | Source::Certificate | Source::Query(_) => false,
    })
}

/// Returns the names in `key.name`. Returns `None` if the list is empty or a name is empty.
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

/// Returns the scopes in `key.name`. Returns `None` if the list is empty or a scope is invalid.
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

/// Whether text is a scope-token (RFC 6749 section 3.3): visible ASCII without quotes and backslashes.
fn is_scope_token(scope: &str) -> bool {
    !scope.is_empty() && scope.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
}

fn issuers(
    key: &str,
    table: Requirements<'_>,
    context: &RuleContext<'_>,
    faults: &mut Faults<'_>,
) -> Option<Check> {
    let file = context.file;
    let certificates = file.client_certificates.keys();
    let certificate_issuers: Vec<String> =
        certificates.map(|name| format!("{CLIENT_CERTIFICATE_ISSUER}{name}")).collect();
    let known = || {
        let own = file.authority.iter().map(|authority| authority.issuer.as_str());
        let of_keys = file.api_keys.iter().map(|_| API_KEY_ISSUER);
        let of_certificates = certificate_issuers.iter().map(String::as_str);
        own.chain(file.issuer.iter().map(|issuer| issuer.issuer.as_str()))
            .chain(of_keys)
            .chain(of_certificates)
    };
    let mut accepted = Vec::new();
    for (index, name) in table.issuers.iter().enumerate() {
        let at = format!("{key}.issuers[{index}]");
        let tenants = file.issuer.iter().find_map(|section| tenant_names(section, name));
        match tenants {
            // The issuer accepts every tenant, so its names cannot be listed here.
            Some(names) if names.is_empty() => {
                let hint = "list the tenants of this route in [[issuer]] tenants, or use a claim such as tid";
                faults.fault("bad_value", &at, format!("\"{name}\" with tenants = [\"*\"]"), hint);
            }
            Some(names) => accepted.extend(names),
            None => {
                if !known().any(|known| known == name) {
                    faults.undefined(&at, "issuer", name, known());
                }
                accepted.push(name.clone());
            }
        }
    }
    names(key, "issuers", &accepted, faults).map(Check::Issuers)
}

fn fresh(key: &str, fresh: Fresh, faults: &mut Faults<'_>) -> Option<Check> {
    let age = match fresh {
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

fn requires_bound(draft: &Draft) -> bool {
    draft.iter().any(|drafted| matches!(drafted, Drafted::Ready(Check::Bound)))
}

/// Reports a route that requires a bound token and can never receive one. `rule` is the `[rule.NAME]` table with the
/// requirement, or `None` if the route itself has it.
fn check_bound(at: &str, rule: Option<&str>, table: &RouteSection, faults: &mut Faults<'_>) {
    let (found, place) = match rule {
        Some(rule) => (format!("rule \"{rule}\": require_bound"), "the rule"),
        None => ("true".to_owned(), "require_bound"),
    };
    // A token that is bound to a key is accepted only in `Authorization: DPoP`, with a proof. The place of a token that
    // is bound to a certificate does not matter.
    let sources = table.sources.as_ref().or(faults.loaded.file.policy.sources.as_ref());
    let has_certificates = !faults.loaded.file.client_certificates.is_empty();
    if !has_certificates && sources.is_some_and(|sources| !sources.contains(&TokenSource::Header)) {
        faults.fault(
            "impossible_rule",
            at,
            format!("{found} on a route that does not read Authorization, the only place of a bound token"),
            format!("add \"header\" to sources, or remove {place}"),
        );
    }
    if table.login.is_some() {
        faults.fault(
            "impossible_rule",
            at,
            format!("{found} on a route with a login page, which puts unbound tokens into cookies"),
            format!("remove login, or remove {place}"),
        );
    }
}
