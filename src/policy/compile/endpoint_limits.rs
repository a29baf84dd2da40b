//! Selects the rate limits of the authority's endpoints.

use super::Faults;
use super::limits::{NamedLimits, chosen_limits};
use crate::authority::{Endpoint, EndpointSpec};
use crate::config::file::{AuthoritySection, File, RateLimitSection, SignalsSection};
use crate::config::place::nearest;
use crate::limit::Limits;
use std::collections::{BTreeMap, BTreeSet};

/// A default limit by `client_ip`. A `[rate_limit.NAME]` with the same name replaces the default.
pub(super) struct Preset {
    pub(super) name: &'static str,
    rate: &'static str,
}

/// The default limit of the login. Each login hashes a password, and each successful login stores a session for a day.
const LOGIN: Preset = Preset { name: "auth_login", rate: "120/m" };
/// The default limit of endpoints for browsers and apps. A large household stays far below this rate.
const SESSION: Preset = Preset { name: "auth_session", rate: "600/m" };
/// The default limit of endpoints for services. A service may send requests for many users from one address.
const SERVICE: Preset = Preset { name: "auth_service", rate: "6000/m" };

/// The default limit of the endpoints for signals. Each signal requires a signature check.
pub(super) const SIGNALS: Preset = Preset { name: "signals", rate: "6000/m" };

const PRESETS: [Preset; 4] = [LOGIN, SESSION, SERVICE, SIGNALS];

/// Returns the default limit of an endpoint, if any.
const fn preset(endpoint: Endpoint) -> Option<Preset> {
    match endpoint {
        Endpoint::Login => Some(LOGIN),
        Endpoint::LoginPage
        | Endpoint::Refresh
        | Endpoint::Logout
        | Endpoint::LogoutAll
        | Endpoint::Sessions
        | Endpoint::EndSession => Some(SESSION),
        Endpoint::Me | Endpoint::Token | Endpoint::Revoke | Endpoint::Introspect => Some(SERVICE),
        // `Jwks` and `Metadata` are answered from memory and need no limit. `Verify` counts toward the limits of the
        // original request's route, because one proxy sends these requests for all clients.
        Endpoint::Jwks | Endpoint::Metadata | Endpoint::Verify => None,
    }
}

/// The source of an endpoint's limits.
enum Choice<'f> {
    /// The policy names the limits. The fields are the key in the policy and the names of the limits. An empty list
    /// means no limits.
    Policy(String, &'f [String]),
    /// The policy names no limits. Contains the default limit, if any.
    Preset(Option<Preset>),
}

fn choice(table: &AuthoritySection, facts: EndpointSpec) -> Choice<'_> {
    if let Some(names) = table.limits.get(facts.name) {
        return Choice::Policy(format!("authority.limits.{}", facts.name), names);
    }
    match &table.rate_limits {
        Some(names) if facts.guessable => Choice::Policy("authority.rate_limits".to_owned(), names),
        Some(_) | None => Choice::Preset(preset(facts.endpoint)),
    }
}

/// Returns the default limits in use, as tables of the policy file. Omits default limits that the policy redefines.
pub(super) fn presets(file: &File) -> BTreeMap<String, RateLimitSection> {
    let used = preset_names(file);
    let tables = PRESETS.into_iter().filter(|preset| used.contains(preset.name));
    tables
        .filter(|preset| !file.rate_limit.contains_key(preset.name))
        .map(|preset| {
            let rate = Some(preset.rate.parse().expect("a rate as the policy writes it"));
            (preset.name.to_owned(), RateLimitSection { rate, ..RateLimitSection::default() })
        })
        .collect()
}

/// Returns the names of the default limits in use, including those that the policy redefines.
pub(crate) fn preset_names(file: &File) -> BTreeSet<&'static str> {
    let mut used = BTreeSet::new();
    if let Some(table) = &file.authority {
        used.extend(Endpoint::ALL.into_iter().filter_map(|facts| match choice(table, facts) {
            Choice::Policy(..) => None,
            Choice::Preset(preset) => preset.map(|preset| preset.name),
        }));
    }
    if file.signals.values().any(|table| table.rate_limits.is_none() && has_endpoint(table)) {
        used.insert(SIGNALS.name);
    }
    used
}

/// Whether the gateway has an endpoint for these signals.
fn has_endpoint(table: &SignalsSection) -> bool {
    table.push.is_some() || table.logout.is_some()
}

/// Returns the limits of an endpoint.
pub(super) fn limits_of(
    table: &AuthoritySection,
    facts: EndpointSpec,
    limits: &NamedLimits,
    faults: &mut Faults<'_>,
) -> Limits {
    match choice(table, facts) {
        Choice::Policy(key, names) => chosen_limits(&key, names, limits, faults),
        Choice::Preset(preset) => {
            Limits::sort(preset.and_then(|preset| limits.get(preset.name).cloned()).into_iter().collect())
        }
    }
}

/// Reports keys of `limits` that are not endpoints.
pub(super) fn unknown_endpoints(table: &AuthoritySection, faults: &mut Faults<'_>) {
    let known = Endpoint::ALL.map(|facts| facts.name);
    for name in table.limits.keys().filter(|name| !known.contains(&name.as_str())) {
        let near = nearest(name, &known).map(|near| format!("the nearest is {near}; ")).unwrap_or_default();
        let hint = format!("{near}the endpoints are {}", known.join(", "));
        faults.fault(
            "unknown_name",
            &format!("authority.limits.{name}"),
            format!("unknown endpoint \"{name}\""),
            hint,
        );
    }
}

/// Returns the key of the empty list that leaves the login without a limit, if any.
pub(crate) fn unlimited_login(table: &AuthoritySection) -> Option<String> {
    match choice(table, Endpoint::Login.spec()) {
        Choice::Policy(key, []) => Some(key),
        Choice::Policy(..) | Choice::Preset(_) => None,
    }
}

/// Returns all lists of rate limits under `[signals]`, with their keys.
pub(crate) fn signal_lists(file: &File) -> impl Iterator<Item = (String, &[String])> {
    let tables = file.signals.iter();
    tables.filter_map(|(name, table)| {
        Some((format!("signals.{name}.rate_limits"), &table.rate_limits.as_ref()?[..]))
    })
}

/// Returns all lists of rate limits under `[authority]`, with their keys.
pub(crate) fn lists(table: &AuthoritySection) -> impl Iterator<Item = (String, &[String])> {
    let shared = table.rate_limits.iter().map(|names| ("authority.rate_limits".to_owned(), &names[..]));
    let single = table.limits.iter().map(|(name, names)| (format!("authority.limits.{name}"), &names[..]));
    shared.chain(single)
}
