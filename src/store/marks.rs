//! What was revoked, for those who were not there: other gateways, and this one after a restart.

use super::{Store, StoreError};
use crate::authenticate::Mark;
use sqlx::{Any, Row, Transaction};

/// A mark as it is kept.
#[derive(Clone, Debug)]
pub struct Marked {
    /// Its place in the order of marks.
    pub seq: i64,
    /// What it revokes.
    pub mark: Mark,
    /// Until when it matters, milliseconds since 1970.
    pub until: i64,
}

/// For how long a mark may stay unseen behind one with a higher number: transactions commit in another order than they take
/// numbers. Milliseconds; no transaction lives that long.
const LATE: i64 = 60_000;

impl Store {
    /// The marks behind a number that still matter, in order; with them those made so lately that they may have been
    /// overtaken. Reading a mark twice is reading it once.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn marks(&self, after: i64, now: i64) -> Result<Vec<Marked>, StoreError> {
        let rows = sqlx::query(
            "SELECT seq, kind, value, generation, until FROM marks
             WHERE (seq > $1 OR made > $2) AND until > $3 ORDER BY seq",
        )
        .bind(after)
        .bind(now.saturating_sub(LATE))
        .bind(now)
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                let value: String = row.try_get("value")?;
                let mark = match row.try_get::<String, _>("kind")?.as_str() {
                    "token" => Mark::Token(value),
                    "session" => Mark::Session(value),
                    "account" => Mark::Account { id: value, generation: row.try_get("generation")? },
                    other => return Err(StoreError::Broken(format!("a mark of kind {other}"))),
                };
                Ok(Marked { seq: row.try_get("seq")?, mark, until: row.try_get("until")? })
            })
            .collect()
    }

    /// Revokes one access token.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn revoke_token(&self, jti: &str, now: i64, until: i64) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        put(&mut transaction, &Mark::Token(jti.to_owned()), now, until).await?;
        transaction.commit().await?;
        Ok(())
    }
}

/// Puts a mark beside what it belongs to.
pub(super) async fn put(
    transaction: &mut Transaction<'static, Any>,
    mark: &Mark,
    now: i64,
    until: i64,
) -> Result<(), StoreError> {
    let (kind, value, generation) = match mark {
        Mark::Token(id) => ("token", id, 0),
        Mark::Session(id) => ("session", id, 0),
        Mark::Account { id, generation } => ("account", id, *generation),
    };
    sqlx::query("INSERT INTO marks (kind, value, generation, until, made) VALUES ($1, $2, $3, $4, $5)")
        .bind(kind)
        .bind(value)
        .bind(generation)
        .bind(until)
        .bind(now)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}
