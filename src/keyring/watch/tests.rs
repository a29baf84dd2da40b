//! Tests of the watcher on a real folder.

use super::super::folder::KeyFolder;
use super::super::scratch::{FIRST, START, Scratch};
use super::super::{LEAD, LEEWAY, RETENTION, RotationStart};
use super::*;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

const MONTH: u64 = 30 * 86_400;

fn look(watcher: &mut Watcher, now: u64) -> (Vec<KeyEvent>, Option<Vec<String>>) {
    let mut published = None;
    let events = watcher.poll(Now::at(now), |keys| {
        published = Some(keys.iter().map(|key| key.id().unwrap().to_owned()).collect());
    });
    (events, published)
}

#[track_caller]
fn quiet(watcher: &mut Watcher, now: u64) {
    assert_eq!(look(watcher, now), (vec![], None));
}

#[test]
fn a_new_key_verifies_before_it_signs() {
    let folder = Scratch::new();
    let keyring = folder.open(START);
    let first = keyring.signing(Now::at(START)).id().to_owned();
    let mut watcher = keyring.watcher(Now::at(START));
    quiet(&mut watcher, START);
    let other = folder.open(START);
    let second = other.rotate(RotationStart::Immediate, Now::at(START + 60)).unwrap().id;
    let mut seen = None;
    let events = watcher.poll(Now::at(START + 61), |keys| {
        assert_eq!(keyring.signing(Now::at(START + 61)).id(), first, "not before it would be accepted");
        seen = Some(keys.iter().count());
    });
    assert_eq!(seen, Some(2));
    assert_eq!(
        events,
        [
            KeyEvent::Published { id: second.clone(), signs_from: START + 60 },
            KeyEvent::Activated { id: second.clone() }
        ]
    );
    assert_eq!(keyring.signing(Now::at(START + 61)).id(), second);
    quiet(&mut watcher, START + 62);
    other.revoke(&first, Now::at(START + 70)).unwrap();
    assert_eq!(look(&mut watcher, START + 70), (vec![KeyEvent::Revoked { id: first }], Some(vec![second])));
    quiet(&mut watcher, START + 71);
}

#[test]
fn a_month_of_keys_by_schedule() {
    let folder = Scratch::new();
    let keyring = folder.open(START);
    let first = keyring.signing(Now::at(START)).id().to_owned();
    let mut watcher = keyring.watcher(Now::at(START));
    let due = START + MONTH;
    quiet(&mut watcher, due - LEAD - 1);
    let (events, keys) = look(&mut watcher, due - LEAD);
    let [KeyEvent::Published { id: second, signs_from }] = &events[..] else { panic!("{events:?}") };
    assert_eq!((*signs_from, keys), (due, Some(vec![first.clone(), second.clone()])));
    quiet(&mut watcher, due - 1);
    assert_eq!(keyring.signing(Now::at(due - 1)).id(), first);
    assert_eq!(look(&mut watcher, due), (vec![KeyEvent::Activated { id: second.clone() }], None));
    let end = due + 900 + LEEWAY;
    quiet(&mut watcher, end - 1);
    let retired = vec![KeyEvent::Retired { id: first.clone() }];
    assert_eq!(look(&mut watcher, end), (retired, Some(vec![second.clone()])));
    quiet(&mut watcher, end + RETENTION - 1);
    assert_eq!(folder.files().len(), 2);
    assert_eq!(look(&mut watcher, end + RETENTION), (vec![KeyEvent::Removed { id: first }], None));
    assert_eq!(folder.files().len(), 1);
    quiet(&mut watcher, end + RETENTION + 1);
}

