//! The servers of an upstream that serve now: those of the policy, or the addresses of their names.
//!
//! A name is resolved again when its addresses expire. An address that is new becomes a server, and a server whose address
//! is gone gets no further requests, while those in progress finish. While a name cannot be resolved, its last addresses
//! stay in use.

use super::check::{Check, CheckSettings};
use super::resolve::{Addresses, Endpoint, LOOKUP_MAX, LookupError, MissingHost, Nameservers, Question};
use super::server::Server;
use super::turns::Turns;
use crate::counter::Sharded;
use arc_swap::{ArcSwap, ArcSwapOption};
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The least and the greatest time between two lookups of a name, whatever the lifetime of its addresses.
const LIFETIME_MIN: Duration = Duration::from_secs(1);
const LIFETIME_MAX: Duration = Duration::from_secs(60);
/// The greatest time until a failed lookup is repeated. It doubles from [`LIFETIME_MIN`] with each failure.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Maximum number of addresses of one name. More are ignored.
const ADDRESSES_MAX: usize = 100;
/// Maximum length of an error in the log and in `/readyz?verbose`.
const ERROR_MAX: usize = 200;

/// Servers, their turns, and their checks.
#[derive(Debug)]
pub(crate) struct Members {
    /// The servers, of which there is at least one.
    pub(crate) servers: Box<[Arc<Server>]>,
    /// The order in which the servers take turns, by weight.
    pub(in crate::forward) turns: Turns,
    /// The active checks: one for each server, or none.
    pub(crate) checks: Vec<Arc<Check>>,
}

impl Members {
    /// Returns the weight of each server.
    pub(crate) fn weights(&self) -> &[u16] {
        &self.turns.weights
    }
}

/// The members of an upstream.
#[derive(Clone, Debug)]
pub(in crate::forward) enum Group {
    /// The servers have addresses, or resolve their names at each connection.
    Fixed(Arc<Members>),
    /// Some servers are the addresses of a name.
    Named(Arc<Names>),
}

/// The members at one moment.
#[derive(Debug)]
pub(crate) enum Current<'u> {
    /// Members that never change.
    Fixed(&'u Members),
    /// Members that may have been replaced meanwhile. Only the core that asks changes the outer reference count.
    Named(CoreMembers),
}

impl Deref for Current<'_> {
    type Target = Members;

    #[inline]
    fn deref(&self) -> &Members {
        match self {
            Self::Fixed(members) => members,
            Self::Named(members) => members,
        }
    }
}

/// A server of the policy, and its weight.
#[derive(Clone, Debug)]
pub(crate) struct Configured {
    pub(crate) server: Arc<Server>,
    pub(crate) weight: u16,
    /// Whether each address of the server's name is a server.
    pub(crate) is_expanded: bool,
}

/// The settings that all members of an upstream share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberSettings {
    /// The name of the upstream.
    pub(crate) upstream: Arc<str>,
    pub(crate) check: Option<Arc<CheckSettings>>,
    pub(crate) nameservers: Nameservers,
    pub(crate) slow_start: Duration,
}

/// An upstream's servers with names.
#[derive(Debug)]
pub(crate) struct Names {
    settings: MemberSettings,
    configured: Box<[Configured]>,
    current: ArcSwap<Members>,
    copies: Sharded<CoreCopy>,
    states: Mutex<Vec<State>>,
}

/// Members with a second reference count that only one core uses. With the shared count alone, a cache line would move
/// between the cores in each request.
#[allow(clippy::redundant_allocation, reason = "the outer count is the point: no other core touches it")]
type CoreMembers = Arc<Arc<Members>>;

/// A core's copy of the current members.
#[derive(Debug, Default)]
struct CoreCopy(ArcSwapOption<Arc<Members>>);

/// The state of one name.
#[derive(Clone, Debug, Default)]
struct State {
    /// The addresses in use; empty before the first answer.
    addresses: Vec<Endpoint>,
    /// The number of further addresses, which are ignored.
    ignored: usize,
    /// The number of failed lookups in a row, and the last error.
    failures: u32,
    error: Option<Box<str>>,
    /// The hosts of a service whose addresses are not known, with the reasons.
    missing: Vec<MissingHost>,
    /// The number of answered and of failed lookups.
    answered: u64,
    failed: u64,
}

