//! The file that stores the marks of signals if the policy has no `[authority]` with a store.
//!
//! The file has a header and records of one size. A mark is in force, and its signal confirmed, only after the record
//! is on the disk. A writer holds the lock and first reads the records that other processes have appended. All other
//! gateways with the same state folder poll the file. If most records have expired, a new file replaces the file
//! atomically.
//!
//! A crash can leave only the last record incomplete. Its signal was not confirmed, so the record is cut off. A damaged
//! record before an intact one means that the disk has lost a mark. The file is then rejected and not repaired.

use crate::authenticate::{MARK_DIGEST_BYTES, SignalMark, SignalMarks, digest_of};
use crate::state_dir::{self, Lock, LockFault};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The name of the file in the state folder.
const NAME: &str = "signal-marks";
const LOCK: &str = "signal-marks.lock";
const NEW: &str = "signal-marks.new";
/// The time that a writer waits for the lock. Each holder only writes a batch.
const PATIENCE: Duration = Duration::from_secs(10);
/// The first bytes of the file.
const HEADER: &[u8; 16] = b"portcullis-sig1\n";
/// The size of a record: the digest, `before`, `until`, and a checksum of these three.
const RECORD: usize = MARK_DIGEST_BYTES + 4 + 4 + CHECK;
const CHECK: usize = 4;
/// The number of records that are read at once.
const PAGE: usize = 4096;
/// The minimum number of records in a file that is replaced.
const COMPACTED_MIN: usize = 65_536;

/// The file of a state folder, and the marks that were read from it.
#[derive(Debug)]
pub(super) struct MarkFile {
    folder: PathBuf,
    marks: Arc<SignalMarks>,
    open: Option<Open>,
}

/// The file that was read last.
#[derive(Debug)]
struct Open {
    file: File,
    inode: u64,
    /// The number of bytes that were read or written by this process.
    read: u64,
}

/// Reads the marks of a state folder and changes nothing there, because a gateway may be writing the file. A folder
/// without the file has no marks.
pub(super) fn read_only(folder: &Path, marks: &SignalMarks) -> io::Result<()> {
    let file = match File::open(folder.join(NAME)) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    let mut open = Open { file, inode: 0, read: 0 };
    read_header(&mut open)?;
    read_records(&mut open, length, marks)
}

/// Returns whether a state folder has the file.
pub(super) fn exists(folder: &Path) -> bool {
    folder.join(NAME).exists()
}

impl MarkFile {
    /// Opens or creates the file, and adds its marks to `marks`.
    pub(super) fn open(folder: &Path, marks: Arc<SignalMarks>) -> Result<Self, String> {
        let mut this = Self { folder: folder.to_owned(), marks, open: None };
        let opened = this.lock().and_then(|_lock| this.catch_up());
        opened.map_err(|error| format!("{}: {error}", folder.join(NAME).display()))?;
        Ok(this)
    }

    /// Appends marks and waits until they are on the disk. The marks are then in force.
    pub(super) fn append(&mut self, marks: &[SignalMark]) -> io::Result<()> {
        let _lock = self.lock()?;
        self.catch_up()?;
        let records: Vec<u8> = marks.iter().flat_map(record).collect();
        let open = self.open.as_mut().ok_or_else(gone)?;
        let written = open
            .file
            .seek(SeekFrom::Start(open.read))
            .and_then(|_| open.file.write_all(&records))
            .and_then(|()| open.file.sync_data());
        if let Err(error) = written {
            // The signals were not confirmed. If the truncation fails too, the next writer cuts the records off.
            let _ = open.file.set_len(open.read);
            return Err(error);
        }
        open.read += records.len() as u64;
        marks.iter().for_each(|mark| self.marks.mark(mark));
        if self.records() > COMPACTED_MIN.saturating_add(2 * self.marks.len()) {
            self.compact()?;
        }
        Ok(())
    }

    /// Adds the marks of other processes, if the file has changed.
    pub(super) fn poll(&mut self) -> io::Result<()> {
        let known = self.open.as_ref().map(|open| (open.inode, open.read));
        let found = fs::metadata(self.folder.join(NAME)).map(|found| (found.ino(), found.len()));
        match found {
            Ok(found) if known == Some(found) => Ok(()),
            Ok(_) | Err(_) => {
                let _lock = self.lock()?;
                self.catch_up()
            }
        }
    }

    fn records(&self) -> usize {
        let bytes = self.open.as_ref().map_or(0, |open| open.read.saturating_sub(HEADER.len() as u64));
        usize::try_from(bytes).unwrap_or(usize::MAX) / RECORD
    }

