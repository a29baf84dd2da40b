//! Spends refresh tokens. One transaction either spends the token, stores its successor and updates the session, or
//! ends the session with all of its tokens (RFC 9700 section 4.14.2).
//!
//! The tokens of a session may be bound to a key (RFC 9449 section 5). A request without a proof by this key changes
//! nothing, so a thief of a bound token can neither use nor end the session.
//!
//! The successor's text is derived from the text of the spent token and a nonce. The store keeps the nonce and the hash
//! of the successor, so the gateway can return the same successor again. The database alone does not reveal the
//! successor, and neither does the spent token.

use super::account::Account;
use super::accounts::by_id;
use super::sessions::{Session, columns, end, insert_token, key_of, session_of};
use super::text::{bytes_of, hex};
use super::{Store, StoreError, Writing, for_update};
use crate::authenticate::{Mark, Thumbprint};
use sqlx::Row;
use sqlx::any::AnyRow;

/// A presented refresh token, and the parameters for spending it.
pub struct RotationRequest<'a> {
    /// The SHA-256 of the token's text.
    pub token: &'a [u8; 32],
    /// The key whose possession the request proves; `None` if the request has no proof.
    pub key: Option<Thumbprint>,
    /// Random bytes from which the successor is derived.
    pub nonce: [u8; 32],
    /// A function that returns the SHA-256 of the successor for a nonce.
    pub successor: &'a (dyn Fn(&[u8; 32]) -> [u8; 32] + Sync),
    /// The current time. All times in this struct are milliseconds since 1970.
    pub now: i64,
    /// When the successor expires, unless the session expires earlier.
    pub expires: i64,
    /// The time that a spent token still yields its successor, in milliseconds. 0 for no grace period.
    pub grace: i64,
    /// When the last outage was over: when this process began to serve, or the store answered again.
    pub outage_over: i64,
    /// The last time before the outage at which the previous process, or the store, was known to be alive.
    pub alive_before_outage: i64,
}

/// The outcome of presenting a refresh token.
pub enum Rotation {
    /// This request spent the token. Contains the successor.
    Rotated(Box<Successor>),
    /// The token was spent within the grace period. Contains the same successor as the first time.
    Repeated(Box<Successor>),
    /// The grace period of the spent token is over, or its successor is spent too. The session was ended.
    Reused {
        /// The id of the session.
        session: String,
        /// The id of the session's account.
        account: String,
    },
    /// The token is bound to a key, and the request has no proof by that key. Nothing was changed.
    Unproven,
    /// The token or its session has expired.
    Expired,
    /// The token's session was ended, or its account was removed.
    Ended,
    /// The token's account is disabled.
    Disabled,
    /// The token never existed, or is no longer kept.
    Unknown,
}

/// The successor of a refresh token.
pub struct Successor {
    /// The session.
    pub session: Session,
    /// The account in its current state.
    pub account: Account,
    /// The nonce from which the successor is derived.
    pub nonce: [u8; 32],
    /// When the successor expires.
    pub expires: i64,
}

/// A stored refresh token.
struct Token {
    session: Session,
    number: i64,
    issued: i64,
    expires: i64,
    /// When the token was spent, and with which nonce.
    spent: Option<(i64, [u8; 32])>,
}

/// Returns the statement that reads a token with its session. The session is first, because rows are locked in that
/// order.
macro_rules! token_by_hash {
    () => {
        concat!(
            "SELECT ",
            columns!(),
            ", t.number, t.issued, t.expires AS token_expires, t.spent, t.nonce
             FROM sessions s JOIN refresh_tokens t ON t.session = s.id WHERE t.hash = $1"
        )
    };
}

