//! Sessions and their refresh tokens. A token is spent in one transaction; the hash of its successor is stored with it.

use super::accounts::{Account, by_id};
use super::marks::put;
use super::{Dialect, Store, StoreError, bytes_of, hex};
use crate::authenticate::Mark;
use sqlx::any::AnyRow;
use sqlx::{Any, Row, Transaction};

/// For how long an address from which an account logged in is known: 90 days, in milliseconds.
const ADDRESS_KEPT: i64 = 90 * 86_400_000;
/// How many addresses of an account are known.
const ADDRESSES: i64 = 20;
/// How many refresh tokens of a session are known; one that was spent longer ago is as unknown as one that never was.
const TOKENS: i64 = 1000;

/// A session.
#[derive(Clone, Debug)]
pub struct Session {
    /// `sid` of its tokens.
    pub id: String,
    /// The account.
    pub account: String,
    /// When it began; this and all times here are milliseconds since 1970.
    pub created: i64,
    /// When it was last refreshed.
    pub used: i64,
    /// When it ends, however often it is refreshed.
    pub expires: i64,
    /// When the password was proven.
    pub authenticated: i64,
    /// From where it began.
    pub address: String,
    /// What the client said it is.
    pub agent: String,
    /// The SHA-256 of its CSRF value, where it lives in cookies.
    pub csrf: Option<[u8; 32]>,
    /// Why it was ended, if it was.
    pub ended: Option<String>,
}

/// What became of a session that was to begin.
#[derive(Clone, Debug)]
pub enum Begun {
    /// It began; older ones beyond the bound were ended for it.
    Begun(Vec<Mark>),
    /// Its account is not there any more.
    AccountGone,
    /// Its account is disabled.
    AccountDisabled,
}

/// A refresh token that is presented.
pub struct Spend<'a> {
    /// The SHA-256 of its text.
    pub token: &'a [u8; 32],
    /// Random bytes, used if this spends it.
    pub nonce: [u8; 32],
    /// The SHA-256 of the successor that belongs to a nonce.
    pub successor: &'a (dyn Fn(&[u8; 32]) -> [u8; 32] + Sync),
    /// Now.
    pub now: i64,
    /// When the successor ends, unless the session ends before.
    pub expires: i64,
    /// For how long after it was spent it gets its successor once more.
    pub grace: i64,
    /// Since when this process answers, and when the one before it is last known to have lived.
    pub boot: i64,
    /// See `boot`.
    pub alive_before_boot: i64,
    /// Until when marks matter.
    pub until: i64,
}

/// What came of a refresh token.
pub enum Rotation {
    /// It is spent, and this is what follows.
    Rotated(Box<Renewed>),
    /// It was spent a moment ago, and this is what followed then.
    Repeated(Box<Renewed>),
    /// It was spent before: its session is ended.
    Reused {
        /// The session.
        session: String,
        /// Its account.
        account: String,
    },
    /// It, or its session, is too old.
    Expired,
    /// Its session was ended.
    Ended,
    /// Its account is disabled.
    Disabled,
    /// It was never there, or is forgotten.
    Unknown,
}

/// What follows a refresh token.
pub struct Renewed {
    /// The session.
    pub session: Session,
    /// Its account, as it is now.
    pub account: Account,
    /// What the successor is made with.
    pub nonce: [u8; 32],
    /// When the successor ends.
    pub expires: i64,
}

/// A statement that reads sessions.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT s.id, s.account, s.created, s.used, s.expires, s.authenticated, s.address, s.agent, s.csrf, s.ended \
             FROM sessions s ",
            $rest
        )
    };
}

