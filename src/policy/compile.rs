//! Text becomes policy: names resolved, keys loaded, every fault collected.
//!
//! One pass over the whole file, from the parts that others refer to down to the routes. Nothing stops at the first
//! fault: the operator gets them all at once.

mod admission;
mod authority;
mod cases;
mod certificate;
mod counters;
pub(crate) mod endpoint_limits;
mod endpoints;
mod limits;
mod private;
mod routes;
mod rule;
mod secrets;
mod server;
mod trust;
mod upstreams;
mod waivers;

use super::findings::{Kind, kind};
use super::{Case, Faults, Policy, ServerSettings, Waivers};
use crate::authenticate::Trust;
use crate::config::Loaded;
use crate::config::file::{self, File};
use crate::diagnostic::{Diagnostic, Place};
use crate::keyring::MissingKey;
use crate::limit::Limit;
use std::sync::Arc;

/// Different claims that a policy may look at. Each remembered token has a place for each of them.
const CLAIMS_MAX: usize = 1000;

/// What a file compiles to.
#[derive(Debug)]
pub struct Compiled {
    /// What the gateway obeys.
    pub policy: Policy,
    /// What is fixed from start to end of the process.
    pub settings: ServerSettings,
    /// The policy's own tests, which nobody has run yet.
    pub cases: Vec<Case>,
    /// Whether a policy whose tests fail is served all the same.
    pub lenient: bool,
    /// Where the path of each route of the file stands.
    pub route_places: Vec<Place>,
    /// What the file accepts of that.
    pub waivers: Waivers,
    /// What an operator should look at, though it can be served; what the file accepts is among it.
    pub warnings: Vec<Diagnostic>,
}

impl Compiled {
    /// What is told of a policy that is served: weaknesses that the file does not accept.
    pub fn weaknesses(&self) -> Vec<Diagnostic> {
        let mut left = self.waivers.sift(self.warnings.clone()).left;
        left.retain(|found| kind(found.id) != Some(Kind::Advice));
        Diagnostic::bounded(left)
    }
}

/// Compiles a file. `missing_key` says what to do without a signing key.
///
/// # Errors
/// All faults, with the warnings among them, in the order in which they stand in the file.
pub fn compile(loaded: &Loaded, missing_key: MissingKey) -> Result<Compiled, Vec<Diagnostic>> {
    compile_policy(loaded, missing_key, None)
}

/// Compiles a file to a policy that comes after another. What stays the same goes on: counts of limits and routes,
/// what is known of servers, verified tokens, signing keys and what was revoked.
///
/// # Errors
/// As [`compile`]. The policy before is as it was.
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

    let settings = server::settings(file, &mut faults);
    let front = server::front(file, &mut faults);
    let settings_before = before.and_then(|before| before.issuer_settings.as_deref());
    let issuer_settings = authority::compile(file, missing_key, settings_before, &mut faults).map(Arc::new);
    let mut claims = trust::Claims::default();
    let (identity, proofs) = trust::identity(file, &mut claims, issuer_settings.as_deref(), &mut faults);
    let issuers = trust::issuers(file, issuer_settings.as_deref(), &mut faults);
    let counters = counters::CounterRegistry::after(before, settings.cores);
    let upstreams_before = before.map_or(&[][..], |before| &before.upstreams);
    let upstreams = upstreams::compile(file, upstreams_before, counters.cores(), &mut faults);
    let audiences = upstreams::audiences(file, &mut faults);
    let limits = limits::compile(file, &mut claims, before, &mut faults);
    let references = routes::References {
        upstreams: &upstreams,
        audiences: &audiences,
        limits: &limits,
        settings: issuer_settings.as_deref(),
        counters,
    };
    let (routes, table) = routes::compile(file, &references, &mut claims, &mut faults);

    nobody_to_trust(file, &mut faults);
    let cases = cases::compile(file, &routes, &mut faults);
    waivers::check(file, &mut faults);

    if claims.count() > CLAIMS_MAX {
        faults.fault(
            "too_many",
            "route",
            format!("{} different claims in the file", claims.count()),
            format!("use at most {CLAIMS_MAX}: each cached token stores the value of every one"),
        );
    }
    if faults.fault_count > 0 {
        return Err(Waivers::of(loaded).sift(faults.into_diagnostics()).left);
    }
    let table = table.ok_or_else(Vec::new)?;
    let mut trust = Trust::new(issuers, claims.into_paths(), identity);
    if let Some(issuer_settings) = &issuer_settings {
        let cookies = issuer_settings.cookies.as_ref().map(|cookies| cookies.names.clone());
        trust = trust.with_local(cookies, issuer_settings.origins.clone(), issuer_settings.revoked.clone());
    }
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
    };
    let lenient = file.policy.tests == file::Tests::Warn;
    let route_places = (0..file.route.len()).map(|index| loaded.places.of(&format!("route[{index}].path")));
    let route_places = route_places.collect();
    let waivers = Waivers::of(loaded);
    Ok(Compiled {
        waivers,
        route_places,
        policy,
        settings,
        cases,
        lenient,
        warnings: faults.into_diagnostics(),
    })
}

/// A route that asks for a token, in a policy that trusts nobody's, refuses everybody: nobody means that.
fn nobody_to_trust(file: &File, faults: &mut Faults<'_>) {
    let trusts = !file.issuer.is_empty() || file.authority.is_some();
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
