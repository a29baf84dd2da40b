//! The fleet as requests see it: a few atomic values that a background task writes (`fleet`).

use super::lease::View;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// The state of the fleet as this gateway knows it.
#[derive(Debug, Default)]
pub struct FleetState {
    /// Whether the last report was answered. False until the first answer.
    is_up: AtomicBool,
    /// The number of gateways; 0 if it is not known yet.
    gateways: AtomicU32,
    /// Whether the task that reports waits for a wake-up.
    is_asleep: AtomicBool,
    wake: Notify,
    pub(super) counts: FleetCounts,
}

/// A count of [`FleetState::counts`]: what happened, and how often.
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

impl FleetState {
    /// Returns a fleet of this many gateways.
    pub(super) fn of(gateways: u32) -> Self {
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

    /// Waits until a request needs a report, unless `is_needed` returns `true`. The wait ends after `longest`.
    pub(super) async fn rest(&self, is_needed: impl FnOnce() -> bool, longest: Duration) {
        self.is_asleep.store(true, Ordering::SeqCst);
        // A request that came before the line above has woken nobody.
        if !is_needed() {
            let _ = timeout(longest, self.wake.notified()).await;
        }
        self.is_asleep.store(false, Ordering::SeqCst);
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::task::{LocalSet, spawn_local, yield_now};

    /// Far longer than the test takes, so only a wake-up ends the wait.
    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn a_request_wakes_the_task_that_reports_only_if_it_rests() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let state = Arc::new(FleetState::default());
            state.wake();
            state.rest(|| true, LONG).await;
            let resting = spawn_local({
                let state = state.clone();
                async move { state.rest(|| false, LONG).await }
            });
            while !state.is_asleep.load(Ordering::SeqCst) {
                yield_now().await;
            }
            assert!(!resting.is_finished(), "a wake-up that came before the rest is not kept");
            state.wake();
            timeout(Duration::from_secs(10), resting).await.expect("woken").unwrap();
            assert!(!state.is_asleep.load(Ordering::SeqCst));
        });
    }
}
