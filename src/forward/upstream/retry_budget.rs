//! Bounds the repeated requests of an upstream, so that a failing upstream does not get twice its usual load.

use crate::counter::Counter;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// The time for which repeated requests are counted.
pub(crate) const WINDOW: Duration = Duration::from_secs(10);

/// The number of requests that may be repeated within [`WINDOW`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RetryBudget {
    /// The percentage of the answered requests.
    pub(crate) percent: u8,
    /// The number of requests of one core that may be repeated in any case.
    pub(crate) floor: u64,
}

/// The repeated requests of one core. Only this core writes to it, and only when it repeats a request.
#[derive(Debug, Default)]
pub(crate) struct RetryWindow {
    /// The start of the window, in milliseconds.
    begun: Counter,
    /// The number of answered requests at the start of the window.
    answered: Counter,
    /// The number of answered requests in the window before, if it had been as long as this window.
    before: Counter,
    repeated: Counter,
}

impl RetryWindow {
    /// Counts one repeated request, if the budget allows it. `answered` is the number of requests that were ever
    /// answered.
    pub(in crate::forward) fn take(&self, budget: RetryBudget, answered: u64, now: Instant) -> bool {
        static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        // The first window of a core begins in the past.
        let now = millis(now.saturating_duration_since(*ORIGIN)).saturating_add(millis(WINDOW));
        let elapsed = now.saturating_sub(self.begun.get());
        let since = answered.saturating_sub(self.answered.get());
        if elapsed >= millis(WINDOW) {
            let before = u128::from(since) * u128::from(millis(WINDOW)) / u128::from(elapsed);
            self.before.set(u64::try_from(before).unwrap_or(u64::MAX));
            self.begun.set(now);
            self.answered.set(answered);
            self.repeated.set(0);
        }
        let usual = self.before.get().max(answered.saturating_sub(self.answered.get()));
        let allowed = budget.floor.saturating_add(usual.saturating_mul(u64::from(budget.percent)) / 100);
        let may = self.repeated.get() < allowed;
        if may {
            self.repeated.add(1);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns how many of many repeated requests the budget allows.
    fn taken(window: &RetryWindow, budget: RetryBudget, answered: u64, now: Instant) -> usize {
        (0..10_000).filter(|_| window.take(budget, answered, now)).count()
    }

    #[test]
    fn the_budget_is_a_share_of_the_answers_and_at_least_the_floor() {
        let (window, budget) = (RetryWindow::default(), RetryBudget { percent: 20, floor: 5 });
        let mut now = Instant::now() + WINDOW;
        assert_eq!(taken(&window, budget, 0, now), 5, "the floor");
        assert_eq!(taken(&window, budget, 100, now), 20, "a fifth of the answers");
        now += WINDOW;
        assert_eq!(taken(&window, budget, 1_000, now), 205, "as many as the window before had answers for");
        now += WINDOW * 10;
        assert_eq!(taken(&window, budget, 2_000, now), 25, "1,000 answers in ten windows");
        now += WINDOW;
        assert_eq!(taken(&window, budget, 2_000, now), 5, "no answers any more");
        assert_eq!(taken(&window, RetryBudget { percent: 0, floor: 7 }, 9_000, now), 2);
    }
}
