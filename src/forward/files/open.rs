//! Opens a file of a folder.

use super::guarded::{Guarded, Identity};
use super::{FileFault, INDEX};
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

/// The file that answers a request.
#[derive(Debug)]
pub(super) enum Found {
    /// An open file, and its path without links.
    File(File, PathBuf),
    /// A folder whose path lacks its slash.
    Folder,
}

/// Follows all links, and opens a regular file within the folder.
///
/// A user who can write into the folder may change it meanwhile. The path without links is therefore opened name by name,
/// and each name must not be a link any more.
pub(super) fn open(
    root: &Path,
    relative: &Path,
    is_folder: bool,
    guarded: &Guarded,
) -> Result<Found, FileFault> {
    let within = |path: PathBuf| {
        let path = path.canonicalize().map_err(|error| fault_below(root, error))?;
        let is_within = path.starts_with(root);
        is_within.then_some(path).ok_or(FileFault::Missing("a link leads out of the folder"))
    };
    let path = within(root.join(relative))?;
    let is_dir = path.metadata().map_err(FileFault::of)?.is_dir();
    let path = if is_dir { within(path.join(INDEX))? } else { path };
    let guarded = guarded.identities().map_err(FileFault::Unreadable)?;
    let file = descend(&path, &guarded)?;
    match (is_dir, is_folder) {
        (true, true) | (false, false) => Ok(Found::File(file, path)),
        (true, false) => Ok(Found::Folder),
        (false, true) => Err(FileFault::Missing("a file is not a folder")),
    }
}

/// Returns the fault of a path below the folder. If the folder itself is missing, no page is, so the operator must notice.
fn fault_below(root: &Path, error: io::Error) -> FileFault {
    let why = match root.metadata() {
        Ok(found) if found.is_dir() => return FileFault::of(error),
        Ok(_) => "not a folder any more".to_owned(),
        Err(error) => error.to_string(),
    };
    let root = root.display();
    FileFault::Unreadable(io::Error::other(format!(
        "the folder {root}: {why}; mount it again, or reload the policy if it has moved"
    )))
}

/// Opens a regular file at an absolute path without links. No folder of the path is guarded, and neither is the file.
fn descend(path: &Path, guarded: &[Identity]) -> Result<File, FileFault> {
    let check = |opened: OwnedFd| {
        let opened = File::from(opened);
        let metadata = opened.metadata().map_err(FileFault::of)?;
        if guarded.contains(&Identity::of(&metadata)) {
            return Err(FileFault::Missing("the policy names the file or its folder"));
        }
        Ok((opened, metadata))
    };
    let fault = |errno| FileFault::of(io::Error::from(errno));
    let step = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut folder = check(openat(CWD, "/", step, Mode::empty()).map_err(fault)?)?.0;
    let mut names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name),
        Component::RootDir | Component::CurDir | Component::ParentDir | Component::Prefix(_) => None,
    });
    let last = names.next_back().ok_or(FileFault::Missing("not a regular file"))?;
    for name in names {
        folder = check(openat(&folder, name, step | OFlags::DIRECTORY, Mode::empty()).map_err(fault)?)?.0;
    }
    // Opening a pipe would wait for its other end, and opening a device may have an effect.
    let (_, before) = check(openat(&folder, last, step, Mode::empty()).map_err(fault)?)?;
    if !before.is_file() {
        return Err(FileFault::Missing("not a regular file"));
    }
    let read = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let (file, after) = check(openat(&folder, last, read, Mode::empty()).map_err(fault)?)?;
    if Identity::of(&after) != Identity::of(&before) {
        return Err(FileFault::Missing("the file was replaced meanwhile"));
    }
    Ok(file)
}
