//! The operator's commands for keys: rotate, revoke one key, revoke all keys, encrypt them again. Each command locks the
//! place of the keys and changes it. Running gateways apply the change through their [`Watcher`](super::Watcher).

use super::fault::KeyringFault;
use super::place::{Change, Place};
use super::ring::{KeyState, LEAD, Ring, Slot};
use super::{Keyring, Source};
use crate::clock::Now;
use std::time::Duration;

/// The time that a command waits for the lock.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// The time that a key in the store is published before it signs, if it is to sign at once: four polls of the other
/// gateways, in seconds.
const SETTLE: u64 = 2;

/// When a key that was created by a command starts to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotationStart {
    /// After the key has been published for [`LEAD`].
    AfterLead,
    /// Immediately, or after two seconds if gateways share the keys through the store, because the current key leaked.
    /// Other verifiers may reject the new key's first tokens until they fetch the key set again.
    Immediate,
}

/// The result of [`Keyring::rotate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRotation {
    /// The `kid` of the next key.
    pub id: String,
    /// When the next key starts to sign, in seconds since 1970.
    pub signs_from: u64,
    /// Whether this call created the key. If not, a suitable next key already existed.
    pub is_new: bool,
}

impl Keyring {
    /// Creates the next key. With [`RotationStart::AfterLead`], the call returns an existing next key instead if that
    /// key starts to sign within `LEAD`.
    ///
    /// # Errors
    /// Returns an error if the keys cannot be read or changed.
    pub fn rotate(&self, start: RotationStart, now: Now) -> Result<KeyRotation, KeyringFault> {
        let change = self.place()?.change(LOCK_TIMEOUT)?;
        let ring = change.ring(self.inner.algorithm)?;
        let earliest = match start {
            RotationStart::AfterLead => {
                let latest = now.unix.saturating_add(LEAD);
                // Only a key after the signing key can be the next key. After a revocation, a key may sign before its
                // start time.
                let behind = ring.slots().iter().skip(ring.current(now.unix) + 1);
                let is_soon = |slot: &&Slot| slot.signs_from > now.unix && slot.signs_from <= latest;
                if let Some(next) = behind.filter(|slot| slot.key.is_some()).find(is_soon) {
                    return Ok(KeyRotation {
                        id: next.id.clone().into(),
                        signs_from: next.signs_from,
                        is_new: false,
                    });
                }
                latest
            }
            RotationStart::Immediate => match &change {
                Change::Folder(..) => now.unix,
                Change::Table(..) => now.unix.saturating_add(SETTLE),
            },
        };
        let signs_from = ring.free_from(earliest);
        let (id, ring) = self.add(&change, &ring, signs_from, now)?;
        change.commit()?;
        self.store(ring, now);
        Ok(KeyRotation { id, signs_from, is_new: true })
    }

    /// Revokes a key. Tokens signed with the key are rejected from then on. If the key is the signing key, the next key
    /// replaces it, because recipients may already know the next key. If there is no next key, a new key is created.
    /// Returns the id of the replacement.
    ///
    /// # Errors
    /// Returns an error if no key has this id, or if the keys cannot be read or changed.
    pub fn revoke(&self, id: &str, now: Now) -> Result<Option<String>, KeyringFault> {
        let change = self.place()?.change(LOCK_TIMEOUT)?;
        let ring = change.ring(self.inner.algorithm)?;
        let place = ring.slots().iter().position(|slot| *slot.id == *id);
        let place = place.ok_or_else(|| KeyringFault::UnknownKey(id.to_owned()))?;
        let slot = &ring.slots()[place];
        let mut replaced_by = None;
        match ring.state(place, &self.schedule, now.unix) {
            KeyState::Revoked => {}
            // The key has never signed a token, so no revocation is needed. Removing the key does not change how long
            // other keys are accepted.
            KeyState::Next if slot.signs_from > now.unix => change.remove(slot)?,
            KeyState::Next | KeyState::Retiring | KeyState::Dead => change.revoke(slot)?,
            KeyState::Signing => {
                // Create the replacement before the revocation, so that a signing key always exists. A key with a
                // distant start time does not count as the next key, because a wrong clock caused that time.
                let soon = now.unix.saturating_add(2 * LEAD);
                let mut behind = ring.slots()[place + 1..].iter().filter(|slot| slot.key.is_some());
                replaced_by = Some(match behind.find(|slot| slot.signs_from <= soon) {
                    Some(next) => next.id.clone().into(),
                    None => {
                        let signs_from = ring.free_from(now.unix.max(slot.signs_from.saturating_add(1)));
                        self.add(&change, &ring, signs_from, now)?.0
                    }
                });
                change.revoke(slot)?;
            }
        }
        let ring = change.ring(self.inner.algorithm)?;
        change.commit()?;
        self.store(ring, now);
        Ok(replaced_by)
    }

