//! The local authority's signing keys: made at first use, kept in the state folder, readable by nobody else, changed by
//! schedule and by command.
//!
//! A key is published before it signs and accepted until the last token that it signed is dead. The folder is the only
//! truth: commands change it, and every gateway that uses it follows what it finds there.

mod folder;
mod key;
mod ring;
mod watch;

pub use key::SigningKey;
pub use ring::{JWKS_MAX_AGE, KEPT, KeyState, LEAD, LEEWAY, Schedule};
pub use watch::{Event, Watcher};

use crate::authenticate::{Algorithm, KeySet};
use crate::clock::Now;
use crate::timestamp;
use arc_swap::ArcSwap;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use bytes::Bytes;
use folder::{Folder, KEYS_MAX, Lock};
use ring::{Ring, Slot};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a command waits for another one that changes the keys.
const PATIENCE: Duration = Duration::from_secs(5);

/// The keys that the local authority signs with. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Keyring {
    inner: Arc<Inner>,
    schedule: Schedule,
}

#[derive(Debug)]
struct Inner {
    algorithm: Algorithm,
    source: Source,
    view: ArcSwap<View>,
    faults: AtomicU64,
}

/// Where the keys come from.
#[derive(Debug)]
enum Source {
    /// The policy: a shared secret, which is never published.
    Secret(SecretBytes),
    /// Files.
    Folder(Folder),
    /// Nowhere: made for the moment.
    Memory,
}

struct SecretBytes(zeroize::Zeroizing<Vec<u8>>);

impl std::fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(not shown)")
    }
}

/// The ring as it was last looked at.
#[derive(Debug)]
struct View {
    ring: Arc<Ring>,
    published: Vec<Arc<SigningKey>>,
    jwks: Bytes,
}

impl View {
    fn at(ring: Arc<Ring>, schedule: &Schedule, now: u64) -> Self {
        let published = ring.published(schedule, now);
        let keys: Vec<_> = published.iter().filter_map(|key| key.jwk()).collect();
        let jwks = Bytes::from(format!("{{\"keys\":[{}]}}\n", keys.join(",")));
        Self { ring, published, jwks }
    }

    fn publishes(&self, id: &str) -> bool {
        self.published.iter().any(|key| key.id() == id)
    }
}

/// What to do where there is no key yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// Make one and keep it.
    Make,
    /// Make one for the moment and keep nothing: for looking at a policy.
    Pretend,
}

/// When a key that is made by command is to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// After it has been published for [`LEAD`].
    Published,
    /// At once: for a key that leaked. Whoever verifies tokens elsewhere may refuse its first ones, until they fetch the
    /// key set again.
    AtOnce,
}

/// One key, for listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its `kid`.
    pub id: String,
    /// What it signs with.
    pub algorithm: Algorithm,
    /// What it is for now.
    pub state: KeyState,
    /// From when it signs, in seconds since 1970; none where that is not known.
    pub signs_from: Option<u64>,
    /// Until when it is accepted, in seconds since 1970, exclusively; none while no other key is to sign after it.
    pub accepted_until: Option<u64>,
}

impl Listed {
    /// A moment of it as people and programs read it (RFC 3339).
    pub fn time(unix: u64) -> String {
        timestamp::rfc3339(unix)
    }
}

/// What [`Keyring::rotate`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// The `kid` of the next key.
    pub id: String,
    /// From when it signs, in seconds since 1970.
    pub signs_from: u64,
    /// Whether it was made now; otherwise it had been made already.
    pub made: bool,
}

