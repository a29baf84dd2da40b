//! Text becomes policy: names resolved, keys loaded, every fault collected.
//!
//! One pass over the whole file, from the parts that others refer to down to the routes. Nothing stops at the first
//! fault: the operator gets them all at once.

mod admission;
mod authority;
mod cases;
mod certificate;
mod endpoint_limits;
mod endpoints;
mod limits;
mod lint;
mod private;
mod routes;
mod secrets;
mod server;
mod trust;
mod upstreams;

use super::{Policy, ServerPlan, Sifted, Waivers};
use crate::authenticate::Trust;
use crate::clock::Now;
use crate::config::Loaded;
use crate::config::file::{self, File};
use crate::diagnostic::{Diagnostic, Place, Severity, TOLD_MAX};
use crate::explain::case::{self, Case};
use crate::explain::spelling;
use crate::keyring::Absent;
use crate::limit::Limit;
use crate::policy::findings::{Kind, kind};
use std::path::PathBuf;
use std::sync::Arc;

/// Different claims that a policy may look at. Each remembered token has a place for each of them.
const CLAIMS_MAX: usize = 1000;

/// What a file compiles to.
#[derive(Debug)]
pub struct Compiled {
    /// What the gateway obeys.
    pub policy: Policy,
    /// What is fixed from start to end of the process.
    pub plan: ServerPlan,
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
    /// Tries each route in odd spellings, and tells those that get past one.
    #[must_use]
    pub fn attacked(mut self, severity: Severity) -> Self {
        let Sifted { left, waived } = attack(&self.policy, &self.route_places, &self.waivers, severity);
        self.warnings.extend(left);
        self.warnings.extend(waived.into_iter().map(|waived| waived.finding));
        self
    }

    /// What is told of a policy that is served: weaknesses that the file does not accept.
    pub fn weaknesses(&self) -> Vec<Diagnostic> {
        let mut left = self.waivers.sift(self.warnings.clone()).left;
        left.retain(|found| kind(found.id) != Some(Kind::Advice));
        Diagnostic::bounded(left)
    }

    /// Runs the policy's own tests. Those that fail are told, and are a reason not to serve it unless it says otherwise.
    ///
    /// # Errors
    /// The tests that failed, with the warnings.
    pub fn tried(mut self, now: Now) -> Result<Self, Vec<Diagnostic>> {
        let severity = if self.lenient { Severity::Warning } else { Severity::Fault };
        let mut failures = case::failures(&self.policy, &self.cases, severity, now);
        if self.lenient || failures.is_empty() {
            self.warnings.extend(failures);
            return Ok(self);
        }
        failures.extend(self.weaknesses());
        Err(Diagnostic::bounded(failures))
    }
}

/// Tries each route of a policy in odd spellings, and returns the findings that no waiver accepts, up to a bound for each
/// kind.
pub fn attack(policy: &Policy, places: &[Place], waivers: &Waivers, severity: Severity) -> Sifted {
    let Sifted { left, waived } = waivers.sift(spelling::attack(policy, places, severity));
    Sifted { left: spelling::bounded(left), waived }
}

/// Gathers faults and warnings as the parts of a file are compiled.
struct Faults<'l> {
    loaded: &'l Loaded,
    found: Vec<Diagnostic>,
    /// How many faults there are: not all of them are kept, since each takes time to find the place of.
    faults: usize,
}

impl Faults<'_> {
    fn fault(&mut self, id: &'static str, key: &str, found: impl Into<String>, hint: impl Into<String>) {
        self.add(Severity::Fault, id, key, found.into(), hint.into());
    }

    fn warn(&mut self, id: &'static str, key: &str, found: impl Into<String>, hint: impl Into<String>) {
        self.add(Severity::Warning, id, key, found.into(), hint.into());
    }

    fn add(&mut self, severity: Severity, id: &'static str, key: &str, found: String, hint: String) {
        let is_fault = severity == Severity::Fault;
        debug_assert_eq!(kind(id).map(|kind| kind == Kind::Fault), Some(is_fault), "{id} in findings");
        self.faults += usize::from(is_fault);
        // Of warnings none is left out here: the file may accept the first hundred.
        if severity == Severity::Warning || self.faults <= TOLD_MAX {
            let place = self.loaded.places.of(key);
            self.found.push(Diagnostic { severity, id, place, key: key.to_owned(), found, hint });
        }
    }

    /// A file that the policy names, relative to the policy's own folder.
    fn path(&self, text: &str) -> PathBuf {
        self.loaded.base.join(text)
    }

    /// Whether another fault would not be told: then nobody need find out what would be right.
    const fn is_full(&self) -> bool {
        self.faults >= TOLD_MAX
    }

    /// What was found, in the order in which it stands in the file.
    fn told(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(Diagnostic::order);
        if self.faults == 0 {
            return self.found;
        }
        let mut told = Diagnostic::bounded(self.found);
        if let Some(more @ 1..) = self.faults.checked_sub(TOLD_MAX) {
            let found = format!("{more} more fault{}", if more == 1 { "" } else { "s" });
            told.push(Diagnostic::more(Severity::Fault, self.loaded.places.whole(), found));
        }
        told
    }
}

