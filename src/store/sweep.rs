//! Forgetting. What is deleted is what nobody can ask about any more, in small bites: each one a transaction, so that
//! those who write wait for none of them long.

use super::marks::MARGIN;
use super::{Store, StoreError};
use sqlx::Row;

/// How long an ended session is kept, so that a late request still learns why it ended: a day.
const OVER_KEPT: i64 = 86_400_000;
/// For how long an address from which an account logged in is known: 90 days.
const ADDRESS_KEPT: i64 = 90 * 86_400_000;
/// Rows of a bite. Tens of milliseconds at most.
const BITE: i64 = 500;
/// Maximum number of transactions of one call. The next call continues.
const BITES: u32 = 200;

/// Names the lock of the one process that sweeps.
const LOCK: &str = "SELECT pg_try_advisory_xact_lock(8098271344)";

/// A statement that deletes expired rows, up to a number.
const TOKENS: &str = "DELETE FROM refresh_tokens WHERE hash IN
    (SELECT t.hash FROM sessions s JOIN refresh_tokens t ON t.session = s.id WHERE s.over <= $1 LIMIT $2)";
const SESSIONS: &str = "DELETE FROM sessions WHERE id IN
    (SELECT s.id FROM sessions s WHERE s.over <= $1
     AND NOT EXISTS (SELECT 1 FROM refresh_tokens t WHERE t.session = s.id) LIMIT $2)";
const MARKS: &str = "DELETE FROM marks WHERE seq IN (SELECT m.seq FROM marks m WHERE m.kept <= $1 LIMIT $2)";
/// Without its record a token is accepted for no longer than others, so deleting a record too early accepts nothing.
const LONG_TOKENS: &str = "DELETE FROM long_tokens WHERE subject IN (SELECT t.subject FROM long_tokens t WHERE t.until <= $1 LIMIT $2)";
const ADDRESSES: &str = "DELETE FROM addresses WHERE (account, address) IN
    (SELECT a.account, a.address FROM addresses a WHERE a.seen <= $1 LIMIT $2)";

impl Store {
    /// Forgets what nobody can ask about any more: marks past their end, sessions that were over a day ago with their
    /// tokens, addresses that were not seen for 90 days. A call does a bounded part of it; another process may be at
    /// it.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn forget(&self, now: i64) -> Result<(), StoreError> {
        let over = now.saturating_sub(OVER_KEPT);
        let mut left = BITES;
        for (statement, until) in [
            (MARKS, now),
            (LONG_TOKENS, now.saturating_sub(MARGIN)),
            (TOKENS, over),
            (SESSIONS, over),
            (ADDRESSES, now.saturating_sub(ADDRESS_KEPT)),
        ] {
            while left > 0 && self.bite(statement, until).await? {
                left -= 1;
            }
        }
        Ok(())
    }

    /// Whether there may be more.
    async fn bite(&self, statement: &'static str, until: i64) -> Result<bool, StoreError> {
        let mut transaction = self.begin().await?;
        if self.dialect.is_server() {
            let row = transaction.query(LOCK).fetch_one(&mut *transaction).await?;
            if !row.try_get::<bool, _>(0)? {
                transaction.undo().await;
                return Ok(false);
            }
        }
        let done = transaction.query(statement).bind(until).bind(BITE).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(done.rows_affected() >= BITE.unsigned_abs())
    }
}
