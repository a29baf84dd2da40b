//! Opens connections to a database and configures each of them.

use super::StoreError;
use super::error::Reason;
use super::place::place;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyConnection, AnyPool, Connection, Row};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The time that an operation waits for a connection, or for a lock of another process.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// The time that a file may take to be opened. A busy disk needs seconds to flush a new one, and a lock of another process is
/// reported after [`PATIENCE`].
const FILE_PATIENCE: Duration = Duration::from_secs(30);
/// The time that one of several servers may take to answer, at least.
const SERVER_PATIENCE: Duration = Duration::from_secs(1);
/// Maximum number of connections to a server. Only one thread uses these connections, so eight are enough even if
/// several statements wait for locks.
const CONNECTIONS: u32 = 8;
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
    /// Creates the settings for these servers, or for one file.
    pub(super) fn new(servers: Vec<AnyConnectOptions>, dialect: Dialect, must_write: bool) -> Self {
        Self { servers: servers.into(), current: Arc::default(), must_write, dialect, more: &[] }
    }

    /// Makes the connections to a file read-only.
    pub(super) fn read_only(self) -> Self {
        Self { more: &["PRAGMA query_only = ON"], ..self }
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
    pub(super) async fn try_out(&self) -> Result<(), StoreError> {
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

    /// Returns a pool with these options of connections to the server at this position, or to the file.
    pub(super) fn pool(&self, server: usize, pool: AnyPoolOptions) -> AnyPool {
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
