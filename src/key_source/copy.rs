//! The copy of the last good key set on disk. A gateway can start with the copy while the key server is down.
//!
//! The copy is used only for the issuer and the URL that it was fetched from, and only up to the maximum age since its
//! fetch. The copy is as trusted as the signing keys, which are in the same folder.

use super::{Location, Owner, SourceSettings};
use crate::clock::Now;
use crate::config::stable_file;
use crate::config::units::ByteSize;
use crate::hex;
use crate::state_dir;
use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, DirEntry};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The folder of the copies, in the state folder.
const FOLDER: &str = "issuer-keys";
/// The maximum size of a copy. A set of 1 MiB grows when it is escaped as JSON.
const COPY_MAX: ByteSize = ByteSize::bytes(8 << 20);
/// The age at which a copy that does not say its maximum age is deleted: the greatest maximum age that a policy may set.
const AGE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// The number of files that are looked at for deletion.
const FILES_MAX: usize = 10_000;

/// A set on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    /// The name of the owner.
    issuer: String,
    /// Whether the owner is a transmitter of signals.
    #[serde(default)]
    of_signals: bool,
    location: String,
    /// The time at which the set was fetched or confirmed, in seconds since 1970.
    pub(super) fetched: u64,
    /// The maximum age in the policy that wrote the copy, in seconds.
    #[serde(default)]
    max_age: Option<u64>,
    /// The time at which each key was first seen, in seconds since 1970.
    pub(super) first_seen: BTreeMap<String, u64>,
    /// The text of the set.
    pub(super) body: String,
}

impl Copy {
    /// Returns the path of the copy for an owner and a location.
    pub fn path(state: &Path, owner: &Owner, location: &Location) -> PathBuf {
        let kind = if owner.is_of_signals() { "signals\n" } else { "" };
        let name = digest(&SHA256, format!("{kind}{}\n{location:?}", owner.name()).as_bytes());
        state.join(FOLDER).join(format!("{}.json", hex::text(&name.as_ref()[..16])))
    }

    /// Creates a copy; `None` if the set is not UTF-8.
    pub fn new(
        settings: &SourceSettings,
        body: &[u8],
        fetched: u64,
        first_seen: BTreeMap<String, u64>,
    ) -> Option<Self> {
        Some(Self {
            issuer: settings.owner.name().to_owned(),
            of_signals: settings.owner.is_of_signals(),
            location: settings.location.to_string(),
            fetched,
            max_age: Some(settings.max_age.as_secs()),
            first_seen,
            body: std::str::from_utf8(body).ok()?.to_owned(),
        })
    }

    /// Returns the name of a key in `first_seen`.
    pub fn key_name(id: Option<&str>, algorithm: &str) -> String {
        format!("{algorithm} {}", id.unwrap_or_default())
    }

    /// Reads the copy of a source. Ignores a copy that is missing, damaged, from another source or from the future. The
    /// first fetch replaces such a copy.
    pub(super) fn read(settings: &SourceSettings, now: Now) -> Option<Self> {
        let bytes = stable_file::read(&settings.copy, COPY_MAX).ok()?;
        let copy: Self = serde_json::from_slice(&bytes).ok()?;
        (copy.is_of(settings) && copy.fetched <= now.unix).then_some(copy)
    }

    /// Returns whether the set is from this source.
    pub(super) fn is_of(&self, settings: &SourceSettings) -> bool {
        let is_owner =
            self.issuer == settings.owner.name() && self.of_signals == settings.owner.is_of_signals();
        is_owner && self.location == settings.location.to_string()
    }

    /// Writes the copy atomically.
    ///
    /// # Errors
    /// Returns a sentence for the operator.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        let text = serde_json::to_vec(self).map_err(|error| error.to_string())?;
        state_dir::replace(path, &text)
    }
}

/// Deletes copies of sources that are not in `kept` and that are older than their maximum age, and returns their number.
/// Nobody could use such a copy. Another gateway with the same folder and another policy writes its copies with each
/// fetch, so they are not that old.
///
/// # Errors
/// A sentence for the operator.
pub fn delete_old(state: &Path, kept: &[PathBuf], now: Now) -> Result<usize, String> {
    let folder = state.join(FOLDER);
    let fault = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(fault(&folder, error)),
    };
    let mut deleted = 0;
    for entry in entries.take(FILES_MAX).flatten() {
        let path = entry.path();
        if kept.contains(&path) || !is_copy(&entry) || !is_old(&entry, now) {
            continue;
        }
        match fs::remove_file(&path) {
            Ok(()) => deleted += 1,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(fault(&path, error)),
        }
    }
    Ok(deleted)
}

/// Returns whether a file has the name of a copy.
fn is_copy(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(".json")) else { return false };
    let is_digest = stem.len() == 32 && stem.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_digest && entry.file_type().is_ok_and(|kind| kind.is_file())
}

/// Returns whether a copy is older than its maximum age. The age of a file that cannot be read as a copy counts from its
/// last change.
fn is_old(entry: &DirEntry, now: Now) -> bool {
    let bytes = stable_file::read(&entry.path(), COPY_MAX).ok();
    let (changed, age) = match bytes.and_then(|bytes| serde_json::from_slice::<Copy>(&bytes).ok()) {
        Some(copy) => (copy.fetched, copy.max_age.map_or(AGE_MAX, Duration::from_secs)),
        None => {
            let changed = entry.metadata().ok().and_then(|data| data.modified().ok());
            let since = changed.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
            (since.map_or(u64::MAX, |since| since.as_secs()), AGE_MAX)
        }
    };
    now.unix >= changed.saturating_add(age.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_copies_that_nobody_can_use_are_deleted() {
        let state = std::env::temp_dir().join(format!("portcullis-copies-{}", std::process::id()));
        let folder = state.join(FOLDER);
        fs::create_dir_all(&folder).unwrap();
        let now = Now::read();
        let digit = std::cell::Cell::new(0);
        let named = || {
            digit.set(digit.get() + 1);
            folder.join(format!("{:032x}.json", digit.get()))
        };
        let write = |path: PathBuf, fetched: u64, max_age: Option<u64>| {
            let text = serde_json::json!({
                "issuer": "https://id.test", "location": "x", "fetched": fetched, "max_age": max_age,
                "first_seen": {}, "body": "{}",
            });
            fs::write(&path, text.to_string()).unwrap();
            path
        };
        let kept = write(named(), now.unix - 7200, Some(3600));
        let old = write(named(), now.unix - 3600, Some(3600));
        let old_unnamed = write(named(), now.unix - 30 * 24 * 3600, None);
        let stays = [
            kept.clone(),
            write(named(), now.unix - 3590, Some(3600)),
            write(named(), now.unix - 86_400, None),
            write(folder.join("notes.json"), 0, Some(1)),
            write(folder.join(format!("{}.json", "A".repeat(32))), 0, Some(1)),
        ];
        let damaged = named();
        fs::write(&damaged, "{").unwrap();
        let inside = folder.join(format!("{}.json", "0".repeat(32)));
        fs::create_dir(&inside).unwrap();
        assert_eq!(delete_old(&state, &[kept], now), Ok(2));
        assert!(!old.exists() && !old_unnamed.exists());
        assert!(stays.iter().all(|path| path.exists()) && damaged.exists() && inside.exists());
        assert_eq!(delete_old(&state.join("missing"), &[], now), Ok(0));
        fs::remove_dir_all(&state).unwrap();
    }
}
