//! Writes the counts of requests.

use super::counters::{CLASSES, class_name};
use super::{Exposition, Kind, Reasons, RouteCounters, WorkerCounters};
use std::sync::Arc;

pub(super) fn render(out: &mut Exposition, routes: &[Arc<RouteCounters>], workers: &[Arc<WorkerCounters>]) {
    out.family(
        "portcullis_requests_total",
        "Requests by route, outcome, status class and reason.",
        Kind::Counter,
    );
    for route in routes {
        for class in 0..CLASSES {
            let labels = request_labels(route.name(), "forwarded", class_name(class), "");
            out.sample(&labels, route.sum(|shard| shard.forwarded[class].get()));
        }
        let permitted = route.sum(|shard| shard.permitted.get());
        if permitted > 0 {
            out.sample(&request_labels(route.name(), "permitted", class_name(1), ""), permitted);
        }
        refusals(out, route.name(), route.used().map(|shard| &shard.refused));
    }
    // The empty name marks requests without a route. No route has an empty name.
    refusals(out, "", workers.iter().map(|worker| &worker.unrouted));

    let help = "Requests that a route in shadow mode let pass, by reason of the refusal.";
    out.family("portcullis_shadow_refusals_total", help, Kind::Counter);
    for route in routes {
        for (code, _, count) in Reasons::sums(route.used().filter_map(|shard| shard.shadowed.get())) {
            out.sample(&[("route", route.name()), ("reason", code)], count);
        }
    }

    let help = "Time from reading a request's head to the last byte of its response.";
    out.family("portcullis_request_duration_seconds", help, Kind::Histogram);
    // A histogram is written only after the route's first request. The request counts are written from the start.
    for route in routes.iter().filter(|route| route.used().next().is_some()) {
        out.durations(&[("route", route.name())], route.used().map(|shard| &shard.durations));
    }
}

fn refusals<'r>(out: &mut Exposition, route: &str, shards: impl Iterator<Item = &'r Reasons>) {
    for (code, class, count) in Reasons::sums(shards) {
        out.sample(&request_labels(route, "refused", class, code), count);
    }
}

const fn request_labels<'l>(
    route: &'l str,
    outcome: &'l str,
    status: &'l str,
    reason: &'l str,
) -> [(&'static str, &'l str); 4] {
    [("route", route), ("outcome", outcome), ("status", status), ("reason", reason)]
}
