//! What is counted, and how it is told to Prometheus.
//!
//! Promises closed label sets (names from the policy, codes of ours, classes of status: never text of a client)
//! and counting without a locked instruction: each core writes to a shard of its own, and a scrape adds them
//! up. Gauges of others are added through [`Exposition`].

mod counters;
mod exposition;
pub mod process;
mod requests;
#[cfg(test)]
mod tests;
pub mod tls_failure;
mod upstreams;
mod workers;

pub use counters::{Reasons, RequestOutcome, RouteCounters, WorkerCounters};
pub use exposition::{CONTENT_TYPE, Exposition, Kind};

use crate::forward::Upstream;
use crate::limit::Limit;
use std::sync::Arc;

/// Tells all counts. Of the counts of refusals those that are zero are left out: there are some thirty codes
/// for each route, and a route meets few of them. A route's durations are told once it has met a request.
pub fn render(
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
