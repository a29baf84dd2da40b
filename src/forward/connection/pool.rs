//! One core's connections to upstream servers. They use HTTP/1.1, are kept alive, and serve one request at a time.
//!
//! A connection returns to its pool only after its answer was read to the end (RFC 9112 section 9.3.2). Otherwise the
//! gateway closes it, so that the rest of one answer is never taken for another answer.
//!
//! The number of connections to a server is bounded. Each core has its own share of the bound, so that no core waits
//! for another core's lock. A request that finds the whole share in use waits in line, first come, first served.

use super::deadline::Deadlines;
use super::http1::{Connection, IdleState};
use super::http2::Links;
use crate::authenticate::Principal;
use crate::forward::body::tee::{CopyMemory, MEMORY_MAX};
use crate::forward::open_streams::{OpenStream, OpenStreams, StreamBounds, StreamKind};
use crate::forward::upstream::Upstream;
use crate::forward::upstream::connect;
use crate::forward::upstream::connect_error::ConnectError;
use crate::forward::upstream::counters::{UpstreamCounters, UpstreamShard};
use crate::forward::upstream::server::Server;
use crate::forward::upstream::server_id::ServerId;
use crate::journal::Journal;
use crate::peer::activity::SWEEP;
use crate::peer::coarse_millis;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The maximum number of idle connections that a core keeps to one server.
const IDLE_MAX: usize = 256;
/// The time that a connection may stay idle. The time is shorter than the keep-alive time of most servers: the gateway
/// closes the connection first, so that no request is sent on a connection that the server is about to close.
const IDLE_TIMEOUT: Duration = Duration::from_secs(45);
/// The maximum number of requests of one core that wait for a connection to one server.
const WAITING_MAX: usize = 1024;
/// Size of a core's buffer for reads, in bytes.
const SCRATCH: usize = 64 * 1024;

/// The pools of one core, by [`Server::id`].
pub(crate) struct Pools {
    servers: RefCell<Vec<PerServer>>,
    /// The time of the last sweep. It is exact enough to compute how long a connection was idle.
    swept: Cell<Instant>,
    pub(in crate::forward) deadlines: Deadlines,
    /// The connections of HTTP/2.
    pub(in crate::forward) links: Links,
    /// The buffer into which the WebSockets of the core are read, allocated for the first one.
    scratch: RefCell<Vec<u8>>,
    streams: OpenStreams,
    /// Maximum time for which a client may leave the bytes of a stream unread.
    stall: Duration,
    /// The number of copies of requests that have no answer yet.
    pub(in crate::forward) mirrored: Cell<usize>,
    /// The memory of the copies.
    pub(in crate::forward) copy_memory: Rc<CopyMemory>,
    pub(in crate::forward) core: usize,
    pub(in crate::forward) journal: Journal,
}

/// One core's connections to one server.
#[derive(Default)]
struct PerServer {
    idle: Vec<IdleConnection>,
    /// The number of connections that are open or being opened, including idle ones.
    open: usize,
    queue: VecDeque<QueuedRequest>,
}

struct IdleConnection {
    connection: Rc<PooledConnection>,
    since: Instant,
}

/// A request that waits for a connection.
struct QueuedRequest {
    turn: oneshot::Sender<Turn>,
    accepts_kept: bool,
    /// The maximum number of connections of one core that the request's upstream allows to this server.
    share: usize,
    counters: Arc<UpstreamCounters>,
}

/// The result of a wait: a connection, or the right to open one.
enum Turn {
    Connection(Lease),
    Slot(Slot),
}

/// Reserves one connection in the server's share, from the attempt to open it until it has ended. When the slot is
/// dropped, the first request in line gets a new slot.
pub(in crate::forward) struct Slot {
    /// Keeps the number from being used for another server.
    server: ServerId,
    pub(in crate::forward) origin: Rc<str>,
    core: usize,
    /// The pools own the idle connections, and so their slots.
    pools: Weak<Pools>,
    counters: Arc<UpstreamCounters>,
}