#[test]
fn gateways_on_one_folder_agree() {
    let folder = Scratch::new();
    let keyrings = [(); 4].map(|()| folder.open(START));
    let mut watchers = keyrings.each_ref().map(|keyring| keyring.watcher(Now::at(START)));
    // The gateways were off and the next key is overdue. The gateway whose clock is ahead of the others polls first.
    look(&mut watchers[3], START + 2 * MONTH + 9);
    look(&mut watchers[0], START + 2 * MONTH);
    assert_eq!(folder.files().len(), 2, "one key was made: {:?}", folder.files());
    // All gateways poll at once, with clocks that differ.
    for round in 0..40 {
        std::thread::scope(|scope| {
            for (n, watcher) in (0_u64..).zip(&mut watchers) {
                scope.spawn(move || look(watcher, START + 2 * MONTH + round * 20 + n));
            }
        });
    }
    assert_eq!(folder.files().len(), 2, "one key was made: {:?}", folder.files());
    let at = START + 2 * MONTH + 900;
    for watcher in &mut watchers {
        assert_eq!(look(watcher, at).0, []);
    }
    let ids = keyrings.map(|keyring| keyring.signing(Now::at(at)).id().to_owned());
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[test]
fn the_keys_that_were_good_go_on_whatever_becomes_of_their_files() {
    for (name, spoil, mend) in [
        (
            "spoilt",
            (|file| fs::write(file, "nothing").unwrap()) as fn(&std::path::Path),
            None::<fn(&std::path::Path)>,
        ),
        (
            "open to others",
            |file| fs::set_permissions(file, Permissions::from_mode(0o644)).unwrap(),
            Some(|file| fs::set_permissions(file, Permissions::from_mode(0o600)).unwrap()),
        ),
        (
            "beside another that is none",
            |file| fs::write(file.with_file_name("signing-key.old.pem"), "").unwrap(),
            Some(|file| fs::remove_file(file.with_file_name("signing-key.old.pem")).unwrap()),
        ),
        (
            "in a folder that anybody may write to",
            |file| fs::set_permissions(file.parent().unwrap(), Permissions::from_mode(0o777)).unwrap(),
            Some(|file| fs::set_permissions(file.parent().unwrap(), Permissions::from_mode(0o700)).unwrap()),
        ),
        (
            "and under the name of an earlier moment too",
            |file| {
                let twin = file.with_file_name("signing-key.20200101T000000Z.pem");
                fs::copy(file, twin).map(drop).unwrap();
            },
            None,
        ),
        (
            "in a folder that is gone",
            |file| fs::rename(file.parent().unwrap(), file.parent().unwrap().with_extension("x")).unwrap(),
            Some(|file| {
                fs::rename(file.parent().unwrap().with_extension("x"), file.parent().unwrap()).unwrap()
            }),
        ),
    ] {
        let folder = Scratch::new();
        let keyring = folder.open(START);
        let first = keyring.signing(Now::at(START)).id().to_owned();
        let mut watcher = keyring.watcher(Now::at(START));
        quiet(&mut watcher, START);
        spoil(&folder.0.join(FIRST));
        let (events, keys) = look(&mut watcher, START + 1);
        assert!(matches!(&events[..], [KeyEvent::Fault(_)]), "{name}: {events:?}");
        assert_eq!(keys, None, "{name}");
        quiet(&mut watcher, START + 2);
        quiet(&mut watcher, START + MONTH - LEAD);
        assert_eq!(keyring.faults(), 1, "{name}");
        assert_eq!(keyring.signing(Now::at(START + 2)).id(), first, "{name}");
        assert_eq!(keyring.key_set().unwrap().iter().count(), 1, "{name}");
        if let Some(mend) = mend {
            mend(&folder.0.join(FIRST));
            let (events, _) = look(&mut watcher, START + 3);
            assert_eq!(events, [KeyEvent::Recovered], "{name}");
            quiet(&mut watcher, START + 4);
        }
    }
}

#[test]
fn that_a_key_was_taken_back_is_believed_beside_a_broken_file() {
    let folder = Scratch::new();
    let keyring = folder.open(START);
    let first = keyring.signing(Now::at(START)).id().to_owned();
    let second = keyring.rotate(RotationStart::Immediate, Now::at(START + 10)).unwrap().id;
    let mut watcher = keyring.watcher(Now::at(START + 10));
    quiet(&mut watcher, START + 10);
    folder.place("signing-key.20270101T000000Z.pem", "broken");
    folder.place("signing-key.20261123T091601Z.revoked", &first);
    let (events, keys) = look(&mut watcher, START + 11);
    assert!(events.contains(&KeyEvent::Revoked { id: first }), "{events:?}");
    assert_eq!(keys, Some(vec![second]));
}

#[test]
fn after_the_last_key_is_revoked_another_signs() {
    let folder = Scratch::new();
    let keyring = folder.open(START);
    let first = keyring.signing(Now::at(START)).id().to_owned();
    let mut watcher = keyring.watcher(Now::at(START));
    folder.place("signing-key.20261123T091601Z.revoked", &first);
    let (events, keys) = look(&mut watcher, START + 1);
    assert!(events.contains(&KeyEvent::Revoked { id: first.clone() }), "{events:?}");
    let keys = keys.unwrap();
    assert_eq!(keys.len(), 1);
    assert_ne!(keys[0], first);
    assert_eq!(keyring.signing(Now::at(START + 1)).id(), keys[0]);
}

#[test]
fn a_key_that_was_taken_back_is_accepted_nowhere_even_if_no_other_can_be_made() {
    let folder = Scratch::new();
    let keyring = folder.open(START);
    let first = keyring.signing(Now::at(START)).id().to_owned();
    let mut watcher = keyring.watcher(Now::at(START));
    folder.place("signing-key.20270101T000000Z.pem", "broken");
    folder.place("signing-key.20261123T091601Z.revoked", &first);
    let (events, keys) = look(&mut watcher, START + 1);
    assert!(events.contains(&KeyEvent::Revoked { id: first.clone() }), "{events:?}");
    let keys = keys.unwrap();
    assert_eq!((keys.len(), keys.contains(&first)), (1, false));
    assert_eq!(keyring.signing(Now::at(START + 1)).id(), keys[0]);
    quiet(&mut watcher, START + 2);
    // After the faulty file is removed, the keys in the folder are in use again.
    fs::remove_file(folder.0.join("signing-key.20270101T000000Z.pem")).unwrap();
    let (events, _) = look(&mut watcher, START + 3);
    assert!(events.contains(&KeyEvent::Recovered), "{events:?}");
    assert_eq!(
        keyring.signing(Now::at(START + 3)).id(),
        folder.open(START + 3).signing(Now::at(START + 3)).id()
    );
}

#[test]
fn a_key_that_cannot_be_created_is_tried_again_later() {
    let folder = Scratch::new();
    let keyring = folder.open(START);
    let mut watcher = keyring.watcher(Now::at(START));
    quiet(&mut watcher, START);
    // A folder takes the place of the lock file, so no process can create a key.
    let lock = folder.0.join("signing-key.lock");
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    let due = START + MONTH;
    assert!(matches!(&look(&mut watcher, due).0[..], [KeyEvent::Fault(_)]));
    quiet(&mut watcher, due + 1);
    fs::remove_dir(&lock).unwrap();
    quiet(&mut watcher, due + RETRY - 1);
    let (events, keys) = look(&mut watcher, due + RETRY);
    assert!(matches!(&events[..], [KeyEvent::Recovered, KeyEvent::Published { .. }]), "{events:?}");
    assert_eq!(keys.map(|keys| keys.len()), Some(2));
    assert_eq!(keyring.faults(), 1);
}

#[test]
fn a_key_that_another_gateway_made_in_the_meantime_will_do() {
    let folder = Scratch::new();
    let keyring = folder.open(START);
    let stale = keyring.inner.view.load().ring.clone();
    let due = START + MONTH - LEAD;
    assert_eq!(look(&mut folder.open(START).watcher(Now::at(START)), due).1.map(|keys| keys.len()), Some(2));
    // This watcher read the folder before the next key was created, and its clock is behind.
    let mut watcher = keyring.watcher(Now::at(START));
    let (ring, removed) =
        watcher.change(&Place::Folder(KeyFolder::new(&folder.0)), &stale, Now::at(due)).unwrap();
    assert_eq!((ring.slots().len(), removed.len(), folder.files().len()), (2, 0, 2));
}

#[test]
fn a_busy_folder_is_left_alone() {
    let folder = Scratch::new();
    let keyring = folder.open(START);
    let mut watcher = keyring.watcher(Now::at(START));
    let lock = KeyFolder::new(&folder.0).lock(Duration::ZERO).unwrap();
    quiet(&mut watcher, START + MONTH);
    assert!(matches!(KeyFolder::new(&folder.0).lock(Duration::ZERO), Err(KeyringFault::Locked)));
    drop(lock);
    assert_eq!(look(&mut watcher, START + MONTH).1.map(|keys| keys.len()), Some(2));
}