impl Store {
    /// Spends a refresh token in one atomic step, or returns why it cannot be spent. If several requests present the
    /// same token at the same time, one request spends it, and the others see a spent token.
    ///
    /// # Errors
    /// If the store cannot be used. The token is then not spent, unless the database's answer to the commit was lost.
    /// In that case, the client gets the successor if it presents the token again within the grace period.
    pub async fn rotate(&self, spend: &RotationRequest<'_>) -> Result<Rotation, StoreError> {
        // Reject an unknown token, or a token without a proof, before the transaction. The transaction takes the lock
        // that every login needs.
        match self.key_of_token(spend.token).await? {
            None => return Ok(Rotation::Unknown),
            Some(bound) if !is_proven(bound, spend.key) => return Ok(Rotation::Unproven),
            Some(_) => {}
        }
        let mut transaction = self.begin().await?;
        let row = transaction
            .query(for_update!(self.dialect, token_by_hash!()))
            .bind(hex(spend.token))
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = row else {
            transaction.undo().await;
            return Ok(Rotation::Unknown);
        };
        let token = token_of(&row)?;
        if !is_proven(token.session.key, spend.key) {
            transaction.undo().await;
            return Ok(Rotation::Unproven);
        }
        match token.spent {
            None => self.spend(transaction, token, spend).await,
            Some((at, nonce)) => {
                let successor = (spend.successor)(&nonce);
                match unspent(&mut transaction, &token, &successor).await?.filter(|_| in_grace(spend, at)) {
                    Some(expires) => repeat(transaction, token, nonce, expires, spend.now).await,
                    None => self.end_family(transaction, token.session, spend).await,
                }
            }
        }
    }

    async fn spend(
        &self,
        mut transaction: Writing,
        token: Token,
        spend: &RotationRequest<'_>,
    ) -> Result<Rotation, StoreError> {
        let account = by_id(&mut transaction, &token.session.account).await?;
        let account = match usable(&token.session, account, token.expires, spend.now) {
            Ok(account) => account,
            Err(refused) => {
                transaction.undo().await;
                return Ok(refused);
            }
        };
        let mut session = token.session;
        let expires = spend.expires.min(session.expires);
        transaction
            .query("UPDATE refresh_tokens SET spent = $1, nonce = $2 WHERE hash = $3")
            .bind(spend.now)
            .bind(hex(&spend.nonce))
            .bind(hex(spend.token))
            .execute(&mut *transaction)
            .await?;
        let successor = (spend.successor)(&spend.nonce);
        insert_token(&mut transaction, &successor, &session.id, token.number + 1, spend.now, expires).await?;
        transaction
            .query("UPDATE sessions SET used = $1 WHERE id = $2")
            .bind(spend.now)
            .bind(&session.id)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        session.used = spend.now;
        Ok(Rotation::Rotated(Box::new(Successor { session, account, nonce: spend.nonce, expires })))
    }

    /// Ends the session of a spent token that was presented again, because the gateway cannot tell a thief from the
    /// owner.
    async fn end_family(
        &self,
        mut transaction: Writing,
        session: Session,
        spend: &RotationRequest<'_>,
    ) -> Result<Rotation, StoreError> {
        let reused = Rotation::Reused { session: session.id.clone(), account: session.account };
        if end(&mut transaction, None, &session.id, "reuse", spend.now).await? {
            self.commit_marked(transaction, &[Mark::Session(session.id)], spend.now).await?;
        } else {
            transaction.undo().await;
        }
        Ok(reused)
    }

    /// Returns the key to which a refresh token is bound, whether or not it is spent. Returns `None` for an unknown
    /// token, and `Some(None)` for an unbound token.
    async fn key_of_token(&self, token: &[u8; 32]) -> Result<Option<Option<Thumbprint>>, StoreError> {
        let statement = self.query(
            "SELECT s.jkt FROM sessions s JOIN refresh_tokens t ON t.session = s.id WHERE t.hash = $1",
        );
        self.row(statement.bind(hex(token))).await?.as_ref().map(key_of).transpose()
    }

