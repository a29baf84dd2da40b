//! Watches the local authority's signing keys in the state folder, and applies changes.

use crate::clock::Now;
use crate::journal::Level;
use crate::keyring::{KeyEvent, KeyInfo, Watcher};
use crate::policy::Policy;
use crate::worker::Shared;
use std::sync::Arc;

/// Watches the keys of this issuer and never returns. Each poll runs on a separate thread, because the folder may be
/// slow and because creating a key takes time.
pub(super) async fn watch(shared: Arc<Shared>, issuer: Arc<str>, mut watcher: Watcher) {
    let keyring = watcher.keyring().clone();
    let mut interval = super::poll_interval();
    loop {
        interval.tick().await;
        let (live, issuer, ours) = (shared.policy.clone(), issuer.clone(), keyring.clone());
        let looked = tokio::task::spawn_blocking(move || {
            // After a reload, the policy may use other keys.
            let is_ours = |policy: &Policy| {
                policy.issuer_settings.as_ref().is_some_and(|settings| settings.keyring.is_same(&ours))
            };
            let publish = |keys| {
                live.update(|policy| match is_ours(policy) {
                    true => policy.with_keys(&issuer, &keys),
                    false => policy.clone(),
                });
            };
            let events = watcher.poll(Now::read(), publish);
            (watcher, events)
        });
        match looked.await {
            Ok((back, events)) => {
                watcher = back;
                events.iter().for_each(|event| log_event(&shared, event));
            }
            // The watcher panicked, and the panic was logged. A new watcher starts from the current keys.
            Err(_) => watcher = keyring.watcher(Now::read()),
        }
    }
}

/// Returns the policy with the current signing keys, if `before` has the same keyring. A key may have been created or
/// revoked while the policy was compiled.
pub(super) fn with_current_keys(policy: Policy, before: &Policy) -> Policy {
    match (&policy.issuer_settings, &before.issuer_settings) {
        (Some(settings), Some(known)) if settings.keyring.is_same(&known.keyring) => {
            match settings.keyring.key_set() {
                Ok(keys) => policy.with_keys(&settings.issuer, &keys),
                Err(_) => policy,
            }
        }
        (Some(_), _) | (None, _) => policy,
    }
}

fn log_event(shared: &Shared, event: &KeyEvent) {
    let journal = &shared.journal;
    match event {
        KeyEvent::Published { id, signs_from } => {
            let from = KeyInfo::time(*signs_from);
            journal.event(Level::Info, "a signing key is published", &[("kid", id), ("signs_from", &from)]);
        }
        KeyEvent::Activated { id } => {
            journal.event(Level::Info, "a signing key has started to sign", &[("kid", id)])
        }
        KeyEvent::Retired { id } => {
            journal.event(Level::Info, "a signing key has retired and is no longer accepted", &[("kid", id)]);
        }
        KeyEvent::Revoked { id } => {
            journal.event(Level::Warn, "a signing key was revoked and is no longer accepted", &[("kid", id)]);
        }
        KeyEvent::Removed { id } => {
            journal.event(Level::Info, "the file of a retired signing key was removed", &[("kid", id)]);
        }
        KeyEvent::Fault(why) => journal.event(
            Level::Error,
            "cannot read some signing keys; continuing with the last good set",
            &[("why", &why.to_string())],
        ),
        KeyEvent::Recovered => journal.event(Level::Info, "all signing keys can be read again", &[]),
    }
}
