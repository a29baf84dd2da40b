//! Keeps a running gateway up to date with the place of the keys. It applies the changes that commands and other
//! gateways make there, creates the next key in time, and removes dead keys.
//!
//! If keys become unreadable or are damaged, the keys that were read before remain in use, except keys that the place
//! marks as revoked. A fault is reported when it first occurs and not at every poll.

use super::fault::KeyringFault;
use super::folder::FolderContents;
use super::key::SigningKey;
use super::place::{Listing, Place};
use super::ring::{KeyState, Ring, Slot};
use super::{Keyring, Source, View, ring_of_one};
use crate::authenticate::{Algorithm, KeySet};
use crate::clock::Now;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The time before a change that failed or changed nothing is tried again, in seconds. It is long because the creation of a key is expensive.
const RETRY: u64 = 60;

/// A change or a fault that is reported to the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyEvent {
    /// A key has been published.
    Published {
        /// The key's `kid`.
        id: String,
        /// When the key starts to sign, in seconds since 1970.
        signs_from: u64,
    },
    /// A key has started to sign.
    Activated {
        /// The key's `kid`.
        id: String,
    },
    /// A key is no longer accepted, because its last token has expired.
    Retired {
        /// The key's `kid`.
        id: String,
    },
    /// A key is no longer accepted, because it was revoked.
    Revoked {
        /// The key's `kid`.
        id: String,
    },
    /// A dead key was removed.
    Removed {
        /// The key's `kid`.
        id: String,
    },
    /// The keys cannot be read or changed.
    Fault(KeyringFault),
    /// All reported faults are resolved.
    Recovered,
}

/// The result of one poll.
#[derive(Debug, Default)]
struct Changes {
    /// The events, in order.
    events: Vec<KeyEvent>,
    /// The verification keys, if they have changed.
    keys: Option<KeySet>,
}

/// Watches the keys of one keyring. Each poll reads and writes keys and may generate one, so it must not run on a
/// thread that serves requests.
#[derive(Debug)]
pub struct Watcher {
    keyring: Keyring,
    /// The listing of the last read; `None` forces the next poll to read.
    seen: Option<Listing>,
    /// The faults of the last read.
    read_faults: Vec<KeyringFault>,
    /// The fault of the last attempt to change the keys.
    change_fault: Option<KeyringFault>,
    /// When a change that failed or changed nothing is tried again, in seconds since 1970.
    retry_at: u64,
    /// The faults that were reported and still exist.
    reported: Vec<KeyringFault>,
    /// The id of the signing key at the last poll.
    signing: String,
    /// The view that the last poll built and that is not in use yet.
    pending: Option<View>,
}

impl Keyring {
    /// Creates a watcher. The caller polls it once or twice a second.
    pub fn watcher(&self, now: Now) -> Watcher {
        Watcher {
            keyring: self.clone(),
            seen: None,
            read_faults: Vec::new(),
            change_fault: None,
            retry_at: 0,
            reported: Vec::new(),
            signing: self.signing(now).id().to_owned(),
            pending: None,
        }
    }
}

impl Watcher {
    /// Returns the keyring that is watched.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Polls the place of the keys once. If the verification keys have changed, `publish` puts them into force. Only then does the
    /// signing key change, so that every new token can be verified.
    pub fn poll(&mut self, now: Now, publish: impl FnOnce(KeySet)) -> Vec<KeyEvent> {
        let Changes { events, keys } = self.poll_place(now);
        if let Some(keys) = keys {
            publish(keys);
        }
        if let Some(view) = self.pending.take() {
            self.keyring.inner.view.store(Arc::new(view));
        }
        events
    }

