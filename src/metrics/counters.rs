//! Defines the counters of a route and of a core.

use super::proxy_failure::ProxyFailures;
use super::tls_failure::TlsFailures;
use crate::authenticate::ApiKeyOutcome;
use crate::counter::{Counter, Durations, Sharded};
use crate::denial::Denial;
use crate::forward::{StreamEnd, StreamKind};
use crate::respond::coding::Coding;
use http::StatusCode;
use std::array;
use std::sync::{Arc, OnceLock};

/// A count for each code of [`Denial`].
#[derive(Debug)]
pub(crate) struct Reasons(Box<[Counter; Denial::COUNT]>);

impl Default for Reasons {
    fn default() -> Self {
        Self(Box::new(array::from_fn(|_| Counter::default())))
    }
}

impl Reasons {
    pub(crate) fn record(&self, denial: &Denial) {
        self.0[denial.index()].add(1);
    }

    /// Sums the shards. Returns each code with a count above zero, the class of its status, and the count.
    pub(super) fn sums<'r>(
        shards: impl Iterator<Item = &'r Self>,
    ) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let mut sums = [0_u64; Denial::COUNT];
        for shard in shards {
            for (sum, counter) in sums.iter_mut().zip(&*shard.0) {
                *sum = sum.wrapping_add(counter.get());
            }
        }
        let counted = Denial::SPECS.iter().zip(sums).filter(|(_, count)| *count > 0);
        counted.map(|(spec, count)| (spec.code, class_name(class(spec.status)), count))
    }
}

/// The outcome of a request with a route.
#[derive(Clone, Copy, Debug)]
pub enum RequestOutcome<'d> {
    /// The upstream responded with this status.
    Forwarded(StatusCode),
    /// The gateway permitted another proxy to forward the request.
    Permitted,
    /// The gateway refused the request.
    Refused(&'d Denial),
}

pub(super) const CLASSES: usize = 5;

/// The counts of one route, with one shard per core.
#[derive(Debug)]
pub struct RouteCounters {
    name: Arc<str>,
    shards: Sharded<RouteShard>,
}

/// One core's counts of one route. The alignment keeps two cores from writing to the same cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct RouteShard {
    pub(super) forwarded: [Counter; CLASSES],
    pub(super) permitted: Counter,
    pub(super) durations: Durations,
    pub(super) refused: Reasons,
    /// Refusals that shadow mode did not enforce. Allocated on first use, because few routes use shadow mode.
    pub(super) shadowed: OnceLock<Reasons>,
}

impl RouteCounters {
    /// Creates the counters of a route for `cores` cores (at least one).
    pub fn new(name: Arc<str>, cores: usize) -> Self {
        Self { name, shards: Sharded::new(cores) }
    }

    /// Returns the number of cores.
    pub fn cores(&self) -> usize {
        self.shards.cores()
    }

    /// Returns the route's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Counts one request and its duration. Only core `core` may write to its shard. A core without a shard is ignored.
    pub fn record(&self, core: usize, outcome: RequestOutcome<'_>, micros: u64) {
        let Some(shard) = self.shards.of(core) else { return };
        match outcome {
            RequestOutcome::Forwarded(status) => shard.forwarded[class(status)].add(1),
            RequestOutcome::Permitted => shard.permitted.add(1),
            RequestOutcome::Refused(denial) => shard.refused.record(denial),
        }
        shard.durations.record(micros);
    }

    /// Counts a refusal that shadow mode did not enforce.
    pub fn shadowed(&self, core: usize, denial: &Denial) {
        if let Some(shard) = self.shards.of(core) {
            shard.shadowed.get_or_init(Reasons::default).record(denial);
        }
    }

    pub(super) fn sum(&self, of: impl Fn(&RouteShard) -> u64) -> u64 {
        self.shards.sum(of)
    }

    pub(super) fn used(&self) -> impl Iterator<Item = &RouteShard> + Clone {
        self.shards.used()
    }
}

/// Returns the class of a status, from 0 for 1xx to 4 for 5xx and above.
fn class(status: StatusCode) -> usize {
    (usize::from(status.as_u16() / 100).max(1) - 1).min(CLASSES - 1)
}