    fn lock(&self) -> io::Result<Lock> {
        state_dir::lock(&self.folder.join(LOCK), PATIENCE).map_err(|fault| match fault {
            LockFault::Held => io::Error::new(ErrorKind::TimedOut, "another process holds the lock"),
            LockFault::Io(error) => error,
        })
    }

    /// Reads the records that other processes have appended. The caller holds the lock.
    fn catch_up(&mut self) -> io::Result<()> {
        let path = self.folder.join(NAME);
        let current = match fs::metadata(&path) {
            Ok(found) => Some(found.ino()),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if current.is_none() {
            // The file is new, or somebody has removed it. In both cases the marks in memory are complete.
            self.compact()?;
        }
        let current = fs::metadata(&path)?.ino();
        if self.open.as_ref().is_none_or(|open| open.inode != current) {
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            let inode = file.metadata()?.ino();
            self.open = Some(Open { file, inode, read: 0 });
        }
        let open = self.open.as_mut().ok_or_else(gone)?;
        let length = open.file.metadata()?.len();
        if length < open.read {
            return Err(damaged("the file is shorter than before"));
        }
        open.file.seek(SeekFrom::Start(open.read))?;
        if open.read == 0 {
            read_header(open)?;
        }
        read_records(open, length, &self.marks)?;
        if open.read < length {
            // The rest is an incomplete record whose writer has crashed, because this process holds the lock.
            open.file.set_len(open.read)?;
            open.file.sync_all()?;
        }
        Ok(())
    }

    /// Writes a new file with the marks in memory, and replaces the file. The caller holds the lock.
    fn compact(&mut self) -> io::Result<()> {
        let (path, new) = (self.folder.join(NAME), self.folder.join(NEW));
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        let mut bytes = HEADER.to_vec();
        self.marks.for_each(|mark| bytes.extend_from_slice(&record(&mark)));
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(&self.folder)?.sync_all()?;
        let inode = file.metadata()?.ino();
        self.open = Some(Open { file, inode, read: bytes.len() as u64 });
        Ok(())
    }
}

fn read_header(open: &mut Open) -> io::Result<()> {
    let mut header = [0; HEADER.len()];
    open.file.read_exact(&mut header).map_err(|_| damaged("no header"))?;
    if header != *HEADER {
        return Err(damaged("not a file of marks, or of another version"));
    }
    open.read = HEADER.len() as u64;
    Ok(())
}

/// Reads the complete records up to `length`.
fn read_records(open: &mut Open, length: u64, marks: &SignalMarks) -> io::Result<()> {
    let mut page = vec![0; PAGE * RECORD];
    let mut is_cut = false;
    let mut position = open.read;
    while position + RECORD as u64 <= length {
        let wanted = usize::try_from(length - position).unwrap_or(usize::MAX).min(page.len());
        let wanted = wanted - wanted % RECORD;
        let page = &mut page[..wanted];
        open.file.read_exact(page)?;
        for bytes in page.as_chunks::<RECORD>().0 {
            position += RECORD as u64;
            match mark_of(bytes) {
                Some(_) if is_cut => return Err(damaged("a damaged record before a good one")),
                Some(mark) => {
                    marks.mark(&mark);
                    open.read = position;
                }
                None => is_cut = true,
            }
        }
    }
    Ok(())
}

fn record(mark: &SignalMark) -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    let (digest, rest) = bytes.split_at_mut(MARK_DIGEST_BYTES);
    digest.copy_from_slice(&mark.digest);
    rest[..4].copy_from_slice(&mark.before.to_le_bytes());
    rest[4..8].copy_from_slice(&mark.until.to_le_bytes());
    let check = check(&bytes);
    bytes[RECORD - CHECK..].copy_from_slice(&check);
    bytes
}

fn mark_of(bytes: &[u8; RECORD]) -> Option<SignalMark> {
    if bytes[RECORD - CHECK..] != check(bytes) {
        return None;
    }
    let (digest, rest) = bytes.split_first_chunk()?;
    let (before, rest) = rest.split_first_chunk()?;
    let (until, _) = rest.split_first_chunk()?;
    let (before, until) = (u32::from_le_bytes(*before), u32::from_le_bytes(*until));
    Some(SignalMark { digest: *digest, before, until })
}

fn check(record: &[u8; RECORD]) -> [u8; CHECK] {
    let digest = digest_of(&record[..RECORD - CHECK]);
    [digest[0], digest[1], digest[2], digest[3]]
}

fn damaged(why: &str) -> io::Error {
    io::Error::new(
        ErrorKind::InvalidData,
        format!("damaged ({why}): restore it, or remove it if the tokens that it revoked have expired"),
    )
}

