//! Reads marks over a separate connection that nothing else waits for.

use super::connect::{Dialect, Plan};
use super::lease::{in_time, rows};
use super::lives::{LIVES, Lives, lives};
use super::marks::{MARKS_BEHIND, Marked, marked};
use super::{Store, StoreError};
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, query};
use std::fmt;

/// The most marks of one read. A million of them, after a start, must not meet the bound on the time of a statement.
pub const MARKS_MAX: usize = 10_000;

/// Reads revocations by other processes. Requests that wait for the store's other connections, and slow statements
/// there, do not delay it.
pub struct Feed {
    plan: Plan,
    dialect: Dialect,
    connection: Option<AnyConnection>,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("is_connected", &self.connection.is_some()).finish_non_exhaustive()
    }
}

impl Feed {
    pub(super) fn new(plan: Plan, dialect: Dialect) -> Self {
        Self { plan, dialect, connection: None }
    }

    /// The first marks behind a number, in order, [`MARKS_MAX`] at most. Connects where it has no connection.
    ///
    /// # Errors
    /// When the store cannot be used, with the cause rather than "no connection in time". The connection is closed
    /// then, and the next call opens another.
    pub async fn marks(&mut self, after: i64) -> Result<Vec<Marked>, StoreError> {
        let max = i64::try_from(MARKS_MAX).unwrap_or(i64::MAX);
        let found = self.read(query(MARKS_BEHIND).bind(after).bind(max)).await?;
        found.iter().map(marked).collect()
    }

    /// How long access tokens may live; as [`Store::lives`], and like [`Feed::marks`].
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn lives(&mut self) -> Result<Lives, StoreError> {
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
    /// A reader of marks with a connection of its own.
    pub fn feed(&self) -> Feed {
        Feed::new(self.plan.clone(), self.dialect)
    }
}
