//! Defines a client connection: the facts and the state that all its requests share.

use super::activity::Activity;
use super::coarse::{CoarseMillis, CoreState};
use super::streams::Streams;
use super::{Peer, Protocol};
use http::HeaderValue;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// What belongs to one connection and serves all its requests.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Who is at the other end.
    pub(crate) peer: Peer,
    /// What it waits for, and since when.
    pub(crate) activity: Activity,
    /// Set on a cleartext listener that redirects: the port to send clients to.
    pub(crate) redirect: Option<u16>,
    /// The peer's address as the value of `X-Forwarded-For`.
    pub(crate) forwarded_for: HeaderValue,
    /// The last `Forwarded` value, and the host that it was made for: on one connection the host seldom changes.
    pub(crate) forwarded: RefCell<Option<(HeaderValue, HeaderValue)>>,
    /// Its HTTP/2 streams.
    pub(crate) streams: Streams,
    has_fragment: Cell<bool>,
    /// The start of the most recent head: all that is known of a request that cannot be parsed.
    head_start: RefCell<Vec<u8>>,
    has_unread_body: Cell<bool>,
    http2: Cell<bool>,
    core: Rc<CoreState>,
}

impl Connection {
    pub(crate) fn new(core: Rc<CoreState>, peer: Peer, redirect: Option<u16>) -> Self {
        let address = HeaderValue::try_from(peer.address.to_string());
        Self {
            peer,
            activity: Activity::new(core.coarse_now.get()),
            redirect,
            forwarded_for: address.expect("a formatted IP address is visible ASCII"),
            forwarded: RefCell::new(None),
            streams: Streams::default(),
            has_fragment: Cell::new(false),
            head_start: RefCell::default(),
            has_unread_body: Cell::new(false),
            http2: Cell::new(false),
            core,
        }
    }

    /// The core's coarse clock.
    pub(crate) fn coarse_now(&self) -> CoarseMillis {
        self.core.coarse_now.get()
    }

    /// Looks at the first bytes of a head for a fragment in the request target, which the HTTP library drops
    /// without a word: what it leaves is decided on and forwarded alike, but a client that sends one is either
    /// broken or trying something (RFC 9112 section 3.2 has no fragment). A pipelined request is not seen here, nor one
    /// of HTTP/2.
    pub(crate) fn inspect_head(&self, bytes: &[u8]) {
        let line = first_line(bytes);
        self.has_fragment.set(line.contains(&b'#'));
        let mut head_start = self.head_start.borrow_mut();
        head_start.clear();
        head_start.extend_from_slice(&line[..line.len().min(HEAD_START_MAX)]);
    }

    /// The start of the most recent head: a part of its first line. Empty over HTTP/2.
    pub(crate) fn head_start(&self) -> Vec<u8> {
        self.head_start.borrow().clone()
    }

    /// Whether the request whose head was just read had a fragment in its target.
    pub(crate) fn take_fragment(&self) -> bool {
        self.has_fragment.take()
    }

    /// Whether the connection speaks HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.http2.get()
    }

    /// The connection is ready for requests, of HTTP/2 or HTTP/1.1.
    pub(crate) fn begin_serving(&self, protocol: Protocol) {
        let http2 = protocol == Protocol::Http2;
        self.http2.set(http2);
        self.activity.begin_serving(http2, self.coarse_now());
    }

    /// The longest pause of a body on this connection.
    pub(crate) fn body_timeout(&self) -> Duration {
        self.core.body_timeout
    }

    /// The client is still sending a body that nobody reads: the next answer is the last.
    pub(crate) fn mark_body_unread(&self) {
        self.has_unread_body.set(true);
    }

    /// Whether the next HTTP/1.1 answer is the connection's last, and must say so (RFC 9112 section 9.6).
    pub(crate) fn must_close(&self) -> bool {
        self.has_unread_body.get() || self.activity.is_closing() || self.core.is_closing.get()
    }
}

/// The request line, or as much of it as is there. Empty lines may stand before it (RFC 9112 section 2.2).
fn first_line(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    bytes[start..].split(|byte| *byte == b'\n').next().unwrap_or_default()
}

/// Bytes of a head's first line that are kept for the log.
const HEAD_START_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::first_line;

    #[test]
    fn empty_lines_before_a_request_do_not_hide_its_first_line() {
        for (bytes, line) in [
            (&b"GET /#a HTTP/1.1\r\nHost: h\r\n"[..], &b"GET /#a HTTP/1.1\r"[..]),
            (b"\r\n\r\nGET /#a HTTP/1.1\r\n", b"GET /#a HTTP/1.1\r"),
            (b"\nGET /#", b"GET /#"),
            (b"\r\n", b""),
            (b"", b""),
        ] {
            assert_eq!(first_line(bytes), line, "{}", bytes.escape_ascii());
        }
    }
}
