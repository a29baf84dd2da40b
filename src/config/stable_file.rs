//! Reads a regular file of bounded size in a consistent state.
//!
//! Reading takes bounded time and memory for every kind of file. Pipes, devices and files that keep changing are
//! rejected.

use super::units::ByteSize;
use std::fmt;
use std::fs::{FileType, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

/// Maximum number of readings of a file. With the pauses, they take more than a second. A program that writes the file
/// more slowly must write another file and rename it.
const READINGS_MAX: u32 = 12;

/// The pause before the second reading of a recently written file. Each further pause is longer by this duration.
const PAUSE: Duration = Duration::from_millis(20);

/// The age below which a program may still be writing the file.
const JUST_NOW: Duration = Duration::from_secs(1);

/// One reading of a file.
struct Reading {
    bytes: Vec<u8>,
    /// Whether the file was written recently.
    fresh: bool,
}

/// The reason why a file cannot be read, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable {
    /// The reason.
    pub(crate) found: String,
    /// The remedy.
    pub(crate) hint: &'static str,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.found)
    }
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => {
                "name another file with --config FILE; portcullis init writes one to begin with"
            }
            _ => "make the file readable, or name another with --config FILE",
        };
        Self { found: error.to_string(), hint }
    }
}

/// Reads a whole file of at most `max` bytes.
///
/// # Errors
/// Returns an error if the file is not regular, is too large, cannot be read, or keeps changing.
pub(crate) fn read(path: &Path, max: ByteSize) -> Result<Vec<u8>, Unreadable> {
    #[expect(clippy::disallowed_methods, reason = "policies are read at start and on a blocking thread")]
    let pause = std::thread::sleep;
    settled(|| once(path, max), pause)
}

/// Reads a file until two consecutive readings agree. A reading during a write may mix old and new content, and half a
/// policy may be valid.
///
/// Modification time and size are not enough: several writes may occur within one tick of the file system's clock.
fn settled(
    mut once: impl FnMut() -> Result<Reading, Unreadable>,
    pause: impl Fn(Duration),
) -> Result<Vec<u8>, Unreadable> {
    let mut before = once()?;
    for reading in 1..READINGS_MAX {
        // If the file was not written recently, the second reading follows without a pause.
        if before.fresh || reading > 1 {
            pause(PAUSE * reading);
        }
        let now = once()?;
        if now.bytes == before.bytes {
            return Ok(now.bytes);
        }
        before = now;
    }
    Err(Unreadable {
        found: "changes while it is read".to_owned(),
        hint: "write the new file beside this one and rename it over this one",
    })
}

fn once(path: &Path, max: ByteSize) -> Result<Reading, Unreadable> {
    // Opening a device may have side effects, so the type is checked first.
    only_a_file(std::fs::metadata(path)?.file_type())?;
    // The path may have been replaced since, so the type is checked again on the open file. With NONBLOCK, opening and
    // reading do not wait for the writer of a pipe.
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).expect("the flags of open(2) are an int");
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let about = file.metadata()?;
    only_a_file(about.file_type())?;
    // A file above the maximum size is not read.
    if about.len() > max.as_u64() {
        return Err(too_large(max));
    }
    let mut bytes = Vec::new();
    file.take(max.as_u64() + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max.as_u64() {
        return Err(too_large(max));
    }
    // A modification time in the future is from another clock, and is not recent.
    let fresh = about.modified()?.elapsed().is_ok_and(|age| age < JUST_NOW);
    Ok(Reading { bytes, fresh })
}

fn only_a_file(kind: FileType) -> Result<(), Unreadable> {
    let found = match kind {
        _ if kind.is_file() => return Ok(()),
        _ if kind.is_dir() => "a directory, not a file",
        _ if kind.is_fifo() => "a pipe, not a file",
        _ if kind.is_socket() => "a socket, not a file",
        _ => "a device, not a file",
    };
    Err(Unreadable { found: found.to_owned(), hint: "name a regular file with --config FILE" })
}

fn too_large(max: ByteSize) -> Unreadable {
    Unreadable { found: format!("larger than {max}"), hint: "use a smaller file" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    type Script = &'static [(&'static str, bool)];

    /// Returns the result of reading a file with these contents in turn, and the pauses in milliseconds.
    fn script(readings: Script) -> (Result<Vec<u8>, Unreadable>, Vec<u128>) {
        let mut readings = readings.iter();
        let once = || match readings.next() {
            Some((bytes, fresh)) => Ok(Reading { bytes: (*bytes).into(), fresh: *fresh }),
            None => Err(Unreadable { found: "gone".to_owned(), hint: "" }),
        };
        let waited = RefCell::new(Vec::new());
        let read = settled(once, |pause| waited.borrow_mut().push(pause.as_millis()));
        (read, waited.into_inner())
    }

    #[test]
    fn two_readings_in_a_row_have_to_agree() {
        let read = |bytes: &str| Ok(bytes.into());
        assert_eq!(script(&[("new", false), ("new", false)]), (read("new"), vec![]));
        assert_eq!(script(&[("new", true), ("new", true)]), (read("new"), vec![20]));
        let rewritten = &[("old", false), ("o", true), ("new", true), ("new", true)];
        assert_eq!(script(rewritten), (read("new"), vec![40, 60]));
        let back = &[("a", true), ("b", true), ("a", true), ("a", true)];
        assert_eq!(script(back), (read("a"), vec![20, 40, 60]));
        // A file may disappear between two readings.
        assert_eq!(script(&[("a", false), ("b", false)]).0.unwrap_err().found, "gone");
    }

    #[test]
    fn a_file_that_never_rests_is_refused_in_bounded_time() {
        let (mut readings, waited) = (0_u32, Cell::new(Duration::ZERO));
        let changing = || {
            readings += 1;
            Ok(Reading { bytes: readings.to_string().into(), fresh: true })
        };
        let refused = settled(changing, |pause| waited.set(waited.get() + pause));
        assert_eq!(refused.unwrap_err().found, "changes while it is read");
        assert_eq!(readings, READINGS_MAX);
        assert!(waited.get() < Duration::from_secs(2), "{waited:?}");
    }

    #[test]
    fn a_path_that_is_no_file_is_refused_by_its_kind() {
        let found = |path: &str| once(Path::new(path), ByteSize::bytes(1)).err().expect(path).found;
        assert_eq!(found("/"), "a directory, not a file");
        assert_eq!(found("/dev/zero"), "a device, not a file");
        assert!(found("/no/such/file").contains("No such file"));
    }
}
