//! Packages of Python and Node, which scripts of tests need.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Installs the pinned packages of `tests/NAME` once. Returns the folder of the scripts, and the folder of the packages
/// with the Python environment `venv` and copies of the Node scripts.
///
/// # Panics
/// If the packages cannot be installed. The message is that of the installer.
#[track_caller]
pub fn installed(name: &str) -> (PathBuf, PathBuf) {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let (scripts, folder) = (tests.join(name), Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
    let made =
        Command::new(tests.join("packages.sh")).arg(&scripts).arg(&folder).output().expect("bash is there");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (scripts, folder)
}
