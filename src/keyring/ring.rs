//! When which key signs and is accepted: arithmetic on moments, without files and clocks.
//!
//! The keys stand in the order of the moments from which they sign. Each signs until the next one's moment, and is
//! accepted for as long after that as a token may live. A revoked key keeps its place, so that what comes before it
//! does not live longer for its going.

use super::key::SigningKey;
use std::sync::Arc;
use std::time::Duration;

/// For how long programs may keep the published key set, in seconds: its `Cache-Control: max-age`.
pub const JWKS_MAX_AGE: u64 = 300;
/// How long before it signs a key is published, in seconds.
pub const LEAD: u64 = 600;
// Whoever fetched the set just before the key was in it fetches it again before the key signs.
const _: () = assert!(LEAD >= 2 * JWKS_MAX_AGE);
/// How far the clocks of two gateways may be apart, in seconds; it covers the moment until a gateway notices a rotation by
/// command, too.
pub const LEEWAY: u64 = 60;
/// How long the file of a key that is not accepted any more is kept, in seconds: a clock that is wrong for a while must
/// not cost keys that it only makes look dead.
pub const KEPT: u64 = 24 * 60 * 60;

/// How long tokens live, and how often the key changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The life of an access token. One that was asked to live longer ends with its key.
    pub access_expires: Duration,
    /// After how long the next key signs; zero: only by command.
    pub rotate_keys: Duration,
}

impl Default for Schedule {
    /// As the policy has it where it says nothing.
    fn default() -> Self {
        Self {
            access_expires: Duration::from_secs(15 * 60),
            rotate_keys: Duration::from_secs(30 * 24 * 60 * 60),
        }
    }
}

impl Schedule {
    /// For how long a key is accepted after the next one signs, in seconds.
    pub(super) fn overlap(&self) -> u64 {
        self.access_expires.as_secs().saturating_add(LEEWAY)
    }
}

/// The place of one key in the ring.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    /// From when it signs, in seconds since 1970; 0 for a key of unknown age.
    pub signs_from: u64,
    /// The key; none: it was revoked.
    pub key: Option<Arc<SigningKey>>,
    /// The key's id, which is known of a revoked one too.
    pub id: Box<str>,
}

/// What a key is for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Published, to sign later.
    Next,
    /// Signs.
    Signing,
    /// Signs no more; its tokens are accepted.
    Retiring,
    /// Not accepted any more.
    Dead,
    /// Taken back.
    Revoked,
}

impl KeyState {
    /// All of them, in the order of a key's life.
    pub const ALL: [Self; 5] = [Self::Next, Self::Signing, Self::Retiring, Self::Dead, Self::Revoked];

    /// In lists and metrics.
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

/// The keys, in the order in which they sign. The last one is not revoked, so that there always is one to sign with.
#[derive(Clone, Debug)]
pub(super) struct Ring(Vec<Slot>);

impl Ring {
    /// A ring of these keys; none when the last of them is revoked, or there is none.
    pub(super) fn new(mut slots: Vec<Slot>) -> Option<Self> {
        slots.sort_by_key(|slot| slot.signs_from);
        slots.last()?.key.as_ref()?;
        Some(Self(slots))
    }

    pub(super) fn slots(&self) -> &[Slot] {
        &self.0
    }

    /// The place of the key that signs: the last whose moment has come. Where that one was revoked, and where no moment
    /// has come yet (a clock that went back), the next one that was not; never an older one, which has retired.
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

    /// Until when this key is accepted, exclusively; none while no other is to sign after it.
    pub(super) fn accepted_until(&self, place: usize, schedule: &Schedule) -> Option<u64> {
        self.0.get(place + 1).map(|next| next.signs_from.saturating_add(schedule.overlap()))
    }

    /// What this key is for now.
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

    /// The keys that are accepted, which are those that are published.
    pub(super) fn published(&self, schedule: &Schedule, now: u64) -> Vec<Arc<SigningKey>> {
        let accepted = |place| match self.state(place, schedule, now) {
            KeyState::Next | KeyState::Signing | KeyState::Retiring => true,
            KeyState::Dead | KeyState::Revoked => false,
        };
        let slots = self.0.iter().enumerate().filter(|(place, _)| accepted(*place));
        slots.filter_map(|(_, slot)| slot.key.clone()).collect()
    }