impl Store {
    /// Begins a session with its first refresh token. Of the account's sessions the oldest beyond `keep` are ended.
    ///
    /// # Errors
    /// When the store cannot be used; then it did not begin.
    pub async fn begin_session(
        &self,
        session: &Session,
        token: &[u8; 32],
        token_expires: i64,
        keep: u32,
        now: i64,
        until: i64,
    ) -> Result<Begun, StoreError> {
        let mut transaction = self.begin().await?;
        self.lock_account(&mut transaction, &session.account).await?;
        let Some(account) = by_id(&mut transaction, &session.account).await? else {
            return Ok(Begun::AccountGone);
        };
        if account.disabled {
            return Ok(Begun::AccountDisabled);
        }
        sqlx::query(
            "INSERT INTO sessions (id, account, created, used, expires, authenticated, address, agent, csrf)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(&session.id)
        .bind(&session.account)
        .bind(session.created)
        .bind(session.used)
        .bind(session.expires)
        .bind(session.authenticated)
        .bind(&session.address)
        .bind(&session.agent)
        .bind(session.csrf.as_ref().map(hex))
        .execute(&mut *transaction)
        .await?;
        insert_token(&mut transaction, token, &session.id, now, token_expires).await?;
        let over = sqlx::query(
            "SELECT id FROM sessions WHERE account = $1 AND ended IS NULL AND expires > $2
             ORDER BY created DESC, id LIMIT 1000 OFFSET $3",
        )
        .bind(&session.account)
        .bind(now)
        .bind(i64::from(keep))
        .fetch_all(&mut *transaction)
        .await?;
        let mut marks = Vec::new();
        for row in over {
            let id: String = row.try_get(0)?;
            if id != session.id {
                end(&mut transaction, &id, "too_many", now).await?;
                marks.push(Mark::Session(id));
            }
        }
        for mark in &marks {
            put(&mut transaction, mark, now, until).await?;
        }
        sqlx::query(
            "INSERT INTO addresses (account, address, seen) VALUES ($1, $2, $3)
             ON CONFLICT (account, address) DO UPDATE SET seen = excluded.seen",
        )
        .bind(&session.account)
        .bind(&session.address)
        .bind(now)
        .execute(&mut *transaction)
        .await?;
        sqlx::query(
            "DELETE FROM addresses WHERE account = $1 AND address NOT IN
             (SELECT address FROM addresses WHERE account = $1 ORDER BY seen DESC LIMIT $2)",
        )
        .bind(&session.account)
        .bind(ADDRESSES)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(Begun::Begun(marks))
    }

    /// Spends a refresh token, or says why not: one atomic step.
    ///
    /// # Errors
    /// When the store cannot be used; then it is not spent.
    pub async fn rotate(&self, spend: &Spend<'_>) -> Result<Rotation, StoreError> {
        let mut transaction = self.begin().await?;
        let hash = hex(spend.token);
        let Some(id) = session_id(&mut transaction, &hash).await? else { return Ok(Rotation::Unknown) };
        // Whoever refreshes in the same session at the same moment waits here, and then reads what was done.
        if self.dialect == Dialect::Postgres {
            sqlx::query("SELECT id FROM sessions WHERE id = $1 FOR UPDATE")
                .bind(&id)
                .execute(&mut *transaction)
                .await?;
        }
        let row = sqlx::query(select!("WHERE s.id = $1")).bind(&id).fetch_optional(&mut *transaction).await?;
        let Some(row) = row else { return Ok(Rotation::Unknown) };
        let mut session = session_of(&row)?;
        let row = sqlx::query("SELECT expires, spent, nonce, successor FROM refresh_tokens WHERE hash = $1")
            .bind(&hash)
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = row else { return Ok(Rotation::Unknown) };
        let (expires, spent): (i64, Option<i64>) = (row.try_get("expires")?, row.try_get("spent")?);
        if let Some(spent_at) = spent {
            if session.ended.is_some() {
                // It was spent, and its session is ended already: there is nothing more to end.
                return Ok(Rotation::Reused { session: session.id, account: session.account });
            }
            let successor: Option<String> = row.try_get("successor")?;
            let nonce: Option<String> = row.try_get("nonce")?;
            if let (Some(successor), Some(nonce)) = (successor, nonce)
                && in_grace(spend, spent_at)
                && let Some(expires) = unspent(&mut transaction, &successor).await?
                && let Some(account) = by_id(&mut transaction, &session.account).await?
                && !account.disabled
                && expires > spend.now
            {
                let nonce = bytes_of(&nonce)?;
                return Ok(Rotation::Repeated(Box::new(Renewed { session, account, nonce, expires })));
            }
            end(&mut transaction, &session.id, "reuse", spend.now).await?;
            put(&mut transaction, &Mark::Session(session.id.clone()), spend.now, spend.until).await?;
            transaction.commit().await?;
            return Ok(Rotation::Reused { session: session.id, account: session.account });
        }
        if session.ended.is_some() {
            return Ok(Rotation::Ended);
        }
        if expires <= spend.now || session.expires <= spend.now {
            return Ok(Rotation::Expired);
        }
        let Some(account) = by_id(&mut transaction, &session.account).await? else {
            return Ok(Rotation::Ended);
        };
        if account.disabled {
            return Ok(Rotation::Disabled);
        }
        let successor = (spend.successor)(&spend.nonce);
        let expires = spend.expires.min(session.expires);
        sqlx::query("UPDATE refresh_tokens SET spent = $1, nonce = $2, successor = $3 WHERE hash = $4 AND spent IS NULL")
            .bind(spend.now)
            .bind(hex(&spend.nonce))
            .bind(hex(&successor))
            .bind(&hash)
            .execute(&mut *transaction)
            .await?;
        insert_token(&mut transaction, &successor, &session.id, spend.now, expires).await?;
        sqlx::query("UPDATE sessions SET used = $1 WHERE id = $2")
            .bind(spend.now)
            .bind(&session.id)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        session.used = spend.now;
        Ok(Rotation::Rotated(Box::new(Renewed { session, account, nonce: spend.nonce, expires })))
    }

    /// The session that a refresh token belongs to, ended or not.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn session_of_token(&self, token: &[u8; 32]) -> Result<Option<Session>, StoreError> {
        let row = sqlx::query(select!("JOIN refresh_tokens t ON t.session = s.id WHERE t.hash = $1"))
            .bind(hex(token))
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(session_of).transpose()
    }

