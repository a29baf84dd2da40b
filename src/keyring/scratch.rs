//! A temporary state folder for one test. The folder is removed when the test ends.

use super::{KeyStorage, Keyring, KeyringFault, MissingKey, Schedule};
use crate::authenticate::Algorithm;
use crate::clock::Now;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The time at which most tests begin, in seconds since 1970.
pub(super) const START: u64 = 1_795_425_361;
/// The name of the file of a key that is created at [`START`].
pub(super) const FIRST: &str = "signing-key.20261123T091601Z.pem";

pub(super) struct Scratch(pub PathBuf);

impl Scratch {
    /// Returns the path of a folder that does not exist yet.
    pub(super) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name =
            format!("portcullis-keyring-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self(std::env::temp_dir().join(name))
    }

    /// Writes a file with the modes that the gateway uses.
    pub(super) fn place(&self, name: &str, content: &str) {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0).unwrap();
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.0.join(name)).unwrap();
        file.write_all(content.as_bytes()).unwrap();
    }

    /// Returns the names of all files except the lock file, in order.
    pub(super) fn files(&self) -> Vec<String> {
        let names =
            fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name != "signing-key.lock").collect();
        names.sort();
        names
    }

    pub(super) fn try_open(&self, now: u64) -> Result<Keyring, KeyringFault> {
        let schedule = Schedule {
            access_expires: Duration::from_secs(900),
            rotate_keys: Duration::from_secs(30 * 86_400),
        };
        let now = Now::at(now);
        Keyring::open_at(KeyStorage::Folder(&self.0), Algorithm::EdDSA, None, MissingKey::Create, now)
            .map(|keyring| keyring.with_schedule_at(schedule, now))
    }

    pub(super) fn open(&self, now: u64) -> Keyring {
        self.try_open(now).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