impl State {
    /// Describes the hosts of a service whose addresses are not known. Empty if all are known.
    fn missing_hosts(&self) -> String {
        let hosts = self.missing.iter().map(|host| format!("{} ({})", host.name, host.error));
        hosts.collect::<Vec<_>>().join(", ").chars().take(ERROR_MAX).collect()
    }
}

/// The effect of a lookup.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Effect {
    /// The addresses that are new, and those that are gone.
    pub(crate) added: Vec<SocketAddr>,
    pub(crate) removed: Vec<SocketAddr>,
    /// Whether this is the first failure in a row, or the first success after a failure.
    pub(crate) turned: bool,
    /// The hosts of a service whose addresses are not known, if they are others than before. Empty if all are known.
    pub(crate) missing: Option<String>,
}

impl Members {
    fn new(servers: Vec<(Arc<Server>, u16)>, settings: &MemberSettings, before: &[Arc<Check>]) -> Self {
        let (servers, weights): (Vec<_>, Vec<_>) = servers.into_iter().unzip();
        assert!(!servers.is_empty(), "the compiler refuses an upstream without servers");
        let checks = settings.check.as_ref().map(|check| {
            let make = |server: &Arc<Server>| {
                let known = before.iter().find(|known| known.is_same(server, check)).cloned();
                known.unwrap_or_else(|| {
                    Arc::new(Check::new(settings.upstream.clone(), server.clone(), check.clone()))
                })
            };
            servers.iter().map(make).collect()
        });
        Self { turns: Turns::new(&weights), servers: servers.into(), checks: checks.unwrap_or_default() }
    }
}

impl Group {
    /// Creates the members of an upstream for this number of cores. `known` returns the equal server of the previous policy, if there is one, and
    /// `before` is the upstream's group in the previous policy.
    pub(in crate::forward) fn new(
        cores: usize,
        settings: MemberSettings,
        configured: Vec<Configured>,
        before: Option<&Self>,
        known: &dyn Fn(Server) -> Arc<Server>,
    ) -> Self {
        let current = before.map(Self::current);
        let checks = current.as_ref().map_or(&[][..], |members| &members.checks);
        if !configured.iter().any(|configured| configured.is_expanded) {
            let servers = configured.into_iter().map(|configured| (configured.server, configured.weight));
            return Self::Fixed(Arc::new(Members::new(servers.collect(), &settings, checks)));
        }
        let names = match before {
            Some(Self::Named(names)) => Some(names),
            Some(Self::Fixed(_)) | None => None,
        };
        if let Some(names) = names.filter(|names| names.is_same(&settings, &configured)) {
            return Self::Named(names.clone());
        }
        // The addresses that are known stay in use until the first lookup.
        let state = |configured: &Configured| {
            let origin = &configured.server.origin;
            let names = names.filter(|names| names.settings.nameservers == settings.nameservers)?;
            let at = names.configured.iter().position(|known| known.server.origin == *origin)?;
            Some(names.states().get(at)?.clone())
        };
        let states: Vec<_> = configured.iter().map(|it| state(it).unwrap_or_default()).collect();
        let servers = servers(&configured, &states, &mut |server| known(server));
        let members = Members::new(servers, &settings, checks);
        Self::Named(Arc::new(Names {
            settings,
            configured: configured.into(),
            current: ArcSwap::from_pointee(members),
            copies: Sharded::new(cores),
            states: Mutex::new(states),
        }))
    }

    /// Returns the members at this moment.
    pub(in crate::forward) fn current(&self) -> Current<'_> {
        match self {
            Self::Fixed(members) => Current::Fixed(members),
            Self::Named(names) => Current::Named(Arc::new(names.current.load_full())),
        }
    }

    /// Returns the members at this moment, for a request of this core.
    #[inline]
    pub(in crate::forward) fn of_core(&self, core: usize) -> Current<'_> {
        match self {
            Self::Fixed(members) => Current::Fixed(members),
            Self::Named(names) => Current::Named(names.of_core(core)),
        }
    }
}

