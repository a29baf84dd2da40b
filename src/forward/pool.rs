//! One core's connections to upstream servers: HTTP/1.1, kept alive, each used by one request at a time.
//!
//! A connection goes back to its pool only after an answer that was read to its end (RFC 9112 section 9.3.2); one
//! with anything else on it is closed, so that no answer's leftover is taken for another's.
//!
//! The connections to a server are bounded. Each core has its share of the bound and counts for itself, so that no core
//! waits for another's lock. A request that finds its server's share in use waits in line, first come, first served.

use super::connect;
use super::counters::{UpstreamCounters, UpstreamShard};
use super::deadline::Deadlines;
use super::faults::ConnectError;
use super::link::{AbandonedLinks, Link};
use super::upstream::{Server, Upstream};
use crate::journal::Journal;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How many idle connections a core keeps to one server.
const IDLE_MAX: usize = 256;
/// How long a connection stays idle before it is closed: less than the keep-alive time of most servers, so that we
/// close first and no request meets a connection that the server is about to close.
const IDLE_TIMEOUT: Duration = Duration::from_secs(45);
/// How long a connection whose answer is complete may take to become ready again (the request's body may still be
/// on its way out) before it is closed.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(1);
/// How many requests of one core may wait for a connection to one server.
const WAITING_MAX: usize = 1024;

/// The pools of one core, by [`Server::id`].
pub(crate) struct Pools {
    servers: RefCell<Vec<PerServer>>,
    /// When the sweep last came: near enough for the age of an idle connection.
    swept: Cell<Instant>,
    abandoned: Rc<AbandonedLinks>,
    pub(super) deadlines: Deadlines,
    pub(super) core: usize,
    pub(super) journal: Journal,
}

/// One core's connections to one server.
#[derive(Default)]
struct PerServer {
    idle: Vec<IdleLink>,
    /// Connections that are open or being opened, idle ones included.
    open: usize,
    queue: VecDeque<QueuedRequest>,
}

struct IdleLink {
    link: Link,
    since: Instant,
}

/// A request that waits for a connection.
struct QueuedRequest {
    turn: oneshot::Sender<Turn>,
    /// The bound of the request's upstream, and its counters.
    share: usize,
    counters: Arc<UpstreamCounters>,
}

/// The result of a wait: a connection, or the right to open one.
enum Turn {
    Connection(Lease),
    Slot(Slot),
}

/// One of a server's connections, or one that is being opened. Dropped when the connection has ended; the first request
/// in line then gets its place.
struct Slot {
    server: usize,
    pools: Rc<Pools>,
    counters: Arc<UpstreamCounters>,
}

/// A connection that one request holds. Dropped, it is closed; [`Lease::release`] puts it back.
pub(super) struct Lease {
    pub(super) link: Link,
    pub(super) reused: bool,
    /// Whether the connection can be reused for another request.
    pub(super) keep: bool,
    server: usize,
    pools: Rc<Pools>,
}

/// Why there is no connection for a request.
#[derive(Debug)]
pub(super) enum LeaseError {
    /// This core's share of connections to the server is in use.
    Full,
    /// The share stayed in use until the request's time ran out.
    Waited,
    /// The share is in use, and the line is full too.
    LineFull,
    /// The connection could not be made.
    Fault(ConnectError),
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
    /// The pools of the core with this number, without connections.
    pub(crate) fn new(core: usize, journal: Journal) -> Self {
        Self {
            servers: RefCell::new(Vec::new()),
            swept: Cell::new(Instant::now()),
            abandoned: Rc::default(),
            deadlines: Deadlines::default(),
            core,
            journal,
        }
    }

    /// A connection that is idle now: the one used last, which is the least likely to be closed by the server soon.
    pub(super) fn reuse(self: &Rc<Self>, server: &Server) -> Option<Lease> {
        let mut servers = self.servers.borrow_mut();
        let pool = servers.get_mut(server.id)?;
        while let Some(IdleLink { link, .. }) = pool.idle.pop() {
            if link.sender.is_ready() {
                return Some(self.lease(link, true, server.id));
            }
        }
        None
    }

    /// A new connection, if the server's share allows one; with `wait`, a new one or another request's, within this
    /// time.
    pub(super) async fn obtain(
        self: &Rc<Self>,
        upstream: &Upstream,
        server: &Server,
        wait: Option<Duration>,
    ) -> Result<Lease, LeaseError> {
        let slot = match (self.open_slot(upstream, server), wait) {
            (Some(slot), _) => slot,
            (None, None) => return Err(LeaseError::Full),
            (None, Some(wait)) => match self.wait(upstream, server, wait).await? {
                Turn::Connection(lease) => return Ok(lease),
                Turn::Slot(slot) => slot,
            },
        };
        let result = connect::connect(server, upstream.connect_timeout, slot, &self.abandoned).await;
        let counts = upstream.counters.of(self.core);
        match result {
            Ok(link) => {
                counts.inspect(|counts| counts.connections.add(1));
                Ok(self.lease(link, false, server.id))
            }
            Err(fault) => {
                counts.inspect(|counts| counts.count_connect_error(&fault));
                Err(LeaseError::Fault(fault))
            }
        }
    }

