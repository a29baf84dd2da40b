//! Binds the listening sockets, one per address and core, and accepts connections from them.

use super::connection::serve;
use super::core::Core;
use super::handshake::{handshake, record_failure};
use super::linger::send_last_response;
use crate::journal::Level;
use crate::metrics::tls_failure::TlsFailure;
use crate::peer::activity::Command;
use crate::peer::{Connection, Peer, Protocol, Scheme};
use socket2::{Domain, Socket, Type};
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// How many connections may wait to be accepted, a socket.
const BACKLOG: i32 = 4096;
/// How long to wait after the system refused a connection for want of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a listener does with its connections.
#[derive(Clone)]
pub(crate) enum ListenerKind {
    /// TLS.
    Tls(TlsAcceptor),
    /// Cleartext, served.
    Plain,
    /// Cleartext, sent to this port over TLS.
    Redirect(u16),
}

/// Binds one address once for each core.
///
/// The kernel spreads connections over the sockets (`SO_REUSEPORT`), so cores share no accept queue.
///
/// # Errors
/// When the address cannot be bound, or another process is bound to it: `SO_REUSEPORT` alone would let two
/// gateways of one user share a port without a word, each with half of the connections.
pub(crate) fn bind(address: SocketAddr, cores: usize) -> io::Result<Vec<std::net::TcpListener>> {
    let first = {
        let exclusive = bind_socket(address, false)?;
        let address = local_address(&exclusive)?;
        drop(exclusive);
        bind_socket(address, true)?
    };
    let address = local_address(&first)?;
    let mut sockets = vec![first];
    for _ in 1..cores {
        sockets.push(bind_socket(address, true)?);
    }
    sockets
        .into_iter()
        .map(|socket| {
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            Ok(socket.into())
        })
        .collect()
}

fn bind_socket(address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    if let SocketAddr::V6(v6) = address
        && v6.ip().is_unspecified()
    {
        // `[::]` takes IPv4 as well, whatever the system's default is; any other IPv6 address is only itself.
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn local_address(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("the socket has no IP address"))
}

/// How many connections are open, over all cores, and how many may be.
#[derive(Debug)]
pub(crate) struct ConnectionSlots {
    open: AtomicUsize,
    max: usize,
}

impl ConnectionSlots {
    /// Room for so many connections.
    pub(crate) fn new(max: usize) -> Self {
        Self { open: AtomicUsize::new(0), max }
    }

    fn acquire(self: &Arc<Self>) -> Option<Slot> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Slot(self.clone()))
    }
}

