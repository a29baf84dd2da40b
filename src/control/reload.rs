//! Reloads the policy on SIGHUP, on `POST /reload` at the admin listener, or when its file has changed.
//!
//! Reloads run one at a time, and never on a thread that serves requests. A file that does not load changes nothing.
//! The failure appears in the log, in the metrics and at `/readyz?verbose`. A gateway that watches its file tries again
//! until the file loads. A changed setting that needs a restart is reported and ignored.

use super::api_keys;
use super::file_watch::{Due, FileWatch};
use super::introspection::Interviewers;
use super::issuer_keys::{self, KeyFetchers};
use super::upstream_checks::UpstreamChecks;
use super::upstream_names::UpstreamNames;
use super::{keys, signals};
use crate::authority::Authority;
use crate::clock::Now;
use crate::diagnostic::{Diagnostic, Place, Severity};
use crate::journal::Level;
use crate::keyring::MissingKey;
use crate::metrics::{Exposition, Kind};
use crate::policy::{Compiled, Policy, PolicyIdentity, ServerSettings};
use crate::review;
use crate::timestamp::rfc3339;
use crate::tls::Certificates;
use crate::worker::Shared;
use serde::Serialize;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Maximum number of faults of one file that are logged. `portcullis check` prints all.
const FAULTS_LOGGED: usize = 20;
/// The pause before a refused reload is repeated.
const AGAIN: Duration = Duration::from_secs(5);
/// The pause in relation to the time that the refused reload took: repetitions take at most a twentieth of a core.
const AGAIN_SHARE: u32 = 20;

/// The result of a reload.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub(crate) enum Report {
    /// The new policy is now the current policy.
    Reloaded {
        /// The generation of the new policy. The first policy of a process has generation 1.
        generation: u64,
        /// The digest of the new policy.
        digest: String,
        /// The policy's weaknesses. They do not prevent the reload.
        warnings: Vec<Diagnostic>,
    },
    /// The old policy remains current.
    Refused {
        /// All faults and warnings of the file.
        diagnostics: Vec<Diagnostic>,
    },
}

/// A request to reload the policy.
#[derive(Debug)]
pub(crate) enum ReloadRequest {
    /// An operator asks, or the watched files have changed. The sender returns the result of the reload.
    Asked(Option<oneshot::Sender<Report>>),
    /// The last reload was refused, and the cause may have ended: an absent file, or a store that did not answer.
    Again,
}

/// The status of the current policy: its identity and generation, when it was loaded, and the counts of reloads by
/// outcome. If the last reload failed, also the reason.
#[derive(Debug)]
pub(crate) struct ReloadStatus {
    identity: Mutex<PolicyIdentity>,
    generation: AtomicU64,
    loaded: AtomicU64,
    reloaded: AtomicU64,
    refused: AtomicU64,
    fault: Mutex<Option<Fault>>,
    /// Earlier policies. A request that began under an earlier policy may still use it.
    before: Mutex<Vec<Weak<Policy>>>,
}

/// The reason why the last reload failed.
#[derive(Clone, Debug)]
struct Fault {
    since: u64,
    first: String,
    more: usize,
}

impl ReloadStatus {
    pub(crate) fn begin(identity: PolicyIdentity, now: Now) -> Self {
        Self {
            identity: Mutex::new(identity),
            generation: AtomicU64::new(1),
            loaded: AtomicU64::new(now.unix),
            reloaded: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            fault: Mutex::new(None),
            before: Mutex::new(Vec::new()),
        }
    }

    /// Returns the generation of the current policy.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    fn identity(&self) -> PolicyIdentity {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_identity(&self, identity: PolicyIdentity) {
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    fn fault(&self) -> Option<Fault> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_fault(&self, fault: Option<Fault>) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    fn keep_previous(&self, policy: &Arc<Policy>) {
        let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        before.retain(|policy| policy.strong_count() > 0);
        before.push(Arc::downgrade(policy));
    }

