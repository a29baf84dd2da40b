//! Binds the listening sockets and accepts connections. Each core has one socket per address.

use super::connection::serve;
use super::core::Core;
use super::handshake::{handshake, record_failure};
use super::linger::send_last_response;
use super::proxied;
use crate::config::network::Cidr;
use crate::journal::Level;
use crate::metrics::tls_failure::TlsFailure;
use crate::peer::activity::Command;
use crate::peer::{Connection, Peer, Protocol, Scheme, Session};
use crate::tls::Certificates;
use socket2::{Domain, SockFilter, SockRef, Socket, Type};
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

/// Maximum length of a socket's accept queue.
const BACKLOG: i32 = 4096;
/// Pause after `accept` fails because the system has no free file descriptor or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The time that a closing socket waits for the last segment of TCP handshakes in progress. It is above most round trips.
const HANDSHAKE_END: Duration = Duration::from_millis(100);
/// A socket filter that drops each segment with SYN and without ACK. It drops nothing of a handshake in progress.
const NO_NEW_CONNECTIONS: [SockFilter; 5] = {
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    [
        // Byte 13 of a TCP header has the flags (RFC 9293 section 3.1).
        SockFilter::new(LOAD_BYTE, 0, 0, 13),
        SockFilter::new(AND, 0, 0, 0x12),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, 0x02),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
};

/// The protocol that a listener serves.
#[derive(Clone)]
pub(crate) enum ListenerKind {
    /// HTTP over TLS.
    Tls(Certificates),
    /// Cleartext HTTP.
    Plain,
    /// Cleartext HTTP whose requests are redirected to HTTPS on this port.
    Redirect(u16),
}

/// The kind of a listener, and the sources of its connections.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) kind: ListenerKind,
    /// The load balancers whose connections begin with a PROXY header. `None` if the listener accepts connections
    /// without a header.
    pub(crate) proxies: Option<Arc<[Cidr]>>,
    /// Whether the service manager holds the sockets. Their queues then outlive this process.
    pub(crate) is_inherited: bool,
}

/// Binds `cores` sockets to one address. The kernel distributes connections over them (`SO_REUSEPORT`), so cores share
/// no accept queue.
///
/// # Errors
/// Returns an error if the address cannot be bound, or if another process is bound to it. Without this check, two
/// gateways of the same user could share a port unnoticed, and each would get half of the connections.
pub(crate) fn bind(address: SocketAddr, cores: usize) -> io::Result<Vec<std::net::TcpListener>> {
    let first = {
        // Without `SO_REUSEPORT`, this bind fails if another process uses the address.
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
        // `[::]` accepts IPv4 connections too, regardless of the system's default.
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn local_address(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("the socket has no IP address"))
}

/// Limits the number of open connections over all cores.
#[derive(Debug)]
pub(crate) struct ConnectionSlots {
    open: AtomicUsize,
    max: usize,
}

impl ConnectionSlots {
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

/// The slot of one connection. Dropping the value releases the slot.
struct Slot(Arc<ConnectionSlots>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts connections until the core drains. Then closes the socket, and loses no connection that a client believes to
/// be open.
pub(super) async fn run(core: Rc<Core>, listener: TcpListener, entry: Entry, slots: Arc<ConnectionSlots>) {
    let last_logged = Cell::new(None::<Instant>);
    loop {
        let accepted = poll_fn(|cx| match core.is_draining(cx) {
            true => Poll::Ready(None),
            false => listener.poll_accept(cx).map(Some),
        });
        match accepted.await {
            None => break,
            Some(Ok((stream, address))) => accept_connection(&core, stream, address, &entry, &slots),
            Some(Err(error)) if is_connection_error(&error) => {}
            Some(Err(error)) => {
                // File descriptors or memory are exhausted. Connections wait in the kernel's queue.
                if last_logged.get().is_none_or(|at| at.elapsed() > Duration::from_secs(1)) {
                    last_logged.set(Some(Instant::now()));
                    core.worker.journal().event(
                        Level::Error,
                        "cannot accept connections; raise the open-file limit",
                        &[("error", &error.to_string())],
                    );
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    if !entry.is_inherited {
        let accept = |stream, address| accept_connection(&core, stream, address, &entry, &slots);
        close(listener, accept).await;
    }
}

/// Accepts the connections that are open or in their handshake, and closes the socket.
///
/// The kernel resets the connections in the queue of a socket that closes. To their clients they are open, so a load
/// balancer does not send the request again. The socket therefore first stops to take new connections. Their clients
/// repeat the SYN after a second, and are then refused.
async fn close(listener: TcpListener, mut accept: impl FnMut(TcpStream, SocketAddr)) {
    // Without the filter, a connection that arrives between the last `accept` and the close is lost.
    let _ = SockRef::from(&listener).attach_filter(&NO_NEW_CONNECTIONS);
    let accept_all = async {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => accept(stream, address),
                Err(error) if is_connection_error(&error) => {}
                Err(_) => return,
            }
        }
    };
    let _ = tokio::time::timeout(HANDSHAKE_END, accept_all).await;
    // tokio asks the kernel only if the runtime has already seen that the socket is ready.
    let Ok(listener) = listener.into_std() else { return };
    loop {
        match listener.accept() {
            Ok((stream, address)) => {
                let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
                if let Ok(stream) = stream {
                    accept(stream, address);
                }
            }
            Err(error) if is_connection_error(&error) => {}
            Err(_) => return,
        }
    }
}

/// Returns whether an error of `accept` affects only one connection.
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
    entry: &Entry,
    slots: &Arc<ConnectionSlots>,
) {
    let Entry { kind, proxies, is_inherited: _ } = entry;
    if let Some(from) = proxies
        && !proxied::is_trusted(core, from, address.ip())
    {
        return;
    }
    let scheme = if matches!(kind, ListenerKind::Tls(_)) { Scheme::Https } else { Scheme::Http };
    let Some(slot) = slots.acquire() else {
        core.worker.counters().connections_refused.add(1);
        if scheme == Scheme::Http {
            // A TLS client gets no response, because it could read the response only after a handshake. The limit
            // exists to avoid such costs.
            let _ = stream.try_write(
                b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            );
        }
        return;
    };
    // Nagle's algorithm would only delay the last segment, because responses are written in large pieces.
    let _ = stream.set_nodelay(true);
    let peer = Peer { address: address.ip().to_canonical(), scheme };
    let redirect = if let ListenerKind::Redirect(port) = kind { Some(*port) } else { None };
    let connection = Rc::new(Connection::new(core.state.clone(), peer, redirect));
    let guard = ConnectionGuard::new(core.clone(), &connection, slot);
    let (kind, is_proxied) = (kind.clone(), proxies.is_some());
    tokio::task::spawn_local(async move {
        let (mut connection, mut stream) = (connection, stream);
        if is_proxied {
            let Some(address) = proxied::client(&guard.core, &connection, &mut stream).await else { return };
            let peer = Peer { address, ..peer };
            connection = Rc::new(Connection::new(guard.core.state.clone(), peer, redirect));
            guard.core.track(&connection);
        }
        let session = match kind {
            ListenerKind::Tls(certificates) => {
                serve_tls(&guard.core, &connection, stream, &certificates).await
            }
            ListenerKind::Plain | ListenerKind::Redirect(_) => {
                serve_cleartext(&guard.core, &connection, stream).await
            }
        };
        if let Some(session) = session {
            // This task reserves memory for HTTP, which a WebSocket does not need.
            tokio::task::spawn_local(async move {
                let _guard = guard;
                session.await;
            });
        }
    });
}

/// Registers a connection with its core, and deregisters it when dropped. If the connection's task panics, the guard
/// still releases the slot.
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

/// Returns the first bytes of a connection without consuming them. Returns `None` if the client closes the connection
/// or sends nothing before the deadline.
///
/// The deadline is shorter while the core drains, but still long enough for a request in transit.
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
            (Poll::Pending, Some(Command::Drain | Command::Park) | None) => Poll::Pending,
        })
        .await?
    };
    (length > 0).then_some(first)
}

