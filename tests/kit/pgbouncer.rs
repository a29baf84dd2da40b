//! PgBouncer in front of a PostgreSQL server. A shell watches PgBouncer, and stops it when this process ends.

use super::postgres::{Postgres, is_root};
use std::fs::{self, Permissions};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The time limit for PgBouncer to listen, long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running PgBouncer.
#[derive(Debug)]
pub struct PgBouncer {
    address: SocketAddr,
    minder: Child,
    dir: super::dir::Dir,
}

impl PgBouncer {
    /// Starts PgBouncer in this pool mode. `more` holds further lines of its configuration.
    ///
    /// # Panics
    /// If PgBouncer is not installed or does not start.
    pub fn start(server: &Postgres, pool_mode: &str, more: &str) -> Self {
        let dir = super::dir::Dir::new();
        let address = super::port::reserve();
        let configuration = format!(
            "[databases]\n* = host={} port={} user=postgres\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = {pool_mode}\ndefault_pool_size = 4\nserver_round_robin = 1\n{more}\n",
            server.dir().display(),
            server.port(),
            address.port(),
        );
        dir.write("pgbouncer.ini", configuration);
        // PgBouncer refuses to run as root, so another user must be able to read the file.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("our own folder");
        let file = dir.path().join("pgbouncer.ini");
        fs::set_permissions(file, Permissions::from_mode(0o644)).expect("our own file");
        let script = "PATH=$PATH:/usr/sbin; pgbouncer --quiet \"$1\" & pid=$!; read -r _ || true; kill $pid";
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "sh"]);
            command
        } else {
            Command::new("sh")
        };
        let minder = command
            .args(["-c", script, "minder"])
            .arg(dir.path().join("pgbouncer.ini"))
            .current_dir("/")
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh and setpriv are there");
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "PgBouncer is installed (Debian: pgbouncer) and starts");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { address, minder, dir }
    }

    /// Returns PgBouncer's port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns the URL of a database of the server behind PgBouncer.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@{}/{database}", self.address)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        drop(self.minder.stdin.take());
        let _ = self.minder.wait();
        let _ = self.dir.path();
    }
}
