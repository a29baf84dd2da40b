//! A temporary folder for one test.

use std::fs::{OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A temporary folder, removed when dropped.
#[derive(Debug)]
pub struct Dir(PathBuf);

impl Dir {
    /// Creates an empty folder.
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("portcullis-it-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("the name is this process's own");
        Self(path)
    }

    /// Returns the path of the folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Replaces a file atomically: writes the content under another name, then renames it over the old file.
    pub fn replace(&self, name: &str, content: impl AsRef<[u8]>) {
        let beside = format!("{name}.new");
        self.write(&beside, content);
        std::fs::rename(self.0.join(beside), self.0.join(name)).expect("both are in the test's own folder");
    }

    /// Writes a file that only this user may read, because it may contain a secret.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.0.join(name))
            .expect("a test may write into its own folder");
        file.write_all(content.as_ref()).expect("a test may write into its own folder");
    }

    /// Sets the mode of a file or subfolder.
    pub fn set_mode(&self, name: &str, mode: u32) {
        std::fs::set_permissions(self.0.join(name), Permissions::from_mode(mode))
            .expect("a test may change its own files");
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
