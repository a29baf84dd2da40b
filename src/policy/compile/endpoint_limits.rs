//! Which rate limits the authority's endpoints have: those that the policy names, else one of ours.

use super::Faults;
use super::limits::{NamedLimits, chosen_limits};
use crate::authority::{Endpoint, Facts};
use crate::config::file::{AuthorityTable, File, RateLimitTable};
use crate::config::place::nearest;
use crate::limit::Limits;
use std::collections::{BTreeMap, BTreeSet};

/// A limit that an endpoint has where the policy names none: by `client_ip`. A `[rate_limit.NAME]` of this name in the
/// policy takes its place.
struct Preset {
    name: &'static str,
    rate: &'static str,
}

/// A password is hashed for each, and each that succeeds leaves a session in the store for a day.
const LOGIN: Preset = Preset { name: "auth_login", rate: "120/m" };
/// What a person's browser or app asks: a house full of people stays far below it.
const SESSION: Preset = Preset { name: "auth_session", rate: "600/m" };
/// What services ask, each for many people from one address.
const SERVICE: Preset = Preset { name: "auth_service", rate: "6000/m" };

const PRESETS: [Preset; 3] = [LOGIN, SESSION, SERVICE];

/// The limit that an endpoint has by default.
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
        // Answered from memory, on the core that was asked; and a verdict by the limits of the route that it is about, for
        // a proxy that asks once for each request of everybody.
        Endpoint::Jwks | Endpoint::Metadata | Endpoint::Verify => None,
    }
}

/// Whose choice an endpoint's limits are.
enum Choice<'f> {
    /// The policy's, under this key; none of them where the list is empty.
    Policy(String, &'f [String]),
    /// Ours.
    Preset(Option<Preset>),
}

fn choice(table: &AuthorityTable, facts: Facts) -> Choice<'_> {
    if let Some(names) = table.limits.get(facts.name) {
        return Choice::Policy(format!("authority.limits.{}", facts.name), names);
    }
    match &table.rate_limits {
        Some(names) if facts.guessable => Choice::Policy("authority.rate_limits".to_owned(), names),
        Some(_) | None => Choice::Preset(preset(facts.endpoint)),
    }
}

/// The limits of ours that some endpoint has, as the policy would write them, but those that it writes itself.
pub(super) fn presets(file: &File) -> BTreeMap<String, RateLimitTable> {
    let used = preset_names(file);
    let tables = PRESETS.into_iter().filter(|preset| used.contains(preset.name));
    tables
        .filter(|preset| !file.rate_limit.contains_key(preset.name))
        .map(|preset| {
            let rate = Some(preset.rate.parse().expect("a rate as the policy writes it"));
            (preset.name.to_owned(), RateLimitTable { rate, ..RateLimitTable::default() })
        })
        .collect()
}

/// The names of the limits of ours that some endpoint has, whoever defines them.
pub(super) fn preset_names(file: &File) -> BTreeSet<&'static str> {
    let Some(table) = &file.authority else { return BTreeSet::new() };
    let chosen = Endpoint::ALL.into_iter().filter_map(|facts| match choice(table, facts) {
        Choice::Policy(..) => None,
        Choice::Preset(preset) => preset.map(|preset| preset.name),
    });
    chosen.collect()
}

/// The limits of an endpoint.
pub(super) fn limits_of(
    table: &AuthorityTable,
    facts: Facts,
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

/// Refuses limits of endpoints that are not there.
pub(super) fn unknown_endpoints(table: &AuthorityTable, faults: &mut Faults<'_>) {
    let known = Endpoint::ALL.map(|facts| facts.name);
    for name in table.limits.keys().filter(|name| !known.contains(&name.as_str())) {
        let near = nearest(name, &known).map(|near| format!("the nearest is {near}; ")).unwrap_or_default();
        let hint = format!("{near}one of {}", known.join(", "));
        faults.fault(
            "unknown_name",
            &format!("authority.limits.{name}"),
            format!("no endpoint \"{name}\""),
            hint,
        );
    }
}

/// Where the policy takes every limit off logging in; the key under which it does.
pub(super) fn unlimited_login(table: &AuthorityTable) -> Option<String> {
    match choice(table, Endpoint::Login.facts()) {
        Choice::Policy(key, []) => Some(key),
        Choice::Policy(..) | Choice::Preset(_) => None,
    }
}

/// All lists of names under `[authority]`, each with its key.
pub(super) fn lists(table: &AuthorityTable) -> impl Iterator<Item = (String, &[String])> {
    let shared = table.rate_limits.iter().map(|names| ("authority.rate_limits".to_owned(), &names[..]));
    let single = table.limits.iter().map(|(name, names)| (format!("authority.limits.{name}"), &names[..]));
    shared.chain(single)
}
