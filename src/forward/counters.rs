//! Counters of each upstream: connections, their failures, the time to an answer, and the failures of answers.

use super::faults::{ConnectError, ResponseErrorKind};
use crate::counter::{Counter, Durations, Sharded};
use std::sync::Arc;

/// The counts of one upstream, a shard for each core. They survive a reload that keeps the upstream's name.
#[derive(Debug)]
pub struct UpstreamCounters {
    name: Arc<str>,
    shards: Sharded<UpstreamShard>,
}

/// One core's counts of one upstream. Aligned, so that two cores never write to one cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct UpstreamShard {
    /// Connections that were made.
    pub(crate) connections: Counter,
    /// Connections that are open now.
    pub(crate) open: Counter,
    /// Requests that wait for a connection now.
    pub(crate) waiting: Counter,
    /// Requests that were sent a second time.
    pub(crate) retries: Counter,
    /// `Set-Cookie` fields that named a cookie of the gateway and were removed.
    pub(crate) cookies_removed: Counter,
    /// From a request's head to the head of its answer.
    pub(crate) durations: Durations,
    connect_failures: [Counter; ConnectError::REASONS.len()],
    broken: [Counter; ResponseErrorKind::REASONS.len()],
}

impl UpstreamCounters {
    /// Counters for the upstream of this name, for this many cores (at least one).
    pub(crate) fn new(name: Arc<str>, cores: usize) -> Self {
        Self { name, shards: Sharded::new(cores) }
    }

    /// The upstream's name.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The counts of one core, which is their only writer.
    pub(crate) fn of(&self, core: usize) -> Option<&UpstreamShard> {
        self.shards.of(core)
    }

    /// The counts of the cores that have counted.
    pub(crate) fn used(&self) -> impl Iterator<Item = &UpstreamShard> + Clone {
        self.shards.used()
    }

    /// A sum over all cores.
    pub(crate) fn sum(&self, count: impl Fn(&UpstreamShard) -> u64) -> u64 {
        self.shards.sum(count)
    }

    /// Connections that could not be made, by reason.
    pub(crate) fn connect_failures(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts =
            (0..ConnectError::REASONS.len()).map(|at| self.sum(|shard| shard.connect_failures[at].get()));
        ConnectError::REASONS.into_iter().zip(counts)
    }

    /// Answers that broke off after their head, by reason.
    pub(crate) fn broken(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts = (0..ResponseErrorKind::REASONS.len()).map(|at| self.sum(|shard| shard.broken[at].get()));
        ResponseErrorKind::REASONS.into_iter().zip(counts)
    }
}

impl UpstreamShard {
    /// Counts a connection that could not be made.
    pub(super) fn count_connect_error(&self, fault: &ConnectError) {
        count(&self.connect_failures, &ConnectError::REASONS, fault.reason());
    }

    /// Counts an answer that broke off after its head.
    pub(crate) fn count_response_error(&self, broken: ResponseErrorKind) {
        count(&self.broken, &ResponseErrorKind::REASONS, broken.reason());
    }
}

fn count(counters: &[Counter], reasons: &[&str], reason: &str) {
    if let Some(place) = reasons.iter().position(|known| *known == reason) {
        counters[place].add(1);
    }
}
