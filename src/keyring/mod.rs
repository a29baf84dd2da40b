//! The keys that the local authority signs with: created at first use, stored in the state folder where only their
//! owner can read them, replaced on schedule and by command.
//!
//! A key is published before it signs, and accepted until the last token that it signed has expired. The folder is the
//! only source of truth: commands change it, and every gateway that uses it follows what it finds there.
//!
//! `ring` computes which key signs at which time, `folder` stores keys as files, `commands` changes them, and `watch`
//! keeps a running gateway in step.

mod commands;
mod fault;
mod folder;
mod folder_ring;
mod key;
mod ring;
mod watch;

pub use commands::{KeyRotation, RotationStart};
pub use fault::{FileFault, KeyringFault};
pub use key::SigningKey;
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

/// The keys that the local authority signs with. Clones share one state and are cheap.
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
    /// A shared secret in the configuration, which is never published.
    Secret(SecretBytes),
    /// The state folder.
    Folder(KeyFolder),
    /// Nowhere: an ephemeral key in memory.
    Memory,
}

struct SecretBytes(zeroize::Zeroizing<Vec<u8>>);

impl std::fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(not shown)")
    }
}

/// A ring, with what it publishes.
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
    /// Create one in the folder.
    Create,
    /// Use an ephemeral one in memory and leave the folder alone, for commands that only inspect a policy.
    Ephemeral,
}

/// One key in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// Its `kid`.
    pub id: String,
    /// The algorithm that it signs with.
    pub algorithm: Algorithm,
    /// Its state now.
    pub state: KeyState,
    /// When it starts to sign, in seconds since 1970; `None` if unknown.
    pub signs_from: Option<u64>,
    /// When it stops being accepted, in seconds since 1970, exclusively; `None` while no key follows it.
    pub accepted_until: Option<u64>,
}

impl KeyInfo {
    /// Formats one of its times (RFC 3339).
    pub fn time(unix: u64) -> String {
        timestamp::rfc3339(unix)
    }
}

impl Keyring {
    /// Opens the keys in a state folder. With HS256 the key is the secret, and no file is touched.
    ///
    /// # Errors
    /// When a key cannot be read or created, or the secret cannot be used.
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
        let (source, ring) = if algorithm == Algorithm::HS256 {
            let secret = secret.ok_or(KeyringFault::SecretMissing)?;
            let bytes = SecretBytes(zeroize::Zeroizing::new(secret.to_vec()));
            (Source::Secret(bytes), ring_of_one(SigningKey::from_secret(secret)?)?)
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

    /// Returns these keys for a new policy, with its schedule, if the policy configures the same keys: keys created or
    /// revoked since they were opened must not be lost. The next [`Watcher`] applies the schedule.
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

    /// Whether both share one state, whatever their schedules.
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

    /// The algorithm of all its keys.
    pub fn algorithm(&self) -> Algorithm {
        self.inner.algorithm
    }

    /// Token lifetime and rotation period.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Whether its key exists in memory only, because the folder had none and none was to be created.
    pub fn is_ephemeral(&self) -> bool {
        matches!(self.inner.source, Source::Memory)
    }

    /// The key that signs now.
    pub fn signing(&self, now: Now) -> Arc<SigningKey> {
        self.inner.view.load().ring.signing(now.unix).clone()
    }

    /// The public keys as a JSON Web Key Set (RFC 7517 section 5), as of the last read: keys that sign, that signed
    /// tokens which are still valid, or that will sign soon. Empty for HS256. Clients may cache it for
    /// [`JWKS_MAX_AGE`].
    pub fn jwks(&self) -> Bytes {
        self.inner.view.load().jwks.clone()
    }

    /// The keys that verify its signatures, parsed like those of any other issuer.
    ///
    /// # Errors
    /// When the key set cannot be parsed, which would be a bug.
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
                set.add_secret(id, &secret.0).map_err(|why| KeyringFault::Secret(why.to_string()))?;
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

    /// The number of faults found in the key files.
    pub fn faults(&self) -> u64 {
        self.inner.faults.load(Ordering::Relaxed)
    }

    /// Puts a ring in use.
    fn store(&self, ring: Ring, now: Now) {
        self.inner.view.store(Arc::new(View::at(Arc::new(ring), &self.schedule, now.unix)));
    }
}

/// A ring with one key that is in no file.
fn ring_of_one(key: SigningKey) -> Result<Ring, KeyringFault> {
    let slot = Slot { signs_from: 0, id: key.id().into(), key: Some(Arc::new(key)) };
    Ring::new(vec![slot]).ok_or_else(|| KeyringFault::Internal("a ring of one key is empty".to_owned()))
}

#[cfg(test)]
mod scratch;

#[cfg(test)]
mod tests;
