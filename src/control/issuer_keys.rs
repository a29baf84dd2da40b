//! Fetches the keys of issuers, and of transmitters of signals, that publish them at a URL, with one task per source.

use super::key_news::{key_name, log_changes, log_recovery, publish};
use super::passed_keys::{Due, Fleet, PassedKeys};
use super::tasks::Tasks;
use crate::authenticate::{Key, KeySet};
use crate::clock::Now;
use crate::journal::Level;
use crate::key_source::{Copy, FetchError, Fetched, GoodSet, KeySource, Worth, delete_old};
use crate::policy::Policy;
use crate::worker::Shared;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// The tasks that fetch the keys for the current policy.
#[derive(Debug, Default)]
pub(super) struct KeyFetchers {
    tasks: Tasks<KeySource>,
    sweep: Option<JoinHandle<()>>,
}

/// The events of a failed fetch, with and without keys of an earlier fetch.
const CONTINUES: &str = "cannot fetch the keys of an issuer; continuing with the last good set";
const HAS_NONE: &str = "cannot fetch the keys of an issuer; there are none yet, so its tokens are refused";

/// The interval at which copies of keys are looked at for deletion.
const SWEPT: Duration = Duration::from_secs(24 * 3600);

impl KeyFetchers {
    /// Starts and stops tasks to match the current policy. A source that is still in the policy keeps its task.
    pub(super) fn follow(&mut self, shared: &Arc<Shared>, state: &Path) {
        let policy = shared.policy.load();
        let wanted: Vec<_> = policy.fetched_keys().map(|(source, ..)| source.clone()).collect();
        if let Some(sweep) = self.sweep.take() {
            sweep.abort();
        }
        let kept = wanted.iter().map(|source| source.settings().copy.clone()).collect();
        self.sweep = Some(tokio::task::spawn_local(sweep(shared.clone(), state.to_owned(), kept)));
        let start = |source| tokio::task::spawn_local(keep_fetched(shared.clone(), source));
        self.tasks.follow(wanted, start, |_| {});
    }
}

/// Deletes the copies of keys that the policy no longer names, at once and then daily. Never returns.
async fn sweep(shared: Arc<Shared>, state: PathBuf, kept: Vec<PathBuf>) {
    let kept: Arc<[PathBuf]> = kept.into();
    loop {
        let (folder, named) = (state.clone(), kept.clone());
        let swept = tokio::task::spawn_blocking(move || delete_old(&folder, &named, Now::read()));
        match swept.await {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(count)) => {
                let event = "copies of issuers' keys that no policy uses were deleted";
                shared.journal.event_with(Level::Info, event, &[("copies", count.into())]);
            }
            Ok(Err(why)) => {
                let event = "cannot delete old copies of issuers' keys";
                shared.journal.event(Level::Warn, event, &[("why", &why)]);
            }
        }
        tokio::time::sleep(SWEPT).await;
    }
}

/// Returns a compiled policy with the keys that were fetched while it was compiled.
pub(super) fn with_fetched_keys(policy: Policy, now: Now) -> Policy {
    let sources: Vec<_> = policy.fetched_keys().map(|(source, ..)| source.clone()).collect();
    sources.iter().fold(policy, |policy, source| policy.with_fetched(source, now))
}

/// Fetches the keys of a source whenever a fetch is due or a request waits for a key. Never returns.
async fn keep_fetched(shared: Arc<Shared>, source: Arc<KeySource>) {
    loop {
        source.due().await;
        let now = Now::read();
        if source.expire(now) {
            publish(&shared, &source, now);
            let last = source.status().error.map(|(_, error)| error.why).unwrap_or_default();
            let fields = [source.settings().owner.label(), ("why", &*last)];
            let event =
                "the keys of an issuer have become too old; its tokens are refused until keys are fetched";
            shared.journal.event(Level::Error, event, &fields);
        }
        if !source.begin_fetch(now) {
            continue;
        }
        let (outcome, spare) = match Fleet::of(&shared, &source) {
            Some(fleet) => get(&shared, &source, &fleet).await,
            None => (fetch(&shared, &source).await.0, None),
        };
        let now = Now::read();
        let is_good = match outcome {
            Ok(good) => {
                write_copy(&shared, &source, &good).await;
                true
            }
            Err(error) => {
                let why = error.why.clone();
                let is_news = source.failed(error, now);
                let is_answered = spare.is_some_and(|set| take_spare(&shared, &source, set));
                if is_news {
                    let fields = [source.settings().owner.label(), ("why", &why)];
                    let (level, event) = match source.good(now) {
                        Some(_) => (Level::Warn, CONTINUES),
                        None => (Level::Error, HAS_NONE),
                    };
                    shared.journal.event(level, event, &fields);
                }
                is_answered
            }
        };
        source.end_fetch(is_good, now);
    }
}

