//! Tests of the keyring and its commands on a real folder.

use super::folder::KEYS_MAX;
use super::scratch::{FIRST, START, Scratch};
use super::*;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

fn states(keyring: &Keyring, now: u64) -> Vec<KeyState> {
    keyring.list(Now::at(now)).iter().map(|key| key.state).collect()
}

fn id(keyring: &Keyring, now: u64) -> String {
    keyring.signing(Now::at(now)).id().to_owned()
}

impl Keyring {
    fn published_ids(&self) -> Vec<String> {
        self.inner.view.load().published.iter().map(|key| key.id().to_owned()).collect()
    }
}

#[test]
fn the_first_key_is_made_once_and_nobody_else_may_read_it() {
    let folder = Scratch::new();
    let first = folder.open(START);
    assert_eq!(id(&first, START), id(&folder.open(START + 9), START + 9));
    assert_eq!(folder.files(), [FIRST], "nothing half made is left");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder.0), mode(&folder.0.join(FIRST))), (0o700, 0o600));
    assert_eq!(mode(&folder.0.join("signing-key.lock")), 0o600);
    let other = Keyring::open(KeyStorage::Folder(&folder.0), Algorithm::ES256, None, MissingKey::Create)
        .unwrap_err()
        .to_string();
    assert!(other.contains("not a key for ES256") && other.contains(FIRST), "{other}");
    let chmod = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    chmod(&folder.0.join(FIRST), 0o640);
    assert!(folder.try_open(START).unwrap_err().to_string().contains("chmod 600"));
    chmod(&folder.0.join(FIRST), 0o600);
    chmod(&folder.0, 0o777);
    assert!(folder.try_open(START).unwrap_err().to_string().contains("chmod 700"));
    chmod(&folder.0, 0o700);
    folder.open(START);
}

