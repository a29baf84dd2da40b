//! Text becomes policy: names resolved, keys loaded, every fault collected.
//!
//! One pass over the whole file, from the parts that others refer to down to the routes. Nothing stops at the first
//! fault: the operator gets them all at once.

mod admission;
mod authority;
mod cases;
mod endpoints;
mod limits;
mod lint;
mod routes;
mod secrets;
mod trust;
mod upstreams;

use super::{Front, Policy, Sifted, Waivers};
use crate::authenticate::Trust;
use crate::authority::Absent;
use crate::clock::Now;
use crate::config::Loaded;
use crate::config::file::{self, File};
use crate::config::units::Secret;
use crate::diagnostic::{Diagnostic, Place, Severity, TOLD_MAX};
use crate::explain::case::{self, Case};
use crate::explain::spelling;
use crate::forward::BodyBounds;
use crate::journal::{Level, Style};
use crate::limit::Limit;
use crate::plan::{AccessLog, Plan};
use crate::policy::findings::{Kind, kind};
use crate::route::head::HeadBounds;
use crate::route::path::Slashes;
use crate::tls::{Files, MinVersion};
use http::HeaderValue;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Each worker is a thread with its own sockets and counters: more than this is a slip of the pen.
const CORES_MAX: usize = 1024;
/// Recent decisions beyond this are a log's business.
const DECISIONS_MAX: usize = 100_000;

/// Different claims that a policy may look at. Each remembered token has a place for each of them.
const CLAIMS_MAX: usize = 1000;

/// What a file compiles to.
#[derive(Debug)]
pub struct Compiled {
    /// What the gateway obeys.
    pub policy: Policy,
    /// What is fixed from start to end of the process.
    pub plan: ServerPlan,
    /// The policy's own tests, which nobody has run yet.
    pub cases: Vec<Case>,
    /// Whether a policy whose tests fail is served all the same.
    pub lenient: bool,
    /// Where the path of each route of the file stands.
    pub route_places: Vec<Place>,
    /// What the file accepts of that.
    pub waivers: Waivers,
    /// What an operator should look at, though it can be served; what the file accepts is among it.
    pub warnings: Vec<Diagnostic>,
}

/// Where to listen, and how: read once at start.
#[derive(Clone, Debug)]
pub struct ServerPlan {
    /// Addresses for TLS.
    pub https: Vec<SocketAddr>,
    /// Addresses for cleartext.
    pub http: Vec<SocketAddr>,
    /// Addresses for the admin listener.
    pub admin: Vec<SocketAddr>,
    /// Whether cleartext is sent to TLS instead of served.
    pub redirect: bool,
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
    pub worker: Plan,
}

impl ServerPlan {
    /// What another plan asks for that this process, which was started with this one, does not do: each with the key that
    /// says it, as a warning. `file` is where it stands.
    pub fn restart_needed(&self, other: &Self, file: &Path) -> Vec<Diagnostic> {
        let (ours, theirs) = (&self.worker, &other.worker);
        let differs = [
            ("server.https", self.https != other.https),
            ("server.http", self.http != other.http),
            ("server.admin", self.admin != other.admin),
            ("server.plain", self.redirect != other.redirect),
            ("server.workers", self.cores != other.cores),
            ("tls.min_version", self.min_version != other.min_version),
            ("server.drain", ours.drain != theirs.drain),
            ("server.bounds.header_timeout", ours.header_timeout != theirs.header_timeout),
            ("server.bounds.header_size", ours.header_size != theirs.header_size),
            ("server.bounds.headers", ours.header_count != theirs.header_count),
            ("server.bounds.body_timeout", ours.body_timeout != theirs.body_timeout),
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
            found: "changed, and fixed from the start of the process to its end".to_owned(),
            hint: "a restart".to_owned(),
        };
        differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| warning(key)).collect()
    }
}

