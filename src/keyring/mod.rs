//! The local authority's signing keys. They are created at first use, stored in the state folder so that only their
//! owner can read them, and replaced on schedule and by command.
//!
//! A key is published before it signs, and accepted until the last token that it signed has expired. The folder is the
//! only source of truth: commands change the folder, and every gateway that uses it applies the changes.
//!
//! `ring` computes which key signs at which time, `folder` stores keys as files, `commands` changes them, and `watch`
//! applies changes of the folder to a running gateway.

mod commands;
mod fault;
mod folder;
mod folder_ring;
mod key;
mod ring;
mod watch;

pub use commands::{KeyRotation, RotationStart};
pub use fault::{FileFault, KeyringFault};
pub use key::{SIGNING, SigningKey};
pub use ring::{JWKS_MAX_AGE, KeyState, LEAD, LEEWAY, RETENTION, Schedule};
pub use watch::{KeyEvent, Watcher};

use crate::authenticate::{Algorithm, KeySet};
use crate::clock::Now;
use crate::timestamp;
use arc_swap::ArcSwap;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use bytes::Bytes;
use folder::KeyFolder;
use folder_ring::FolderRing;
use ring::{Ring, Slot};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
    /// The state folder.
    Folder(KeyFolder),
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

/// The action if the folder has no signing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingKey {
    /// Create a signing key in the folder.
    Create,
    /// Use an ephemeral key in memory and do not change the folder, for commands that only inspect a policy.
    Ephemeral,
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
    /// Opens the keys in a state folder. With HS256, HS384 or HS512, the key is `secret`, and no file is read or
    /// written.
    ///
    /// # Errors
    /// Returns an error if a key cannot be read or created, or if the secret cannot be used.
    pub fn open(
        state_dir: &Path,
        algorithm: Algorithm,
        secret: Option<&[u8]>,
        missing_key: MissingKey,
    ) -> Result<Self, KeyringFault> {
        Self::open_at(state_dir, algorithm, secret, missing_key, Now::read())
    }

    fn open_at(
        state_dir: &Path,
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
            let folder = KeyFolder::new(state_dir);
            let ring = match (folder_ring::read(&folder, algorithm)?, missing_key) {
                (FolderRing::Usable(ring), _) => Some(ring),
                (FolderRing::Unusable { .. }, MissingKey::Create) => {
                    let lock = folder.lock(commands::LOCK_TIMEOUT)?;
                    Some(folder_ring::create_first(&folder, &lock, algorithm, now)?)
                }
                (FolderRing::Unusable { .. }, MissingKey::Ephemeral) => None,
            };
            match ring {
                Some(ring) => (Source::Folder(folder), ring),
                None => (Source::Memory, ring_of_one(SigningKey::ephemeral(algorithm)?)?),
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
        state_dir: &Path,
        algorithm: Algorithm,
        secret: Option<&[u8]>,
        schedule: Schedule,
    ) -> Option<Self> {
        let is_same = match (&self.inner.source, secret) {
            (Source::Secret(known), Some(given)) => verify_slices_are_equal(&known.0, given).is_ok(),
            (Source::Folder(folder), None) => folder.is_at(state_dir),
            (Source::Secret(_) | Source::Folder(_) | Source::Memory, _) => false,
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

    /// Whether the key exists only in memory, because the folder has no signing key and `MissingKey::Ephemeral` was
    /// requested.
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
            Source::Folder(_) | Source::Memory => KeySet::from_jwks(&view.jwks, &[self.inner.algorithm])
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

    /// Returns the number of faults that were found in the key files.
    pub fn faults(&self) -> u64 {
        self.inner.faults.load(Ordering::Relaxed)
    }

    /// Makes `ring` the current ring.
    fn store(&self, ring: Ring, now: Now) {
        self.inner.view.store(Arc::new(View::at(Arc::new(ring), &self.schedule, now.unix)));
    }
}

/// Returns a ring with a single key that is not in the folder.
fn ring_of_one(key: SigningKey) -> Result<Ring, KeyringFault> {
    let slot = Slot { signs_from: 0, id: key.id().into(), key: Some(Arc::new(key)) };
    Ring::new(vec![slot]).ok_or_else(|| KeyringFault::Internal("a ring of one key is empty".to_owned()))
}

#[cfg(test)]
mod scratch;

#[cfg(test)]
mod tests;
