//! Begins, lists and ends sessions. For the rotation of their refresh tokens, see [`rotation`].
//!
//! [`rotation`]: super::rotation

use super::marks::{Revocation, SessionEnd};
use super::text::{AGENT_MAX, NAME_MAX, bytes_of, fit, hex, is_text, shown};
use super::{Store, StoreError, Writing};
use crate::authenticate::{Mark, Thumbprint};
use crate::peer::network;
use sqlx::Row;
use sqlx::any::AnyRow;

/// Maximum number of refresh tokens that are kept for a session: ten days of refreshes every fifteen minutes. An older
/// token is rejected as unknown, and does not end the session.
const TOKENS: i64 = 1000;

/// Maximum number of addresses that are stored for an account.
const ADDRESSES: i64 = 20;
/// Maximum number of sessions of an account that one call lists, or that one call ends because there are too many.
const SESSIONS: i64 = 1000;

/// A session.
#[derive(Clone, Debug)]
pub struct Session {
    /// The `sid` of the session's tokens.
    pub id: String,
    /// The id of the account.
    pub account: String,
    /// When the session began. All times in this struct are milliseconds since 1970.
    pub created: i64,
    /// When the session was last refreshed.
    pub used: i64,
    /// When the session expires. A refresh does not change this time.
    pub expires: i64,
    /// When the password was last checked.
    pub authenticated: i64,
    /// The client address from which the session began.
    pub address: String,
    /// The user agent that the client sent.
    pub agent: String,
    /// The SHA-256 of the CSRF value; `None` if the session's tokens are not in cookies.
    pub csrf: Option<[u8; 32]>,
    /// The key to which the session's tokens are bound; `None` for bearer tokens. It never changes.
    pub key: Option<Thumbprint>,
    /// The reason why the session was ended; `None` if it was not ended.
    pub ended: Option<String>,
}

/// The outcome of beginning a session.
#[derive(Clone, Debug)]
pub enum SessionStart {
    /// The session began. Contains the marks of older sessions that were ended because the account had too many.
    Started(Vec<Mark>),
    /// The account no longer exists.
    AccountGone,
    /// The account is disabled.
    AccountDisabled,
    /// The account changed after the password was checked. The checked password may therefore no longer be valid.
    AccountChanged,
}

/// Returns the columns of a session, in a query with `FROM sessions s`.
macro_rules! columns {
    () => {
        "s.id, s.account, s.created, s.used, s.expires, s.authenticated, s.address, s.agent, s.csrf, s.jkt, \
         s.ended"
    };
}
pub(super) use columns;