/// A connection, and its place in the server's share. The place is free once the connection is closed.
#[derive(Debug)]
pub(in crate::forward) struct PooledConnection {
    connection: Connection,
    pub(in crate::forward) slot: Slot,
}

impl Deref for PooledConnection {
    type Target = Connection;

    #[inline]
    fn deref(&self) -> &Connection {
        &self.connection
    }
}

/// A connection that one request holds. Dropping the lease closes the connection; [`Lease::release`] returns the
/// connection to its pool.
pub(in crate::forward) struct Lease {
    pub(in crate::forward) connection: Rc<PooledConnection>,
    pub(in crate::forward) reused: bool,
    pools: Rc<Pools>,
}

/// The reason why a request gets no connection.
#[derive(Debug)]
pub(in crate::forward) enum LeaseError {
    /// This core's whole share of connections to the server is in use.
    Full,
    /// The whole share stayed in use until the request's time was over.
    Waited,
    /// The whole share is in use, and the line is full.
    LineFull,
    /// The connection could not be opened.
    Fault(ConnectError),
}

impl fmt::Debug for Pools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pools").finish_non_exhaustive()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("server", &self.connection.slot.server).finish_non_exhaustive()
    }
}

impl Pools {
    /// Creates the pools of the core with this index, without connections.
    /// A client may leave the bytes of a stream unread for `stall`.
    pub(crate) fn new(core: usize, journal: Journal, stall: Duration) -> Self {
        Self {
            servers: RefCell::new(Vec::new()),
            swept: Cell::new(Instant::now()),
            deadlines: Deadlines::default(),
            links: Links::default(),
            scratch: RefCell::default(),
            streams: OpenStreams::default(),
            stall,
            mirrored: Cell::new(0),
            copy_memory: CopyMemory::new(MEMORY_MAX),
            core,
            journal,
        }
    }

    /// Returns the WebSockets, long answers and long uploads of the core.
    pub(crate) fn streams(&self) -> &OpenStreams {
        &self.streams
    }

    /// Returns the core's buffer for reads of WebSockets. Its content is undefined.
    pub(in crate::forward) fn scratch(&self) -> &RefCell<Vec<u8>> {
        if let Ok(mut scratch) = self.scratch.try_borrow_mut()
            && scratch.is_empty()
        {
            *scratch = vec![0; SCRATCH];
        }
        &self.scratch
    }

    /// Registers a WebSocket that ends with the token of `caller` and after `silence`.
    pub(in crate::forward) fn open_websocket(
        &self,
        caller: Option<Rc<Principal>>,
        silence: Duration,
    ) -> Rc<OpenStream> {
        let bounds = StreamBounds {
            silence: coarse_millis(silence.saturating_add(SWEEP)),
            stall: coarse_millis(self.stall.saturating_add(SWEEP)),
        };
        self.streams.open(StreamKind::WebSocket, caller, Some(bounds), self.deadlines.now())
    }

    /// Registers an answer that ends with the token of `caller`, if there is one.
    pub(crate) fn open_answer(&self, caller: Option<Rc<Principal>>) -> Rc<OpenStream> {
        self.streams.open_unbounded(StreamKind::Answer, caller)
    }

    /// Returns an idle connection, if there is one: the most recently used one, which the server is least likely to
    /// close soon.
    pub(in crate::forward) fn reuse(self: &Rc<Self>, server: &Server) -> Option<Lease> {
        loop {
            // The loan of the pool must end before a connection is dropped, because its slot returns to the pool.
            let idle = self.servers.borrow_mut().get_mut(server.id.index())?.idle.pop()?;
            if is_ready(&idle.connection) {
                return Some(self.lease(idle.connection, true));
            }
        }
    }

    /// Returns the number of this core's requests that use or await a connection to a server.
    pub(in crate::forward) fn load(&self, server: &Server) -> usize {
        let servers = self.servers.borrow();
        servers.get(server.id.index()).map_or(0, |pool| pool.open - pool.idle.len() + pool.queue.len())
    }

