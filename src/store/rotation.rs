//! Refresh tokens. Spending one is a single transaction: the token is spent, its successor stored, the session noted;
//! or the family is ended and marked (RFC 9700 section 4.14.2).
//!
//! Of a spent token its nonce is kept, of its successor the hash: the successor's text follows from the presented text
//! and the nonce, so that it can be given a second time, and neither the database alone nor the spent token alone
//! tells it.

use super::account::Account;
use super::accounts::by_id;
use super::sessions::{Session, columns, end, session_of};
use super::text::{bytes_of, hex};
use super::{Store, StoreError, Writing, for_update};
use crate::authenticate::Mark;
use sqlx::Row;
use sqlx::any::AnyRow;

/// How many refresh tokens of a session are known: at one rotation in fifteen minutes, those of ten days. One that was
/// spent before is unknown, like one that never existed. It is refused too, but ends no session.
const TOKENS: i64 = 1000;

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
}

/// The result of presenting a refresh token.
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

/// The successor of a refresh token.
pub struct Renewed {
    /// The session.
    pub session: Session,
    /// Its account, as it is now.
    pub account: Account,
    /// The nonce from which the successor is derived.
    pub nonce: [u8; 32],
    /// When the successor ends.
    pub expires: i64,
}

/// A refresh token as it is kept.
struct Token {
    session: Session,
    number: i64,
    issued: i64,
    expires: i64,
    /// When it was spent, and with which nonce.
    spent: Option<(i64, [u8; 32])>,
}

/// The statement that reads a token with its session. The session stands first: rows are locked in this order.
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
    /// Spends a refresh token, or says why not: one atomic step. Of many who present the same token at once one spends
    /// it, and the others wait and then see it spent.
    ///
    /// # Errors
    /// When the store cannot be used. Unless only the answer was lost, it is not spent then; if it is, the grace has
    /// its successor.
    pub async fn rotate(&self, spend: &Spend<'_>) -> Result<Rotation, StoreError> {
        // Invented tokens are rejected before the lock that every login needs.
        if !self.knows_token(spend.token).await? {
            return Ok(Rotation::Unknown);
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
        spend: &Spend<'_>,
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
        Ok(Rotation::Rotated(Box::new(Renewed { session, account, nonce: spend.nonce, expires })))
    }

    /// A spent token was presented: the thief cannot be distinguished from the owner.
    async fn end_family(
        &self,
        mut transaction: Writing,
        session: Session,
        spend: &Spend<'_>,
    ) -> Result<Rotation, StoreError> {
        let reused = Rotation::Reused { session: session.id.clone(), account: session.account };
        if end(&mut transaction, None, &session.id, "reuse", spend.now).await? {
            self.commit_marked(transaction, &[Mark::Session(session.id)], spend.now).await?;
        } else {
            transaction.undo().await;
        }
        Ok(reused)
    }

    /// Whether a refresh token exists, spent or not.
    async fn knows_token(&self, token: &[u8; 32]) -> Result<bool, StoreError> {
        let statement = self.query("SELECT number FROM refresh_tokens WHERE hash = $1");
        Ok(self.row(statement.bind(hex(token))).await?.is_some())
    }

    /// The session that a refresh token belongs to, ended or not.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn session_of_token(&self, token: &[u8; 32]) -> Result<Option<Session>, StoreError> {
        let row = self.row(self.query(token_by_hash!()).bind(hex(token))).await?;
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

/// A token was spent a moment ago: what followed then follows again.
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
            Rotation::Repeated(Box::new(Renewed { session: token.session, account, nonce, expires }))
        }
        Err(refused) => refused,
    })
}

/// The account, if it and the session may go on with a token that ends at this moment.
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

/// Whether a token that was spent at this moment gets its successor once more. The time in which no process answered
/// does not count: who was waiting for an answer when the process ended asks again when it is back.
///
/// A request may carry a moment that is a little before the one that spent the token: it waited for that one, or came
/// to another gateway. A clock that is behind by more than the grace was set back, and then nobody can tell how long
/// ago the token was spent: the grace is over.
fn in_grace(spend: &Spend<'_>, spent_at: i64) -> bool {
    let around = |moment: i64| moment.saturating_sub(spend.grace)..=moment.saturating_add(spend.grace);
    let end = spent_at.saturating_add(spend.grace);
    let interrupted =
        end > spend.alive_before_boot && spent_at <= spend.boot && around(spend.boot).contains(&spend.now);
    spend.grace > 0 && (around(spent_at).contains(&spend.now) || interrupted)
}

/// When the token behind a spent one ends, if it is this one and itself not spent.
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

/// Stores a token of a session, and forgets the one that is beyond the bound.
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