    /// A refresh token that could be spent now: its session, account, when it was issued and when it ends.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn token_state(
        &self,
        token: &[u8; 32],
        now: i64,
    ) -> Result<Option<(Session, Account, i64, i64)>, StoreError> {
        let Some(session) = self.session_of_token(token).await? else { return Ok(None) };
        let row = sqlx::query("SELECT issued, expires FROM refresh_tokens WHERE hash = $1 AND spent IS NULL")
            .bind(hex(token))
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let (issued, expires): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let Some(account) = self.account(&session.account).await? else { return Ok(None) };
        let alive = session.ended.is_none() && expires > now && session.expires > now && !account.disabled;
        Ok(alive.then_some((session, account, issued, expires)))
    }

    /// The live sessions of an account, newest first.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn sessions(&self, account: &str, now: i64) -> Result<Vec<Session>, StoreError> {
        let rows = sqlx::query(select!(
            "WHERE s.account = $1 AND s.ended IS NULL AND s.expires > $2 ORDER BY s.created DESC, s.id LIMIT 1000"
        ))
        .bind(account)
        .bind(now)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(session_of).collect()
    }

    /// Ends a session, of this account if one is named. Whether there was such a one to end.
    ///
    /// # Errors
    /// When the store cannot be used; then it goes on.
    pub async fn end_session(
        &self,
        account: Option<&str>,
        sid: &str,
        why: &str,
        now: i64,
        until: i64,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.begin().await?;
        let row = sqlx::query("SELECT account FROM sessions WHERE id = $1 AND ended IS NULL")
            .bind(sid)
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = row else { return Ok(false) };
        let owner: String = row.try_get(0)?;
        if account.is_some_and(|account| account != owner) {
            return Ok(false);
        }
        end(&mut transaction, sid, why, now).await?;
        put(&mut transaction, &Mark::Session(sid.to_owned()), now, until).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Ends all sessions of an account, and all its access tokens: its generation grows.
    ///
    /// # Errors
    /// When the store cannot be used; then they go on.
    pub async fn end_sessions(
        &self,
        account: &str,
        why: &str,
        now: i64,
        until: i64,
    ) -> Result<Vec<Mark>, StoreError> {
        let mut transaction = self.begin().await?;
        self.lock_account(&mut transaction, account).await?;
        sqlx::query("UPDATE accounts SET generation = generation + 1 WHERE id = $1")
            .bind(account)
            .execute(&mut *transaction)
            .await?;
        let row = sqlx::query("SELECT generation FROM accounts WHERE id = $1")
            .bind(account)
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = row else { return Ok(Vec::new()) };
        let mark = Mark::Account { id: account.to_owned(), generation: row.try_get(0)? };
        end_all(&mut transaction, account, why, now).await?;
        put(&mut transaction, &mark, now, until).await?;
        transaction.commit().await?;
        Ok(vec![mark])
    }

    /// Whether a session of this account began at this address lately.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn known_address(&self, account: &str, address: &str) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT 1 FROM addresses WHERE account = $1 AND address = $2")
            .bind(account)
            .bind(address)
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.is_some())
    }

    /// Forgets what nobody can ask about any more.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn forget(&self, now: i64) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query("DELETE FROM marks WHERE until <= $1").bind(now).execute(&mut *transaction).await?;
        // A day longer than it lived, so that whoever comes late is told what became of it.
        sqlx::query("DELETE FROM sessions WHERE expires <= $1 OR ended_at <= $1")
            .bind(now.saturating_sub(86_400_000))
            .execute(&mut *transaction)
            .await?;
        sqlx::query("DELETE FROM addresses WHERE seen <= $1")
            .bind(now.saturating_sub(ADDRESS_KEPT))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Lets nobody else change an account until the transaction ends.
    async fn lock_account(
        &self,
        transaction: &mut Transaction<'static, Any>,
        id: &str,
    ) -> Result<(), StoreError> {
        if self.dialect == Dialect::Postgres {
            sqlx::query("SELECT id FROM accounts WHERE id = $1 FOR UPDATE")
                .bind(id)
                .execute(&mut **transaction)
                .await?;
        }
        Ok(())
    }
}

