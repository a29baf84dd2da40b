//! Creates, replaces and locks files in the state folder. Only the gateway's user can read these files.

use aws_lc_rs::rand;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The exclusive right to change certain files in a state folder. It ends when the value is dropped or the process
/// ends.
#[derive(Debug)]
pub(crate) struct Lock(#[allow(dead_code, reason = "closing the file releases the lock")] File);

#[derive(Debug)]
pub(crate) enum LockFault {
    /// Another process held the lock for the whole wait.
    Held,
    /// The lock file cannot be opened or locked.
    Io(io::Error),
}

impl From<io::Error> for LockFault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Locks the file at `path`. Waits up to `patience` for another process to release the lock, and blocks the thread
/// meanwhile. Creates the file and its folder, readable only by the gateway's user.
pub(crate) fn lock(path: &Path, patience: Duration) -> Result<Lock, LockFault> {
    let folder = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let deadline = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Lock(file)),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                #[expect(clippy::disallowed_methods, reason = "callers run in a command or may block")]
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(TryLockError::WouldBlock) => return Err(LockFault::Held),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
    }
}

/// Writes a file atomically and replaces an existing one. Creates the folder, readable only by the gateway's user.
///
/// # Errors
/// Returns a sentence for the operator.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), String> {
    let fault = |error: io::Error| format!("{}: cannot be written: {error}", path.display());
    let folder = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(fault)?;
    let partial = partial(path)?;
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&partial);
        fault(error)
    })
}

/// Returns an unused name in the folder of `path`.
fn partial(path: &Path) -> Result<PathBuf, String> {
    let mut nonce = [0; 8];
    rand::fill(&mut nonce).map_err(|_| "the system's random numbers failed".to_owned())?;
    Ok(path.with_extension(format!("{:016x}", u64::from_le_bytes(nonce))))
}

/// Creates a file in a state folder atomically, unless a file with this name exists. If several processes create the
/// file at once, one file remains. Callers must therefore read it back.
///
/// # Errors
/// Returns a sentence for the operator.
pub(crate) fn place_once(state: &Path, path: &Path, content: &[u8]) -> Result<(), String> {
    let fault = |path: &Path, error: io::Error| format!("{}: cannot be created: {error}", path.display());
    DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(|error| fault(state, error))?;
    let partial = partial(path)?;
    let place = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
        file.write_all(content)?;
        file.sync_all()?;
        // A hard link fails if the file exists. A rename would replace another process's file.
        match fs::hard_link(&partial, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            // Sync the folder too. Otherwise a crash could lose a key that has already signed tokens.
            Ok(()) | Err(_) => File::open(state)?.sync_all(),
        }
    };
    let placed = place();
    // After a successful link, this removes only the second name of the file.
    let _ = fs::remove_file(&partial);
    placed.map_err(|error| fault(path, error))
}