/// Returns the servers for these addresses. A name without known addresses is a server that resolves its name at each
/// connection.
fn servers(
    configured: &[Configured],
    states: &[State],
    known: &mut dyn FnMut(Server) -> Arc<Server>,
) -> Vec<(Arc<Server>, u16)> {
    let mut servers = Vec::new();
    for (Configured { server, weight, is_expanded }, state) in configured.iter().zip(states) {
        if !is_expanded || state.addresses.is_empty() {
            servers.push((server.clone(), *weight));
        } else {
            let at = |endpoint: &Endpoint| {
                (known(server.at_address(endpoint.address)), endpoint.weight.unwrap_or(*weight))
            };
            servers.extend(state.addresses.iter().map(at));
        }
    }
    servers
}

impl Names {
    fn of_core(&self, core: usize) -> CoreMembers {
        let current = self.current.load();
        let Some(CoreCopy(copy)) = self.copies.of(core) else { return Arc::new(Arc::clone(&current)) };
        if let Some(known) = copy.load_full().filter(|known| Arc::ptr_eq(known.as_ref(), &*current)) {
            return known;
        }
        let new = Arc::new(Arc::clone(&current));
        copy.store(Some(new.clone()));
        new
    }

    fn is_same(&self, settings: &MemberSettings, configured: &[Configured]) -> bool {
        let is_same = |one: &Configured, other: &Configured| {
            Arc::ptr_eq(&one.server, &other.server)
                && (one.weight, one.is_expanded) == (other.weight, other.is_expanded)
        };
        self.settings == *settings
            && self.configured.len() == configured.len()
            && self.configured.iter().zip(configured).all(|(one, other)| is_same(one, other))
    }

    fn states(&self) -> std::sync::MutexGuard<'_, Vec<State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the servers of the policy.
    pub(in crate::forward) fn configured(&self) -> &[Configured] {
        &self.configured
    }

    /// Returns the name of the upstream.
    pub(crate) fn upstream(&self) -> &Arc<str> {
        &self.settings.upstream
    }

