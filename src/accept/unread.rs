//! Handles request bodies that were not read to the end: discards the rest within bounds, or lets the connection close.

use crate::forward::BodyOwner;
use crate::peer::Connection;
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::rc::Rc;
use std::time::Duration;

/// Maximum number of bytes of an unread body to discard over HTTP/2, so that a client that sends the whole body before
/// it reads still gets the response.
const DISCARDED_MAX: u64 = 64 << 20;
/// Maximum number of bytes left of an announced body that the gateway reads over HTTP/1.1 to keep the connection open.
const SMALL: u64 = 64 * 1024;
/// Time limit for reading the small rest of a body over HTTP/1.1.
const SMALL_TIME: Duration = Duration::from_secs(2);

impl BodyOwner for Connection {
    /// Makes sure that a client that is still sending gets its response.
    ///
    /// Over HTTP/2 the gateway discards the rest of the body. If it reset the stream instead, many clients would report
    /// an error although the response is complete, even though RFC 9113 section 8.1 forbids clients to do so. Over
    /// HTTP/1.1 the gateway discards a small rest too. If the rest is larger, the response says `Connection: close`,
    /// and `linger` continues to read after the response (RFC 9112 section 9.6).
    fn take_back(self: Rc<Self>, body: Incoming, expects_continue: bool) {
        if body.is_end_stream() || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        if self.is_http2() {
            let time = self.body_timeout();
            return discard(self, body, DISCARDED_MAX, time);
        }
        // If the client waits for `100 Continue`, the body is not read, because reading the body would make hyper send
        // a `100 Continue`.
        let small = body.size_hint().upper().is_some_and(|left| left <= SMALL);
        if small && !expects_continue && !self.must_close() {
            discard(self, body, SMALL, SMALL_TIME);
        } else {
            self.mark_body_unread();
        }
    }
}

/// Reads and discards the rest of a body, up to `bytes_max` and for up to `time`.
fn discard(connection: Rc<Connection>, mut body: Incoming, bytes_max: u64, time: Duration) {
    // Mark the connection as busy, so that the body's bytes do not count as the head of a request.
    connection.activity.begin_request();
    tokio::task::spawn_local(async move {
        let read = async {
            let mut bytes = 0;
            while bytes <= bytes_max {
                match body.frame().await {
                    Some(Ok(frame)) => bytes += frame.data_ref().map_or(0, |data| data.len() as u64),
                    Some(Err(_)) | None => break,
                }
            }
        };
        // The request already has its response, so the result does not matter.
        let _ = tokio::time::timeout(time, read).await;
        drop(body);
        connection.activity.end_request(connection.coarse_now());
    });
}
