//! `portcullis run`: starts the gateway, serves until a signal arrives, and drains the connections.

use super::inherited::Inherited;
use super::{REFUSED, limits, load_and_test, print_error};
use crate::accept::listener::bind;
use crate::accept::{Entry, Gateway, ListenerKind, Sockets};
use crate::acme::Acme;
use crate::authority::Authority;
use crate::clock::Now;
use crate::config::file::BoundsSection;
use crate::control::{self, Admin, ReloadStatus, Reloader};
use crate::decision_log::DecisionLog;
use crate::diagnostic::Severity;
use crate::journal::{Journal, Level, Style};
use crate::keyring::MissingKey;
use crate::metrics::{self, WorkerCounters};
use crate::policy::{Compiled, LivePolicy, ServerSettings};
use crate::review;
use crate::tls::Certificates;
use crate::worker::Shared;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

pub(super) fn run(path: &Path) -> ExitCode {
    let read = Now::read();
    let compiled = match load_and_test(path, MissingKey::Create) {
        Ok(compiled) => compiled,
        Err(code) => return code,
    };
    let settings = &compiled.settings;
    let style = settings.worker.style;
    let journal = match Journal::start(style, settings.level, Box::new(std::io::stdout())) {
        Ok(journal) => journal,
        Err(error) => {
            print_error(&format!("cannot start: {error}"));
            return ExitCode::from(REFUSED);
        }
    };
    match serve(path, compiled, read, &journal) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            match style {
                // A program that reads the log needs the reason too.
                Style::Json => journal.event(Level::Error, "cannot start", &[("why", &why)]),
                Style::Human => print_error(&why),
            }
            journal.close();
            ExitCode::from(REFUSED)
        }
    }
}

/// The sockets of the gateway and their addresses.
struct Bound {
    sockets: Vec<Sockets>,
    https: Vec<SocketAddr>,
    http: Vec<SocketAddr>,
    admin: Vec<(TcpListener, SocketAddr)>,
    certificates: Option<Certificates>,
}

/// Serves until a signal arrives. `read` is the time at which reading the policy began.
fn serve(path: &Path, compiled: Compiled, read: Now, journal: &Journal) -> Result<(), String> {
    metrics::process::started();
    let warnings = compiled.weaknesses();
    let Compiled { mut policy, identity, settings, route_places, waivers, .. } = compiled;
    let digest = identity.digest.to_string();
    let cores = settings.cores;
    let asked = policy.clone();
    limits::no_core_dumps();
    let files = limits::raise_open_files();
    let mut worker_settings = settings.worker;
    worker_settings.connections_max = limits::connections(settings.worker.connections_max, files);
    let bound = bind_all(&settings)?;
    if worker_settings.connections_max < settings.worker.connections_max {
        log_open_file_limit(journal, settings.worker.connections_max, worker_settings.connections_max, files);
    }
    policy.authority = match &policy.issuer_settings {
        Some(settings) => Some(Authority::start(settings, cores, journal.clone())?),
        None => None,
    };
    policy.signal_file = control::signal_file(&policy, None, &settings, journal)?;
    // The first comparison with the shared state includes the marks of the state folder.
    policy.link = control::shared_link(&policy, None, journal)?;
    control::lend_shared(&policy);
    policy.trust.dpop().begin(Now::read());
    let shared = Arc::new(Shared {
        policy: LivePolicy::new(policy),
        certificates: bound.certificates,
        acme: Arc::new(Acme::new(settings.acme.clone())),
        journal: journal.clone(),
        counters: (0..cores).map(|_| Arc::new(WorkerCounters::default())).collect(),
        recent: recent(settings.worker.decisions, cores),
    });
    for warning in &warnings {
        control::log_finding(&shared, Level::Warn, "policy warning", warning);
    }
    let reload_status = Arc::new(ReloadStatus::begin(identity, Now::read()));
    let reloader =
        Reloader::new(shared.clone(), path.to_owned(), settings.clone(), reload_status.clone(), read);
    let gateway = Gateway::start(&shared, worker_settings, bound.sockets)
        .map_err(|error| format!("cannot start: {error}"))?;
    let listed =
        |addresses: &[SocketAddr]| addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",");
    let admin_addresses: Vec<_> = bound.admin.iter().map(|(_, address)| *address).collect();
    {
        // This check runs in the background. It only logs warnings, and it would delay a start with ten thousand
        // routes.
        let shared = shared.clone();
        std::thread::spawn(move || {
            let found = review::spelling_findings(&asked, &route_places, &waivers, Severity::Warning);
            for warning in &found.left {
                control::log_finding(&shared, Level::Warn, "policy warning", warning);
            }
        });
    }
    let admin = Admin {
        listeners: bound.admin.into_iter().map(|(listener, _)| listener).collect(),
        status: reload_status,
    };
    let ready = || {
        journal.event_with(
            Level::Info,
            "ready",
            &[
                ("version", env!("CARGO_PKG_VERSION").into()),
                ("policy", (&path.display().to_string()).into()),
                ("digest", (&digest).into()),
                ("workers", cores.into()),
                ("https", (&listed(&bound.https)).into()),
                ("http", (&listed(&bound.http)).into()),
                ("admin", (&listed(&admin_addresses)).into()),
            ],
        );
    };
    let ended = control::run(&shared, &gateway, admin, reloader, &worker_settings, ready);
    journal.event(Level::Info, "stopped", &[]);
    journal.clone().close();
    ended.map_err(|error| format!("cannot continue: {error}"))
}