    /// Opens a connection, if the server's share allows another one. With `wait`, waits up to that time for the right
    /// to open one, or for a connection that another request releases, if `accepts_kept`.
    pub(in crate::forward) async fn obtain(
        self: &Rc<Self>,
        upstream: &Upstream,
        server: &Server,
        wait: Option<Duration>,
        accepts_kept: bool,
    ) -> Result<Lease, LeaseError> {
        let deadline = wait.map(|wait| Instant::now() + wait);
        let slot = loop {
            match (self.open_slot(upstream, server), deadline) {
                (Some(slot), _) => break slot,
                (None, None) => return Err(LeaseError::Full),
                (None, Some(deadline)) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    match self.wait(upstream, server, left, accepts_kept).await? {
                        Turn::Slot(slot) => break slot,
                        // The server may have closed it, or sent bytes, since its release.
                        Turn::Connection(lease) if is_ready(&lease.connection) => return Ok(lease),
                        Turn::Connection(_unusable) => {}
                    }
                }
            }
        };
        let result = connect::connect(server, upstream.connect_timeout).await;
        let counts = upstream.counters.of(self.core);
        match result {
            Ok(stream) => {
                counts.inspect(|counts| counts.connections.add(1));
                let connection = PooledConnection { connection: Connection::new(stream), slot };
                Ok(self.lease(Rc::new(connection), false))
            }
            Err(fault) => {
                counts.inspect(|counts| counts.count_connect_error(&fault));
                Err(LeaseError::Fault(fault))
            }
        }
    }

    fn lease(self: &Rc<Self>, connection: Rc<PooledConnection>, reused: bool) -> Lease {
        Lease { connection, reused, pools: self.clone() }
    }

    /// Returns the right to open a connection, unless the whole share is in use.
    fn open_slot(self: &Rc<Self>, upstream: &Upstream, server: &Server) -> Option<Slot> {
        let mut servers = self.servers.borrow_mut();
        let index = server.id.index();
        if servers.len() <= index {
            servers.resize_with(index + 1, PerServer::default);
        }
        let pool = &mut servers[index];
        if pool.open >= upstream.share {
            return None;
        }
        pool.open += 1;
        Some(Slot::occupy(self, server.id.clone(), Rc::from(&*server.origin), upstream.counters.clone()))
    }

    /// Waits in line for a connection that another request releases, or for the right to open one.
    async fn wait(
        self: &Rc<Self>,
        upstream: &Upstream,
        server: &Server,
        timeout: Duration,
        accepts_kept: bool,
    ) -> Result<Turn, LeaseError> {
        let (turn, mine) = oneshot::channel();
        {
            let mut servers = self.servers.borrow_mut();
            let line = &mut servers[server.id.index()].queue;
            if line.len() >= WAITING_MAX {
                // The line may still contain requests whose client has disconnected or whose time is over.
                line.retain(|waiting| !waiting.turn.is_closed());
            }
            if line.len() >= WAITING_MAX {
                return Err(LeaseError::LineFull);
            }
            line.push_back(QueuedRequest {
                turn,
                accepts_kept,
                share: upstream.share,
                counters: upstream.counters.clone(),
            });
        }
        let _counted = upstream.counters.of(self.core).map(QueueCount::begin);
        match self.deadlines.within(timeout, mine).await {
            Ok(Ok(turn)) => Ok(turn),
            // Only a timeout is possible: while the request is in line, its sender is not dropped.
            Ok(Err(_)) | Err(_) => Err(LeaseError::Waited),
        }
    }

    fn put(self: &Rc<Self>, connection: Rc<PooledConnection>) {
        let mut servers = self.servers.borrow_mut();
        let pool = &mut servers[connection.slot.server.index()];
        if !pool.queue.is_empty()
            && let Some(first) = pool.first_in_line(|first| first.accepts_kept && is_ready(&connection))
        {
            let lease = self.lease(connection, true);
            drop(servers);
            // The receiver still exists: `first_in_line` checked it on this thread.
            let _ = first.turn.send(Turn::Connection(lease));
        } else if pool.queue.is_empty() && pool.idle.len() < IDLE_MAX {
            pool.idle.push(IdleConnection { connection, since: self.swept.get() });
        } else {
            // The connection closes, and its slot returns to the pool, where a request may wait for it. The loan must
            // end before.
            drop(servers);
        }
    }

    /// Closes connections that were idle for too long or that their server closed, and ends exchanges whose deadlines
    /// have passed. `tick` is the core's coarse clock, in milliseconds.
    pub(crate) fn sweep(&self, now: Instant, tick: u64) {
        self.swept.set(now);
        self.deadlines.advance(tick);
        self.links.sweep(tick);
        let mut doomed = Vec::new();
        for pool in self.servers.borrow_mut().iter_mut() {
            let is_late = |idle: &IdleConnection| now.saturating_duration_since(idle.since) >= IDLE_TIMEOUT;
            doomed.extend(pool.idle.extract_if(.., |idle| is_late(idle) || !is_ready(&idle.connection)));
        }
        // Each dropped connection returns its slot to its pool, so the loan above must have ended.
        drop(doomed);
    }
}

