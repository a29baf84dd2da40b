//! What outlives the process: accounts, sessions, refresh tokens, revocations.
//!
//! One schema and one set of statements for SQLite and PostgreSQL. Promises that what belongs together happens in one
//! transaction, and that what was answered was stored. Never asked between `accept` and `forward`.

mod accounts;
mod marks;
mod schema;
mod sessions;

pub use crate::authenticate::Mark;
pub use accounts::{Account, AccountChange, Added, NewAccount};
pub use marks::Marked;
pub use sessions::{Begun, Renewed, Rotation, Session, Spend};

use sqlx::any::{AnyConnectOptions, AnyPoolOptions, AnyRow};
use sqlx::{Any, AnyPool, ConnectOptions, Row, Transaction};
use std::fmt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

/// For how long a statement waits for a connection, or a lock.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections to a server.
const CONNECTIONS: u32 = 8;

/// Accounts and sessions. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: AnyPool,
    dialect: Dialect,
}

/// Which database it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// How a transaction begins that will write. SQLite must take the right to write at once: one that has read first may
    /// be refused it, when another process wrote meanwhile.
    const fn begin(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN",
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("dialect", &self.dialect).finish_non_exhaustive()
    }
}

/// Why the store cannot be used.
#[derive(Debug)]
pub enum StoreError {
    /// It does not answer, or not in time.
    Unavailable(String),
    /// It holds what it should not.
    Broken(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(why) | Self::Broken(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
                Self::Broken(error.to_string())
            }
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

impl Store {
    /// Opens a store and brings its schema up to date: `sqlite:PATH`, relative to `base`, made where it is not there;
    /// or `postgres://`.
    ///
    /// # Errors
    /// What stands in the way. No password of the URL is told.
    pub async fn open(url: &str, base: &Path) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let (url, dialect) = match url.strip_prefix("sqlite:") {
            Some(path) => {
                let path = base.join(path);
                make_file(&path)?;
                (format!("sqlite:{}", path.display()), Dialect::Sqlite)
            }
            None => (url.to_owned(), Dialect::Postgres),
        };
        let options = AnyConnectOptions::from_str(&url)
            .map_err(|_| StoreError::Unavailable("the URL cannot be read".to_owned()))?
            .disable_statement_logging();
        let pool = AnyPoolOptions::new()
            // SQLite has one writer; what reads here is done in microseconds.
            .max_connections(if dialect == Dialect::Sqlite { 1 } else { CONNECTIONS })
            .acquire_timeout(PATIENCE)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    for statement in schema::settings(dialect) {
                        sqlx::query(*statement).execute(&mut *connection).await?;
                    }
                    Ok(())
                })
            })
            .connect_with(options)
            .await?;
        let store = Self { pool, dialect };
        store.migrate().await?;
        Ok(store)
    }

    /// A transaction that will write.
    async fn begin(&self) -> Result<Transaction<'static, Any>, StoreError> {
        Ok(self.pool.begin_with(self.dialect.begin()).await?)
    }

    /// The last moment at which a process that used this store is known to have lived, milliseconds since 1970.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn alive_at(&self) -> Result<i64, StoreError> {
        let row = sqlx::query("SELECT alive FROM life").fetch_optional(&self.pool).await?;
        row.map_or(Ok(0), |row| Ok(row.try_get(0)?))
    }

    /// Notes that the process lives.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn touch_alive(&self, now: i64) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO life (one, alive) VALUES (1, $1) ON CONFLICT (one) DO UPDATE SET alive = excluded.alive")
            .bind(now)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

/// A file for SQLite that nobody else may read, in a folder that nobody else may.
fn make_file(path: &Path) -> Result<(), StoreError> {
    let fault = |error: std::io::Error| StoreError::Unavailable(format!("{}: {error}", path.display()));
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(fault)?;
    }
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(fault)?;
    let mode = file.metadata().map_err(fault)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let why =
            format!("{}: others than its owner may read it (mode {mode:o}): chmod 600 it", path.display());
        return Err(StoreError::Unavailable(why));
    }
    Ok(())
}

/// A list of names as it is kept.
fn list_text(list: &[String]) -> String {
    serde_json::Value::from(list).to_string()
}

fn list_of(row: &AnyRow, column: &str) -> Result<Vec<String>, StoreError> {
    let text: String = row.try_get(column)?;
    serde_json::from_str(&text).map_err(|error| StoreError::Broken(format!("{column}: {error}")))
}

/// 32 bytes as they are kept: text that both databases compare alike.
fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes_of(text: &str) -> Result<[u8; 32], StoreError> {
    let broken = || StoreError::Broken("a hash that is none".to_owned());
    let mut out = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return Err(broken());
    }
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| broken())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| broken())?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_kept_as_they_are() {
        let bytes = std::array::from_fn(|n| u8::try_from(n * 7 % 256).unwrap());
        assert_eq!(bytes_of(&hex(&bytes)).unwrap(), bytes);
        assert!(bytes_of("zz").is_err());
    }
}
