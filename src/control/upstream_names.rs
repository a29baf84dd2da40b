//! Resolves the names of upstream servers when their addresses expire, with one task per upstream.

use super::tasks::Tasks;
use super::upstream_checks::UpstreamChecks;
use crate::forward::{Effect, Names};
use crate::journal::Level;
use crate::worker::Shared;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Maximum number of addresses in one event of the log.
const LOGGED_MAX: usize = 10;

/// The time between two lookups of a name while one of its servers is down.
const DOWN_WAIT: Duration = Duration::from_secs(5);
/// The interval at which a wait for the end of a lifetime looks at the servers.
const LOOK: Duration = Duration::from_secs(1);

/// The tasks that resolve the names of the current policy.
#[derive(Debug, Default)]
pub(super) struct UpstreamNames(Tasks<Names>);

impl UpstreamNames {
    /// Starts and stops tasks to match the current policy. `checks` follow each change of addresses.
    pub(super) fn follow(&mut self, shared: &Arc<Shared>, checks: &Rc<RefCell<UpstreamChecks>>) {
        let policy = shared.policy.load();
        let wanted = policy.upstreams.iter().filter_map(|upstream| upstream.names().cloned()).collect();
        let start = |names| tokio::task::spawn_local(keep_all(shared.clone(), checks.clone(), names));
        self.0.follow(wanted, start, |_| {});
    }
}

/// Resolves all names of an upstream. Never returns.
async fn keep_all(shared: Arc<Shared>, checks: Rc<RefCell<UpstreamChecks>>, names: Arc<Names>) {
    let mut tasks = JoinSet::new();
    for (at, name) in names.wanted() {
        tasks.spawn_local(keep(shared.clone(), checks.clone(), names.clone(), at, name.to_owned()));
    }
    while tasks.join_next().await.is_some() {}
}

/// Resolves one name again and again. Never returns.
async fn keep(
    shared: Arc<Shared>,
    checks: Rc<RefCell<UpstreamChecks>>,
    names: Arc<Names>,
    at: usize,
    name: String,
) {
    loop {
        let result = names.lookup(at).await;
        let failed = result.is_err();
        let (effect, wait) = names.record(at, result, Instant::now());
        if effect.turned && failed {
            report_failure(&shared, &names, at, &name, wait).await;
        } else {
            report(&shared, &names, &name, &effect);
        }
        if !effect.added.is_empty() || !effect.removed.is_empty() {
            checks.borrow_mut().follow(&shared);
        }
        until_expired(&names, at, wait).await;
    }
}

/// Waits until the addresses of a name expire. If one of their servers is down, it may have another address by now, so the
/// wait is shorter: some nameservers give the addresses of containers a lifetime of a day
/// (findings/podman-names-last-a-day.sh).
async fn until_expired(names: &Names, at: usize, lifetime: Duration) {
    let mut waited = Duration::ZERO;
    while waited < lifetime && (waited < DOWN_WAIT || !names.has_server_down(at)) {
        let step = LOOK.min(lifetime - waited);
        tokio::time::sleep(step).await;
        waited += step;
    }
}

/// Reports the first of several failed lookups. `wait` is the time until the next one.
async fn report_failure(shared: &Shared, names: &Names, at: usize, name: &str, wait: Duration) {
    let Some((error, is_known)) = names.error(at) else { return };
    let text = match is_known {
        true => "the name of an upstream server cannot be resolved; its last addresses stay in use",
        false => "the name of an upstream server cannot be resolved, and it has no known address",
    };
    let (nameservers, wait) = (names.nameservers().await, format!("{wait:?}"));
    let fields = [
        ("upstream", &**names.upstream()),
        ("name", name),
        ("nameservers", &*nameservers),
        ("error", &*error),
        ("next_try_in", &*wait),
    ];
    shared.journal.event(Level::Warn, text, &fields);
}

fn report(shared: &Shared, names: &Names, name: &str, effect: &Effect) {
    let upstream = &**names.upstream();
    if effect.turned {
        let fields = [("upstream", upstream), ("name", name)];
        shared.journal.event(Level::Info, "the name of an upstream server can be resolved again", &fields);
    }
    match effect.missing.as_deref() {
        Some("") => {
            let fields = [("upstream", upstream), ("name", name)];
            shared.journal.event(Level::Info, "all hosts of an upstream service can be resolved", &fields);
        }
        Some(hosts) => {
            let fields = [("upstream", upstream), ("name", name), ("hosts", hosts)];
            let text = "hosts of an upstream service cannot be resolved; the others are in use";
            shared.journal.event(Level::Warn, text, &fields);
        }
        None => {}
    }
    if !effect.added.is_empty() || !effect.removed.is_empty() {
        let (added, removed) = (listed(&effect.added), listed(&effect.removed));
        let fields = [("upstream", upstream), ("name", name), ("added", &added), ("removed", &removed)];
        shared.journal.event(Level::Info, "the addresses of an upstream server changed", &fields);
    }
}

fn listed(addresses: &[SocketAddr]) -> String {
    let first = addresses.iter().take(LOGGED_MAX).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match addresses.len().saturating_sub(LOGGED_MAX) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}
