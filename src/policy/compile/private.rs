//! Checks the permissions of files with secrets.
//!
//! Only the owner may write such a file. Group members may read it, because a service may need group permissions for a
//! key of another user. Other users should not read it.

use super::Faults;
use crate::config::file::File;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Checks the mode of a file with a secret. A missing file is reported by the code that reads it.
pub(super) fn check_mode(key: &str, path: &Path, faults: &mut Faults<'_>) {
    // `metadata` follows symbolic links and returns the mode of the target.
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
            format!("{shown}: writable by users other than its owner (mode {:o})", mode & 0o7777),
            format!("chmod 600 {shown}, and replace the secret if others may have changed it"),
        );
    } else if mode & 0o004 != 0 {
        faults.warn(
            "secret_readable",
            key,
            format!("{shown}: readable by every user of this machine (mode {:o})", mode & 0o7777),
            format!("chmod 600 {shown} (640 for a group of its own), and replace the secret if others may have read it"),
        );
    }
}

/// Checks that only the owner of a socket's folder can replace the socket. A service that replaces it receives requests
/// with the identities of callers. The sticky bit protects a socket in a folder that all may write to.
pub(super) fn check_socket(key: &str, path: &Path, faults: &mut Faults<'_>) {
    let Some(folder) = path.parent() else { return };
    let Ok(metadata) = std::fs::metadata(folder) else { return };
    let mode = metadata.permissions().mode();
    if mode & 0o002 != 0 && mode & 0o1000 == 0 {
        let shown = folder.display();
        faults.warn(
            "socket_replaceable",
            key,
            format!("{shown}: every user of this machine can replace the socket (mode {:o})", mode & 0o7777),
            format!("chmod o-w {shown}"),
        );
    }
}

/// Checks that the gateway can write to the state folder. The gateway rotates keys and stores generated files there.
pub(super) fn check_state_dir(file: &File, faults: &mut Faults<'_>) {
    let makes_certificate = file
        .tls
        .as_ref()
        .is_none_or(|tls| tls.acme.is_some() || tls.certificate.is_empty() && tls.certificates.is_empty());
    let is_used = file.authority.is_some() || makes_certificate && !file.server.https.addresses().is_empty();
    let dir = faults.state_dir();
    let Ok(metadata) = std::fs::metadata(&dir) else { return };
    let mode = metadata.permissions().mode();
    // Root can write to any folder. A folder that its owner cannot write to is still a mistake.
    let may_write = rustix::fs::access(&dir, rustix::fs::Access::WRITE_OK).is_ok() && mode & 0o200 != 0;
    if is_used && metadata.is_dir() && !may_write {
        faults.warn(
            "state_not_writable",
            "state.dir",
            format!(
                "{}: not writable by the gateway (mode {:o}): signing keys cannot be rotated",
                dir.display(),
                mode & 0o7777
            ),
            format!("chmod 700 {}, and chown it to the gateway's user", dir.display()),
        );
    }
}
