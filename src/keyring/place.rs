//! The place where the signing keys are: the state folder, or the store. Every change locks the place and reads it
//! again.

use super::fault::KeyringFault;
use super::folder::{FileStamp, FolderContents, KEYS_MAX, KeyFolder};
use super::ring::{Ring, Slot};
use super::table::{KeyTable, TableChange};
use crate::authenticate::Algorithm;
use crate::clock::Now;
use crate::state_dir::Lock;
use crate::store::StoredKey;
use std::time::Duration;

/// The place of the keys.
#[derive(Debug)]
pub(super) enum Place {
    /// The state folder.
    Folder(KeyFolder),
    /// The store.
    Table(KeyTable),
}

/// The listing of the place. A changed key changes the listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Listing {
    /// The files of a folder.
    Files(Vec<FileStamp>),
    /// The rows of a store.
    Rows(Vec<StoredKey>),
}

/// The state of the ring at its place.
pub(super) enum PlacedRing {
    /// The ring has a key that can sign.
    Usable(Ring),
    /// The ring has no key that can sign: the place is empty, or the last key is revoked.
    Unusable {
        /// The earliest time from which a new key may sign, in seconds since 1970. This time is after the start times
        /// of all revoked keys.
        free_from: u64,
    },
}

impl Place {
    /// Lists the keys.
    pub(super) fn list(&self, algorithm: Algorithm) -> Result<Listing, KeyringFault> {
        match self {
            Self::Folder(folder) => folder.list().map(Listing::Files),
            Self::Table(table) => table.list(algorithm).map(Listing::Rows),
        }
    }

    /// Reads all keys. Returns them with the listing from which they were read.
    pub(super) fn read(&self, algorithm: Algorithm) -> Result<(Listing, FolderContents), KeyringFault> {
        match self {
            Self::Folder(folder) => {
                folder.read(algorithm).map(|(files, contents)| (Listing::Files(files), contents))
            }
            Self::Table(table) => {
                let rows = table.list(algorithm)?;
                let contents = table.read(algorithm, &rows);
                Ok((Listing::Rows(rows), contents))
            }
        }
    }

    /// Reads the ring.
    pub(super) fn ring(&self, algorithm: Algorithm) -> Result<PlacedRing, KeyringFault> {
        placed(self.read(algorithm)?.1)
    }

    /// Begins a change. Waits up to `timeout` for a change of another process.
    pub(super) fn change(&self, timeout: Duration) -> Result<Change<'_>, KeyringFault> {
        Ok(match self {
            Self::Folder(folder) => Change::Folder(folder, folder.lock(timeout)?),
            Self::Table(table) => Change::Table(table, table.change(timeout)?),
        })
    }
}

/// The exclusive right to change the keys. Each change of a file is in force at once. Changes of the store are in force
/// together, after [`Change::commit`].
pub(super) enum Change<'p> {
    Folder(&'p KeyFolder, Lock),
    Table(&'p KeyTable, TableChange<'p>),
}

impl Change<'_> {
    fn read(&self, algorithm: Algorithm) -> Result<PlacedRing, KeyringFault> {
        placed(match self {
            Self::Folder(folder, _) => folder.read(algorithm)?.1,
            Self::Table(table, change) => table.read(algorithm, &change.list(algorithm)?),
        })
    }

    /// Reads the ring. Returns an error if the ring has no key that can sign.
    pub(super) fn ring(&self, algorithm: Algorithm) -> Result<Ring, KeyringFault> {
        match self.read(algorithm)? {
            PlacedRing::Usable(ring) => Ok(ring),
            PlacedRing::Unusable { .. } => Err(KeyringFault::NoUsableKey),
        }
    }

    /// Creates a key that signs immediately, unless a signing key exists. If another process has already created a key,
    /// that key is used.
    pub(super) fn create_first(&self, algorithm: Algorithm, now: Now) -> Result<Ring, KeyringFault> {
        match self.read(algorithm)? {
            PlacedRing::Usable(ring) => Ok(ring),
            PlacedRing::Unusable { free_from } => {
                self.create_key(algorithm, now.unix.max(free_from).max(1), now)?;
                self.ring(algorithm)
            }
        }
    }

    /// Creates a key that signs from `signs_from` (seconds since 1970), and returns the extended ring.
    pub(super) fn add_key(
        &self,
        algorithm: Algorithm,
        ring: &Ring,
        signs_from: u64,
        now: Now,
    ) -> Result<Ring, KeyringFault> {
        if ring.slots().len() >= KEYS_MAX {
            return Err(KeyringFault::Full { max: KEYS_MAX });
        }
        self.create_key(algorithm, signs_from, now)?;
        self.ring(algorithm)
    }

    fn create_key(&self, algorithm: Algorithm, signs_from: u64, now: Now) -> Result<(), KeyringFault> {
        match self {
            Self::Folder(folder, lock) => folder.create_key(lock, algorithm, signs_from),
            Self::Table(_, change) => change.create_key(algorithm, signs_from, now.unix),
        }
    }

    /// Revokes a key that signs or has signed.
    pub(super) fn revoke(&self, slot: &Slot) -> Result<(), KeyringFault> {
        match self {
            Self::Folder(folder, lock) => folder.revoke(lock, slot),
            Self::Table(_, change) => change.revoke(slot),
        }
    }

    /// Returns the time at which dead keys may be removed: `now`, or the time of the store's server if that is earlier. The
    /// clock of one gateway alone must not remove the keys of all.
    pub(super) fn sweep_time(&self, now: u64) -> Result<u64, KeyringFault> {
        match self {
            Self::Folder(..) => Ok(now),
            Self::Table(_, change) => change.sweep_time(now),
        }
    }

    /// Removes a key.
    pub(super) fn remove(&self, slot: &Slot) -> Result<(), KeyringFault> {
        match self {
            Self::Folder(folder, lock) => folder.remove(lock, slot),
            Self::Table(_, change) => change.remove(slot),
        }
    }

    /// Ends the change, and puts it into force.
    pub(super) fn commit(self) -> Result<(), KeyringFault> {
        match self {
            Self::Folder(..) => Ok(()),
            Self::Table(_, change) => change.commit(),
        }
    }
}

fn placed(contents: FolderContents) -> Result<PlacedRing, KeyringFault> {
    if let Some((_, fault)) = contents.broken.into_iter().next() {
        return Err(fault);
    }
    let free_from = contents.slots.iter().map(|slot| slot.signs_from.saturating_add(1)).max().unwrap_or(0);
    Ok(Ring::new(contents.slots).map_or(PlacedRing::Unusable { free_from }, PlacedRing::Usable))
}