impl Keyring {
    /// Opens the keys under a state folder. With HS256 the key is the secret, and no file is touched.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn open(
        state: &Path,
        algorithm: Algorithm,
        secret: Option<&[u8]>,
        absent: Absent,
    ) -> Result<Self, String> {
        Self::open_at(state, algorithm, secret, absent, Now::read())
    }

    fn open_at(
        state: &Path,
        algorithm: Algorithm,
        secret: Option<&[u8]>,
        absent: Absent,
        now: Now,
    ) -> Result<Self, String> {
        let (source, ring) = if algorithm == Algorithm::HS256 {
            let secret = secret.ok_or("HS256 needs a secret")?;
            let kept = SecretBytes(zeroize::Zeroizing::new(secret.to_vec()));
            (Source::Secret(kept), alone(SigningKey::from_secret(secret)?)?)
        } else {
            let folder = Folder::new(state);
            let ring = match (read_all(&folder, algorithm)?, absent) {
                (Ok(ring), _) => Some(ring),
                (Err(_), Absent::Make) => {
                    let lock = folder.lock(PATIENCE)?;
                    Some(first(&folder, &lock, algorithm, now)?)
                }
                (Err(_), Absent::Pretend) => None,
            };
            match ring {
                Some(ring) => (Source::Folder(folder), ring),
                None => (Source::Memory, alone(SigningKey::fleeting(algorithm)?)?),
            }
        };
        let schedule = Schedule::default();
        let view = ArcSwap::from_pointee(View::at(Arc::new(ring), &schedule, now.unix));
        Ok(Self { inner: Arc::new(Inner { algorithm, source, view, faults: AtomicU64::new(0) }), schedule })
    }

    /// These keys for the policy that comes after the one that they were opened for, if they are the ones that it means:
    /// what was made or revoked since is not to be lost. Under another schedule, they are looked at by the next
    /// [`Watcher`].
    pub fn going_on(
        &self,
        state: &Path,
        algorithm: Algorithm,
        secret: Option<&[u8]>,
        schedule: Schedule,
    ) -> Option<Self> {
        let is_same = match (&self.inner.source, secret) {
            (Source::Secret(ours), Some(theirs)) => verify_slices_are_equal(&ours.0, theirs).is_ok(),
            (Source::Folder(folder), None) => folder.is_in(state),
            (Source::Secret(_) | Source::Folder(_) | Source::Memory, _) => false,
        };
        (is_same && self.inner.algorithm == algorithm).then(|| Self { inner: self.inner.clone(), schedule })
    }

    /// Whether both are one, whatever their schedules.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// These keys under this schedule.
    #[must_use]
    pub fn scheduled(self, schedule: Schedule) -> Self {
        self.scheduled_at(schedule, Now::read())
    }

    fn scheduled_at(self, schedule: Schedule, now: Now) -> Self {
        let ring = self.inner.view.load().ring.clone();
        self.inner.view.store(Arc::new(View::at(ring, &schedule, now.unix)));
        Self { schedule, ..self }
    }

    /// What it signs with.
    pub fn algorithm(&self) -> Algorithm {
        self.inner.algorithm
    }

    /// How long its tokens live, and how often its key changes.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Whether its key is kept nowhere, because there was none and none was to be made.
    pub fn is_pretended(&self) -> bool {
        matches!(self.inner.source, Source::Memory)
    }

    /// The key that signs now.
    pub fn signing(&self, now: Now) -> Arc<SigningKey> {
        self.inner.view.load().ring.signing(now.unix).clone()
    }

    /// All public keys as a JSON Web Key Set (RFC 7517 section 5), as they were when they were last looked at: those that
    /// sign, have signed what is still alive, or will sign soon. Empty for HS256. It may be kept for [`JWKS_MAX_AGE`].
    pub fn jwks(&self) -> Bytes {
        self.inner.view.load().jwks.clone()
    }

    /// The keys to verify its signatures with, read as any other issuer's are.
    ///
    /// # Errors
    /// When they cannot be.
    pub fn key_set(&self) -> Result<KeySet, String> {
        self.key_set_of(&self.inner.view.load())
    }

    fn key_set_of(&self, view: &View) -> Result<KeySet, String> {
        match &self.inner.source {
            Source::Folder(_) | Source::Memory => {
                KeySet::from_jwks(&view.jwks, &[self.inner.algorithm]).map(|(set, _)| set)
            }
            Source::Secret(secret) => {
                let mut set = KeySet::default();
                let id = view.published.first().map(|key| key.id());
                set.add_secret(id, &secret.0)?;
                Ok(set)
            }
        }
    }

    /// All keys that are there, the oldest first.
    pub fn list(&self, now: Now) -> Vec<Listed> {
        let (view, schedule) = (self.inner.view.load(), &self.schedule);
        let ring = &view.ring;
        let listed = |(place, slot): (usize, &Slot)| Listed {
            id: slot.id.clone().into(),
            algorithm: self.inner.algorithm,
            state: ring.state(place, schedule, now.unix),
            signs_from: Some(slot.signs_from).filter(|moment| *moment > 0),
            accepted_until: ring.accepted_until(place, schedule),
        };
        ring.slots().iter().enumerate().map(listed).collect()
    }

    /// How often something was wrong with the files.
    pub fn faults(&self) -> u64 {
        self.inner.faults.load(Ordering::Relaxed)
    }

    /// Makes the next key. Without haste, one that is to sign no later already will do.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn rotate(&self, begin: Begin, now: Now) -> Result<Rotated, String> {
        let folder = self.folder()?;
        let lock = folder.lock(PATIENCE)?;
        let ring = read_sound(folder, self.inner.algorithm)?;
        let earliest = match begin {
            Begin::Published => {
                let latest = now.unix.saturating_add(LEAD);
                // A key that signs before its scheduled time, in place of a revoked key, is not a next key.
                let behind = ring.slots().iter().skip(ring.current(now.unix) + 1);
                let coming = |slot: &&Slot| slot.signs_from > now.unix && slot.signs_from <= latest;
                if let Some(next) = behind.filter(|slot| slot.key.is_some()).find(coming) {
                    return Ok(Rotated {
                        id: next.id.clone().into(),
                        signs_from: next.signs_from,
                        made: false,
                    });
                }
                latest
            }
            Begin::AtOnce => now.unix,
        };
        let signs_from = ring.free_from(earliest);
        let id = self.add(folder, &lock, &ring, signs_from, now)?;
        Ok(Rotated { id, signs_from, made: true })
    }

    /// Revokes a key: from now on no token signed with it is accepted. If it is the signing key, the next key replaces
    /// it, because readers of the key set already know that one; without a next key, a new key does. Returns the id of
    /// the replacement.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn revoke(&self, id: &str, now: Now) -> Result<Option<String>, String> {
        let folder = self.folder()?;
        let lock = folder.lock(PATIENCE)?;
        let ring = read_sound(folder, self.inner.algorithm)?;
        let place = ring.slots().iter().position(|slot| *slot.id == *id);
        let place = place.ok_or_else(|| format!("no key \"{}\": portcullis key list", id.escape_debug()))?;
        let slot = &ring.slots()[place];
        let mut replaced_by = None;
        match ring.state(place, &self.schedule, now.unix) {
            KeyState::Revoked => {}
            // It has signed nothing, so nothing hangs on its place.
            KeyState::Next if slot.signs_from > now.unix => folder.remove(&lock, slot)?,
            KeyState::Next | KeyState::Retiring | KeyState::Dead => folder.revoke(&lock, slot)?,
            KeyState::Signing => {
                // This order leaves a signing key at every moment. A key for a time far ahead, made by a wrong clock,
                // is not the next one.
                let soon = now.unix.saturating_add(2 * LEAD);
                let mut behind = ring.slots()[place + 1..].iter().filter(|slot| slot.key.is_some());
                replaced_by = Some(match behind.find(|slot| slot.signs_from <= soon) {
                    Some(next) => next.id.clone().into(),
                    None => {
                        let signs_from = ring.free_from(now.unix.max(slot.signs_from.saturating_add(1)));
                        self.add(folder, &lock, &ring, signs_from, now)?
                    }
                });
                folder.revoke(&lock, slot)?;
            }
        }
        let ring = read_sound(folder, self.inner.algorithm)?;
        self.inner.view.store(Arc::new(View::at(Arc::new(ring), &self.schedule, now.unix)));
        Ok(replaced_by)
    }

    /// Revokes all keys, for when somebody could read the whole folder, and makes a new one that signs at once. Returns
    /// the ids of the revoked keys, and that of the new one.
    ///
    /// # Errors
    /// A sentence for the operator. Some keys may have been revoked already; the call can be repeated.
    pub fn revoke_all(&self, now: Now) -> Result<(Vec<String>, String), String> {
        let folder = self.folder()?;
        let lock = folder.lock(PATIENCE)?;
        let ring = read_sound(folder, self.inner.algorithm)?;
        let mut revoked = Vec::new();
        // Keys that have signed nothing go first, so that the new key is last.
        for slot in ring.slots()[ring.current(now.unix) + 1..].iter().filter(|slot| slot.key.is_some()) {
            folder.remove(&lock, slot)?;
            revoked.push(slot.id.clone().into());
        }
        let ring = read_sound(folder, self.inner.algorithm)?;
        let last = ring.slots().last().map_or(0, |slot| slot.signs_from);
        // In this order: there is a key to sign with at every moment.
        let signs_from = ring.free_from(now.unix.max(last.saturating_add(1)));
        let id = self.add(folder, &lock, &ring, signs_from, now)?;
        for slot in ring.slots().iter().filter(|slot| slot.key.is_some()) {
            folder.revoke(&lock, slot)?;
            revoked.push(slot.id.clone().into());
        }
        let ring = read_sound(folder, self.inner.algorithm)?;
        self.inner.view.store(Arc::new(View::at(Arc::new(ring), &self.schedule, now.unix)));
        Ok((revoked, id))
    }

    /// Makes a key and takes it up. Returns its id.
    fn add(
        &self,
        folder: &Folder,
        lock: &Lock,
        ring: &Ring,
        signs_from: u64,
        now: Now,
    ) -> Result<String, String> {
        let ring = add(folder, lock, self.inner.algorithm, ring, signs_from)?;
        let made = ring.slots().iter().find(|slot| slot.signs_from == signs_from);
        let id = made.map(|slot| slot.id.clone().into()).ok_or("the key that was made is gone again")?;
        self.inner.view.store(Arc::new(View::at(Arc::new(ring), &self.schedule, now.unix)));
        Ok(id)
    }

    fn folder(&self) -> Result<&Folder, String> {
        match &self.inner.source {
            Source::Folder(folder) => Ok(folder),
            Source::Secret(_) => {
                Err("HS256 signs with the secret in the policy ([authority] secret), which is changed there"
                    .into())
            }
            Source::Memory => Err("there is no key yet: portcullis key generate".into()),
        }
    }
}