    fn poll_place(&mut self, now: Now) -> Changes {
        let keyring = self.keyring.clone();
        let Source::Place(place) = &keyring.inner.source else { return Changes::default() };
        let mut changes = Changes::default();
        let before = keyring.inner.view.load_full();

        let mut ring = self.read(place, &before.ring, now).unwrap_or_else(|| before.ring.clone());
        if let Some((changed, removed)) = self.change(place, &ring, now) {
            changes.events.extend(removed.into_iter().map(|id| KeyEvent::Removed { id }));
            self.seen = None;
            ring = Arc::new(changed);
        }
        self.report_faults(&mut changes.events);

        let view = View::at(ring, &keyring.schedule, now.unix);
        if view.jwks != before.jwks {
            match keyring.key_set_of(&view) {
                Ok(keys) => changes.keys = Some(keys),
                // This branch is unreachable, because these keys were parsed just before. The old keys stay in use.
                Err(fault) => {
                    changes.events.push(KeyEvent::Fault(fault));
                    return changes;
                }
            }
        }
        self.report_keys(&before, &view, now.unix, &mut changes.events);
        self.pending = Some(view);
        changes
    }

    /// Reads the keys if their listing has changed or if the last read found faults. Returns `None` if the current ring
    /// stays in use.
    fn read(&mut self, place: &Place, known: &Arc<Ring>, now: Now) -> Option<Arc<Ring>> {
        let algorithm = self.keyring.inner.algorithm;
        let listed = place.list(algorithm);
        if self.read_faults.is_empty()
            && listed.as_ref().is_ok_and(|listed| self.seen.as_ref() == Some(listed))
        {
            return None;
        }
        let (seen, FolderContents { mut slots, broken }) = match place.read(algorithm) {
            Ok(read) => read,
            Err(fault) => {
                self.read_faults = vec![fault];
                return None;
            }
        };
        self.seen = Some(seen);
        self.read_faults = broken.iter().map(|(_, fault)| fault.clone()).collect();
        self.read_faults.dedup();
        // A key that was readable before and is now broken stays in use.
        for old in known.slots() {
            let is_broken = broken.iter().any(|(signs_from, _)| *signs_from == old.signs_from);
            let is_known = slots.iter().any(|slot| slot.id == old.id || slot.signs_from == old.signs_from);
            if is_broken && !is_known {
                slots.push(old.clone());
            }
        }
        let fault = match Ring::new(slots.clone()) {
            Some(ring) => return Some(Arc::new(ring)),
            // The last key was revoked, and no key replaces it.
            None if !slots.is_empty() && broken.is_empty() => match self.replace(place, now) {
                Ok(ring) => return Some(Arc::new(ring)),
                Err(fault) => fault,
            },
            None => KeyringFault::NothingLeft,
        };
        self.read_faults.push(fault);
        match without_revoked(known, &slots, algorithm) {
            Ok(ring) => Some(Arc::new(ring)),
            Err(fault) => {
                self.read_faults.push(fault);
                None
            }
        }
    }

    /// Creates a key that signs immediately, unless a signing key exists.
    fn replace(&mut self, place: &Place, now: Now) -> Result<Ring, KeyringFault> {
        self.seen = None;
        let change = place.change(Duration::ZERO)?;
        let ring = change.create_first(self.keyring.inner.algorithm, now)?;
        change.commit()?;
        Ok(ring)
    }

