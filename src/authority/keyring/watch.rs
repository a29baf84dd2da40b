//! Follows the folder: takes up what commands and other gateways did there, makes the next key in time, removes the dead.
//!
//! Whatever is wrong with the files, the keys that were good stay in use; only that a key was taken back is believed at
//! once. What is wrong is told when it begins, not at every look.

use super::folder::{Folder, NoLock, Reading, Seen};
use super::ring::{KeyState, Ring, Slot};
use super::{Keyring, Source, View, add};
use crate::authenticate::KeySet;
use crate::clock::Now;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// After how long what could not be done is tried again, in seconds: making a key costs time.
const RETRY: u64 = 60;

/// What an operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A key is published from now on.
    Published {
        /// Its `kid`.
        id: String,
        /// From when it signs, in seconds since 1970.
        signs_from: u64,
    },
    /// A key signs from now on.
    Signs {
        /// Its `kid`.
        id: String,
    },
    /// A key is not accepted any more, because the last token that it signed is dead.
    Retired {
        /// Its `kid`.
        id: String,
    },
    /// A key is not accepted any more, because it was taken back.
    Revoked {
        /// Its `kid`.
        id: String,
    },
    /// The file of a dead key was removed.
    Removed {
        /// Its `kid`.
        id: String,
    },
    /// Something is wrong with the files: a sentence for the operator.
    Fault(String),
    /// Nothing is wrong with the files any more.
    Mended,
}

/// What one look found.
#[derive(Debug, Default)]
struct Report {
    /// What an operator should know, in order.
    events: Vec<Event>,
    /// The keys to verify with, where they have changed.
    keys: Option<KeySet>,
}

/// Looks after the keys of one ring. Each look reads and writes files, and may make a key: not for a thread that serves.
#[derive(Debug)]
pub struct Watcher {
    keyring: Keyring,
    /// What the folder looked like when it was last read; none: to be read at the next look.
    seen: Option<Vec<Seen>>,
    /// What was wrong with it then.
    unreadable: Vec<String>,
    /// What was wrong when something was last to be changed.
    unmade: Option<String>,
    /// When that is tried again, in seconds since 1970.
    retry_at: u64,
    /// What was told to be wrong.
    told: Vec<String>,
    /// The key that signed at the last look.
    signing: String,
    /// What is found and not in use yet.
    pending: Option<View>,
}

impl Keyring {
    /// Somebody to look after it, once or twice a second.
    pub fn watcher(&self, now: Now) -> Watcher {
        Watcher {
            keyring: self.clone(),
            seen: None,
            unreadable: Vec::new(),
            unmade: None,
            retry_at: 0,
            told: Vec::new(),
            signing: self.signing(now).id().to_owned(),
            pending: None,
        }
    }
}

impl Watcher {
    /// The ring that it looks after.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Looks once. The keys that verify change at once, by `publish`; those that sign only after that, so that nothing is
    /// signed that would not be accepted.
    pub fn look(&mut self, now: Now, publish: impl FnOnce(KeySet)) -> Vec<Event> {
        let Report { events, keys } = self.find(now);
        if let Some(keys) = keys {
            publish(keys);
        }
        if let Some(view) = self.pending.take() {
            self.keyring.inner.view.store(Arc::new(view));
        }
        events
    }

    fn find(&mut self, now: Now) -> Report {
        let keyring = self.keyring.clone();
        let Source::Folder(folder) = &keyring.inner.source else { return Report::default() };
        let mut report = Report::default();
        let before = keyring.inner.view.load_full();

        let mut ring = self.read(folder, &before.ring).unwrap_or_else(|| before.ring.clone());
        if let Some((changed, removed)) = self.change(folder, &ring, now.unix) {
            report.events.extend(removed.into_iter().map(|id| Event::Removed { id }));
            self.seen = None;
            ring = Arc::new(changed);
        }
        self.tell_faults(&mut report.events);

        let view = View::at(ring, &keyring.schedule, now.unix);
        if view.jwks != before.jwks {
            match keyring.key_set_of(&view) {
                Ok(keys) => report.keys = Some(keys),
                // Not to be: they were read as keys of ours. The old ones go on.
                Err(why) => {
                    report.events.push(Event::Fault(why));
                    return report;
                }
            }
        }
        self.tell_keys(&before, &view, now.unix, &mut report.events);
        self.pending = Some(view);
        report
    }

