//! The state of the orders, for `/readyz?verbose` and the metrics.

use super::Failure;
use crate::counter::Counter;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The counts, and the last report of the task that orders.
#[derive(Debug, Default)]
pub(crate) struct Status {
    report: Mutex<Report>,
    /// Orders that ended with a certificate.
    pub(crate) issued: Counter,
    /// Orders that failed.
    pub(crate) failed: Counter,
}

/// The state for operators. Times are in seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// Whether the certificate in use is the ordered one. Before the first order succeeds, it is the self-signed one.
    pub(crate) has_certificate: bool,
    /// The time of the next order. 0 if it is not known yet.
    pub(crate) next: u64,
    /// The failures since the last success.
    pub(crate) failures: u32,
    /// The last failure since the last success, and its time.
    pub(crate) last: Option<(u64, Failure)>,
}

impl Status {
    /// Returns the current report.
    pub(crate) fn report(&self) -> Report {
        self.lock().clone()
    }

    /// Changes the report.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
