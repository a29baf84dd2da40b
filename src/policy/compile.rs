//! Compiles a policy file: resolves names and loads keys. Reports all faults together.

mod acme;
mod api_keys;
mod authorities;
mod authority;
mod cases;
mod certificates;
mod claim_values;
mod claims;
mod client_certificates;
mod compression;
mod contradictions;
mod cors;
mod counters;
mod credential_policy;
mod dpop;
pub(crate) mod endpoint_limits;
mod endpoints;
mod files;
pub(crate) mod hsts;
mod identity;
mod identity_choice;
mod introspection;
mod key_sources;
mod limits;
mod matcher;
mod mirror;
mod private;
mod profile;
mod request_trailers;
mod resources;
mod route_list;
mod routes;
mod rule;
mod secrets;
mod server;
mod shaping;
mod shared;
mod signals;
mod split;
mod trust;
mod upstream_checks;
mod upstream_tls;
mod upstreams;
mod waivers;
#[cfg(test)]
mod watched_files;

use super::findings::{Kind, kind};
use super::{Case, Faults, Policy, ServerSettings, Waivers};
use crate::authenticate::{Revoked, Trust};
use crate::config::file::{self, File};
use crate::config::{Loaded, PolicyDigest};
use crate::diagnostic::{Diagnostic, Place};
use crate::keyring::MissingKey;
use crate::limit::Limit;
use authorities::Authorities;
use std::sync::Arc;

/// The maximum number of distinct claims. Each cached token stores a value for each claim.
const CLAIMS_MAX: usize = 1000;
/// The maximum length of `[policy] version`.
const VERSION_MAX: usize = 64;

/// The result of compiling a file.
#[derive(Debug)]
pub struct Compiled {
    /// The policy that the gateway enforces.
    pub policy: Policy,
    /// The identity of the policy among the gateways of a fleet.
    pub identity: PolicyIdentity,
    /// The settings that are fixed when the process starts.
    pub settings: ServerSettings,
    /// The tests of the policy, which have not been run.
    pub cases: Vec<Case>,
    /// Whether the policy is served even if its tests fail.
    pub lenient: bool,
    /// The place of each route's path, in the order of the file.
    pub route_places: Vec<Place>,
    /// The waivers of the file.
    pub waivers: Waivers,
    /// Findings that do not prevent the policy from being served. Includes waived findings.
    pub warnings: Vec<Diagnostic>,
}

/// The identity of a policy among the gateways of a fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyIdentity {
    /// The version that the operator wrote.
    pub version: Option<String>,
    /// The digest of what the policy enforces.
    pub digest: PolicyDigest,
}

impl Compiled {
    /// Returns the weaknesses that are not waived. They are logged when the policy is served.
    pub fn weaknesses(&self) -> Vec<Diagnostic> {
        let mut left = self.waivers.sift(self.warnings.clone()).left;
        left.retain(|found| kind(found.id) != Some(Kind::Advice));
        Diagnostic::bounded(left)
    }
}

/// Compiles a file. `missing_key` states whether a missing signing key is created.
///
/// # Errors
///
/// Returns all faults and warnings, in the order of the file.
pub fn compile(loaded: &Loaded, missing_key: MissingKey) -> Result<Compiled, Vec<Diagnostic>> {
    compile_policy(loaded, missing_key, None)
}

/// Compiles a file that replaces the policy `before`. Unchanged parts keep their state: counts, health of servers,
/// verified tokens, signing keys and revocations.
///
/// # Errors
///
/// Returns all faults and warnings, in the order of the file. `before` is not changed.
pub fn compile_after(
    loaded: &Loaded,
    missing_key: MissingKey,
    before: &Policy,
) -> Result<Compiled, Vec<Diagnostic>> {
    compile_policy(loaded, missing_key, Some(before))
}