/// A ring of one key that is kept nowhere.
fn alone(key: SigningKey) -> Result<Ring, String> {
    let slot = Slot { signs_from: 0, id: key.id().into(), key: Some(Arc::new(key)) };
    Ring::new(vec![slot]).ok_or_else(|| "a key of ours is none".to_owned())
}

/// All keys of a folder; where there is none to sign with, the moment after the last of them.
fn read_all(folder: &Folder, algorithm: Algorithm) -> Result<Result<Ring, u64>, String> {
    let (_, reading) = folder.read(algorithm)?;
    if let Some((_, why)) = reading.broken.into_iter().next() {
        return Err(why);
    }
    let after = reading.slots.iter().map(|slot| slot.signs_from.saturating_add(1)).max().unwrap_or(0);
    Ok(Ring::new(reading.slots).ok_or(after))
}

fn read_sound(folder: &Folder, algorithm: Algorithm) -> Result<Ring, String> {
    read_all(folder, algorithm)?
        .map_err(|_| "there is no key to sign with: portcullis key generate".to_owned())
}

/// Makes a key where there is none to sign with. Another process may have been first: then that one's is used.
fn first(folder: &Folder, lock: &Lock, algorithm: Algorithm, now: Now) -> Result<Ring, String> {
    match read_all(folder, algorithm)? {
        Ok(ring) => Ok(ring),
        Err(after) => {
            folder.make(lock, algorithm, now.unix.max(after).max(1))?;
            read_sound(folder, algorithm)
        }
    }
}