/// Compiles a file. `absent` says whether a signing key that is not there yet is made.
///
/// # Errors
/// All faults, with the warnings among them, in the order in which they stand in the file.
pub fn compile(loaded: &Loaded, absent: Absent) -> Result<Compiled, Vec<Diagnostic>> {
    compile_policy(loaded, absent, None)
}

/// Compiles a file to a policy that comes after another. What stays the same goes on: counts of limits and routes,
/// what is known of servers, verified tokens, signing keys and what was revoked.
///
/// # Errors
/// As [`compile`]. The policy before is as it was.
pub fn compile_after(loaded: &Loaded, absent: Absent, before: &Policy) -> Result<Compiled, Vec<Diagnostic>> {
    compile_policy(loaded, absent, Some(before))
}

fn compile_policy(
    loaded: &Loaded,
    absent: Absent,
    before: Option<&Policy>,
) -> Result<Compiled, Vec<Diagnostic>> {
    let file = &loaded.file;
    let mut faults = Faults { loaded, found: Vec::new(), faults: 0 };

    let plan = server::plan(file, &mut faults);
    let front = server::front(file, &mut faults);
    let terms_before = before.and_then(|before| before.terms.as_deref());
    let terms = authority::compile(file, absent, terms_before, &mut faults).map(Arc::new);
    let mut claims = trust::Claims::default();
    let (identity, proofs) = trust::identity(file, &mut claims, terms.as_deref(), &mut faults);
    let issuers = trust::issuers(file, terms.as_deref(), &mut faults);
    let counted = routes::Counted::after(before, plan.cores);
    let upstreams_before = before.map_or(&[][..], |before| &before.upstreams);
    let upstreams = upstreams::compile(file, upstreams_before, counted.cores(), &mut faults);
    let audiences = upstreams::audiences(file, &mut faults);
    let limits = limits::compile(file, &mut claims, before, &mut faults);
    let known = routes::Known {
        upstreams: &upstreams,
        audiences: &audiences,
        limits: &limits,
        terms: terms.as_deref(),
        counted,
    };
    let (routes, table) = routes::compile(file, &known, &mut claims, &mut faults);

    nobody_to_trust(file, &mut faults);
    let cases = cases::compile(file, &routes, &mut faults);
    lint::waivers(file, &mut faults);

    if claims.count() > CLAIMS_MAX {
        faults.fault(
            "too_many",
            "route",
            format!("{} different claims in this file", claims.count()),
            format!("at most {CLAIMS_MAX}: what each token says of every one is kept"),
        );
    }
    if faults.faults > 0 {
        return Err(Waivers::of(loaded).sift(faults.told()).left);
    }
    let table = table.ok_or_else(Vec::new)?;
    let mut trust = Trust::new(issuers, claims.into_paths(), identity);
    if let Some(terms) = &terms {
        let cookies = terms.cookies.as_ref().map(|cookies| cookies.names.clone());
        trust = trust.with_local(cookies, terms.origins.clone(), terms.revoked.clone());
    }
    if let Some(before) = before {
        trust = trust.going_on(&before.trust);
    }
    let policy = Policy {
        table: Arc::new(table),
        routes: routes.into(),
        trust: Arc::new(trust),
        terms,
        authority: None,
        front: Arc::new(front),
        proofs: Arc::new(proofs),
        upstreams: upstreams.into_values().flatten().collect(),
        limits: limits.into_values().collect::<Vec<Arc<Limit>>>().into(),
    };
    lint::lint(file, &policy, &plan, &cases, &mut faults);
    let lenient = file.policy.tests == file::Tests::Warn;
    let route_places = (0..file.route.len()).map(|index| loaded.places.of(&format!("route[{index}].path")));
    let route_places = route_places.collect();
    let waivers = Waivers::of(loaded);
    Ok(Compiled { waivers, route_places, policy, plan, cases, lenient, warnings: faults.told() })
}

/// A route that asks for a token, in a policy that trusts nobody's, refuses everybody: nobody means that.
fn nobody_to_trust(file: &File, faults: &mut Faults<'_>) {
    let trusts = !file.issuer.is_empty() || file.authority.is_some();
    let guarded = file.route.iter().position(|route| route.access == file::Access::Authenticated);
    if let (false, Some(index)) = (trusts, guarded) {
        faults.fault(
            "nobody_to_trust",
            &format!("route[{index}].path"),
            "a route that asks for a token, and nobody whose tokens are accepted",
            "an [[issuer]] or an [authority]; or access = \"public\" where anybody may pass",
        );
    }
}