    /// Returns the number of earlier policies that requests still use.
    fn in_use_before(&self) -> usize {
        let before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        before.iter().filter(|policy| policy.strong_count() > 0).count()
    }

    /// Describes the state of the policy for operators, with one fact per line.
    pub(crate) fn lines(&self) -> String {
        let loaded = rfc3339(self.loaded.load(Ordering::Relaxed));
        let PolicyIdentity { version, digest } = self.identity();
        let version = version.map(|version| format!(", version {version}")).unwrap_or_default();
        let mut lines =
            format!("policy: generation {}, loaded {loaded}, digest {digest}{version}\n", self.generation());
        if let Some(Fault { since, first, more }) = self.fault() {
            let more = if more == 0 { String::new() } else { format!(" (and {more} more)") };
            let since = rfc3339(since);
            lines
                .push_str(&format!("policy: the file on disk has not loaded since {since}: {first}{more}\n"));
        }
        lines
    }

    pub(crate) fn write_metrics(&self, out: &mut Exposition) {
        let PolicyIdentity { version, digest } = self.identity();
        let help = "The digest and the version of the policy in force, as labels.";
        out.family("portcullis_policy_info", help, Kind::Gauge);
        let (digest, version) = (digest.to_string(), version.unwrap_or_default());
        out.sample(&[("digest", &digest), ("version", &version)], 1);
        out.family("portcullis_policy_generation", "The number of the policy in force.", Kind::Gauge);
        out.sample(&[], self.generation());
        let help = "Time at which the policy in force was loaded, in seconds since 1970.";
        out.family("portcullis_policy_loaded_timestamp_seconds", help, Kind::Gauge);
        out.sample(&[], self.loaded.load(Ordering::Relaxed));
        let help =
            "Whether the last reload succeeded (1) or failed, so that an older policy stays in force (0).";
        out.family("portcullis_policy_last_reload_ok", help, Kind::Gauge);
        out.sample(&[], u64::from(self.fault().is_none()));
        out.family("portcullis_policy_reloads_total", "Reloads, by outcome.", Kind::Counter);
        out.sample(&[("outcome", "reloaded")], self.reloaded.load(Ordering::Relaxed));
        out.sample(&[("outcome", "refused")], self.refused.load(Ordering::Relaxed));
        let help = "Earlier policies still in use by requests that began under them.";
        out.family("portcullis_policies_before_in_use", help, Kind::Gauge);
        out.sample(&[], u64::try_from(self.in_use_before()).unwrap_or(u64::MAX));
    }
}

#[derive(Debug)]
pub(crate) struct Reloader {
    shared: Arc<Shared>,
    path: PathBuf,
    /// The settings that were fixed when the process started.
    settings: ServerSettings,
    status: Arc<ReloadStatus>,
    /// The watched files. `None` if the current policy does not enable watching.
    watching: Arc<Mutex<Option<FileWatch>>>,
    /// The task that watches the current policy's signing keys.
    keys: Option<JoinHandle<()>>,
    /// The tasks that fetch keys from URLs for the current policy.
    fetchers: KeyFetchers,
    interviewers: Interviewers,
    /// The tasks that check the servers of the current policy's upstreams.
    checks: Rc<RefCell<UpstreamChecks>>,
    names: UpstreamNames,
    /// The tasks that poll the current policy's transmitters of signals.
    polls: Vec<JoinHandle<()>>,
    /// The task that watches the current policy's API keys.
    api_keys: Option<JoinHandle<()>>,
}

/// Requests a reload whenever the watched files have changed, and repeats a refused one: the file may name others that are
/// not watched yet, because the policy in force does not name them.
pub(super) async fn watch(watching: Arc<Mutex<Option<FileWatch>>>, ask: mpsc::Sender<ReloadRequest>) {
    let mut interval = super::poll_interval();
    loop {
        interval.tick().await;
        let watching = watching.clone();
        // Each poll runs on a separate thread, because a network folder may be slow.
        let looked = tokio::task::spawn_blocking(move || {
            let mut watching = watching.lock().unwrap_or_else(PoisonError::into_inner);
            watching.as_mut().and_then(FileWatch::poll)
        });
        let request = match looked.await {
            Ok(Some(Due::Changed)) => ReloadRequest::Asked(None),
            Ok(Some(Due::Again)) => ReloadRequest::Again,
            Ok(None) | Err(_) => continue,
        };
        if ask.send(request).await.is_err() {
            return;
        }
    }
}