/// One connection's place; given back when dropped.
struct Slot(Arc<ConnectionSlots>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts until the worker drains, then takes what is already waiting, and closes the socket.
pub(super) async fn run(
    core: Rc<Core>,
    listener: TcpListener,
    kind: ListenerKind,
    slots: Arc<ConnectionSlots>,
) {
    let last_logged = Cell::new(None::<Instant>);
    let mut draining = false;
    loop {
        let accepted = poll_fn(|cx| {
            draining = draining || core.is_draining(cx);
            match listener.poll_accept(cx) {
                Poll::Pending if draining => Poll::Ready(None),
                poll => poll.map(Some),
            }
        })
        .await;
        match accepted {
            None => return,
            Some(Ok((stream, address))) => accept_connection(&core, stream, address, &kind, &slots),
            Some(Err(error)) if is_connection_error(&error) => {}
            Some(Err(error)) => {
                // Out of file descriptors or memory: connections wait in the kernel's queue meanwhile.
                if last_logged.get().is_none_or(|at| at.elapsed() > Duration::from_secs(1)) {
                    last_logged.set(Some(Instant::now()));
                    core.worker.journal().event(
                        Level::Error,
                        "cannot accept connections; raise the open-file limit",
                        &[("error", &error.to_string())],
                    );
                }
                if draining {
                    return;
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Errors that `accept` reports of a connection that is already gone.
fn is_connection_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

fn accept_connection(
    core: &Rc<Core>,
    stream: TcpStream,
    address: SocketAddr,
    kind: &ListenerKind,
    slots: &Arc<ConnectionSlots>,
) {
    let scheme = if matches!(kind, ListenerKind::Tls(_)) { Scheme::Https } else { Scheme::Http };
    let Some(slot) = slots.acquire() else {
        core.worker.counters().connections_refused.add(1);
        if scheme == Scheme::Http {
            // A TLS client could read no answer before a handshake, whose cost is what the bound spares.
            let _ = stream.try_write(
                b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            );
        }
        return;
    };
    // Answers are written whole; Nagle's algorithm would only delay their last segment.
    let _ = stream.set_nodelay(true);
    let peer = Peer { address: address.ip().to_canonical(), scheme };
    let redirect = if let ListenerKind::Redirect(port) = kind { Some(*port) } else { None };
    let connection = Rc::new(Connection::new(core.state.clone(), peer, redirect));
    let guard = ConnectionGuard::new(core.clone(), &connection, slot);
    let kind = kind.clone();
    tokio::task::spawn_local(async move {
        match kind {
            ListenerKind::Tls(acceptor) => serve_tls(&guard.core, &connection, stream, &acceptor).await,
            ListenerKind::Plain | ListenerKind::Redirect(_) => {
                serve_cleartext(&guard.core, &connection, stream).await
            }
        }
    });
}

/// A connection's entry in its worker's books, struck out when its task ends, in whatever way: should a fault of ours
/// panic, it ends this one connection and no other.
struct ConnectionGuard {
    core: Rc<Core>,
    _slot: Slot,
}

impl ConnectionGuard {
    fn new(core: Rc<Core>, connection: &Rc<Connection>, slot: Slot) -> Self {
        core.register(connection);
        Self { core, _slot: slot }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.core.deregister();
    }
}

/// Peeks at the first bytes of a connection; `None` if none arrive in time. While the core drains, it waits only a
/// moment, which is enough for a request that is on its way.
async fn peek_first_bytes(core: &Core, connection: &Connection, stream: &TcpStream) -> Option<[u8; 4]> {
    let mut first = [0; 4];
    let length = {
        let mut peek = pin!(stream.peek(&mut first));
        poll_fn(|cx| match (peek.as_mut().poll(cx), connection.activity.command(cx)) {
            (Poll::Ready(peeked), _) => Poll::Ready(peeked.ok()),
            (Poll::Pending, Some(Command::Close(timeout))) => {
                core.count_timeout(timeout);
                Poll::Ready(None)
            }
            (Poll::Pending, Some(Command::Drain) | None) => Poll::Pending,
        })
        .await?
    };
    (length > 0).then_some(first)
}

async fn serve_tls(core: &Core, connection: &Rc<Connection>, stream: TcpStream, acceptor: &TlsAcceptor) {
    let Some(first) = peek_first_bytes(core, connection, &stream).await else { return };
    if first[0].is_ascii_uppercase() {
        // A method of HTTP. No TLS record begins so, and TLS would answer with an alert that no such client can read.
        record_failure(core, connection, TlsFailure::Cleartext, "cleartext HTTP on a TLS port");
        return reject_cleartext(stream).await;
    }
    connection.activity.begin_handshake();
    if let Some(stream) = handshake(core, connection, stream, acceptor).await {
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let protocol = if http2 { Protocol::Http2 } else { Protocol::Http1 };
        serve(core, connection.clone(), stream, protocol).await;
    }
}

/// Answers a client that speaks HTTP to the TLS port.
async fn reject_cleartext(stream: TcpStream) {
    const BODY: &str = "This port serves HTTPS. Use an https:// URL.\n";
    let response = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    send_last_response(stream, response.as_bytes()).await;
}

/// HTTP/1.1, or HTTP/2 with prior knowledge (RFC 9113 section 3.3): gRPC clients within a network speak that.
async fn serve_cleartext(core: &Core, connection: &Rc<Connection>, stream: TcpStream) {
    /// The first bytes of a TLS record that holds a handshake (RFC 8446 section 5.1).
    const TLS_HANDSHAKE: [u8; 2] = [0x16, 0x03];
    /// The first bytes of HTTP/2's preface (RFC 9113 section 3.4); no method of HTTP/1.1 is named so.
    const HTTP2_PREFACE: [u8; 4] = *b"PRI ";
    let Some(first) = peek_first_bytes(core, connection, &stream).await else { return };
    if first.starts_with(&TLS_HANDSHAKE) {
        return;
    }
    let protocol = if first == HTTP2_PREFACE { Protocol::Http2 } else { Protocol::Http1 };
    serve(core, connection.clone(), stream, protocol).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_taken_is_refused_though_ports_are_shared_between_cores() {
        let sockets = bind(SocketAddr::from(([127, 0, 0, 1], 0)), 2).unwrap();
        let address = sockets[0].local_addr().unwrap();
        assert_eq!(sockets[1].local_addr().unwrap(), address);
        assert_eq!(bind(address, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(sockets);
        assert!(bind(address, 1).is_ok());
    }

    #[test]
    fn places_are_given_back() {
        let slots = Arc::new(ConnectionSlots::new(1));
        let slot = slots.acquire().unwrap();
        assert!(slots.acquire().is_none());
        drop(slot);
        assert!(slots.acquire().is_some());
    }
}
