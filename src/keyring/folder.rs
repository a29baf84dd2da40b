//! The keys as files in the state folder, one file a key: `signing-key.20260131T235959Z.pem` signs from that moment on,
//! and `signing-key.pem` (as the first version made it) from the beginning. Beside it, `.revoked` instead of `.pem` says
//! that the key was taken back; it holds the key's id, and what of the key may still lie there is not looked at.
//!
//! Files are placed whole. Whoever changes the folder holds the lock; whoever reads it needs none.

use super::key::{SigningKey, generate_pem};
use super::ring::Slot;
use crate::authenticate::Algorithm;
use crate::state_dir::place_once;
use crate::timestamp;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the names of all its files begin with.
const STEM: &str = "signing-key";
/// The file that is locked.
const LOCK: &str = "signing-key.lock";
/// As much of a key file as is read: an RSA key of 8192 bits has 6.5 KiB.
const FILE_MAX: u64 = 64 * 1024;
/// As many keys as are read: a ring in use has two or three.
pub(super) const KEYS_MAX: usize = 64;
/// How often a listing is made anew because a file of it was gone when it was read.
const READINGS: usize = 5;

/// The state folder, as far as keys go.
#[derive(Clone, Debug)]
pub(super) struct Folder(PathBuf);

/// What can be seen of a file without reading it. The time of its last change of any kind is among it (`ctime`), which
/// nobody sets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seen {
    name: String,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

/// What a reading found.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// The keys that could be read.
    pub slots: Vec<Slot>,
    /// Those that could not, by the moments from which they sign, and why.
    pub broken: Vec<(u64, String)>,
}

/// What kind of file it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A private key.
    Key,
    /// Says that the key was taken back.
    Revoked,
}

impl Kind {
    const fn extension(self) -> &'static str {
        match self {
            Self::Key => "pem",
            Self::Revoked => "revoked",
        }
    }
}

