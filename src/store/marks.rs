//! Stores revocations as marks. Other gateways read the marks, and this gateway reads them after a restart.

use super::text::{NAME_MAX, fit};
use super::{Store, StoreError, Writing};
use crate::authenticate::{MARK_DIGEST_BYTES, MARK_MARGIN, Mark, SignalMark};
use crate::hex;
use serde_json::{Value, json};
use sqlx::Row;
use sqlx::any::AnyRow;

/// A stored mark.
#[derive(Clone, Debug)]
pub struct StoredMark {
    /// The mark's position in the order of all marks.
    pub seq: i64,
    /// The revoked token, session or account.
    pub mark: Mark,
    /// The time from which the mark may be deleted. By then, every access token that the mark revokes has expired, by
    /// the clock of any gateway.
    pub kept: i64,
}

/// A mark to be written. The times are in milliseconds since 1970.
#[derive(Clone, Debug)]
pub(super) struct NewMark {
    pub(super) mark: Mark,
    /// As in [`StoredMark`].
    pub(super) kept: i64,
    /// When the mark was made.
    pub(super) made: i64,
}

/// The time that a mark is kept after the last access token that it revokes has expired, in milliseconds.
pub(super) const MARGIN: i64 = MARK_MARGIN.as_millis() as i64;

/// The statement that takes the lock which PostgreSQL transactions hold while they write marks.
///
/// PostgreSQL assigns sequence numbers before transactions commit, and the transactions may commit in another order. A
/// reader that has read mark 7 would never see a mark 6 that is committed later. A transaction that writes marks
/// therefore takes this lock first and holds it until its commit is visible to all readers. The numbers then appear in
/// order, and a reader that continues after the last number does not miss a mark. The lock is held only for a short
/// time, because the transaction then waits only for its commit. Revocations that wait share a transaction: see
/// [`super::group`].
///
/// A transaction that records how long tokens live also takes this lock. A gateway records a token life before it reads
/// the account or the session for which it issues a token. A concurrent revocation therefore either reads that record,
/// or has committed before the gateway reads the account. In the second case, the gateway sees the revocation and
/// issues no token.
const LOCK: &str = "SELECT pg_advisory_xact_lock(8098271343)";

/// The statement that reads at most `$2` marks after number `$1`, in order. A stored mark is in force regardless of the
/// current time.
pub(super) const MARKS_BEHIND: &str =
    "SELECT seq, kind, value, generation, kept FROM marks WHERE seq > $1 ORDER BY seq LIMIT $2";

/// A revocation that can share a transaction with others.
pub(super) enum Revocation {
    /// Writes marks.
    Marks(Vec<NewMark>),
    /// Ends a session and writes its mark.
    End(SessionEnd),
}

/// The end of a session: see [`Store::end_session`].
pub(super) struct SessionEnd {
    pub(super) account: Option<String>,
    pub(super) sid: String,
    pub(super) why: String,
    pub(super) now: i64,
}

impl Store {
    /// Returns the marks after number `after`, in order. A mark that is written later gets a larger number than all
    /// marks that were read.
    ///
    /// # Errors
    /// Returns an error if the store cannot be used.
    pub async fn marks(&self, after: i64) -> Result<Vec<StoredMark>, StoreError> {
        let rows = self.rows(self.query(MARKS_BEHIND).bind(after).bind(i64::MAX)).await?;
        rows.iter().map(marked).collect()
    }

    /// Revokes the access token with the id `jti`. `expires` is the token's `exp`, in milliseconds since 1970.
    ///
    /// # Errors
    /// Returns an error if the store cannot be used, or the id is too long to store.
    pub async fn revoke_token(&self, jti: &str, now: i64, expires: i64) -> Result<(), StoreError> {
        fit("jti", jti, NAME_MAX)?;
        let kept = expires.max(now).saturating_add(MARGIN);
        let mark = NewMark { mark: Mark::Token(jti.to_owned()), kept, made: now };
        self.revoke_together(Revocation::Marks(vec![mark])).await.map(drop)
    }

    /// Stores marks of foreign issuers' tokens, each until its own end. All of them are stored, or none.
    ///
    /// # Errors
    /// Returns an error if the store cannot be used.
    pub async fn record_signals(&self, marks: &[SignalMark], now: i64) -> Result<(), StoreError> {
        let new = |mark: &SignalMark| NewMark {
            mark: Mark::Signal(*mark),
            kept: i64::from(mark.until) * 1000,
            made: now,
        };
        self.revoke_together(Revocation::Marks(marks.iter().map(new).collect())).await.map(drop)
    }

