//! Reads the ring from the key folder, creates its first key, and adds keys to it.

use super::fault::KeyringFault;
use super::folder::{KEYS_MAX, KeyFolder};
use super::ring::Ring;
use crate::authenticate::Algorithm;
use crate::clock::Now;
use crate::state_dir::Lock;

/// The state of the ring in a folder.
pub(super) enum FolderRing {
    /// The ring has a key that can sign.
    Usable(Ring),
    /// The ring has no key that can sign: the folder is empty, or its last key is revoked.
    Unusable {
        /// The earliest time from which a new key may sign, in seconds since 1970. This time is after the start times
        /// of all revoked keys.
        free_from: u64,
    },
}

/// Reads the ring from a folder.
///
/// # Errors
/// Returns an error if one of the key files cannot be read.
pub(super) fn read(folder: &KeyFolder, algorithm: Algorithm) -> Result<FolderRing, KeyringFault> {
    let (_, contents) = folder.read(algorithm)?;
    if let Some((_, fault)) = contents.broken.into_iter().next() {
        return Err(fault);
    }
    let free_from = contents.slots.iter().map(|slot| slot.signs_from.saturating_add(1)).max().unwrap_or(0);
    Ok(Ring::new(contents.slots).map_or(FolderRing::Unusable { free_from }, FolderRing::Usable))
}

/// Reads the ring from a folder. Returns an error if the ring has no key that can sign.
pub(super) fn read_usable(folder: &KeyFolder, algorithm: Algorithm) -> Result<Ring, KeyringFault> {
    match read(folder, algorithm)? {
        FolderRing::Usable(ring) => Ok(ring),
        FolderRing::Unusable { .. } => Err(KeyringFault::NoUsableKey),
    }
}

/// Creates a key that signs immediately, unless a signing key exists. If another process has already created a key,
/// that key is used.
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

/// Creates a key that signs from `signs_from` (seconds since 1970), and returns the extended ring.
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