/// The right to change the folder, until it is dropped or the process ends.
#[derive(Debug)]
pub(super) struct Lock(#[allow(dead_code, reason = "the lock goes when the file is closed")] File);

/// Why there is no lock.
#[derive(Debug)]
pub(super) enum NoLock {
    /// Another process holds it.
    Busy,
    /// A sentence for the operator.
    Broken(String),
}

impl From<NoLock> for String {
    fn from(why: NoLock) -> Self {
        match why {
            NoLock::Busy => "another process is changing the keys and does not end".to_owned(),
            NoLock::Broken(why) => why,
        }
    }
}

impl Folder {
    pub(super) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Whether it is the one of this state folder.
    pub(super) fn is_in(&self, state: &Path) -> bool {
        *self.0 == *state
    }

    /// The file of the key that signs from this moment.
    pub(super) fn key_file(&self, signs_from: u64) -> PathBuf {
        self.file(signs_from, Kind::Key)
    }

    fn file(&self, signs_from: u64, kind: Kind) -> PathBuf {
        let extension = kind.extension();
        self.0.join(match signs_from {
            0 => format!("{STEM}.{extension}"),
            moment => format!("{STEM}.{}.{extension}", timestamp::basic(moment)),
        })
    }

    fn fault(&self, error: &io::Error) -> String {
        format!("{}: {error}", self.0.display())
    }

    /// The files of all keys, in the order of their names. A folder that is not there has none.
    pub(super) fn list(&self) -> Result<Vec<Seen>, String> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.fault(&error)),
        };
        let mode = fs::metadata(&self.0).map_err(|error| self.fault(&error))?.permissions().mode();
        if mode & 0o022 != 0 {
            // Whoever puts a key there could sign as the authority.
            return Err(format!(
                "{}: writable by users other than its owner (mode {:o}): chmod 700 it; or, if the system sets the mode (a volume with \
                 fsGroup), set [state] dir to a folder below it, which the gateway creates",
                self.0.display(),
                mode & 0o7777
            ));
        }
        let mut seen = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| self.fault(&error))?;
            let Some(name) = ours(&entry.file_name()) else { continue };
            // Not the entry's own metadata: a link to a key that lies elsewhere is looked at through.
            let Ok(metadata) = fs::metadata(entry.path()) else {
                seen.push(Seen { name, inode: 0, size: 0, changed: (0, 0) });
                continue;
            };
            seen.push(Seen {
                name,
                inode: metadata.ino(),
                size: metadata.size(),
                changed: (metadata.ctime(), metadata.ctime_nsec()),
            });
        }
        seen.sort();
        Ok(seen)
    }

    /// Reads all keys, and what the folder looked like then.
    ///
    /// # Errors
    /// When the folder cannot be read, or holds too much.
    pub(super) fn read(&self, algorithm: Algorithm) -> Result<(Vec<Seen>, Reading), String> {
        let mut readings = 0;
        loop {
            let seen = self.list()?;
            if seen.len() > 2 * KEYS_MAX {
                return Err(format!("{}: more than {KEYS_MAX} signing keys", self.0.display()));
            }
            let reading = self.read_listed(algorithm, &seen);
            readings += 1;
            // A key that is revoked or removed meanwhile is no fault: look again.
            if reading.broken.is_empty() || readings == READINGS || self.list()? == seen {
                return Ok((seen, reading));
            }
        }
    }

    fn read_listed(&self, algorithm: Algorithm, seen: &[Seen]) -> Reading {
        let mut reading = Reading::default();
        let named: Vec<_> = seen.iter().map(|seen| (seen, parse(&seen.name))).collect();
        for (seen, parsed) in &named {
            let Some((signs_from, kind)) = *parsed else {
                let path = self.0.join(&seen.name);
                let why = "no name of a signing key: signing-key.YYYYMMDDTHHMMSSZ.pem, the moment from which it signs";
                reading.broken.push((u64::MAX, format!("{}: {why}", path.display())));
                continue;
            };
            match kind {
                Kind::Revoked => {
                    let id = self.revoked_id(signs_from).into();
                    reading.slots.push(Slot { signs_from, key: None, id });
                }
                Kind::Key if named.iter().any(|(_, other)| *other == Some((signs_from, Kind::Revoked))) => {}
                Kind::Key => match self.read_key(algorithm, signs_from) {
                    Ok(key) => {
                        let id = key.id().into();
                        reading.slots.push(Slot { signs_from, key: Some(Arc::new(key)), id });
                    }
                    Err(why) => reading.broken.push((signs_from, why)),
                },
            }
        }
        self.refuse_twins(&mut reading);
        reading
    }

    /// The same key in two files would be two of one id, of which a verifier could use neither, and nobody can say which
    /// moment is its own; and what was taken back does not come back under another name.
    fn refuse_twins(&self, reading: &mut Reading) {
        let known: Vec<_> =
            reading.slots.iter().map(|s| (s.signs_from, s.key.is_some(), s.id.clone())).collect();
        reading.slots.retain(|slot| {
            let twin =
                known.iter().find(|(signs_from, _, id)| *id == slot.id && *signs_from != slot.signs_from);
            let (Some(_), Some((signs_from, usable, _))) = (&slot.key, twin) else { return true };
            let kind = if *usable { Kind::Key } else { Kind::Revoked };
            let mut files = [self.key_file(slot.signs_from), self.file(*signs_from, kind)];
            // Of two that are each other's twin the same is told.
            files.sort();
            let why = format!("{} and {}: one and the same key", files[0].display(), files[1].display());
            reading.broken.push((slot.signs_from, why));
            false
        });
    }

    fn read_key(&self, algorithm: Algorithm, signs_from: u64) -> Result<SigningKey, String> {
        let path = self.key_file(signs_from);
        let fault = |error: io::Error| format!("{}: {error}", path.display());
        // One handle, so that the file whose mode is looked at is the file that is read.
        let file = File::open(&path).map_err(fault)?;
        let metadata = file.metadata().map_err(fault)?;
        if !metadata.is_file() {
            return Err(format!("{}: not a file", path.display()));
        }
        let mode = metadata.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(format!(
                "{}: readable by users other than its owner (mode {:o}): chmod 600 it, and revoke it if others may have read it",
                path.display(),
                mode & 0o777
            ));
        }
        let mut pem = zeroize::Zeroizing::new(Vec::new());
        file.take(FILE_MAX).read_to_end(&mut pem).map_err(fault)?;
        SigningKey::from_pem(algorithm, &pem).map_err(|why| format!("{}: {why}", path.display()))
    }

    /// The id of a key that was taken back, if its file says one.
    fn revoked_id(&self, signs_from: u64) -> String {
        let mut text = String::new();
        let read = File::open(self.file(signs_from, Kind::Revoked))
            .and_then(|file| file.take(128).read_to_string(&mut text));
        let id = text.lines().next().unwrap_or_default();
        let sound = !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        if read.is_ok() && sound { id.to_owned() } else { "unknown".to_owned() }
    }

    /// Waits for so long for the right to change the folder, which is made if it is not there. What a process left
    /// unfinished that ended while it had that right is cleared away.
    pub(super) fn lock(&self, patience: Duration) -> Result<Lock, NoLock> {
        let path = self.0.join(LOCK);
        let fault = |error: io::Error| NoLock::Broken(format!("{}: {error}", path.display()));
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0).map_err(fault)?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(fault)?;
        let deadline = Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(TryLockError::WouldBlock) => return Err(NoLock::Busy),
                Err(TryLockError::Error(error)) => return Err(fault(error)),
            }
        }
        self.clear().map_err(fault)?;
        Ok(Lock(file))
    }

    /// Removes halves of files, and private keys that were taken back: a private key that nobody needs must not lie about.
    fn clear(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| name.starts_with("signing-key.")) else { continue };
            let extension = name.rsplit('.').next().unwrap_or_default();
            let partial = extension.len() == 16 && extension.bytes().all(|byte| byte.is_ascii_hexdigit());
            let revoked = parse(name).is_some_and(|(signs_from, kind)| {
                kind == Kind::Key && self.file(signs_from, Kind::Revoked).exists()
            });
            if partial || revoked {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Makes a key that signs from this moment on.
    pub(super) fn make(&self, _lock: &Lock, algorithm: Algorithm, signs_from: u64) -> Result<(), String> {
        place_once(&self.0, &self.key_file(signs_from), generate_pem(algorithm)?.as_bytes())
    }

    /// Takes a key back that signs, or has signed. It is in force when this returns, and after a crash either done or not.
    pub(super) fn revoke(&self, _lock: &Lock, slot: &Slot) -> Result<(), String> {
        let content = format!("{}\n", slot.id);
        place_once(&self.0, &self.file(slot.signs_from, Kind::Revoked), content.as_bytes())?;
        self.remove_file(slot.signs_from, Kind::Key)
    }

    /// Removes all that is there of a key.
    pub(super) fn remove(&self, _lock: &Lock, slot: &Slot) -> Result<(), String> {
        // In this order: the word that a key was taken back outlives the key.
        self.remove_file(slot.signs_from, Kind::Key)?;
        self.remove_file(slot.signs_from, Kind::Revoked)
    }

    fn remove_file(&self, signs_from: u64, kind: Kind) -> Result<(), String> {
        let path = self.file(signs_from, kind);
        remove(&path)
            .and_then(|()| File::open(&self.0)?.sync_all())
            .map_err(|error| format!("{}: cannot be removed: {error}", path.display()))
    }
}

/// The name of a file that says something of a key.
fn ours(name: &OsString) -> Option<String> {
    let name = name.to_str()?;
    let ours = name.starts_with("signing-key.") && (name.ends_with(".pem") || name.ends_with(".revoked"));
    ours.then(|| name.to_owned())
}

/// From which moment on the key of a file signs, and what kind of file it is.
fn parse(name: &str) -> Option<(u64, Kind)> {
    let rest = name.strip_prefix(STEM)?;
    let (rest, extension) = rest.rsplit_once('.')?;
    let kind = [Kind::Key, Kind::Revoked].into_iter().find(|kind| kind.extension() == extension)?;
    match rest {
        "" => Some((0, kind)),
        rest => timestamp::parse_basic(rest.strip_prefix('.')?).map(|moment| (moment, kind)),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
