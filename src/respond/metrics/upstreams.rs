//! What is counted of upstreams and their servers, for Prometheus.

use super::{Exposition, Kind};
use crate::forward::{Upstream, UpstreamShard};
use std::sync::Arc;

/// Writes the counts of all upstreams. Counts of faults are there from the start, at zero: a rate sees the first fault
/// only if there was a sample before it.
pub(super) fn render(out: &mut Exposition, upstreams: &[Arc<Upstream>]) {
    let help = "Whether a server answers: 0 from its first failure until it has answered again.";
    out.family("portcullis_upstream_up", help, Kind::Gauge);
    for upstream in upstreams {
        for server in &upstream.servers {
            let labels = [("upstream", &*upstream.name), ("server", &*server.origin)];
            out.sample(&labels, u64::from(server.is_up()));
        }
    }
    type Pick = fn(&UpstreamShard) -> u64;
    let families: [(&'static str, &'static str, Kind, Pick); 5] = [
        (
            "portcullis_upstream_connections_total",
            "Connections to upstream servers that were made.",
            Kind::Counter,
            |shard| shard.connections.get(),
        ),
        (
            "portcullis_upstream_connections_open",
            "Connections to upstream servers that are open or being opened, now.",
            Kind::Gauge,
            |shard| shard.open.get(),
        ),
        (
            "portcullis_upstream_requests_waiting",
            "Requests that wait for a connection to an upstream server, now.",
            Kind::Gauge,
            |shard| shard.waiting.get(),
        ),
        (
            "portcullis_upstream_retries_total",
            "Requests that were sent again because a server broke off before its answer.",
            Kind::Counter,
            |shard| shard.retries.get(),
        ),
        (
            "portcullis_upstream_cookies_removed_total",
            "Set-Cookie fields under a name of the gateway that were removed from upstreams' answers.",
            Kind::Counter,
            |shard| shard.cookies_removed.get(),
        ),
    ];
    for (name, help, kind, pick) in families {
        out.family(name, help, kind);
        for upstream in upstreams {
            out.sample(&[("upstream", &*upstream.name)], upstream.counters.sum(pick));
        }
    }
    let help = "Connections to upstream servers that could not be made.";
    out.family("portcullis_upstream_connect_failures_total", help, Kind::Counter);
    for upstream in upstreams {
        for (reason, count) in upstream.counters.connect_failures() {
            out.sample(&[("upstream", &*upstream.name), ("reason", reason)], count);
        }
    }
    let help = "Answers of upstreams that broke off after their head: the client's answer was cut.";
    out.family("portcullis_upstream_broken_answers_total", help, Kind::Counter);
    for upstream in upstreams {
        for (reason, count) in upstream.counters.broken() {
            out.sample(&[("upstream", &*upstream.name), ("reason", reason)], count);
        }
    }
    let help = "Time from a request's first reading to the head of its upstream's answer.";
    out.family("portcullis_upstream_duration_seconds", help, Kind::Histogram);
    for upstream in upstreams.iter().filter(|upstream| upstream.counters.used().next().is_some()) {
        let shards = upstream.counters.used().map(|shard| &shard.durations);
        out.durations(&[("upstream", &upstream.name)], shards);
    }
}
