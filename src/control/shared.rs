//! Starts the connection to the shared state, and reports its state.

use crate::authenticate::digest_of;
use crate::journal::Journal;
use crate::limit::FleetState;
use crate::metrics::{Exposition, Kind};
use crate::policy::Policy;
use crate::shared::{Followed, Link, ProofUse};
use std::sync::Arc;

/// Returns the connection for a policy that will be served. A reload keeps the connection of the policy before.
///
/// # Errors
/// Returns a sentence for the operator.
pub(crate) fn link(
    policy: &Policy,
    before: Option<&Policy>,
    journal: &Journal,
) -> Result<Option<Arc<Link>>, String> {
    let Some(settings) = &policy.shared_settings else { return Ok(None) };
    match before.and_then(|before| before.link.clone()) {
        Some(link) => Ok(Some(link)),
        None => {
            let link = Link::start(settings.clone(), followed(policy), journal.clone())?;
            link.wait_for_marks();
            Ok(Some(link))
        }
    }
}

/// Makes the connection follow the policy that is about to be served.
pub(super) fn follow(policy: &Policy) {
    lend(policy);
    if let (Some(link), Some(settings)) = (&policy.link, &policy.shared_settings) {
        link.follow(settings.clone(), followed(policy));
    }
}

/// Ends the connection of an earlier policy, once another policy is served that does not use it.
pub(super) fn end(before: &Policy, policy: &Policy) {
    if let (Some(link), None) = (&before.link, &policy.link) {
        link.end();
    }
}

/// Lets the authority and the limits use the shared state of the policy that is about to be served.
pub(crate) fn lend(policy: &Policy) {
    if let (Some(link), Some(fleet)) = (&policy.link, &policy.fleet) {
        fleet.start(link);
    }
    if let Some(authority) = &policy.authority {
        authority.share(policy.link.clone());
    }
}

/// Returns the marks of a policy.
fn followed(policy: &Policy) -> Followed {
    let issuer = policy.issuer_settings.as_ref().map(|settings| digest_of(&settings.issuer));
    Followed {
        revoked: policy.trust.revoked().clone(),
        issuer: issuer.and_then(|digest| digest.first_chunk().copied()),
        has_store: policy.issuer_settings.is_some(),
    }
}

/// Describes the shared state for operators: one line for the servers, and one for the uses.
pub(super) fn lines(policy: &Policy) -> String {
    let Some(link) = &policy.link else { return String::new() };
    let settings = link.settings();
    let marks = if link.knows_marks() { "known" } else { "unknown" };
    let waiting = link.marks_waiting();
    let limits = policy.fleet.as_ref().map_or(String::new(), |fleet| match fleet.state().is_up() {
        true => format!("shared: limits of {} gateways\n", fleet.state().gateways()),
        false => "shared: limits of this gateway alone\n".to_owned(),
    });
    format!(
        "{}shared: without an answer: {}\nshared: revocations of other gateways {marks}, {waiting} wait to be sent\n\
         {limits}",
        link.lines(),
        settings.without_answer(policy.issuer_settings.is_some()),
    )
}

/// Writes the metrics of the shared state.
pub(super) fn write_metrics(out: &mut Exposition, policy: &Policy) {
    let Some(link) = &policy.link else { return };
    let help = "Whether the shared state answers (1) or cannot be used (0).";
    out.family("portcullis_shared_up", help, Kind::Gauge);
    out.sample(&[], u64::from(link.is_up()));
    let help = "Connections to the shared state that were opened.";
    out.family("portcullis_shared_connections_total", help, Kind::Counter);
    out.sample(&[], link.connections());
    let help = "Failures of the shared state, by reason.";
    out.family("portcullis_shared_failures_total", help, Kind::Counter);
    for (reason, count) in link.health().failures() {
        out.sample(&[("reason", reason)], count);
    }
    let help = "Commands that the shared state refused, by command and error.";
    out.family("portcullis_shared_refused_total", help, Kind::Counter);
    for (command, error, count) in link.refusals().counts() {
        out.sample(&[("command", command), ("error", error)], count);
    }
    let help = "Whether the revocations of other gateways are known (1) or may be missing (0).";
    out.family("portcullis_shared_marks_known", help, Kind::Gauge);
    out.sample(&[], u64::from(link.knows_marks()));
    let help = "Revocations that were exchanged with other gateways, by outcome.";
    out.family("portcullis_shared_marks_total", help, Kind::Counter);
    let counts = link.mark_counts();
    let outcomes =
        [("sent", counts.sent()), ("received", counts.received()), ("rejected", counts.rejected())];
    outcomes.iter().for_each(|(outcome, count)| out.sample(&[("outcome", outcome)], *count));
    let help = "Revocations that wait to be sent to other gateways.";
    out.family("portcullis_shared_marks_waiting", help, Kind::Gauge);
    out.sample(&[], link.marks_waiting() as u64);
    let help = "DPoP proofs about which the shared state was asked, by outcome.";
    out.family("portcullis_shared_proofs_total", help, Kind::Counter);
    for outcome in ProofUse::ALL {
        out.sample(&[("outcome", outcome.as_str())], link.proof_counts().count(outcome));
    }
    if let Some(authority) = &policy.authority {
        let help = "Logins about which the shared state was asked, by outcome.";
        out.family("portcullis_shared_logins_total", help, Kind::Counter);
        let outcomes = authority.counters().shared_logins.iter();
        outcomes.for_each(|(outcome, count)| out.sample(&[("outcome", outcome)], count));
    }
    if let Some(fleet) = &policy.fleet {
        write_limits(out, fleet.state());
    }
    let help = "Whether a use of the shared state refuses what it cannot check (1) or not (0).";
    out.family("portcullis_shared_denies_on_error", help, Kind::Gauge);
    for (name, on_error) in link.settings().uses(policy.issuer_settings.is_some()) {
        out.sample(&[("use", name)], u64::from(on_error == crate::config::file::OnError::Deny));
    }
}

/// Writes the metrics of the limits that gateways share.
fn write_limits(out: &mut Exposition, fleet: &FleetState) {
    let help = "Gateways that share their limits with this one, itself included.";
    out.family("portcullis_shared_gateways", help, Kind::Gauge);
    out.sample(&[], u64::from(fleet.gateways()));
    let help = "Whether the limits of the fleet hold (1) or cannot be checked (0).";
    out.family("portcullis_shared_limits_up", help, Kind::Gauge);
    out.sample(&[], u64::from(fleet.is_up()));
    let help = "Reports to the shared state about one key of a limit, by outcome.";
    out.family("portcullis_shared_limit_reports_total", help, Kind::Counter);
    fleet.reports().iter().for_each(|(outcome, count)| out.sample(&[("outcome", outcome)], *count));
    let help = "Requests under a shared limit that could not be checked, by what the gateway did.";
    out.family("portcullis_shared_limit_unchecked_total", help, Kind::Counter);
    fleet.unasked().iter().for_each(|(did, count)| out.sample(&[("decision", did)], *count));
    let help = "Active keys evicted from a full set of a limit in the shared state.";
    out.family("portcullis_shared_limit_displaced_total", help, Kind::Counter);
    out.sample(&[], fleet.displaced());
}

/// Returns why the gateway must not serve yet, if revocations may be missing. `/readyz` then answers 503, and
/// `portcullis_ready` is 0.
pub(super) fn unready(policy: &Policy) -> Option<String> {
    policy.link.as_ref().and_then(|link| link.unready())
}
