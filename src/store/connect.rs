//! Opens connections to a database, by its file or its URL, and configures each of them.

use super::error::{Reason, is_busy};
use super::place::{
    leaves_host_unguarded, options, place, refuse_unknown, refuse_unread_authority, servers, take_pool_mode,
    take_target,
};
use super::pools::Pools;
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
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long an operation waits for a connection, or for a lock of another process.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How long a file may take to be opened. A busy disk needs seconds to flush a new one, and a lock of another process is
/// reported after [`PATIENCE`].
const FILE_PATIENCE: Duration = Duration::from_secs(30);
/// How long one of several servers may take to answer, at least.
const SERVER_PATIENCE: Duration = Duration::from_secs(1);
/// Maximum number of connections to a server. Only one thread uses these connections, so eight are enough even if
/// several statements wait for locks.
const CONNECTIONS: u32 = 8;
/// Number of connections that read from a file. A single read takes microseconds; while a long listing uses one
/// connection, the other connection serves the short reads.
const READERS: u32 = 2;

/// The kind of database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
    /// PostgreSQL behind a pooler that assigns connections per transaction. Settings and prepared statements are lost
    /// at the end of each transaction.
    PooledPostgres,
}

impl Dialect {
    /// Returns the statement that begins a transaction that will write.
    pub(super) const fn begin(self) -> &'static str {
        match self {
            // `IMMEDIATE` takes the write lock at the start. A transaction that reads first can no longer get the lock
            // after another process has written, however long it waits.
            Self::Sqlite => "BEGIN IMMEDIATE",
            // A statement that has waited for a locked row must read the newly committed value. Another isolation
            // level, which may be the server's default, would not guarantee this.
            Self::Postgres => "BEGIN ISOLATION LEVEL READ COMMITTED",
            // One message contains all settings of `Self::settings`, for this transaction only.
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

    /// Whether the database is a PostgreSQL server.
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
                // A commit must reach the disk before SQLite reports success, because a spent token must stay spent
                // after a power failure.
                "PRAGMA synchronous = FULL",
                "PRAGMA foreign_keys = ON",
            ],
            Self::Postgres => &[
                "SET statement_timeout = 5000",
                "SET lock_timeout = 5000",
                // If a gateway hangs in a transaction, the server releases its locks.
                "SET idle_in_transaction_session_timeout = 4000",
                // A commit must reach the disk before the server reports success. A stricter setting of the operator
                // (remote_apply) is kept.
                "SELECT set_config('synchronous_commit', 'on', false)
                 WHERE current_setting('synchronous_commit') IN ('off', 'local')",
            ],
            // On a pooled connection, the settings would apply to another client.
            Self::PooledPostgres => &[],
        }
    }
}

