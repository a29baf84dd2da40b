//! A PostgreSQL server for one test binary: a new cluster in a temporary folder, with a Unix socket in that folder.
//! Each test has its own database. Connections by TCP, with or without TLS, require a password.
//!
//! A shell watches the server. When this process ends, the shell's input pipe closes. The shell then stops the server
//! and removes the folder. The server refuses to run as root, so tests of root run it as `postgres`.

use super::port::reserve;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

const MINDER: &str = r#"
set -eu
trap '' INT TERM HUP
umask 077
bin=$1 port=$2
dir=$(mktemp -d /tmp/portcullis-pg-XXXXXX)
trap 'rm -rf "$dir"' EXIT
"$bin/initdb" --pgdata "$dir/data" --auth-local trust --auth-host scram-sha-256 --username postgres --encoding UTF8 \
    --locale C.UTF-8 --no-sync >"$dir/log"
printf %s "$CERTIFICATE" >"$dir/certificate.pem"
printf %s "$KEY" >"$dir/key.pem"
# Nothing here outlives the machine: no flushes.
"$bin/pg_ctl" --pgdata "$dir/data" --log "$dir/log" --wait --silent start >/dev/null 2>&1 -o "\
    -c listen_addresses=127.0.0.1 -c port=$port -c unix_socket_directories='$dir' -c ssl=on \
    -c ssl_cert_file='$dir/certificate.pem' -c ssl_key_file='$dir/key.pem' -c fsync=off -c full_page_writes=off \
    -c shared_buffers=16MB -c max_connections=200 -c deadlock_timeout=100ms -c autovacuum=off" \
    || { cat "$dir/log" >&2; exit 1; }
cp "$dir/data/postmaster.opts" "$dir/options"
echo "$dir"
read -r _ || true
"$bin/pg_ctl" --pgdata "$dir/data" --mode immediate --silent stop || true
"#;

/// Copies the server at a socket, and follows it as a standby.
const STANDBY: &str = r#"
set -eu
trap '' INT TERM HUP
umask 077
bin=$1 port=$2 host=$3 primary=$4
dir=$(mktemp -d /tmp/portcullis-pg-XXXXXX)
trap 'rm -rf "$dir"' EXIT
"$bin/pg_basebackup" --host "$host" --port "$primary" --username postgres --pgdata "$dir/data" --checkpoint fast \
    --write-recovery-conf --wal-method stream --no-sync >"$dir/log" 2>&1 || { cat "$dir/log" >&2; exit 1; }
"$bin/pg_ctl" --pgdata "$dir/data" --log "$dir/log" --wait --silent start >/dev/null 2>&1 -o "\
    -c listen_addresses= -c port=$port -c unix_socket_directories='$dir' -c fsync=off -c full_page_writes=off \
    -c shared_buffers=16MB -c max_connections=200 -c autovacuum=off" || { cat "$dir/log" >&2; exit 1; }
cp "$dir/data/postmaster.opts" "$dir/options"
echo "$dir"
read -r _ || true
"$bin/pg_ctl" --pgdata "$dir/data" --mode immediate --silent stop || true
"#;

/// A running server. Stopped when dropped, or when this process ends.
#[derive(Debug)]
pub struct Postgres {
    bin: PathBuf,
    dir: PathBuf,
    port: u16,
    /// The server's self-signed certificate for `localhost`, as PEM.
    certificate: String,
    minder: Child,
}

impl Postgres {
    /// Returns the shared server of this test binary. The first call starts it.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// Starts a new server.
    ///
    /// # Panics
    /// If PostgreSQL is not installed or does not start. The server's error is then on standard error.
    pub fn start() -> Self {
        let bin = programs();
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a host name");
        let certificate = certified.cert.pem();
        let mut command = shell();
        command.env("CERTIFICATE", &certificate).env("KEY", certified.signing_key.serialize_pem());
        let port = reserve().port();
        command.args(["-c", MINDER, "minder"]).arg(&bin).arg(port.to_string());
        Self::watched(command, bin, port, certificate)
    }

    /// Starts a standby of this server, which follows it.
    ///
    /// # Panics
    /// If the standby does not start. Its error is then on standard error.
    pub fn standby(&self) -> Self {
        let mut command = shell();
        let port = reserve().port();
        command.args(["-c", STANDBY, "minder"]).arg(&self.bin).arg(port.to_string());
        command.arg(&self.dir).arg(self.port.to_string());
        Self::watched(command, self.bin.clone(), port, self.certificate.clone())
    }

