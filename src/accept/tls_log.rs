//! Limits how often a core logs failed TLS handshakes.

use crate::metrics::tls_failure::TlsFailure;
use crate::peer::CoarseMillis;
use std::cell::RefCell;

/// One core logs failures of one reason at most once in this interval: scanners fail all day.
const LOG_INTERVAL: CoarseMillis = 10_000;

/// The failures that one core logged recently.
#[derive(Debug, Default)]
pub(super) struct TlsLog {
    /// By reason: when the last failure was logged, and how many were omitted since.
    entries: RefCell<[Option<(CoarseMillis, u64)>; TlsFailure::ALL.len()]>,
}

impl TlsLog {
    /// Returns how many failures of this reason were omitted since the last logged one; `None` if this one is omitted
    /// too.
    pub(super) fn record(&self, failure: TlsFailure, now: CoarseMillis) -> Option<u64> {
        let entry = &mut self.entries.borrow_mut()[failure as usize];
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
    fn failures_of_one_reason_are_logged_now_and_then_with_how_many_were_not() {
        let log = TlsLog::default();
        assert_eq!(log.record(TlsFailure::NotTls, 5), Some(0));
        assert_eq!(log.record(TlsFailure::NotTls, 6), None);
        assert_eq!(log.record(TlsFailure::Closed, 6), Some(0), "another reason");
        assert_eq!(log.record(TlsFailure::NotTls, 10_004), None);
        assert_eq!(log.record(TlsFailure::NotTls, 10_005), Some(2));
        assert_eq!(log.record(TlsFailure::NotTls, 20_005), Some(0));
    }
}
