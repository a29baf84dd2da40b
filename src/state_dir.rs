//! What is made at first start and kept: files under the state folder that only the gateway may read.

use aws_lc_rs::rand;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Puts a file into a state folder, whole or not at all, unless one of its name is there already. Of processes that do
/// this at once one places its file, and all go on with that one: read it back.
///
/// # Errors
/// A sentence for the operator.
pub(crate) fn place_once(state: &Path, path: &Path, content: &[u8]) -> Result<(), String> {
    let fault = |path: &Path, error: io::Error| format!("{}: cannot be created: {error}", path.display());
    DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(|error| fault(state, error))?;
    let mut nonce = [0; 8];
    rand::fill(&mut nonce).map_err(|_| "the system's random numbers failed".to_owned())?;
    let partial = path.with_extension(format!("{:016x}", u64::from_le_bytes(nonce)));
    let place = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
        file.write_all(content)?;
        file.sync_all()?;
        // A link is made only where nothing is yet; renaming would replace another process's file.
        match fs::hard_link(&partial, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            // The entry in the folder too, or a crash could take back a key that tokens were signed with.
            Ok(()) | Err(_) => File::open(state)?.sync_all(),
        }
    };
    let placed = place();
    // Half of a file, or a second name of it, is of use to nobody.
    let _ = fs::remove_file(&partial);
    placed.map_err(|error| fault(path, error))
}
