//! One core's connections to upstream servers: HTTP/1.1, kept alive, each used by one request at a time.
//!
//! A connection goes back to its pool only after an answer that was read to its end (RFC 9112 section 9.3.2); one
//! with anything else on it is closed, so that no answer's leftover is taken for another's.

use super::body::RequestBody;
use super::deadline::Deadlines;
use super::upstream::{Server, Upstream};
use crate::respond::metrics::WorkerCounters;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// How many idle connections a core keeps to one server.
const IDLE_MAX: usize = 256;
/// How long a connection stays idle before it is closed: less than the keep-alive time of most servers, so that we
/// close first and no request meets a connection that the server is about to close.
const IDLE_TIMEOUT: Duration = Duration::from_secs(45);
/// How long a connection whose answer is complete may take to become ready again (the request's body may still be
/// on its way out) before it is closed.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(1);

/// The pools of one core, by [`Server::id`].
pub struct Pools {
    idle: RefCell<Vec<Vec<Idle>>>,
    /// When the sweep last came: near enough for the age of an idle connection.
    swept: Cell<Instant>,
    pub(super) deadlines: Deadlines,
    counters: Arc<WorkerCounters>,
}

struct Idle {
    sender: SendRequest<RequestBody>,
    since: Instant,
}

/// A connection that one request holds. Dropped, it is closed; [`Lease::release`] puts it back.
pub(super) struct Lease {
    pub(super) sender: SendRequest<RequestBody>,
    pub(super) reused: bool,
    server: usize,
    pools: Rc<Pools>,
}

impl fmt::Debug for Pools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pools").finish_non_exhaustive()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Pools {
    /// No connections yet.
    pub fn new(counters: Arc<WorkerCounters>) -> Self {
        Self {
            idle: RefCell::new(Vec::new()),
            swept: Cell::new(Instant::now()),
            deadlines: Deadlines::default(),
            counters,
        }
    }

    /// A connection that is idle now: the one used last, which is the least likely to be closed by the server soon.
    pub(super) fn reuse(self: &Rc<Self>, server: &Server) -> Option<Lease> {
        let mut idle = self.idle.borrow_mut();
        let pool = idle.get_mut(server.id)?;
        while let Some(Idle { sender, .. }) = pool.pop() {
            if sender.is_ready() {
                return Some(Lease { sender, reused: true, server: server.id, pools: self.clone() });
            }
        }
        None
    }

    /// A new connection.
    pub(super) async fn connect(self: &Rc<Self>, upstream: &Upstream, server: &Server) -> io::Result<Lease> {
        let connect = self.open(server);
        let result = match tokio::time::timeout(upstream.connect_timeout, connect).await {
            Ok(result) => result,
            Err(_elapsed) => Err(io::Error::from(io::ErrorKind::TimedOut)),
        };
        match &result {
            Ok(_) => self.counters.upstream_connections.add(1),
            Err(_) => self.counters.upstream_connect_failures.add(1),
        }
        result
    }

    async fn open(self: &Rc<Self>, server: &Server) -> io::Result<Lease> {
        let stream = TcpStream::connect((&*server.host, server.port)).await?;
        stream.set_nodelay(true)?;
        let sender = match &server.tls {
            None => handshake(stream).await?,
            Some(tls) => {
                let name = ServerName::try_from(server.host.to_string()).map_err(io::Error::other)?;
                handshake(tls.connector.connect(name, stream).await?).await?
            }
        };
        Ok(Lease { sender, reused: false, server: server.id, pools: self.clone() })
    }

    fn put(&self, server: usize, sender: SendRequest<RequestBody>) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() <= server {
            idle.resize_with(server + 1, Vec::new);
        }
        if idle[server].len() < IDLE_MAX {
            idle[server].push(Idle { sender, since: self.swept.get() });
        }
    }

    /// Closes what has been idle for long, or was closed by the server; ends exchanges that take too long. `tick` is
    /// the core's coarse clock, in milliseconds.
    pub fn sweep(&self, now: Instant, tick: u64) {
        self.swept.set(now);
        self.deadlines.advance(tick);
        for pool in self.idle.borrow_mut().iter_mut() {
            pool.retain(|idle| {
                !idle.sender.is_closed() && now.saturating_duration_since(idle.since) < IDLE_TIMEOUT
            });
        }
    }
}

async fn handshake<S>(stream: S) -> io::Result<SendRequest<RequestBody>>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (sender, connection) = http1::Builder::new()
        // What an upstream may make us hold of one head.
        .max_headers(256)
        .max_buf_size(256 * 1024)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    tokio::task::spawn_local(async move {
        // A fault is reported to the request that waits, if any does.
        let _ = connection.await;
    });
    Ok(sender)
}

impl Lease {
    /// Puts the connection back: its answer was read to the end.
    pub(super) fn release(self) {
        let Self { mut sender, server, pools, .. } = self;
        if sender.is_ready() {
            pools.put(server, sender);
        } else if !sender.is_closed() {
            tokio::task::spawn_local(async move {
                if let Ok(Ok(())) = tokio::time::timeout(SETTLE_TIMEOUT, sender.ready()).await {
                    pools.put(server, sender);
                }
            });
        }
    }
}
