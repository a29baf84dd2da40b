//! Lets requests whose token names an unknown key wait for one shared fetch.
//!
//! A new fetch starts only after the cooldown since the last fetch. A flood of invented `kid`s therefore causes no more
//! fetches than a single `kid`. After a fetch without a `kid`, requests with this `kid` do not wait for a while. If too
//! many requests wait, the gateway answers further requests with `check_unavailable`.

use super::{KeySource, Owner};
use crate::clock::Now;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// The maximum time that a request waits.
pub const WAIT_MAX: Duration = Duration::from_secs(10);
/// The maximum number of requests that wait for the keys of one issuer.
const WAITING_MAX: usize = 256;
/// The maximum number of absent `kid`s that are remembered for each issuer.
const ABSENT_MAX: usize = 1024;
/// The number of cooldowns for which an absent `kid` is remembered.
const ABSENT_COOLDOWNS: u32 = 6;

/// A key that a request waits for.
#[derive(Clone, Debug)]
pub struct Wanted {
    source: Arc<KeySource>,
    /// A keyed hash of the `kid`, or of `None` if any new key may verify the token.
    kid: u64,
}

impl PartialEq for Wanted {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.source, &other.source) && self.kid == other.kid
    }
}

impl Eq for Wanted {}

/// The outcome of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// A fetch succeeded, so the token can be verified again.
    Fetched,
    /// A fetch that began after the token arrived did not contain the key.
    Absent,
    /// No fetch succeeded in time.
    Unavailable,
}

/// The answer to a question that does not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The key was looked for after the token was seen, and the issuer does not have it.
    Absent,
    /// The key will be looked for. The number of fetches so far that ended well: the second one from now began after
    /// this question.
    Sought(u64),
}

/// The requests that wait for the keys of one source, and their `kid`s.
#[derive(Debug)]
pub struct Demand {
    inner: Mutex<Inner>,
    hasher: RandomState,
    /// Wakes the fetching task.
    wanted: Notify,
    /// The number of completed fetches, and whether the last fetch succeeded.
    ended: watch::Sender<(u64, bool)>,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: usize,
    /// The `kid`s that were requested since the start of the last fetch.
    asked: Vec<u64>,
    /// The `kid`s that were requested before the start of the last fetch.
    sought: Vec<u64>,
    /// The `kid`s that a fetch did not contain, with the time until which each is remembered.
    absent: HashMap<u64, Instant>,
    is_wanted: bool,
    /// Whether a fetch is running, or was interrupted before it completed.
    in_flight: bool,
    /// The number of waits by outcome, in the order of [`Demand::OUTCOMES`].
    outcomes: [u64; 3],
}

impl Inner {
    fn is_absent(&self, kid: u64, now: Now) -> bool {
        self.absent.get(&kid).is_some_and(|until| now.steady < *until)
    }

    /// Records that a request waits for this key. Returns whether a fetch may still bring the key.
    fn ask(&mut self, kid: u64, now: Now) -> bool {
        if self.is_absent(kid, now) {
            return false;
        }
        // The running fetch may bring the key. If it does not, the request waits again.
        if !self.in_flight {
            self.is_wanted = true;
            if self.asked.len() < ABSENT_MAX && !self.asked.contains(&kid) {
                self.asked.push(kid);
            }
        }
        true
    }
}

impl Default for Demand {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            hasher: RandomState::new(),
            wanted: Notify::new(),
            ended: watch::Sender::new((0, true)),
        }
    }
}

/// Counts a request as waiting while this value exists.
struct Waiting<'d>(&'d Demand);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.inner().waiting -= 1;
    }
}

impl Wanted {
    /// Waits until a fetch may have brought the key, but at most until `deadline`.
    pub async fn wait(&self, deadline: Instant, now: Now) -> Waited {
        let outcome = self.source.wait(self.kid, deadline, now).await;
        self.source.demand.inner().outcomes[outcome as usize] += 1;
        outcome
    }

    /// Asks for the key without waiting for it.
    pub fn ask(&self, now: Now) -> Asked {
        let source = &self.source;
        let fetches = source.state().fetches();
        match source.demand.inner().ask(self.kid, now) {
            true => {
                source.demand.wanted.notify_one();
                Asked::Sought(fetches)
            }
            false => Asked::Absent,
        }
    }

    /// Returns the owner of the key.
    pub fn owner(&self) -> &Owner {
        &self.source.settings.owner
    }
}

impl KeySource {
    /// Returns a request for the key with this `kid`; for any new key if `kid` is `None`.
    pub fn wanted(self: &Arc<Self>, kid: Option<&str>) -> Wanted {
        Wanted { source: self.clone(), kid: self.demand.hasher.hash_one(kid) }
    }