impl Reloader {
    /// Creates a reloader for the first policy. `read` is the time just before the policy's files were read.
    pub(crate) fn new(
        shared: Arc<Shared>,
        path: PathBuf,
        settings: ServerSettings,
        status: Arc<ReloadStatus>,
        read: Now,
    ) -> Self {
        let watching = Arc::new(Mutex::new(file_watch(&path, &settings, read)));
        Self {
            shared,
            path,
            settings,
            status,
            watching,
            keys: None,
            api_keys: None,
            fetchers: KeyFetchers::default(),
            interviewers: Interviewers::default(),
            checks: Rc::default(),
            names: UpstreamNames::default(),
            polls: Vec::new(),
        }
    }

    /// Returns the shared handle of the watched files. A reload replaces its content.
    pub(super) fn watching(&self) -> Arc<Mutex<Option<FileWatch>>> {
        self.watching.clone()
    }

    /// Handles reload requests until the channel closes.
    pub(crate) async fn run(mut self, mut requests: mpsc::Receiver<ReloadRequest>) {
        self.watch_keys();
        self.poll_signals();
        while let Some(request) = requests.recv().await {
            let is_repetition = matches!(request, ReloadRequest::Again);
            if is_repetition && self.status.fault().is_none() {
                // Another reload succeeded in the meantime.
                continue;
            }
            let report = self.reload(is_repetition).await;
            if let ReloadRequest::Asked(Some(reply)) = request {
                // The client may have disconnected.
                let _ = reply.send(report);
            }
        }
    }