    /// Runs a shell that starts a server and watches it.
    fn watched(mut command: Command, bin: PathBuf, port: u16, certificate: String) -> Self {
        let mut minder = command
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh and setpriv are there");
        let mut line = String::new();
        let stdout = minder.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line of text");
        assert!(!line.is_empty(), "PostgreSQL does not start");
        let dir = PathBuf::from(line.trim_end());
        Self { bin, dir, port, certificate, minder }
    }

    /// Creates an empty database and returns its URL.
    pub fn database(&self) -> String {
        self.database_with("")
    }

    /// Creates a database with further options of `CREATE DATABASE`. The strategy `file_copy` is the faster one on a
    /// server that does not flush its files (since version 15).
    pub fn database_with(&self, options: &str) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name} STRATEGY file_copy {options}"));
        self.url(&name)
    }

    /// Returns the URL of a database.
    pub fn url(&self, database: &str) -> String {
        let socket = self.dir.display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{socket}:{}/{database}", self.port)
    }

    /// Returns the URL of a database of this server and of the same database of another server.
    pub fn url_with(&self, other: &Self, database: &str) -> String {
        let socket = other.dir.display().to_string().replace('/', "%2F");
        self.url(database).replace(&format!("/{database}"), &format!(",{socket}:{}/{database}", other.port))
    }

    /// Returns the folder of the server's socket.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the server's port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the certificate that the server shows over TCP, as PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Stops the server at once, as a crash would. Its data remain, and [`Self::resume`] starts it again.
    pub fn stop(&self) {
        self.control(&["--mode", "immediate", "stop"]);
    }

    /// Starts a stopped server again, with the same data and options.
    ///
    /// # Panics
    /// If the server's options cannot be read, or it does not start.
    pub fn resume(&self) {
        // The file holds the command line of the first start: the program, then its quoted options.
        let line = std::fs::read_to_string(self.dir.join("options")).expect("they were kept");
        let options = line.split_once(' ').expect("options stand behind the program").1.trim();
        let log = self.dir.join("log").display().to_string();
        self.control(&["--log", &log, "--wait", "-o", options, "start"]);
    }

    fn control(&self, arguments: &[&str]) {
        let program = self.bin.join("pg_ctl");
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        let command = command.arg("--pgdata").arg(self.dir.join("data")).arg("--silent").args(arguments);
        // The output is not piped: the server would inherit the pipe and keep it open.
        let status = command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).status();
        assert!(status.expect("pg_ctl stands beside the server").success(), "{arguments:?}");
    }

    /// Executes a statement on the server, and returns the rows as text.
    #[track_caller]
    pub fn sql(&self, database: &str, statement: &str) -> String {
        self.sql_at(&self.dir.display().to_string(), self.port, database, statement)
    }

    /// Executes a statement through the server at this host and port.
    #[track_caller]
    pub fn sql_at(&self, host: &str, port: u16, database: &str, statement: &str) -> String {
        let out = Command::new(self.bin.join("psql"))
            .args(["--no-psqlrc", "--tuples-only", "--no-align", "--username", "postgres", "--host", host])
            .args(["--port", &port.to_string()])
            .args(["--dbname", database, "--command", statement])
            .output()
            .expect("psql stands beside the server");
        assert!(out.status.success(), "{statement}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.minder.stdin.take());
        let _ = self.minder.wait();
    }
}

/// Returns a shell of the user that runs the server.
fn shell() -> Command {
    if !is_root() {
        return Command::new("sh");
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "sh"]);
    command
}

pub(super) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Returns the folder of the server's programs. Debian keeps them outside `PATH`, in one folder per version.
fn programs() -> PathBuf {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = debian.map(|version| version.path().join("bin")).collect();
    folders.sort();
    folders.extend(std::env::split_paths(&path));
    let has_server = |folder: &&PathBuf| {
        ["pg_ctl", "initdb", "psql"].iter().all(|name| Path::new(folder).join(name).exists())
    };
    folders.iter().rev().find(has_server).cloned().expect("PostgreSQL is installed (Debian: postgresql)")
}
