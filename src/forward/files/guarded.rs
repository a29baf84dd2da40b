//! The files and folders that no route sends: those that the policy names.
//!
//! They are known by their identity and not by their path, so another link to a file, or another mount of a folder, opens
//! nothing. The identities are read for each request, because files are created and replaced while the gateway runs.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The paths of guarded files and folders.
#[derive(Debug)]
pub(crate) struct Guarded(Box<[PathBuf]>);

/// The identity of a file: its device and its number on that device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity(u64, u64);

impl Identity {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self(metadata.dev(), metadata.ino())
    }
}

impl Guarded {
    pub(crate) fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self(paths.into_iter().collect())
    }

    /// Returns the path of a guarded file within a folder, or of a guarded folder around it. Reads the places where the
    /// files are now, or where they would be created.
    pub(crate) fn conflict(&self, root: &Path) -> Option<&Path> {
        let conflicts = |path: &&PathBuf| {
            let place = place(path);
            place.starts_with(root) || root.starts_with(place)
        };
        self.0.iter().find(conflicts).map(PathBuf::as_path)
    }

    /// Returns the identities of all files and folders that exist now.
    ///
    /// # Errors
    /// Returns the error of a path whose identity cannot be known. No file may be sent then.
    pub(super) fn identities(&self) -> io::Result<Vec<Identity>> {
        let mut identities = Vec::with_capacity(self.0.len());
        for path in &self.0 {
            match std::fs::metadata(path) {
                Ok(metadata) => identities.push(Identity::of(&metadata)),
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(error) => return Err(io::Error::other(format!("{}: {error}", path.display()))),
            }
        }
        Ok(identities)
    }
}

/// Returns a path without links. The parts that do not exist stay as they are.
fn place(path: &Path) -> PathBuf {
    let mut missing = Vec::new();
    let mut existing = path;
    loop {
        if let Ok(mut found) = existing.canonicalize() {
            found.extend(missing.iter().rev());
            return found;
        }
        match (existing.parent(), existing.file_name()) {
            (Some(parent), Some(name)) => {
                missing.push(name);
                existing = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            }
            _ => return path.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_conflicts_with_a_folder_that_would_contain_it() {
        let root = std::env::temp_dir().canonicalize().unwrap();
        let conflicts =
            |path: &str, root: &Path| Guarded::new([PathBuf::from(path)]).conflict(root).is_some();
        let within = |name: &str| format!("{}/{name}", root.display());
        assert!(conflicts(&within("none/none/key.pem"), &root));
        assert!(conflicts(&within("none/../key.pem"), &root));
        assert!(conflicts(&within(""), &root.join("site")), "the folder is around the site");
        assert!(!conflicts("/none/key.pem", &root));
        assert!(!conflicts(&format!("{}-more/key.pem", root.display()), &root));
    }
}
