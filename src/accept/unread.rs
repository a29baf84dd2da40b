//! Handles request bodies that were not read to the end.

use crate::forward::BodyOwner;
use crate::peer::Connection;
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::rc::Rc;
use std::time::Duration;

/// Maximum number of bytes of an unread body to discard over HTTP/2. Some clients send their whole body before they
/// read the response.
const DISCARDED_MAX: u64 = 64 << 20;
/// Over HTTP/1.1, the gateway discards the rest of a body only if at most this many bytes are left.
const SMALL: u64 = 64 * 1024;
/// Maximum time for discarding the rest of a body over HTTP/1.1.
const SMALL_TIME: Duration = Duration::from_secs(2);

impl BodyOwner for Connection {
    fn begin_body(&self) {
        if !self.is_http2() {
            self.activity.hold();
        }
    }

    fn end_body(&self) {
        if !self.is_http2() {
            self.activity.end_request(self.coarse_now());
        }
    }

    /// Makes sure that a client that is still sending gets its response.
    ///
    /// Over HTTP/2, the gateway discards the rest of the body. Many clients report an error if the stream is reset,
    /// although RFC 9113 section 8.1 forbids it.
    ///
    /// Over HTTP/1.1, the gateway discards a small rest. If the rest is larger, the response announces `Connection:
    /// close`, and `linger` continues to read after the response (RFC 9112 section 9.6).
    fn take_back(self: Rc<Self>, body: Incoming, expects_continue: bool) {
        if body.is_end_stream() || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        if self.is_http2() {
            let time = self.body_timeout();
            return discard(self, body, DISCARDED_MAX, time);
        }
        // If the client waits for `100 Continue`, the body is not read, because reading makes hyper send `100
        // Continue`.
        let small = body.size_hint().upper().is_some_and(|left| left <= SMALL);
        if small && !expects_continue && !self.must_close() {
            discard(self, body, SMALL, SMALL_TIME);
        } else {
            self.mark_body_unread();
        }
    }
}

/// Reads and discards up to `bytes_max` bytes of a body, for up to `time`.
fn discard(connection: Rc<Connection>, mut body: Incoming, bytes_max: u64, time: Duration) {
    // Mark the connection as busy. Otherwise the body's bytes would count as the head of a request.
    connection.activity.begin_request();
    tokio::task::spawn_local(async move {
        let read = async {
            let mut bytes = 0;
            while bytes <= bytes_max {
                match body.frame().await {
                    Some(Ok(frame)) => bytes += frame.data_ref().map_or(0, |data| data.len() as u64),
                    Some(Err(_)) => return false,
                    None => return true,
                }
            }
            false
        };
        let is_read = tokio::time::timeout(time, read).await.unwrap_or(false);
        // The rest of the body must never be parsed as a request.
        if !is_read && !connection.is_http2() {
            connection.mark_body_unread();
        }
        drop(body);
        connection.activity.end_request(connection.coarse_now());
    });
}
