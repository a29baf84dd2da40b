//! The signing keys in the store, for gateways that share them. Each private key is encrypted ([`SealSecrets`]).
//!
//! Keys of another algorithm belong to another ring and are ignored. Changes are transactions, and the database allows
//! one at a time.

use super::fault::KeyringFault;
use super::folder::{FolderContents, KEYS_MAX};
use super::key::SigningKey;
use super::ring::Slot;
use super::seal::SealSecrets;
use crate::authenticate::Algorithm;
use crate::store::{KeyChange, SealedKey, Store, StoreError, StoredKey};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// The time limit for one operation, which takes milliseconds. The store's own limits are shorter, except for a
/// migration at the start.
const OPERATION_MAX: Duration = Duration::from_secs(90);
/// The pause before another attempt to take the lock.
const PAUSE: Duration = Duration::from_millis(20);
/// The maximum number of rows that are read: twice the maximum number of keys, as for files.
const ROWS_MAX: u32 = 2 * KEYS_MAX as u32;

/// The keys in a store.
pub(super) struct KeyTable {
    url: String,
    secrets: SealSecrets,
    worker: Worker,
    /// Held during a change. A poll and a poll of the previous policy may meet in one process.
    turn: Mutex<()>,
}

impl fmt::Debug for KeyTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyTable").finish_non_exhaustive()
    }
}

impl KeyTable {
    /// Opens the store with this URL.
    pub(super) fn open(url: &str, secrets: SealSecrets) -> Result<Self, KeyringFault> {
        let worker = Worker::start(url.to_owned())?;
        Ok(Self { url: url.to_owned(), secrets, worker, turn: Mutex::new(()) })
    }

    /// Whether these are the keys in the store with this URL, with the same secrets.
    pub(super) fn is_at(&self, url: &str, secrets: &SealSecrets) -> bool {
        self.url == url && self.secrets.is_same(secrets)
    }

    /// Returns the keys as they are stored.
    pub(super) fn list(&self, algorithm: Algorithm) -> Result<Vec<StoredKey>, KeyringFault> {
        let keys = self.worker.run(async move |work: &mut Work| {
            work.store.signing_keys(algorithm.as_str(), ROWS_MAX + 1).await
        })?;
        bounded(keys)
    }

    /// Decrypts the keys of a listing.
    pub(super) fn read(&self, algorithm: Algorithm, listed: &[StoredKey]) -> FolderContents {
        let mut contents = FolderContents::default();
        for stored in listed {
            let id = stored.id.as_str().into();
            match stored.sealed.as_ref().map(|sealed| self.key(algorithm, stored, sealed)) {
                None => contents.slots.push(Slot { signs_from: stored.signs_from, key: None, id }),
                Some(Ok(key)) => {
                    contents.slots.push(Slot { signs_from: stored.signs_from, key: Some(Arc::new(key)), id });
                }
                Some(Err(fault)) => contents.broken.push((stored.signs_from, fault)),
            }
        }
        contents
    }

    fn key(
        &self,
        algorithm: Algorithm,
        stored: &StoredKey,
        sealed: &SealedKey,
    ) -> Result<SigningKey, KeyringFault> {
        let pkcs8 = self.secrets.open(sealed, algorithm, stored)?;
        let key = SigningKey::from_pkcs8(algorithm, &pkcs8).filter(|key| key.id() == stored.id);
        key.ok_or_else(|| KeyringFault::Changed(stored.id.clone()))
    }

    /// Begins a change. Waits up to `timeout` for a change of another process.
    pub(super) fn change(&self, timeout: Duration) -> Result<TableChange<'_>, KeyringFault> {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let deadline = Instant::now() + timeout;
        let has_lock = self.worker.run(async move |work: &mut Work| {
            loop {
                work.change = work.store.change_signing_keys().await?;
                if work.change.is_some() || Instant::now() >= deadline {
                    return Ok(work.change.is_some());
                }
                tokio::time::sleep(PAUSE).await;
            }
        })?;
        let change = TableChange { table: self, _turn: turn };
        if has_lock { Ok(change) } else { Err(KeyringFault::Locked) }
    }
}

fn bounded(keys: Vec<StoredKey>) -> Result<Vec<StoredKey>, KeyringFault> {
    match keys.len() > ROWS_MAX as usize {
        true => Err(KeyringFault::Store(format!("the store has more than {KEYS_MAX} signing keys"))),
        false => Ok(keys),
    }
}

/// A change of the keys. A change that is dropped is rolled back.
pub(super) struct TableChange<'t> {
    table: &'t KeyTable,
    _turn: MutexGuard<'t, ()>,
}

