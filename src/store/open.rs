//! Opens the store, by its file or its URL.

use super::connect::{ConnectSettings, Dialect, PATIENCE};
use super::error::{Reason, is_busy};
use super::opened_file::OpenedFile;
use super::place::{
    leaves_host_unguarded, options, place, refuse_unknown, refuse_unread_authority, servers, take_pool_mode,
    take_target,
};
use super::pools::Pools;
use super::{Store, StoreError};
use crate::hex;
use rustix::fs::Access;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyPool, Connection, Row};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Number of connections that read from a file. A single read takes microseconds; while a long listing uses one
/// connection, the other connection serves the short reads.
const READERS: u32 = 2;

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
        let reader = writer.clone().read_only();
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
            let file =
                OpenedFile::of(path).map_err(|error| StoreError::trouble(Reason::Io, error.to_string()))?;
            let pools =
                Pools::of_file(reader.pool(0, pool().max_connections(READERS)), writes, reader.clone());
            Ok((pools, file))
        };
        let (pools, file) = connected.await.map_err(|error: StoreError| error.at(&place))?;
        Ok(Self {
            pools: Arc::new(pools),
            plan: reader,
            file: Some(file),
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
            file: None,
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
///
/// Opens no file that exists. When a process closes a file, POSIX releases all locks of the process on it, also those of
/// connections that the process keeps open. The next program that closes the database would take itself for the last one and
/// delete the write-ahead log. This process would then read and write a log that nobody else sees: no revocation of another
/// process, and no login after a restart (<https://sqlite.org/howtocorrupt.html>, section 2.2).
fn make_file(path: &Path) -> Result<PathBuf, StoreError> {
    let fault = |error: io::Error| StoreError::trouble(Reason::Io, format!("{}: {error}", path.display()));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(fault)?;
    if !path.exists() {
        // SQLite creates its other files with the mode of this file.
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map_err(fault)?;
    }
    let metadata = fs::metadata(path).map_err(fault)?;
    if !metadata.is_file() {
        return Err(fault(io::Error::other("not a file")));
    }
    rustix::fs::access(path, Access::WRITE_OK).map_err(|errno| fault(errno.into()))?;
    let mode = metadata.permissions().mode() & 0o777;
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