async fn serve_tls(
    core: &Core,
    connection: &Rc<Connection>,
    stream: TcpStream,
    certificates: &Certificates,
) -> Option<Session> {
    let first = peek_first_bytes(core, connection, &stream).await?;
    if first[0].is_ascii_uppercase() {
        // No TLS record begins with a letter, so this is an HTTP method. An HTTP client cannot read a TLS alert.
        record_failure(core, connection, TlsFailure::Cleartext, "cleartext HTTP on a TLS port");
        reject_cleartext(stream).await;
        return None;
    }
    connection.activity.begin_handshake();
    // In a box, because this task exists as long as the connection.
    let stream = Box::pin(handshake(core, connection, stream, certificates)).await?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let protocol = if http2 { Protocol::Http2 } else { Protocol::Http1 };
    serve(core, connection, stream, protocol).await
}

/// Responds to an HTTP request on the TLS port.
async fn reject_cleartext(stream: TcpStream) {
    const BODY: &str = "This port serves HTTPS. Use an https:// URL.\n";
    let response = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    send_last_response(stream, response.as_bytes()).await;
}

/// Serves HTTP/1.1, or HTTP/2 with prior knowledge (RFC 9113 section 3.3). gRPC clients in internal networks use HTTP/2
/// with prior knowledge.
async fn serve_cleartext(core: &Core, connection: &Rc<Connection>, stream: TcpStream) -> Option<Session> {
    /// The first bytes of a TLS handshake record (RFC 8446 section 5.1).
    const TLS_HANDSHAKE: [u8; 2] = [0x16, 0x03];
    /// The first bytes of the HTTP/2 preface (RFC 9113 section 3.4). HTTP/1.1 has no such method.
    const HTTP2_PREFACE: [u8; 4] = *b"PRI ";
    let first = peek_first_bytes(core, connection, &stream).await?;
    if first.starts_with(&TLS_HANDSHAKE) {
        return None;
    }
    let protocol = if first == HTTP2_PREFACE { Protocol::Http2 } else { Protocol::Http1 };
    serve(core, connection, stream, protocol).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bind_fails_on_an_address_in_use_although_cores_share_the_port() {
        let sockets = bind(SocketAddr::from(([127, 0, 0, 1], 0)), 2).unwrap();
        let address = sockets[0].local_addr().unwrap();
        assert_eq!(sockets[1].local_addr().unwrap(), address);
        assert_eq!(bind(address, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(sockets);
        assert!(bind(address, 1).is_ok());
    }

    #[test]
    fn a_dropped_slot_is_released() {
        let slots = Arc::new(ConnectionSlots::new(1));
        let slot = slots.acquire().unwrap();
        assert!(slots.acquire().is_none());
        drop(slot);
        assert!(slots.acquire().is_some());
    }
}
