//! One connection to a server in the hands of its requests, and its end where the server does not let it end.

use super::request_body::{Meter, RequestBody};
use hyper::client::conn::http1::SendRequest;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::AbortHandle;

/// How long a server may take nothing on a connection that was given up, before the connection is closed by force.
const ABANDONED_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection as its requests see it. Dropped, the connection closes by itself; where its server does not let it, the
/// sweep closes it.
pub(super) struct Link {
    pub(super) sender: SendRequest<RequestBody>,
    /// The body of the request that was sent last.
    pub(super) upload: Option<Rc<Meter>>,
    task: AbortHandle,
    abandoned: Rc<AbandonedLinks>,
}

/// Connections that no request uses any more and whose tasks have not ended yet. A task ends once all is written that
/// was to be written, and a server that takes nothing more would hold it, and its place, for ever.
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
    /// Closes the connections whose servers take nothing.
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
    /// A server that still takes the request's body, or waits for the client to send more of it, is not stuck.
    fn is_stuck(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= ABANDONED_TIMEOUT
            && self.upload.as_ref().is_none_or(|upload| upload.is_stuck(ABANDONED_TIMEOUT))
    }
}