impl Compiled {
    /// Tries each route in odd spellings, and tells those that get past one.
    #[must_use]
    pub fn attacked(mut self, severity: Severity) -> Self {
        let found = spelling::attack(&self.policy, &self.route_places, severity);
        let Sifted { left, waived } = self.waivers.sift(found);
        self.warnings.extend(spelling::bounded(left));
        self.warnings.extend(waived.into_iter().map(|waived| waived.finding));
        self
    }

    /// What is told of a policy that is served: weaknesses that the file does not accept.
    pub fn weaknesses(&self) -> Vec<Diagnostic> {
        let mut left = self.waivers.sift(self.warnings.clone()).left;
        left.retain(|found| kind(found.id) != Some(Kind::Advice));
        Diagnostic::bounded(left)
    }

    /// Runs the policy's own tests. Those that fail are told, and are a reason not to serve it unless it says otherwise.
    ///
    /// # Errors
    /// The tests that failed, with the warnings.
    pub fn tried(mut self, now: Now) -> Result<Self, Vec<Diagnostic>> {
        let severity = if self.lenient { Severity::Warning } else { Severity::Fault };
        let mut failures = case::failures(&self.policy, &self.cases, severity, now);
        if self.lenient || failures.is_empty() {
            self.warnings.extend(failures);
            return Ok(self);
        }
        failures.extend(self.weaknesses());
        Err(Diagnostic::bounded(failures))
    }
}

/// Gathers faults and warnings as the parts of a file are compiled.
struct Faults<'l> {
    loaded: &'l Loaded,
    found: Vec<Diagnostic>,
    /// How many faults there are: not all of them are kept, since each takes time to find the place of.
    faults: usize,
}

impl Faults<'_> {
    fn fault(&mut self, id: &'static str, key: &str, found: impl Into<String>, hint: impl Into<String>) {
        self.add(Severity::Fault, id, key, found.into(), hint.into());
    }

    fn warn(&mut self, id: &'static str, key: &str, found: impl Into<String>, hint: impl Into<String>) {
        self.add(Severity::Warning, id, key, found.into(), hint.into());
    }

    fn add(&mut self, severity: Severity, id: &'static str, key: &str, found: String, hint: String) {
        let is_fault = severity == Severity::Fault;
        debug_assert_eq!(kind(id).map(|kind| kind == Kind::Fault), Some(is_fault), "{id} in findings");
        self.faults += usize::from(is_fault);
        // Of warnings none is left out here: the file may accept the first hundred.
        if severity == Severity::Warning || self.faults <= TOLD_MAX {
            let place = self.loaded.places.of(key);
            self.found.push(Diagnostic { severity, id, place, key: key.to_owned(), found, hint });
        }
    }

    /// A file that the policy names, relative to the policy's own folder.
    fn path(&self, text: &str) -> PathBuf {
        self.loaded.base.join(text)
    }

    /// Whether another fault would not be told: then nobody need find out what would be right.
    const fn is_full(&self) -> bool {
        self.faults >= TOLD_MAX
    }

    /// What was found, in the order in which it stands in the file.
    fn told(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(Diagnostic::order);
        if self.faults == 0 {
            return self.found;
        }
        let mut told = Diagnostic::bounded(self.found);
        if let Some(more @ 1..) = self.faults.checked_sub(TOLD_MAX) {
            let found = format!("{more} more fault{}", if more == 1 { "" } else { "s" });
            told.push(Diagnostic::more(Severity::Fault, self.loaded.places.whole(), found));
        }
        told
    }
}

/// Compiles a file. `absent` says whether a signing key that is not there yet is made.
///
/// # Errors
/// All faults, with the warnings among them, in the order in which they stand in the file.
pub fn compile(loaded: &Loaded, absent: Absent) -> Result<Compiled, Vec<Diagnostic>> {
    compile_policy(loaded, absent, None)
}

