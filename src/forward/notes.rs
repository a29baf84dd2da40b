//! What is recorded about a forwarded request besides its answer.

use super::upstream::Server;
use std::sync::Arc;
use std::time::Duration;

/// The outcome of forwarding for the log, beside the answer.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// The server that was asked last.
    pub(crate) server: Option<Arc<Server>>,
    /// The reason of a failure, for the operator.
    pub(crate) detail: Option<String>,
    /// From the reading of the request to the head of the upstream's answer.
    pub(crate) took: Option<Duration>,
    /// The number of the client's identity fields that were dropped.
    pub(crate) forged: u64,
}
