//! Counters, and their exposition for Prometheus.
//!
//! Label values are limited to names from the policy, denial codes and status classes; text from a client is never a
//! label. Counting uses no locked instructions: each core writes to its own shard, and a scrape sums the shards. Other
//! modules add their gauges through [`Exposition`].

mod counters;
mod exposition;
pub(crate) mod process;
mod requests;
#[cfg(test)]
mod tests;
pub(crate) mod tls_failure;
mod upstreams;
mod workers;

pub(crate) use counters::{Reasons, RequestOutcome, RouteCounters, WorkerCounters};
pub(crate) use exposition::{CONTENT_TYPE, Exposition, Kind};

use crate::forward::Upstream;
use crate::limit::Limit;
use std::sync::Arc;

/// Writes all counts. Refusal counts of zero are omitted, because a route produces few of the codes. A route's
/// durations are written once it has served a request.
pub(crate) fn render(
    out: &mut Exposition,
    routes: &[Arc<RouteCounters>],
    workers: &[Arc<WorkerCounters>],
    limits: &[Arc<Limit>],
    upstreams: &[Arc<Upstream>],
) {
    requests::render(out, routes, workers);
    workers::render(out, workers);
    upstreams::render(out, upstreams);
    process::render(out);
    out.family("portcullis_rate_limited_total", "Requests refused by a rate limit.", Kind::Counter);
    for limit in limits {
        out.sample(&[("limit", limit.name())], limit.refused());
    }
    let help = "Active keys evicted from a rate limit's full table.";
    out.family("portcullis_rate_limit_displaced_total", help, Kind::Counter);
    for limit in limits {
        out.sample(&[("limit", limit.name())], limit.displaced());
    }
}