/// Returns whether another request can use a connection. Each way to a further request asks this. Counts a server that
/// sent bytes without a request.
fn is_ready(connection: &PooledConnection) -> bool {
    match connection.idle_state() {
        IdleState::Ready => true,
        IdleState::Closed => false,
        IdleState::Unasked => {
            connection.slot.count_unasked();
            false
        }
    }
}

impl PerServer {
    /// Removes the first request from the line, if `may` accepts it. Before that, removes requests whose client has
    /// disconnected.
    fn first_in_line(&mut self, may: impl Fn(&QueuedRequest) -> bool) -> Option<QueuedRequest> {
        while self.queue.front().is_some_and(|first| first.turn.is_closed()) {
            self.queue.pop_front();
        }
        self.queue.pop_front_if(|first| may(first))
    }
}

/// Counts a waiting request until it is dropped.
struct QueueCount<'c>(&'c UpstreamShard);

impl<'c> QueueCount<'c> {
    fn begin(counts: &'c UpstreamShard) -> Self {
        counts.waiting.add(1);
        Self(counts)
    }
}

impl Drop for QueueCount<'_> {
    fn drop(&mut self) {
        self.0.waiting.sub(1);
    }
}

impl Slot {
    fn occupy(pools: &Rc<Pools>, server: ServerId, origin: Rc<str>, counters: Arc<UpstreamCounters>) -> Self {
        let slot = Self { server, origin, core: pools.core, pools: Rc::downgrade(pools), counters };
        slot.counts().inspect(|counts| counts.open.add(1));
        slot
    }

    fn counts(&self) -> Option<&UpstreamShard> {
        self.counters.of(self.core)
    }

    #[cold]
    fn count_unasked(&self) {
        self.counts().inspect(|counts| counts.unasked.add(1));
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.counts().inspect(|counts| counts.open.sub(1));
        let Some(pools) = self.pools.upgrade() else { return };
        let mut servers = pools.servers.borrow_mut();
        let pool = &mut servers[self.server.index()];
        pool.open -= 1;
        let open = pool.open;
        // After a reload that lowers the bound, more connections may be open than the bound allows.
        if let Some(first) = pool.first_in_line(|first| open < first.share) {
            pool.open += 1;
            drop(servers);
            let slot = Self::occupy(&pools, self.server.clone(), self.origin.clone(), first.counters);
            // The receiver still exists: `first_in_line` checked it on this thread.
            let _ = first.turn.send(Turn::Slot(slot));
        }
    }
}

impl Lease {
    /// Returns the core's buffer for reads of WebSockets.
    pub(in crate::forward) fn scratch(&self) -> &RefCell<Vec<u8>> {
        self.pools.scratch()
    }

    /// Returns the connection to its pool after its answer was read to the end. Bytes beyond the end belong to no
    /// answer, so they close the connection (RFC 9112 section 9.2).
    pub(in crate::forward) fn release(self) {
        if !self.connection.is_input_used() {
            return self.connection.slot.count_unasked();
        }
        self.connection.trim();
        self.pools.put(self.connection);
    }
}