/// Compiles a file to a policy that comes after another. What stays the same goes on: counts of limits and routes,
/// what is known of servers, verified tokens, signing keys and what was revoked.
///
/// # Errors
/// As [`compile`]. The policy before is as it was.
pub fn compile_after(loaded: &Loaded, absent: Absent, before: &Policy) -> Result<Compiled, Vec<Diagnostic>> {
    compile_policy(loaded, absent, Some(before))
}

fn compile_policy(
    loaded: &Loaded,
    absent: Absent,
    before: Option<&Policy>,
) -> Result<Compiled, Vec<Diagnostic>> {
    let file = &loaded.file;
    let mut faults = Faults { loaded, found: Vec::new(), faults: 0 };

    let plan = plan(file, &mut faults);
    let front = front(file, &mut faults);
    let terms_before = before.and_then(|before| before.terms.as_deref());
    let terms = authority::compile(file, absent, terms_before, &mut faults).map(Arc::new);
    let mut claims = trust::Claims::default();
    let (identity, proofs) = trust::identity(file, &mut claims, terms.as_deref(), &mut faults);
    let issuers = trust::issuers(file, terms.as_deref(), &mut faults);
    let upstreams = upstreams::compile(file, before.map_or(&[], |before| &before.upstreams), &mut faults);
    let audiences = upstreams::audiences(file, &mut faults);
    let limits = limits::compile(file, &mut claims, before, &mut faults);
    let known = routes::Known {
        upstreams: &upstreams,
        audiences: &audiences,
        limits: &limits,
        terms: terms.as_deref(),
        counted: routes::Counted::after(before, plan.cores),
    };
    let (routes, table) = routes::compile(file, &known, &mut claims, &mut faults);

    nobody_to_trust(file, &mut faults);
    let cases = cases::compile(file, &routes, &mut faults);
    lint::waivers(file, &mut faults);

    if claims.count() > CLAIMS_MAX {
        faults.fault(
            "too_many",
            "route",
            format!("{} different claims in this file", claims.count()),
            format!("at most {CLAIMS_MAX}: what each token says of every one is kept"),
        );
    }
    if faults.faults > 0 {
        return Err(Waivers::of(loaded).sift(faults.told()).left);
    }
    let table = table.ok_or_else(Vec::new)?;
    let mut trust = Trust::new(issuers, claims.into_paths(), identity);
    if let Some(terms) = &terms {
        let cookies = terms.cookies.as_ref().map(|cookies| cookies.names.clone());
        trust = trust.with_local(cookies, terms.origins.clone(), terms.revoked.clone());
    }
    if let Some(before) = before {
        trust = trust.going_on(&before.trust);
    }
    let policy = Policy {
        table: Arc::new(table),
        routes: routes.into(),
        trust: Arc::new(trust),
        terms,
        authority: None,
        front: Arc::new(front),
        proofs: Arc::new(proofs),
        upstreams: upstreams.into_values().flatten().collect(),
        limits: limits.into_values().collect::<Vec<Arc<Limit>>>().into(),
    };
    lint::lint(file, &policy, &plan, &cases, &mut faults);
    let lenient = file.policy.tests == file::Tests::Warn;
    let route_places = (0..file.route.len()).map(|index| loaded.places.of(&format!("route[{index}].path")));
    let route_places = route_places.collect();
    let waivers = Waivers::of(loaded);
    Ok(Compiled { waivers, route_places, policy, plan, cases, lenient, warnings: faults.told() })
}

/// The files that a policy is made of beside its own: keys, secrets, whom to trust.
fn referred(file: &File, faults: &Faults<'_>) -> Vec<PathBuf> {
    let of_secret = |secret: &Option<Secret>| match secret {
        Some(Secret::File(path)) => Some(faults.path(path)),
        Some(Secret::Environment(_) | Secret::Literal(_)) | None => None,
    };
    let mut files = Vec::new();
    for issuer in &file.issuer {
        files.extend(issuer.jwks.as_deref().map(|path| faults.path(path)));
        files.extend(of_secret(&issuer.secret));
        files.extend(of_secret(&issuer.public_key));
    }
    for upstream in file.upstream.values() {
        files.extend(upstream.ca.as_deref().map(|path| faults.path(path)));
        files.extend(of_secret(&upstream.identity_secret));
    }
    if let Some(authority) = &file.authority {
        files.extend(of_secret(&authority.secret));
        files.extend(of_secret(&authority.store));
        files.extend(authority.client.values().filter_map(|client| of_secret(&client.secret)));
    }
    files
}

