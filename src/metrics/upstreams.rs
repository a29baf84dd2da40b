//! Writes the counters of upstreams and their servers.

use super::{Exposition, Kind};
use crate::forward::{Upstream, UpstreamShard};
use std::sync::Arc;
use std::time::Instant;

/// Selects a count of a core.
type Pick = fn(&UpstreamShard) -> u64;

/// The families by upstream only: name, help, kind and count.
const PLAIN: [(&str, &str, Kind, Pick); 8] = [
    (
        "portcullis_upstream_connections_total",
        "Connections opened to upstream servers.",
        Kind::Counter,
        |shard| shard.connections.get(),
    ),
    (
        "portcullis_upstream_connections_open",
        "Connections to upstream servers that are open or being opened.",
        Kind::Gauge,
        |shard| shard.open.get(),
    ),
    (
        "portcullis_upstream_requests_waiting",
        "Requests waiting for a connection to an upstream server.",
        Kind::Gauge,
        |shard| shard.waiting.get(),
    ),
    (
        "portcullis_upstream_retries_total",
        "Requests retried because a server failed before its response.",
        Kind::Counter,
        |shard| shard.retries.get(),
    ),
    (
        "portcullis_upstream_retries_refused_total",
        "Requests not retried because the retry budget of their upstream was spent.",
        Kind::Counter,
        |shard| shard.retries_refused.get(),
    ),
    (
        "portcullis_upstream_unasked_bytes_total",
        "Connections closed because an upstream server sent bytes outside of a response.",
        Kind::Counter,
        |shard| shard.unasked.get(),
    ),
    (
        "portcullis_upstream_cookies_removed_total",
        "Set-Cookie fields with the gateway's cookie names, removed from upstream responses.",
        Kind::Counter,
        |shard| shard.cookies_removed.get(),
    ),
    (
        "portcullis_upstream_split_requests_total",
        "Requests from routes whose requests several upstreams share.",
        Kind::Counter,
        |shard| shard.split.get(),
    ),
];

/// The outcomes of copied requests.
const COPIES: [(&str, Pick); 3] = [
    ("answered", |shard| shard.mirror_answered.get()),
    ("failed", |shard| shard.mirror_failed.get()),
    ("dropped", |shard| shard.mirror_dropped.get()),
];

/// Writes the counts of all upstreams. Failure counts of zero are written too: a rate includes the first failure only
/// if an earlier sample exists.
pub(super) fn render(out: &mut Exposition, upstreams: &[Arc<Upstream>]) {
    servers(out, upstreams);
    names(out, upstreams);
    let help = "Whether so few servers are left that all are used (panic_below).";
    out.family("portcullis_upstream_panic", help, Kind::Gauge);
    let now = Instant::now();
    for upstream in upstreams {
        out.sample(&[("upstream", &*upstream.name)], u64::from(upstream.is_in_panic(now)));
    }
    for (name, help, kind, pick) in PLAIN {
        out.family(name, help, kind);
        for upstream in upstreams {
            out.sample(&[("upstream", &*upstream.name)], upstream.counters.sum(pick));
        }
    }
    let help = "Copies of requests for upstreams that mirror routes, by outcome.";
    out.family("portcullis_upstream_mirrored_requests_total", help, Kind::Counter);
    for upstream in upstreams {
        for (outcome, pick) in COPIES {
            let labels = [("upstream", &*upstream.name), ("outcome", outcome)];
            out.sample(&labels, upstream.counters.sum(pick));
        }
    }
    failures(out, upstreams);
    let help = "Time from the head of a request to the head of its upstream response.";
    out.family("portcullis_upstream_duration_seconds", help, Kind::Histogram);
    for upstream in upstreams.iter().filter(|upstream| upstream.counters.used().next().is_some()) {
        let shards = upstream.counters.used().map(|shard| &shard.durations);
        out.durations(&[("upstream", &upstream.name)], shards);
    }
}

/// Writes the state of each server and the results of its checks.
fn servers(out: &mut Exposition, upstreams: &[Arc<Upstream>]) {
    let help = "Whether a server responds: 0 from its first failure until it responds again, and while its checks fail.";
    out.family("portcullis_upstream_up", help, Kind::Gauge);
    for upstream in upstreams {
        for server in &upstream.members().servers {
            let labels = [("upstream", &*upstream.name), ("server", &*server.origin)];
            out.sample(&labels, u64::from(server.is_up()));
        }
    }
    let help = "Active checks of upstream servers, by outcome.";
    out.family("portcullis_upstream_checks_total", help, Kind::Counter);
    for upstream in upstreams {
        for check in &upstream.members().checks {
            for (outcome, count) in check.counts() {
                let labels =
                    [("upstream", &*check.upstream), ("server", &*check.server.origin), ("outcome", outcome)];
                out.sample(&labels, count);
            }
        }
    }
}

/// Writes the connections that could not be opened, and the responses that ended early.
fn failures(out: &mut Exposition, upstreams: &[Arc<Upstream>]) {
    let help = "Failed connection attempts to upstream servers.";
    out.family("portcullis_upstream_connect_failures_total", help, Kind::Counter);
    for upstream in upstreams {
        for (reason, count) in upstream.counters.connect_failures() {
            out.sample(&[("upstream", &*upstream.name), ("reason", reason)], count);
        }
    }
    let help = "Truncated upstream responses: they failed after the head, and so did the client's response.";
    out.family("portcullis_upstream_broken_answers_total", help, Kind::Counter);
    for upstream in upstreams {
        for (reason, count) in upstream.counters.broken() {
            out.sample(&[("upstream", &*upstream.name), ("reason", reason)], count);
        }
    }
}

/// Writes the state of the names whose addresses are servers.
fn names(out: &mut Exposition, upstreams: &[Arc<Upstream>]) {
    let named = || upstreams.iter().filter_map(|upstream| upstream.names());
    let help = "Addresses in use of the name of an upstream server. 0 before the first answer.";
    out.family("portcullis_upstream_addresses", help, Kind::Gauge);
    for names in named() {
        for (name, count) in names.counts() {
            out.sample(&[("upstream", &**names.upstream()), ("name", name)], count as u64);
        }
    }
    let help = "Lookups of the names of upstream servers, by outcome.";
    out.family("portcullis_upstream_lookups_total", help, Kind::Counter);
    for names in named() {
        for (name, counts) in names.lookups() {
            for (outcome, count) in counts {
                out.sample(&[("upstream", &**names.upstream()), ("name", name), ("outcome", outcome)], count);
            }
        }
    }
}
