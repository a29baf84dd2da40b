//! Deletes rows that no request needs any more. Rows are deleted in small batches, each in its own transaction, so that
//! other writers never wait long.

use super::marks::MARGIN;
use super::{Store, StoreError};
use sqlx::Row;

/// The time that a session is kept after it has ended or expired, in milliseconds: one day. During that time, a late request
/// gets the reason why the session cannot be used.
const OVER_KEPT: i64 = 86_400_000;
/// The time that an address is kept after the last login from it, in milliseconds: 90 days.
const ADDRESS_KEPT: i64 = 90 * 86_400_000;
/// Maximum number of rows in a batch, which the statements contain. A batch takes at most tens of milliseconds.
const BITE: u64 = 500;
/// Maximum number of batches in a call. The next call deletes the remaining rows.
const BITES: u32 = 200;

/// Tries to take the advisory lock that allows only one process to sweep.
const LOCK: &str = "SELECT pg_try_advisory_xact_lock(8098271344)";

/// Returns the time of the server in milliseconds since 1970.
pub(super) const CLOCK: &str = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";

/// Deletes the refresh tokens of old sessions. In all statements here, `$1` is the latest time of a row to delete. The
/// order is that of an index, and the limit is no parameter. PostgreSQL therefore reads the index and stops at the limit,
/// whatever it assumes about `$1`.
const TOKENS: &str = "DELETE FROM refresh_tokens WHERE hash IN
    (SELECT t.hash FROM sessions s JOIN refresh_tokens t ON t.session = s.id WHERE s.over <= $1
     ORDER BY s.over LIMIT 500)";
/// Deletes old sessions without tokens. PostgreSQL would read all tokens for a `NOT EXISTS`, and reads an index for each
/// session here.
const SESSIONS: &str = "DELETE FROM sessions WHERE id IN
    (SELECT s.id FROM sessions s WHERE s.over <= $1
     AND (SELECT t.hash FROM refresh_tokens t WHERE t.session = s.id LIMIT 1) IS NULL ORDER BY s.over LIMIT 500)";
const MARKS: &str =
    "DELETE FROM marks WHERE seq IN (SELECT m.seq FROM marks m WHERE m.kept <= $1 ORDER BY m.kept LIMIT 500)";
/// Deletes expired records of long-lived tokens. Deleting a record too early is safe: the gateway then rejects the
/// token earlier.
const LONG_TOKENS: &str = "DELETE FROM long_tokens WHERE subject IN (SELECT t.subject FROM long_tokens t WHERE t.until <= $1 LIMIT 500)";
const ADDRESSES: &str = "DELETE FROM addresses WHERE (account, address) IN
    (SELECT a.account, a.address FROM addresses a WHERE a.seen <= $1 ORDER BY a.seen LIMIT 500)";

impl Store {
    /// Returns the time at which a sweep may delete rows: `now`, or the time of the server if that is earlier. The clock of
    /// one gateway alone must not delete what all gateways share. A file is on the gateway's own machine.
    ///
    /// # Errors
    /// Returns an error if the store cannot be used.
    pub async fn sweep_time(&self, now: i64) -> Result<i64, StoreError> {
        if !self.dialect.is_server() {
            return Ok(now);
        }
        let row = self.row(self.query(CLOCK)).await?;
        let server: Option<i64> = row.map(|row| row.try_get(0)).transpose()?;
        server.map(|server| server.min(now)).ok_or_else(|| StoreError::Broken("no time".to_owned()))
    }

    /// Deletes rows that no request needs any more: expired marks, expired records of long-lived tokens, sessions that
    /// ended or expired more than a day ago, their refresh tokens, and addresses without a login for 90 days. Each call
    /// does a bounded amount of work. On a server, a call deletes nothing while another process sweeps.
    ///
    /// # Errors
    /// Returns an error if the store cannot be used.
    pub async fn forget(&self, now: i64) -> Result<(), StoreError> {
        let over = now.saturating_sub(OVER_KEPT);
        let mut left = BITES;
        for (statements, until) in [
            (&[MARKS][..], now),
            (&[LONG_TOKENS], now.saturating_sub(MARGIN)),
            // Sessions go with their tokens. Otherwise each batch of tokens would first step over the sessions without.
            (&[TOKENS, SESSIONS], over),
            (&[ADDRESSES], now.saturating_sub(ADDRESS_KEPT)),
        ] {
            let mut has_more = true;
            while has_more {
                has_more = false;
                for statement in statements {
                    if left == 0 {
                        return Ok(());
                    }
                    left -= 1;
                    has_more |= self.bite(statement, until).await?;
                }
            }
        }
        Ok(())
    }

    /// Deletes one batch. Returns whether more rows may remain.
    async fn bite(&self, statement: &'static str, until: i64) -> Result<bool, StoreError> {
        let mut transaction = self.begin().await?;
        if self.dialect.is_server() {
            let row = transaction.query(LOCK).fetch_one(&mut *transaction).await?;
            if !row.try_get::<bool, _>(0)? {
                transaction.undo().await;
                return Ok(false);
            }
        }
        let done = transaction.query(statement).bind(until).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(done.rows_affected() >= BITE)
    }
}