impl Store {
    /// Opens a store and updates its schema. `url` is either `sqlite:PATH` or a `postgres://` URL. The path is relative
    /// to `base`, and the file is created if it does not exist.
    ///
    /// A connection to a server on another host uses TLS and verifies the host's identity, unless `sslmode` in the URL
    /// (or the variable `PGSSLMODE`) sets another mode.
    ///
    /// `pool_mode=transaction` in a server's URL states that the server is behind a pooler that assigns connections per
    /// transaction.
    ///
    /// # Errors
    /// Returns an error if the store cannot be opened. The error states the cause, and the path of the file or the
    /// host, port and database of the server. The error contains no other part of the URL.
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
        let writer = ConnectSettings::new(vec![options(&file_url(&path))?], dialect, false);
        let reader = ConnectSettings { more: &["PRAGMA query_only = ON"], ..writer.clone() };
        // A connection to a file cannot be lost like a network connection, so idle connections are not tested, replaced
        // or closed. If a transaction fails, `Lease` closes the connection.
        let pool = || {
            AnyPoolOptions::new()
                .acquire_timeout(PATIENCE)
                .test_before_acquire(false)
                .idle_timeout(None)
                .max_lifetime(None)
        };
        let connected = async {
            // Open a single connection first, because its error states the cause. A pool would retry and report only a
            // timeout.
            writer.connect().await?.close().await?;
            let writes = writer.pool(0, pool().max_connections(1));
            write_ahead(&writes).await?;
            Ok(Pools::of_file(reader.pool(0, pool().max_connections(READERS)), writes, reader.clone()))
        };
        let pools = connected.await.map_err(|error: StoreError| error.at(&place))?;
        Ok(Self {
            pools: Arc::new(pools),
            plan: reader,
            dialect,
            place: place.into(),
            group: Arc::default(),
            replaced: Arc::default(),
        })
    }

    async fn open_server(url: &str) -> Result<Self, StoreError> {
        let (mut all, dialect, must_write) = read_url(url)?;
        let place = place(&all);
        for options in all.iter_mut().filter(|options| leaves_host_unguarded(options)) {
            options.database_url.query_pairs_mut().append_pair("sslmode", "verify-full");
        }
        let plan = ConnectSettings::new(all, dialect, must_write);
        plan.try_out().await.map_err(|error| error.at(&place))?;
        let pools = Arc::new(Pools::of_servers(plan.clone()));
        let store = Self {
            pools,
            plan,
            dialect,
            place: place.as_str().into(),
            group: Arc::default(),
            replaced: Arc::default(),
        };
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

/// Checks a `postgres://` URL without a connection.
///
/// # Errors
/// Returns an error if the URL cannot be parsed, or has an option that would have no effect. The error contains no part of
/// the URL but its host.
pub fn check_url(url: &str) -> Result<(), StoreError> {
    read_url(url).map(drop)
}

/// Parses a `postgres://` URL. Returns the servers, their dialect, and whether the server must accept writes.
fn read_url(url: &str) -> Result<(Vec<AnyConnectOptions>, Dialect, bool), StoreError> {
    let mut all = servers(url)?.iter().map(|url| options(url)).collect::<Result<Vec<_>, _>>()?;
    let mut dialect = Dialect::Postgres;
    // One of several servers is the primary server.
    let mut must_write = all.len() > 1;
    for options in &mut all {
        if take_pool_mode(options)? {
            dialect = Dialect::PooledPostgres;
        }
        must_write |= take_target(options)?;
        refuse_unknown(options)?;
        refuse_unread_authority(options)?;
    }
    Ok((all, dialect, must_write))
}

/// The settings with which connections of one kind are opened.
#[derive(Clone)]
pub(super) struct ConnectSettings {
    /// The servers, of which one is the primary server; one element for a file.
    servers: Arc<[AnyConnectOptions]>,
    /// The server that was the primary server at the last connection.
    current: Arc<AtomicUsize>,
    /// Whether the server must accept writes. The primary server does, and a standby does not.
    must_write: bool,
    dialect: Dialect,
    /// Statements that configure each connection, in addition to the dialect's settings.
    more: &'static [&'static str],
}

impl ConnectSettings {
    fn new(servers: Vec<AnyConnectOptions>, dialect: Dialect, must_write: bool) -> Self {
        Self { servers: servers.into(), current: Arc::default(), must_write, dialect, more: &[] }
    }

    /// Whether another server may become the primary server.
    pub(super) fn has_several_servers(&self) -> bool {
        self.servers.len() > 1
    }

    /// Returns the position of the server that was the primary server at the last connection.
    pub(super) fn current(&self) -> usize {
        self.current.load(Ordering::Acquire)
    }

