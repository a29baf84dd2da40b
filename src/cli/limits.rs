//! Sets the system's limits on the process: open files and core dumps.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Number of files that are not available to client connections and their upstream connections: the admin listener, the
/// store, the policy, and idle upstream connections use them.
const RESERVE: u64 = 256;

/// Raises the soft limit of open files to the hard limit. The soft limit is often 1024, because programs that use
/// `select` need a low limit. Returns the resulting limit, or `None` if there is no limit.
pub(super) fn raise_open_files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    // If the limit cannot be raised, the old limit stays.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    if raised.is_ok() { limit.maximum } else { limit.current }
}

/// Returns the number of client connections that this limit of open files allows, but at most `asked`. Each client
/// connection needs a second file for its upstream connection, and up to half of the files are reserved.
pub(super) fn connections(asked: usize, files: Option<u64>) -> usize {
    let Some(files) = files else { return asked };
    let reserve = RESERVE.min(files / 2);
    let room = usize::try_from((files - reserve) / 2).unwrap_or(usize::MAX);
    asked.min(room.max(1))
}

/// Disables core dumps, so that a crash does not write keys and tokens from memory to disk. Only the soft limit is set,
/// so that `prlimit --core=unlimited --pid PID` can raise the limit again to debug a crash.
pub(super) fn no_core_dumps() {
    let limit = getrlimit(Resource::Core);
    // The result is ignored, because a process may always lower its limit.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: limit.maximum });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_never_take_the_files_that_are_kept_back() {
        for (asked, files, taken) in [
            (20_000, None, 20_000),
            (20_000, Some(1 << 20), 20_000),
            (20_000, Some(20_000), 9_872),
            (500, Some(20_000), 500),
            (20_000, Some(1024), 384),
            (20_000, Some(512), 128),
            (20_000, Some(100), 25),
            (20_000, Some(0), 1),
        ] {
            assert_eq!(connections(asked, files), taken, "{asked} of {files:?}");
        }
    }
}
