//! Detects that watched files were replaced, and that the replacement is complete.
//!
//! The files are polled. Kernel notifications depend on how a file is replaced: an editor renames a new file over it,
//! Kubernetes changes a symbolic link to a folder, and some programs write in place. Network file systems send no
//! notifications at all. Polling detects every replacement, and reads only metadata.

use crate::clock::Now;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The time by which the kernel's file timestamps may lag behind the clock, in nanoseconds: one tick.
const TICK: i64 = 10_000_000;
/// The pause before files that could not be read are read again.
pub(super) const AGAIN: Duration = Duration::from_secs(2);

/// The metadata of a file. Symbolic links are followed. `changed` is the `ctime`, which no program can set.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FileState {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// A set of watched files.
#[derive(Debug)]
pub(super) struct FileWatch {
    paths: Vec<PathBuf>,
    /// The state of each file when it was last read.
    known: Vec<Option<FileState>>,
    /// The state of each file at the last poll.
    last: Vec<Option<FileState>>,
    /// When files that could not be read are read again.
    again: Option<Instant>,
}

/// The reason to read the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// They have changed.
    Changed,
    /// They could not be read before.
    Again,
}

impl FileWatch {
    /// Watches files that were read at `since` or later. A file that changed after `since` is reported, because it may
    /// have been read before the change.
    pub(super) fn read_at(paths: Vec<PathBuf>, since: Now) -> Self {
        let nanos = i64::from(since.subsec_nanos) - TICK;
        let seconds = i64::try_from(since.unix).unwrap_or(i64::MAX);
        let since = if nanos < 0 { (seconds - 1, nanos + 1_000_000_000) } else { (seconds, nanos) };
        let last = states(&paths);
        let known = last.iter().map(|seen| seen.clone().filter(|seen| seen.changed < since)).collect();
        Self { paths, known, last, again: None }
    }

    /// Watches files that were read at an unknown time. They are reported once, even if they did not change.
    pub(super) fn unread(paths: Vec<PathBuf>) -> Self {
        Self::read_at(paths, Now::at(0))
    }

    /// Returns whether both watches have the same files.
    pub(super) fn is_same_files(&self, other: &Self) -> bool {
        self.paths == other.paths
    }

    /// Returns why the files are to be read. Reports each change once, when it is complete: two polls in a row saw the same
    /// state.
    pub(super) fn poll(&mut self) -> Option<Due> {
        let seen = states(&self.paths);
        let at_rest = seen == self.last;
        self.last = seen;
        if !at_rest {
            return None;
        }
        if self.last != self.known {
            self.known.clone_from(&self.last);
            self.again = None;
            return Some(Due::Changed);
        }
        self.again.take_if(|at| *at <= Instant::now()).map(|_| Due::Again)
    }

    /// Records whether the files could be read, and otherwise the pause before they are read again. The cause may end
    /// without a change of the files: a lack of file descriptors, a fault of a network folder, or another file.
    pub(super) fn note_read(&mut self, failed: Option<Duration>) {
        self.again = failed.map(|pause| Instant::now() + pause);
    }

    /// Returns whether a file changed since the last poll. A reader may then have got files that do not go together, and the
    /// next polls report the change.
    pub(super) fn has_changed_since(&self) -> bool {
        states(&self.paths) != self.last
    }
}