/// Whether a token that was spent at this moment gets its successor once more. The time in which no process answered does
/// not count.
fn in_grace(spend: &Spend<'_>, spent_at: i64) -> bool {
    let end = spent_at.saturating_add(spend.grace);
    let lost = end > spend.alive_before_boot && spent_at <= spend.boot;
    spend.grace > 0 && (spend.now <= end || (lost && spend.now <= spend.boot.saturating_add(spend.grace)))
}

async fn session_id(
    transaction: &mut Transaction<'static, Any>,
    hash: &str,
) -> Result<Option<String>, StoreError> {
    let row = sqlx::query("SELECT session FROM refresh_tokens WHERE hash = $1")
        .bind(hash)
        .fetch_optional(&mut **transaction)
        .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// When a token ends that is not spent.
async fn unspent(transaction: &mut Transaction<'static, Any>, hash: &str) -> Result<Option<i64>, StoreError> {
    let row = sqlx::query("SELECT expires FROM refresh_tokens WHERE hash = $1 AND spent IS NULL")
        .bind(hash)
        .fetch_optional(&mut **transaction)
        .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

async fn insert_token(
    transaction: &mut Transaction<'static, Any>,
    token: &[u8; 32],
    session: &str,
    now: i64,
    expires: i64,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO refresh_tokens (hash, session, issued, expires) VALUES ($1, $2, $3, $4)")
        .bind(hex(token))
        .bind(session)
        .bind(now)
        .bind(expires)
        .execute(&mut **transaction)
        .await?;
    sqlx::query(
        "DELETE FROM refresh_tokens WHERE session = $1 AND hash IN
         (SELECT hash FROM refresh_tokens WHERE session = $1 ORDER BY issued DESC, hash LIMIT 100 OFFSET $2)",
    )
    .bind(session)
    .bind(TOKENS)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

async fn end(
    transaction: &mut Transaction<'static, Any>,
    sid: &str,
    why: &str,
    now: i64,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE sessions SET ended = $1, ended_at = $2 WHERE id = $3 AND ended IS NULL")
        .bind(why)
        .bind(now)
        .bind(sid)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

pub(super) async fn end_all(
    transaction: &mut Transaction<'static, Any>,
    account: &str,
    why: &str,
    now: i64,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE sessions SET ended = $1, ended_at = $2 WHERE account = $3 AND ended IS NULL")
        .bind(why)
        .bind(now)
        .bind(account)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

fn session_of(row: &AnyRow) -> Result<Session, StoreError> {
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
        ended: row.try_get("ended")?,
    })
}
