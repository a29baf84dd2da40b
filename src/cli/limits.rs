//! Sets the process's limits for open files and core dumps.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Number of files reserved for the admin listener, the store, the policy and idle upstream connections.
const RESERVE: u64 = 256;

/// Raises the soft limit of open files to the hard limit. The soft limit is often 1024, for programs that use `select`.
/// Returns the new limit, or `None` if there is no limit.
pub(super) fn raise_open_files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    // If the limit cannot be raised, the old limit remains.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    if raised.is_ok() { limit.maximum } else { limit.current }
}

/// Returns how many client connections are possible with this limit of open files, at most `asked`. Each client
/// connection needs a second file for its upstream connection. Up to half of the files are reserved.
pub(super) fn connections(asked: usize, files: Option<u64>) -> usize {
    let Some(files) = files else { return asked };
    let reserve = RESERVE.min(files / 2);
    let room = usize::try_from((files - reserve) / 2).unwrap_or(usize::MAX);
    asked.min(room.max(1))
}

/// Disables core dumps, because a crash would otherwise write keys and tokens to disk. The hard limit is unchanged, so
/// `prlimit --core=unlimited --pid PID` can enable core dumps to debug a crash.
pub(super) fn no_core_dumps() {
    let limit = getrlimit(Resource::Core);
    // A process may always lower its limit, so the result is ignored.
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