    /// From when the next key is to sign, if it is time to make it.
    pub(super) fn due(&self, schedule: &Schedule, now: u64) -> Option<u64> {
        let period = schedule.rotate_keys.as_secs();
        if period == 0 {
            return None;
        }
        let planned = self.0[self.current(now)].signs_from.saturating_add(period);
        let earliest = now.saturating_add(LEAD);
        // A key for a time far ahead, made by a clock that was wrong, is no reason to make none for the time between; one
        // that another gateway made, whose clock is a little ahead of ours, is the next key.
        let signs_from = planned.max(earliest);
        let soon = signs_from.saturating_add(LEAD);
        let known = self.0.iter().any(|slot| slot.signs_from > now && slot.signs_from <= soon);
        (planned <= earliest && !known).then_some(signs_from)
    }

    /// The first moment, not before this one, from which no key signs yet.
    pub(super) fn free_from(&self, moment: u64) -> u64 {
        (moment..).find(|moment| self.0.iter().all(|slot| slot.signs_from != *moment)).unwrap_or(moment)
    }

    /// How many keys, from the oldest on, have been dead for so long that their files can go.
    pub(super) fn spent(&self, schedule: &Schedule, now: u64) -> usize {
        let older = 0..self.current(now);
        let spent = |place: &usize| {
            self.accepted_until(*place, schedule).is_some_and(|until| now >= until.saturating_add(KEPT))
        };
        older.take_while(spent).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authenticate::Algorithm;
    use proptest::prelude::*;

    fn slot(signs_from: u64) -> Slot {
        let key = SigningKey::fleeting(Algorithm::EdDSA).unwrap();
        Slot { signs_from, id: key.id().into(), key: Some(Arc::new(key)) }
    }

    fn revoked(signs_from: u64) -> Slot {
        Slot { key: None, ..slot(signs_from) }
    }

    fn schedule(access_expires: u64, rotate_keys: u64) -> Schedule {
        Schedule {
            access_expires: Duration::from_secs(access_expires),
            rotate_keys: Duration::from_secs(rotate_keys),
        }
    }

    #[test]
    fn a_key_is_published_then_signs_then_is_accepted_until_its_last_token_is_dead() {
        let ring = Ring::new(vec![slot(5_000), slot(1_000)]).unwrap();
        let schedule = schedule(900, 0);
        use KeyState::{Dead, Next, Retiring, Signing};
        for (now, states) in [
            // Before all of them: a clock that went back.
            (0, [Signing, Next]),
            (1_000, [Signing, Next]),
            (4_999, [Signing, Next]),
            (5_000, [Retiring, Signing]),
            (5_959, [Retiring, Signing]),
            (5_960, [Dead, Signing]),
            (u64::MAX, [Dead, Signing]),
        ] {
            assert_eq!([0, 1].map(|place| ring.state(place, &schedule, now)), states, "{now}");
            let published = states.iter().filter(|state| **state != Dead).count();
            assert_eq!(ring.published(&schedule, now).len(), published, "{now}");
        }
        assert_eq!(ring.accepted_until(0, &schedule), Some(5_000 + 900 + LEEWAY));
        assert_eq!(ring.accepted_until(1, &schedule), None);
    }

    #[test]
    fn a_revoked_key_is_never_used_and_keeps_its_place() {
        let ring = Ring::new(vec![slot(1_000), revoked(2_000), slot(3_000)]).unwrap();
        let schedule = schedule(900, 0);
        // The one before it does not sign again, and is accepted no longer than it was.
        assert_eq!(ring.current(2_500), 2);
        assert_eq!(ring.accepted_until(0, &schedule), Some(2_960));
        for now in [0, 1_999, 2_000, 2_959, 2_960, 3_000, 9_000] {
            assert_eq!(ring.state(1, &schedule, now), KeyState::Revoked);
            let revoked = &ring.slots()[1].id;
            assert!(ring.published(&schedule, now).iter().all(|key| *key.id() != **revoked), "{now}");
        }
        assert!(Ring::new(vec![slot(1_000), revoked(2_000)]).is_none(), "nothing to sign with");
        assert!(Ring::new(vec![]).is_none());
    }

    #[test]
    fn the_next_key_is_made_once_and_in_time() {
        let (day, month) = (86_400, 30 * 86_400);
        let schedule = schedule(900, month);
        let ring = |moments: &[u64]| Ring::new(moments.iter().copied().map(slot).collect()).unwrap();
        let start = 100 * day;
        for (moments, now, due) in [
            (&[start][..], start, None),
            (&[start], start + month - LEAD - 1, None),
            (&[start], start + month - LEAD, Some(start + month)),
            // The gateway was off when it was due: published first all the same.
            (&[start], start + month, Some(start + month + LEAD)),
            (&[start], start + 9 * month, Some(start + 9 * month + LEAD)),
            // A key of unknown age is old.
            (&[0], start, Some(start + LEAD)),
            // It is there already, made by another gateway or by command.
            (&[start, start + month], start + month - LEAD, None),
            (&[start, start + 2 * day], start + day, None),
            (&[0, start + LEAD - 1], start, None),
            // And one of the next century does not count.
            (&[start, start + 1200 * month], start + month, Some(start + month + LEAD)),
        ] {
            assert_eq!(ring(moments).due(&schedule, now), due, "{moments:?} {now}");
            assert_eq!(ring(moments).due(&self::schedule(900, 0), now), None);
        }
    }

    #[test]
    fn files_go_a_day_after_their_keys_and_never_the_one_that_signs() {
        let schedule = schedule(900, 0);
        let ring = Ring::new(vec![slot(0), revoked(5_000), slot(9_000), slot(1_000_000)]).unwrap();
        for (now, spent) in [
            (5_000 + 960 + KEPT - 1, 0),
            (5_000 + 960 + KEPT, 1),
            (9_000 + 960 + KEPT - 1, 1),
            (9_000 + 960 + KEPT, 2),
            (1_000_000 + 960 + KEPT - 1, 2),
            (1_000_000 + 960 + KEPT, 3),
            (u64::MAX, 3),
        ] {
            assert_eq!(ring.spent(&schedule, now), spent, "{now}");
        }
    }

    /// What may happen to a ring.
    #[derive(Clone, Debug)]
    enum Step {
        /// So many seconds pass, while a gateway looks.
        Pass(u64),
        /// So many seconds pass, while nobody looks.
        Sleep(u64),
        /// `key rotate`
        Rotate,
        /// `key rotate --now`
        RotateNow,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (1..4_000_u64).prop_map(Step::Pass),
            1 => (1..400_000_u64).prop_map(Step::Sleep),
            1 => Just(Step::Rotate),
            1 => Just(Step::RotateNow),
        ];
        prop::collection::vec(step, 1..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn at_every_moment_one_key_signs_it_was_published_in_time_and_every_living_token_is_accepted(
            steps in steps(),
            access_expires in 1..5_000_u64,
            rotate_keys in prop_oneof![Just(0), 3_600..200_000_u64],
        ) {
            let schedule = schedule(access_expires, rotate_keys);
            let mut now = 1_000_000_u64;
            let mut ring = Ring::new(vec![slot(now)]).unwrap();
            // Each key: since when it is published, and whether it had to sign at once.
            let mut born = std::collections::HashMap::from([(ring.slots()[0].id.clone(), (now, true))]);
            // Tokens: the key's id, and their end.
            let mut tokens: Vec<(Box<str>, u64)> = Vec::new();
            for step in steps {
                let mut add = |ring: &mut Ring, signs_from, now, at_once| {
                    let slot = slot(signs_from);
                    born.insert(slot.id.clone(), (now, at_once));
                    *ring = Ring::new([ring.slots(), &[slot]].concat()).unwrap();
                };
                match step {
                    Step::Pass(seconds) => {
                        let end = now + seconds;
                        while now < end {
                            now += seconds.div_ceil(20).min(end - now);
                            if let Some(signs_from) = ring.due(&schedule, now) {
                                add(&mut ring, signs_from, now, false);
                            }
                            let spent = ring.spent(&schedule, now);
                            ring = Ring::new(ring.slots()[spent..].to_vec()).unwrap();
                        }
                    }
                    Step::Sleep(seconds) => now += seconds,
                    Step::Rotate => {
                        let signs_from = ring.free_from(now + LEAD);
                        add(&mut ring, signs_from, now, false);
                    }
                    Step::RotateNow => {
                        let signs_from = ring.free_from(now);
                        add(&mut ring, signs_from, now, true);
                    }
                }
                let states = (0..ring.slots().len()).map(|place| ring.state(place, &schedule, now));
                prop_assert_eq!(states.filter(|state| *state == KeyState::Signing).count(), 1);
                let signing = ring.signing(now).id().to_owned();
                let (published, at_once) = born[&*signing];
                prop_assert!(at_once || now >= published + LEAD, "{signing} was not published in time");
                tokens.push((signing.into(), now + access_expires));
                tokens.retain(|(_, end)| now < *end);
                let published = ring.published(&schedule, now);
                for (id, end) in &tokens {
                    prop_assert!(published.iter().any(|key| key.id() == &**id), "a token until {end} at {now}");
                }
                for (place, slot) in ring.slots().iter().enumerate() {
                    if let Some(until) = ring.accepted_until(place, &schedule)
                        && now >= until
                    {
                        prop_assert!(published.iter().all(|key| *key.id() != *slot.id));
                    }
                }
            }
        }
    }
}
