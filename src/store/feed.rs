//! Reads marks over a separate connection that nothing else waits for.

use super::connect::{ConnectSettings, Dialect};
use super::lease::{in_time, rows};
use super::lives::{LIVES, TokenLives, lives};
use super::marks::{MARKS_BEHIND, StoredMark, marked};
use super::{Store, StoreError};
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, query};
use std::fmt;

/// The most marks returned by one read. Without this bound, reading a million marks after a start could exceed the
/// statement timeout.
pub const MARKS_MAX: usize = 10_000;

/// Reads revocations made by other processes. It has its own connection, so requests that wait for the store's other
/// connections, and slow statements there, do not delay it.
pub struct Feed {
    plan: ConnectSettings,
    dialect: Dialect,
    connection: Option<AnyConnection>,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("is_connected", &self.connection.is_some()).finish_non_exhaustive()
    }
}

impl Feed {
    pub(super) fn new(plan: ConnectSettings, dialect: Dialect) -> Self {
        Self { plan, dialect, connection: None }
    }

    /// Returns the marks after sequence number `after`, in order, [`MARKS_MAX`] at most. Opens a connection if there is
    /// not one yet.
    ///
    /// # Errors
    /// When the store cannot be used. The error names the cause rather than "no connection in time". The connection is
    /// then closed, and the next call opens another.
    pub async fn marks(&mut self, after: i64) -> Result<Vec<StoredMark>, StoreError> {
        let max = i64::try_from(MARKS_MAX).unwrap_or(i64::MAX);
        let found = self.read(query(MARKS_BEHIND).bind(after).bind(max)).await?;
        found.iter().map(marked).collect()
    }

    /// Returns how long access tokens may live, like [`Store::lives`] but over the connection of [`Feed::marks`].
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn lives(&mut self) -> Result<TokenLives, StoreError> {
        lives(&self.read(query(LIVES)).await?)
    }

    async fn read(&mut self, statement: Query<'_, Any, AnyArguments>) -> Result<Vec<AnyRow>, StoreError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.plan.connect().await?,
        };
        let statement = statement.persistent(self.dialect.keeps_statements());
        let found = in_time(rows(&mut connection, self.dialect, statement)).await?;
        self.connection = Some(connection);
        Ok(found)
    }
}

impl Store {
    /// Returns a reader of marks with its own connection. It connects on the first read.
    pub fn feed(&self) -> Feed {
        Feed::new(self.plan.clone(), self.dialect)
    }
}