/// A route that asks for a token, in a policy that trusts nobody's, refuses everybody: nobody means that.
fn nobody_to_trust(file: &File, faults: &mut Faults<'_>) {
    let trusts = !file.issuer.is_empty() || file.authority.is_some();
    let guarded = file.route.iter().position(|route| route.access == file::Access::Authenticated);
    if let (false, Some(index)) = (trusts, guarded) {
        faults.fault(
            "nobody_to_trust",
            &format!("route[{index}].path"),
            "a route that asks for a token, and nobody whose tokens are accepted",
            "an [[issuer]] or an [authority]; or access = \"public\" where anybody may pass",
        );
    }
}

fn front(file: &File, faults: &mut Faults<'_>) -> Front {
    let bounds = &file.server.bounds;
    if file.server.trusted_proxies.iter().any(|network| network.is_everything()) {
        faults.warn(
            "trusts_everybody",
            "server.trusted_proxies",
            "a network that holds every address: any client can pass for any other",
            "name the addresses of the proxies in front of the gateway",
        );
    }
    let hsts = file.tls.as_ref().map_or(file::Tls::default().hsts, |tls| tls.hsts.clone());
    let hsts = match hsts.as_str() {
        "" => None,
        text => match HeaderValue::from_str(text) {
            Ok(value) => Some(value),
            Err(_) => {
                faults.fault("bad_value", "tls.hsts", "no header value", "such as \"max-age=31536000\"");
                None
            }
        },
    };
    Front {
        head_bounds: HeadBounds { header_count: bounds.headers, header_bytes: bounds.header_size.as_usize() },
        body_bounds: BodyBounds { size: bounds.body_size.as_u64(), timeout: bounds.body_timeout.into() },
        slashes: match file.server.paths {
            file::Paths::Strict => Slashes::Strict,
            file::Paths::Merge => Slashes::Merge,
        },
        trusted_proxies: file.server.trusted_proxies.clone().into(),
        hsts,
        forward_token: file.identity.forward_token,
        keeps_decisions: file.policy.decisions > 0,
        redirect: file.server.plain == file::Plain::Redirect && !file.server.https.addresses().is_empty(),
    }
}

/// How many recent decisions are kept. Each takes up to 2 KiB.
fn decisions(file: &File, faults: &mut Faults<'_>) -> usize {
    let decisions = file.policy.decisions;
    if decisions > DECISIONS_MAX {
        faults.fault(
            "bad_value",
            "policy.decisions",
            format!("{decisions}: more than are kept in memory"),
            format!("a number up to {DECISIONS_MAX}; 0 keeps none"),
        );
    }
    decisions.min(DECISIONS_MAX)
}