fn states(paths: &[PathBuf]) -> Vec<Option<FileState>> {
    let state = |path: &PathBuf| {
        // A file that cannot be accessed counts as missing.
        fs::metadata(path).ok().map(|found| FileState {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    };
    paths.iter().map(state).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    /// Polls four times, and returns how many polls reported a change.
    fn changes(watched: &mut FileWatch) -> usize {
        (0..4).filter(|_| watched.poll() == Some(Due::Changed)).count()
    }

    /// The folder of one test, removed when dropped.
    struct Folder(PathBuf);

    impl Folder {
        fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn folder(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("portcullis-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    /// Returns a time after everything that the test has done so far.
    fn later() -> Now {
        let now = Now::read();
        Now { unix: now.unix + 60, ..now }
    }

    #[test]
    fn a_change_between_reading_and_watching_is_noticed() {
        let folder = folder("between");
        let path = folder.path().join("f");
        let moment = Now::read();
        fs::write(&path, "one").unwrap();
        let mut watched = FileWatch::read_at(vec![path.clone()], moment);
        assert_eq!(changes(&mut watched), 1, "it may have been read before it was written");
        let mut watched = FileWatch::read_at(vec![path.clone()], later());
        assert_eq!(changes(&mut watched), 0, "it was read after it was written");
        let mut watched = FileWatch::unread(vec![path]);
        assert_eq!(changes(&mut watched), 1);
    }

    #[test]
    fn each_way_to_replace_a_file_is_seen_once() {
        let folder = folder("replaced");
        let path = folder.path().join("f");
        fs::write(&path, "one").unwrap();
        let mut watched = FileWatch::read_at(vec![path.clone()], later());
        assert_eq!(changes(&mut watched), 0, "nothing happened");

        fs::write(folder.path().join("new"), "two").unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        assert_eq!(changes(&mut watched), 1, "an editor's rename");

        fs::write(&path, "three").unwrap();
        assert_eq!(changes(&mut watched), 1, "written in place");

        fs::remove_file(&path).unwrap();
        assert_eq!(changes(&mut watched), 1, "removed");
        fs::write(&path, "three").unwrap();
        assert_eq!(changes(&mut watched), 1, "come back");

        fs::File::options().write(true).open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(changes(&mut watched), 1, "touched: whether it says anything else, reading it shows");
    }

    #[test]
    fn a_link_that_is_turned_to_another_folder_is_seen() {
        let folder = folder("turned");
        for version in ["..1", "..2"] {
            fs::create_dir(folder.path().join(version)).unwrap();
            fs::write(folder.path().join(version).join("gateway.toml"), "same").unwrap();
        }
        symlink("..1", folder.path().join("..data")).unwrap();
        symlink("..data/gateway.toml", folder.path().join("gateway.toml")).unwrap();
        let mut watched = FileWatch::read_at(vec![folder.path().join("gateway.toml")], later());
        assert_eq!(changes(&mut watched), 0);
        symlink("..2", folder.path().join("..tmp")).unwrap();
        fs::rename(folder.path().join("..tmp"), folder.path().join("..data")).unwrap();
        assert_eq!(changes(&mut watched), 1);
    }

    #[test]
    fn a_file_that_is_still_written_is_not_reported_before_it_rests() {
        let folder = folder("written");
        let path = folder.path().join("f");
        fs::write(&path, "").unwrap();
        let mut watched = FileWatch::read_at(vec![path.clone()], later());
        for length in 1..5 {
            fs::write(&path, "x".repeat(length)).unwrap();
            assert_eq!(watched.poll(), None, "it was other than at the last look");
        }
        assert_eq!(watched.poll(), Some(Due::Changed));
        assert_eq!(watched.poll(), None, "once");
    }

    #[test]
    fn files_that_could_not_be_read_are_reported_again_once_they_rest() {
        let folder = folder("again");
        let path = folder.path().join("f");
        fs::write(&path, "").unwrap();
        let mut watched = FileWatch::read_at(vec![path.clone()], later());
        watched.note_read(Some(Duration::ZERO));
        assert_eq!([watched.poll(), watched.poll()], [Some(Due::Again), None], "once for each attempt");
        watched.note_read(Some(Duration::from_secs(3600)));
        assert_eq!(watched.poll(), None, "after the pause");
        watched.note_read(Some(Duration::ZERO));
        watched.note_read(None);
        assert_eq!(watched.poll(), None, "another attempt succeeded");
        watched.note_read(Some(Duration::ZERO));
        fs::write(&path, "x").unwrap();
        assert_eq!([watched.poll(), watched.poll(), watched.poll()], [None, Some(Due::Changed), None]);
    }

    #[test]
    fn a_change_after_a_poll_is_known_at_once_and_reported_by_a_later_poll() {
        let folder = folder("moved");
        let path = folder.path().join("f");
        fs::write(&path, "").unwrap();
        let mut watched = FileWatch::unread(vec![path.clone()]);
        assert!(watched.poll().is_some() && !watched.has_changed_since());
        fs::write(&path, "x").unwrap();
        assert!(watched.has_changed_since());
        assert_eq!(changes(&mut watched), 1);
        assert!(!watched.has_changed_since());
    }
}
