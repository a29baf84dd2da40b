//! Computes which key signs and which keys are accepted at a given time. The computation uses no files and no clock.
//!
//! Keys are ordered by the time from which they sign. Each key signs until the next key's time, and is accepted
//! afterwards until its last token has expired. A revoked key keeps its place in the ring, so that the key before it is
//! not accepted for longer.

use super::key::SigningKey;
use std::sync::Arc;
use std::time::Duration;

/// The time that clients may cache the published key set, in seconds. The value is the `max-age` of its `Cache-Control`.
pub const JWKS_MAX_AGE: u64 = 300;
/// The time that a key is published before it signs, in seconds.
pub const LEAD: u64 = 600;
// A client that fetched the set just before a key was added fetches the set again before that key signs.
const _: () = assert!(LEAD >= 2 * JWKS_MAX_AGE);
/// The maximum difference between the clocks of two gateways, in seconds. It also covers the delay until a gateway
/// notices a rotation by command.
pub const LEEWAY: u64 = 60;
/// The time that the file of a dead key is kept, in seconds. During this time, a wrong clock cannot delete keys that only
/// appear to be dead.
pub const RETENTION: u64 = 24 * 60 * 60;

/// The token lifetime and the rotation period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The lifetime of an access token. If a command issues a token with a longer lifetime, the token is still rejected
    /// once its key is no longer accepted.
    pub access_expires: Duration,
    /// The time between two keys. Zero disables scheduled rotation.
    pub rotate_keys: Duration,
}

impl Default for Schedule {
    /// Returns the defaults of the configuration.
    fn default() -> Self {
        Self {
            access_expires: Duration::from_secs(15 * 60),
            rotate_keys: Duration::from_secs(30 * 24 * 60 * 60),
        }
    }
}

impl Schedule {
    /// Returns how long a key is accepted after the next key starts to sign, in seconds.
    pub(super) fn overlap(&self) -> u64 {
        self.access_expires.as_secs().saturating_add(LEEWAY)
    }
}

/// An entry of the ring: a key, or the time and id of a revoked key.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    /// When the key starts to sign, in seconds since 1970; 0 if its age is unknown.
    pub signs_from: u64,
    /// The key; `None` if the key is revoked.
    pub key: Option<Arc<SigningKey>>,
    /// The key's id, which remains known after a revocation.
    pub id: Box<str>,
}

/// The state of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// The key is published and will sign later.
    Next,
    /// The key signs.
    Signing,
    /// The key no longer signs, but its tokens are still accepted.
    Retiring,
    /// The key is no longer accepted.
    Dead,
    /// The key was revoked and is not accepted.
    Revoked,
}

impl KeyState {
    /// All states, in the order in which a key passes through them.
    pub const ALL: [Self; 5] = [Self::Next, Self::Signing, Self::Retiring, Self::Dead, Self::Revoked];

    /// Returns the name that listings and metrics use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Signing => "signing",
            Self::Retiring => "retiring",
            Self::Dead => "dead",
            Self::Revoked => "revoked",
        }
    }
}

/// The keys in the order in which they sign. The last key is not revoked, so a signing key always exists.
#[derive(Clone, Debug)]
pub(super) struct Ring(Vec<Slot>);

impl Ring {
    /// Orders keys into a ring. Returns `None` if there are no keys or the last key is revoked.
    pub(super) fn new(mut slots: Vec<Slot>) -> Option<Self> {
        slots.sort_by_key(|slot| slot.signs_from);
        slots.last()?.key.as_ref()?;
        Some(Self(slots))
    }

    pub(super) fn slots(&self) -> &[Slot] {
        &self.0
    }

    /// Returns the index of the signing key. This is the last key with a start time up to `now`. If that key is
    /// revoked, or if the clock was set back before the first key's time, the next key that is not revoked signs. An
    /// older key that no longer signs never signs again.
    pub(super) fn current(&self, now: u64) -> usize {
        let started = self.0.partition_point(|slot| slot.signs_from <= now).saturating_sub(1);
        let usable = self.0[started..].iter().position(|slot| slot.key.is_some());
        started + usable.expect("the last key of a ring is not revoked")
    }

    /// Returns the key that signs at `now`.
    pub(super) fn signing(&self, now: u64) -> &Arc<SigningKey> {
        let key = self.0[self.current(now)].key.as_ref();
        key.expect("current names a key that is not revoked")
    }

    /// Returns when a key stops being accepted (exclusive); `None` while the ring has no later key.
    pub(super) fn accepted_until(&self, place: usize, schedule: &Schedule) -> Option<u64> {
        self.0.get(place + 1).map(|next| next.signs_from.saturating_add(schedule.overlap()))
    }

    /// Returns the state of the key at this index.
    pub(super) fn state(&self, place: usize, schedule: &Schedule, now: u64) -> KeyState {
        let current = self.current(now);
        if self.0[place].key.is_none() {
            KeyState::Revoked
        } else if place == current {
            KeyState::Signing
        } else if place > current {
            KeyState::Next
        } else if self.accepted_until(place, schedule).is_some_and(|until| now < until) {
            KeyState::Retiring
        } else {
            KeyState::Dead
        }
    }

    /// Returns the published keys, which are exactly the accepted keys.
    pub(super) fn published(&self, schedule: &Schedule, now: u64) -> Vec<Arc<SigningKey>> {
        let is_accepted = |place| match self.state(place, schedule, now) {
            KeyState::Next | KeyState::Signing | KeyState::Retiring => true,
            KeyState::Dead | KeyState::Revoked => false,
        };
        let slots = self.0.iter().enumerate().filter(|(place, _)| is_accepted(*place));
        slots.filter_map(|(_, slot)| slot.key.clone()).collect()
    }

    /// Returns the time from which the next key must sign, if that key must be created now.
    pub(super) fn due(&self, schedule: &Schedule, now: u64) -> Option<u64> {
        let period = schedule.rotate_keys.as_secs();
        if period == 0 {
            return None;
        }
        let planned = self.0[self.current(now)].signs_from.saturating_add(period);
        let earliest = now.saturating_add(LEAD);
        // A gateway with a wrong clock may have created a key for a distant time. Such a key must not prevent the
        // creation of the next key. A key that starts up to `LEAD` after `signs_from` counts as the next key, because a
        // gateway whose clock is slightly ahead may have created it.
        let signs_from = planned.max(earliest);
        let soon = signs_from.saturating_add(LEAD);
        let exists = self.0.iter().any(|slot| slot.signs_from > now && slot.signs_from <= soon);
        (planned <= earliest && !exists).then_some(signs_from)
    }

    /// Returns the earliest time, from `time` on, that is not the start time of an existing key.
    pub(super) fn free_from(&self, time: u64) -> u64 {
        (time..).find(|time| self.0.iter().all(|slot| slot.signs_from != *time)).unwrap_or(time)
    }

    /// Returns the number of keys, counted from the oldest, that have been dead for long enough that their files can be
    /// deleted.
    pub(super) fn expired(&self, schedule: &Schedule, now: u64) -> usize {
        let older = 0..self.current(now);
        let is_expired = |place: &usize| {
            self.accepted_until(*place, schedule).is_some_and(|until| now >= until.saturating_add(RETENTION))
        };
        older.take_while(is_expired).count()
    }
}

#[cfg(test)]
mod tests;