impl Store {
    /// Begins a session with its first refresh token, and ends the account's oldest sessions beyond `keep`. `first` is
    /// the hash and the expiry of the token. `generation` is the account's generation when its password was checked. No
    /// session begins if the account was disabled, removed or changed since then.
    ///
    /// # Errors
    /// Returns an error if the store cannot be used. The session has then not begun.
    pub async fn begin_session(
        &self,
        session: &Session,
        generation: i64,
        first: (&[u8; 32], i64),
        keep: u32,
        now: i64,
    ) -> Result<SessionStart, StoreError> {
        fit("sid", &session.id, NAME_MAX)?;
        let mut transaction = self.begin().await?;
        let Some(account) = self.lock_by_id(&mut transaction, &session.account).await? else {
            transaction.undo().await;
            return Ok(SessionStart::AccountGone);
        };
        if account.disabled {
            transaction.undo().await;
            return Ok(SessionStart::AccountDisabled);
        }
        if account.generation != generation {
            transaction.undo().await;
            return Ok(SessionStart::AccountChanged);
        }
        transaction
            .query(
                "INSERT INTO sessions
             (id, account, created, used, expires, authenticated, address, agent, csrf, jkt, over)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $5)",
            )
            .bind(&session.id)
            .bind(&session.account)
            .bind(session.created)
            .bind(session.used)
            .bind(session.expires)
            .bind(session.authenticated)
            .bind(shown(&session.address, NAME_MAX))
            .bind(shown(&session.agent, AGENT_MAX))
            .bind(session.csrf.as_ref().map(hex))
            .bind(session.key.map(|key| key.to_string()))
            .execute(&mut *transaction)
            .await?;
        let (token, token_expires) = first;
        insert_token(&mut transaction, token, &session.id, 0, now, token_expires.min(session.expires))
            .await?;
        let marks = end_oldest(&mut transaction, session, keep, now).await?;
        note_address(&mut transaction, session, now).await?;
        self.commit_marked(transaction, &marks, now).await?;
        Ok(SessionStart::Started(marks))
    }

    /// Returns the sessions of an account that have neither ended nor expired, newest first.
    ///
    /// # Errors
    /// Returns an error if the store cannot be used.
    pub async fn sessions(&self, account: &str, now: i64) -> Result<Vec<Session>, StoreError> {
        let statement = self.query(concat!(
            "SELECT ",
            columns!(),
            " FROM sessions s WHERE s.account = $1 AND s.ended IS NULL AND s.expires > $2
             ORDER BY s.created DESC, s.id LIMIT $3"
        ));
        let rows = self.rows(statement.bind(account).bind(now).bind(SESSIONS)).await?;
        rows.iter().map(session_of).collect()
    }

    /// Ends a session. If `account` is given, ends the session only if it is a session of that account. Returns whether
    /// this call ended the session. If two callers end the same session at the same time, only one call returns `true`.
    ///
    /// # Errors
    /// Returns an error if the store cannot be used. The session then continues.
    pub async fn end_session(
        &self,
        account: Option<&str>,
        sid: &str,
        why: &str,
        now: i64,
    ) -> Result<bool, StoreError> {
        if !is_text(sid) || account.is_some_and(|account| !is_text(account)) {
            return Ok(false);
        }
        let account_id = account.map(ToOwned::to_owned);
        let end = SessionEnd { account: account_id, sid: sid.to_owned(), why: why.to_owned(), now };
        if self.revoke_together(Revocation::End(end)).await? {
            return Ok(true);
        }
        self.end_alone(account, sid, why, now).await
    }

    /// Ends a session in a transaction of its own, which waits for another one that has locked the session.
    async fn end_alone(
        &self,
        account: Option<&str>,
        sid: &str,
        why: &str,
        now: i64,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.begin().await?;
        if !end(&mut transaction, account, sid, why, now).await? {
            transaction.undo().await;
            return Ok(false);
        }
        self.commit_marked(transaction, &[Mark::Session(sid.to_owned())], now).await?;
        Ok(true)
    }

    /// Ends all sessions of an account, and revokes all its access tokens by incrementing its generation.
    ///
    /// # Errors
    /// Returns an error if the store cannot be used. The sessions then continue.
    pub async fn end_sessions(&self, account: &str, why: &str, now: i64) -> Result<Vec<Mark>, StoreError> {
        if !is_text(account) {
            return Ok(Vec::new());
        }
        let mut transaction = self.begin().await?;
        let row = transaction
            .query("UPDATE accounts SET generation = generation + 1 WHERE id = $1 RETURNING generation")
            .bind(account)
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = row else {
            transaction.undo().await;
            return Ok(Vec::new());
        };
        let marks = vec![Mark::Account { id: account.to_owned(), generation: row.try_get(0)? }];
        end_all(&mut transaction, account, why, now).await?;
        self.commit_marked(transaction, &marks, now).await?;
        Ok(marks)
    }

    /// Whether a session of this account began at this address in the last 90 days. Only the last 20 addresses of the
    /// account are stored. IPv6 addresses are compared by network, as in the throttle, because hosts change their
    /// address within the network each day (RFC 8981 section 3.4).
    ///
    /// # Errors
    /// Returns an error if the store cannot be used.
    pub async fn known_address(&self, account: &str, address: &str) -> Result<bool, StoreError> {
        if !is_text(account) || !is_text(address) {
            return Ok(false);
        }
        // Older versions stored the whole IPv6 address instead of the network.
        let statement =
            self.query("SELECT seen FROM addresses WHERE account = $1 AND address IN ($2, $3) LIMIT 1");
        let row = self.row(statement.bind(account).bind(network_of(address)).bind(address)).await?;
        Ok(row.is_some())
    }
}

/// Ends the account's oldest sessions, so that `keep` sessions remain, including the new session. The new session is
/// excluded by its id, because the clock may have been set back.
async fn end_oldest(
    transaction: &mut Writing,
    new: &Session,
    keep: u32,
    now: i64,
) -> Result<Vec<Mark>, StoreError> {
    let over = transaction
        .query(
            "SELECT id FROM sessions WHERE account = $1 AND ended IS NULL AND expires > $2 AND id <> $3
         ORDER BY created DESC, id LIMIT $4 OFFSET $5",
        )
        .bind(&new.account)
        .bind(now)
        .bind(&new.id)
        .bind(SESSIONS)
        .bind(i64::from(keep.saturating_sub(1)))
        .fetch_all(&mut **transaction)
        .await?;
    let mut marks = Vec::with_capacity(over.len());
    for row in over {
        let id: String = row.try_get(0)?;
        if end(transaction, None, &id, "too_many", now).await? {
            marks.push(Mark::Session(id));
        }
    }
    Ok(marks)
}

