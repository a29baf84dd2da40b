//! What outlives the process: accounts, sessions, refresh tokens, revocations.
//!
//! One schema and one set of statements for SQLite and PostgreSQL. Promises that what belongs together happens in one
//! transaction, and that what was answered was stored: a loss of power takes nothing back. Never asked between `accept`
//! and `forward`. Times are milliseconds since 1970; the caller brings them, so that one request has one moment.
//!
//! Three rules keep gateways that share a database from waiting for each other in a circle. Rows are locked in the
//! order account, session, token. Marks come last: `Store::commit_marked` is the only way to put them. What is swept is
//! what nobody changes any more.

mod account;
mod accounts;
mod connect;
mod error;
mod feed;
mod lease;
mod lives;
mod marks;
mod place;
mod rotation;
mod schema;
mod sessions;
mod sweep;
mod text;

pub use crate::authenticate::Mark;
pub use account::{Account, AccountChange, Added, NewAccount, PasswordHash};
pub use error::{Reason, StoreError, Trouble};
pub use feed::{Feed, MARKS_MAX};
pub use lives::{Lives, Standing};
pub use marks::Marked;
pub use rotation::{Renewed, Rotation, Spend};
pub use sessions::{Begun, Session};

use connect::{Dialect, Plan};
use lease::Lease;
use sqlx::{AnyPool, Row};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Accounts and sessions. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    /// Connections that only read. With PostgreSQL the same as `writes`.
    reads: AnyPool,
    /// Connections that write. SQLite has one writer at a time; here it waits in our queue, in order, rather than in
    /// SQLite's, which has none. Readers continue meanwhile.
    writes: AnyPool,
    /// How a connection of no pool is made that only reads.
    plan: Plan,
    dialect: Dialect,
    /// The file, or the server and its database, to be shown.
    place: Arc<str>,
    /// Connections that were closed because their transaction did not end in order.
    replaced: Arc<AtomicU64>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("dialect", &self.dialect).finish_non_exhaustive()
    }
}

/// A transaction that writes; undone when it is dropped.
type Writing = Lease;

/// A statement that reads rows for a change: on PostgreSQL nobody else changes them until the transaction ends, and
/// whoever had them is waited for. SQLite's writers are alone anyway.
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
    /// Where it is, to be shown: `sqlite:PATH`, or `postgres://HOST:PORT/DATABASE`, never a user or a password.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The last moment at which a process that used this store is known to have lived; 0: none is.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn alive_at(&self) -> Result<i64, StoreError> {
        let row = self.row(self.query("SELECT alive FROM life")).await?;
        row.map_or(Ok(0), |row| Ok(row.try_get(0)?))
    }

    /// Notes that the process lives.
    ///
    /// # Errors
    /// When the store cannot be used.
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
