//! One connection: HTTP/1.1 or HTTP/2 over a stream, within its bounds, until either side is done with it.

use super::linger::{linger, say};
use super::pulse::{Order, Overdue, Pulse, Tick};
use super::reader::{OfConnection, Streams};
use super::stream::Watched;
use crate::forward::Unread;
use crate::peer::Peer;
use crate::pipeline;
use crate::worker::Worker;
use http::HeaderValue;
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// What belongs to one connection and serves all its requests.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Who is at the other end.
    pub(crate) peer: Peer,
    /// What it waits for, and since when.
    pub(crate) pulse: Pulse,
    /// Set on a cleartext listener that redirects: the port to send clients to.
    pub(crate) redirect: Option<u16>,
    /// The peer's address as the value of `X-Forwarded-For`.
    pub(crate) forwarded_for: HeaderValue,
    /// The last `Forwarded` value, and the host that it was made for: on one connection the host seldom changes.
    pub(crate) forwarded: RefCell<Option<(HeaderValue, HeaderValue)>>,
    /// Its HTTP/2 streams.
    pub(crate) streams: Streams,
    fragment: Cell<bool>,
    /// The start of the most recent head: all that is known of a request that cannot be parsed.
    beginning: RefCell<Vec<u8>>,
    unread: Cell<bool>,
    http2: Cell<bool>,
    worker: Rc<Worker>,
}

impl Connection {
    pub(super) fn new(worker: Rc<Worker>, peer: Peer, redirect: Option<u16>) -> Self {
        let address = HeaderValue::try_from(peer.address.to_string());
        Self {
            peer,
            pulse: Pulse::new(worker.tick()),
            redirect,
            forwarded_for: address.expect("an address is written in visible ASCII"),
            forwarded: RefCell::new(None),
            streams: Streams::default(),
            fragment: Cell::new(false),
            beginning: RefCell::default(),
            unread: Cell::new(false),
            http2: Cell::new(false),
            worker,
        }
    }

    pub(super) fn tick(&self) -> Tick {
        self.worker.tick()
    }

    /// Looks at the first bytes of a head for a fragment in the request target, which the HTTP library drops
    /// without a word: what it leaves is decided on and forwarded alike, but a client that sends one is either
    /// broken or trying something (RFC 9112 section 3.2 has no fragment). A pipelined request is not seen here, nor one
    /// of HTTP/2.
    pub(super) fn head_begins(&self, bytes: &[u8]) {
        let line = first_line(bytes);
        self.fragment.set(line.contains(&b'#'));
        let mut beginning = self.beginning.borrow_mut();
        beginning.clear();
        beginning.extend_from_slice(&line[..line.len().min(BEGINNING)]);
    }

    /// The start of the most recent head: a part of its first line. Empty over HTTP/2.
    pub(crate) fn beginning(&self) -> Vec<u8> {
        self.beginning.borrow().clone()
    }

    /// Whether the request whose head was just read had a fragment in its target.
    pub(crate) fn take_fragment(&self) -> bool {
        self.fragment.take()
    }

    /// Whether the next HTTP/1.1 answer is the connection's last, and must say so (RFC 9112 section 9.6).
    pub(crate) fn closes_next(&self) -> bool {
        self.unread.get() || self.pulse.is_leaving() || self.worker.is_closing()
    }

    /// Reads the rest of a body and discards it, within bounds.
    fn discard(self: Rc<Self>, mut body: Incoming, bytes_max: u64, time: Duration) {
        // The body's bytes must not pass for a request's head: the connection is busy until they are read.
        self.pulse.request_begins();
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
            self.pulse.request_ends(self.tick());
        });
    }
}

/// The request line, or as much of it as is there. Empty lines may stand before it (RFC 9112 section 2.2).
fn first_line(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    bytes[start..].split(|byte| *byte == b'\n').next().unwrap_or_default()
}

/// Bytes of a head's first line that are kept for the log.
const BEGINNING: usize = 128;
/// Maximum number of bytes of a refused request's body that are read and discarded over HTTP/2, so that a client that
/// sends everything before it reads gets the refusal.
const DISCARDED_MAX: u64 = 64 << 20;
/// Maximum remainder of an announced body that is read over HTTP/1.1 so that the connection stays open.
const SMALL: u64 = 64 * 1024;
/// The time limit for reading that remainder.
const SMALL_TIME: Duration = Duration::from_secs(2);

