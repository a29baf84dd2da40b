//! Connects to a database by its file or URL, and sends the first statements on each connection.

use super::error::{Reason, is_busy};
use super::place::{leaves_host_unguarded, options, place, take_pool_mode};
use super::{Store, StoreError};
use crate::hex;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyConnection, AnyPool, Connection, Row};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// For how long anything waits for a connection, or for another process.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Connections to a server. One thread uses them, so they are many enough for statements that wait for a lock.
const CONNECTIONS: u32 = 8;
/// Connections that read from a file. A read takes microseconds; the second is for one that lists.
const READERS: u32 = 2;

/// Which database it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
    /// Behind a pooler that assigns connections per transaction: neither a setting nor a prepared statement outlives a
    /// transaction.
    PooledPostgres,
}

impl Dialect {
    /// How a transaction begins that will write.
    pub(super) const fn begin(self) -> &'static str {
        match self {
            // The right to write at once: a transaction that has read first may be refused it when another process
            // wrote meanwhile, and no waiting helps that one.
            Self::Sqlite => "BEGIN IMMEDIATE",
            // A transaction that waited for a locked row must then read the committed row, whatever the server's
            // default.
            Self::Postgres => "BEGIN ISOLATION LEVEL READ COMMITTED",
            // The settings of `Self::settings`, for this transaction, in one message.
            Self::PooledPostgres => {
                "BEGIN ISOLATION LEVEL READ COMMITTED;
                 SET LOCAL statement_timeout = 5000;
                 SET LOCAL lock_timeout = 5000;
                 SET LOCAL idle_in_transaction_session_timeout = 4000;
                 SELECT set_config('synchronous_commit', 'on', true)
                 WHERE current_setting('synchronous_commit') IN ('off', 'local')"
            }
        }
    }

    /// Whether it is a PostgreSQL server.
    pub(super) const fn is_server(self) -> bool {
        !matches!(self, Self::Sqlite)
    }

    /// Whether a connection keeps a statement that it has prepared.
    pub(super) const fn keeps_statements(self) -> bool {
        !matches!(self, Self::PooledPostgres)
    }

    /// The settings of each connection.
    const fn settings(self) -> &'static [&'static str] {
        match self {
            Self::Sqlite => &[
                "PRAGMA busy_timeout = 5000",
                // A commit is on the disk before it is answered: a spent token must not come back after a loss of
                // power.
                "PRAGMA synchronous = FULL",
                "PRAGMA foreign_keys = ON",
            ],
            Self::Postgres => &[
                "SET statement_timeout = 5000",
                "SET lock_timeout = 5000",
                // A gateway that stands still gives back the locks it holds.
                "SET idle_in_transaction_session_timeout = 4000",
                // As above; a stricter choice of the operator's (remote_apply) stays.
                "SELECT set_config('synchronous_commit', 'on', false)
                 WHERE current_setting('synchronous_commit') IN ('off', 'local')",
            ],
            // Another client would have them.
            Self::PooledPostgres => &[],
        }
    }
}

impl Store {
    /// Opens a store and brings its schema up to date: `sqlite:PATH`, relative to `base`, made where it is not there;
    /// or `postgres://`.
    ///
    /// A server on another host is spoken to over TLS, and must prove that it is that host, unless the URL's `sslmode`
    /// (or `PGSSLMODE`) says otherwise.
    ///
    /// `pool_mode=transaction` in a server's URL announces a pooler that assigns connections per transaction.
    ///
    /// # Errors
    /// The cause, with the path of the file, or the host, port and database of the server. Nothing else of the URL is
    /// shown.
    pub async fn open(url: &str, base: &Path) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let store = match url.strip_prefix("sqlite:") {
            Some(path) => Self::open_file(&base.join(path)).await?,
            None => Self::open_server(url).await?,
        };
        store.migrate().await.map_err(|error| error.at(&store.place))?;
        Ok(store)
    }

    async fn open_file(path: &Path) -> Result<Self, StoreError> {
        let path = make_file(path)?;
        let place = format!("sqlite:{}", path.display());
        let dialect = Dialect::Sqlite;
        let writer = Plan { options: options(&file_url(&path))?, dialect, more: &[] };
        let reader = Plan { more: &["PRAGMA query_only = ON"], ..writer.clone() };
        // A connection to a file does not break by itself, so idle ones are not tested, replaced or closed: one whose
        // transaction failed is closed where it failed.
        let pool = || {
            AnyPoolOptions::new()
                .acquire_timeout(PATIENCE)
                .test_before_acquire(false)
                .idle_timeout(None)
                .max_lifetime(None)
        };
        let connected = async {
            let writes = writer.pool(pool().max_connections(1)).await?;
            write_ahead(&writes).await?;
            let reads = reader.clone().pool(pool().max_connections(READERS)).await?;
            Ok((reads, writes))
        };
        let (reads, writes) = connected.await.map_err(|error: StoreError| error.at(&place))?;
        Ok(Self { reads, writes, plan: reader, dialect, place: place.into(), replaced: Arc::default() })
    }

    async fn open_server(url: &str) -> Result<Self, StoreError> {
        let mut options = options(url)?;
        let dialect = match take_pool_mode(&mut options)? {
            true => Dialect::PooledPostgres,
            false => Dialect::Postgres,
        };
        let place = place(&options);
        if leaves_host_unguarded(&options) {
            options.database_url.query_pairs_mut().append_pair("sslmode", "verify-full");
        }
        let plan = Plan { options, dialect, more: &[] };
        let pool = AnyPoolOptions::new().acquire_timeout(PATIENCE).max_connections(CONNECTIONS);
        let pool = plan.clone().pool(pool).await.map_err(|error| error.at(&place))?;
        let (reads, writes) = (pool.clone(), pool);
        let store =
            Self { reads, writes, plan, dialect, place: place.as_str().into(), replaced: Arc::default() };
        let encoding = store.row(store.query("SELECT current_setting('server_encoding')")).await;
        let encoding = encoding.map_err(|error| error.at(&place))?;
        let encoding: String = encoding.map(|row| row.try_get(0)).transpose()?.unwrap_or_default();
        if encoding != "UTF8" {
            return Err(StoreError::Broken(format!(
                "the database's encoding is {encoding}; names need one with ENCODING 'UTF8'"
            )));
        }
        Ok(store)
    }
}

