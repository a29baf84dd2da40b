//! The local authority's signing keys. They are created at first use, stored so that nobody else can read them, and
//! replaced on schedule and by command.
//!
//! A key is published before it signs, and accepted until the last token that it signed has expired. The place of the
//! keys is the only source of truth: commands change it, and every gateway that uses it applies the changes.
//!
//! `ring` computes which key signs at which time. `place` is where the keys are: `folder` stores them as files, and
//! `table` encrypted in the store (`seal`). `commands` changes them, and `watch` applies changes to a running gateway.

mod commands;
mod fault;
mod folder;
mod key;
mod place;
mod ring;
mod seal;
mod table;
mod watch;

pub use commands::{KeyRotation, RotationStart};
pub use fault::{FileFault, KeyringFault};
pub use key::{SIGNING, SigningKey};
pub use ring::{JWKS_MAX_AGE, KeyState, LEAD, LEEWAY, RETENTION, Schedule};
pub use seal::SealSecrets;
pub use watch::{KeyEvent, Watcher};

use crate::authenticate::{Algorithm, KeySet};
use crate::clock::Now;
use crate::timestamp;
use arc_swap::ArcSwap;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use bytes::Bytes;
use folder::KeyFolder;
use place::{Place, PlacedRing};
use ring::{Ring, Slot};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use table::KeyTable;

/// The local authority's signing keys. Clones share one state and are cheap.
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

/// The origin of the keys.
#[derive(Debug)]
enum Source {
    /// A shared secret in the configuration, which is never published.
    Secret(SecretBytes),
    /// The state folder, or the store.
    Place(Place),
    /// No persistent storage: the key was generated in memory.
    Memory,
}

struct SecretBytes(zeroize::Zeroizing<Vec<u8>>);

impl std::fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(not shown)")
    }
}

/// A ring and the keys that it publishes.
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

/// The action if there is no signing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingKey {
    /// Create a signing key.
    Create,
    /// Use an ephemeral key in memory and change nothing, for commands that inspect the keys.
    Inspect,
    /// The same, and do not connect to the store for its keys, for commands that only inspect a policy.
    Ephemeral,
}

/// The place of the signing keys.
pub enum KeyStorage<'k> {
    /// In this state folder.
    Folder(&'k Path),
    /// In the store with this URL, encrypted with these secrets.
    Store(&'k str, SealSecrets),
}

impl std::fmt::Debug for KeyStorage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder(path) => f.debug_tuple("Folder").field(path).finish(),
            // The URL may contain a password.
            Self::Store(..) => f.write_str("Store"),
        }
    }
}

/// One key in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// The key's `kid`.
    pub id: String,
    /// The algorithm with which the key signs.
    pub algorithm: Algorithm,
    /// The key's state at the time of the listing.
    pub state: KeyState,
    /// When the key starts to sign, in seconds since 1970; `None` if unknown.
    pub signs_from: Option<u64>,
    /// When the key stops being accepted (exclusive), in seconds since 1970; `None` while the ring has no later key.
    pub accepted_until: Option<u64>,
}

impl KeyInfo {
    /// Formats one of the times in a `KeyInfo`, in seconds since 1970, according to RFC 3339.
    pub fn time(unix: u64) -> String {
        timestamp::rfc3339(unix)
    }
}

impl Keyring {
    /// Opens the keys. With HS256, HS384 or HS512, the key is `secret`, and nothing is read or written.
    ///
    /// # Errors
    /// Returns an error if a key cannot be read or created, or if the secret cannot be used.
    pub fn open(
        storage: KeyStorage<'_>,
        algorithm: Algorithm,
        secret: Option<&[u8]>,
        missing_key: MissingKey,
    ) -> Result<Self, KeyringFault> {
        Self::open_at(storage, algorithm, secret, missing_key, Now::read())
    }

    fn open_at(
        storage: KeyStorage<'_>,
        algorithm: Algorithm,
        secret: Option<&[u8]>,
        missing_key: MissingKey,
        now: Now,
    ) -> Result<Self, KeyringFault> {
        let (source, ring) = if algorithm.has_secret() {
            let secret = secret.ok_or(KeyringFault::SecretMissing)?;
            let bytes = SecretBytes(zeroize::Zeroizing::new(secret.to_vec()));
            (Source::Secret(bytes), ring_of_one(SigningKey::from_secret(algorithm, secret)?)?)
        } else {
            match open_place(storage, algorithm, missing_key, now)? {
                Some((place, ring)) => (Source::Place(place), ring),
                None => (Source::Memory, ring_of_one(SigningKey::generate(algorithm)?.0)?),
            }
        };
        let schedule = Schedule::default();
        let view = ArcSwap::from_pointee(View::at(Arc::new(ring), &schedule, now.unix));
        Ok(Self { inner: Arc::new(Inner { algorithm, source, view, faults: AtomicU64::new(0) }), schedule })
    }

    /// Returns this keyring with the schedule of a new policy, if that policy configures the same keys. Opening the
    /// keys again could lose keys that were created or revoked in the meantime. The next [`Watcher`] applies the
    /// schedule.
    pub fn carry_over(
        &self,
        storage: &KeyStorage<'_>,
        algorithm: Algorithm,
        secret: Option<&[u8]>,
        schedule: Schedule,
    ) -> Option<Self> {
        let is_same = match (&self.inner.source, secret) {
            (Source::Secret(known), Some(given)) => verify_slices_are_equal(&known.0, given).is_ok(),
            (Source::Place(place), None) => match (place, storage) {
                (Place::Folder(folder), KeyStorage::Folder(path)) => folder.is_at(path),
                (Place::Table(table), KeyStorage::Store(url, secrets)) => table.is_at(url, secrets),
                (Place::Folder(_), KeyStorage::Store(..)) | (Place::Table(_), KeyStorage::Folder(_)) => false,
            },
            (Source::Secret(_) | Source::Place(_) | Source::Memory, _) => false,
        };
        (is_same && self.inner.algorithm == algorithm).then(|| Self { inner: self.inner.clone(), schedule })
    }