/// Returns the network of an address, as text.
fn network_of(address: &str) -> String {
    address.parse().map_or_else(|_| address.to_owned(), |address| network(address).to_string())
}

/// Stores the address at which a session began, and deletes the account's oldest addresses beyond the maximum.
async fn note_address(transaction: &mut Writing, session: &Session, now: i64) -> Result<(), StoreError> {
    transaction
        .query(
            "INSERT INTO addresses (account, address, seen) VALUES ($1, $2, $3)
         ON CONFLICT (account, address) DO UPDATE SET seen = excluded.seen",
        )
        .bind(&session.account)
        .bind(shown(&network_of(&session.address), NAME_MAX))
        .bind(now)
        .execute(&mut **transaction)
        .await?;
    transaction
        .query(
            "DELETE FROM addresses WHERE account = $1 AND address NOT IN
         (SELECT address FROM addresses WHERE account = $1 ORDER BY seen DESC, address LIMIT $2)",
        )
        .bind(&session.account)
        .bind(ADDRESSES)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// Ends one session. Returns whether this call ended the session. The `over` of an expired session is not changed, so
/// that the session is not kept longer.
pub(super) async fn end(
    transaction: &mut Writing,
    account: Option<&str>,
    sid: &str,
    why: &str,
    now: i64,
) -> Result<bool, StoreError> {
    let done = transaction
        .query(
            "UPDATE sessions SET ended = $1, over = CASE WHEN over < $2 THEN over ELSE $2 END
         WHERE id = $3 AND ended IS NULL AND account = COALESCE($4, account)",
        )
        .bind(why)
        .bind(now)
        .bind(sid)
        .bind(account)
        .execute(&mut **transaction)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends the active sessions of an account. Sessions that have ended or expired are skipped: another process may be
/// deleting them, and the two transactions could deadlock.
pub(super) async fn end_all(
    transaction: &mut Writing,
    account: &str,
    why: &str,
    now: i64,
) -> Result<(), StoreError> {
    transaction
        .query("UPDATE sessions SET ended = $1, over = $2 WHERE account = $3 AND ended IS NULL AND over > $2")
        .bind(why)
        .bind(now)
        .bind(account)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

pub(super) fn session_of(row: &AnyRow) -> Result<Session, StoreError> {
    let csrf: Option<String> = row.try_get("csrf")?;
    Ok(Session {
        id: row.try_get("id")?,
        account: row.try_get("account")?,
        created: row.try_get("created")?,
        used: row.try_get("used")?,
        expires: row.try_get("expires")?,
        authenticated: row.try_get("authenticated")?,
        address: row.try_get("address")?,
        agent: row.try_get("agent")?,
        csrf: csrf.as_deref().map(bytes_of).transpose()?,
        key: key_of(row)?,
        ended: row.try_get("ended")?,
    })
}

/// Returns the key of a row's session. An unreadable key is an error, so that its tokens do not become bearer tokens.
pub(super) fn key_of(row: &AnyRow) -> Result<Option<Thumbprint>, StoreError> {
    let key: Option<String> = row.try_get("jkt")?;
    let read = |text: String| {
        text.parse().map_err(|()| StoreError::Broken("a session's jkt that is no thumbprint".to_owned()))
    };
    key.map(read).transpose()
}

/// Stores a token of a session, and deletes the session's oldest tokens beyond `TOKENS`.
pub(super) async fn insert_token(
    transaction: &mut Writing,
    token: &[u8; 32],
    session: &str,
    number: i64,
    now: i64,
    expires: i64,
) -> Result<(), StoreError> {
    transaction
        .query(
            "INSERT INTO refresh_tokens (hash, session, number, issued, expires) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(hex(token))
        .bind(session)
        .bind(number)
        .bind(now)
        .bind(expires)
        .execute(&mut **transaction)
        .await?;
    if number >= TOKENS {
        transaction
            .query("DELETE FROM refresh_tokens WHERE session = $1 AND number <= $2")
            .bind(session)
            .bind(number - TOKENS)
            .execute(&mut **transaction)
            .await?;
    }
    Ok(())
}
