//! Checks the servers of upstreams, with one task per server, and reports the state of the servers.

use super::tasks::Tasks;
use crate::forward::{Check, Upstream};
use crate::journal::Level;
use crate::worker::Shared;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// The tasks that check the servers of the current policy.
#[derive(Debug, Default)]
pub(super) struct UpstreamChecks(Tasks<Check>);

impl UpstreamChecks {
    /// Starts and stops tasks to match the current policy. A server that is still checked in the same way keeps its
    /// task.
    pub(super) fn follow(&mut self, shared: &Arc<Shared>) {
        let policy = shared.policy.load();
        let wanted: Vec<_> =
            policy.upstreams.iter().flat_map(|upstream| upstream.members().checks.clone()).collect();
        let is_checked =
            |check: &Check| wanted.iter().any(|wanted| Arc::ptr_eq(&wanted.server, &check.server));
        // Results of checks that no longer run must not keep a server out of use.
        let stopped = |check: &Check| {
            if !is_checked(check) {
                check.server.end_checks();
            }
        };
        let start = |check| tokio::task::spawn_local(keep_checking(shared.clone(), check));
        self.0.follow(wanted.clone(), start, stopped);
    }
}

/// Checks one server in intervals. Never returns.
async fn keep_checking(shared: Arc<Shared>, check: Arc<Check>) {
    let interval = check.settings.interval;
    // Gateways that start together must not check in step.
    let mut wait = interval.mul_f64(0.1 * random());
    loop {
        tokio::time::sleep(wait).await;
        match check.run().await {
            Some(true) => {
                let fields = [("upstream", &*check.upstream), ("server", &*check.server.origin)];
                shared.journal.event(Level::Info, "an upstream server is up again", &fields);
            }
            Some(false) => {
                let error = check.error().unwrap_or_default();
                let error = format!("check: {error}");
                let fields =
                    [("upstream", &*check.upstream), ("server", &check.server.origin), ("error", &error)];
                shared.journal.event(Level::Warn, "an upstream server is down", &fields);
            }
            None => {}
        }
        wait = interval.mul_f64(0.9 + 0.2 * random());
    }
}

/// Returns a random number from 0 to 1.
fn random() -> f64 {
    let bits = u32::try_from(RandomState::new().hash_one(()) >> 32).unwrap_or_default();
    f64::from(bits) / f64::from(u32::MAX)
}

/// Describes the upstreams with a name, a check or a server that is down, in one line per name, upstream and such server.
pub(super) fn lines(upstreams: &[Arc<Upstream>]) -> String {
    upstreams.iter().map(|upstream| upstream_lines(upstream)).collect()
}

fn upstream_lines(upstream: &Upstream) -> String {
    let members = upstream.members();
    let mut lines = upstream.names().map(|names| names.lines()).unwrap_or_default();
    let up = members.servers.iter().filter(|server| server.is_up()).count();
    if members.checks.is_empty() && up == members.servers.len() {
        return lines;
    }
    lines.push_str(&format!("upstream {}: {up} of {} servers up\n", upstream.name, members.servers.len()));
    for server in members.servers.iter().filter(|server| !server.is_up()) {
        let check = members.checks.iter().find(|check| Arc::ptr_eq(&check.server, server));
        let why = match check.and_then(|check| check.error()) {
            Some(error) => format!("check: {error}"),
            None => "it failed a request and has not answered since".to_owned(),
        };
        lines.push_str(&format!("upstream {}: {} is down: {why}\n", upstream.name, server.origin));
    }
    lines
}
