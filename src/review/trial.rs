//! Runs the tests of a compiled policy and tries odd spellings, before the policy is served.

use super::{cases, spelling};
use crate::clock::Now;
use crate::diagnostic::{Diagnostic, Place, Severity};
use crate::policy::{Compiled, Policy, SortedFindings, Waivers};

/// Runs the tests. A failed test is a fault, unless the policy sets `tests = "warn"`.
///
/// # Errors
///
/// Returns the failed tests and the weaknesses of the policy.
pub fn run_tests(mut compiled: Compiled, now: Now) -> Result<Compiled, Vec<Diagnostic>> {
    let severity = if compiled.lenient { Severity::Warning } else { Severity::Fault };
    let mut failures = cases::failures(&compiled.policy, &compiled.cases, severity, now);
    if compiled.lenient || failures.is_empty() {
        compiled.warnings.extend(failures);
        return Ok(compiled);
    }
    failures.extend(compiled.weaknesses());
    Err(Diagnostic::bounded(failures))
}

/// Tries odd spellings on each route. Adds the findings to the warnings.
#[must_use]
pub fn try_spellings(mut compiled: Compiled, severity: Severity) -> Compiled {
    let Compiled { policy, route_places, waivers, .. } = &compiled;
    let SortedFindings { left, waived } = spelling_findings(policy, route_places, waivers, severity);
    compiled.warnings.extend(left);
    compiled.warnings.extend(waived.into_iter().map(|waived| waived.finding));
    compiled
}

/// Tries odd spellings on each route. Separates waived findings from the others. Limits the number of other findings of
/// each kind.
pub fn spelling_findings(
    policy: &Policy,
    places: &[Place],
    waivers: &Waivers,
    severity: Severity,
) -> SortedFindings {
    let SortedFindings { left, waived } = waivers.sift(spelling::attack(policy, places, severity));
    SortedFindings { left: spelling::bounded(left), waived }
}
