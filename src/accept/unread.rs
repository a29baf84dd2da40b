//! Handles request bodies that were not read to the end: discards the rest within bounds, or lets the connection close.

use crate::forward::BodyOwner;
use crate::peer::Connection;
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::rc::Rc;
use std::time::Duration;

/// Maximum number of bytes of a refused request's body that are read and discarded over HTTP/2, so that a client that
/// sends everything before it reads gets the refusal.
const DISCARDED_MAX: u64 = 64 << 20;
/// Maximum remainder of an announced body that is read over HTTP/1.1 so that the connection stays open.
const SMALL: u64 = 64 * 1024;
/// The time limit for reading that remainder.
const SMALL_TIME: Duration = Duration::from_secs(2);

impl BodyOwner for Connection {
    /// A client that is still sending must get its answer. Over HTTP/2 the rest is read and discarded: many clients
    /// report a reset stream although the answer is complete (RFC 9113 section 8.1 forbids that), and once the
    /// announced length is met there is nothing left to abort. Over HTTP/1.1 a small rest is read too; before a larger
    /// one, the answer says `Connection: close`, and `linger` reads on after it (RFC 9112 section 9.6).
    fn take_back(self: Rc<Self>, body: Incoming, expects_continue: bool) {
        if body.is_end_stream() || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        if self.is_http2() {
            let time = self.body_timeout();
            return discard(self, body, DISCARDED_MAX, time);
        }
        // Reading a body that waits for `100 Continue` would request it.
        let small = body.size_hint().upper().is_some_and(|left| left <= SMALL);
        if small && !expects_continue && !self.must_close() {
            discard(self, body, SMALL, SMALL_TIME);
        } else {
            self.mark_body_unread();
        }
    }
}

/// Reads the rest of a body and discards it, within bounds.
fn discard(connection: Rc<Connection>, mut body: Incoming, bytes_max: u64, time: Duration) {
    // The body's bytes must not pass for a request's head: the connection is busy until they are read.
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
        // The request was answered, so the result does not matter.
        let _ = tokio::time::timeout(time, read).await;
        drop(body);
        connection.activity.end_request(connection.coarse_now());
    });
}
