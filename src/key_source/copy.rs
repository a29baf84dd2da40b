//! The copy of the last good key set on disk. A gateway can start with the copy while the key server is down.
//!
//! The copy is used only for the issuer and the URL that it was fetched from, and only up to the maximum age since its
//! fetch. The copy is as trusted as the signing keys, which are in the same folder.

use super::{Location, SourceSettings};
use crate::clock::Now;
use crate::config::stable_file;
use crate::config::units::ByteSize;
use crate::hex;
use crate::state_dir;
use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The folder of the copies, in the state folder.
const FOLDER: &str = "issuer-keys";
/// The maximum size of a copy. A set of 1 MiB grows when it is escaped as JSON.
const COPY_MAX: ByteSize = ByteSize::bytes(8 << 20);

/// A set on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    issuer: String,
    location: String,
    /// The time at which the set was fetched or confirmed, in seconds since 1970.
    pub(super) fetched: u64,
    /// The time at which each key was first seen, in seconds since 1970.
    pub(super) first_seen: BTreeMap<String, u64>,
    /// The text of the set.
    pub(super) body: String,
}

impl Copy {
    /// Returns the path of the copy for an issuer and a location.
    pub fn path(state: &Path, issuer: &str, location: &Location) -> PathBuf {
        let name = digest(&SHA256, format!("{issuer}\n{location:?}").as_bytes());
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
            issuer: settings.issuer.to_string(),
            location: settings.location.to_string(),
            fetched,
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
        let is_ours = copy.issuer == *settings.issuer && copy.location == settings.location.to_string();
        (is_ours && copy.fetched <= now.unix).then_some(copy)
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
