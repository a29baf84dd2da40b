//! Records how long access tokens live. A mark must outlive every token that it revokes. Gateways and commands
//! therefore issue no token with a longer life than the recorded life, and a gateway rejects a token once it is older
//! than that.

use super::marks::MARGIN;
use super::text::{NAME_MAX, fit};
use super::{Store, StoreError};
use sqlx::Row;
use sqlx::any::AnyRow;

/// The store's record of how long access tokens may live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenLives {
    /// The longest life of the tokens that gateways have issued, in milliseconds. It never decreases.
    pub longest: i64,
    /// The subjects of tokens that a command issued with a longer life. Each subject is paired with the time at which
    /// the last of these tokens expires.
    pub subjects: Vec<(String, i64)>,
}

/// The state of an account that `token mint` checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The account's current generation.
    pub generation: i64,
    /// Whether the account is disabled.
    pub disabled: bool,
    /// Whether the account was removed.
    pub removed: bool,
}

/// The statement that reads `TokenLives`: a row without a subject for the longest life, and a row for each subject
/// with longer-lived tokens.
pub(super) const LIVES: &str = "SELECT NULL AS subject, longest AS until FROM token_life
     UNION ALL SELECT subject, until FROM long_tokens";

/// Parses the result of [`LIVES`].
pub(super) fn lives(rows: &[AnyRow]) -> Result<TokenLives, StoreError> {
    let mut lives = TokenLives::default();
    for row in rows {
        let until = row.try_get("until")?;
        match row.try_get::<Option<String>, _>("subject")? {
            None => lives.longest = until,
            Some(subject) => lives.subjects.push((subject, until)),
        }
    }
    Ok(lives)
}

impl Store {
    /// Returns how long access tokens may live.
    ///
    /// # Errors
    /// Returns an error if the store cannot be used.
    pub async fn lives(&self) -> Result<TokenLives, StoreError> {
        lives(&self.rows(self.query(LIVES)).await?)
    }

    /// Records that access tokens live for `life` milliseconds. Call this before the first token with that life is
    /// issued. Existing marks are also kept for at least that time, because an older version of the gateway may have
    /// issued such tokens without a record.
    ///
    /// # Errors
    /// Returns an error if the store cannot be used. The caller must then not issue a token with this life.
    pub async fn record_life(&self, life: i64) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        self.lock_marks(&mut transaction).await?;
        let recorded = transaction.query(
            "INSERT INTO token_life (one, longest) VALUES (1, $1)
             ON CONFLICT (one) DO UPDATE SET longest = excluded.longest WHERE token_life.longest < excluded.longest",
        )
        .bind(life)
        .execute(&mut *transaction)
        .await?;
        if recorded.rows_affected() == 0 {
            // All marks were written, or extended, under a life that is at least as long.
            transaction.undo().await;
            return Ok(());
        }
        transaction
            .query("UPDATE marks SET kept = made + $1 WHERE kept < made + $1 AND kind <> 'token'")
            .bind(life.saturating_add(MARGIN))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }

    /// Records when a token that lives longer than [`TokenLives::longest`] expires. Call this before the token is
    /// issued.
    ///
    /// # Errors
    /// Returns an error if the store cannot be used, or the subject is too long to store. The caller must then not
    /// issue the token.
    pub async fn record_token(&self, subject: &str, expires: i64) -> Result<(), StoreError> {
        fit("subject", subject, NAME_MAX)?;
        let mut transaction = self.begin().await?;
        self.lock_marks(&mut transaction).await?;
        transaction.query(
            "INSERT INTO long_tokens (subject, until) VALUES ($1, $2)
             ON CONFLICT (subject) DO UPDATE SET until = excluded.until WHERE long_tokens.until < excluded.until",
        )
        .bind(subject)
        .bind(expires)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    }

    /// Returns the state of the account with this id, even if it was removed.
    ///
    /// # Errors
    /// Returns an error if the store cannot be used.
    pub async fn standing(&self, id: &str) -> Result<Option<Standing>, StoreError> {
        fit("account id", id, NAME_MAX)?;
        let statement = self.query("SELECT generation, disabled, removed FROM accounts WHERE id = $1");
        self.row(statement.bind(id))
            .await?
            .map(|row| {
                Ok(Standing {
                    generation: row.try_get("generation")?,
                    disabled: row.try_get::<i64, _>("disabled")? != 0,
                    removed: row.try_get::<Option<i64>, _>("removed")?.is_some(),
                })
            })
            .transpose()
    }
}
