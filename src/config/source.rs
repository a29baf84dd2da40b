//! The bytes of a file that the operator named: of a file and nothing else, of a bounded size, as it stood at one
//! moment.
//!
//! Whatever the path leads to, reading ends in bounded time and memory: a pipe without a writer, a device without an
//! end and a file that somebody is writing are refused, each in its own words.

use super::units::ByteSize;
use std::fmt;
use std::fs::{File, FileType, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

/// How often a file is read until two readings in a row agree. With the pauses between them this takes a second: a
/// writer who needs longer has to write beside the file and rename.
const READINGS_MAX: u32 = 12;

/// The pause before the third reading; each one after that waits longer by the same.
const PAUSE: Duration = Duration::from_millis(20);

/// What is wrong with a file, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable {
    /// What is wrong.
    pub(crate) found: String,
    /// What would be right.
    pub(crate) hint: &'static str,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.found)
    }
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        Self { found: error.to_string(), hint: "a file that can be read; --config FILE names another" }
    }
}

/// Reads a whole file of at most this size.
///
/// # Errors
/// When it is no file, is too large, cannot be read, or changes all the while.
pub(crate) fn read(path: &Path, max: ByteSize) -> Result<Vec<u8>, Unreadable> {
    settled(|| once(path, max), std::thread::sleep)
}

/// Reads until two readings in a row agree: one reading of a file that is being written holds a part of what was there
/// and a part of what will be, and half a policy may well be a policy. Times and sizes of files do not tell, since
/// several writes fall into one tick of a file system's clock.
fn settled(
    mut once: impl FnMut() -> Result<Vec<u8>, Unreadable>,
    pause: impl Fn(Duration),
) -> Result<Vec<u8>, Unreadable> {
    let mut before = once()?;
    for reading in 1..READINGS_MAX {
        let now = once()?;
        if now == before {
            return Ok(now);
        }
        before = now;
        pause(PAUSE * reading);
    }
    Err(Unreadable {
        found: "changes while it is read".to_owned(),
        hint: "a file that is written beside this one and renamed over it",
    })
}

fn once(path: &Path, max: ByteSize) -> Result<Vec<u8>, Unreadable> {
    // Looked at before it is opened, since opening a device may set something off.
    only_a_file(std::fs::metadata(path)?.file_type())?;
    // And again once it is open: what the path names may be another thing by now. Opening does not wait for the other
    // end of a pipe, nor reading for what is not there yet.
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).expect("the flags of open(2) are an int");
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    only_a_file(file.metadata()?.file_type())?;
    bounded(&file, max)
}

fn only_a_file(kind: FileType) -> Result<(), Unreadable> {
    let found = match kind {
        _ if kind.is_file() => return Ok(()),
        _ if kind.is_dir() => "a directory, not a file",
        _ if kind.is_fifo() => "a pipe, not a file",
        _ if kind.is_socket() => "a socket, not a file",
        _ => "a device, not a file",
    };
    Err(Unreadable { found: found.to_owned(), hint: "a file; --config FILE names another" })
}

fn bounded(file: &File, max: ByteSize) -> Result<Vec<u8>, Unreadable> {
    let mut bytes = Vec::new();
    // One that is said to be too large is not read up to the bound first.
    if file.metadata()?.len() <= max.as_u64() {
        file.take(max.as_u64() + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 <= max.as_u64() {
            return Ok(bytes);
        }
    }
    Err(Unreadable { found: format!("larger than {max}"), hint: "a smaller file" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn words(words: &[&'static str]) -> impl FnMut() -> Result<Vec<u8>, Unreadable> {
        let mut words = words.to_vec().into_iter();
        move || Ok(words.next().expect("no more readings than there are words").into())
    }

    #[test]
    fn two_readings_in_a_row_have_to_agree() {
        let never = |_| panic!("a file at rest is not waited for");
        assert_eq!(settled(words(&["new", "new"]), never), Ok("new".into()));
        assert_eq!(settled(words(&["old", "o", "new", "new"]), |_| ()), Ok("new".into()));
        assert_eq!(settled(words(&["a", "b", "a", "a"]), |_| ()), Ok("a".into()));
    }

    #[test]
    fn a_file_that_never_rests_is_refused_in_bounded_time() {
        let (readings, waited) = (Cell::new(0_u32), Cell::new(Duration::ZERO));
        let changing = || {
            readings.set(readings.get() + 1);
            Ok(readings.get().to_string().into_bytes())
        };
        let refused = settled(changing, |pause| waited.set(waited.get() + pause));
        assert_eq!(refused.unwrap_err().found, "changes while it is read");
        assert_eq!(readings.get(), READINGS_MAX);
        assert!(waited.get() < Duration::from_secs(2), "{waited:?}");
    }

    #[test]
    fn a_reading_that_fails_is_not_tried_again() {
        let tries = Cell::new(0);
        let failing = || {
            tries.set(tries.get() + 1);
            Err(Unreadable { found: "gone".to_owned(), hint: "" })
        };
        assert_eq!(settled(failing, |_| ()).unwrap_err().found, "gone");
        assert_eq!(tries.get(), 1);
    }

    #[test]
    fn what_is_no_file_is_refused_in_its_own_words() {
        let found = |path: &str| once(Path::new(path), ByteSize::bytes(1)).unwrap_err().found;
        assert_eq!(found("/"), "a directory, not a file");
        assert_eq!(found("/dev/zero"), "a device, not a file");
        assert!(found("/no/such/file").contains("No such file"));
    }
}
