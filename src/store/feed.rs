//! Reads marks over a separate connection, which no other query uses.

use super::connect::{ConnectSettings, Dialect};
use super::lease::{in_time, rows};
use super::lives::{LIVES, TokenLives, lives};
use super::marks::{MARKS_BEHIND, StoredMark, marked};
use super::{Store, StoreError};
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, query};
use std::fmt;

/// The maximum number of marks that one read returns. Without this bound, a read of a million marks after a start could
/// exceed the statement timeout.
pub const MARKS_MAX: usize = 10_000;

/// Reads the revocations of other processes over its own connection. Neither slow statements on the store's other
/// connections nor requests that wait for these connections delay the reads.
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

    /// Returns at most [`MARKS_MAX`] marks after sequence number `after`, in order. Opens the connection if it is
    /// closed.
    ///
    /// # Errors
    /// Returns an error if the store cannot be used. The error states the cause. After an error, the connection is
    /// closed, and the next call opens a new connection.
    pub async fn marks(&mut self, after: i64) -> Result<Vec<StoredMark>, StoreError> {
        let max = i64::try_from(MARKS_MAX).unwrap_or(i64::MAX);
        let found = self.read(query(MARKS_BEHIND).bind(after).bind(max)).await?;
        found.iter().map(marked).collect()
    }

    /// Returns how long access tokens may live, like [`Store::lives`], but uses the connection of [`Feed::marks`].
    ///
    /// # Errors
    /// Returns an error if the store cannot be used.
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
    /// Returns a reader of marks with its own connection. The first read opens the connection.
    pub fn feed(&self) -> Feed {
        Feed::new(self.plan.clone(), self.dialect)
    }
}