    /// Revokes every key and creates a new key that signs immediately. Use this function if all keys leaked.
    /// Returns the ids of the revoked keys and the id of the new key.
    ///
    /// # Errors
    /// Returns an error if the keys cannot be read or changed. Some keys may then already be revoked; the call can be
    /// repeated.
    pub fn revoke_all(&self, now: Now) -> Result<(Vec<String>, String), KeyringFault> {
        let change = self.place()?.change(LOCK_TIMEOUT)?;
        let ring = change.ring(self.inner.algorithm)?;
        let mut revoked = Vec::new();
        // Keys that have never signed are removed first, so that the new key is the last one.
        for slot in ring.slots()[ring.current(now.unix) + 1..].iter().filter(|slot| slot.key.is_some()) {
            change.remove(slot)?;
            revoked.push(slot.id.clone().into());
        }
        let ring = change.ring(self.inner.algorithm)?;
        let last = ring.slots().last().map_or(0, |slot| slot.signs_from);
        // The new key is created before the others are revoked, so that a signing key exists at every instant.
        let signs_from = ring.free_from(now.unix.max(last.saturating_add(1)));
        let (id, _) = self.add(&change, &ring, signs_from, now)?;
        for slot in ring.slots().iter().filter(|slot| slot.key.is_some()) {
            change.revoke(slot)?;
            revoked.push(slot.id.clone().into());
        }
        let ring = change.ring(self.inner.algorithm)?;
        change.commit()?;
        self.store(ring, now);
        Ok((revoked, id))
    }

    /// Encrypts with the current secret the keys in the store that are encrypted with the other one. Returns their ids.
    ///
    /// # Errors
    /// Returns an error if the keys are not in the store, or cannot be read or changed.
    pub fn reseal(&self) -> Result<Vec<String>, KeyringFault> {
        match self.place()?.change(LOCK_TIMEOUT)? {
            Change::Folder(..) => Err(KeyringFault::NotSealed),
            Change::Table(_, change) => {
                let done = change.reseal(self.inner.algorithm)?;
                change.commit()?;
                Ok(done)
            }
        }
    }

    /// Creates a key, and returns its id and the extended ring.
    fn add(
        &self,
        change: &Change<'_>,
        ring: &Ring,
        signs_from: u64,
        now: Now,
    ) -> Result<(String, Ring), KeyringFault> {
        let ring = change.add_key(self.inner.algorithm, ring, signs_from, now)?;
        let created = ring.slots().iter().find(|slot| slot.signs_from == signs_from);
        let id = created.map(|slot| slot.id.clone().into()).ok_or(KeyringFault::Vanished)?;
        Ok((id, ring))
    }

    fn place(&self) -> Result<&Place, KeyringFault> {
        match &self.inner.source {
            Source::Place(place) => Ok(place),
            Source::Secret(_) => Err(KeyringFault::SecretInPolicy),
            Source::Memory => Err(KeyringFault::NoKeyYet),
        }
    }
}