impl Unread for Connection {
    /// A client that is still sending must get its answer. Over HTTP/2 the rest is read and discarded: many clients
    /// report a reset stream although the answer is complete (RFC 9113 section 8.1 forbids that), and once the
    /// announced length is met there is nothing left to abort. Over HTTP/1.1 a small rest is read too; before a larger
    /// one, the answer says `Connection: close`, and `linger` reads on after it (RFC 9112 section 9.6).
    fn left(self: Rc<Self>, body: Incoming, expects_continue: bool) {
        if body.is_end_stream() || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        if self.http2.get() {
            let time = self.worker.plan().body_timeout;
            return self.discard(body, DISCARDED_MAX, time);
        }
        // Reading a body that waits for `100 Continue` would request it.
        let small = body.size_hint().upper().is_some_and(|left| left <= SMALL);
        if small && !expects_continue && !self.closes_next() {
            self.discard(body, SMALL, SMALL_TIME);
        } else {
            self.unread.set(true);
        }
    }
}

/// The protocol that a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// Serves a connection to its end.
pub(super) async fn serve<S>(connection: Rc<Connection>, stream: S, protocol: Protocol)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let worker = connection.worker.clone();
    let http2 = protocol == Protocol::Http2;
    connection.http2.set(http2);
    connection.pulse.serves(http2, worker.tick());
    let io = TokioIo::new(Watched::new(stream, connection.clone(), protocol));
    let service = {
        let connection = connection.clone();
        let worker = worker.clone();
        service_fn(move |request| pipeline::handle(worker.clone(), connection.clone(), request))
    };
    match protocol {
        Protocol::Http1 => {
            let mut http = worker.http1().serve_connection(io, service);
            let mut draining = false;
            let end = poll_fn(|cx| {
                match connection.pulse.order(cx) {
                    Some(Order::Close(overdue)) => return Poll::Ready(Err(overdue)),
                    Some(Order::Drain) if !draining => {
                        draining = true;
                        // An idle connection waits a moment: a request may be on its way. Its answer says `close`.
                        if connection.pulse.is_active() {
                            Pin::new(&mut http).graceful_shutdown();
                        }
                    }
                    Some(Order::Drain) | None => {}
                }
                Pin::new(&mut http).poll(cx).map(Ok)
            })
            .await;
            let (stream, withheld) = http.into_parts().io.into_inner().into_inner();
            match end {
                Ok(Ok(())) => linger(stream, worker.plan().body_timeout).await,
                Ok(Err(error)) => {
                    if let Some(answer) = worker.unreadable(&connection, &error)
                        && withheld
                    {
                        return say(stream, &answer).await;
                    }
                    linger(stream, worker.plan().body_timeout).await;
                }
                Err(overdue) => {
                    worker.overdue(overdue);
                    if overdue == Overdue::Head {
                        let answer = worker.slow_head(&connection);
                        say(stream, &answer).await;
                    }
                }
            }
        }
        Protocol::Http2 => {
            // The HTTP library moves the future of a stream several times before it runs: a pointer is cheap to move.
            let service = service_fn(move |request| Box::pin(service.call(request)));
            let http = worker.http2(OfConnection(connection.clone())).serve_connection(io, service);
            let mut http = pin!(http);
            let mut draining = false;
            let end = poll_fn(|cx| {
                match connection.pulse.order(cx) {
                    Some(Order::Close(overdue)) => return Poll::Ready(Err(overdue)),
                    Some(Order::Drain) if !draining => {
                        draining = true;
                        http.as_mut().graceful_shutdown();
                    }
                    Some(Order::Drain) | None => {}
                }
                http.as_mut().poll(cx).map(Ok)
            })
            .await;
            if connection.pulse.is_retired() {
                worker.overdue(Overdue::Idle);
            }
            match end {
                Ok(Ok(())) => {}
                Ok(Err(error)) => drop(worker.unreadable(&connection, &error)),
                Err(overdue) => {
                    worker.overdue(overdue);
                    if overdue == Overdue::Head {
                        drop(worker.slow_head(&connection));
                    }
                }
            }
        }
    }
}

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
