//! Revocations for the gateways that did not handle them: other ones, and this one after a restart.

use super::text::{NAME_MAX, fit};
use super::{Store, StoreError, Writing};
use crate::authenticate::{MARK_MARGIN, Mark};
use sqlx::Row;
use sqlx::any::AnyRow;

/// A mark as it is kept.
#[derive(Clone, Debug)]
pub struct Marked {
    /// Its place in the order of marks.
    pub seq: i64,
    /// The revoked subject, session or token.
    pub mark: Mark,
    /// The time from which it may be deleted: every access token that it revokes has expired by then, by any gateway's
    /// clock.
    pub kept: i64,
}

/// How long a mark is kept after the last access token that it revokes has expired, in milliseconds.
pub(super) const MARGIN: i64 = MARK_MARGIN.as_millis() as i64;

/// Names the lock under which PostgreSQL numbers marks.
///
/// Its sequences give numbers before transactions commit, and these may do so in another order: whoever has read up to
/// 7 would never see the 6 that came later. So a transaction that puts marks takes this lock first and has it until its
/// commit is seen by all; numbers appear in order, and reading on behind the last one misses none. Nothing is waited
/// for while it is held but the commit, and revocations are few.
///
/// A transaction that records how long tokens live takes it too. A gateway records a life before it reads the account
/// or the session that it issues a token for. So a revocation either reads that record, or has committed before the
/// gateway reads, which then issues nothing that was revoked.
const LOCK: &str = "SELECT pg_advisory_xact_lock(8098271343)";

/// The statement that reads the marks behind a number, in order, at most so many. A mark that the store holds is in
/// force, whatever the time is.
pub(super) const MARKS_BEHIND: &str =
    "SELECT seq, kind, value, generation, kept FROM marks WHERE seq > $1 ORDER BY seq LIMIT $2";

impl Store {
    /// The marks after a number, in order. No later mark has a smaller number than one that was read.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn marks(&self, after: i64) -> Result<Vec<Marked>, StoreError> {
        let rows = self.rows(self.query(MARKS_BEHIND).bind(after).bind(i64::MAX)).await?;
        rows.iter().map(marked).collect()
    }

    /// Revokes one access token with this `exp`.
    ///
    /// # Errors
    /// When the store cannot be used, or the id is longer than any that the gateway writes.
    pub async fn revoke_token(&self, jti: &str, now: i64, expires: i64) -> Result<(), StoreError> {
        fit("jti", jti, NAME_MAX)?;
        let mut transaction = self.begin().await?;
        self.lock_marks(&mut transaction).await?;
        insert(&mut transaction, &Mark::Token(jti.to_owned()), now, expires.max(now)).await?;
        transaction.commit().await
    }

    /// Puts marks beside what they belong to, and ends the transaction: nothing else may follow (see [`LOCK`]).
    pub(super) async fn commit_marked(
        &self,
        mut transaction: Writing,
        marks: &[Mark],
        now: i64,
    ) -> Result<(), StoreError> {
        if !marks.is_empty() {
            self.lock_marks(&mut transaction).await?;
        }
        for mark in marks {
            let expired = expired(&mut transaction, mark, now).await?;
            insert(&mut transaction, mark, now, expired).await?;
        }
        transaction.commit().await
    }

    /// Waits until no other transaction adds marks or records lives; SQLite has only one writer anyway.
    pub(super) async fn lock_marks(&self, transaction: &mut Writing) -> Result<(), StoreError> {
        if self.dialect.is_server() {
            transaction.query(LOCK).execute(&mut **transaction).await?;
        }
        Ok(())
    }
}

/// The time by which every access token that a new mark revokes has expired, by the clock of the gateway that issued
/// it.
///
/// A token belongs to a session that was used when the token was issued, so that the last use counts where it is later
/// than this process's own clock says. Tokens that were made for one account by command may live longer than any policy
/// says.
async fn expired(transaction: &mut Writing, mark: &Mark, now: i64) -> Result<i64, StoreError> {
    let (statement, value) = match mark {
        // Its own `exp` counts: see `revoke_token`.
        Mark::Token(_) => return Ok(now),
        Mark::Session(id) => (
            "SELECT COALESCE((SELECT longest FROM token_life), 0) AS longest,
             COALESCE((SELECT used FROM sessions WHERE id = $1), 0) AS used, CAST(0 AS BIGINT) AS until",
            id,
        ),
        Mark::Account { id, .. } => (
            "SELECT COALESCE((SELECT longest FROM token_life), 0) AS longest,
             COALESCE((SELECT MAX(used) FROM sessions WHERE account = $1), 0) AS used,
             COALESCE((SELECT until FROM long_tokens WHERE subject = $1), 0) AS until",
            id,
        ),
    };
    let row = transaction.query(statement).bind(value).fetch_one(&mut **transaction).await?;
    let number = |name| row.try_get::<i64, _>(name);
    Ok(number("used")?.max(now).saturating_add(number("longest")?).max(number("until")?))
}

async fn insert(transaction: &mut Writing, mark: &Mark, now: i64, expired: i64) -> Result<(), StoreError> {
    let (kind, value, generation) = match mark {
        Mark::Token(id) => ("token", id, 0),
        Mark::Session(id) => ("session", id, 0),
        Mark::Account { id, generation } => ("account", id, *generation),
    };
    transaction
        .query("INSERT INTO marks (kind, value, generation, kept, made) VALUES ($1, $2, $3, $4, $5)")
        .bind(kind)
        .bind(value)
        .bind(generation)
        .bind(expired.saturating_add(MARGIN))
        .bind(now)
        .execute(&mut **transaction)
        .await?;
    Ok(())
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
    Ok(Marked { seq: row.try_get("seq")?, mark, kept: row.try_get("kept")? })
}
