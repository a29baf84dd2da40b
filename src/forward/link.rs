//! Defines the link through which requests use a connection to a server. If the server keeps an unused connection open,
//! the sweep closes the connection by force.

use super::request_body::{Meter, RequestBody};
use hyper::client::conn::http1::SendRequest;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::AbortHandle;

/// The time after which the gateway closes a connection by force. The time begins when no request uses the connection
/// any more, and the server does not accept the pending output.
const ABANDONED_TIMEOUT: Duration = Duration::from_secs(10);

/// The part of a connection that its requests use. When the link is dropped, the connection closes after its pending
/// output is written. If the server does not accept that output, the sweep closes the connection.
pub(super) struct Link {
    pub(super) sender: SendRequest<RequestBody>,
    /// The meter of the most recent request's body.
    pub(super) upload: Option<Rc<Meter>>,
    task: AbortHandle,
    abandoned: Rc<AbandonedLinks>,
}

/// Connections that no request uses any more, but whose tasks have not ended yet. A task ends when all its output is
/// written. Without the sweep, a server that accepts no output would keep the task and its connection slot forever.
#[derive(Default)]
pub(super) struct AbandonedLinks(RefCell<Vec<AbandonedLink>>);

struct AbandonedLink {
    task: AbortHandle,
    upload: Option<Rc<Meter>>,
    since: Instant,
}

impl Link {
    pub(super) fn new(
        sender: SendRequest<RequestBody>,
        task: AbortHandle,
        abandoned: Rc<AbandonedLinks>,
    ) -> Self {
        Self { sender, upload: None, task, abandoned }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if !self.task.is_finished() {
            let (task, upload) = (self.task.clone(), self.upload.take());
            self.abandoned.0.borrow_mut().push(AbandonedLink { task, upload, since: Instant::now() });
        }
    }
}

impl AbandonedLinks {
    /// Closes the connections whose servers accept no output.
    pub(super) fn sweep(&self, now: Instant) {
        self.0.borrow_mut().retain(|it| {
            let stuck = it.is_stuck(now);
            if stuck {
                it.task.abort();
            }
            !stuck && !it.task.is_finished()
        });
    }
}

impl AbandonedLink {
    /// Whether the server has accepted no output for too long. A server that still accepts the request's body, or
    /// that waits for the client to send more of it, is not stuck.
    fn is_stuck(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= ABANDONED_TIMEOUT
            && self.upload.as_ref().is_none_or(|upload| upload.is_stuck(ABANDONED_TIMEOUT))
    }
}
