//! The way to a database: its file or URL, its connections, and what each of them is told first.

use super::error::is_busy;
use super::{Store, StoreError};
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyConnection, AnyPool, ConnectOptions, Connection, Row};
use std::fmt::Write;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

/// For how long anything waits for a connection, or for another process.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections to a server. One thread uses them, so they are many enough for statements that wait for a lock.
const CONNECTIONS: u32 = 8;
/// Connections that read from a file. A read takes microseconds; the second is for one that lists.
const READERS: u32 = 2;

/// Which database it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// How a transaction begins that will write.
    pub(super) const fn begin(self) -> &'static str {
        match self {
            // The right to write at once: a transaction that has read first may be refused it when another process wrote
            // meanwhile, and no waiting helps that one.
            Self::Sqlite => "BEGIN IMMEDIATE",
            // Whoever waited for a locked row must then read what was committed, whatever the server's default is.
            Self::Postgres => "BEGIN ISOLATION LEVEL READ COMMITTED",
        }
    }

    /// What each connection is told.
    const fn settings(self) -> &'static [&'static str] {
        match self {
            Self::Sqlite => &[
                "PRAGMA busy_timeout = 5000",
                // A commit is on the disk before it is answered: a spent token must not come back after a loss of power.
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
        }
    }
}

impl Store {
    /// Opens a store and brings its schema up to date: `sqlite:PATH`, relative to `base`, made where it is not there; or
    /// `postgres://`.
    ///
    /// A server on another host is spoken to over TLS, and must prove that it is that host, unless the URL's `sslmode` (or
    /// `PGSSLMODE`) says otherwise.
    ///
    /// # Errors
    /// What stands in the way. Nothing of the URL is told but the path of a file.
    pub async fn open(url: &str, base: &Path) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let store = match url.strip_prefix("sqlite:") {
            Some(path) => Self::open_file(&base.join(path)).await?,
            None => Self::open_server(url).await?,
        };
        store.migrate().await?;
        Ok(store)
    }

    async fn open_file(path: &Path) -> Result<Self, StoreError> {
        let path = make_file(path)?;
        let options = options(&file_url(&path))?;
        let dialect = Dialect::Sqlite;
        // A connection to a file does not break, so that none is tested, replaced or closed when it idles.
        let pool = || {
            AnyPoolOptions::new()
                .acquire_timeout(PATIENCE)
                .test_before_acquire(false)
                .idle_timeout(None)
                .max_lifetime(None)
        };
        let fault = |error: StoreError| match error {
            StoreError::Unavailable(why) => StoreError::Unavailable(format!("{}: {why}", path.display())),
            StoreError::Broken(why) => StoreError::Broken(format!("{}: {why}", path.display())),
            StoreError::Unfit(why) => StoreError::Unfit(why),
        };
        let connected = async {
            let writes = connect(pool().max_connections(1), dialect, &[], options.clone()).await?;
            write_ahead(&writes).await?;
            let reads =
                connect(pool().max_connections(READERS), dialect, &["PRAGMA query_only = ON"], options)
                    .await?;
            Ok(Self { reads, writes, dialect })
        };
        connected.await.map_err(fault)
    }

    async fn open_server(url: &str) -> Result<Self, StoreError> {
        let mut options = options(url)?;
        if leaves_host_unguarded(&options) {
            options.database_url.query_pairs_mut().append_pair("sslmode", "verify-full");
        }
        let pool = AnyPoolOptions::new().acquire_timeout(PATIENCE).max_connections(CONNECTIONS);
        let dialect = Dialect::Postgres;
        let pool = connect(pool, dialect, &[], options).await?;
        let encoding: String =
            sqlx::query("SELECT current_setting('server_encoding')").fetch_one(&pool).await?.try_get(0)?;
        if encoding != "UTF8" {
            return Err(StoreError::Broken(format!(
                "the database's encoding is {encoding}; names need one with ENCODING 'UTF8'"
            )));
        }
        Ok(Self { reads: pool.clone(), writes: pool, dialect })
    }
}

fn options(url: &str) -> Result<AnyConnectOptions, StoreError> {
    let options = AnyConnectOptions::from_str(url)
        .map_err(|_| StoreError::Unavailable("the store's URL is no URL".to_owned()))?;
    Ok(options.disable_statement_logging())
}