impl TableChange<'_> {
    fn run<T: Send + 'static>(
        &self,
        work: impl AsyncFnOnce(&mut KeyChange) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, KeyringFault> {
        let done = self.table.worker.run(async move |state: &mut Work| match &mut state.change {
            Some(change) => work(change).await.map(Some),
            None => Ok(None),
        });
        done?.ok_or_else(|| KeyringFault::Internal("the change of the keys has ended".to_owned()))
    }

    /// Returns the keys, with the changes made so far.
    pub(super) fn list(&self, algorithm: Algorithm) -> Result<Vec<StoredKey>, KeyringFault> {
        bounded(self.run(async move |change| change.keys(algorithm.as_str(), ROWS_MAX + 1).await)?)
    }

    /// Creates a key that signs from `signs_from` on.
    pub(super) fn create_key(
        &self,
        algorithm: Algorithm,
        signs_from: u64,
        now: u64,
    ) -> Result<(), KeyringFault> {
        let (key, pkcs8) = SigningKey::generate(algorithm)?;
        let mut stored = StoredKey { id: key.id().to_owned(), signs_from, created: now, sealed: None };
        stored.sealed = Some(self.table.secrets.seal(&pkcs8, algorithm, &stored)?);
        self.run(async move |change| change.add(algorithm.as_str(), &stored).await)
    }

    /// Revokes a key.
    pub(super) fn revoke(&self, slot: &Slot) -> Result<(), KeyringFault> {
        let id = slot.id.to_string();
        self.run(async move |change| change.revoke(&id).await)
    }

    /// Removes a key.
    pub(super) fn remove(&self, slot: &Slot) -> Result<(), KeyringFault> {
        let id = slot.id.to_string();
        self.run(async move |change| change.remove(&id).await)
    }

    /// Returns the time at which dead keys may be removed: `now`, or the time of the store's server if that is earlier.
    pub(super) fn sweep_time(&self, now: u64) -> Result<u64, KeyringFault> {
        self.run(async move |change| change.sweep_time(now).await)
    }

    /// Encrypts with the current secret every key that is encrypted with the other one. Returns their ids.
    pub(super) fn reseal(&self, algorithm: Algorithm) -> Result<Vec<String>, KeyringFault> {
        let mut done = Vec::new();
        for stored in self.list(algorithm)? {
            let Some(sealed) = &stored.sealed else { continue };
            if self.table.secrets.is_current(sealed) {
                continue;
            }
            let pkcs8 = self.table.secrets.open(sealed, algorithm, &stored)?;
            let resealed = self.table.secrets.seal(&pkcs8, algorithm, &stored)?;
            let id = stored.id.clone();
            self.run(async move |change| change.reseal(&id, &resealed).await)?;
            done.push(stored.id);
        }
        Ok(done)
    }

    /// Puts the changes into force.
    pub(super) fn commit(self) -> Result<(), KeyringFault> {
        self.table.worker.run(async move |work: &mut Work| match work.change.take() {
            Some(change) => change.commit().await,
            None => Ok(()),
        })
    }
}

impl Drop for TableChange<'_> {
    fn drop(&mut self) {
        // After a commit there is nothing to roll back. A worker that has ended has closed its connections.
        let _ = self.table.worker.run(async move |work: &mut Work| {
            if let Some(change) = work.change.take() {
                change.undo().await;
            }
            Ok(())
        });
    }
}

/// The state of the worker between two operations.
struct Work {
    store: Store,
    change: Option<KeyChange>,
}

type Job = Box<dyn FnOnce(&Runtime, &mut Work) + Send>;

/// A thread with a runtime for the store. Callers of the keyring are on many threads, some of them with a runtime of
/// their own, in which nothing may block.
struct Worker(mpsc::Sender<Job>);

impl Worker {
    /// Starts the thread, and opens the store with this URL.
    fn start(url: String) -> Result<Self, KeyringFault> {
        let cannot = |error: std::io::Error| KeyringFault::Store(format!("cannot start: {error}"));
        let (jobs, waiting) = mpsc::channel::<Job>();
        let (send, opened) = mpsc::sync_channel(1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot)?;
        let run = move || {
            let mut work = match runtime.block_on(Store::open(&url, Path::new(""))) {
                Ok(store) => Work { store, change: None },
                Err(error) => return drop(send.send(Err(KeyringFault::Store(error.to_string())))),
            };
            if send.send(Ok(())).is_ok() {
                waiting.iter().for_each(|job| job(&runtime, &mut work));
            }
            // Connections are returned to their pool by tasks of the runtime.
            let _entered = runtime.enter();
            drop(work);
        };
        std::thread::Builder::new().name("signing-keys".to_owned()).spawn(run).map_err(cannot)?;
        opened.recv().map_err(|_| ended())??;
        Ok(Self(jobs))
    }

    /// Runs one operation, and waits for it.
    fn run<T: Send + 'static>(
        &self,
        operation: impl AsyncFnOnce(&mut Work) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, KeyringFault> {
        let (send, done) = mpsc::sync_channel(1);
        let job = move |runtime: &Runtime, work: &mut Work| {
            let done = runtime.block_on(async {
                let done = tokio::time::timeout(OPERATION_MAX, operation(work)).await;
                done.unwrap_or_else(|_| Err(StoreError::late(OPERATION_MAX)))
            });
            // The caller waits below.
            let _ = send.send(done);
        };
        self.0.send(Box::new(job)).map_err(|_| ended())?;
        done.recv().map_err(|_| ended())?.map_err(|error| KeyringFault::Store(error.to_string()))
    }
}

fn ended() -> KeyringFault {
    KeyringFault::Internal("the thread of the signing keys has ended: restart the gateway".to_owned())
}

#[cfg(test)]
mod tests;
