//! Follows the folder: takes up what commands and other gateways did there, makes the next key in time, removes the dead.
//!
//! Whatever is wrong with the files, the keys that were good stay in use; only that a key was taken back is believed at
//! once. What is wrong is told when it begins, not at every look.

use super::folder::{Folder, NoLock, Reading, Seen};
use super::key::SigningKey;
use super::ring::{KeyState, Ring, Slot};
use super::{Keyring, Source, View, add, alone};
use crate::authenticate::{Algorithm, KeySet};
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

        let mut ring = self.read(folder, &before.ring, now).unwrap_or_else(|| before.ring.clone());
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
    fn read(&mut self, folder: &Folder, known: &Arc<Ring>, now: Now) -> Option<Arc<Ring>> {
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
        self.unreadable.dedup();
        // A key that was good when it was last read goes on.
        for old in known.slots() {
            let is_broken = broken.iter().any(|(signs_from, _)| *signs_from == old.signs_from);
            let is_known = slots.iter().any(|slot| slot.id == old.id || slot.signs_from == old.signs_from);
            if is_broken && !is_known {
                slots.push(old.clone());
            }
        }
        let why = match Ring::new(slots.clone()) {
            Some(ring) => return Some(Arc::new(ring)),
            // The last key was taken back and none was made in its place.
            None if !slots.is_empty() && broken.is_empty() => match self.replace(folder, now) {
                Ok(ring) => return Some(Arc::new(ring)),
                Err(why) => why,
            },
            None => "no signing key is left in the state folder; the last ones go on, but none that was revoked: portcullis key generate".to_owned(),
        };
        self.unreadable.push(why);
        match without(known, &slots, self.keyring.inner.algorithm) {
            Ok(ring) => Some(Arc::new(ring)),
            Err(why) => {
                self.unreadable.push(why);
                None
            }
        }
    }

    /// Makes a key that signs at once, where there is none to sign with.
    fn replace(&mut self, folder: &Folder, now: Now) -> Result<Ring, String> {
        self.seen = None;
        let lock = folder.lock(Duration::ZERO)?;
        super::first(folder, &lock, self.keyring.inner.algorithm, now)
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

/// The ring without the keys that these say were taken back. If none is left to sign with, one signs that is kept nowhere
/// and that nobody else knows: rather a token that others refuse than one that a thief could have made.
fn without(known: &Ring, slots: &[Slot], algorithm: Algorithm) -> Result<Ring, String> {
    let revoked =
        |old: &Slot| slots.iter().any(|slot| slot.key.is_none() && slot.signs_from == old.signs_from);
    let left = known.slots().iter().filter(|old| !revoked(old)).cloned().collect();
    Ring::new(left).map_or_else(|| alone(SigningKey::fleeting(algorithm)?), Ok)
}

#[cfg(test)]
mod tests {
    use super::super::scratch::{FIRST, START, Scratch};
    use super::super::{Begin, KEPT, LEAD, LEEWAY};
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    const MONTH: u64 = 30 * 86_400;

    fn look(watcher: &mut Watcher, now: u64) -> (Vec<Event>, Option<Vec<String>>) {
        let mut published = None;
        let events = watcher.look(Now::at(now), |keys| {
            published = Some(keys.iter().map(|key| key.id().unwrap().to_owned()).collect());
        });
        (events, published)
    }

    #[track_caller]
    fn quiet(watcher: &mut Watcher, now: u64) {
        assert_eq!(look(watcher, now), (vec![], None));
    }

    #[test]
    fn what_a_command_did_is_taken_up_verifying_before_signing() {
        let folder = Scratch::new();
        let keyring = folder.open(START);
        let first = keyring.signing(Now::at(START)).id().to_owned();
        let mut watcher = keyring.watcher(Now::at(START));
        quiet(&mut watcher, START);
        let other = folder.open(START);
        let second = other.rotate(Begin::AtOnce, Now::at(START + 60)).unwrap().id;
        let mut seen = None;
        let events = watcher.look(Now::at(START + 61), |keys| {
            assert_eq!(keyring.signing(Now::at(START + 61)).id(), first, "not before it would be accepted");
            seen = Some(keys.iter().count());
        });
        assert_eq!(seen, Some(2));
        assert_eq!(
            events,
            [
                Event::Published { id: second.clone(), signs_from: START + 60 },
                Event::Signs { id: second.clone() }
            ]
        );
        assert_eq!(keyring.signing(Now::at(START + 61)).id(), second);
        quiet(&mut watcher, START + 62);
        other.revoke(&first, Now::at(START + 70)).unwrap();
        assert_eq!(look(&mut watcher, START + 70), (vec![Event::Revoked { id: first }], Some(vec![second])));
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
        let [Event::Published { id: second, signs_from }] = &events[..] else { panic!("{events:?}") };
        assert_eq!((*signs_from, keys), (due, Some(vec![first.clone(), second.clone()])));
        quiet(&mut watcher, due - 1);
        assert_eq!(keyring.signing(Now::at(due - 1)).id(), first);
        assert_eq!(look(&mut watcher, due), (vec![Event::Signs { id: second.clone() }], None));
        let end = due + 900 + LEEWAY;
        quiet(&mut watcher, end - 1);
        let retired = vec![Event::Retired { id: first.clone() }];
        assert_eq!(look(&mut watcher, end), (retired, Some(vec![second.clone()])));
        quiet(&mut watcher, end + KEPT - 1);
        assert_eq!(folder.files().len(), 2);
        assert_eq!(look(&mut watcher, end + KEPT), (vec![Event::Removed { id: first }], None));
        assert_eq!(folder.files().len(), 1);
        quiet(&mut watcher, end + KEPT + 1);
    }

    #[test]
    fn gateways_on_one_folder_agree() {
        let folder = Scratch::new();
        let keyrings = [(); 4].map(|()| folder.open(START));
        let mut watchers = keyrings.each_ref().map(|keyring| keyring.watcher(Now::at(START)));
        // The one whose clock is ahead of the others' comes first, when the gateways were off and the next key is overdue.
        look(&mut watchers[3], START + 2 * MONTH + 9);
        look(&mut watchers[0], START + 2 * MONTH);
        assert_eq!(folder.files().len(), 2, "one key was made: {:?}", folder.files());
        // All at once, with clocks that differ.
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
                Some(|file| {
                    fs::set_permissions(file.parent().unwrap(), Permissions::from_mode(0o700)).unwrap()
                }),
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
                |file| {
                    fs::rename(file.parent().unwrap(), file.parent().unwrap().with_extension("x")).unwrap()
                },
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
            assert!(matches!(&events[..], [Event::Fault(_)]), "{name}: {events:?}");
            assert_eq!(keys, None, "{name}");
            quiet(&mut watcher, START + 2);
            quiet(&mut watcher, START + MONTH - LEAD);
            assert_eq!(keyring.faults(), 1, "{name}");
            assert_eq!(keyring.signing(Now::at(START + 2)).id(), first, "{name}");
            assert_eq!(keyring.key_set().unwrap().iter().count(), 1, "{name}");
            if let Some(mend) = mend {
                mend(&folder.0.join(FIRST));
                let (events, _) = look(&mut watcher, START + 3);
                assert_eq!(events, [Event::Mended], "{name}");
                quiet(&mut watcher, START + 4);
            }
        }
    }

    #[test]
    fn that_a_key_was_taken_back_is_believed_beside_a_broken_file() {
        let folder = Scratch::new();
        let keyring = folder.open(START);
        let first = keyring.signing(Now::at(START)).id().to_owned();
        let second = keyring.rotate(Begin::AtOnce, Now::at(START + 10)).unwrap().id;
        let mut watcher = keyring.watcher(Now::at(START + 10));
        quiet(&mut watcher, START + 10);
        folder.place("signing-key.20270101T000000Z.pem", "broken");
        folder.place("signing-key.20261123T091601Z.revoked", &first);
        let (events, keys) = look(&mut watcher, START + 11);
        assert!(events.contains(&Event::Revoked { id: first }), "{events:?}");
        assert_eq!(keys, Some(vec![second]));
    }

    #[test]
    fn where_the_last_key_was_taken_back_another_one_signs() {
        let folder = Scratch::new();
        let keyring = folder.open(START);
        let first = keyring.signing(Now::at(START)).id().to_owned();
        let mut watcher = keyring.watcher(Now::at(START));
        folder.place("signing-key.20261123T091601Z.revoked", &first);
        let (events, keys) = look(&mut watcher, START + 1);
        assert!(events.contains(&Event::Revoked { id: first.clone() }), "{events:?}");
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
        assert!(events.contains(&Event::Revoked { id: first.clone() }), "{events:?}");
        let keys = keys.unwrap();
        assert_eq!((keys.len(), keys.contains(&first)), (1, false));
        assert_eq!(keyring.signing(Now::at(START + 1)).id(), keys[0]);
        quiet(&mut watcher, START + 2);
        // Once it can be, the folder is what counts again.
        fs::remove_file(folder.0.join("signing-key.20270101T000000Z.pem")).unwrap();
        let (events, _) = look(&mut watcher, START + 3);
        assert!(events.contains(&Event::Mended), "{events:?}");
        assert_eq!(
            keyring.signing(Now::at(START + 3)).id(),
            folder.open(START + 3).signing(Now::at(START + 3)).id()
        );
    }

    #[test]
    fn what_cannot_be_made_is_tried_again_after_a_while() {
        let folder = Scratch::new();
        let keyring = folder.open(START);
        let mut watcher = keyring.watcher(Now::at(START));
        quiet(&mut watcher, START);
        // A folder where the lock should be: no key can be made, whoever asks.
        let lock = folder.0.join("signing-key.lock");
        fs::remove_file(&lock).unwrap();
        fs::create_dir(&lock).unwrap();
        let due = START + MONTH;
        assert!(matches!(&look(&mut watcher, due).0[..], [Event::Fault(_)]));
        quiet(&mut watcher, due + 1);
        fs::remove_dir(&lock).unwrap();
        quiet(&mut watcher, due + RETRY - 1);
        let (events, keys) = look(&mut watcher, due + RETRY);
        assert!(matches!(&events[..], [Event::Mended, Event::Published { .. }]), "{events:?}");
        assert_eq!(keys.map(|keys| keys.len()), Some(2));
        assert_eq!(keyring.faults(), 1);
    }

    #[test]
    fn a_key_that_another_gateway_made_in_the_meantime_will_do() {
        let folder = Scratch::new();
        let keyring = folder.open(START);
        let stale = keyring.inner.view.load().ring.clone();
        let due = START + MONTH - LEAD;
        assert_eq!(
            look(&mut folder.open(START).watcher(Now::at(START)), due).1.map(|keys| keys.len()),
            Some(2)
        );
        // It looked before that one was made, and now it is its turn; its clock is behind.
        let mut watcher = keyring.watcher(Now::at(START));
        let (ring, removed) = watcher.change(&Folder::new(&folder.0), &stale, due).unwrap();
        assert_eq!((ring.slots().len(), removed.len(), folder.files().len()), (2, 0, 2));
    }

    #[test]
    fn a_busy_folder_is_left_alone() {
        let folder = Scratch::new();
        let keyring = folder.open(START);
        let mut watcher = keyring.watcher(Now::at(START));
        let lock = Folder::new(&folder.0).lock(Duration::ZERO).unwrap();
        quiet(&mut watcher, START + MONTH);
        assert!(matches!(Folder::new(&folder.0).lock(Duration::ZERO), Err(NoLock::Busy)));
        drop(lock);
        assert_eq!(look(&mut watcher, START + MONTH).1.map(|keys| keys.len()), Some(2));
    }
}
