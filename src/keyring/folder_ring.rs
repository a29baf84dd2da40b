//! The ring that the folder holds: read, started with its first key, extended by one.

use super::fault::KeyringFault;
use super::folder::{KEYS_MAX, KeyFolder, Lock};
use super::ring::Ring;
use crate::authenticate::Algorithm;
use crate::clock::Now;

/// The ring in a folder.
pub(super) enum FolderRing {
    /// It has a key to sign with.
    Usable(Ring),
    /// It has none: the folder is empty, or its last key is revoked. A first key must sign from this time or later, in
    /// seconds since 1970, so that it comes after the revoked ones.
    Unusable {
        /// That time.
        free_from: u64,
    },
}

/// Reads the ring in a folder.
///
/// # Errors
/// When any of its files cannot be read.
pub(super) fn read(folder: &KeyFolder, algorithm: Algorithm) -> Result<FolderRing, KeyringFault> {
    let (_, contents) = folder.read(algorithm)?;
    if let Some((_, fault)) = contents.broken.into_iter().next() {
        return Err(fault);
    }
    let free_from = contents.slots.iter().map(|slot| slot.signs_from.saturating_add(1)).max().unwrap_or(0);
    Ok(Ring::new(contents.slots).map_or(FolderRing::Unusable { free_from }, FolderRing::Usable))
}

/// Reads the ring in a folder, which must have a key to sign with.
pub(super) fn read_usable(folder: &KeyFolder, algorithm: Algorithm) -> Result<Ring, KeyringFault> {
    match read(folder, algorithm)? {
        FolderRing::Usable(ring) => Ok(ring),
        FolderRing::Unusable { .. } => Err(KeyringFault::NoUsableKey),
    }
}

/// Creates a key that signs immediately, unless a signing key exists. If another process did so first, its key is
/// used.
pub(super) fn create_first(
    folder: &KeyFolder,
    lock: &Lock,
    algorithm: Algorithm,
    now: Now,
) -> Result<Ring, KeyringFault> {
    match read(folder, algorithm)? {
        FolderRing::Usable(ring) => Ok(ring),
        FolderRing::Unusable { free_from } => {
            folder.create_key(lock, algorithm, now.unix.max(free_from).max(1))?;
            read_usable(folder, algorithm)
        }
    }
}

/// Creates a key that signs from this time, in seconds since 1970, and returns the extended ring.
pub(super) fn add_key(
    folder: &KeyFolder,
    lock: &Lock,
    algorithm: Algorithm,
    ring: &Ring,
    signs_from: u64,
) -> Result<Ring, KeyringFault> {
    if ring.slots().len() >= KEYS_MAX {
        return Err(KeyringFault::Full { max: KEYS_MAX });
    }
    folder.create_key(lock, algorithm, signs_from)?;
    read_usable(folder, algorithm)
}
