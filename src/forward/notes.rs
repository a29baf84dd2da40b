//! The outcome of forwarding a request, in addition to its answer.

use super::upstream::Server;
use std::sync::Arc;
use std::time::Duration;

/// The outcome of forwarding, for the log.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// The server to which the request was sent last.
    pub(crate) server: Option<Arc<Server>>,
    /// The reason of a failure, for the operator.
    pub(crate) detail: Option<String>,
    /// The time from the reading of the request to the head of the upstream's answer.
    pub(crate) took: Option<Duration>,
    /// The number of identity fields that the client sent and the gateway removed.
    pub(crate) forged: u64,
}