/// Gets the keys from another gateway of the fleet, or fetches them and passes them on. After a failed fetch, also returns
/// the set that the fleet has.
async fn get(
    shared: &Shared,
    source: &Arc<KeySource>,
    fleet: &Fleet,
) -> (Result<Arc<GoodSet>, FetchError>, Option<PassedKeys>) {
    fleet.begin(source).await;
    let (turn, spare) = match fleet.ask(shared, source).await {
        Due::Take(set) => match set.take(shared, source, Worth::Fetch) {
            Some((good, _)) => return (Ok(good), None),
            // The set has just become too old, or the policy has changed.
            None => (None, None),
        },
        Due::Fetch { turn, spare } => (turn, spare),
    };
    let (outcome, fresh) = fetch(shared, source).await;
    if let Ok(good) = &outcome {
        fleet.give(source, good, fresh).await;
    }
    fleet.end_turn(turn).await;
    (outcome, spare)
}

/// Fetches the keys and applies them. Also returns the time for which the issuer allows the set to be used.
async fn fetch(
    shared: &Shared,
    source: &Arc<KeySource>,
) -> (Result<Arc<GoodSet>, FetchError>, Option<Duration>) {
    let fetched = source.fetch().await;
    let fresh = fetched.as_ref().ok().and_then(Fetched::fresh);
    (fetched.and_then(|fetched| accept(shared, source, fetched, Now::read())), fresh)
}

/// Uses a set of another gateway after a failed fetch: until the issuer answers, the newest set of the fleet is as good as
/// the copy on disk. Returns whether it has each key for which requests wait.
fn take_spare(shared: &Shared, source: &Arc<KeySource>, set: PassedKeys) -> bool {
    let worth = set.worth(source);
    let taken = set.take(shared, source, worth);
    taken.is_some_and(|(_, keys)| source.has_sought(keys.iter().map(Key::id)))
}

/// Checks a fetched set and applies it. A set without a usable key never replaces a good set.
fn accept(
    shared: &Shared,
    source: &Arc<KeySource>,
    fetched: Fetched,
    now: Now,
) -> Result<Arc<GoodSet>, FetchError> {
    let policy = shared.policy.load();
    let (_, ours, algorithms) =
        policy.fetched_keys().find(|(known, ..)| Arc::ptr_eq(known, source)).ok_or_else(|| {
            // A reload has removed this source from the policy. This task ends soon.
            FetchError { kind: "content", why: "the policy no longer has this source".to_owned() }
        })?;
    let before = source.good(now);
    let known = before.as_ref().map(|good| good.first_seen.clone()).unwrap_or_default();
    let was_failing = source.status().error.is_some();
    let (skipped, first_seen) = match &fetched {
        Fetched::Set { body, url, .. } => {
            let (keys, skipped) = KeySet::from_jwks(body, algorithms).map_err(|why| FetchError {
                kind: "content",
                why: format!("{url}: {}", why.chars().take(500).collect::<String>()),
            })?;
            log_changes(shared, &source.settings().owner, (&keys, &ours), &skipped, before.is_some());
            (Some(skipped), seen(&keys, &known, now))
        }
        Fetched::NotModified { .. } => (None, known),
    };
    let good = source.succeeded(fetched, skipped, first_seen, now)?;
    if was_failing {
        log_recovery(shared, source);
    }
    publish(shared, source, now);
    Ok(good)
}

/// Returns the time at which each key was first seen: now, unless `known` contains the key.
fn seen(keys: &KeySet, known: &BTreeMap<String, u64>, now: Now) -> BTreeMap<String, u64> {
    let at = |name: &String| known.get(name).copied().unwrap_or(now.unix);
    keys.iter().map(key_name).map(|name| (name.clone(), at(&name))).collect()
}

/// Writes the copy of the keys for the next start. Runs on another thread, because the disk may be slow.
async fn write_copy(shared: &Shared, source: &Arc<KeySource>, good: &Arc<GoodSet>) {
    let (source, good) = (source.clone(), good.clone());
    let owner = source.settings().owner.clone();
    let written = tokio::task::spawn_blocking(move || {
        let copy = Copy::new(source.settings(), &good.body, good.fetched.unix, good.first_seen.clone());
        copy.map_or(Ok(()), |copy| copy.write(&source.settings().copy))
    });
    if let Ok(Err(why)) = written.await {
        let event = "cannot keep the keys of an issuer for the next start";
        shared.journal.event(Level::Warn, event, &[owner.label(), ("why", &why)]);
    }
}