    async fn reload(&mut self, is_repetition: bool) -> Report {
        let (shared, path, cores) = (self.shared.clone(), self.path.clone(), self.settings.cores);
        let watching = self.watching.clone();
        let read = Now::read();
        let work = move || {
            let began = Instant::now();
            let made = make(&shared, &path, cores);
            let pause = made.is_err().then(|| AGAIN.max(began.elapsed() * AGAIN_SHARE));
            if let Some(watch) = watching.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
                watch.note_read(pause);
            }
            made
        };
        let made = tokio::task::spawn_blocking(work).await;
        // A panic is a bug of the gateway. The current policy keeps serving.
        let made = made.unwrap_or_else(|_| {
            Err(vec![file_fault(&self.path, "it could not be compiled: a fault of the gateway")])
        });
        match made {
            Ok(made) => self.publish(made, read),
            Err(diagnostics) => self.refuse(diagnostics, is_repetition),
        }
    }

    fn publish(&mut self, made: Compiled, read: Now) -> Report {
        let mut warnings = made.weaknesses();
        let Compiled { policy, identity, settings, .. } = made;
        warnings.extend(self.settings.restart_needed(&settings, &self.path));
        self.watch_files(&settings, read);
        warnings.extend(self.follow_certificates(&settings));
        let before = self.shared.policy.load();
        if let (Some(authority), Some(settings)) = (&policy.authority, &policy.issuer_settings) {
            authority.follow(settings.clone());
        }
        super::shared::follow(&policy);
        let now = Now::read();
        self.shared.policy.update(|current| {
            let policy = policy.clone().succeeding(current);
            issuer_keys::with_fetched_keys(keys::with_current_keys(policy, current), now)
        });
        super::shared::end(&before, &policy);
        if let Some(known) = &before.authority
            && !policy.authority.as_ref().is_some_and(|authority| Arc::ptr_eq(authority, known))
        {
            known.retire();
        }
        if !policy.front.keeps_decisions {
            self.shared.recent.iter().for_each(|recent| recent.clear());
        }
        self.status.keep_previous(&before);
        self.watch_keys();
        self.poll_signals();

        let digest = identity.digest.to_string();
        self.status.set_identity(identity);
        let generation = self.status.generation.fetch_add(1, Ordering::Relaxed) + 1;
        self.status.loaded.store(Now::read().unix, Ordering::Relaxed);
        self.status.reloaded.fetch_add(1, Ordering::Relaxed);
        self.status.set_fault(None);
        let journal = &self.shared.journal;
        journal.event_with(
            Level::Info,
            "the policy was reloaded",
            &[
                ("generation", generation.into()),
                ("digest", (&digest).into()),
                ("routes", policy.routes.len().into()),
                ("warnings", warnings.len().into()),
            ],
        );
        for warning in &warnings {
            log_finding(&self.shared, Level::Warn, "policy warning", warning);
        }
        Report::Reloaded { generation, digest, warnings }
    }

    /// Reports the faults. A repetition with the same result is neither logged nor counted.
    fn refuse(&mut self, diagnostics: Vec<Diagnostic>, is_repetition: bool) -> Report {
        let faults: Vec<_> =
            diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Fault).collect();
        let first = faults.first().map(ToString::to_string).unwrap_or_default();
        let more = faults.len().saturating_sub(1);
        let known = self.status.fault();
        if is_repetition && known.as_ref().is_some_and(|known| known.first == first && known.more == more) {
            return Report::Refused { diagnostics };
        }
        self.status.refused.fetch_add(1, Ordering::Relaxed);
        let since = known.map_or(Now::read().unix, |fault| fault.since);
        self.status.set_fault(Some(Fault { since, first, more }));
        let generation = self.status.generation();
        self.shared.journal.event_with(
            Level::Error,
            "the policy was not reloaded; the current one stays in force",
            &[("generation", generation.into()), ("faults", faults.len().into())],
        );
        for fault in faults.iter().take(FAULTS_LOGGED) {
            log_finding(&self.shared, Level::Error, "the policy has a fault", fault);
        }
        Report::Refused { diagnostics }
    }

    /// Loads the certificates of the new policy. Instead of a faulty one, the previous one stays in use.
    fn follow_certificates(&self, settings: &ServerSettings) -> Vec<Diagnostic> {
        let Some(certificates) = self.shared.certificates.as_ref() else { return Vec::new() };
        self.shared.acme.follow(settings.acme.clone());
        let faults = match settings.tls.clone().complete(&settings.state_dir) {
            Ok(tls) => {
                let followed = certificates.follow(tls);
                followed
                    .faults
                    .into_iter()
                    .chain(followed.verifier_faults.into_iter().map(|(_, why)| why))
                    .collect()
            }
            Err(why) => vec![why],
        };
        let warning = |why: &String| Diagnostic {
            severity: Severity::Warning,
            id: "bad_certificate",
            ..file_fault(&self.path, why)
        };
        faults.iter().map(warning).collect()
    }

    /// Watches the current policy's files, if the policy enables watching.
    fn watch_files(&mut self, settings: &ServerSettings, read: Now) {
        let mut watching = self.watching.lock().unwrap_or_else(PoisonError::into_inner);
        match (&mut *watching, file_watch(&self.path, settings, read)) {
            // A watch of the same files is kept, because it has noticed every change since the policy was read.
            (Some(known), Some(wanted)) if known.is_same_files(&wanted) => {}
            (known, wanted) => *known = wanted,
        }
    }

    /// Polls the transmitters of the current policy, and stops polling those of the previous one. An aborted poll
    /// acknowledges nothing, so the transmitter sends its signals again.
    fn poll_signals(&mut self) {
        self.polls.drain(..).for_each(|task| task.abort());
        self.polls = signals::poll_all(&self.shared);
    }

    /// Watches the signing keys and API keys of the current policy, and stops watching those of the previous one.
    fn watch_keys(&mut self) {
        if let Some(task) = self.keys.take() {
            task.abort();
        }
        self.fetchers.follow(&self.shared, &self.settings.state_dir);
        self.interviewers.follow(&self.shared);
        self.checks.borrow_mut().follow(&self.shared);
        self.names.follow(&self.shared, &self.checks);
        if let Some(task) = self.api_keys.take() {
            task.abort();
        }
        let policy = self.shared.policy.load();
        if let Some(file) = &policy.api_key_file {
            self.api_keys =
                Some(tokio::task::spawn_local(api_keys::watch(self.shared.clone(), file.clone())));
        }
        if let Some(settings) = &policy.issuer_settings {
            let watcher = settings.keyring.watcher(Now::read());
            let issuer: Arc<str> = settings.issuer.as_str().into();
            self.keys = Some(tokio::task::spawn_local(keys::watch(self.shared.clone(), issuer, watcher)));
        }
    }
}

