//! Writes the metrics page in Prometheus's text format: the counts of all cores, and the state of the gateway.

use super::reload::ReloadStatus;
use super::shared as shared_state;
use super::{acme, introspection, key_report};
use crate::authenticate::dpop::ProofOutcome;
use crate::authenticate::token_stats::{AGES, SIZES};
use crate::authenticate::{ApiKeys, Dpop, Trust};
use crate::authority::{Authority, ByOutcome, Counters, Outcome};
use crate::clock::Now;
use crate::keyring::{KeyState, Keyring};
use crate::metrics::{self, Exposition, Kind};
use crate::policy::Policy;
use crate::tls::Certificates;
use crate::worker::Shared;

pub(super) fn render(shared: &Shared, status: &ReloadStatus, is_draining: bool) -> String {
    let policy = shared.policy.load();
    let mut out = Exposition::new();
    let routes: Vec<_> = policy.routes.iter().map(|route| route.counters.clone()).collect();
    metrics::render(&mut out, &routes, &shared.counters, &policy.limits, &policy.upstreams);

    out.family(
        "portcullis_log_lines_dropped_total",
        "Log lines lost because the log could not keep up.",
        Kind::Counter,
    );
    out.sample(&[], shared.journal.dropped());
    write_tokens(&mut out, &policy.trust);
    key_report::write_metrics(&mut out, &policy);
    write_dpop(&mut out, policy.trust.dpop());
    introspection::write_metrics(&mut out, &policy.trust);
    status.write_metrics(&mut out);
    if let Some(certificates) = &shared.certificates {
        write_certificates(&mut out, certificates);
    }
    acme::write_metrics(&mut out, &shared.acme);
    if let Some(keys) = policy.trust.api_keys() {
        write_api_keys(&mut out, keys);
    }
    if let Some(settings) = &policy.issuer_settings {
        write_signing_keys(&mut out, &settings.keyring);
    }
    if let Some(authority) = &policy.authority {
        write_authority(&mut out, authority.counters(), &policy.trust);
        write_store(&mut out, authority);
    }
    write_signals(&mut out, &policy);
    shared_state::write_metrics(&mut out, &policy);
    out.family(
        "portcullis_ready",
        "Whether /readyz answers 200 (1), or 503 because the gateway drains or lacks revocations (0).",
        Kind::Gauge,
    );
    out.sample(&[], u64::from(!is_draining && shared_state::unready(&policy).is_none()));
    out.family("portcullis_build_info", "The running version.", Kind::Gauge);
    out.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    out.finish()
}

/// Writes the ends of certificates and revocation lists. The default certificate has no label.
fn write_certificates(out: &mut Exposition, certificates: &Certificates) {
    let all = certificates.all();
    let ends: Vec<_> =
        all.iter().filter_map(|shown| Some((shown, shown.validity.map(|validity| validity.ends)?))).collect();
    let help = "Expiry of the certificate in use, in seconds since 1970.";
    // The older name does not follow the Prometheus convention. It is kept for existing alerts.
    for name in ["portcullis_certificate_expires_seconds", "portcullis_certificate_expiry_timestamp_seconds"]
    {
        out.family(name, help, Kind::Gauge);
        for (shown, ends) in &ends {
            let label = [("certificate", &*shown.label)];
            out.sample(if shown.is_default { &[] } else { &label }, *ends);
        }
    }
    let help = "Begin of the validity of the certificate in use, in seconds since 1970.";
    out.family("portcullis_certificate_start_timestamp_seconds", help, Kind::Gauge);
    for (shown, _) in &ends {
        let label = [("certificate", &*shown.label)];
        let begins = shown.validity.map_or(0, |validity| validity.begins);
        out.sample(if shown.is_default { &[] } else { &label }, begins);
    }
    let answers: Vec<_> = all.iter().filter_map(|shown| Some((&shown.label, shown.staple_ends()?))).collect();
    if !answers.is_empty() {
        let help = "Expiry of the OCSP response that is sent with a certificate, in seconds since 1970.";
        out.family("portcullis_ocsp_response_expiry_timestamp_seconds", help, Kind::Gauge);
        for (label, ends) in answers {
            out.sample(&[("certificate", label)], ends);
        }
    }
    let lists: Vec<_> = certificates.verifiers();
    let lists: Vec<_> = lists.iter().filter_map(|known| Some((&known.rule.name, known.lists_end?))).collect();
    if !lists.is_empty() {
        let help =
            "Earliest expiry of the revocation lists for clients' certificates, in seconds since 1970.";
        out.family("portcullis_client_crl_expiry_timestamp_seconds", help, Kind::Gauge);
        for (name, ends) in lists {
            out.sample(&[("client_certificates", name)], ends);
        }
    }
}

