//! A connection on loan from a pool, and the transactions on it.
//!
//! A connection returns to its pool only when its work is known to be complete. If a transaction failed or was
//! abandoned between two statements, its connection is closed, and the pool opens a new connection. There are two
//! reasons. SQLite rolls a transaction back on a full disk, an I/O error or a lack of memory, and a network that drops
//! packets may cut PostgreSQL off. In both cases, the driver does not know the state of the transaction, and every
//! later use of the connection would fail.

use super::connect::Dialect;
use super::pools::Work;
use super::{Store, StoreError};
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::pool::PoolConnection;
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, SqlSafeStr};
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The time limit for a read, without the wait for a connection. The server's own limit is shorter, but has no effect
/// if the server is unreachable.
const READ_MAX: Duration = Duration::from_secs(6);

/// A connection on loan from a pool, with or without an open transaction. If the lease is dropped without
/// [`Lease::commit`], [`Lease::undo`] or [`Lease::give_back`], the connection is closed.
pub(super) struct Lease {
    connection: PoolConnection<Any>,
    dialect: Dialect,
    is_complete: bool,
    replaced: Arc<AtomicU64>,
}

impl Deref for Lease {
    type Target = AnyConnection;

    fn deref(&self) -> &AnyConnection {
        &self.connection
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.connection
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.is_complete {
            self.connection.close_on_drop();
            self.replaced.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Lease {
    async fn of(store: &Store, work: Work) -> Result<Self, StoreError> {
        let connection = store.pools.acquire(work).await?;
        let Store { dialect, replaced, .. } = store;
        Ok(Self { connection, dialect: *dialect, is_complete: false, replaced: replaced.clone() })
    }

    /// Returns a statement for this connection.
    #[allow(clippy::unused_self, reason = "the dialect decides")]
    pub(super) fn query<'q>(&self, sql: impl SqlSafeStr) -> Query<'q, Any, AnyArguments> {
        sqlx::query(sql).persistent(self.dialect.keeps_statements())
    }

    /// Returns the kind of the database.
    pub(super) const fn dialect(&self) -> Dialect {
        self.dialect
    }

    async fn says(&mut self, sql: &'static str) -> Result<(), StoreError> {
        sqlx::raw_sql(sql).execute(&mut *self.connection).await?;
        Ok(())
    }

    /// Commits the transaction, and returns the connection to its pool.
    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        self.says("COMMIT").await?;
        self.give_back();
        Ok(())
    }

    /// Rolls the transaction back, and returns the connection to its pool. If the rollback fails, the connection is
    /// closed, which also rolls the transaction back.
    pub(super) async fn undo(mut self) {
        if self.says("ROLLBACK").await.is_ok() {
            self.give_back();
        }
    }

    /// Returns the connection to its pool. The connection must not have an open transaction.
    fn give_back(mut self) {
        self.is_complete = true;
    }
}

impl Store {
    /// Begins a transaction that will write.
    pub(super) async fn begin(&self) -> Result<Lease, StoreError> {
        let mut lease = Lease::of(self, Work::Write).await?;
        lease.says(self.dialect.begin()).await?;
        Ok(lease)
    }

    /// Returns a statement that reads, for [`Self::rows`] or [`Self::row`].
    pub(super) fn query<'q>(&self, sql: impl SqlSafeStr) -> Query<'q, Any, AnyArguments> {
        sqlx::query(sql).persistent(self.dialect.keeps_statements())
    }

    /// Returns all rows that a statement finds.
    pub(super) async fn rows(&self, query: Query<'_, Any, AnyArguments>) -> Result<Vec<AnyRow>, StoreError> {
        let mut lease = Lease::of(self, Work::Read).await?;
        let rows = in_time(rows(&mut lease, self.dialect, query)).await?;
        lease.give_back();
        Ok(rows)
    }

    /// Returns the first row that a statement finds.
    pub(super) async fn row(
        &self,
        query: Query<'_, Any, AnyArguments>,
    ) -> Result<Option<AnyRow>, StoreError> {
        Ok(self.rows(query).await?.into_iter().next())
    }

    /// Returns the number of connections that were closed because a transaction did not end cleanly.
    pub fn replaced(&self) -> u64 {
        self.replaced.load(Ordering::Relaxed)
    }
}

/// Returns the rows that a statement finds. Behind a pooler, the statement runs in a transaction, because the pooler
/// may send the messages of a statement outside a transaction to different server connections.
pub(super) async fn rows(
    connection: &mut AnyConnection,
    dialect: Dialect,
    query: Query<'_, Any, AnyArguments>,
) -> Result<Vec<AnyRow>, StoreError> {
    if dialect != Dialect::PooledPostgres {
        return Ok(query.fetch_all(connection).await?);
    }
    sqlx::raw_sql(dialect.begin()).execute(&mut *connection).await?;
    let rows = query.fetch_all(&mut *connection).await?;
    sqlx::raw_sql("COMMIT").execute(connection).await?;
    Ok(rows)
}

/// Applies the time limit in the gateway, because an unreachable server cannot report a timeout.
pub(super) async fn in_time<T>(read: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let late = |_| StoreError::late(READ_MAX);
    tokio::time::timeout(READ_MAX, read).await.map_err(late)?
}