    fn lease(self: &Rc<Self>, link: Link, reused: bool, server: usize) -> Lease {
        Lease { link, reused, keep: true, server, pools: self.clone() }
    }

    /// The right to open a connection, unless the share is in use.
    fn open_slot(self: &Rc<Self>, upstream: &Upstream, server: &Server) -> Option<Slot> {
        let mut servers = self.servers.borrow_mut();
        if servers.len() <= server.id {
            servers.resize_with(server.id + 1, PerServer::default);
        }
        let pool = &mut servers[server.id];
        if pool.open >= upstream.share {
            return None;
        }
        pool.open += 1;
        Some(Slot::occupy(self, server.id, upstream.counters.clone()))
    }

    /// Waits in line for a connection of another request, or for the right to open one.
    async fn wait(
        self: &Rc<Self>,
        upstream: &Upstream,
        server: &Server,
        timeout: Duration,
    ) -> Result<Turn, LeaseError> {
        let (turn, mine) = oneshot::channel();
        {
            let mut servers = self.servers.borrow_mut();
            let line = &mut servers[server.id].queue;
            if line.len() >= WAITING_MAX {
                // The line may still contain requests whose client has left or whose time has run out.
                line.retain(|waiting| !waiting.turn.is_closed());
            }
            if line.len() >= WAITING_MAX {
                return Err(LeaseError::LineFull);
            }
            line.push_back(QueuedRequest {
                turn,
                share: upstream.share,
                counters: upstream.counters.clone(),
            });
        }
        let _counted = upstream.counters.of(self.core).map(QueueCount::begin);
        match self.deadlines.within(timeout, mine).await {
            Ok(Ok(turn)) => Ok(turn),
            // The other end is in the line, so nothing drops it.
            Ok(Err(_)) | Err(_) => Err(LeaseError::Waited),
        }
    }

    fn put(self: &Rc<Self>, server: usize, link: Link) {
        let mut servers = self.servers.borrow_mut();
        let pool = &mut servers[server];
        if !pool.queue.is_empty()
            && let Some(first) = pool.first_in_line(|_| true)
        {
            let lease = self.lease(link, true, server);
            drop(servers);
            // The other end is there: `first_in_line` has checked it, on this thread.
            let _ = first.turn.send(Turn::Connection(lease));
        } else if pool.idle.len() < IDLE_MAX {
            pool.idle.push(IdleLink { link, since: self.swept.get() });
        }
    }

    /// Closes connections that were idle for too long or that the server closed, and ends exchanges that take too long.
    /// `tick` is the core's coarse clock, in milliseconds.
    pub(crate) fn sweep(&self, now: Instant, tick: u64) {
        self.swept.set(now);
        self.deadlines.advance(tick);
        self.abandoned.sweep(now);
        for pool in self.servers.borrow_mut().iter_mut() {
            pool.idle.retain(|idle| {
                !idle.link.sender.is_closed() && now.saturating_duration_since(idle.since) < IDLE_TIMEOUT
            });
        }
    }
}

impl PerServer {
    /// Takes the first request out of the line, if a connection is available for it. Drops requests whose client has
    /// left.
    fn first_in_line(&mut self, may: impl Fn(&QueuedRequest) -> bool) -> Option<QueuedRequest> {
        while self.queue.front().is_some_and(|first| first.turn.is_closed()) {
            self.queue.pop_front();
        }
        self.queue.pop_front_if(|first| may(first))
    }
}

/// A waiting request, counted until this is dropped.
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
    fn occupy(pools: &Rc<Pools>, server: usize, counters: Arc<UpstreamCounters>) -> Self {
        counters.of(pools.core).inspect(|counts| counts.open.add(1));
        Self { server, pools: pools.clone(), counters }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.counters.of(self.pools.core).inspect(|counts| counts.open.sub(1));
        let mut servers = self.pools.servers.borrow_mut();
        let pool = &mut servers[self.server];
        pool.open -= 1;
        let open = pool.open;
        // After a reload that lowers the bound, more may be open than the bound allows.
        if let Some(first) = pool.first_in_line(|first| open < first.share) {
            pool.open += 1;
            drop(servers);
            let slot = Self::occupy(&self.pools, self.server, first.counters);
            // The other end is there: `first_in_line` has checked it, on this thread.
            let _ = first.turn.send(Turn::Slot(slot));
        }
    }
}

impl Lease {
    /// Puts the connection back: its answer was read to the end.
    pub(super) fn release(self) {
        let Self { mut link, server, pools, keep, .. } = self;
        if !keep {
            return;
        }
        if link.sender.is_ready() {
            pools.put(server, link);
        } else if !link.sender.is_closed() {
            tokio::task::spawn_local(async move {
                if let Ok(Ok(())) = tokio::time::timeout(SETTLE_TIMEOUT, link.sender.ready()).await {
                    pools.put(server, link);
                }
            });
        }
    }
}