/// Writes the statistics of verified tokens. The issuer labels are names from the policy, never text from a token.
fn write_tokens(out: &mut Exposition, trust: &Trust) {
    let help =
        "Tokens successfully verified, by issuer and algorithm. A token in the cache is not verified again.";
    out.family("portcullis_tokens_verified_total", help, Kind::Counter);
    for (issuer, seen) in trust.seen() {
        for (algorithm, count) in seen.algorithms().filter(|(_, count)| *count > 0) {
            out.sample(&[("issuer", issuer), ("algorithm", algorithm.as_str())], count);
        }
    }
    let help = "Age of tokens when they were verified, in seconds since iat.";
    out.family("portcullis_token_age_seconds", help, Kind::Histogram);
    for (issuer, seen) in trust.seen() {
        let (counts, sum) = seen.ages();
        out.spread(&[("issuer", issuer)], &AGES, &counts, sum);
    }
    out.family("portcullis_token_size_bytes", "Size of verified tokens, in bytes.", Kind::Histogram);
    for (issuer, seen) in trust.seen() {
        let (counts, sum) = seen.sizes();
        out.spread(&[("issuer", issuer)], &SIZES, &counts, sum);
    }
}

/// Writes the counts of proofs of possession.
fn write_dpop(out: &mut Exposition, dpop: &Dpop) {
    out.family("portcullis_dpop_proofs_total", "DPoP proofs by the outcome of their check.", Kind::Counter);
    for outcome in ProofOutcome::ALL {
        out.sample(&[("outcome", outcome.as_str())], dpop.count(outcome));
    }
    let help = "DPoP proofs that are remembered, so that they are not accepted again.";
    out.family("portcullis_dpop_remembered_proofs", help, Kind::Gauge);
    out.sample(&[], u64::try_from(dpop.remembered()).unwrap_or(u64::MAX));
    let help = "Maximum number of DPoP proofs that are remembered.";
    out.family("portcullis_dpop_remembered_proofs_max", help, Kind::Gauge);
    out.sample(&[], u64::try_from(dpop.settings().replay_entries).unwrap_or(u64::MAX));
}

fn write_authority(out: &mut Exposition, counters: &Counters, trust: &Trust) {
    fn write<O: Outcome<N>, const N: usize>(
        out: &mut Exposition,
        name: &'static str,
        help: &'static str,
        label: &str,
        counts: &ByOutcome<O, N>,
    ) {
        out.family(name, help, Kind::Counter);
        for (outcome, count) in counts.iter() {
            out.sample(&[(label, outcome)], count);
        }
    }
    let name = "portcullis_logins_total";
    write(out, name, "Password logins, by outcome.", "outcome", &counters.logins);
    let name = "portcullis_refreshes_total";
    let help = "Refresh tokens presented, by outcome. grace: the successor was returned again; reuse: the session was ended.";
    write(out, name, help, "outcome", &counters.refreshes);
    let name = "portcullis_revocations_total";
    write(out, name, "Revocations made at this gateway's endpoints, by cause.", "by", &counters.revocations);
    let name = "portcullis_tokens_issued_total";
    write(out, name, "Access tokens issued, by size.", "size", &counters.tokens);
    let name = "portcullis_tokens_trimmed_total";
    write(
        out,
        name,
        "Access tokens that omitted claims to stay small, by what was omitted.",
        "of",
        &counters.trimmed,
    );
    let name = "portcullis_service_tokens_total";
    write(
        out,
        name,
        "Access tokens requested by services for themselves, by outcome.",
        "outcome",
        &counters.services,
    );
    out.family(
        "portcullis_revocation_marks",
        "Tokens, sessions and accounts currently marked as revoked.",
        Kind::Gauge,
    );
    out.sample(&[], u64::try_from(trust.revoked().len()).unwrap_or(u64::MAX));
}