fn gone() -> io::Error {
    io::Error::other("not open")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authenticate::{MarkedClaim, Signalled};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A folder that is removed at the end of the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            static COUNT: AtomicUsize = AtomicUsize::new(0);
            let name = format!(
                "portcullis-signals-{}-{}",
                std::process::id(),
                COUNT.fetch_add(1, Ordering::Relaxed)
            );
            Self(std::env::temp_dir().join(name))
        }

        fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn mark(value: &str) -> SignalMark {
        SignalMark { digest: MarkedClaim::Subject.digest("i", value), before: 100, until: 1000 }
    }

    fn open(folder: &Path) -> Result<(MarkFile, Arc<SignalMarks>), String> {
        let marks = Arc::new(SignalMarks::default());
        MarkFile::open(folder, marks.clone()).map(|file| (file, marks))
    }

    fn is_revoked(marks: &SignalMarks, subject: &str) -> bool {
        marks.admit(&Signalled::new("i", Some(subject), None, None, 100)).is_err()
    }

    #[test]
    fn marks_are_back_after_a_restart() {
        let folder = Folder::new();
        let (mut file, marks) = open(folder.path()).unwrap();
        file.append(&[mark("ada"), mark("bob")]).unwrap();
        assert!(is_revoked(&marks, "ada") && !is_revoked(&marks, "eve"));
        let (_, again) = open(folder.path()).unwrap();
        assert!(is_revoked(&again, "ada") && is_revoked(&again, "bob") && !is_revoked(&again, "eve"));
        assert_eq!(again.len(), 2);
        let mode = fs::metadata(folder.path().join(NAME)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn processes_with_one_folder_see_the_marks_of_each_other() {
        let folder = Folder::new();
        let (mut one, of_one) = open(folder.path()).unwrap();
        let (mut other, of_other) = open(folder.path()).unwrap();
        one.append(&[mark("ada")]).unwrap();
        other.append(&[mark("bob")]).unwrap();
        assert!(is_revoked(&of_other, "ada"));
        one.poll().unwrap();
        assert!(is_revoked(&of_one, "bob"));
        // A replaced file is noticed, and nothing is lost.
        one.compact().unwrap();
        one.append(&[mark("eve")]).unwrap();
        other.poll().unwrap();
        other.append(&[mark("joe")]).unwrap();
        let (_, again) = open(folder.path()).unwrap();
        assert!(["ada", "bob", "eve", "joe"].iter().all(|name| is_revoked(&again, name)));
    }

    #[test]
    fn an_end_that_was_not_written_is_cut_off_and_damage_before_it_is_not_repaired() {
        let folder = Folder::new();
        let path = folder.path().join(NAME);
        let (mut file, _) = open(folder.path()).unwrap();
        file.append(&[mark("ada"), mark("bob"), mark("eve")]).unwrap();
        let whole = fs::read(&path).unwrap();
        for cut in 1..RECORD {
            fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            let (mut file, marks) = open(folder.path()).unwrap();
            assert_eq!(marks.len(), 2, "{cut}");
            file.append(&[mark("joe")]).unwrap();
            assert_eq!(open(folder.path()).unwrap().1.len(), 3);
        }
        for at in [0, HEADER.len() + 1, HEADER.len() + RECORD + 20] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            assert!(open(folder.path()).unwrap_err().contains("damaged"), "{at}");
        }
        fs::write(&path, b"").unwrap();
        assert!(open(folder.path()).is_err());
    }

    #[test]
    fn a_file_of_expired_records_is_replaced() {
        let folder = Folder::new();
        let (mut file, marks) = open(folder.path()).unwrap();
        let many: Vec<_> = (0..COMPACTED_MIN + 8).map(|n| mark(&n.to_string())).collect();
        file.append(&many).unwrap();
        marks.forget(1000);
        let later = SignalMark { until: 2000, ..mark("ada") };
        file.append(&[later]).unwrap();
        assert_eq!(file.records(), 1);
        let (file, again) = open(folder.path()).unwrap();
        assert_eq!((file.records(), again.len()), (1, 1));
        assert!(is_revoked(&again, "ada"));
    }

    #[test]
    fn a_removed_file_is_written_again_from_memory() {
        let folder = Folder::new();
        let (mut file, _) = open(folder.path()).unwrap();
        file.append(&[mark("ada")]).unwrap();
        fs::remove_file(folder.path().join(NAME)).unwrap();
        file.append(&[mark("bob")]).unwrap();
        assert_eq!(open(folder.path()).unwrap().1.len(), 2);
    }
}