pub(super) const fn class_name(class: usize) -> &'static str {
    match class {
        0 => "1xx",
        1 => "2xx",
        2 => "3xx",
        3 => "4xx",
        _ => "5xx",
    }
}

/// One core's counts that are independent of routes. Only the core writes to them.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct WorkerCounters {
    pub connections_open: Counter,
    /// Idle HTTP/1.1 connections that hold no buffers.
    pub connections_parked: Counter,
    pub connections_accepted: Counter,
    /// Client connections that were closed at once because the limit was reached.
    pub connections_refused: Counter,
    /// Failed TLS handshakes by reason, including timeouts.
    pub tls_failures: TlsFailures,
    /// Connections closed because of their PROXY header, by reason.
    pub proxy_failures: ProxyFailures,
    /// Connections that were closed because a head did not arrive in time.
    pub head_timeouts: Counter,
    /// Connections that were closed because no request arrived.
    pub idle_timeouts: Counter,
    /// Connections that were closed because the client did not read its response.
    pub reader_timeouts: Counter,
    /// HTTP/2 streams that were reset because the client did not read its response.
    pub stream_reader_timeouts: Counter,
    /// Connections that were closed at the end of the drain.
    pub drain_timeouts: Counter,
    /// Requests that were redirected from cleartext to TLS.
    pub redirected: Counter,
    /// Validations by an ACME server that were answered.
    pub acme_challenges: Counter,
    /// Requests whose client disconnected before the response.
    pub clients_left: Counter,
    /// Requests that were refused before a route was found, by denial code.
    pub unrouted: Reasons,
    /// Token verifications served from the cache.
    pub token_cache_hits: Counter,
    /// Token verifications that were not in the cache.
    pub token_cache_misses: Counter,
    /// Approximate memory of the token cache, in bytes.
    pub token_cache_bytes: Counter,
    /// Requests with an API key, in the order of [`ApiKeyOutcome::ALL`].
    pub api_keys: [Counter; ApiKeyOutcome::ALL.len()],
    /// Compressed answers, in the order of [`Coding::ALL`].
    pub compressed: [Counter; Coding::ALL.len()],
    /// Answers that are being compressed.
    pub compressing: Counter,
    /// Answers that were not compressed because too many others were.
    pub compressions_skipped: Counter,
    /// Bytes of answers before and after compression.
    pub compressed_bytes_in: Counter,
    pub compressed_bytes_out: Counter,
    /// Identity fields that were removed from clients' requests.
    pub identity_dropped: Counter,
    pub requests_in_progress: Counter,
    /// Requests that were refused because too many were in progress.
    pub requests_shed: Counter,
    /// The number of times that the core has run its periodic work. It shows that the core does not stand still.
    pub sweeps: Counter,
    pub websockets_open: Counter,
    /// Ended WebSockets, and long answers and uploads that the gateway ended, by the orders of [`StreamKind`] and [`StreamEnd`].
    pub streams_ended: [[Counter; StreamEnd::ALL.len()]; StreamKind::ALL.len()],
}

impl WorkerCounters {
    /// Counts a stream that is no longer open. If `end` is `None`, the client ended it.
    pub(crate) fn record_stream(&self, kind: StreamKind, end: Option<StreamEnd>) {
        let ends = &self.streams_ended[kind as usize];
        match (kind, end) {
            (StreamKind::WebSocket, end) => {
                self.websockets_open.sub(1);
                ends[end.unwrap_or(StreamEnd::Client) as usize].add(1);
            }
            (StreamKind::Answer | StreamKind::Upload, Some(end)) => ends[end as usize].add(1),
            (StreamKind::Answer | StreamKind::Upload, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_statuses_have_a_class() {
        for (status, name) in
            [(100, "1xx"), (204, "2xx"), (308, "3xx"), (499, "4xx"), (599, "5xx"), (999, "5xx")]
        {
            assert_eq!(class_name(class(StatusCode::from_u16(status).unwrap())), name);
        }
    }
}
