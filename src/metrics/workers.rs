//! Writes the counters of the cores.

use super::tls_failure::TlsFailure;
use super::{Exposition, Kind, WorkerCounters};
use crate::counter::Counter;
use std::sync::Arc;

pub(super) fn render(out: &mut Exposition, workers: &[Arc<WorkerCounters>]) {
    type Pick = fn(&WorkerCounters) -> &Counter;
    let families: [(&'static str, &'static str, Kind, Pick); 10] = [
        ("portcullis_connections_open", "Connections of clients, now.", Kind::Gauge, |w| &w.connections_open),
        ("portcullis_connections_total", "Connections accepted.", Kind::Counter, |w| &w.connections_accepted),
        (
            "portcullis_connections_refused_total",
            "Connections closed at once because the bound was reached.",
            Kind::Counter,
            |w| &w.connections_refused,
        ),
        (
            "portcullis_token_cache_hits_total",
            "Tokens whose verification was remembered.",
            Kind::Counter,
            |w| &w.token_cache_hits,
        ),
        ("portcullis_token_cache_misses_total", "Tokens that had to be verified.", Kind::Counter, |w| {
            &w.token_cache_misses
        }),
        (
            "portcullis_token_cache_bytes",
            "Bytes of memory that remembered verifications take, about.",
            Kind::Gauge,
            |w| &w.token_cache_bytes,
        ),
        (
            "portcullis_identity_headers_dropped_total",
            "Identity header fields that clients sent and the gateway removed.",
            Kind::Counter,
            |w| &w.identity_dropped,
        ),
        ("portcullis_redirects_total", "Requests sent from cleartext to TLS.", Kind::Counter, |w| {
            &w.redirected
        }),
        (
            "portcullis_clients_left_total",
            "Requests whose client left before an answer.",
            Kind::Counter,
            |w| &w.clients_left,
        ),
        ("portcullis_requests_in_progress", "Requests whose answer is not complete yet.", Kind::Gauge, |w| {
            &w.requests_in_progress
        }),
    ];
    let sum = |pick: Pick| workers.iter().map(|worker| pick(worker).get()).fold(0, u64::wrapping_add);
    for (name, help, kind, pick) in families {
        out.family(name, help, kind);
        out.sample(&[], sum(pick));
    }
    let timeouts: [(&str, Pick); 4] = [
        ("head", |w| &w.head_timeouts),
        ("idle", |w| &w.idle_timeouts),
        ("reader", |w| &w.reader_timeouts),
        ("drain", |w| &w.drain_timeouts),
    ];
    let help = "Connections closed because something did not come in time.";
    out.family("portcullis_connection_timeouts_total", help, Kind::Counter);
    for (waited_for, pick) in timeouts {
        out.sample(&[("waited_for", waited_for)], sum(pick));
    }
    let help = "HTTP/2 streams reset because a deadline passed.";
    out.family("portcullis_stream_timeouts_total", help, Kind::Counter);
    out.sample(&[("waited_for", "reader")], sum(|worker| &worker.stream_reader_timeouts));
    out.family("portcullis_tls_failures_total", "TLS handshakes that failed, by reason.", Kind::Counter);
    for failure in TlsFailure::ALL {
        let count =
            workers.iter().map(|worker| worker.tls_failures.of(failure).get()).fold(0, u64::wrapping_add);
        out.sample(&[("reason", failure.as_str())], count);
    }
}