fn file_watch(path: &Path, settings: &ServerSettings, read: Now) -> Option<FileWatch> {
    let files = settings.watch.as_ref()?;
    let files = std::iter::once(path.to_owned()).chain(files.iter().cloned());
    Some(FileWatch::read_at(files.collect(), read))
}

/// Reads and compiles the file, and starts the services that the policy needs.
fn make(shared: &Shared, path: &Path, cores: usize) -> Result<Compiled, Vec<Diagnostic>> {
    let before = shared.policy.load();
    let compiled = review::read(path, MissingKey::Create, Some(&before))?;
    let compiled = review::run_tests(compiled, Now::read())?;
    if let Some(fault) = shared.certificates.as_ref().and_then(|served| unlike(served, &compiled)) {
        return Err(vec![fault]);
    }
    let mut compiled = review::try_spellings(compiled, Severity::Warning);
    compiled.policy.authority =
        match (&compiled.policy.issuer_settings, &before.issuer_settings, &before.authority) {
            (None, _, _) => None,
            (Some(settings), Some(known), Some(authority)) if settings.store == known.store => {
                Some(authority.clone())
            }
            (Some(settings), _, _) => match Authority::start(settings, cores, shared.journal.clone()) {
                Ok(authority) => Some(authority),
                Err(why) => return Err(vec![file_fault(path, &why)]),
            },
        };
    compiled.policy.signal_file =
        signals::file(&compiled.policy, Some(&before), &compiled.settings, &shared.journal)
            .map_err(|why| vec![file_fault(path, &why)])?;
    compiled.policy.link = super::shared::link(&compiled.policy, Some(&before), &shared.journal)
        .map_err(|why| vec![file_fault(path, &why)])?;
    Ok(compiled)
}

/// Returns a fault if clients would reject a certificate of the new policy, and accept the one that it replaces.
fn unlike(served: &Certificates, compiled: &Compiled) -> Option<Diagnostic> {
    let now = Now::read().unix;
    let invalid =
        |found: &&Diagnostic| matches!(found.id, "certificate_expired" | "certificate_not_yet_valid");
    compiled.warnings.iter().filter(invalid).find_map(|found| {
        let known = served.predecessor(compiled.settings.tls.pair_of(&found.key)?);
        let ends = known.filter(|shown| shown.holds(now))?.validity.map(|validity| rfc3339(validity.ends));
        let hint =
            format!("{} (the certificate in use is valid until {})", found.hint, ends.unwrap_or_default());
        Some(Diagnostic { severity: Severity::Fault, hint, ..found.clone() })
    })
}

/// Returns a fault of the whole file.
fn file_fault(path: &Path, why: &str) -> Diagnostic {
    Diagnostic {
        severity: Severity::Fault,
        id: "cannot_serve",
        place: Place::File(path.display().to_string()),
        key: String::new(),
        found: why.to_owned(),
        hint: String::new(),
        refers_to: None,
    }
}

pub(crate) fn log_finding(shared: &Shared, level: Level, what: &str, found: &Diagnostic) {
    let place = found.place.to_string();
    shared.journal.event(
        level,
        what,
        &[
            ("place", &place),
            ("key", &found.key),
            ("found", &found.found),
            ("right", &found.hint),
            ("help", &found.help()),
        ],
    );
}
