//! The pools of connections, and their move to another server after a failover.
//!
//! If the URL names several servers, any new connection may find that another one is the primary server now. The pool is
//! then replaced. Connections to the old server may hang, so the work on them is abandoned ([`Store::moved`]).

use super::connect::ConnectSettings;
use super::{Store, StoreError};
use arc_swap::ArcSwap;
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyPool, Connection};
use std::future;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::timeout;

/// The time that a wait for a connection lasts before the primary server is searched.
const SOON: Duration = Duration::from_secs(1);
/// The minimum time between two searches.
const SEARCH_EVERY: Duration = Duration::from_secs(1);

/// The kind of work that a connection is for.
#[derive(Clone, Copy)]
pub(super) enum Work {
    Read,
    Write,
}

/// The pools of a store.
pub(super) struct Pools {
    in_use: ArcSwap<InUse>,
    plan: ConnectSettings,
    /// Held while the pools are replaced.
    moving: Mutex<()>,
    searched: tokio::sync::Mutex<Option<Instant>>,
    moved: watch::Sender<()>,
}

struct InUse {
    /// The position of the pools' server.
    server: usize,
    /// Read-only connections. On PostgreSQL this is the same pool as `writes`.
    reads: AnyPool,
    /// Connections that write. SQLite allows one writer at a time, and its own lock is not fair. For SQLite, this pool
    /// therefore has one connection, and writers wait for it in the order of their arrival. They do not block readers.
    writes: AnyPool,
}

impl Pools {
    pub(super) fn of_file(reads: AnyPool, writes: AnyPool, plan: ConnectSettings) -> Self {
        Self::new(InUse { server: plan.current(), reads, writes }, plan)
    }

    pub(super) fn of_servers(plan: ConnectSettings) -> Self {
        Self::new(InUse::of(&plan), plan)
    }

    fn new(in_use: InUse, plan: ConnectSettings) -> Self {
        let (in_use, moving, searched) =
            (ArcSwap::from_pointee(in_use), Mutex::new(()), tokio::sync::Mutex::new(None));
        Self { in_use, plan, moving, searched, moved: watch::Sender::new(()) }
    }

    /// Returns a connection. Searches the primary server if its pool gives none soon.
    pub(super) async fn acquire(&self, work: Work) -> Result<PoolConnection<Any>, StoreError> {
        if self.plan.has_several_servers() {
            if let Ok(Ok(connection)) = timeout(SOON, self.pool(work).acquire()).await {
                return Ok(connection);
            }
            self.search().await?;
        }
        Ok(self.pool(work).acquire().await?)
    }

    /// Finds the primary server, unless it was searched a moment ago.
    async fn search(&self) -> Result<(), StoreError> {
        let mut searched = self.searched.lock().await;
        if searched.is_some_and(|at| at.elapsed() < SEARCH_EVERY) {
            return Ok(());
        }
        let found = self.plan.connect().await;
        *searched = Some(Instant::now());
        Ok(found?.close().await?)
    }

    /// Returns the pool of the current server. Replaces the pools if another server has become the current one.
    fn pool(&self, work: Work) -> AnyPool {
        if self.in_use.load().server != self.plan.current() {
            self.follow();
        }
        let in_use = self.in_use.load();
        match work {
            Work::Read => in_use.reads.clone(),
            Work::Write => in_use.writes.clone(),
        }
    }

    fn follow(&self) {
        let _moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        if self.in_use.load().server == self.plan.current() {
            return;
        }
        let old = self.in_use.swap(InUse::of(&self.plan).into());
        // The pool is closed at once, and its connections when they come back. Nothing waits for those that hang.
        drop(old.writes.close());
        self.moved.send_replace(());
    }
}

impl InUse {
    fn of(plan: &ConnectSettings) -> Self {
        let server = plan.current();
        let pool = plan.server_pool(server);
        Self { server, reads: pool.clone(), writes: pool }
    }
}

impl Store {
    /// Waits until another server has become the primary server. Work that began before will not end well.
    pub async fn moved(&self) {
        let mut moved = self.pools.moved.subscribe();
        if moved.changed().await.is_err() {
            future::pending::<()>().await;
        }
    }

    /// Moves to the server that the reader of marks has found.
    pub fn follow(&self) {
        if self.pools.in_use.load().server != self.plan.current() {
            self.pools.follow();
        }
    }
}
