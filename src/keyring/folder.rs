//! The key files in the state folder. Each key has a file: the key in `signing-key.20260131T235959Z.pem` signs from
//! that time on. Version 0.1 used the name `signing-key.pem`; the start time of such a key is unknown.
//!
//! A file with the extension `.revoked` instead of `.pem` revokes the key. This file contains the id of the key. A
//! private key of the same name is ignored.
//!
//! Files appear atomically. Writers hold the lock; readers do not need it.

use super::fault::{FileFault, KeyringFault};
use super::key::{SigningKey, pem};
use super::ring::Slot;
use crate::authenticate::Algorithm;
use crate::state_dir::{self, Lock, LockFault, place_once};
use crate::timestamp;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The beginning of every file name.
const STEM: &str = "signing-key";
/// The name of the lock file.
const LOCK: &str = "signing-key.lock";
/// The maximum size of a key file in bytes. An RSA key of 8192 bits has 6.5 KiB.
const FILE_MAX: u64 = 64 * 1024;
/// The maximum number of keys. A ring in normal use has two or three.
pub(super) const KEYS_MAX: usize = 64;
/// The number of times that the folder is listed and read if listed files disappear before they are read.
const READ_ATTEMPTS: usize = 5;

/// The key files of a state folder.
#[derive(Clone, Debug)]
pub(super) struct KeyFolder(PathBuf);

/// The metadata of a file. It includes `ctime`, the time of the last change of any kind. Programs cannot set `ctime`,
/// so no change is missed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileStamp {
    name: String,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

/// The keys that were found in one read of the folder.
#[derive(Debug, Default)]
pub(super) struct FolderContents {
    /// The readable keys.
    pub slots: Vec<Slot>,
    /// The unreadable keys: the time from which each would sign, and the fault.
    pub broken: Vec<(u64, KeyringFault)>,
}

/// The kind of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FileKind {
    /// The file contains a private key.
    Key,
    /// The file marks a key as revoked.
    Revoked,
}

impl FileKind {
    const fn extension(self) -> &'static str {
        match self {
            Self::Key => "pem",
            Self::Revoked => "revoked",
        }
    }
}

impl KeyFolder {
    pub(super) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Whether this folder is the key folder of `state_dir`.
    pub(super) fn is_at(&self, state_dir: &Path) -> bool {
        *self.0 == *state_dir
    }

    /// Returns the path of the key that signs from this time.
    fn key_file(&self, signs_from: u64) -> PathBuf {
        self.file(signs_from, FileKind::Key)
    }

    fn file(&self, signs_from: u64, kind: FileKind) -> PathBuf {
        let extension = kind.extension();
        self.0.join(match signs_from {
            0 => format!("{STEM}.{extension}"),
            time => format!("{STEM}.{}.{extension}", timestamp::basic(time)),
        })
    }

