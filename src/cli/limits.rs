//! The system's limits on a process: open files, core dumps.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files reserved for everything but client connections: the admin listener, the store, the policy, and idle upstream
/// connections.
const RESERVE: u64 = 256;

/// Raises the soft limit of open files to the hard one: the soft one is often 1024, for the sake of programs that use
/// `select`. Returns the resulting limit; `None` if there is no limit.
pub(super) fn raise_open_files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    // If it cannot be raised, the old limit stays.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    if raised.is_ok() { limit.maximum } else { limit.current }
}

/// The number of client connections, at most the requested one, that this limit of open files allows: each needs a
/// second file for its upstream connection, and up to half of the files are reserved.
pub(super) fn connections(asked: usize, files: Option<u64>) -> usize {
    let Some(files) = files else { return asked };
    let reserve = RESERVE.min(files / 2);
    let room = usize::try_from((files - reserve) / 2).unwrap_or(usize::MAX);
    asked.min(room.max(1))
}

/// Keeps keys and tokens in memory from being written to disk when the process crashes. Only the soft limit is set, so
/// that `prlimit --core=unlimited --pid PID` can raise it again to debug a crash.
pub(super) fn no_core_dumps() {
    let limit = getrlimit(Resource::Core);
    // It is only lowered, which is always allowed.
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
