//! Stores the authority's signing keys for the gateways that share them. The private halves are encrypted before they
//! get here, and this module cannot read them.
//!
//! All changes of a [`KeyChange`] are in one transaction, which holds the lock of the keys. If a gateway dies or hangs
//! in the middle, the database rolls its transaction back and releases the lock.

use super::lease::Lease;
use super::sweep::CLOCK;
use super::text::{NAME_MAX, fit};
use super::{Store, StoreError};
use sqlx::Row;
use sqlx::any::AnyRow;

/// Maximum length of an encrypted key, in bytes of text. An RSA key of 2048 bits has about 1700.
const SEALED_MAX: usize = 16 * 1024;

/// Tries to take the advisory lock that allows only one process to change the keys.
const LOCK: &str = "SELECT pg_try_advisory_xact_lock(8098271345)";

/// The keys of an algorithm, in the order in which they sign.
const KEYS: &str = "SELECT kid, signs_from, created, secret, sealed FROM signing_keys WHERE algorithm = $1
     ORDER BY signs_from LIMIT $2";

/// A stored signing key. The times are in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKey {
    /// The key's `kid`.
    pub id: String,
    /// When the key starts to sign.
    pub signs_from: u64,
    /// When the key was created.
    pub created: u64,
    /// The encrypted key; `None` after a revocation.
    pub sealed: Option<SealedKey>,
}

/// An encrypted private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedKey {
    /// The name of the secret with which the key is encrypted.
    pub secret: String,
    /// The nonce and the ciphertext, as text.
    pub text: String,
}

/// A change of the signing keys, which excludes every other change until it ends. A change that is dropped is rolled
/// back.
pub struct KeyChange(Lease);

impl std::fmt::Debug for KeyChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyChange").finish_non_exhaustive()
    }
}

impl Store {
    /// Returns at most `max` keys of an algorithm, in the order in which they sign.
    ///
    /// # Errors
    /// Returns an error if the store cannot be used.
    pub async fn signing_keys(&self, algorithm: &str, max: u32) -> Result<Vec<StoredKey>, StoreError> {
        let rows = self.rows(self.query(KEYS).bind(algorithm).bind(i64::from(max))).await?;
        rows.iter().map(key_of).collect()
    }

    /// Begins a change of the signing keys. Returns `None` if another process changes them.
    ///
    /// # Errors
    /// Returns an error if the store cannot be used.
    pub async fn change_signing_keys(&self) -> Result<Option<KeyChange>, StoreError> {
        let mut transaction = self.begin().await?;
        if self.dialect.is_server() {
            let row = transaction.query(LOCK).fetch_one(&mut *transaction).await?;
            if !row.try_get::<bool, _>(0)? {
                transaction.undo().await;
                return Ok(None);
            }
        }
        Ok(Some(KeyChange(transaction)))
    }
}

impl KeyChange {
    /// Returns the keys, like [`Store::signing_keys`], with the changes made so far.
    ///
    /// # Errors
    /// Returns an error if the store cannot be used.
    pub async fn keys(&mut self, algorithm: &str, max: u32) -> Result<Vec<StoredKey>, StoreError> {
        let query = self.0.query(KEYS).bind(algorithm).bind(i64::from(max));
        query.fetch_all(&mut *self.0).await?.iter().map(key_of).collect()
    }

    /// Adds a key.
    ///
    /// # Errors
    /// Returns an error if the store cannot be used, or has a key with this id or this start.
    pub async fn add(&mut self, algorithm: &str, key: &StoredKey) -> Result<(), StoreError> {
        let (secret, sealed) = key.sealed.as_ref().map(|sealed| (&*sealed.secret, &*sealed.text)).unzip();
        fit("kid", &key.id, NAME_MAX)?;
        fit("a signing key", sealed.unwrap_or_default(), SEALED_MAX)?;
        self.0
            .query(
                "INSERT INTO signing_keys (algorithm, signs_from, kid, created, secret, sealed)
                 VALUES ($1, $2, $3, $4, $5, $6)",
            )
            .bind(algorithm)
            .bind(millis(key.signs_from))
            .bind(&key.id)
            .bind(millis(key.created))
            .bind(secret)
            .bind(sealed)
            .execute(&mut *self.0)
            .await?;
        Ok(())
    }

    /// Replaces the encrypted form of a key.
    ///
    /// # Errors
    /// Returns an error if the store cannot be used.
    pub async fn reseal(&mut self, id: &str, sealed: &SealedKey) -> Result<(), StoreError> {
        fit("a signing key", &sealed.text, SEALED_MAX)?;
        self.0
            .query("UPDATE signing_keys SET secret = $1, sealed = $2 WHERE kid = $3 AND sealed IS NOT NULL")
            .bind(&sealed.secret)
            .bind(&sealed.text)
            .bind(id)
            .execute(&mut *self.0)
            .await?;
        Ok(())
    }

    /// Revokes a key: deletes its private half, and keeps its id and its place in the order.
    ///
    /// # Errors
    /// Returns an error if the store cannot be used.
    pub async fn revoke(&mut self, id: &str) -> Result<(), StoreError> {
        self.0
            .query("UPDATE signing_keys SET secret = NULL, sealed = NULL WHERE kid = $1")
            .bind(id)
            .execute(&mut *self.0)
            .await?;
        Ok(())
    }

    /// Deletes a key.
    ///
    /// # Errors
    /// Returns an error if the store cannot be used.
    pub async fn remove(&mut self, id: &str) -> Result<(), StoreError> {
        self.0.query("DELETE FROM signing_keys WHERE kid = $1").bind(id).execute(&mut *self.0).await?;
        Ok(())
    }

    /// Returns the time at which dead keys may be deleted, in seconds since 1970, as [`Store::sweep_time`] does for rows.
    ///
    /// # Errors
    /// Returns an error if the store cannot be used.
    pub async fn sweep_time(&mut self, now: u64) -> Result<u64, StoreError> {
        if !self.0.dialect().is_server() {
            return Ok(now);
        }
        let row = self.0.query(CLOCK).fetch_one(&mut *self.0).await?;
        let server = row.try_get::<i64, _>(0)? / 1000;
        Ok(u64::try_from(server).unwrap_or(0).min(now))
    }

    /// Rolls the changes back, and releases the lock.
    pub async fn undo(self) {
        self.0.undo().await;
    }

    /// Puts the changes into force.
    ///
    /// # Errors
    /// Returns an error if the store cannot be used. The changes are then not in force, unless only the database's
    /// answer was lost.
    pub async fn commit(self) -> Result<(), StoreError> {
        self.0.commit().await
    }
}

fn key_of(row: &AnyRow) -> Result<StoredKey, StoreError> {
    let seconds = |name| row.try_get::<i64, _>(name).map(|millis| u64::try_from(millis / 1000).unwrap_or(0));
    let sealed = match (row.try_get("secret")?, row.try_get("sealed")?) {
        (Some(secret), Some(text)) => Some(SealedKey { secret, text }),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            return Err(StoreError::Broken("a signing key that is half revoked".to_owned()));
        }
    };
    Ok(StoredKey {
        id: row.try_get("kid")?,
        signs_from: seconds("signs_from")?,
        created: seconds("created")?,
        sealed,
    })
}

/// Converts a time in seconds to the store's unit.
fn millis(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000)
}