    /// Returns the indexes of the names to resolve, and the names.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = (usize, &str)> {
        let expanded = self.configured.iter().enumerate().filter(|(_, configured)| configured.is_expanded);
        expanded.map(|(at, configured)| match configured.server.question() {
            Question::Host(name, _) | Question::Service(name) => (at, name),
        })
    }

    /// Resolves a name.
    pub(crate) async fn lookup(&self, at: usize) -> Result<Addresses, LookupError> {
        match self.configured.get(at) {
            Some(configured) => {
                self.settings.nameservers.lookup(configured.server.question(), LOOKUP_MAX).await
            }
            None => Err(LookupError::NoAddress),
        }
    }

    /// Uses the result of a lookup. Returns the effect, and the time until the next lookup.
    pub(crate) fn record(
        &self,
        at: usize,
        result: Result<Addresses, LookupError>,
        now: Instant,
    ) -> (Effect, Duration) {
        let mut states = self.states();
        let Some(state) = states.get_mut(at) else { return (Effect::default(), LIFETIME_MAX) };
        let Addresses { all: mut addresses, lifetime, missing } = match result {
            Ok(addresses) => addresses,
            Err(error) => {
                state.failed += 1;
                let wait = LIFETIME_MIN.saturating_mul(1 << state.failures.min(10)).min(RETRY_MAX);
                state.failures = state.failures.saturating_add(1);
                state.error = Some(error.to_string().chars().take(ERROR_MAX).collect());
                return (Effect { turned: state.failures == 1, ..Effect::default() }, wait);
            }
        };
        state.answered += 1;
        // The last addresses of a host that gave no answer stay in use.
        let is_silent = |endpoint: &&Endpoint| {
            let mut silent = missing.iter().filter(|host| host.error != LookupError::NoAddress);
            silent.any(|host| host.hash == endpoint.host)
        };
        addresses.extend(state.addresses.iter().filter(is_silent));
        addresses.sort_unstable();
        addresses.dedup_by_key(|endpoint| endpoint.address);
        let is_same = missing.iter().map(|host| host.hash).eq(state.missing.iter().map(|host| host.hash));
        state.missing = missing;
        let missing = (!is_same).then(|| state.missing_hosts());
        state.ignored = addresses.len().saturating_sub(ADDRESSES_MAX);
        addresses.truncate(ADDRESSES_MAX);
        let turned = std::mem::take(&mut state.failures) > 0;
        state.error = None;
        let before = std::mem::replace(&mut state.addresses, addresses.clone());
        let without = |all: &[Endpoint], other: &[Endpoint]| -> Vec<SocketAddr> {
            let is_other = |address| other.iter().any(|endpoint| endpoint.address == address);
            all.iter().map(|endpoint| endpoint.address).filter(|address| !is_other(*address)).collect()
        };
        let (added, removed) = (without(&addresses, &before), without(&before, &addresses));
        // Weights may have changed, too.
        if addresses != before {
            let current = self.current.load_full();
            let slow = !self.settings.slow_start.is_zero() && !before.is_empty();
            let mut known = |server: Server| {
                let known = current.servers.iter().find(|known| known.origin == server.origin);
                known.cloned().unwrap_or_else(|| {
                    if slow {
                        server.health.begin_slow_start(now);
                    }
                    Arc::new(server)
                })
            };
            let servers = servers(&self.configured, &states, &mut known);
            self.current.store(Arc::new(Members::new(servers, &self.settings, &current.checks)));
        }
        (Effect { added, removed, turned, missing }, lifetime.clamp(LIFETIME_MIN, LIFETIME_MAX))
    }

    /// Returns whether a server at an address of a name is down, or fails its checks.
    pub(crate) fn has_server_down(&self, at: usize) -> bool {
        let (states, current) = (self.states(), self.current.load());
        let is_of_name = |address| {
            states.get(at).is_some_and(|state| state.addresses.iter().any(|it| Some(it.address) == address))
        };
        current.servers.iter().any(|server| is_of_name(server.address) && !server.health.is_up())
    }

    /// Returns the last error of a name, and whether the name has addresses in use.
    pub(crate) fn error(&self, at: usize) -> Option<(Box<str>, bool)> {
        let states = self.states();
        let state = states.get(at)?;
        Some((state.error.clone()?, !state.addresses.is_empty()))
    }

    /// Describes the nameservers that are asked.
    pub(crate) async fn nameservers(&self) -> String {
        self.settings.nameservers.describe().await
    }

    /// Returns each name with its number of addresses.
    pub(crate) fn counts(&self) -> Vec<(&str, usize)> {
        let states = self.states();
        self.wanted().map(|(at, name)| (name, states[at].addresses.len())).collect()
    }

    /// Returns each name with its numbers of answered and of failed lookups.
    pub(crate) fn lookups(&self) -> Vec<(&str, [(&'static str, u64); 2])> {
        let states = self.states();
        let counts = |state: &State| [("answered", state.answered), ("failed", state.failed)];
        self.wanted().map(|(at, name)| (name, counts(&states[at]))).collect()
    }

    /// Describes the names, in one line for each.
    pub(crate) fn lines(&self) -> String {
        let (states, upstream) = (self.states(), &self.settings.upstream);
        let line = |(at, name): (usize, &str)| {
            let State { addresses, ignored, error, .. } = &states[at];
            let count = match (addresses.len(), error) {
                (0, None) => "not resolved yet".to_owned(),
                (0, Some(error)) => format!("cannot be resolved, so each connection tries it: {error}"),
                (count, None) if *ignored == 0 => format!("{count} addresses"),
                (count, None) => format!("{count} addresses, and {ignored} more that are ignored"),
                (count, Some(error)) => {
                    format!("cannot be resolved, so its last {count} addresses stay: {error}")
                }
            };
            let missing = match states[at].missing_hosts() {
                hosts if hosts.is_empty() => String::new(),
                hosts => format!(", without those of {hosts}"),
            };
            format!("upstream {upstream}: name {name}: {count}{missing}\n")
        };
        self.wanted().map(line).collect()
    }
}

#[cfg(test)]
mod tests;
