//! The settings that are fixed when the process starts.

use crate::acme;
use crate::config::network::Cidr;
use crate::diagnostic::{Diagnostic, Place, Severity};
use crate::journal::Level;
use crate::tls::{MinVersion, TlsSettings};
use crate::worker_settings::WorkerSettings;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The listeners and other settings that are read once at start.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// The addresses of the TLS listeners.
    pub https: Vec<SocketAddr>,
    /// The addresses of the cleartext listeners.
    pub http: Vec<SocketAddr>,
    /// The addresses of the admin listener.
    pub admin: Vec<SocketAddr>,
    /// Whether cleartext requests are redirected to https.
    pub redirect: bool,
    /// The https port for clients. The default is the port of the first address in `https`.
    pub public_port: Option<u16>,
    /// The load balancers that announce their clients by the PROXY protocol.
    pub proxy_protocol: ProxyProtocol,
    /// The certificates, and those that clients are asked for.
    pub tls: TlsSettings,
    /// The order of the default certificate, if the gateway orders it.
    pub acme: Option<Arc<acme::Settings>>,
    /// The minimum TLS version.
    pub min_version: MinVersion,
    /// The folder for the files that the gateway generates.
    pub state_dir: PathBuf,
    /// The minimum level of logged events.
    pub level: Level,
    /// The files that trigger a reload, in addition to the policy file. `None` if the policy is reloaded only on
    /// demand.
    pub watch: Option<Vec<PathBuf>>,
    /// The number of cores in use.
    pub cores: usize,
    /// The settings of each core.
    pub worker: WorkerSettings,
}

/// The load balancers that announce their clients by the PROXY protocol, for each kind of listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// Those of the TLS listeners. `None` if connections begin without a header.
    pub https: Option<Arc<[Cidr]>>,
    /// Those of the cleartext listeners.
    pub http: Option<Arc<[Cidr]>>,
}

impl ServerSettings {
    /// Returns a warning for each changed setting that requires a restart. `file` is the path of the policy file.
    pub fn restart_needed(&self, other: &Self, file: &Path) -> Vec<Diagnostic> {
        let (ours, theirs) = (&self.worker, &other.worker);
        let differs = [
            ("server.https", self.https != other.https),
            ("server.http", self.http != other.http),
            ("server.admin", self.admin != other.admin),
            ("server.plain", self.redirect != other.redirect),
            ("server.public_port", self.public_port != other.public_port),
            ("server.proxy_protocol", self.proxy_protocol != other.proxy_protocol),
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
            ("server.bounds.requests", ours.requests_max != theirs.requests_max),
            ("server.bounds.streams", ours.streams != theirs.streams),
            ("log.format", ours.style != theirs.style),
            ("log.access", ours.access != theirs.access),
            ("log.level", self.level != other.level),
            // A change to `decisions = 0` does not require a restart. See `Front::keeps_decisions`.
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