    /// Lists the key files in the order of their names. The list of a missing folder is empty.
    pub(super) fn list(&self) -> Result<Vec<FileStamp>, KeyringFault> {
        let fault = |error: &io::Error| KeyringFault::io(&self.0, error);
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(fault(&error)),
        };
        let mode = fs::metadata(&self.0).map_err(|error| fault(&error))?.permissions().mode();
        if mode & 0o022 != 0 {
            // Anyone who can write to the folder can add a key and sign as the authority.
            return Err(KeyringFault::FolderWritable { path: self.0.clone(), mode: mode & 0o7777 });
        }
        let mut stamps = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| fault(&error))?;
            let Some(name) = key_file_name(&entry.file_name()) else { continue };
            // Unlike `DirEntry::metadata`, this call follows symbolic links: the file may be a link to a key elsewhere.
            let Ok(metadata) = fs::metadata(entry.path()) else {
                stamps.push(FileStamp { name, inode: 0, size: 0, changed: (0, 0) });
                continue;
            };
            stamps.push(FileStamp {
                name,
                inode: metadata.ino(),
                size: metadata.size(),
                changed: (metadata.ctime(), metadata.ctime_nsec()),
            });
        }
        stamps.sort();
        Ok(stamps)
    }

    /// Reads all keys. Returns them with the listing from which they were read.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be listed or contains too many keys.
    pub(super) fn read(
        &self,
        algorithm: Algorithm,
    ) -> Result<(Vec<FileStamp>, FolderContents), KeyringFault> {
        let mut attempts = 0;
        loop {
            let stamps = self.list()?;
            if stamps.len() > 2 * KEYS_MAX {
                return Err(KeyringFault::TooMany { path: self.0.clone(), max: KEYS_MAX });
            }
            let contents = self.read_listed(algorithm, &stamps);
            attempts += 1;
            // Another process may revoke or remove a key during the read. Its file then disappears. This is not a
            // fault: read the folder again.
            if contents.broken.is_empty() || attempts == READ_ATTEMPTS || self.list()? == stamps {
                return Ok((stamps, contents));
            }
        }
    }

    fn read_listed(&self, algorithm: Algorithm, stamps: &[FileStamp]) -> FolderContents {
        let mut contents = FolderContents::default();
        let named: Vec<_> = stamps.iter().map(|stamp| (stamp, parse(&stamp.name))).collect();
        for (stamp, parsed) in &named {
            let Some((signs_from, kind)) = *parsed else {
                let fault = KeyringFault::file(&self.0.join(&stamp.name), FileFault::Name);
                contents.broken.push((u64::MAX, fault));
                continue;
            };
            match kind {
                FileKind::Revoked => {
                    let id = self.revoked_id(signs_from).into();
                    contents.slots.push(Slot { signs_from, key: None, id });
                }
                FileKind::Key
                    if named.iter().any(|(_, other)| *other == Some((signs_from, FileKind::Revoked))) => {}
                FileKind::Key => match self.read_key(algorithm, signs_from) {
                    Ok(key) => {
                        let id = key.id().into();
                        contents.slots.push(Slot { signs_from, key: Some(Arc::new(key)), id });
                    }
                    Err(fault) => contents.broken.push((signs_from, fault)),
                },
            }
        }
        self.reject_duplicates(&mut contents);
        contents
    }

    /// Rejects a key that is in two files. The two files state different start times for the key, and key ids must be
    /// unique. The check also prevents the reuse of a revoked key under another name.
    fn reject_duplicates(&self, contents: &mut FolderContents) {
        let all: Vec<_> = contents
            .slots
            .iter()
            .map(|slot| (slot.signs_from, slot.key.is_some(), slot.id.clone()))
            .collect();
        contents.slots.retain(|slot| {
            let twin =
                all.iter().find(|(signs_from, _, id)| *id == slot.id && *signs_from != slot.signs_from);
            let (Some(_), Some((signs_from, is_usable, _))) = (&slot.key, twin) else { return true };
            let kind = if *is_usable { FileKind::Key } else { FileKind::Revoked };
            let mut files = [self.key_file(slot.signs_from), self.file(*signs_from, kind)];
            // Sort the paths, so that the faults of both files are equal and are reported once.
            files.sort();
            contents.broken.push((slot.signs_from, KeyringFault::SameKey(files)));
            false
        });
    }

    fn read_key(&self, algorithm: Algorithm, signs_from: u64) -> Result<SigningKey, KeyringFault> {
        let path = self.key_file(signs_from);
        let fault = |fault| KeyringFault::file(&path, fault);
        let io_fault = |error: io::Error| fault(FileFault::Io(error.to_string()));
        // Open the file once, so that the mode is checked on the same file that is read.
        let file = File::open(&path).map_err(io_fault)?;
        let metadata = file.metadata().map_err(io_fault)?;
        if !metadata.is_file() {
            return Err(fault(FileFault::NotAFile));
        }
        let mode = metadata.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(fault(FileFault::Readable { mode: mode & 0o777 }));
        }
        let mut pem = zeroize::Zeroizing::new(Vec::new());
        file.take(FILE_MAX).read_to_end(&mut pem).map_err(io_fault)?;
        SigningKey::from_pem(algorithm, &pem).map_err(fault)
    }

    /// Returns the id in a revocation file, or `unknown` if the file contains no valid id.
    fn revoked_id(&self, signs_from: u64) -> String {
        let mut text = String::new();
        let read = File::open(self.file(signs_from, FileKind::Revoked))
            .and_then(|file| file.take(128).read_to_string(&mut text));
        let id = text.lines().next().unwrap_or_default();
        let is_id = !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        if read.is_ok() && is_id { id.to_owned() } else { "unknown".to_owned() }
    }

    /// Locks the folder for writing and waits for the lock up to `timeout`. Creates the folder if necessary. Removes
    /// partial files of a process that crashed while it held the lock.
    ///
    /// # Errors
    /// [`KeyringFault::Locked`] if another process still holds the lock after `timeout`; other faults if the folder
    /// cannot be used.
    pub(super) fn lock(&self, timeout: Duration) -> Result<Lock, KeyringFault> {
        let path = self.0.join(LOCK);
        let fault = |error: io::Error| KeyringFault::io(&path, &error);
        let lock = state_dir::lock(&path, timeout).map_err(|held| match held {
            LockFault::Held => KeyringFault::Locked,
            LockFault::Io(error) => fault(error),
        })?;
        self.clean_up().map_err(fault)?;
        Ok(lock)
    }

    /// Removes partial files and the private keys of revoked keys. An unused private key must not stay on disk.
    fn clean_up(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| name.starts_with("signing-key.")) else { continue };
            let extension = name.rsplit('.').next().unwrap_or_default();
            let is_partial = extension.len() == 16 && extension.bytes().all(|byte| byte.is_ascii_hexdigit());
            let is_revoked = parse(name).is_some_and(|(signs_from, kind)| {
                kind == FileKind::Key && self.file(signs_from, FileKind::Revoked).exists()
            });
            if is_partial || is_revoked {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Creates a key that signs from `signs_from` on.
    pub(super) fn create_key(
        &self,
        _lock: &Lock,
        algorithm: Algorithm,
        signs_from: u64,
    ) -> Result<(), KeyringFault> {
        let (_, pkcs8) = SigningKey::generate(algorithm)?;
        place_once(&self.0, &self.key_file(signs_from), pem(&pkcs8).as_bytes()).map_err(KeyringFault::Write)
    }

    /// Revokes a key that signs or has signed. The revocation is in force when the function returns. After a crash, the
    /// revocation is either complete or absent.
    pub(super) fn revoke(&self, _lock: &Lock, slot: &Slot) -> Result<(), KeyringFault> {
        let content = format!("{}\n", slot.id);
        let path = self.file(slot.signs_from, FileKind::Revoked);
        place_once(&self.0, &path, content.as_bytes()).map_err(KeyringFault::Write)?;
        self.remove_file(slot.signs_from, FileKind::Key)
    }

    /// Removes all files of a key.
    pub(super) fn remove(&self, _lock: &Lock, slot: &Slot) -> Result<(), KeyringFault> {
        // The key is removed first, so that the revocation outlives it.
        self.remove_file(slot.signs_from, FileKind::Key)?;
        self.remove_file(slot.signs_from, FileKind::Revoked)
    }

    fn remove_file(&self, signs_from: u64, kind: FileKind) -> Result<(), KeyringFault> {
        let path = self.file(signs_from, kind);
        remove(&path)
            .and_then(|()| File::open(&self.0)?.sync_all())
            .map_err(|error| KeyringFault::file(&path, FileFault::Remove(error.to_string())))
    }
}

/// Returns the name of a folder entry if it has the form of a key file's name.
fn key_file_name(name: &OsString) -> Option<String> {
    let name = name.to_str()?;
    let is_key_file =
        name.starts_with("signing-key.") && (name.ends_with(".pem") || name.ends_with(".revoked"));
    is_key_file.then(|| name.to_owned())
}

/// Parses a file name into the time from which the key signs, and the kind of the file.
fn parse(name: &str) -> Option<(u64, FileKind)> {
    let rest = name.strip_prefix(STEM)?;
    let (rest, extension) = rest.rsplit_once('.')?;
    let kind = [FileKind::Key, FileKind::Revoked].into_iter().find(|kind| kind.extension() == extension)?;
    match rest {
        "" => Some((0, kind)),
        rest => timestamp::parse_basic(rest.strip_prefix('.')?).map(|time| (time, kind)),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
