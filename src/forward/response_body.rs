//! Streams the body of an upstream's response to the client.

use super::faults::ResponseError;
use super::pool::Lease;
use super::request_body::Meter;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// The body of an upstream's response. At the end of the body, its connection returns to the pool. If the body is
/// dropped before its end, the connection closes.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    incoming: Incoming,
    lease: Option<Lease>,
    timeout: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
    /// The meter of the request's body, if the client was still sending when the response began.
    upload: Option<Rc<Meter>>,
}

impl ResponseBody {
    pub(super) fn new(
        incoming: Incoming,
        lease: Lease,
        timeout: Duration,
        upload: Option<Rc<Meter>>,
    ) -> Self {
        let mut body = Self { incoming, lease: Some(lease), timeout, waiting: None, upload };
        if body.incoming.is_end_stream() {
            body.end();
        }
        body
    }

    fn end(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.release();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ResponseError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Ready(frame) => {
                this.waiting = None;
                match frame {
                    Some(Ok(mut frame)) => {
                        let last = match frame.trailers_mut() {
                            Some(trailers) => {
                                super::reframe::trailers(trailers);
                                true
                            }
                            None => this.incoming.is_end_stream(),
                        };
                        if last {
                            this.end();
                        }
                        Poll::Ready(Some(Ok(frame)))
                    }
                    Some(Err(error)) => Poll::Ready(Some(Err(ResponseError::Broken(error)))),
                    None => {
                        this.end();
                        Poll::Ready(None)
                    }
                }
            }
            Poll::Pending => {
                let timeout = this.timeout;
                let waiting = this.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
                loop {
                    ready!(waiting.as_mut().poll(cx));
                    // The server's timeout does not run while the gateway waits for the client's body.
                    match this.upload.as_ref().and_then(|upload| upload.waiting().left(timeout)) {
                        Some(left) => waiting.as_mut().reset(Instant::now() + left),
                        None => return Poll::Ready(Some(Err(ResponseError::Silent))),
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