async fn connect(
    pool: AnyPoolOptions,
    dialect: Dialect,
    more: &'static [&'static str],
    options: AnyConnectOptions,
) -> Result<AnyPool, StoreError> {
    // Alone first: a pool would try again and again, and in the end only say that time is up.
    let alone = async {
        let mut connection = AnyConnection::connect_with(&options).await?;
        prepare(&mut connection, dialect, more).await?;
        connection.close().await
    };
    let late = |_| StoreError::Unavailable(format!("the database does not answer within {PATIENCE:?}"));
    tokio::time::timeout(PATIENCE, alone).await.map_err(late)??;
    let pool = pool.after_connect(move |connection, _| Box::pin(prepare(connection, dialect, more)));
    Ok(pool.connect_with(options).await?)
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
        return Err(StoreError::Unavailable(format!(
            "its file system has no shared memory (journal mode {mode}): put it on a local disk"
        )));
    }
    Ok(())
}

/// A file that nobody else may read, in a folder that nobody else may. Its path without links or dots.
fn make_file(path: &Path) -> Result<PathBuf, StoreError> {
    let fault = |error: io::Error| StoreError::Unavailable(format!("{}: {error}", path.display()));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(fault)?;
    // SQLite gives its other files the mode of this one.
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map_err(fault)?;
    let mode = file.metadata().map_err(fault)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(StoreError::Unavailable(format!(
            "{}: others than its owner may use it (mode {mode:o}): chmod 600 it",
            path.display()
        )));
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(fault)?;
    fs::canonicalize(path).map_err(fault)
}

/// The URL of a file, whatever characters are in its path.
fn file_url(path: &Path) -> String {
    let mut url = "sqlite:".to_owned();
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte) {
            url.push(char::from(byte));
        } else {
            // Writing into a String cannot fail.
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url
}

/// Whether a URL names a server on another host and leaves open whether that must prove who it is. The driver's own
/// default would then speak to whoever answers, in plain text if they wish.
fn leaves_host_unguarded(options: &AnyConnectOptions) -> bool {
    let url = &options.database_url;
    let mut host = url.host_str().unwrap_or_default().to_owned();
    for (key, value) in url.query_pairs() {
        match &*key {
            "sslmode" | "ssl-mode" => return false,
            "host" | "hostaddr" => host = value.into_owned(),
            _ => {}
        }
    }
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_local = host.is_empty()
        || host == "localhost"
        // The folder of a Unix socket, as it is or percent-encoded.
        || host.starts_with(['/', '%'])
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    // Without a host in the URL the driver asks the environment.
    let host_of_environment = host.is_empty() && std::env::var_os("PGHOST").is_some();
    (!is_local || host_of_environment) && std::env::var_os("PGSSLMODE").is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_host_must_prove_itself_unless_the_url_says_how() {
        let unguarded = |url: &str| leaves_host_unguarded(&options(url).unwrap());
        for url in [
            "postgres://u@db.example.com/p",
            "postgres://u@10.0.0.1:5433/p",
            "postgres://u@[2001:db8::1]/p",
            "postgres://u@localhost/p?host=db.example.com",
            "postgres://u@localhost.example.com/p?application_name=x",
        ] {
            assert!(unguarded(url), "{url}");
        }
        for url in [
            "postgres://u@db.example.com/p?sslmode=disable",
            "postgres://u@db.example.com/p?ssl-mode=require",
            "postgres://u@localhost/p",
            "postgres://u@127.0.0.1:5433/p",
            "postgres://u@[::1]/p",
            "postgres://u@%2Frun%2Fpostgresql/p",
            "postgres://u@localhost/p?host=/run/postgresql",
        ] {
            assert!(!unguarded(url), "{url}");
        }
    }

    #[test]
    fn a_path_may_have_any_characters() {
        assert_eq!(file_url(Path::new("/a b/c?d#e%f")), "sqlite:/a%20b/c%3Fd%23e%25f");
        assert_eq!(file_url(Path::new("/state/portcullis.db")), "sqlite:/state/portcullis.db");
    }

    #[test]
    fn what_is_no_url_is_not_repeated() {
        let error = options("postgres//ada:hunter2@host").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