    /// Returns the session of a refresh token, whether or not the session has ended.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub async fn session_of_token(&self, token: &[u8; 32]) -> Result<Option<Session>, StoreError> {
        let row = self.row(self.query(token_by_hash!()).bind(hex(token))).await?;
        row.as_ref().map(session_of).transpose()
    }

    /// Returns the session and the account of a refresh token, and when the token was issued and expires. Returns
    /// `None` if the token cannot be spent at `now`.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub async fn token_state(
        &self,
        token: &[u8; 32],
        now: i64,
    ) -> Result<Option<(Session, Account, i64, i64)>, StoreError> {
        let row = self.row(self.query(token_by_hash!()).bind(hex(token))).await?;
        let Some(token) = row.as_ref().map(token_of).transpose()?.filter(|token| token.spent.is_none())
        else {
            return Ok(None);
        };
        let account = self.account(&token.session.account).await?;
        let account = usable(&token.session, account, token.expires, now).ok();
        Ok(account.map(|account| (token.session, account, token.issued, token.expires)))
    }
}

/// Returns the successor of a spent token that was presented again within the grace period.
async fn repeat(
    mut transaction: Writing,
    token: Token,
    nonce: [u8; 32],
    expires: i64,
    now: i64,
) -> Result<Rotation, StoreError> {
    let account = by_id(&mut transaction, &token.session.account).await?;
    transaction.undo().await;
    Ok(match usable(&token.session, account, expires, now) {
        Ok(account) => {
            Rotation::Repeated(Box::new(Successor { session: token.session, account, nonce, expires }))
        }
        Err(refused) => refused,
    })
}

/// Whether a request with a proof by the key `shown` may spend a token that is bound to the key `bound`. An unbound
/// token needs no proof.
fn is_proven(bound: Option<Thumbprint>, shown: Option<Thumbprint>) -> bool {
    bound.is_none() || bound == shown
}

/// Returns the account if the token, the session and the account are all valid at `now`. `expires`: when the token
/// expires.
fn usable(session: &Session, account: Option<Account>, expires: i64, now: i64) -> Result<Account, Rotation> {
    if session.ended.is_some() {
        return Err(Rotation::Ended);
    }
    if expires <= now || session.expires <= now {
        return Err(Rotation::Expired);
    }
    match account {
        None => Err(Rotation::Ended),
        Some(account) if account.disabled => Err(Rotation::Disabled),
        Some(account) => Ok(account),
    }
}

/// Whether a token that was spent at `spent_at` is within its grace period. An outage of the process or of the store does
/// not count, because a client that was waiting when it began retries after it.
///
/// `now` may be slightly before `spent_at`, because of waiting requests and other gateways' clocks. If it is earlier by
/// more than the grace period, the clock was set back, and the grace period counts as over.
fn in_grace(spend: &RotationRequest<'_>, spent_at: i64) -> bool {
    let around = |moment: i64| moment.saturating_sub(spend.grace)..=moment.saturating_add(spend.grace);
    let end = spent_at.saturating_add(spend.grace);
    let interrupted = end > spend.alive_before_outage
        && spent_at <= spend.outage_over
        && around(spend.outage_over).contains(&spend.now);
    spend.grace > 0 && (around(spent_at).contains(&spend.now) || interrupted)
}

/// Returns when the successor of a spent token expires. Returns `None` if the stored successor does not have this hash,
/// or is spent too.
async fn unspent(
    transaction: &mut Writing,
    token: &Token,
    successor: &[u8; 32],
) -> Result<Option<i64>, StoreError> {
    let row = transaction.query(
        "SELECT expires FROM refresh_tokens WHERE session = $1 AND number = $2 AND hash = $3 AND spent IS NULL",
    )
    .bind(&token.session.id)
    .bind(token.number + 1)
    .bind(hex(successor))
    .fetch_optional(&mut **transaction)
    .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

fn token_of(row: &AnyRow) -> Result<Token, StoreError> {
    let spent: Option<i64> = row.try_get("spent")?;
    let nonce: Option<String> = row.try_get("nonce")?;
    let spent = match (spent, nonce) {
        (None, None) => None,
        (Some(at), Some(nonce)) => Some((at, bytes_of(&nonce)?)),
        _ => return Err(StoreError::Broken("a refresh token that is half spent".to_owned())),
    };
    Ok(Token {
        session: session_of(row)?,
        number: row.try_get("number")?,
        issued: row.try_get("issued")?,
        expires: row.try_get("token_expires")?,
        spent,
    })
}