/// How connections of one kind are made.
#[derive(Clone)]
pub(super) struct Plan {
    options: AnyConnectOptions,
    dialect: Dialect,
    /// Further statements for each connection, besides the dialect's settings.
    more: &'static [&'static str],
}

impl Plan {
    /// A connection of no pool.
    pub(super) async fn connect(&self) -> Result<AnyConnection, StoreError> {
        let connect = async {
            let mut connection = AnyConnection::connect_with(&self.options).await?;
            prepare(&mut connection, self.dialect, self.more).await?;
            Ok::<_, StoreError>(connection)
        };
        let late = |_| {
            StoreError::trouble(
                Reason::Unreachable,
                format!("the database does not answer within {PATIENCE:?}"),
            )
        };
        tokio::time::timeout(PATIENCE, connect).await.map_err(late)?
    }

    async fn pool(self, pool: AnyPoolOptions) -> Result<AnyPool, StoreError> {
        // Open a single connection first: a pool would retry repeatedly and finally report only a timeout.
        let first = self.connect().await?;
        if self.dialect == Dialect::Postgres {
            // Open a second one beside it: behind a pooler that assigns connections per transaction, it meets the
            // statements that the first one has prepared, and fails on their names.
            self.connect().await?.close().await?;
        }
        first.close().await?;
        let Self { options, dialect, more } = self;
        let pool = pool.after_connect(move |connection, _| Box::pin(prepare(connection, dialect, more)));
        Ok(pool.connect_with(options).await?)
    }
}

/// Tells a new connection how it is used.
async fn prepare(
    connection: &mut AnyConnection,
    dialect: Dialect,
    more: &'static [&'static str],
) -> Result<(), sqlx::Error> {
    for statement in dialect.settings().iter().chain(more) {
        sqlx::query(*statement).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Lets readers read while a writer writes. The file remembers it. Where several processes start with a new file at
/// once, SQLite refuses all but one of them without waiting, so that the waiting is done here.
async fn write_ahead(pool: &AnyPool) -> Result<(), StoreError> {
    let deadline = Instant::now() + PATIENCE;
    let row = loop {
        match sqlx::query("PRAGMA journal_mode = WAL").fetch_one(pool).await {
            Err(error) if is_busy(&error) && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            done => break done?,
        }
    };
    let mode: String = row.try_get(0)?;
    if mode != "wal" {
        return Err(StoreError::trouble(
            Reason::Io,
            format!("its file system has no shared memory (journal mode {mode}): put it on a local disk"),
        ));
    }
    Ok(())
}

/// A file that nobody else may read, in a folder that nobody else may. Its path without links or dots.
fn make_file(path: &Path) -> Result<PathBuf, StoreError> {
    let fault = |error: io::Error| StoreError::trouble(Reason::Io, format!("{}: {error}", path.display()));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(fault)?;
    // SQLite gives its other files the mode of this one.
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map_err(fault)?;
    let mode = file.metadata().map_err(fault)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(StoreError::trouble(
            Reason::Other,
            format!(
                "{}: accessible to users other than its owner (mode {mode:o}): chmod 600 it",
                path.display()
            ),
        ));
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(fault)?;
    fs::canonicalize(path).map_err(fault)
}

/// The URL of a file, whatever characters are in its path.
fn file_url(path: &Path) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte);
    format!("sqlite:{}", hex::percent_encoded(path.as_os_str().as_bytes(), is_plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_may_have_any_characters() {
        assert_eq!(file_url(Path::new("/a b/c?d#e%f")), "sqlite:/a%20b/c%3Fd%23e%25f");
        assert_eq!(file_url(Path::new("/state/portcullis.db")), "sqlite:/state/portcullis.db");
    }
}
