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

/// How long an operation waits for a connection, or for another process.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Connections to a server. A single thread uses them, so this leaves enough for statements that wait for a lock.
const CONNECTIONS: u32 = 8;
/// Connections that read from a file. A read takes microseconds. The second connection is for listings.
const READERS: u32 = 2;

/// The kind of database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
    /// PostgreSQL behind a pooler that assigns connections per transaction. Neither a setting nor a prepared statement
    /// outlives a transaction.
    PooledPostgres,
}

impl Dialect {
    /// Returns the statement that begins a transaction that will write.
    pub(super) const fn begin(self) -> &'static str {
        match self {
            // Takes the write lock at once. A transaction that reads first cannot get it once another process has
            // written, and waiting does not help.
            Self::Sqlite => "BEGIN IMMEDIATE",
            // A statement that waited for a locked row must then read the committed value, whatever the server's
            // default isolation level.
            Self::Postgres => "BEGIN ISOLATION LEVEL READ COMMITTED",
            // The settings of `Self::settings`, for this transaction only, in one message.
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

    /// Whether a connection keeps its prepared statements.
    pub(super) const fn keeps_statements(self) -> bool {
        !matches!(self, Self::PooledPostgres)
    }

    /// Returns the statements that configure each connection.
    const fn settings(self) -> &'static [&'static str] {
        match self {
            Self::Sqlite => &[
                "PRAGMA busy_timeout = 5000",
                // A commit reaches the disk before it is answered: a spent token must stay spent after a power failure.
                "PRAGMA synchronous = FULL",
                "PRAGMA foreign_keys = ON",
            ],
            Self::Postgres => &[
                "SET statement_timeout = 5000",
                "SET lock_timeout = 5000",
                // The server releases the locks of a gateway that hangs.
                "SET idle_in_transaction_session_timeout = 4000",
                // As with SQLite, a commit reaches the disk. A stricter setting by the operator (remote_apply) is kept.
                "SELECT set_config('synchronous_commit', 'on', false)
                 WHERE current_setting('synchronous_commit') IN ('off', 'local')",
            ],
            // The settings would apply to another client.
            Self::PooledPostgres => &[],
        }
    }
}

impl Store {
    /// Opens a store and brings its schema up to date. `url` is either `sqlite:PATH` or a `postgres://` URL. The path
    /// is relative to `base`, and the file is created if it does not exist.
    ///
    /// A connection to a server on another host uses TLS and verifies the host's identity, unless the URL's `sslmode`
    /// (or `PGSSLMODE`) sets another mode.
    ///
    /// `pool_mode=transaction` in a server's URL declares a pooler that assigns connections per transaction.
    ///
    /// # Errors
    /// When the store cannot be opened. The error names the cause and the path of the file, or the host, port and
    /// database of the server. It shows no other part of the URL.
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
        let writer = ConnectSettings { options: options(&file_url(&path))?, dialect, more: &[] };
        let reader = ConnectSettings { more: &["PRAGMA query_only = ON"], ..writer.clone() };
        // A connection to a file does not break by itself, so idle ones are not tested, replaced or closed. A
        // connection whose transaction failed is closed by its `Lease`.
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
        let plan = ConnectSettings { options, dialect, more: &[] };
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

/// How to open connections of one kind.
#[derive(Clone)]
pub(super) struct ConnectSettings {
    options: AnyConnectOptions,
    dialect: Dialect,
    /// Further statements for each connection, besides the dialect's settings.
    more: &'static [&'static str],
}

impl ConnectSettings {
    /// Opens a connection outside the pools.
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
            // Open a second one beside it. Behind a pooler that assigns connections per transaction, its prepared
            // statements clash with the names of those that the first one prepared, and the start fails here.
            self.connect().await?.close().await?;
        }
        first.close().await?;
        let Self { options, dialect, more } = self;
        let pool = pool.after_connect(move |connection, _| Box::pin(prepare(connection, dialect, more)));
        Ok(pool.connect_with(options).await?)
    }
}

/// Runs the statements that configure a new connection.
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

/// Switches the file to WAL mode, so that readers can read while a writer writes. The mode is stored in the file. If
/// several processes start on a new file at once, SQLite rejects all but one of them without waiting, so this function
/// retries.
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

/// Creates the file, and its folder, if missing, accessible only to their owner. Rejects a file that other users can
/// access. Returns its canonical path.
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

/// Returns the URL of a file, with its path percent-encoded.
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
