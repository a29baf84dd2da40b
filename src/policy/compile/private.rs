//! Files that hold secrets: nobody but the gateway's user may change them, and others had better not read them.
//!
//! A file that its group may read passes: that is how a key reaches a service that does not own it.

use super::Faults;
use crate::config::file::File;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Looks at the mode of a secret file. One that is absent is another finding's matter.
pub(super) fn look(key: &str, path: &Path, faults: &mut Faults<'_>) {
    // The mode of what a link leads to.
    let Ok(metadata) = std::fs::metadata(path) else { return };
    let mode = metadata.permissions().mode();
    let shown = path.display();
    if !metadata.is_file() {
        return;
    }
    if mode & 0o022 != 0 {
        faults.fault(
            "secret_writable",
            key,
            format!("{shown}: others than its owner may write to it (mode {:o})", mode & 0o7777),
            format!("chmod 600 {shown}, and a new secret if others had the chance to set it"),
        );
    } else if mode & 0o004 != 0 {
        faults.warn(
            "secret_readable",
            key,
            format!("{shown}: every user of this machine may read it (mode {:o})", mode & 0o7777),
            format!("chmod 600 {shown} (640 for a group of its own), and a new secret if others had the chance to read it"),
        );
    }
}

/// Looks at the state folder: a gateway that cannot write to it cannot change its keys, nor keep what it makes.
pub(super) fn state(file: &File, faults: &mut Faults<'_>) {
    let makes_certificate = file.tls.as_ref().is_none_or(|tls| tls.certificate.is_empty());
    let is_used = file.authority.is_some() || makes_certificate && !file.server.https.addresses().is_empty();
    let dir = faults.path(&file.state.dir);
    let Ok(metadata) = std::fs::metadata(&dir) else { return };
    let mode = metadata.permissions().mode();
    // For root the system refuses nothing; that the owner may not write was not meant so either.
    let may_write = rustix::fs::access(&dir, rustix::fs::Access::WRITE_OK).is_ok() && mode & 0o200 != 0;
    if is_used && metadata.is_dir() && !may_write {
        faults.warn(
            "state_not_writable",
            "state.dir",
            format!(
                "{}: the gateway may not write to it (mode {:o}): keys cannot change",
                dir.display(),
                mode & 0o7777
            ),
            format!("chmod 700 {}, and chown it to the gateway's user", dir.display()),
        );
    }
}