    /// Writes the marks of a transaction and commits the transaction. No other statement runs in between, so that
    /// [`LOCK`] is held only for a short time.
    pub(super) async fn commit_marked(
        &self,
        mut transaction: Writing,
        marks: &[Mark],
        now: i64,
    ) -> Result<(), StoreError> {
        if marks.is_empty() {
            return transaction.commit().await;
        }
        self.lock_marks(&mut transaction).await?;
        let mut new = Vec::with_capacity(marks.len());
        for mark in marks {
            let kept = expired(&mut transaction, mark, now).await?.saturating_add(MARGIN);
            new.push(NewMark { mark: mark.clone(), kept, made: now });
        }
        insert(&mut transaction, &new).await?;
        transaction.commit().await
    }

    /// Waits until no other transaction writes marks or records token lives, and takes their lock. SQLite needs no
    /// lock, because it has one writer at a time.
    pub(super) async fn lock_marks(&self, transaction: &mut Writing) -> Result<(), StoreError> {
        if self.dialect.is_server() {
            transaction.query(LOCK).execute(&mut **transaction).await?;
        }
        Ok(())
    }
}

/// Returns the time by which every access token that a new mark revokes has expired, by the clock of the gateway that
/// issued the token.
///
/// A gateway that issues a token sets the last use of its session. If the last use is later than this process's own
/// clock, the last use determines the result. Tokens that a command has issued for an account may live longer than any
/// policy allows.
async fn expired(transaction: &mut Writing, mark: &Mark, now: i64) -> Result<i64, StoreError> {
    let (statement, value) = match mark {
        // The caller uses the token's own `exp`: see `revoke_token`.
        Mark::Token(_) => return Ok(now),
        // A signal's mark has its own end: see `record_signals`.
        Mark::Signal(mark) => return Ok((i64::from(mark.until) * 1000).saturating_sub(MARGIN)),
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

/// Writes marks in this order.
pub(super) async fn insert(transaction: &mut Writing, marks: &[NewMark]) -> Result<(), StoreError> {
    let statement = match transaction.dialect().is_server() {
        true => {
            "INSERT INTO marks (kind, value, generation, kept, made)
             SELECT kind, value, generation, kept, made FROM json_to_recordset(CAST($1 AS json))
             AS w (kind TEXT, value TEXT, generation BIGINT, kept BIGINT, made BIGINT)"
        }
        false => {
            "INSERT INTO marks (kind, value, generation, kept, made)
             SELECT json_extract(value, '$.kind'), json_extract(value, '$.value'),
                    json_extract(value, '$.generation'), json_extract(value, '$.kept'), json_extract(value, '$.made')
             FROM json_each($1) ORDER BY key"
        }
    };
    let rows: Value = marks.iter().map(row_of).collect();
    transaction.query(statement).bind(rows.to_string()).execute(&mut **transaction).await?;
    Ok(())
}

fn row_of(NewMark { mark, kept, made }: &NewMark) -> Value {
    let digest;
    let (kind, value, generation) = match mark {
        Mark::Token(id) => ("token", id, 0),
        Mark::Session(id) => ("session", id, 0),
        Mark::Account { id, generation } => ("account", id, *generation),
        Mark::Signal(mark) => {
            digest = hex::text(&mark.digest);
            ("signal", &digest, i64::from(mark.before))
        }
    };
    json!({ "kind": kind, "value": value, "generation": generation, "kept": kept, "made": made })
}

/// Parses a row of [`MARKS_BEHIND`].
pub(super) fn marked(row: &AnyRow) -> Result<StoredMark, StoreError> {
    let value: String = row.try_get("value")?;
    let mark = match row.try_get::<String, _>("kind")?.as_str() {
        "token" => Mark::Token(value),
        "session" => Mark::Session(value),
        "account" => Mark::Account { id: value, generation: row.try_get("generation")? },
        "signal" => {
            let digest = hex::read::<MARK_DIGEST_BYTES>(&value);
            let digest =
                digest.ok_or_else(|| StoreError::Broken("a mark of a signal without digest".to_owned()))?;
            let before = u32::try_from(row.try_get::<i64, _>("generation")?).unwrap_or(u32::MAX);
            // The end is that of the row, which the caller knows.
            Mark::Signal(SignalMark { digest, before, until: 0 })
        }
        other => return Err(StoreError::Broken(format!("a mark of kind {other}"))),
    };
    Ok(StoredMark { seq: row.try_get("seq")?, mark, kept: row.try_get("kept")? })
}