fn compile_policy(
    loaded: &Loaded,
    missing_key: MissingKey,
    before: Option<&Policy>,
) -> Result<Compiled, Vec<Diagnostic>> {
    let file = &loaded.file;
    let mut faults = Faults::of(loaded);

    let mut authorities = Authorities::default();
    let mut settings = server::settings(file, &mut authorities, &mut faults);
    let origins = authority::origins("policy.origins", &file.policy.origins, &mut faults);
    let front = server::front(file, &settings.tls, &mut faults);
    let settings_before = before.and_then(|before| before.issuer_settings.as_deref());
    // Revocations by signals outlive every policy.
    let marks = before.map(|before| before.trust.revoked().signals().clone()).unwrap_or_default();
    let issuer_settings =
        authority::compile(file, missing_key, settings_before, &marks, &mut faults).map(Arc::new);
    let mut claims = claims::Claims::default();
    let (identity, proofs) = identity::compile(file, &mut claims, issuer_settings.as_deref(), &mut faults);
    let trust_before = before.map(|before| &*before.trust);
    let mut issuers =
        trust::issuers(file, issuer_settings.as_deref(), trust_before, &mut authorities, &mut faults);
    let receivers = signals::compile(file, &mut issuers, before, &mut authorities, &mut faults);
    let api_keys = api_keys::compile(file, before, &mut faults);
    let dpop = dpop::compile(file, &mut faults);
    let shared_settings = shared::compile(file, &mut authorities, &mut faults);
    let counters = counters::CounterRegistry::after(before, settings.cores);
    let upstreams_before = before.map_or(&[][..], |before| &before.upstreams);
    let cores = counters.cores();
    let upstreams =
        upstreams::compile(file, &mut claims, upstreams_before, cores, &mut authorities, &mut faults);
    let audiences = upstreams::audiences(file, &mut faults);
    // The fleet is the same after a reload, so the limits keep their counts.
    let fleet_before = before.and_then(|before| before.fleet.clone());
    let fleet = shared_settings.is_some().then(|| fleet_before.unwrap_or_default());
    let of_fleet = limits::Shared { fleet: fleet.as_ref(), settings: shared_settings.as_deref() };
    let presets = endpoint_limits::presets(file);
    let limits = limits::compile(file, &presets, &of_fleet, &mut claims, before, &mut faults);
    let cors = cors::compile(file, &mut faults);
    let references = routes::References {
        upstreams: &upstreams,
        audiences: &audiences,
        limits: &limits,
        rule: rule::RuleContext { file, identity: &identity },
        settings: issuer_settings.as_deref(),
        issuers: &issuers,
        receivers: &receivers,
        api_key_header: api_keys.as_ref().map(|settings| &settings.header),
        cors: &cors,
        counters,
    };
    let (mut routes, resources, table) = routes::compile(file, &references, &mut claims, &mut faults);

    check_version(file, &mut faults);
    nobody_to_trust(file, &mut faults);
    let cases = cases::compile(file, &routes, &identity, &mut faults);
    waivers::check(file, &mut faults);
    files::guard(file, &mut routes, &mut faults);

    if claims.count() > CLAIMS_MAX {
        faults.fault(
            "too_many",
            "route",
            format!("{} different claims in the file", claims.count()),
            format!("use at most {CLAIMS_MAX}: each cached token stores the value of every one"),
        );
    }
    settings.watch = (file.server.reload == file::Reload::Watch).then(|| faults.files());
    if faults.fault_count > 0 {
        return Err(Waivers::of(loaded).sift(faults.into_diagnostics()).left);
    }
    let table = table.ok_or_else(Vec::new)?;
    let mut trust = Trust::new(issuers, claims.into_paths(), identity).with_dpop(dpop);
    let revoked = match &issuer_settings {
        Some(settings) => settings.revoked.clone(),
        None => Arc::new(Revoked::sharing(marks)),
    };
    trust = trust.with_signals(signals::senders(&receivers), revoked);
    if let Some(issuer_settings) = &issuer_settings {
        let cookies = issuer_settings.cookies.as_ref().map(|cookies| cookies.names.clone());
        trust = trust
            .with_local(cookies, issuer_settings.origins.clone(), issuer_settings.revoked.clone())
            .removing_cookies(authority::cookie_names(issuer_settings.compat));
    }
    trust = trust.with_foreign_origins(&origins);
    if let Some(settings) = &api_keys {
        trust = trust.with_api_keys(settings.keys.clone());
    }
    trust = trust.with_certificate_callers(client_certificates::callers(file));
    if let Some(before) = before {
        trust = trust.carry_over(&before.trust);
    }
    let policy = Policy {
        table: Arc::new(table),
        routes: routes.into(),
        trust: Arc::new(trust),
        issuer_settings,
        authority: None,
        front: Arc::new(front),
        proofs: Arc::new(proofs),
        upstreams: upstreams.into_values().flatten().collect(),
        limits: limits.into_values().collect::<Vec<Arc<Limit>>>().into(),
        api_key_file: api_keys.map(|settings| settings.file),
        resources: resources.into(),
        receivers: receivers.into(),
        signal_file: None,
        shared_settings,
        link: None,
        fleet,
    };
    let lenient = file.policy.tests == file::Tests::Warn;
    let route_places = (0..file.route.len()).map(|index| loaded.places.of(&format!("route[{index}].path")));
    let route_places = route_places.collect();
    let waivers = Waivers::of(loaded);
    let identity = PolicyIdentity { version: file.policy.version.clone(), digest: PolicyDigest::of(loaded) };
    Ok(Compiled {
        identity,
        waivers,
        route_places,
        policy,
        settings,
        cases,
        lenient,
        warnings: faults.into_diagnostics(),
    })
}

/// The version becomes the label of a metric and a word of a log line.
fn check_version(file: &File, faults: &mut Faults<'_>) {
    let Some(version) = &file.policy.version else { return };
    if version.is_empty() || version.len() > VERSION_MAX || !version.bytes().all(|b| b.is_ascii_graphic()) {
        let hint = format!(
            "use 1 to {VERSION_MAX} visible ASCII characters without spaces, such as \"2026-11-29.2\""
        );
        faults.fault("bad_value", "policy.version", format!("\"{}\"", version.escape_debug()), hint);
    }
}

/// Reports a fault if a route requires a token but the policy trusts no issuer. Such a route rejects every request.
fn nobody_to_trust(file: &File, faults: &mut Faults<'_>) {
    let trusts = !file.issuer.is_empty()
        || file.authority.is_some()
        || file.api_keys.is_some()
        || !file.client_certificates.is_empty();
    let guarded = file.route.iter().position(|route| route.access == file::Access::Authenticated);
    if let (false, Some(index)) = (trusts, guarded) {
        faults.fault(
            "nobody_to_trust",
            &format!("route[{index}].path"),
            "the route requires a token, but no issuer is trusted",
            "add an [[issuer]] or an [authority], or set access = \"public\" if everyone may pass",
        );
    }
}
