//! Counts events, and writes the counts for Prometheus.
//!
//! Labels are names from the policy, denial codes and status classes, never text from a client. Counting uses no locked
//! instructions: each core writes to separate shards, and a scrape sums them. Other modules write their gauges with
//! [`Exposition`].

mod counters;
mod exposition;
pub(crate) mod process;
pub(crate) mod proxy_failure;
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

/// Writes all counts. Omits refusal counts of zero, because a route produces few of the codes. Omits the durations of a
/// route without requests.
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
