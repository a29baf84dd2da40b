//! Limits how often a core logs connections that failed before their first request.

use crate::peer::CoarseMillis;
use std::cell::RefCell;

/// Minimum interval between two logged failures with the same reason, in milliseconds. Scanners cause failures all the
/// time.
const LOG_INTERVAL: CoarseMillis = 10_000;

/// The recent failures of one kind, which has `N` reasons.
#[derive(Debug)]
pub(super) struct FailureLog<const N: usize> {
    /// For each reason, the time of the last logged failure and the number of failures omitted since.
    entries: RefCell<[Option<(CoarseMillis, u64)>; N]>,
}

impl<const N: usize> Default for FailureLog<N> {
    fn default() -> Self {
        Self { entries: RefCell::new([None; N]) }
    }
}

impl<const N: usize> FailureLog<N> {
    /// Records a failure with this reason. Returns `None` if the failure must not be logged. Otherwise returns how many
    /// failures with the same reason were omitted before it.
    pub(super) fn record(&self, reason: usize, now: CoarseMillis) -> Option<u64> {
        let entry = &mut self.entries.borrow_mut()[reason];
        match entry {
            Some((logged_at, unlogged)) if now.saturating_sub(*logged_at) < LOG_INTERVAL => {
                *unlogged += 1;
                None
            }
            _ => Some(entry.replace((now, 0)).map_or(0, |(_, unlogged)| unlogged)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_one_reason_are_logged_once_per_interval_with_the_number_omitted() {
        let log = FailureLog::<2>::default();
        assert_eq!(log.record(0, 5), Some(0));
        assert_eq!(log.record(0, 6), None);
        assert_eq!(log.record(1, 6), Some(0), "a different reason has its own interval");
        assert_eq!(log.record(0, 10_004), None);
        assert_eq!(log.record(0, 10_005), Some(2));
        assert_eq!(log.record(0, 20_005), Some(0));
    }
}