    /// Creates the next key if it is due, and removes keys that have been dead for `RETENTION`. Returns
    /// the changed ring and the ids of the removed keys; `None` if nothing was changed.
    fn change(&mut self, place: &Place, ring: &Ring, clock: Now) -> Option<(Ring, Vec<String>)> {
        let now = clock.unix;
        let schedule = self.keyring.schedule;
        let algorithm = self.keyring.inner.algorithm;
        let is_needed = ring.due(&schedule, now).is_some() || ring.expired(&schedule, now) > 0;
        // The wait is never longer than `RETRY`, even if the clock was set back.
        let is_waiting = now < self.retry_at && self.retry_at <= now.saturating_add(RETRY);
        if !is_needed || is_waiting || !self.read_faults.is_empty() {
            if !is_needed {
                self.change_fault = None;
            }
            return None;
        }
        let change = match place.change(Duration::ZERO) {
            Ok(change) => change,
            // Another gateway is probably making the same change, and the next poll will find the result.
            Err(KeyringFault::Locked) => return None,
            Err(fault) => {
                self.change_fault = Some(fault);
                self.retry_at = now.saturating_add(RETRY);
                return None;
            }
        };
        let changed = (|| {
            // The keys are read again under the lock, because another gateway may already have made the change.
            let mut ring = change.ring(algorithm)?;
            let mut removed = Vec::new();
            for slot in &ring.slots()[..ring.expired(&schedule, change.sweep_time(now)?)] {
                change.remove(slot)?;
                removed.push(slot.id.clone().into());
            }
            if !removed.is_empty() {
                ring = change.ring(algorithm)?;
            }
            match ring.due(&schedule, now) {
                Some(signs_from) => {
                    let signs_from = ring.free_from(signs_from);
                    ring = change.add_key(algorithm, &ring, signs_from, clock)?;
                }
                // Another gateway has made the change, or the server does not know a key as dead yet.
                None if removed.is_empty() => self.retry_at = now.saturating_add(RETRY),
                None => {}
            }
            change.commit()?;
            Ok::<_, KeyringFault>((ring, removed))
        })();
        match changed {
            Ok(changed) => {
                self.change_fault = None;
                Some(changed)
            }
            Err(fault) => {
                self.change_fault = Some(fault);
                self.retry_at = now.saturating_add(RETRY);
                self.seen = None;
                None
            }
        }
    }

    fn report_faults(&mut self, events: &mut Vec<KeyEvent>) {
        let faults: Vec<_> = self.read_faults.iter().chain(&self.change_fault).cloned().collect();
        for fault in faults.iter().filter(|fault| !self.reported.contains(fault)) {
            self.keyring.inner.faults.fetch_add(1, Ordering::Relaxed);
            events.push(KeyEvent::Fault(fault.clone()));
        }
        if faults.is_empty() && !self.reported.is_empty() {
            events.push(KeyEvent::Recovered);
        }
        self.reported = faults;
    }

    fn report_keys(&mut self, before: &View, after: &View, now: u64, events: &mut Vec<KeyEvent>) {
        let schedule = &self.keyring.schedule;
        for slot in after.ring.slots().iter().filter(|slot| after.publishes(&slot.id)) {
            if !before.publishes(&slot.id) {
                events.push(KeyEvent::Published { id: slot.id.clone().into(), signs_from: slot.signs_from });
            }
        }
        let signing = after.ring.signing(now).id();
        if signing != self.signing {
            self.signing = signing.to_owned();
            events.push(KeyEvent::Activated { id: signing.to_owned() });
        }
        for key in before.published.iter().filter(|key| !after.publishes(key.id())) {
            let id = key.id().to_owned();
            let place = after.ring.slots().iter().position(|slot| *slot.id == *id);
            let is_dead = place.is_some_and(|place| after.ring.state(place, schedule, now) == KeyState::Dead);
            // A key that is missing counts as revoked, because someone removed it.
            events.push(if is_dead { KeyEvent::Retired { id } } else { KeyEvent::Revoked { id } });
        }
    }
}

/// Returns the ring without the keys that `slots` marks as revoked. If no key remains, an ephemeral key signs: a token
/// that other verifiers reject is better than a token that a thief could have signed.
fn without_revoked(known: &Ring, slots: &[Slot], algorithm: Algorithm) -> Result<Ring, KeyringFault> {
    let is_revoked =
        |old: &Slot| slots.iter().any(|slot| slot.key.is_none() && slot.signs_from == old.signs_from);
    let left = known.slots().iter().filter(|old| !is_revoked(old)).cloned().collect();
    Ring::new(left).map_or_else(|| ring_of_one(SigningKey::generate(algorithm)?.0), Ok)
}

#[cfg(test)]
mod tests;
