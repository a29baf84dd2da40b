//! Converts bypasses to findings.

use super::variants::SpellingKind;
use super::{Bypass, bypasses};
use crate::diagnostic::{Diagnostic, Place, Severity};
use crate::explain::describe::covers;
use crate::policy::{Handler, Policy};
use crate::review::sample::Caller;

/// The maximum number of reported findings of one kind. Further findings nearly always have the same cause.
pub(super) const FINDINGS_MAX: usize = 100;

/// Tries odd spellings on all routes and returns a finding for each bypass. `places` are the places of the routes in
/// the policy file, in the order of [`Policy::routes`].
pub(in crate::review) fn attack(policy: &Policy, places: &[Place], severity: Severity) -> Vec<Diagnostic> {
    let finding =
        |bypass: &Bypass| Some(finding(policy, places.get(bypass.route)?.clone(), severity, bypass));
    bypasses(policy).iter().filter_map(finding).collect()
}

/// Returns at most [`FINDINGS_MAX`] findings of each kind. The last finding states how many were omitted.
pub(in crate::review) fn bounded(found: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let mut kept: Vec<Diagnostic> = Vec::new();
    for kind in SpellingKind::ALL {
        let of_kind = found.iter().filter(|finding| finding.id == kind.id());
        let more = of_kind.clone().count().saturating_sub(FINDINGS_MAX);
        kept.extend(of_kind.take(FINDINGS_MAX).cloned());
        if let Some(last) = kept.last_mut().filter(|_| more > 0) {
            last.found.push_str(&format!("; the same applies to {more} more routes"));
        }
    }
    kept.sort_by_key(Diagnostic::order);
    kept
}

fn finding(policy: &Policy, place: Place, severity: Severity, bypass: &Bypass) -> Diagnostic {
    let Bypass { route, kind, plain, odd, by, caller } = bypass;
    let key = format!("route[{route}].path");
    let other = &policy.routes[*by];
    let who = match caller {
        Caller::Nobody => "everyone".to_owned(),
        Caller::WithToken(grants) => format!("a caller with {grants}"),
    };
    // The service may check the host or header itself, so these kinds never reject a policy.
    let severity = match kind {
        SpellingKind::OtherHost | SpellingKind::OtherHeader | SpellingKind::Rewritten => Severity::Warning,
        SpellingKind::Case
        | SpellingKind::Slash
        | SpellingKind::Parameter
        | SpellingKind::Encoding
        | SpellingKind::Host
        | SpellingKind::Method => severity,
    };
    let why = match &other.handler {
        Handler::Files(_) => "both get the same file",
        Handler::Forward(_)
        | Handler::Answer(_)
        | Handler::Publish(_)
        | Handler::Redirect(_)
        | Handler::Receive(..) => "an upstream that reads both alike exposes what this route protects",
    };
    let found = format!(
        "route \"{}\" ({}) allows `{odd}` for {who}, although `{plain}` is refused: {why}",
        other.name,
        covers(&other.matcher)
    );
    let cure = match kind {
        SpellingKind::Slash => "define the path with and without the slash, with the same rule",
        SpellingKind::Case
        | SpellingKind::Parameter
        | SpellingKind::Encoding
        | SpellingKind::Host
        | SpellingKind::Method => "use the same rule for both routes, or other servers for that one",
        SpellingKind::OtherHeader | SpellingKind::Rewritten => {
            "use the same rule for both routes, or other servers for one of them"
        }
        SpellingKind::OtherHost => {
            "add the host to that route, use the same rule for both, or other servers for one of them"
        }
    };
    let hint = format!("{cure}; or waive = {{ {} = \"how the service distinguishes them\" }}", kind.id());
    Diagnostic { severity, id: kind.id(), place, key, found, hint, refers_to: None }
}
