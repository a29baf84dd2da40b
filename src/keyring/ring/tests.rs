//! Tests of the order of keys, with examples and properties.

use super::*;
use crate::authenticate::Algorithm;
use proptest::prelude::*;

fn slot(signs_from: u64) -> Slot {
    let key = SigningKey::generate(Algorithm::EdDSA).unwrap().0;
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
        // The clock was set back to a time before the first key.
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
    // The key before the revoked key does not sign again, and is not accepted for longer than before the revocation.
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
        // The gateway was off when the next key was due. The key is still published before it signs.
        (&[start], start + month, Some(start + month + LEAD)),
        (&[start], start + 9 * month, Some(start + 9 * month + LEAD)),
        // A key of unknown age counts as old.
        (&[0], start, Some(start + LEAD)),
        // The next key already exists, created by another gateway or by a command.
        (&[start, start + month], start + month - LEAD, None),
        (&[start, start + 2 * day], start + day, None),
        (&[0, start + LEAD - 1], start, None),
        // A key for a time in the next century does not count as the next key.
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
    for (now, expired) in [
        (5_000 + 960 + RETENTION - 1, 0),
        (5_000 + 960 + RETENTION, 1),
        (9_000 + 960 + RETENTION - 1, 1),
        (9_000 + 960 + RETENTION, 2),
        (1_000_000 + 960 + RETENTION - 1, 2),
        (1_000_000 + 960 + RETENTION, 3),
        (u64::MAX, 3),
    ] {
        assert_eq!(ring.expired(&schedule, now), expired, "{now}");
    }
}

/// An event of a key ring.
#[derive(Clone, Debug)]
enum Step {
    /// This many seconds pass while a gateway runs.
    Pass(u64),
    /// This many seconds pass while no gateway runs.
    Sleep(u64),
    /// The operator runs `key rotate`.
    Rotate,
    /// The operator runs `key rotate --now`.
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
        // For each key: the time since which it is published, and whether it had to sign at once.
        let mut born = std::collections::HashMap::from([(ring.slots()[0].id.clone(), (now, true))]);
        // For each token: the id of its key, and the time at which it expires.
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
                        let expired = ring.expired(&schedule, now);
                        ring = Ring::new(ring.slots()[expired..].to_vec()).unwrap();
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
