//! What is fixed from the start of a process to its end, as a file has it; and what of that another file would change.

use crate::diagnostic::{Diagnostic, Place, Severity};
use crate::journal::Level;
use crate::tls::{Files, MinVersion};
use crate::worker_settings::WorkerSettings;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Where to listen, and how: read once at start.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Addresses for TLS.
    pub https: Vec<SocketAddr>,
    /// Addresses for cleartext.
    pub http: Vec<SocketAddr>,
    /// Addresses for the admin listener.
    pub admin: Vec<SocketAddr>,
    /// Whether cleartext is sent to TLS instead of served.
    pub redirect: bool,
    /// The https port that clients use; absent, that of the first address.
    pub public_port: Option<u16>,
    /// The certificate; none: a self-signed one under the state folder.
    pub certificate: Option<Files>,
    /// The oldest TLS.
    pub min_version: MinVersion,
    /// Where what is made at first start is kept.
    pub state_dir: PathBuf,
    /// The least grave event that is logged.
    pub level: Level,
    /// The files beside the policy's own whose change makes it be read again; none where it is read on demand only.
    pub watch: Option<Vec<PathBuf>>,
    /// How many cores are used.
    pub cores: usize,
    /// What each core needs to know.
    pub worker: WorkerSettings,
}

impl ServerSettings {
    /// What another plan asks for that this process, which was started with this one, does not do: each with the key that
    /// says it, as a warning. `file` is where it stands.
    pub fn restart_needed(&self, other: &Self, file: &Path) -> Vec<Diagnostic> {
        let (ours, theirs) = (&self.worker, &other.worker);
        let differs = [
            ("server.https", self.https != other.https),
            ("server.http", self.http != other.http),
            ("server.admin", self.admin != other.admin),
            ("server.plain", self.redirect != other.redirect),
            ("server.public_port", self.public_port != other.public_port),
            ("server.workers", self.cores != other.cores),
            ("tls.min_version", self.min_version != other.min_version),
            ("server.drain_delay", ours.drain_delay != theirs.drain_delay),
            ("server.drain", ours.drain != theirs.drain),
            ("server.bounds.header_timeout", ours.header_timeout != theirs.header_timeout),
            ("server.bounds.header_size", ours.header_size != theirs.header_size),
            ("server.bounds.headers", ours.header_count != theirs.header_count),
            ("server.bounds.body_timeout", ours.body_timeout != theirs.body_timeout),
            ("server.bounds.min_rate", ours.min_rate != theirs.min_rate),
            ("server.bounds.idle_timeout", ours.idle_timeout != theirs.idle_timeout),
            ("server.bounds.connections", ours.connections_max != theirs.connections_max),
            ("server.bounds.streams", ours.streams != theirs.streams),
            ("log.format", ours.style != theirs.style),
            ("log.access", ours.access != theirs.access),
            ("log.level", self.level != other.level),
            // To keep none takes effect at once: see `Front::keeps_decisions`.
            ("policy.decisions", theirs.decisions != 0 && ours.decisions != theirs.decisions),
        ];
        let warning = |key: &str| Diagnostic {
            severity: Severity::Warning,
            id: "restart_needed",
            place: Place::File(file.display().to_string()),
            key: key.to_owned(),
            found: "changed, but takes effect only when the process starts".to_owned(),
            hint: "restart the gateway".to_owned(),
            refers_to: None,
        };
        differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| warning(key)).collect()
    }
}