    /// Opens a connection outside the pools. Tries all servers, the current one first.
    pub(super) async fn connect(&self) -> Result<AnyConnection, StoreError> {
        let (count, first) = (self.servers.len(), self.current());
        let patience = match self.dialect {
            Dialect::Sqlite => FILE_PATIENCE,
            Dialect::Postgres | Dialect::PooledPostgres => {
                (PATIENCE / u32::try_from(count).unwrap_or(1)).max(SERVER_PATIENCE)
            }
        };
        let mut fault: Option<StoreError> = None;
        for step in 0..count {
            let server = (first + step) % count;
            let connected = tokio::time::timeout(patience, self.connect_to(server)).await;
            let late = |_| match self.dialect {
                Dialect::Sqlite => StoreError::trouble(
                    Reason::Timeout,
                    format!(
                        "the file cannot be opened within {patience:?}: the disk is slow or does not answer"
                    ),
                ),
                Dialect::Postgres | Dialect::PooledPostgres => StoreError::trouble(
                    Reason::Unreachable,
                    format!("the database does not answer within {patience:?}"),
                ),
            };
            match connected.map_err(late).flatten() {
                Ok(connection) => {
                    self.current.store(server, Ordering::Release);
                    return Ok(connection);
                }
                Err(error) if count == 1 => return Err(error),
                Err(error) => {
                    let error = error.at(&place(&self.servers[server..=server]));
                    fault = Some(match fault {
                        None => error,
                        Some(first) => first.and(&error),
                    });
                }
            }
        }
        Err(fault.unwrap_or_else(|| StoreError::trouble(Reason::Other, "the URL names no server".to_owned())))
    }

    async fn connect_to(&self, server: usize) -> Result<AnyConnection, StoreError> {
        let mut connection = AnyConnection::connect_with(&self.servers[server]).await?;
        prepare(&mut connection, self.dialect, self.more).await?;
        if self.must_write && !accepts_writes(&mut connection).await? {
            let why = "the server is a standby, or accepts no writes".to_owned();
            return Err(StoreError::trouble(Reason::ReadOnly, why));
        }
        Ok(connection)
    }

    /// Opens connections to a server and closes them. Their errors state the cause; a pool would retry and report only a
    /// timeout.
    async fn try_out(&self) -> Result<(), StoreError> {
        let first = self.connect().await?;
        if self.dialect == Dialect::Postgres {
            // Open a second connection while the first is open. A pooler may assign connections per transaction. Both
            // connections then prepare statements with the same names on one server connection, and the start fails
            // here with a clear error.
            self.connect().await?.close().await?;
        }
        Ok(first.close().await?)
    }

    /// Returns a pool of connections to the server at this position. The pool opens its connections when they are needed.
    pub(super) fn server_pool(&self, server: usize) -> AnyPool {
        self.pool(server, AnyPoolOptions::new().acquire_timeout(PATIENCE).max_connections(CONNECTIONS))
    }

    fn pool(&self, server: usize, pool: AnyPoolOptions) -> AnyPool {
        let Self { dialect, more, must_write, .. } = *self;
        let pool = pool.after_connect(move |connection, _| {
            Box::pin(async move {
                prepare(connection, dialect, more).await?;
                // A server that was the primary server may come back as a standby.
                if must_write && !accepts_writes(connection).await? {
                    return Err(sqlx::Error::Protocol("the server is a standby".to_owned()));
                }
                Ok(())
            })
        });
        pool.connect_lazy_with(self.servers[server].clone())
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

/// Whether the server accepts writes: it is no standby, and not read-only by its configuration.
async fn accepts_writes(connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
    let statement = "SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on'";
    let row = sqlx::query(statement).persistent(false).fetch_one(connection).await?;
    Ok(!row.try_get::<bool, _>(0)?)
}

/// Switches the file to WAL mode, so that readers can read while a writer writes. The mode is stored in the file. If
/// several processes open a new file at the same time, SQLite immediately rejects all except one of them, so this
/// function retries.
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

/// Creates the file and its folder if they do not exist, accessible only to their owner. Rejects a file that other
/// users can access. Returns the file's canonical path.
fn make_file(path: &Path) -> Result<PathBuf, StoreError> {
    let fault = |error: io::Error| StoreError::trouble(Reason::Io, format!("{}: {error}", path.display()));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(fault)?;
    // SQLite creates its other files with the mode of this file.
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
