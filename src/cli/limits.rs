//! The limits that the system sets a process: open files, core dumps.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files kept back from connections of clients: the admin listener's, the store's, the policy's, and the upstream connections
/// that are idle.
const RESERVE: u64 = 256;

/// Raises the soft limit of open files to the hard one: the soft one is often 1024, for the sake of programs that use
/// `select`. Returns the limit that is in force then; none where there is none.
pub(super) fn raise_open_files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    // Where it cannot be raised the old limit holds.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    if raised.is_ok() { limit.maximum } else { limit.current }
}

/// How many connections of clients this limit of open files allows, of those asked for: each has one to an upstream beside it,
/// and up to half of the files are kept back.
pub(super) fn connections(asked: usize, files: Option<u64>) -> usize {
    let Some(files) = files else { return asked };
    let reserve = RESERVE.min(files / 2);
    let room = usize::try_from((files - reserve) / 2).unwrap_or(usize::MAX);
    asked.min(room.max(1))
}

/// Keeps keys and tokens in memory from being written to disk when the process crashes. Only the soft limit: who debugs a
/// crash raises it again with `prlimit --core=unlimited --pid PID`.
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
