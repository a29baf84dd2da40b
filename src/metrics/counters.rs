//! The counters of one route and of one core.

use super::tls_failure::TlsFailures;
use crate::counter::{Counter, Durations, Sharded};
use crate::denial::Denial;
use http::StatusCode;
use std::array;
use std::sync::{Arc, OnceLock};

/// A count for each code of [`Denial`].
#[derive(Debug)]
pub struct Reasons(Box<[Counter; Denial::COUNT]>);

impl Default for Reasons {
    fn default() -> Self {
        Self(Box::new(array::from_fn(|_| Counter::default())))
    }
}

impl Reasons {
    /// Counts one refusal.
    pub fn record(&self, denial: &Denial) {
        self.0[denial.index()].add(1);
    }

    /// Sums the shards. Returns each code that was counted, with the class of its status and its count.
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

/// How a request of a route ended.
#[derive(Clone, Copy, Debug)]
pub enum RequestOutcome<'d> {
    /// The upstream answered, with this status.
    Forwarded(StatusCode),
    /// Another proxy was told that it may forward it.
    Permitted,
    /// We refused.
    Refused(&'d Denial),
}

pub(super) const CLASSES: usize = 5;

/// The counts of one route, a shard for each core.
#[derive(Debug)]
pub struct RouteCounters {
    name: Arc<str>,
    shards: Sharded<RouteShard>,
}

/// One core's counts of one route. Aligned, so that two cores never write to one cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct RouteShard {
    pub(super) forwarded: [Counter; CLASSES],
    pub(super) permitted: Counter,
    pub(super) durations: Durations,
    pub(super) refused: Reasons,
    /// Made when first needed: few routes are ever in shadow mode.
    pub(super) shadowed: OnceLock<Reasons>,
}

impl RouteCounters {
    /// Counters for the route of this name, for this many cores (at least one).
    pub fn new(name: Arc<str>, cores: usize) -> Self {
        Self { name, shards: Sharded::new(cores) }
    }

    /// For how many cores.
    pub fn cores(&self) -> usize {
        self.shards.cores()
    }

    /// The route's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Counts one request and its duration. Each shard has one writer, the core of its number; a number without a
    /// shard is not counted.
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

/// The class of a status, from 0 for 1xx; what no class has counts as the last.
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

/// What one core counts apart from routes. It has one writer: the core itself.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct WorkerCounters {
    /// Connections of clients that are open now.
    pub connections_open: Counter,
    /// Connections of clients that were accepted.
    pub connections_accepted: Counter,
    /// Connections that were closed at once because the bound was reached.
    pub connections_refused: Counter,
    /// Failed TLS handshakes, including timeouts, by reason.
    pub tls_failures: TlsFailures,
    /// Connections that were closed because a request's head did not come in time.
    pub head_timeouts: Counter,
    /// Connections that were closed because no request came.
    pub idle_timeouts: Counter,
    /// Connections that were closed because the client did not read its answer.
    pub reader_timeouts: Counter,
    /// HTTP/2 streams that were reset because the client did not read its answer.
    pub stream_reader_timeouts: Counter,
    /// Connections that were closed because the drain was over.
    pub drain_timeouts: Counter,
    /// Requests that were sent from cleartext to TLS.
    pub redirected: Counter,
    /// Requests whose client left before an answer.
    pub clients_left: Counter,
    /// Requests that were refused before a route was found, by code.
    pub unrouted: Reasons,
    /// Tokens whose verification was remembered.
    pub token_cache_hits: Counter,
    /// Tokens that had to be verified.
    pub token_cache_misses: Counter,
    /// Bytes of memory that remembered verifications take.
    pub token_cache_bytes: Counter,
    /// Header fields under an identity name that were taken from clients' requests.
    pub identity_dropped: Counter,
    /// Requests that are being served now.
    pub requests_in_progress: Counter,
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
