//! The gateways that share limits, as this gateway knows them.
//!
//! Requests read a few atomic values here. A background task reports to the fleet and writes them (`sync`).

pub(super) mod exact;
mod script;
mod sync;

use super::lease::View;
use super::lease::table::LeaseTable;
use crate::shared::Link;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::Notify;

/// The fleet as this gateway knows it. There is one for all limits of the process, and it survives reloads.
#[derive(Debug, Default)]
pub struct Fleet {
    /// Whether the last report was answered. False until the first answer.
    is_up: AtomicBool,
    /// The number of gateways; 0 if it is not known yet.
    gateways: AtomicU32,
    /// Whether the task that reports waits for a wake-up.
    is_asleep: AtomicBool,
    wake: Notify,
    tables: Mutex<Vec<Weak<LeaseTable>>>,
    /// Whether the task that reports was started.
    has_task: AtomicBool,
    pub(super) counts: FleetCounts,
}

/// A count of [`Fleet::counts`]: what happened, and how often.
pub(crate) type FleetCount = (&'static str, u64);

/// The counts of the fleet's limits.
#[derive(Debug, Default)]
pub(super) struct FleetCounts {
    /// Reports about a key that were answered.
    pub(super) reports: AtomicU64,
    /// Reports about a key that were not answered.
    pub(super) failed: AtomicU64,
    /// Requests that this gateway's own limit decided, because the fleet could not be asked.
    pub(super) alone: AtomicU64,
    /// Requests that were refused, because the fleet could not be asked.
    pub(super) unavailable: AtomicU64,
    /// Active keys that were evicted from a full set in the shared state.
    pub(super) displaced: AtomicU64,
}

impl Fleet {
    /// Starts the task that reports to the fleet, unless it was started before. The task ends with the link.
    pub(crate) fn start(self: &Arc<Self>, link: &Arc<Link>) {
        if !self.has_task.swap(true, Ordering::Relaxed) {
            sync::start(link, self.clone());
        }
    }

    /// Returns a fleet of this many gateways that answers no report, for tests and benchmarks.
    #[doc(hidden)]
    pub fn for_tests(gateways: u32) -> Self {
        Self { is_up: true.into(), gateways: gateways.into(), ..Self::default() }
    }

    pub(super) fn view(&self, alone: bool) -> View {
        View { gateways: self.gateways(), is_up: self.is_up(), alone }
    }

    /// Returns the number of gateways, at least 1.
    pub fn gateways(&self) -> u32 {
        self.gateways.load(Ordering::Relaxed).max(1)
    }

    /// Returns whether the last report was answered.
    pub fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    pub(super) fn set_up(&self, is_up: bool) {
        self.is_up.store(is_up, Ordering::Relaxed);
    }

    pub(super) fn set_gateways(&self, gateways: u32) {
        self.gateways.store(gateways, Ordering::Relaxed);
    }

    /// Wakes the task that reports, if it waits. While there are reports, a request makes no system call here.
    pub(super) fn wake(&self) {
        if self.is_asleep.load(Ordering::SeqCst) && self.is_asleep.swap(false, Ordering::SeqCst) {
            self.wake.notify_one();
        }
    }

    /// Counts a request that is charged without the fleet.
    pub(super) fn count_apart(&self, alone: bool) {
        let counter = if alone { &self.counts.alone } else { &self.counts.unavailable };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the counts of the reports about keys, by outcome.
    pub(crate) fn reports(&self) -> [FleetCount; 2] {
        let counts = &self.counts;
        [
            ("answered", counts.reports.load(Ordering::Relaxed)),
            ("failed", counts.failed.load(Ordering::Relaxed)),
        ]
    }

    /// Returns the counts of the requests about which the fleet could not be asked, by outcome.
    pub(crate) fn unasked(&self) -> [FleetCount; 2] {
        let counts = &self.counts;
        [
            ("alone", counts.alone.load(Ordering::Relaxed)),
            ("refused", counts.unavailable.load(Ordering::Relaxed)),
        ]
    }

    /// Returns how often an active key was evicted from a full set in the shared state.
    pub fn displaced(&self) -> u64 {
        self.counts.displaced.load(Ordering::Relaxed)
    }

    /// Adds the table of a limit. The table leaves the fleet when it is dropped.
    pub(super) fn register(&self, table: &Arc<LeaseTable>) {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.retain(|known| known.strong_count() > 0);
        tables.push(Arc::downgrade(table));
    }

    /// Returns the tables of all limits.
    pub(super) fn tables(&self) -> Vec<Arc<LeaseTable>> {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.iter().filter_map(Weak::upgrade).collect()
    }
}
