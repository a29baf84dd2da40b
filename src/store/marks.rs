//! What was revoked, for those who were not there: other gateways, and this one after a restart.

use super::text::{NAME_MAX, fit};
use super::{Store, StoreError, Writing};
use crate::authenticate::Mark;
use sqlx::Row;
use sqlx::any::AnyRow;

/// A mark as it is kept.
#[derive(Clone, Debug)]
pub struct Marked {
    /// Its place in the order of marks.
    pub seq: i64,
    /// What it revokes.
    pub mark: Mark,
    /// Until when it matters.
    pub until: i64,
}

/// Names the lock under which PostgreSQL numbers marks.
///
/// Its sequences give numbers before transactions commit, and these may do so in another order: whoever has read up to
/// 7 would never see the 6 that came later. So a transaction that puts marks takes this lock first and has it until its
/// commit is seen by all; numbers appear in order, and reading on behind the last one misses none. Nothing is waited for
/// while it is held but the commit, and revocations are few.
const LOCK: &str = "SELECT pg_advisory_xact_lock(8098271343)";

/// The statement that reads the marks behind a number, in order.
pub(super) const MARKS_BEHIND: &str =
    "SELECT seq, kind, value, generation, until FROM marks WHERE seq > $1 AND until > $2 ORDER BY seq";

impl Store {
    /// The marks behind a number that still matter, in order. None that comes later has a smaller number than one that
    /// was read.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn marks(&self, after: i64, now: i64) -> Result<Vec<Marked>, StoreError> {
        let rows = self.rows(self.query(MARKS_BEHIND).bind(after).bind(now)).await?;
        rows.iter().map(marked).collect()
    }

    /// Revokes one access token.
    ///
    /// # Errors
    /// When the store cannot be used, or the id is longer than any of ours.
    pub async fn revoke_token(&self, jti: &str, now: i64, until: i64) -> Result<(), StoreError> {
        fit("jti", jti, NAME_MAX)?;
        let transaction = self.begin().await?;
        self.commit_marked(transaction, &[Mark::Token(jti.to_owned())], now, until).await
    }

    /// Puts marks beside what they belong to, and ends the transaction: nothing else may follow (see [`LOCK`]).
    pub(super) async fn commit_marked(
        &self,
        mut transaction: Writing,
        marks: &[Mark],
        now: i64,
        until: i64,
    ) -> Result<(), StoreError> {
        if self.dialect.is_server() && !marks.is_empty() {
            transaction.query(LOCK).execute(&mut *transaction).await?;
        }
        for mark in marks {
            let (kind, value, generation) = match mark {
                Mark::Token(id) => ("token", id, 0),
                Mark::Session(id) => ("session", id, 0),
                Mark::Account { id, generation } => ("account", id, *generation),
            };
            let statement = transaction.query(
                "INSERT INTO marks (kind, value, generation, until, made) VALUES ($1, $2, $3, $4, $5)",
            );
            let statement = statement.bind(kind).bind(value).bind(generation).bind(until).bind(now);
            statement.execute(&mut *transaction).await?;
        }
        transaction.commit().await
    }
}

/// A row of [`MARKS_BEHIND`].
pub(super) fn marked(row: &AnyRow) -> Result<Marked, StoreError> {
    let value: String = row.try_get("value")?;
    let mark = match row.try_get::<String, _>("kind")?.as_str() {
        "token" => Mark::Token(value),
        "session" => Mark::Session(value),
        "account" => Mark::Account { id: value, generation: row.try_get("generation")? },
        other => return Err(StoreError::Broken(format!("a mark of kind {other}"))),
    };
    Ok(Marked { seq: row.try_get("seq")?, mark, until: row.try_get("until")? })
}
