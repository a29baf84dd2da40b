//! Facts about a request's body that both protocols share while they send it to a server.

use super::request_body::RequestBody;
use crate::http1::RequestFraming;
use http::Method;
use http_body::Body;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Sleep;

/// The time after which the body is sent to a server that does not answer `Expect: 100-continue` (RFC 9110 section
/// 10.1.1).
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);

/// The wait for `100 Continue`. It begins once a connection is there.
#[derive(Debug, Default)]
pub(in crate::forward) struct Held {
    timer: Option<Pin<Box<Sleep>>>,
}

impl Held {
    /// Waits until the body is sent without a `100 Continue`.
    pub(in crate::forward) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(CONTINUE_TIMEOUT)));
        timer.as_mut().poll(cx)
    }
}

/// The reason why a request could not be sent to its end.
#[derive(Debug)]
pub(in crate::forward) enum UploadError {
    /// The client's body failed.
    Body,
    /// The connection failed.
    Connection(io::Error),
}

/// Returns how the end of a body is announced.
pub(in crate::forward) fn framing(method: &Method, body: &RequestBody) -> RequestFraming {
    match (body, body.size_hint().exact()) {
        (RequestBody::Empty, _) => RequestFraming::None,
        (RequestBody::Whole(_) | RequestBody::Streamed(_), Some(length)) => RequestFraming::Length(length),
        // A body of unknown length has no meaning for these methods, and some servers would read its chunks as another
        // request. The body is not forwarded.
        _ if matches!(*method, Method::GET | Method::HEAD) => RequestFraming::None,
        _ => RequestFraming::Chunked,
    }
}