fn plan(file: &File, faults: &mut Faults<'_>) -> ServerPlan {
    let server = &file.server;
    let bounds = &server.bounds;
    let https = server.https.addresses().to_vec();
    let http = server.http.addresses().to_vec();
    if https.is_empty() && http.is_empty() {
        faults.fault(
            "nothing_served",
            "server",
            "neither https nor http has an address",
            "give one of them an address",
        );
    }
    let redirect = server.plain == file::Plain::Redirect;
    if redirect && https.is_empty() && !http.is_empty() {
        faults.fault(
            "nothing_to_redirect_to",
            "server.plain",
            "\"redirect\" while [server] https is off",
            "turn https on, or say plain = \"serve\"",
        );
    }
    if https.len() > 1 && redirect && https.iter().any(|address| address.port() != https[0].port()) {
        faults.warn(
            "redirect_port",
            "server.https",
            format!("several ports: cleartext is redirected to the first, {}", https[0].port()),
            "put the port that clients should use first",
        );
    }
    for (key, duration) in [
        ("server.bounds.header_timeout", Duration::from(bounds.header_timeout)),
        ("server.bounds.body_timeout", bounds.body_timeout.into()),
        ("server.bounds.idle_timeout", bounds.idle_timeout.into()),
    ] {
        if duration.is_zero() {
            faults.fault("bad_value", key, "0: nothing could arrive in time", "a duration such as \"30s\"");
        }
    }
    if bounds.header_size.as_usize() < 1024 {
        faults.fault(
            "bad_value",
            "server.bounds.header_size",
            "less than 1KiB",
            "at least \"1KiB\"; the default is \"32KiB\"",
        );
    }
    for (key, number) in [
        ("server.bounds.headers", bounds.headers),
        ("server.bounds.connections", bounds.connections),
        ("server.bounds.streams", bounds.streams as usize),
    ] {
        if number == 0 {
            faults.fault("bad_value", key, "0: nothing could be served", "a number of at least 1");
        }
    }
    let tls = file.tls.clone().unwrap_or_default();
    let certificate = match (tls.certificate.as_str(), tls.key.as_str()) {
        ("", "") => None,
        ("", _) => {
            faults.fault("half_a_pair", "tls.key", "a key without its certificate", "add [tls] certificate");
            None
        }
        (_, "") => {
            faults.fault("half_a_pair", "tls.certificate", "a certificate without its key", "add [tls] key");
            None
        }
        (certificate, key) => Some(Files { certificate: faults.path(certificate), key: faults.path(key) }),
    };
    let min_version = match tls.min_version {
        file::TlsVersion::Tls12 => MinVersion::Tls12,
        file::TlsVersion::Tls13 => MinVersion::Tls13,
    };
    if let Some(files) = &certificate
        && let Err(why) = crate::tls::Certificates::open(files.clone())
    {
        faults.fault(
            "bad_certificate",
            "tls.certificate",
            why,
            "PEM files of a certificate chain and its key",
        );
    }
    let human = match file.log.format {
        file::LogFormat::Human => true,
        file::LogFormat::Json => false,
        file::LogFormat::Auto => std::io::stdout().is_terminal(),
    };
    let cores = match server.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers if workers <= CORES_MAX => workers,
        workers => {
            let hint = format!("at most {CORES_MAX}; 0 for one a core");
            faults.fault("bad_value", "server.workers", workers.to_string(), hint);
            1
        }
    };
    ServerPlan {
        watch: (server.reload == file::Reload::Watch).then(|| referred(file, faults)),
        cores,
        https,
        http,
        admin: server.admin.addresses().to_vec(),
        redirect,
        certificate,
        min_version,
        state_dir: faults.path(&file.state.dir),
        level: match file.log.level {
            file::LogLevel::Error => Level::Error,
            file::LogLevel::Warn => Level::Warn,
            file::LogLevel::Info => Level::Info,
            file::LogLevel::Debug => Level::Debug,
        },
        worker: Plan {
            header_timeout: bounds.header_timeout.into(),
            idle_timeout: bounds.idle_timeout.into(),
            body_timeout: bounds.body_timeout.into(),
            header_size: bounds.header_size.as_usize(),
            header_count: bounds.headers,
            streams: bounds.streams,
            connections_max: bounds.connections,
            drain: server.drain.into(),
            access: match file.log.access {
                file::LogAccess::On => AccessLog::On,
                file::LogAccess::Refusals => AccessLog::Refusals,
                file::LogAccess::Off => AccessLog::Off,
            },
            style: if human { Style::Human } else { Style::Json },
            decisions: decisions(file, faults),
        },
    }
}
