//! Persistent state: accounts, sessions, refresh tokens, revocations and shared signing keys.
//!
//! SQLite and PostgreSQL share one schema and one set of statements. Related changes are committed in one transaction.
//! A change reaches the disk before the gateway responds, so a power failure does not undo it. The gateway does not
//! query the store for a request that it only forwards. Times are milliseconds since 1970. The caller passes the
//! current time, so that all steps of a request use the same time.
//!
//! Three rules prevent deadlocks between gateways that share a database. Rows are locked in the order account, session,
//! token; the transaction of several callers (`group`) waits for no row. Marks are written last, through
//! `Store::commit_marked` or by the group. The sweep deletes only rows that no other statement can still change.

mod account;
mod accounts;
mod connect;
mod error;
mod feed;
mod group;
mod lease;
mod lives;
mod marks;
mod open;
mod opened_file;
mod place;
mod pools;
mod rotation;
mod schema;
mod sessions;
mod signing_keys;
mod sweep;
mod text;

pub use crate::authenticate::Mark;
pub use account::{Account, AccountChange, Added, NewAccount, PasswordHash};
pub use error::{Reason, StoreError, TransientFault};
pub use feed::{Feed, MARKS_MAX};
pub use lives::{Standing, TokenLives};
pub use marks::StoredMark;
pub use open::check_url;
pub use rotation::{Rotation, RotationRequest, Successor};
pub use sessions::{Session, SessionStart};
pub use signing_keys::{KeyChange, SealedKey, StoredKey};

use connect::{ConnectSettings, Dialect};
use group::Group;
use lease::Lease;
use opened_file::OpenedFile;
use pools::Pools;
use sqlx::Row;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// A handle to the database of accounts and sessions. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pools: Arc<Pools>,
    /// The settings for a read-only connection outside the pools.
    plan: ConnectSettings,
    /// The file of SQLite.
    file: Option<OpenedFile>,
    dialect: Dialect,
    /// The location for display: the file, or the server and its database.
    place: Arc<str>,
    /// The revocations that wait for a transaction.
    group: Arc<Group>,
    /// The number of connections that were closed because a transaction did not end cleanly.
    replaced: Arc<AtomicU64>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("dialect", &self.dialect).finish_non_exhaustive()
    }
}

/// A transaction that writes. A transaction that is dropped is rolled back.
type Writing = Lease;

/// Returns a statement that reads rows in order to change them. On PostgreSQL, the statement waits for other
/// transactions that have locked these rows, and then locks the rows until its own transaction ends. SQLite needs no
/// row locks, because it has one writer at a time.
macro_rules! for_update {
    ($dialect:expr, $($sql:tt)+) => {
        match $dialect {
            $crate::store::connect::Dialect::Sqlite => $($sql)+,
            $crate::store::connect::Dialect::Postgres | $crate::store::connect::Dialect::PooledPostgres => {
                concat!($($sql)+, " FOR UPDATE")
            }
        }
    };
}
use for_update;

impl Store {
    /// Returns the store's location for display: `sqlite:PATH` or `postgres://HOST:PORT/DATABASE`, never a user or a
    /// password.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Returns the last time at which a process that uses this store is known to have been alive, or 0 if there is no
    /// record.
    ///
    /// # Errors
    /// Returns an error if the store cannot be used.
    pub async fn alive_at(&self) -> Result<i64, StoreError> {
        let row = self.row(self.query("SELECT alive FROM life")).await?;
        row.map_or(Ok(0), |row| Ok(row.try_get(0)?))
    }

    /// Records that the process is alive.
    ///
    /// # Errors
    /// Returns an error if the store cannot be used.
    pub async fn touch_alive(&self, now: i64) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        transaction
            .query(
                "INSERT INTO life (one, alive) VALUES (1, $1)
                 ON CONFLICT (one) DO UPDATE SET alive = excluded.alive",
            )
            .bind(now)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }
}
