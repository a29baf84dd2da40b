//! Notices that the files of an SQLite database were removed or replaced while the gateway has them open.
//!
//! The gateway would read and write files that no other process sees: a revocation by a command would have no effect, and
//! logins would be lost at the next start.

use super::StoreError;
use super::error::Reason;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The identity of a file: its device and its number on that device.
type Identity = (u64, u64);

/// The file of a database, and its write-ahead log.
#[derive(Clone, Debug)]
pub(super) struct OpenedFile {
    path: PathBuf,
    identity: Identity,
    log: PathBuf,
    /// The log that an open connection uses. SQLite deletes the log when the last connection closes, so it is known only while
    /// a connection is open.
    log_identity: Option<Identity>,
}

impl OpenedFile {
    /// Returns the file at a path that a connection has opened.
    ///
    /// # Errors
    /// Returns an error if the file has been removed since.
    pub(super) fn of(path: PathBuf) -> io::Result<Self> {
        let mut log = OsString::from(&path);
        log.push("-wal");
        Ok(Self { identity: identity(&path)?, path, log: log.into(), log_identity: None })
    }

    /// Records the log of a connection, once it is open.
    pub(super) fn follow_log(&mut self, is_open: bool) {
        let known = self.log_identity.or_else(|| identity(&self.log).ok());
        self.log_identity = known.filter(|_| is_open);
    }

    /// Checks that the paths still lead to the open files. Waits for the file system.
    ///
    /// # Errors
    /// Returns which file was removed or replaced.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let is_same = |path: &Path, known: Identity| identity(path).is_ok_and(|found| found == known);
        let gone = match self.log_identity {
            _ if !is_same(&self.path, self.identity) => &self.path,
            Some(log) if !is_same(&self.log, log) => &self.log,
            Some(_) | None => return Ok(()),
        };
        let why = format!(
            "{} was removed or replaced while the gateway has it open: put it back, or restart the gateway",
            gone.display()
        );
        Err(StoreError::trouble(Reason::Io, why))
    }
}

fn identity(path: &Path) -> io::Result<Identity> {
    fs::metadata(path).map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_both_files_is_noticed_while_it_is_open() {
        let folder = std::env::temp_dir().join(format!("portcullis-opened-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let [path, log, other] = ["f", "f-wal", "other"].map(|name| folder.join(name));
        fs::write(&path, "").unwrap();
        let mut file = OpenedFile::of(path.clone()).unwrap();
        file.check().unwrap();
        file.follow_log(true);
        fs::write(&log, "").unwrap();
        file.check().expect("the log was not there yet");
        file.follow_log(true);
        fs::write(&other, "").unwrap();
        fs::rename(&other, &log).unwrap();
        file.follow_log(true);
        assert!(file.check().unwrap_err().to_string().contains("f-wal was removed or replaced"));
        file.follow_log(false);
        file.check().expect("another connection has another log");

        fs::rename(&path, &other).unwrap();
        assert!(file.check().unwrap_err().to_string().contains("f was removed or replaced"));
        fs::write(&path, "").unwrap();
        assert!(file.check().is_err(), "a new file");
        fs::rename(&other, &path).unwrap();
        file.check().expect("the file was put back");
        fs::remove_dir_all(folder).unwrap();
    }
}