fn write_signals(out: &mut Exposition, policy: &Policy) {
    if policy.receivers.is_empty() {
        return;
    }
    let help = "Events in accepted signals, by kind.";
    out.family("portcullis_signal_events_total", help, Kind::Counter);
    for receiver in &*policy.receivers {
        for (event, count) in receiver.state.counters.events() {
            out.sample(&[("signals", &receiver.name), ("event", event)], count);
        }
    }
    let help =
        "Signals received, by outcome. failed: could not be kept, so that the transmitter must repeat it.";
    out.family("portcullis_signals_total", help, Kind::Counter);
    for receiver in &*policy.receivers {
        for (outcome, count) in receiver.state.counters.outcomes() {
            out.sample(&[("signals", &receiver.name), ("outcome", outcome)], count);
        }
    }
    let help = "Time of the last accepted event, in seconds since 1970; 0 if there was none since the start.";
    out.family("portcullis_signal_last_event_timestamp_seconds", help, Kind::Gauge);
    for receiver in &*policy.receivers {
        out.sample(&[("signals", &receiver.name)], receiver.state.counters.last_event());
    }
    let polled = || policy.receivers.iter().filter(|receiver| receiver.poll.is_some());
    let help = "Polls of the transmitter of signals that failed.";
    out.family("portcullis_signal_poll_errors_total", help, Kind::Counter);
    for receiver in polled() {
        out.sample(&[("signals", &receiver.name)], receiver.state.counters.poll_errors());
    }
    let help =
        "Time of the last poll that succeeded, in seconds since 1970; 0 if there was none since the start.";
    out.family("portcullis_signal_last_poll_timestamp_seconds", help, Kind::Gauge);
    for receiver in polled() {
        out.sample(&[("signals", &receiver.name)], receiver.state.counters.last_poll());
    }
    let help = "Marks that revoke tokens of issuers that send signals.";
    out.family("portcullis_signal_marks", help, Kind::Gauge);
    out.sample(&[], u64::try_from(policy.trust.revoked().signals().len()).unwrap_or(u64::MAX));
}

fn write_store(out: &mut Exposition, authority: &Authority) {
    let health = authority.health();
    let help = "Whether the store of accounts and sessions answered at its last use (1) or not (0).";
    out.family("portcullis_store_up", help, Kind::Gauge);
    out.sample(&[], u64::from(health.is_up()));
    out.family("portcullis_store_failures_total", "Failures of the store, by reason.", Kind::Counter);
    for (reason, count) in health.failures() {
        out.sample(&[("reason", reason)], count);
    }
    let help = "Connections to the store closed because a transaction on them did not end cleanly.";
    out.family("portcullis_store_connections_replaced_total", help, Kind::Counter);
    out.sample(&[], authority.connections_replaced());
    let help = "Requests in progress at the authority or waiting for it.";
    out.family("portcullis_authority_waiting", help, Kind::Gauge);
    out.sample(&[], u64::try_from(authority.queue().waiting()).unwrap_or(u64::MAX));
    let help = "Requests refused because too many were waiting for the authority.";
    out.family("portcullis_authority_shed_total", help, Kind::Counter);
    out.sample(&[], authority.queue().shed());
}

fn write_api_keys(out: &mut Exposition, keys: &ApiKeys) {
    let now = Now::read().unix;
    let all = keys.iter().count();
    let expired = keys.iter().filter(|key| key.facts().expires.is_some_and(|expires| expires <= now)).count();
    out.family("portcullis_api_keys", "API keys, by their current state.", Kind::Gauge);
    for (state, count) in [("valid", all - expired), ("expired", expired)] {
        out.sample(&[("state", state)], u64::try_from(count).unwrap_or(u64::MAX));
    }
    let next = keys.iter().filter_map(|key| key.facts().expires).filter(|expires| *expires > now).min();
    let help = "Time at which the next API key expires, in seconds since 1970; none if no key expires.";
    out.family("portcullis_api_key_next_expiry_timestamp_seconds", help, Kind::Gauge);
    if let Some(next) = next {
        out.sample(&[], next);
    }
}

fn write_signing_keys(out: &mut Exposition, keyring: &Keyring) {
    let help = "Signing keys of the local authority, by their current state.";
    out.family("portcullis_signing_keys", help, Kind::Gauge);
    let listed = keyring.list(Now::read());
    for state in KeyState::ALL {
        let count = listed.iter().filter(|key| key.state == state).count();
        out.sample(&[("state", state.as_str())], u64::try_from(count).unwrap_or(u64::MAX));
    }
    let help = "Failures to read or write the files of the signing keys.";
    out.family("portcullis_signing_key_faults_total", help, Kind::Counter);
    out.sample(&[], keyring.faults());
}
