//! Defines a client connection: the facts and the state that all requests of the connection share.

use super::activity::Activity;
use super::coarse::{CoarseMillis, CoreState};
use super::known_token::KnownToken;
use super::streams::Streams;
use super::takeover::Takeover;
use super::{Peer, Protocol};
use crate::route::KnownHost;
use crate::tls::{ClientCertificate, TlsSession};
use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

pub(crate) struct Connection {
    /// The remote end of the connection.
    pub(crate) peer: Peer,
    /// The event for which the connection waits, and the time at which the wait began.
    pub(crate) activity: Activity,
    /// The HTTPS port to redirect clients to, if the listener redirects.
    pub(crate) redirect: Option<u16>,
    /// The fields about the peer that the last request got. They are kept because the host rarely changes on a
    /// connection.
    pub(crate) peer_lines: RefCell<PeerLines>,
    /// The `Host` of the last request.
    pub(crate) known_host: KnownHost,
    /// The token of the last request.
    pub(crate) known_token: KnownToken,
    /// The connection's open HTTP/2 streams.
    pub(crate) streams: Streams,
    /// The facts of the TLS handshake, if hosts of the policy differ in TLS.
    tls: OnceCell<Box<TlsSession>>,
    /// The use of this connection after HTTP/1.1, once the current response is sent.
    pub(crate) takeover: Cell<Option<Takeover>>,
    has_fragment: Cell<bool>,
    /// The start of the most recent head, for the log entry of a request that cannot be parsed.
    head_start: RefCell<Vec<u8>>,
    has_unread_body: Cell<bool>,
    http2: Cell<bool>,
    core: Rc<CoreState>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// The fields about a peer, in the form in which they are sent. Nothing but the host changes between the requests of a
/// connection.
#[derive(Debug, Default)]
pub(crate) struct PeerLines {
    host: Option<Box<[u8]>>,
    lines: Box<[u8]>,
}

impl PeerLines {
    pub(crate) fn new(host: Option<&[u8]>, lines: Vec<u8>) -> Self {
        Self { host: host.map(Box::from), lines: lines.into() }
    }

    /// Returns whether the fields are those of a request with this host.
    pub(crate) fn are_of(&self, host: Option<&[u8]>) -> bool {
        !self.lines.is_empty() && self.host.as_deref() == host
    }

    /// Returns the fields.
    pub(crate) fn lines(&self) -> &[u8] {
        &self.lines
    }
}

impl Connection {
    pub(crate) fn new(core: Rc<CoreState>, peer: Peer, redirect: Option<u16>) -> Self {
        Self {
            peer,
            activity: Activity::new(core.coarse_now.get()),
            redirect,
            peer_lines: RefCell::default(),
            known_host: KnownHost::default(),
            known_token: KnownToken::default(),
            streams: Streams::default(),
            tls: OnceCell::new(),
            takeover: Cell::new(None),
            has_fragment: Cell::new(false),
            head_start: RefCell::default(),
            has_unread_body: Cell::new(false),
            http2: Cell::new(false),
            core,
        }
    }

    /// Returns the current time on the core's coarse clock.
    pub(crate) fn coarse_now(&self) -> CoarseMillis {
        self.core.coarse_now.get()
    }

    /// Keeps the facts of the connection's handshake.
    pub(crate) fn set_tls(&self, session: TlsSession) {
        // A connection has one handshake.
        let _ = self.tls.set(Box::new(session));
    }

    /// Returns the facts of the handshake, if hosts of the policy differed in TLS at that time.
    pub(crate) fn tls(&self) -> Option<&TlsSession> {
        self.tls.get().map(|session| &**session)
    }

    /// Returns the client's certificate.
    pub(crate) fn certificate(&self) -> Option<&ClientCertificate> {
        self.tls()?.client()
    }