    /// Reads the folder if it has changed, or could not be read before.
    fn read(&mut self, folder: &Folder, known: &Arc<Ring>) -> Option<Arc<Ring>> {
        let listed = folder.list();
        if self.unreadable.is_empty()
            && listed.as_ref().is_ok_and(|listed| self.seen.as_ref() == Some(listed))
        {
            return None;
        }
        let (seen, Reading { mut slots, broken }) = match folder.read(self.keyring.inner.algorithm) {
            Ok(read) => read,
            Err(why) => {
                self.unreadable = vec![why];
                return None;
            }
        };
        self.seen = Some(seen);
        self.unreadable = broken.iter().map(|(_, why)| why.clone()).collect();
        // A key that was good when it was last read goes on.
        for old in known.slots() {
            let is_broken = broken.iter().any(|(signs_from, _)| *signs_from == old.signs_from);
            let is_known = slots.iter().any(|slot| slot.id == old.id || slot.signs_from == old.signs_from);
            if is_broken && !is_known {
                slots.push(old.clone());
            }
        }
        match Ring::new(slots.clone()) {
            Some(ring) => Some(Arc::new(ring)),
            // The last key was taken back and none made in its place: nothing that it signs is to be accepted.
            None if !slots.is_empty() && broken.is_empty() => match self.replace(folder) {
                Ok(ring) => Some(Arc::new(ring)),
                Err(why) => {
                    self.unreadable.push(why);
                    without(known, &slots).map(Arc::new)
                }
            },
            None => {
                self.unreadable.push("no signing key is left in the state folder: the last ones go on; portcullis key generate".to_owned());
                without(known, &slots).map(Arc::new)
            }
        }
    }

    /// Makes a key that signs at once, where there is none to sign with.
    fn replace(&mut self, folder: &Folder) -> Result<Ring, String> {
        self.seen = None;
        let lock = folder.lock(Duration::ZERO)?;
        super::first(folder, &lock, self.keyring.inner.algorithm, Now::read())
    }

    /// Makes the next key if it is time, and removes the files of keys that are long dead. Returns the ring as it is then,
    /// and whose files were removed.
    fn change(&mut self, folder: &Folder, ring: &Ring, now: u64) -> Option<(Ring, Vec<String>)> {
        let schedule = self.keyring.schedule;
        let algorithm = self.keyring.inner.algorithm;
        let is_needed = ring.due(&schedule, now).is_some() || ring.spent(&schedule, now) > 0;
        // A clock that went back does not make it wait for longer.
        let waits = now < self.retry_at && self.retry_at <= now.saturating_add(RETRY);
        if !is_needed || waits || !self.unreadable.is_empty() {
            if !is_needed {
                self.unmade = None;
            }
            return None;
        }
        let lock = match folder.lock(Duration::ZERO) {
            Ok(lock) => lock,
            // Another gateway, most likely, which does the same: the next look finds it done.
            Err(NoLock::Busy) => return None,
            Err(NoLock::Broken(why)) => {
                self.unmade = Some(why);
                self.retry_at = now.saturating_add(RETRY);
                return None;
            }
        };
        let changed = (|| {
            // Read again: another gateway may have been first.
            let mut ring = super::read_sound(folder, algorithm)?;
            let mut removed = Vec::new();
            for slot in &ring.slots()[..ring.spent(&schedule, now)] {
                folder.remove(&lock, slot)?;
                removed.push(slot.id.clone().into());
            }
            if !removed.is_empty() {
                ring = super::read_sound(folder, algorithm)?;
            }
            if let Some(signs_from) = ring.due(&schedule, now) {
                let signs_from = ring.free_from(signs_from);
                ring = add(folder, &lock, algorithm, &ring, signs_from)?;
            }
            Ok::<_, String>((ring, removed))
        })();
        match changed {
            Ok(changed) => {
                self.unmade = None;
                Some(changed)
            }
            Err(why) => {
                self.unmade = Some(why);
                self.retry_at = now.saturating_add(RETRY);
                self.seen = None;
                None
            }
        }
    }

    fn tell_faults(&mut self, events: &mut Vec<Event>) {
        let wrong: Vec<_> = self.unreadable.iter().chain(&self.unmade).cloned().collect();
        for why in wrong.iter().filter(|why| !self.told.contains(why)) {
            self.keyring.inner.faults.fetch_add(1, Ordering::Relaxed);
            events.push(Event::Fault(why.clone()));
        }
        if wrong.is_empty() && !self.told.is_empty() {
            events.push(Event::Mended);
        }
        self.told = wrong;
    }

    fn tell_keys(&mut self, before: &View, after: &View, now: u64, events: &mut Vec<Event>) {
        let schedule = &self.keyring.schedule;
        for slot in after.ring.slots().iter().filter(|slot| after.publishes(&slot.id)) {
            if !before.publishes(&slot.id) {
                events.push(Event::Published { id: slot.id.clone().into(), signs_from: slot.signs_from });
            }
        }
        let signing = after.ring.signing(now).id();
        if signing != self.signing {
            self.signing = signing.to_owned();
            events.push(Event::Signs { id: signing.to_owned() });
        }
        for key in before.published.iter().filter(|key| !after.publishes(key.id())) {
            let id = key.id().to_owned();
            let place = after.ring.slots().iter().position(|slot| *slot.id == *id);
            let is_dead = place.is_some_and(|place| after.ring.state(place, schedule, now) == KeyState::Dead);
            // A file that is gone was taken away by somebody.
            events.push(if is_dead { Event::Retired { id } } else { Event::Revoked { id } });
        }
    }
}

/// The ring without the keys that these say were taken back, if one is left to sign with.
fn without(known: &Ring, slots: &[Slot]) -> Option<Ring> {
    let revoked =
        |old: &Slot| slots.iter().any(|slot| slot.key.is_none() && slot.signs_from == old.signs_from);
    let left = known.slots().iter().filter(|old| !revoked(old)).cloned().collect();
    Ring::new(left)
}