fn add(
    folder: &Folder,
    lock: &Lock,
    algorithm: Algorithm,
    ring: &Ring,
    signs_from: u64,
) -> Result<Ring, String> {
    if ring.slots().len() >= KEYS_MAX {
        return Err(format!(
            "{KEYS_MAX} keys are there already: keys go a day after they are accepted no more, while a gateway runs"
        ));
    }
    folder.make(lock, algorithm, signs_from)?;
    read_sound(folder, algorithm)
}

#[cfg(test)]
mod scratch;

#[cfg(test)]
mod tests {
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
        let other = Keyring::open(&folder.0, Algorithm::ES256, None, Absent::Make).unwrap_err();
        assert!(other.contains("not a key for ES256") && other.contains(FIRST), "{other}");
        let chmod = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        chmod(&folder.0.join(FIRST), 0o640);
        assert!(folder.try_open(START).unwrap_err().contains("chmod 600"));
        chmod(&folder.0.join(FIRST), 0o600);
        chmod(&folder.0, 0o777);
        assert!(folder.try_open(START).unwrap_err().contains("chmod 700"));
        chmod(&folder.0, 0o700);
        folder.open(START);
    }

    #[test]
    fn processes_that_start_together_agree_on_one_key() {
        let folder = Scratch::new();
        let ids: Vec<_> = std::thread::scope(|scope| {
            // At different times: the names of their files would differ.
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
            let keyring = Keyring::open(&folder.0, algorithm, None, Absent::Pretend).unwrap();
            assert!(keyring.is_pretended());
            assert_eq!(keyring.key_set().unwrap().iter().count(), 1);
            assert!(keyring.rotate(Begin::AtOnce, Now::read()).is_err());
        }
        assert!(!folder.0.exists());
    }

    #[test]
    fn a_secret_is_given_and_long_enough_touches_no_file_and_is_not_published() {
        let folder = Scratch::new();
        let open = |secret| Keyring::open(&folder.0, Algorithm::HS256, secret, Absent::Make);
        let keyring = open(Some(&[7; 32])).unwrap();
        assert_eq!(id(&keyring, START), "hs256");
        assert_eq!(keyring.jwks(), "{\"keys\":[]}\n");
        assert_eq!(keyring.key_set().unwrap().iter().count(), 1);
        for refused in [
            keyring.rotate(Begin::AtOnce, Now::read()).unwrap_err(),
            keyring.revoke("hs256", Now::read()).unwrap_err(),
        ] {
            assert!(refused.contains("[authority] secret"), "{refused}");
        }
        assert!(
            keyring.watcher(Now::at(START)).look(Now::at(START), |_| panic!("nothing changes")).is_empty()
        );
        assert!(open(Some(&[7; 31])).unwrap_err().contains("248 bits"));
        assert!(open(None).unwrap_err().contains("needs a secret"));
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
                    for absent in [Absent::Make, Absent::Pretend] {
                        let told = Keyring::open(&folder.0, algorithm, None, absent).unwrap_err();
                        assert!(told.contains(name), "{told}");
                    }
                }
                assert_eq!(fs::read_to_string(folder.0.join(name)).unwrap(), pem);
                assert_eq!(folder.files(), [name]);
            }
        }
    }

    #[test]
    fn a_name_that_says_no_moment_is_told_and_other_files_are_not_looked_at() {
        let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
        for name in [
            "signing-key.old.pem",
            "signing-key..pem",
            "signing-key.20260230T000000Z.pem",
            "signing-key.x.revoked",
        ] {
            let folder = Scratch::new();
            folder.place(name, &pem);
            let told = folder.try_open(START).unwrap_err();
            assert!(told.contains(name) && told.contains("no name of a signing key"), "{told}");
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
        // And it can be changed like any other.
        keyring.rotate(Begin::AtOnce, Now::at(START)).unwrap();
        assert_eq!(states(&keyring, START), [KeyState::Retiring, KeyState::Signing]);
        assert_eq!(keyring.revoke(&listed.id, Now::at(START + 1)), Ok(None));
        assert_eq!(folder.files(), [FIRST, "signing-key.revoked"]);
    }

    #[test]
    fn a_key_that_was_brought_along_is_used() {
        let folder = Scratch::new();
        folder.place(FIRST, &rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap().serialize_pem());
        let keyring = Keyring::open(&folder.0, Algorithm::RS256, None, Absent::Make).unwrap();
        assert_eq!(keyring.key_set().unwrap().iter().count(), 1);
        assert!(Keyring::open(&folder.0, Algorithm::ES256, None, Absent::Make).is_err());
    }

    #[test]
    fn a_next_key_is_published_at_once_and_signs_after_its_lead() {
        let folder = Scratch::new();
        let keyring = folder.open(START);
        let first = id(&keyring, START);
        let rotated = keyring.rotate(Begin::Published, Now::at(START + 5)).unwrap();
        assert_eq!((rotated.signs_from, rotated.made), (START + 5 + LEAD, true));
        let jwks = String::from_utf8(keyring.jwks().to_vec()).unwrap();
        assert!(jwks.contains(&first) && jwks.contains(&rotated.id), "{jwks}");
        assert_eq!(keyring.key_set().unwrap().iter().count(), 2);
        assert_eq!(id(&keyring, rotated.signs_from - 1), first);
        assert_eq!(id(&keyring, rotated.signs_from), rotated.id);
        // One that is coming will do, until it has come.
        let again = keyring.rotate(Begin::Published, Now::at(START + 60)).unwrap();
        assert_eq!(again, Rotated { made: false, ..rotated.clone() });
        let next = keyring.rotate(Begin::Published, Now::at(rotated.signs_from)).unwrap();
        assert!(next.made && next.id != rotated.id);
    }

    #[test]
    fn keys_that_sign_at_once_do_so_one_after_the_other() {
        let folder = Scratch::new();
        let keyring = folder.open(START);
        let mut last = START;
        for _ in 0..5 {
            let rotated = keyring.rotate(Begin::AtOnce, Now::at(START)).unwrap();
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
            keyring.rotate(Begin::AtOnce, Now::at(START)).unwrap();
        }
        let refused = keyring.rotate(Begin::AtOnce, Now::at(START)).unwrap_err();
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
            keyring.rotate(Begin::AtOnce, Now::at(START + 100)).unwrap();
            keyring.rotate(Begin::Published, Now::at(START + 200)).unwrap();
            let now = START + 201;
            assert_eq!(states(&keyring, now), [Retiring, Signing, Next]);
            (folder, keyring, now)
        };
        for (place, after) in [
            (0, &[Revoked, Signing, Next][..]),
            (1, &[Retiring, Revoked, Signing]),
            (2, &[Retiring, Signing]),
        ] {
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
            // Twice is not worse than once; a key that is not there is told.
            let again = keyring.revoke(&taken.id, Now::at(now));
            assert_eq!(again.is_ok(), taken.state != Next, "{again:?}");
            assert!(keyring.revoke("a\u{1b}b", Now::at(now)).unwrap_err().contains(r"a\u{1b}b"));
        }
    }

    #[test]
    fn the_next_key_signs_in_place_of_one_that_is_taken_back() {
        // Whoever reads the key set knows it already (crossings C2).
        use KeyState::{Next, Revoked, Signing};
        let folder = Scratch::new();
        let keyring = folder.open(START);
        let leaked = id(&keyring, START);
        let next = keyring.rotate(Begin::Published, Now::at(START + 100)).unwrap();
        let now = START + 101;
        assert_eq!(keyring.revoke(&leaked, Now::at(now)), Ok(Some(next.id.clone())));
        for keyring in [&keyring, &folder.open(now)] {
            assert_eq!(states(keyring, now), [Revoked, Signing]);
            assert_eq!(id(keyring, now), next.id);
        }
        // The key behind that one is another one, and signs in its turn.
        let third = keyring.rotate(Begin::Published, Now::at(now)).unwrap();
        assert!(third.made && third.id != next.id && third.signs_from >= now + LEAD);
        assert_eq!(states(&folder.open(now), now), [Revoked, Signing, Next]);
        assert_eq!(id(&folder.open(now), third.signs_from), third.id);
        // Where that leaked too, and nothing is published: a new one.
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
        let far = keyring.rotate(Begin::Published, Now::at(START + 900_000)).unwrap();
        let new = keyring.revoke(&leaked, Now::at(START)).unwrap().unwrap();
        assert_ne!(new, far.id);
        assert_eq!(id(&folder.open(START + 1), START + 1), new);
    }

    #[test]
    fn all_keys_are_taken_back_at_once_and_a_new_one_signs() {
        use KeyState::{Revoked, Signing};
        let folder = Scratch::new();
        let keyring = folder.open(START);
        keyring.rotate(Begin::AtOnce, Now::at(START + 100)).unwrap();
        keyring.rotate(Begin::Published, Now::at(START + 200)).unwrap();
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
        // Killed while it wrote the next key.
        folder.place("signing-key.20261123T092601Z.0123456789abcdef", &pem[..40]);
        assert_eq!(id(&folder.open(START + 1), START + 9999), first);
        // Killed between having made the new one and taking the old one back: as if it had not been asked.
        keyring.rotate(Begin::AtOnce, Now::at(START + 10)).unwrap();
        assert_eq!(states(&folder.open(START + 10), START + 10), [KeyState::Retiring, KeyState::Signing]);
        assert!(folder.files().iter().all(|name| name.ends_with(".pem")), "{:?}", folder.files());
        // Killed between taking it back and removing its private half: it is revoked.
        folder.place("signing-key.20261123T091601Z.revoked", &format!("{first}\n"));
        let keyring = folder.open(START + 11);
        assert_eq!(states(&keyring, START + 11), [KeyState::Revoked, KeyState::Signing]);
        assert_eq!(keyring.list(Now::at(START + 11))[0].id, first);
        keyring.rotate(Begin::Published, Now::at(START + 12)).unwrap();
        assert!(!folder.0.join(FIRST).exists());
    }

    #[test]
    fn a_key_does_not_come_back_under_another_name() {
        let folder = Scratch::new();
        let keyring = folder.open(START);
        let pem = fs::read_to_string(folder.0.join(FIRST)).unwrap();
        let twin = "signing-key.20270101T000000Z.pem";
        folder.place(twin, &pem);
        let told = folder.try_open(START).unwrap_err();
        assert!(told.contains(twin) && told.contains("the same key"), "{told}");
        fs::remove_file(folder.0.join(twin)).unwrap();
        keyring.revoke(&id(&keyring, START), Now::at(START)).unwrap();
        folder.place("signing-key.20250101T000000Z.pem", &pem);
        let told = folder.try_open(START).unwrap_err();
        assert!(told.contains("20250101") && told.contains(".revoked"), "{told}");
    }

    #[test]
    fn where_all_keys_were_taken_back_the_next_start_makes_one() {
        let folder = Scratch::new();
        let keyring = folder.open(START);
        let first = id(&keyring, START);
        folder.place("signing-key.20261123T091601Z.revoked", "not an id\u{7}");
        let keyring = folder.open(START);
        assert_ne!(id(&keyring, START), first);
        assert_eq!(states(&keyring, START), [KeyState::Revoked, KeyState::Signing]);
        assert_eq!(keyring.list(Now::at(START))[0].id, "unknown");
    }
}