    /// Whether both keyrings share one state, even if their schedules differ.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Applies a schedule.
    #[must_use]
    pub fn with_schedule(self, schedule: Schedule) -> Self {
        self.with_schedule_at(schedule, Now::read())
    }

    fn with_schedule_at(self, schedule: Schedule, now: Now) -> Self {
        let ring = self.inner.view.load().ring.clone();
        self.inner.view.store(Arc::new(View::at(ring, &schedule, now.unix)));
        Self { schedule, ..self }
    }

    /// Returns the algorithm of all keys in this keyring.
    pub fn algorithm(&self) -> Algorithm {
        self.inner.algorithm
    }

    /// Returns the token lifetime and the rotation period.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Whether the key exists only in memory, because there is no signing key and none was to be created.
    pub fn is_ephemeral(&self) -> bool {
        matches!(self.inner.source, Source::Memory)
    }

    /// Returns the key that signs now.
    pub fn signing(&self, now: Now) -> Arc<SigningKey> {
        self.inner.view.load().ring.signing(now.unix).clone()
    }

    /// Returns the public keys as a JSON Web Key Set (RFC 7517 section 5), as of the last read. The set contains the
    /// keys that sign, that will sign soon, and whose tokens may still be valid. It is empty for a shared secret.
    /// Clients may cache it for [`JWKS_MAX_AGE`].
    pub fn jwks(&self) -> Bytes {
        self.inner.view.load().jwks.clone()
    }

    /// Returns the keys that verify the authority's signatures, parsed in the same way as the keys of other issuers.
    ///
    /// # Errors
    /// Returns an error if the key set cannot be parsed, which would be a bug.
    pub fn key_set(&self) -> Result<KeySet, KeyringFault> {
        self.key_set_of(&self.inner.view.load())
    }

    fn key_set_of(&self, view: &View) -> Result<KeySet, KeyringFault> {
        match &self.inner.source {
            Source::Place(_) | Source::Memory => KeySet::from_jwks(&view.jwks, &[self.inner.algorithm])
                .map(|(set, _)| set)
                .map_err(|why| KeyringFault::Internal(why.to_string())),
            Source::Secret(secret) => {
                let mut set = KeySet::default();
                let id = view.published.first().map(|key| key.id());
                set.add_secret(id, self.inner.algorithm, &secret.0)
                    .map_err(|why| KeyringFault::Secret(why.to_string()))?;
                Ok(set)
            }
        }
    }

    /// Lists all keys, oldest first.
    pub fn list(&self, now: Now) -> Vec<KeyInfo> {
        let (view, schedule) = (self.inner.view.load(), &self.schedule);
        let ring = &view.ring;
        let info = |(place, slot): (usize, &Slot)| KeyInfo {
            id: slot.id.clone().into(),
            algorithm: self.inner.algorithm,
            state: ring.state(place, schedule, now.unix),
            signs_from: Some(slot.signs_from).filter(|time| *time > 0),
            accepted_until: ring.accepted_until(place, schedule),
        };
        ring.slots().iter().enumerate().map(info).collect()
    }

    /// Returns the number of faults that were found in the stored keys.
    pub fn faults(&self) -> u64 {
        self.inner.faults.load(Ordering::Relaxed)
    }

    /// Makes `ring` the current ring.
    fn store(&self, ring: Ring, now: Now) {
        self.inner.view.store(Arc::new(View::at(Arc::new(ring), &self.schedule, now.unix)));
    }
}

/// Opens the place of the keys, and reads the ring. Returns `None` if there is no key and none is created.
fn open_place(
    storage: KeyStorage<'_>,
    algorithm: Algorithm,
    missing_key: MissingKey,
    now: Now,
) -> Result<Option<(Place, Ring)>, KeyringFault> {
    let place = match (storage, missing_key) {
        (KeyStorage::Folder(path), _) => Place::Folder(KeyFolder::new(path)),
        (KeyStorage::Store(..), MissingKey::Ephemeral) => return Ok(None),
        (KeyStorage::Store(url, secrets), MissingKey::Create | MissingKey::Inspect) => {
            Place::Table(KeyTable::open(url, secrets)?)
        }
    };
    let ring = match (place.ring(algorithm)?, missing_key) {
        (PlacedRing::Usable(ring), _) => Some(ring),
        (PlacedRing::Unusable { .. }, MissingKey::Create) => {
            let change = place.change(commands::LOCK_TIMEOUT)?;
            let ring = change.create_first(algorithm, now)?;
            change.commit()?;
            Some(ring)
        }
        (PlacedRing::Unusable { .. }, MissingKey::Inspect | MissingKey::Ephemeral) => None,
    };
    Ok(ring.map(|ring| (place, ring)))
}

/// Returns a ring with a single key that is not stored.
fn ring_of_one(key: SigningKey) -> Result<Ring, KeyringFault> {
    let slot = Slot { signs_from: 0, id: key.id().into(), key: Some(Arc::new(key)) };
    Ring::new(vec![slot]).ok_or_else(|| KeyringFault::Internal("a ring of one key is empty".to_owned()))
}

#[cfg(test)]
mod scratch;

#[cfg(test)]
mod tests;
