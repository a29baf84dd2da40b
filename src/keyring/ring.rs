//! Which key signs and which keys are accepted at a given time. Pure arithmetic, without files or clocks.
//!
//! Keys are ordered by the time from which they sign. Each signs until the next one's time, and is accepted afterwards
//! for as long as its last token may live. A revoked key keeps its place, so that the key before it is not accepted for
//! longer.

use super::key::SigningKey;
use std::sync::Arc;
use std::time::Duration;

/// How long clients may cache the published key set, in seconds: its `Cache-Control: max-age`.
pub const JWKS_MAX_AGE: u64 = 300;
/// How long a key is published before it signs, in seconds.
pub const LEAD: u64 = 600;
// A client that fetched the set just before the key was added fetches it again before the key signs.
const _: () = assert!(LEAD >= 2 * JWKS_MAX_AGE);
/// How far the clocks of two gateways may be apart, in seconds. It also covers the delay until a gateway notices a
/// rotation by command.
pub const LEEWAY: u64 = 60;
/// How long the file of a dead key is kept, in seconds: a temporarily wrong clock must not delete keys that only appear
/// dead.
pub const RETENTION: u64 = 24 * 60 * 60;

/// Token lifetime and rotation period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The lifetime of an access token. A token with a longer lifetime by command expires with its key.
    pub access_expires: Duration,
    /// The time between two keys; zero: rotate by command only.
    pub rotate_keys: Duration,
}

impl Default for Schedule {
    /// The configuration's defaults.
    fn default() -> Self {
        Self {
            access_expires: Duration::from_secs(15 * 60),
            rotate_keys: Duration::from_secs(30 * 24 * 60 * 60),
        }
    }
}

impl Schedule {
    /// How long a key is accepted after the next one starts to sign, in seconds.
    pub(super) fn overlap(&self) -> u64 {
        self.access_expires.as_secs().saturating_add(LEEWAY)
    }
}

/// The place of one key in the ring.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    /// When the key starts to sign, in seconds since 1970; 0 if its age is unknown.
    pub signs_from: u64,
    /// The key; `None` if it is revoked.
    pub key: Option<Arc<SigningKey>>,
    /// The key's id, which stays known after revocation.
    pub id: Box<str>,
}

/// The state of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Published; signs later.
    Next,
    /// Signs.
    Signing,
    /// No longer signs; its tokens are still accepted.
    Retiring,
    /// No longer accepted.
    Dead,
    /// Revoked: not accepted.
    Revoked,
}

impl KeyState {
    /// All states, in the order of a key's life.
    pub const ALL: [Self; 5] = [Self::Next, Self::Signing, Self::Retiring, Self::Dead, Self::Revoked];

    /// The name in listings and metrics.
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

/// The keys in the order in which they sign. The last one is not revoked, so a signing key always exists.
#[derive(Clone, Debug)]
pub(super) struct Ring(Vec<Slot>);

impl Ring {
    /// Orders keys into a ring. Returns `None` if there are none, or if the last one is revoked.
    pub(super) fn new(mut slots: Vec<Slot>) -> Option<Self> {
        slots.sort_by_key(|slot| slot.signs_from);
        slots.last()?.key.as_ref()?;
        Some(Self(slots))
    }

    pub(super) fn slots(&self) -> &[Slot] {
        &self.0
    }

    /// The place of the signing key: the last one whose time has come. If that one is revoked, or no key's time has
    /// come because a clock went back, it is the next one that is not revoked. An older key, which has retired, never
    /// signs again.
    pub(super) fn current(&self, now: u64) -> usize {
        let started = self.0.partition_point(|slot| slot.signs_from <= now).saturating_sub(1);
        let usable = self.0[started..].iter().position(|slot| slot.key.is_some());
        started + usable.expect("the last key of a ring is not revoked")
    }

    /// The key that signs.
    pub(super) fn signing(&self, now: u64) -> &Arc<SigningKey> {
        let key = self.0[self.current(now)].key.as_ref();
        key.expect("current names a key that is not revoked")
    }

    /// When a key stops being accepted, exclusively; `None` while no key follows it.
    pub(super) fn accepted_until(&self, place: usize, schedule: &Schedule) -> Option<u64> {
        self.0.get(place + 1).map(|next| next.signs_from.saturating_add(schedule.overlap()))
    }

    /// The state of a key.
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

    /// The published keys, which are exactly the accepted ones.
    pub(super) fn published(&self, schedule: &Schedule, now: u64) -> Vec<Arc<SigningKey>> {
        let is_accepted = |place| match self.state(place, schedule, now) {
            KeyState::Next | KeyState::Signing | KeyState::Retiring => true,
            KeyState::Dead | KeyState::Revoked => false,
        };
        let slots = self.0.iter().enumerate().filter(|(place, _)| is_accepted(*place));
        slots.filter_map(|(_, slot)| slot.key.clone()).collect()
    }

    /// When the next key is to sign, if it is time to create it.
    pub(super) fn due(&self, schedule: &Schedule, now: u64) -> Option<u64> {
        let period = schedule.rotate_keys.as_secs();
        if period == 0 {
            return None;
        }
        let planned = self.0[self.current(now)].signs_from.saturating_add(period);
        let earliest = now.saturating_add(LEAD);
        // A key for a time far ahead, created by a wrong clock, must not prevent a key for the time before it. A key
        // from another gateway whose clock is slightly ahead is the next key.
        let signs_from = planned.max(earliest);
        let soon = signs_from.saturating_add(LEAD);
        let exists = self.0.iter().any(|slot| slot.signs_from > now && slot.signs_from <= soon);
        (planned <= earliest && !exists).then_some(signs_from)
    }

    /// The first time, from this one on, at which no other key starts to sign.
    pub(super) fn free_from(&self, time: u64) -> u64 {
        (time..).find(|time| self.0.iter().all(|slot| slot.signs_from != *time)).unwrap_or(time)
    }

    /// The number of keys, counted from the oldest, that have been dead for long enough to delete their files.
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
