//! Watches the file of API keys and applies its changes. Also records when each key was last used, so that an operator
//! can find unused keys.

use super::file_watch::{AGAIN, FileWatch};
use crate::api_key_file::ApiKeyFile;
use crate::authenticate::{ApiKeyFacts, ApiKeys};
use crate::journal::Level;
use crate::policy::Policy;
use crate::worker::Shared;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// Interval between two polls. A change is read once two polls have seen the same file.
const POLL: Duration = Duration::from_millis(250);
/// The last-use times are written after this many polls: once a minute.
const NOTED_EVERY: u32 = 240;

/// Watches the file and never returns. Each poll runs on a separate thread, because the folder may be slow.
pub(super) async fn watch(shared: Arc<Shared>, file: Arc<ApiKeyFile>) {
    let mut interval = tokio::time::interval(POLL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first poll reads the file again, because it may have changed since the policy was compiled.
    let mut watch = FileWatch::unread(vec![file.path()]);
    let mut fault = None;
    let mut polls = 0_u32;
    loop {
        interval.tick().await;
        polls = polls.wrapping_add(1);
        let ours = file.clone();
        let shared_with_poll = shared.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let read = watch.poll().map(|_| ours.read());
            if let Some(read) = &read {
                watch.note_read(read.is_err().then_some(AGAIN));
            }
            let noted = polls.is_multiple_of(NOTED_EVERY).then(|| {
                let policy = shared_with_poll.policy.load();
                policy.trust.api_keys().map_or(Ok(()), |keys| ours.note_used(keys))
            });
            (watch, read, noted)
        });
        let Ok((back, read, noted)) = looked.await else {
            // The poll panicked, and the panic was logged. The next poll starts with a new watch.
            watch = FileWatch::unread(vec![file.path()]);
            continue;
        };
        watch = back;
        if let Some(Err(why)) = noted {
            shared.journal.event(Level::Warn, "cannot write when API keys were last used", &[("why", &why)]);
        }
        match read {
            None => {}
            Some(Ok(keys)) => {
                if let Some(count) = publish(&shared, &file, keys) {
                    shared.journal.event_with(
                        Level::Info,
                        "the API keys have changed",
                        &[("keys", count.into())],
                    );
                }
                if fault.take().is_some() {
                    shared.journal.event(Level::Info, "the API keys can be read again", &[]);
                }
            }
            Some(Err(why)) if fault.as_ref() == Some(&why) => {}
            Some(Err(why)) => {
                let message = "cannot read the API keys; continuing with the last good set";
                shared.journal.event(Level::Error, message, &[("why", &why)]);
                fault = Some(why);
            }
        }
    }
}

/// Applies the keys to the current policy. Returns their number if they differ from the policy's keys.
fn publish(shared: &Shared, file: &ApiKeyFile, facts: Vec<ApiKeyFacts>) -> Option<usize> {
    let before = shared.policy.load();
    let current = before.trust.api_keys()?;
    let count = facts.len();
    let keys = Arc::new(ApiKeys::after(facts, Some(current)));
    if keys.is_same(current) {
        return None;
    }
    // After a reload, the policy may have another state folder or no API keys.
    let is_ours = |policy: &Policy| policy.api_key_file.as_deref() == Some(file);
    shared.policy.update(|policy| match is_ours(policy) {
        true => policy.with_api_keys(keys.clone()),
        false => policy.clone(),
    });
    Some(count)
}
