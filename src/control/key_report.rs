//! Reports the keys that are fetched from URLs, at `/readyz?verbose`, at `/keys` and in the metrics.

use super::introspection;
use crate::authenticate::KeySet;
use crate::clock::Now;
use crate::key_source::{Copy, KeySource, Origin, Status};
use crate::metrics::{Exposition, Kind};
use crate::policy::Policy;
use crate::timestamp::rfc3339;
use serde_json::{Value, json};
use std::sync::Arc;

/// Describes the state of the keys for operators, in one line per issuer whose keys are fetched from a URL.
pub(super) fn lines(policy: &Policy) -> String {
    policy.fetched_keys().map(|(source, keys, _)| line(&keys, &source.status())).collect()
}

fn line(keys: &KeySet, status: &Status) -> String {
    let error = match &status.error {
        Some((at, error)) => format!("; the last fetch failed at {}: {error}", rfc3339(*at)),
        None => String::new(),
    };
    let name = &status.owner;
    match status.fetched.filter(|_| !keys.is_empty()) {
        Some(fetched) => {
            let (count, fetched) = (keys.iter().count(), rfc3339(fetched));
            let origin = status.origin.map_or("", Origin::note);
            format!("keys: {name}: {count}, fetched {fetched}{origin}{error}\n")
        }
        None => format!("keys: {name}: none, so its tokens are refused with check_unavailable{error}\n"),
    }
}

/// Returns the keys of all issuers, as `key list --live` prints them.
pub(super) fn json(policy: &Policy) -> Value {
    let issuers: Vec<Value> = all(policy).collect();
    json!({ "issuers": issuers })
}

/// Describes the keys of each issuer, and of each transmitter of signals that has its own keys at a URL.
pub(crate) fn all(policy: &Policy) -> impl Iterator<Item = Value> {
    let issuers = policy.trust.issuers().iter();
    let issuers = issuers.map(|issuer| {
        let mut described = described(("issuer", &*issuer.name), &issuer.keys, issuer.source.as_ref());
        if let Some(introspector) = &issuer.introspector {
            described["introspection"] = introspection::json(introspector);
        }
        described
    });
    let receivers = policy.receivers.iter().filter_map(|receiver| {
        let (source, keys) = receiver.keys.own_source()?;
        Some(described(source.settings().owner.label(), &keys, Some(source)))
    });
    issuers.chain(receivers)
}

fn described((kind, name): (&str, &str), keys: &KeySet, source: Option<&Arc<KeySource>>) -> Value {
    let first_seen = source.and_then(|source| source.good(Now::read())).map(|good| good.first_seen.clone());
    let first_seen = first_seen.unwrap_or_default();
    let keys: Vec<Value> = keys
        .iter()
        .map(|key| {
            let name = Copy::key_name(key.id(), key.algorithm().as_str());
            let mut described = json!({ "kid": key.id(), "algorithm": key.algorithm().as_str() });
            if source.is_some() {
                described["first_seen"] = first_seen.get(&name).copied().map(rfc3339).into();
            }
            if let Some(used) = key.last_used() {
                described["last_used"] = rfc3339(used).into();
            }
            described
        })
        .collect();
    let mut described = json!({ kind: name, "keys": keys });
    if let Some(source) = source {
        let status = source.status();
        described["source"] = json!({
            "url": status.location,
            "fetched": status.fetched.map(rfc3339),
            "from_disk": status.origin == Some(Origin::Disk),
            "from_gateway": status.origin == Some(Origin::Gateway),
            "expires": status.expires.map(rfc3339),
            "next_fetch": rfc3339(status.next),
            "last_error": status.error.map(|(at, error)| json!({ "at": rfc3339(at), "why": error.why })),
            "not_used": status.skipped,
        });
    }
    described
}

/// Writes the metrics. The issuer labels are names from the policy.
pub(super) fn write_metrics(out: &mut Exposition, policy: &Policy) {
    let sources: Vec<_> =
        policy.fetched_keys().map(|(source, keys, _)| (keys, source, source.status())).collect();
    let help = "Usable keys of an issuer whose keys are fetched from a URL.";
    out.family("portcullis_issuer_keys", help, Kind::Gauge);
    for (keys, _, status) in &sources {
        out.sample(&[status.owner.label()], count(keys.iter().count()));
    }
    let help = "Keys of an issuer's last set that cannot be used.";
    out.family("portcullis_issuer_keys_not_used", help, Kind::Gauge);
    for (_, _, status) in &sources {
        out.sample(&[status.owner.label()], count(status.skipped_count));
    }
    let help = "Time at which an issuer's keys were fetched or confirmed, in seconds since 1970; 0 if there are none.";
    out.family("portcullis_issuer_keys_fetched_timestamp_seconds", help, Kind::Gauge);
    for (_, _, status) in &sources {
        out.sample(&[status.owner.label()], status.fetched.unwrap_or(0));
    }
    let help = "Time at which an issuer's keys become too old unless they are fetched, in seconds since 1970; 0 if there are none.";
    out.family("portcullis_issuer_keys_expiry_timestamp_seconds", help, Kind::Gauge);
    for (_, _, status) in &sources {
        out.sample(&[status.owner.label()], status.expires.unwrap_or(0));
    }
    let help = "Fetches of issuers' keys, by outcome.";
    out.family("portcullis_issuer_key_fetches_total", help, Kind::Counter);
    for (_, _, status) in &sources {
        out.sample(&[status.owner.label(), ("outcome", "ok")], status.fetches);
        for (kind, failures) in &status.failed {
            out.sample(&[status.owner.label(), ("outcome", kind)], *failures);
        }
    }
    let help = "Key sets of issuers that gateways pass to each other, by outcome.";
    out.family("portcullis_issuer_keys_passed_total", help, Kind::Counter);
    for (_, source, status) in &sources {
        for (outcome, sets) in source.passed().iter() {
            out.sample(&[status.owner.label(), ("outcome", outcome)], sets);
        }
    }
    let help = "Requests that waited for an unknown key, by outcome.";
    out.family("portcullis_issuer_key_waits_total", help, Kind::Counter);
    for (_, source, status) in &sources {
        for (outcome, waits) in source.demand().outcomes() {
            out.sample(&[status.owner.label(), ("outcome", outcome)], waits);
        }
    }
    out.family("portcullis_issuer_key_waiting", "Requests that wait for an unknown key now.", Kind::Gauge);
    for (_, source, status) in &sources {
        out.sample(&[status.owner.label()], count(source.demand().waiting()));
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
