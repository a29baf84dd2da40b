//! Writes the counters of the cores.

use super::proxy_failure::ProxyFailure;
use super::tls_failure::TlsFailure;
use super::{Exposition, Kind, WorkerCounters};
use crate::authenticate::ApiKeyOutcome;
use crate::counter::{Counter, total};
use crate::forward::{StreamEnd, StreamKind};
use crate::respond::coding::Coding;
use std::sync::Arc;

/// Selects a counter of a core.
type Pick = fn(&WorkerCounters) -> &Counter;

/// The families without labels: name, help, kind and counter.
const PLAIN: [(&str, &str, Kind, Pick); 18] = [
    ("portcullis_connections_open", "Open client connections.", Kind::Gauge, |w| &w.connections_open),
    ("portcullis_connections_parked", "Idle client connections that hold no buffers.", Kind::Gauge, |w| {
        &w.connections_parked
    }),
    ("portcullis_connections_total", "Client connections accepted.", Kind::Counter, |w| {
        &w.connections_accepted
    }),
    (
        "portcullis_connections_refused_total",
        "Client connections closed at once because the limit was reached.",
        Kind::Counter,
        |w| &w.connections_refused,
    ),
    ("portcullis_token_cache_hits_total", "Token verifications served from the cache.", Kind::Counter, |w| {
        &w.token_cache_hits
    }),
    (
        "portcullis_token_cache_misses_total",
        "Token verifications that were not in the cache.",
        Kind::Counter,
        |w| &w.token_cache_misses,
    ),
    (
        "portcullis_token_cache_bytes",
        "Approximate memory of the cached token verifications, in bytes.",
        Kind::Gauge,
        |w| &w.token_cache_bytes,
    ),
    (
        "portcullis_identity_headers_dropped_total",
        "Identity header fields removed from client requests.",
        Kind::Counter,
        |w| &w.identity_dropped,
    ),
    ("portcullis_redirects_total", "Requests redirected from cleartext to TLS.", Kind::Counter, |w| {
        &w.redirected
    }),
    (
        "portcullis_acme_challenges_total",
        "Validations by an ACME server that the gateway answered.",
        Kind::Counter,
        |w| &w.acme_challenges,
    ),
    (
        "portcullis_clients_left_total",
        "Requests whose client disconnected before a response.",
        Kind::Counter,
        |w| &w.clients_left,
    ),
    ("portcullis_requests_in_progress", "Requests whose response is not yet complete.", Kind::Gauge, |w| {
        &w.requests_in_progress
    }),
    (
        "portcullis_requests_shed_total",
        "Requests refused at once because too many were in progress.",
        Kind::Counter,
        |w| &w.requests_shed,
    ),
    ("portcullis_compressions_in_progress", "Answers that are being compressed.", Kind::Gauge, |w| {
        &w.compressing
    }),
    (
        "portcullis_compressions_skipped_total",
        "Answers not compressed because too many others were.",
        Kind::Counter,
        |w| &w.compressions_skipped,
    ),
    (
        "portcullis_compressed_bytes_in_total",
        "Bytes of compressed answers before their compression.",
        Kind::Counter,
        |w| &w.compressed_bytes_in,
    ),
    (
        "portcullis_compressed_bytes_out_total",
        "Bytes of compressed answers after their compression.",
        Kind::Counter,
        |w| &w.compressed_bytes_out,
    ),
    ("portcullis_websockets_open", "Open WebSockets.", Kind::Gauge, |w| &w.websockets_open),
];

/// The timeouts of client connections, by what was awaited.
const TIMEOUTS: [(&str, Pick); 4] = [
    ("head", |w| &w.head_timeouts),
    ("idle", |w| &w.idle_timeouts),
    ("reader", |w| &w.reader_timeouts),
    ("drain", |w| &w.drain_timeouts),
];

/// Writes the sums of the counters over all cores.
pub(super) fn render(out: &mut Exposition, workers: &[Arc<WorkerCounters>]) {
    let sum =
        |pick: &dyn Fn(&WorkerCounters) -> &Counter| total(workers.iter().map(|worker| pick(worker).get()));
    for (name, help, kind, pick) in PLAIN {
        out.family(name, help, kind);
        out.sample(&[], sum(&pick));
    }
    let help = "Client connections closed because of a timeout, by what was awaited.";
    out.family("portcullis_connection_timeouts_total", help, Kind::Counter);
    for (waited_for, pick) in TIMEOUTS {
        out.sample(&[("waited_for", waited_for)], sum(&pick));
    }
    let help = "Requests with an API key, by outcome.";
    out.family("portcullis_api_key_requests_total", help, Kind::Counter);
    for outcome in ApiKeyOutcome::ALL {
        out.sample(&[("outcome", outcome.as_str())], sum(&|worker| &worker.api_keys[outcome as usize]));
    }
    out.family("portcullis_compressed_answers_total", "Compressed answers by coding.", Kind::Counter);
    for coding in Coding::ALL {
        out.sample(&[("coding", coding.as_str())], sum(&|worker| &worker.compressed[coding as usize]));
    }
    let help = "HTTP/2 streams reset because of a timeout, by what was awaited.";
    out.family("portcullis_stream_timeouts_total", help, Kind::Counter);
    out.sample(&[("waited_for", "reader")], sum(&|worker| &worker.stream_reader_timeouts));
    let help = "Connections closed because they did not begin with an accepted PROXY header, by reason.";
    out.family("portcullis_proxy_protocol_failures_total", help, Kind::Counter);
    for failure in ProxyFailure::ALL {
        out.sample(&[("reason", failure.as_str())], sum(&|worker| worker.proxy_failures.of(failure)));
    }
    let help = "WebSockets that ended, and long answers and uploads that the gateway ended, by reason.";
    out.family("portcullis_streams_ended_total", help, Kind::Counter);
    for kind in StreamKind::ALL {
        for end in StreamEnd::ALL {
            let labels = [("kind", kind.as_str()), ("reason", end.as_str())];
            // The gateway does not count answers and uploads that end by themselves.
            if kind == StreamKind::WebSocket || end.is_of_token() {
                out.sample(&labels, sum(&|worker| &worker.streams_ended[kind as usize][end as usize]));
            }
        }
    }
    out.family("portcullis_tls_failures_total", "Failed TLS handshakes by reason.", Kind::Counter);
    for failure in TlsFailure::ALL {
        out.sample(&[("reason", failure.as_str())], sum(&|worker| worker.tls_failures.of(failure)));
    }
}
