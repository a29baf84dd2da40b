//! Reads marks over a separate connection, which no other query uses.

use super::connect::{ConnectSettings, Dialect};
use super::error::Reason;
use super::lease::{in_time, rows};
use super::lives::{LIVES, TokenLives, lives};
use super::marks::{MARKS_BEHIND, StoredMark, marked};
use super::opened_file::OpenedFile;
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
    file: Option<OpenedFile>,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("is_connected", &self.connection.is_some()).finish_non_exhaustive()
    }
}

impl Feed {
    pub(super) fn new(plan: ConnectSettings, dialect: Dialect, file: Option<OpenedFile>) -> Self {
        Self { plan, dialect, connection: None, file }
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
    /// Returns an error if the store cannot be used, or if its file is not the one that this process has open.
    pub async fn lives(&mut self) -> Result<TokenLives, StoreError> {
        self.check_file().await?;
        lives(&self.read(query(LIVES)).await?)
    }

    /// Checks the file on another thread, because the file system may not answer.
    async fn check_file(&mut self) -> Result<(), StoreError> {
        let Some(mut file) = self.file.clone() else { return Ok(()) };
        let is_open = self.connection.is_some();
        let checked = tokio::task::spawn_blocking(move || {
            file.follow_log(is_open);
            file.check().map(|()| file)
        });
        let abandoned =
            |_| StoreError::trouble(Reason::Other, "the check of the file was abandoned".to_owned());
        self.file = Some(checked.await.map_err(abandoned)??);
        Ok(())
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
        Feed::new(self.plan.clone(), self.dialect, self.file.clone())
    }
}