    /// Stores the start of a head, and checks the request target for a fragment.
    ///
    /// RFC 9112 section 3.2 does not allow a fragment. A client that sends a fragment is broken or attacks the gateway.
    /// The HTTP library removes the fragment silently, before the decision and before forwarding. Pipelined requests
    /// and HTTP/2 are not checked.
    pub(crate) fn inspect_head(&self, bytes: &[u8]) {
        let (line, has_fragment) = first_line(bytes);
        self.has_fragment.set(has_fragment);
        let mut head_start = self.head_start.borrow_mut();
        head_start.clear();
        head_start.extend_from_slice(&line[..line.len().min(HEAD_START_MAX)]);
    }

    /// Returns the first line of the most recent head, up to [`HEAD_START_MAX`] bytes. Returns nothing over HTTP/2.
    pub(crate) fn head_start(&self) -> Vec<u8> {
        self.head_start.borrow().clone()
    }

    /// Returns whether the most recent request target had a fragment, and clears the flag.
    pub(crate) fn take_fragment(&self) -> bool {
        self.has_fragment.take()
    }

    /// Returns whether the connection speaks HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.http2.get()
    }

    /// Records that the connection is ready for requests in this protocol.
    pub(crate) fn begin_serving(&self, protocol: Protocol) {
        let http2 = protocol == Protocol::Http2;
        self.http2.set(http2);
        self.activity.begin_serving(http2, self.coarse_now());
    }

    /// Returns the maximum pause within a body.
    pub(crate) fn body_timeout(&self) -> Duration {
        self.core.body_timeout
    }

    /// Records that the gateway does not read a request's body. The next response then closes the connection.
    pub(crate) fn mark_body_unread(&self) {
        self.has_unread_body.set(true);
    }

    /// Returns whether the connection is idle, and then releases the memory that it can do without. Otherwise withdraws
    /// the command to park.
    ///
    /// A connection with an unread body is never idle: the rest of the body would be parsed as a request.
    pub(crate) fn park(&self) -> bool {
        let is_idle = self.activity.is_idle() && !self.has_unread_body.get();
        if is_idle {
            self.peer_lines.take();
            self.known_host.release();
            self.head_start.take();
        } else {
            self.activity.resume();
        }
        is_idle
    }

    /// Returns whether the next HTTP/1.1 response closes the connection. The response must then announce it (RFC 9112
    /// section 9.6).
    pub(crate) fn must_close(&self) -> bool {
        self.has_unread_body.get() || self.activity.is_closing() || self.core.is_closing.get()
    }
}

/// Returns the part of the request line received so far, without empty lines before it (RFC 9112 section 2.2). Also
/// returns whether it contains `#`.
fn first_line(bytes: &[u8]) -> (&[u8], bool) {
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    let bytes = &bytes[start..];
    let at = line_feed_or_fragment(bytes);
    if bytes.get(at) != Some(&b'#') {
        return (&bytes[..at], false);
    }
    let end = bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| at + end);
    (&bytes[..end], true)
}

/// Returns the position of the first line feed or `#`, or the length. Compares eight bytes at once.
fn line_feed_or_fragment(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // Sets the highest bit of the first byte that equals `wanted`, and none before it.
    let first = |word: u64, wanted: u8| {
        let zeros = word ^ (ONES * u64::from(wanted));
        zeros.wrapping_sub(ONES) & !zeros & (ONES << 7)
    };
    let (words, rest) = bytes.as_chunks::<8>();
    for (number, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = first(word, b'\n') | first(word, b'#');
        if found != 0 {
            return 8 * number + found.trailing_zeros() as usize / 8;
        }
    }
    let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'#')).unwrap_or(rest.len());
    8 * words.len() + end
}

/// Maximum number of bytes of a head's first line that are kept for the log.
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
            assert_eq!(first_line(bytes).0, line, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_line_of_any_length_is_found_with_its_fragment() {
        for length in 1..80 {
            for fragment in (0..=length).chain([1000]) {
                let mut line = vec![b'a'; length];
                if let Some(byte) = line.get_mut(fragment) {
                    *byte = b'#';
                }
                let has_fragment = fragment < length;
                let head = [&line[..], b"\nHost: #\n"].concat();
                assert_eq!(first_line(&head), (&line[..], has_fragment));
                assert_eq!(first_line(&line), (&line[..], has_fragment));
            }
        }
    }
}
