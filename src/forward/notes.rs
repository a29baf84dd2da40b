//! Defines the notes about a forwarded request.

use super::open_streams::StreamEnd;
use super::upstream::counters::UpstreamCounters;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The facts about a forwarded request that the log records.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// The origin of the last server to which the request was sent. The server itself is not kept here, because all
    /// cores share its reference count.
    pub(crate) server: Option<Rc<str>>,
    /// The reason for a failure, for the operator.
    pub(crate) detail: Option<String>,
    /// The time from reading the request to receiving the head of the upstream's response.
    pub(crate) took: Option<Duration>,
    /// The number of identity fields that the client sent and the gateway removed.
    pub(crate) forged: u64,
    /// The reason why the gateway ended the client's upload.
    pub(crate) ended: Option<StreamEnd>,
    /// The counters of the upstream that got the request, if several upstreams share the requests of the route.
    pub(crate) split: Option<Arc<UpstreamCounters>>,
}
