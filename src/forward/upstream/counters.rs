//! Counts each upstream's connections, connection failures, response times and response failures.

use super::connect_error::ConnectError;
use super::retry_budget::{RetryBudget, RetryWindow};
use crate::counter::{Counter, Durations, Sharded};
use crate::forward::faults::ResponseErrorKind;
use std::sync::Arc;
use std::time::Instant;

/// The counters of one upstream, with one shard per core. They survive a reload if the upstream keeps its name.
#[derive(Debug)]
pub struct UpstreamCounters {
    name: Arc<str>,
    shards: Sharded<UpstreamShard>,
}

/// One core's counters of an upstream. The alignment keeps two cores from writing to the same cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct UpstreamShard {
    /// The number of connections opened.
    pub(crate) connections: Counter,
    /// The number of connections that are open now.
    pub(crate) open: Counter,
    /// The number of requests that wait for a connection now.
    pub(crate) waiting: Counter,
    /// The number of retried requests.
    pub(crate) retries: Counter,
    /// The number of requests that were not retried because of the budget.
    pub(crate) retries_refused: Counter,
    retry_window: RetryWindow,
    /// The number of times that this core has chosen a server by turns.
    pub(in crate::forward) turns: Counter,
    /// The number of connections that were closed because the server sent bytes that no request asked for.
    pub(crate) unasked: Counter,
    /// The number of `Set-Cookie` fields that were removed because they set a cookie of the gateway.
    pub(crate) cookies_removed: Counter,
    /// The number of requests from routes whose requests several upstreams share.
    pub(crate) split: Counter,
    /// Copies of requests that were answered, that were not, and that were not sent because too many were in flight.
    pub(crate) mirror_answered: Counter,
    pub(crate) mirror_failed: Counter,
    pub(crate) mirror_dropped: Counter,
    /// The times from the head of a request to the head of its response.
    pub(crate) durations: Durations,
    connect_failures: [Counter; ConnectError::REASONS.len()],
    broken: [Counter; ResponseErrorKind::REASONS.len()],
}

impl UpstreamCounters {
    /// Creates the counters of an upstream for this number of cores (at least one).
    pub(crate) fn new(name: Arc<str>, cores: usize) -> Self {
        Self { name, shards: Sharded::new(cores) }
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Returns the number of cores.
    pub(in crate::forward) fn cores(&self) -> usize {
        self.shards.cores()
    }

    /// Returns the counters of one core. Only that core writes to them.
    pub(crate) fn of(&self, core: usize) -> Option<&UpstreamShard> {
        self.shards.of(core)
    }

    /// Returns the shards that have counted something.
    pub(crate) fn used(&self) -> impl Iterator<Item = &UpstreamShard> + Clone {
        self.shards.used()
    }

    /// Returns the sum of a count over all cores.
    pub(crate) fn sum(&self, count: impl Fn(&UpstreamShard) -> u64) -> u64 {
        self.shards.sum(count)
    }

    /// Returns the number of connections that could not be opened, by reason.
    pub(crate) fn connect_failures(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts =
            (0..ConnectError::REASONS.len()).map(|at| self.sum(|shard| shard.connect_failures[at].get()));
        ConnectError::REASONS.into_iter().zip(counts)
    }

    /// Returns the number of responses that ended early after their head, by reason.
    pub(crate) fn broken(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts = (0..ResponseErrorKind::REASONS.len()).map(|at| self.sum(|shard| shard.broken[at].get()));
        ResponseErrorKind::REASONS.into_iter().zip(counts)
    }
}

impl UpstreamShard {
    /// Takes one retry from the upstream's budget. Returns whether the request may be retried.
    pub(in crate::forward) fn take_retry(&self, budget: RetryBudget, now: Instant) -> bool {
        let may = self.retry_window.take(budget, self.durations.count(), now);
        if !may {
            self.retries_refused.add(1);
        }
        may
    }

    /// Counts a connection that could not be opened.
    pub(in crate::forward) fn count_connect_error(&self, fault: &ConnectError) {
        count(&self.connect_failures, &ConnectError::REASONS, fault.reason());
    }

    /// Counts a response that ended early after its head.
    pub(crate) fn count_response_error(&self, broken: ResponseErrorKind) {
        count(&self.broken, &ResponseErrorKind::REASONS, broken.reason());
    }
}

fn count(counters: &[Counter], reasons: &[&str], reason: &str) {
    if let Some(place) = reasons.iter().position(|known| *known == reason) {
        counters[place].add(1);
    }
}