/// Creates a log of recent decisions for each core. Together, the logs have room for at least `decisions` decisions.
fn recent(decisions: usize, cores: usize) -> Vec<Arc<DecisionLog>> {
    let cores = if decisions == 0 { 0 } else { cores };
    (0..cores).map(|_| Arc::new(DecisionLog::new(decisions.div_ceil(cores)))).collect()
}

/// Logs that the gateway accepts fewer connections than the policy allows. The event is a warning only if an operator
/// has set the number.
fn log_open_file_limit(journal: &Journal, asked: usize, taken: usize, files: Option<u64>) {
    let level = if asked == BoundsSection::default().connections { Level::Info } else { Level::Warn };
    journal.event_with(
        level,
        "the limit of open files bounds the number of connections",
        &[
            ("limit", files.unwrap_or_default().into()),
            ("connections", taken.into()),
            ("asked", asked.into()),
            (
                "cure",
                "raise the hard limit (ulimit -Hn, LimitNOFILE=) to twice the number of connections plus 256"
                    .into(),
            ),
        ],
    );
}

fn bind_all(settings: &ServerSettings) -> Result<Bound, String> {
    let mut inherited = Inherited::take()?;
    let mut bound = Bound {
        sockets: (0..settings.cores).map(|_| Vec::new()).collect(),
        https: vec![],
        http: vec![],
        admin: vec![],
        certificates: None,
    };
    if !settings.https.is_empty() {
        let tls = settings.tls.clone().complete(&settings.state_dir)?;
        let certificates = Certificates::open(tls, settings.min_version)?;
        let proxies = settings.proxy_protocol.https.clone();
        let entry = Entry { kind: ListenerKind::Tls(certificates.clone()), proxies, is_inherited: false };
        bound.certificates = Some(certificates);
        for address in &settings.https {
            bound.https.push(spread(*address, "https", &entry, &mut inherited, &mut bound.sockets)?);
        }
    }
    let kind = match (settings.redirect, bound.https.first()) {
        (true, Some(https)) => ListenerKind::Redirect(settings.public_port.unwrap_or(https.port())),
        (true, None) | (false, _) => ListenerKind::Plain,
    };
    let entry = Entry { kind, proxies: settings.proxy_protocol.http.clone(), is_inherited: false };
    for address in &settings.http {
        bound.http.push(spread(*address, "http", &entry, &mut inherited, &mut bound.sockets)?);
    }
    for address in &settings.admin {
        let cannot = |error| cannot_listen("admin", *address, &error);
        let (listeners, _) = listeners(*address, 1, &mut inherited).map_err(cannot)?;
        for listener in listeners {
            let local = listener.local_addr().map_err(cannot)?;
            bound.admin.push((listener, local));
        }
    }
    inherited.finish()?;
    Ok(bound)
}

/// Returns the listeners of an address for this many cores, and whether the service manager holds their socket.
fn listeners(
    address: SocketAddr,
    cores: usize,
    inherited: &mut Inherited,
) -> io::Result<(Vec<TcpListener>, bool)> {
    match inherited.remove(address, cores) {
        Some(listeners) => Ok((listeners?, true)),
        None => Ok((bind(address, cores)?, false)),
    }
}

/// Describes why the gateway cannot listen, and how to fix it.
fn cannot_listen(key: &str, address: SocketAddr, error: &io::Error) -> String {
    let port = address.port();
    let help = match error.kind() {
        ErrorKind::AddrInUse => {
            format!("; another process already listens there: find it with `ss -ltnp 'sport = :{port}'`")
        }
        ErrorKind::PermissionDenied => {
            "; low ports require root or CAP_NET_BIND_SERVICE: `setcap cap_net_bind_service=+ep` for the \
             program, AmbientCapabilities= in its systemd unit, or a port from 1024 on"
                .to_owned()
        }
        ErrorKind::AddrNotAvailable => {
            "; this machine does not have that address: `ip address` lists its addresses".to_owned()
        }
        _ => String::new(),
    };
    format!("[server] {key}: cannot listen on {address}: {error}{help}")
}

fn spread(
    address: SocketAddr,
    key: &str,
    entry: &Entry,
    inherited: &mut Inherited,
    sockets: &mut [Sockets],
) -> Result<SocketAddr, String> {
    let cannot = |error| cannot_listen(key, address, &error);
    let (listeners, is_inherited) = listeners(address, sockets.len(), inherited).map_err(cannot)?;
    let local = listeners[0].local_addr().map_err(cannot)?;
    for (listener, sockets) in listeners.into_iter().zip(sockets) {
        sockets.push((listener, Entry { is_inherited, ..entry.clone() }));
    }
    Ok(local)
}
