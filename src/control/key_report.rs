//! Reports the keys that are fetched from URLs, at `/readyz?verbose`, at `/keys` and in the metrics.

use crate::authenticate::{Issuer, Trust};
use crate::clock::Now;
use crate::key_source::{Copy, KeySource, Status};
use crate::metrics::{Exposition, Kind};
use crate::timestamp::rfc3339;
use serde_json::{Value, json};
use std::sync::Arc;

fn by_url(trust: &Trust) -> impl Iterator<Item = (&Issuer, &Arc<KeySource>)> {
    trust.issuers().iter().filter_map(|issuer| Some((issuer, issuer.source.as_ref()?)))
}

/// Describes the state of the keys for operators, in one line per issuer whose keys are fetched from a URL.
pub(super) fn lines(trust: &Trust) -> String {
    by_url(trust).map(|(issuer, source)| line(issuer, &source.status())).collect()
}

fn line(issuer: &Issuer, status: &Status) -> String {
    let error = match &status.error {
        Some((at, error)) => format!("; the last fetch failed at {}: {error}", rfc3339(*at)),
        None => String::new(),
    };
    let name = &issuer.name;
    match status.fetched.filter(|_| !issuer.keys.is_empty()) {
        Some(fetched) => {
            let (count, fetched) = (issuer.keys.iter().count(), rfc3339(fetched));
            let origin = if status.is_copy { ", from the copy on disk" } else { "" };
            format!("keys: {name}: {count}, fetched {fetched}{origin}{error}\n")
        }
        None => format!("keys: {name}: none, so its tokens are refused with check_unavailable{error}\n"),
    }
}

/// Returns the keys of all issuers, as `key list --live` prints them.
pub(super) fn json(trust: &Trust) -> Value {
    let issuers: Vec<Value> = trust.issuers().iter().map(issuer).collect();
    json!({ "issuers": issuers })
}

pub(crate) fn issuer(issuer: &Issuer) -> Value {
    let source = issuer.source.as_ref();
    let first_seen = source.and_then(|source| source.good(Now::read())).map(|good| good.first_seen.clone());
    let first_seen = first_seen.unwrap_or_default();
    let keys: Vec<Value> = issuer
        .keys
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
    let mut described = json!({ "issuer": &*issuer.name, "keys": keys });
    if let Some(source) = source {
        let status = source.status();
        described["source"] = json!({
            "url": status.location,
            "fetched": status.fetched.map(rfc3339),
            "from_disk": status.is_copy,
            "expires": status.expires.map(rfc3339),
            "next_fetch": rfc3339(status.next),
            "last_error": status.error.map(|(at, error)| json!({ "at": rfc3339(at), "why": error.why })),
            "not_used": status.skipped,
        });
    }
    described
}

/// Writes the metrics. The issuer labels are names from the policy.
pub(super) fn write_metrics(out: &mut Exposition, trust: &Trust) {
    let sources: Vec<_> = by_url(trust).map(|(issuer, source)| (issuer, source, source.status())).collect();
    let help = "Usable keys of an issuer whose keys are fetched from a URL.";
    out.family("portcullis_issuer_keys", help, Kind::Gauge);
    for (issuer, _, _) in &sources {
        out.sample(&[("issuer", &issuer.name)], count(issuer.keys.iter().count()));
    }
    let help = "Keys of an issuer's last set that cannot be used.";
    out.family("portcullis_issuer_keys_not_used", help, Kind::Gauge);
    for (issuer, _, status) in &sources {
        out.sample(&[("issuer", &issuer.name)], count(status.skipped_count));
    }
    let help = "Time at which an issuer's keys were fetched or confirmed, in seconds since 1970; 0 if there are none.";
    out.family("portcullis_issuer_keys_fetched_timestamp_seconds", help, Kind::Gauge);
    for (issuer, _, status) in &sources {
        out.sample(&[("issuer", &issuer.name)], status.fetched.unwrap_or(0));
    }
    let help = "Time at which an issuer's keys become too old unless they are fetched, in seconds since 1970; 0 if there are none.";
    out.family("portcullis_issuer_keys_expiry_timestamp_seconds", help, Kind::Gauge);
    for (issuer, _, status) in &sources {
        out.sample(&[("issuer", &issuer.name)], status.expires.unwrap_or(0));
    }
    let help = "Fetches of issuers' keys, by outcome.";
    out.family("portcullis_issuer_key_fetches_total", help, Kind::Counter);
    for (issuer, _, status) in &sources {
        out.sample(&[("issuer", &issuer.name), ("outcome", "ok")], status.fetches);
        for (kind, failures) in &status.failed {
            out.sample(&[("issuer", &issuer.name), ("outcome", kind)], *failures);
        }
    }
    let help = "Requests that waited for an unknown key, by outcome.";
    out.family("portcullis_issuer_key_waits_total", help, Kind::Counter);
    for (issuer, source, _) in &sources {
        for (outcome, waits) in source.demand().outcomes() {
            out.sample(&[("issuer", &issuer.name), ("outcome", outcome)], waits);
        }
    }
    out.family("portcullis_issuer_key_waiting", "Requests that wait for an unknown key now.", Kind::Gauge);
    for (issuer, source, _) in &sources {
        out.sample(&[("issuer", &issuer.name)], count(source.demand().waiting()));
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