    async fn wait(&self, kid: u64, deadline: Instant, now: Now) -> Waited {
        let allowed = self.state().allowed(self.settings.cooldown);
        let mut ended = self.demand.ended.subscribe();
        let _waiting = {
            let mut inner = self.demand.inner();
            if inner.is_absent(kid, now) {
                return Waited::Absent;
            }
            if inner.waiting >= WAITING_MAX {
                return Waited::Unavailable;
            }
            inner.ask(kid, now);
            if !inner.in_flight {
                self.demand.wanted.notify_one();
                if allowed.is_some_and(|allowed| allowed > deadline) {
                    return Waited::Unavailable;
                }
            }
            inner.waiting += 1;
            Waiting(&self.demand)
        };
        match tokio::time::timeout_at(deadline.into(), ended.changed()).await {
            Ok(Ok(())) if ended.borrow().1 => Waited::Fetched,
            Ok(Ok(()) | Err(_)) | Err(_) => Waited::Unavailable,
        }
    }

    /// Returns when a fetch is due or was interrupted, or when the last good set becomes too old.
    pub async fn due(&self) {
        loop {
            let (next, allowed, expires) = {
                let state = self.state();
                (state.next(), state.allowed(self.settings.cooldown), state.expires(self.settings.max_age))
            };
            let asked = {
                let inner = self.demand.inner();
                if inner.in_flight {
                    return;
                }
                inner.is_wanted.then(|| allowed.unwrap_or(next))
            };
            let due = [Some(next), asked, expires].into_iter().flatten().min().unwrap_or(next);
            if tokio::time::timeout_at(due.into(), self.demand.wanted.notified()).await.is_err() {
                return;
            }
        }
    }

    /// Drops the last good set if it is too old. Returns whether this call dropped it.
    pub fn expire(&self, now: Now) -> bool {
        self.state().expire(self.settings.max_age, now)
    }

    /// Begins a fetch if one is due. Returns whether a fetch began. [`due`](Self::due) may also return because a set
    /// became too old.
    pub fn begin_fetch(&self, now: Now) -> bool {
        let mut state = self.state();
        let mut inner = self.demand.inner();
        let allowed = state.allowed(self.settings.cooldown).is_none_or(|allowed| allowed <= now.steady);
        if state.next() > now.steady && !(inner.is_wanted && allowed) && !inner.in_flight {
            return false;
        }
        state.begin_fetch(now);
        inner.is_wanted = false;
        inner.in_flight = true;
        // A reload of the policy interrupts a fetch. The requests then still wait for their `kid`s.
        let asked = std::mem::take(&mut inner.asked);
        inner.sought.extend(asked);
        true
    }

    /// Returns whether keys with these ids are all keys for which the current fetch was begun.
    pub fn has_sought<'i>(&self, ids: impl Iterator<Item = Option<&'i str>>) -> bool {
        // A request that any new key may satisfy needs a fetch, so keys without an id do not count.
        let known: Vec<u64> = ids.filter(Option::is_some).map(|id| self.demand.hasher.hash_one(id)).collect();
        self.demand.inner().sought.iter().all(|kid| known.contains(kid))
    }

    /// Ends a fetch and wakes the waiting requests. `now` is the end of the fetch.
    pub fn end_fetch(&self, is_good: bool, now: Now) {
        let mut inner = self.demand.inner();
        let sought = std::mem::take(&mut inner.sought);
        inner.in_flight = false;
        if is_good {
            inner.absent.retain(|_, until| *until > now.steady);
            let any = self.demand.hasher.hash_one(None::<&str>);
            for kid in sought {
                let cooldowns = if kid == any { 1 } else { ABSENT_COOLDOWNS };
                if inner.absent.len() < ABSENT_MAX {
                    inner.absent.insert(kid, now.steady + self.settings.cooldown * cooldowns);
                }
            }
        }
        drop(inner);
        self.demand.ended.send_modify(|(count, was_good)| {
            *count += 1;
            *was_good = is_good;
        });
    }
}

impl Demand {
    /// The names of the outcomes, in the order of [`Waited`].
    const OUTCOMES: [&'static str; 3] = ["fetched", "absent", "unavailable"];

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of requests that wait now.
    pub fn waiting(&self) -> usize {
        self.inner().waiting
    }

    /// Returns the numbers of waits by their outcome.
    pub fn outcomes(&self) -> [(&'static str, u64); 3] {
        let counts = self.inner().outcomes;
        std::array::from_fn(|at| (Self::OUTCOMES[at], counts[at]))
    }
}
