//! The local authority's signing keys, while the gateway runs: what is found in the state folder takes effect here.

use crate::authority::{Event, Listed, Watcher};
use crate::clock::Now;
use crate::journal::Level;
use crate::worker::Shared;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// How often the folder is looked at. What a command changed is in force within a second.
const INTERVAL: Duration = Duration::from_millis(500);

/// Looks after the keys of this issuer, for ever. Each look is on a thread of its own: the folder may be slow, and making
/// a key takes a while.
pub(super) async fn watch(shared: Arc<Shared>, issuer: Arc<str>, mut watcher: Watcher) {
    let keyring = watcher.keyring().clone();
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let (live, issuer) = (shared.policy.clone(), issuer.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let publish = |keys| live.update(|policy| policy.with_keys(&issuer, &keys));
            let events = watcher.look(Now::read(), publish);
            (watcher, events)
        });
        match looked.await {
            Ok((back, events)) => {
                watcher = back;
                events.iter().for_each(|event| tell(&shared, event));
            }
            // It ended in a panic, which was told; another one begins with what is in force.
            Err(_) => watcher = keyring.watcher(Now::read()),
        }
    }
}

fn tell(shared: &Shared, event: &Event) {
    let journal = &shared.journal;
    match event {
        Event::Published { id, signs_from } => {
            let from = Listed::time(*signs_from);
            journal.event(Level::Info, "a signing key is published", &[("kid", id), ("signs_from", &from)]);
        }
        Event::Signs { id } => journal.event(Level::Info, "a signing key signs from now on", &[("kid", id)]),
        Event::Retired { id } => {
            journal.event(
                Level::Info,
                "a signing key has retired and is not accepted any more",
                &[("kid", id)],
            );
        }
        Event::Revoked { id } => {
            journal.event(
                Level::Warn,
                "a signing key was revoked and is not accepted any more",
                &[("kid", id)],
            );
        }
        Event::Removed { id } => {
            journal.event(Level::Info, "the file of a retired signing key was removed", &[("kid", id)]);
        }
        Event::Fault(why) => journal.event(
            Level::Error,
            "something is wrong with the signing keys; those that were good go on",
            &[("why", why)],
        ),
        Event::Mended => journal.event(Level::Info, "the signing keys are in order again", &[]),
    }
}