#[test]
fn processes_that_start_together_agree_on_one_key() {
    let folder = Scratch::new();
    let ids: Vec<_> = std::thread::scope(|scope| {
        // The threads use different times, so the names of their key files would differ.
        let threads = (0..8).map(|n| {
            scope.spawn({
                let folder = &folder;
                move || id(&folder.open(START + n), START)
            })
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(folder.files().len(), 1);
}

#[test]
fn looking_at_a_policy_leaves_nothing_behind() {
    let folder = Scratch::new();
    for algorithm in [Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256] {
        let keyring =
            Keyring::open(KeyStorage::Folder(&folder.0), algorithm, None, MissingKey::Ephemeral).unwrap();
        assert!(keyring.is_ephemeral());
        assert_eq!(keyring.key_set().unwrap().iter().count(), 1);
        assert!(keyring.rotate(RotationStart::Immediate, Now::read()).is_err());
    }
    assert!(!folder.0.exists());
}

#[test]
fn a_secret_is_given_and_long_enough_touches_no_file_and_is_not_published() {
    let folder = Scratch::new();
    let open =
        |secret| Keyring::open(KeyStorage::Folder(&folder.0), Algorithm::HS256, secret, MissingKey::Create);
    let keyring = open(Some(&[7; 32])).unwrap();
    assert_eq!(id(&keyring, START), "hs256");
    assert_eq!(keyring.jwks(), "{\"keys\":[]}\n");
    assert_eq!(keyring.key_set().unwrap().iter().count(), 1);
    for refused in [
        keyring.rotate(RotationStart::Immediate, Now::read()).unwrap_err().to_string(),
        keyring.revoke("hs256", Now::read()).unwrap_err().to_string(),
    ] {
        assert!(refused.contains("[authority] secret"), "{refused}");
    }
    assert!(keyring.watcher(Now::at(START)).poll(Now::at(START), |_| panic!("nothing changes")).is_empty());
    assert!(open(Some(&[7; 31])).unwrap_err().to_string().contains("248 bits"));
    assert!(open(None).unwrap_err().to_string().contains("needs a secret"));
    assert!(!format!("{keyring:?}").contains("7, 7"), "{keyring:?}");
    assert!(!folder.0.exists());
}

#[test]
fn a_file_that_is_no_key_is_neither_taken_nor_replaced() {
    let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
    let public = rcgen::KeyPair::generate().unwrap().public_key_pem();
    let large = "A".repeat(1 << 20);
    for name in ["signing-key.pem", FIRST] {
        for pem in ["", "nothing", &p384, &public, &large] {
            let folder = Scratch::new();
            folder.place(name, pem);
            for algorithm in [Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256] {
                for absent in [MissingKey::Create, MissingKey::Ephemeral] {
                    let fault = Keyring::open(KeyStorage::Folder(&folder.0), algorithm, None, absent)
                        .unwrap_err()
                        .to_string();
                    assert!(fault.contains(name), "{fault}");
                }
            }
            assert_eq!(fs::read_to_string(folder.0.join(name)).unwrap(), pem);
            assert_eq!(folder.files(), [name]);
        }
    }
}

#[test]
fn a_name_without_a_time_is_reported_and_other_files_are_ignored() {
    let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
    for name in [
        "signing-key.old.pem",
        "signing-key..pem",
        "signing-key.20260230T000000Z.pem",
        "signing-key.x.revoked",
    ] {
        let folder = Scratch::new();
        folder.place(name, &pem);
        let fault = folder.try_open(START).unwrap_err().to_string();
        assert!(fault.contains(name) && fault.contains("not a signing-key file name"), "{fault}");
    }
    for name in
        ["signing-key", "signing-keys.pem", "certificate.pem", "signing-key.pem.bak", "x.signing-key.pem"]
    {
        let folder = Scratch::new();
        folder.place(name, "nothing");
        folder.open(START);
        assert_eq!(folder.files().len(), 2, "{name}");
    }
}

#[test]
fn the_key_of_the_first_version_is_taken_over_as_it_is() {
    let folder = Scratch::new();
    let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
    folder.place("signing-key.pem", &pem);
    let keyring = folder.open(START);
    assert_eq!(folder.files(), ["signing-key.pem"]);
    let listed = &keyring.list(Now::at(START))[0];
    assert_eq!((listed.state, listed.signs_from), (KeyState::Signing, None));
    assert_eq!(listed.id, id(&keyring, START));
    // A key from the first version can be rotated and revoked like any other key.
    keyring.rotate(RotationStart::Immediate, Now::at(START)).unwrap();
    assert_eq!(states(&keyring, START), [KeyState::Retiring, KeyState::Signing]);
    assert_eq!(keyring.revoke(&listed.id, Now::at(START + 1)), Ok(None));
    assert_eq!(folder.files(), [FIRST, "signing-key.revoked"]);
}

#[test]
fn a_key_that_was_brought_along_is_used() {
    let folder = Scratch::new();
    folder.place(FIRST, &rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap().serialize_pem());
    let keyring =
        Keyring::open(KeyStorage::Folder(&folder.0), Algorithm::RS256, None, MissingKey::Create).unwrap();
    assert_eq!(keyring.key_set().unwrap().iter().count(), 1);
    assert!(
        Keyring::open(KeyStorage::Folder(&folder.0), Algorithm::ES256, None, MissingKey::Create).is_err()
    );
}

#[test]
fn a_next_key_is_published_at_once_and_signs_after_its_lead() {
    let folder = Scratch::new();
    let keyring = folder.open(START);
    let first = id(&keyring, START);
    let rotated = keyring.rotate(RotationStart::AfterLead, Now::at(START + 5)).unwrap();
    assert_eq!((rotated.signs_from, rotated.is_new), (START + 5 + LEAD, true));
    let jwks = String::from_utf8(keyring.jwks().to_vec()).unwrap();
    assert!(jwks.contains(&first) && jwks.contains(&rotated.id), "{jwks}");
    assert_eq!(keyring.key_set().unwrap().iter().count(), 2);
    assert_eq!(id(&keyring, rotated.signs_from - 1), first);
    assert_eq!(id(&keyring, rotated.signs_from), rotated.id);
    // An existing next key is returned again until its time has come.
    let again = keyring.rotate(RotationStart::AfterLead, Now::at(START + 60)).unwrap();
    assert_eq!(again, KeyRotation { is_new: false, ..rotated.clone() });
    let next = keyring.rotate(RotationStart::AfterLead, Now::at(rotated.signs_from)).unwrap();
    assert!(next.is_new && next.id != rotated.id);
}

#[test]
fn keys_that_sign_at_once_do_so_one_after_the_other() {
    let folder = Scratch::new();
    let keyring = folder.open(START);
    let mut last = START;
    for _ in 0..5 {
        let rotated = keyring.rotate(RotationStart::Immediate, Now::at(START)).unwrap();
        assert_eq!(rotated.signs_from, last + 1, "a moment of its own");
        assert_eq!(id(&keyring, rotated.signs_from), rotated.id);
        last = rotated.signs_from;
    }
    assert_eq!(id(&folder.open(last), last), id(&keyring, last), "another process sees the same");
}

#[test]
fn there_is_an_end_to_how_many_keys_are_made() {
    let folder = Scratch::new();
    let keyring = folder.open(START);
    for _ in 1..KEYS_MAX {
        keyring.rotate(RotationStart::Immediate, Now::at(START)).unwrap();
    }
    let refused = keyring.rotate(RotationStart::Immediate, Now::at(START)).unwrap_err().to_string();
    assert!(refused.contains("64 keys"), "{refused}");
    assert_eq!(folder.files().len(), KEYS_MAX);
    folder.open(START);
}

#[test]
fn a_key_is_taken_back_whatever_it_is_for() {
    use KeyState::{Next, Retiring, Revoked, Signing};
    let ring = || {
        let folder = Scratch::new();
        let keyring = folder.open(START);
        keyring.rotate(RotationStart::Immediate, Now::at(START + 100)).unwrap();
        keyring.rotate(RotationStart::AfterLead, Now::at(START + 200)).unwrap();
        let now = START + 201;
        assert_eq!(states(&keyring, now), [Retiring, Signing, Next]);
        (folder, keyring, now)
    };
    for (place, after) in
        [(0, &[Revoked, Signing, Next][..]), (1, &[Retiring, Revoked, Signing]), (2, &[Retiring, Signing])]
    {
        let (folder, keyring, now) = ring();
        let taken = keyring.list(Now::at(now))[place].clone();
        let replaced_by = keyring.revoke(&taken.id, Now::at(now)).unwrap();
        assert_eq!(replaced_by.is_some(), taken.state == Signing, "{place}");
        for keyring in [&keyring, &folder.open(now)] {
            assert_eq!(states(keyring, now), after, "{place}");
            assert!(keyring.key_set().unwrap().iter().all(|key| key.id() != Some(&taken.id)), "{place}");
            assert_ne!(id(keyring, now), taken.id);
        }
        let private = fs::read_to_string(
            folder.0.join(format!("signing-key.{}.pem", timestamp::basic(taken.signs_from.unwrap()))),
        );
        assert!(private.is_err(), "its private half is gone");
        // A second revocation changes nothing. An unknown key is reported.
        let again = keyring.revoke(&taken.id, Now::at(now));
        assert_eq!(again.is_ok(), taken.state != Next, "{again:?}");
        assert!(keyring.revoke("a\u{1b}b", Now::at(now)).unwrap_err().to_string().contains(r"a\u{1b}b"));
    }
}

#[test]
fn the_next_key_signs_in_place_of_one_that_is_taken_back() {
    // Recipients that fetched the key set already know the next key.
    use KeyState::{Next, Revoked, Signing};
    let folder = Scratch::new();
    let keyring = folder.open(START);
    let leaked = id(&keyring, START);
    let next = keyring.rotate(RotationStart::AfterLead, Now::at(START + 100)).unwrap();
    let now = START + 101;
    assert_eq!(keyring.revoke(&leaked, Now::at(now)), Ok(Some(next.id.clone())));
    for keyring in [&keyring, &folder.open(now)] {
        assert_eq!(states(keyring, now), [Revoked, Signing]);
        assert_eq!(id(keyring, now), next.id);
    }
    // The third key is different from the second and signs after it.
    let third = keyring.rotate(RotationStart::AfterLead, Now::at(now)).unwrap();
    assert!(third.is_new && third.id != next.id && third.signs_from >= now + LEAD);
    assert_eq!(states(&folder.open(now), now), [Revoked, Signing, Next]);
    assert_eq!(id(&folder.open(now), third.signs_from), third.id);
    // If the third key leaked too and no next key is published, a new key is created.
    let fourth = keyring.revoke(&next.id, Now::at(now)).unwrap();
    assert_eq!(fourth, Some(third.id.clone()));
    let fifth = keyring.revoke(&third.id, Now::at(now)).unwrap().unwrap();
    assert_eq!(id(&folder.open(now), now), fifth);
    assert_eq!(states(&folder.open(now), now), [Revoked, Revoked, Revoked, Signing]);
}

#[test]
fn a_key_for_a_time_far_ahead_does_not_sign_in_place_of_another() {
    let folder = Scratch::new();
    let keyring = folder.open(START);
    let leaked = id(&keyring, START);
    let far = keyring.rotate(RotationStart::AfterLead, Now::at(START + 900_000)).unwrap();
    let new = keyring.revoke(&leaked, Now::at(START)).unwrap().unwrap();
    assert_ne!(new, far.id);
    assert_eq!(id(&folder.open(START + 1), START + 1), new);
}

#[test]
fn all_keys_are_taken_back_at_once_and_a_new_one_signs() {
    use KeyState::{Revoked, Signing};
    let folder = Scratch::new();
    let keyring = folder.open(START);
    keyring.rotate(RotationStart::Immediate, Now::at(START + 100)).unwrap();
    keyring.rotate(RotationStart::AfterLead, Now::at(START + 200)).unwrap();
    let now = START + 201;
    let mut before: Vec<_> = keyring.list(Now::at(now)).into_iter().map(|key| key.id).collect();
    for count in [3, 1, 1] {
        let (mut revoked, new) = keyring.revoke_all(Now::at(now)).unwrap();
        revoked.sort();
        before.sort();
        assert_eq!((revoked.len(), &revoked), (count, &before));
        for keyring in [&keyring, &folder.open(now)] {
            assert_eq!(id(keyring, now + 9), new);
            assert_eq!(states(keyring, now + 9).last(), Some(&Signing));
            let ids: Vec<_> = keyring.published_ids();
            assert_eq!(ids, std::slice::from_ref(&new), "nothing else is published or accepted");
        }
        before = vec![new];
    }
    assert_eq!(states(&keyring, now + 9), [Revoked, Revoked, Revoked, Revoked, Signing]);
}

#[test]
fn a_rotation_that_was_killed_leaves_a_ring_in_use_and_no_private_key_lying_about() {
    let folder = Scratch::new();
    let keyring = folder.open(START);
    let first = id(&keyring, START);
    let pem = fs::read_to_string(folder.0.join(FIRST)).unwrap();
    // The process was killed while it wrote the next key.
    folder.place("signing-key.20261123T092601Z.0123456789abcdef", &pem[..40]);
    assert_eq!(id(&folder.open(START + 1), START + 9999), first);
    // The process was killed after it created the new key and before it revoked the old one. The state is the same as
    // before the revocation.
    keyring.rotate(RotationStart::Immediate, Now::at(START + 10)).unwrap();
    assert_eq!(states(&folder.open(START + 10), START + 10), [KeyState::Retiring, KeyState::Signing]);
    assert!(folder.files().iter().all(|name| name.ends_with(".pem")), "{:?}", folder.files());
    // The process was killed after it revoked the key and before it removed the private half. The key is revoked.
    folder.place("signing-key.20261123T091601Z.revoked", &format!("{first}\n"));
    let keyring = folder.open(START + 11);
    assert_eq!(states(&keyring, START + 11), [KeyState::Revoked, KeyState::Signing]);
    assert_eq!(keyring.list(Now::at(START + 11))[0].id, first);
    keyring.rotate(RotationStart::AfterLead, Now::at(START + 12)).unwrap();
    assert!(!folder.0.join(FIRST).exists());
}

#[test]
fn a_key_does_not_come_back_under_another_name() {
    let folder = Scratch::new();
    let keyring = folder.open(START);
    let pem = fs::read_to_string(folder.0.join(FIRST)).unwrap();
    let twin = "signing-key.20270101T000000Z.pem";
    folder.place(twin, &pem);
    let fault = folder.try_open(START).unwrap_err().to_string();
    assert!(fault.contains(twin) && fault.contains("the same key"), "{fault}");
    fs::remove_file(folder.0.join(twin)).unwrap();
    keyring.revoke(&id(&keyring, START), Now::at(START)).unwrap();
    folder.place("signing-key.20250101T000000Z.pem", &pem);
    let fault = folder.try_open(START).unwrap_err().to_string();
    assert!(fault.contains("20250101") && fault.contains(".revoked"), "{fault}");
}

#[test]
fn a_start_without_usable_keys_generates_one() {
    let folder = Scratch::new();
    let keyring = folder.open(START);
    let first = id(&keyring, START);
    folder.place("signing-key.20261123T091601Z.revoked", "not an id\u{7}");
    let keyring = folder.open(START);
    assert_ne!(id(&keyring, START), first);
    assert_eq!(states(&keyring, START), [KeyState::Revoked, KeyState::Signing]);
    assert_eq!(keyring.list(Now::at(START))[0].id, "unknown");
}
