//! One connection: HTTP/1.1 or HTTP/2 over a stream, within its bounds, until either side is done with it.

use super::pulse::{Order, Overdue, Pulse, Tick};
use super::stream::Watched;
use crate::peer::Peer;
use crate::pipeline;
use crate::worker::Worker;
use http::HeaderValue;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What belongs to one connection and serves all its requests.
#[derive(Debug)]
pub struct Connection {
    /// Who is at the other end.
    pub peer: Peer,
    /// What it waits for, and since when.
    pub pulse: Pulse,
    /// Set on a cleartext listener that redirects: the port to send clients to.
    pub redirect: Option<u16>,
    /// The peer's address as the value of `X-Forwarded-For`.
    pub forwarded_for: HeaderValue,
    /// The last `Forwarded` value, and the host that it was made for: on one connection the host seldom changes.
    pub forwarded: RefCell<Option<(HeaderValue, HeaderValue)>>,
    fragment: Cell<bool>,
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
            fragment: Cell::new(false),
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
        let line = bytes.iter().position(|b| *b == b'\n').map_or(bytes, |end| &bytes[..end]);
        self.fragment.set(line.contains(&b'#'));
    }

    /// Whether the request whose head was just read had a fragment in its target.
    pub fn take_fragment(&self) -> bool {
        self.fragment.take()
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
                        Pin::new(&mut http).graceful_shutdown();
                    }
                    Some(Order::Drain) | None => {}
                }
                Pin::new(&mut http).poll(cx).map(Ok)
            })
            .await;
            if let Ok(Err(error)) = &end {
                worker.broken(&connection, error);
            }
            let stream = http.into_parts().io.into_inner().into_inner();
            match end {
                Ok(Ok(())) if draining => {}
                Ok(_) => linger(stream).await,
                Err(overdue) => {
                    worker.overdue(&connection, overdue);
                    if overdue == Overdue::Head {
                        say_timeout(stream).await;
                    }
                }
            }
        }
        Protocol::Http2 => {
            let mut http = pin!(worker.http2().serve_connection(io, service));
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
            match end {
                Ok(Ok(())) => {}
                Ok(Err(error)) => worker.broken(&connection, &error),
                Err(overdue) => worker.overdue(&connection, overdue),
            }
        }
    }
}

/// Tells a client whose head did not come in time (RFC 9110 section 15.5.9). It need not listen.
async fn say_timeout<S: AsyncWrite + Unpin>(mut stream: S) {
    let answer = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let say = async {
        stream.write_all(answer).await?;
        stream.shutdown().await
    };
    // The client may be gone, and is late in any case.
    let _ = tokio::time::timeout(Duration::from_secs(1), say).await;
}

/// Closes a connection in two steps: says that nothing more will be sent, then reads and drops for a moment what the
/// client still sends. A socket closed with unread bytes is reset, and the reset may overtake our last answer: that a
/// body is too large, say, to a client that is still sending it (RFC 9112 section 9.6). A client that has closed its
/// end is not waited for.
pub(super) async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    const MOMENT: Duration = Duration::from_secs(1);
    const BYTES_MAX: usize = 4 << 20;
    let read = async {
        stream.shutdown().await?;
        let mut sink = vec![0; 16 * 1024];
        let mut bytes = 0;
        while bytes < BYTES_MAX {
            match stream.read(&mut sink).await? {
                0 => break,
                read => bytes += read,
            }
        }
        std::io::Result::Ok(())
    };
    // However it ends, the connection is closed next.
    let _ = tokio::time::timeout(MOMENT, read).await;
}
