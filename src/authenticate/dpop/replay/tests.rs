use super::Created::{ByClient, ByNonce};
use super::*;
use proptest::prelude::*;
use std::collections::HashSet;

const SPAN: u64 = 70;

fn bounds(capacity: usize) -> ReplayBounds {
    ReplayBounds { span: SPAN, capacity }
}

fn key(byte: u8) -> Thumbprint {
    Thumbprint([byte; 32])
}

#[test]
fn a_proof_is_accepted_once_by_each_key() {
    let set = ReplaySet::default();
    let admit =
        |key_byte, id: &str, now| set.admit(&key(key_byte), id, ByClient(now), now, bounds(1000), true);
    assert_eq!(admit(1, "a", 1000), Ok(()));
    assert_eq!(admit(1, "a", 1000), Err(ReplayFault::Seen));
    assert_eq!(admit(2, "a", 1000), Ok(()), "another key");
    assert_eq!(admit(1, "b", 1000), Ok(()), "another id");
    assert_eq!(set.len(), 3);
    assert_eq!(set.admit(&key(1), "c", ByClient(1000), 1000, bounds(1000), false), Ok(()), "only looked up");
    assert_eq!(admit(1, "c", 1000), Ok(()));
}

#[test]
fn when_it_is_full_new_proofs_are_refused_and_none_is_forgotten() {
    let set = ReplaySet::default();
    let admit = |key_byte: u8, id: usize, now| {
        set.admit(&key(key_byte), &id.to_string(), ByClient(now), now, bounds(64), true)
    };
    for byte in 0..8 {
        for id in 0..8 {
            assert_eq!(admit(byte, id, 1000), Ok(()));
        }
        assert_eq!(admit(byte, 8, 1000), Err(ReplayFault::FullForKey), "one client cannot fill it");
    }
    assert_eq!(admit(200, 1, 1000), Err(ReplayFault::Full));
    for byte in 0..8 {
        assert_eq!(admit(byte, 0, 1000), Err(ReplayFault::Seen));
    }
    assert_eq!(admit(200, 1, 1000 + 2 * SPAN), Ok(()), "the expired proofs of all parts make room");
    assert_eq!(set.len(), 1);
}

#[test]
fn neither_a_restart_nor_a_clock_that_is_set_back_revives_a_proof() {
    let set = ReplaySet::default();
    set.refuse_before(1000);
    let admit = |id: &str, created, now| set.admit(&key(1), id, ByNonce(created), now, bounds(1000), true);
    assert_eq!(admit("a", 999, 1001), Err(ReplayFault::Forgotten));
    // A client's clock may be ahead: its proof may have been used before the time that it states.
    for (created, expected) in [(1000 + AHEAD - 1, Err(ReplayFault::Forgotten)), (1000 + AHEAD, Ok(()))] {
        assert_eq!(set.admit(&key(2), "a", ByClient(created), 1001, bounds(1000), true), expected);
    }
    assert_eq!(admit("a", 1001, 1001), Ok(()));
    assert_eq!(admit("b", 1001 + 3 * SPAN, 1001 + 3 * SPAN), Ok(()));
    assert_eq!(admit("a", 1001, 1002), Err(ReplayFault::Forgotten), "the clock was set back");
    assert_eq!(admit("b", 1001 + 3 * SPAN, 1002), Err(ReplayFault::Seen));
}

#[test]
fn a_shorter_window_does_not_revive_what_a_longer_one_accepted() {
    let set = ReplaySet::default();
    let admit = |id: &str, created, now, span| {
        set.admit(&key(1), id, ByNonce(created), now, ReplayBounds { span, capacity: 1000 }, true)
    };
    assert_eq!(admit("first", 1000, 1000, 310), Ok(()));
    assert_eq!(admit("late", 1300, 1300, 310), Ok(()));
    assert_eq!(admit("late", 1300, 1301, 70), Err(ReplayFault::Forgotten));
    assert_eq!(admit("late", 1300, 1301, 310), Err(ReplayFault::Forgotten));
    assert_eq!(admit("next", 1301, 1301, 310), Ok(()));
}

#[test]
fn all_cores_together_accept_a_proof_once_and_no_more_than_the_capacity() {
    let set = ReplaySet::default();
    let accepted = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for id in 0..2000_u32 {
                    let key = key(u8::try_from(id % 32).unwrap());
                    let admitted = set.admit(&key, &id.to_string(), ByNonce(1000), 1000, bounds(1000), true);
                    accepted.fetch_add(usize::from(admitted.is_ok()), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!((accepted.into_inner(), set.len()), (1000, 1000));
    let held = set.parts.iter().map(|part| part.lock().unwrap().current.marks.len()).sum::<usize>();
    assert_eq!(held, 1000);
}

/// One step of the property test: how the clock moves, the settings in force, and the proof.
type Step = (i64, u64, usize, u64, u8, u8, bool);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let clock = prop_oneof![8 => 0_i64..30, 2 => -400_i64..0, 1 => 0_i64..2000, 1 => -5000_i64..5000];
    let step = (clock, 1_u64..=300, 1_usize..40, 0_u64..=310, 0_u8..4, 0_u8..3, any::<bool>());
    proptest::collection::vec(step, 1..400)
}

proptest! {
    #[test]
    fn no_proof_is_accepted_twice_however_the_clock_and_the_settings_change(steps in steps()) {
        let (set, mut accepted, mut now) = (ReplaySet::default(), HashSet::new(), 100_000_u64);
        let mut capacity_max = 0;
        for (wait, window, capacity, age, id, by, is_recorded) in steps {
            now = now.saturating_add_signed(wait).max(20_000);
            let created = now + AHEAD - age.min(window + AHEAD);
            let bounds = ReplayBounds { span: window + AHEAD, capacity };
            // Few ids and coarse times, so that most proofs come more than once.
            let created = created / 16 * 16;
            if created > now + AHEAD || now.saturating_sub(created) > window {
                continue;
            }
            let admitted =
                set.admit(&key(by), &format!("{id} {created}"), ByClient(created), now, bounds, is_recorded);
            if admitted.is_ok() {
                prop_assert!(!accepted.contains(&(by, id, created)), "accepted twice at {now}");
                if is_recorded {
                    accepted.insert((by, id, created));
                }
            }
            capacity_max = capacity_max.max(capacity);
            let held = |part: &Mutex<Part>| {
                let part = part.lock().unwrap();
                part.current.marks.len() + part.before.marks.len()
            };
            prop_assert_eq!(set.parts.iter().map(held).sum::<usize>(), set.len());
            prop_assert!(set.len() <= capacity_max);
        }
    }

    #[test]
    fn no_proof_is_accepted_twice_and_no_acceptable_one_is_lost(
        steps in proptest::collection::vec((0_u64..40, 0_u64..SPAN, 0_u8..6, 0_u8..3), 1..300)
    ) {
        let (set, mut seen, mut now) = (ReplaySet::default(), HashSet::new(), 10_000);
        for (wait, age, id, by) in steps {
            now += wait;
            // The window is `SPAN - AHEAD`.
            let created = now + AHEAD - age;
            let proof = (by, id, created);
            let admitted = set.admit(&key(by), &format!("{id} {created}"), ByClient(created), now, bounds(1_000_000), true);
            let expected = if seen.insert(proof) { Ok(()) } else { Err(ReplayFault::Seen) };
            prop_assert_eq!(admitted, expected);
        }
    }
}
