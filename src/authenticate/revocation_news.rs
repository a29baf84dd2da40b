//! New marks that wait to be sent to other gateways.
//!
//! Nothing is kept unless the gateway shares its marks. The number of waiting marks is bounded. After an overflow, the
//! sender compares all marks instead.

use super::mark::Mark;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// The maximum number of waiting marks.
const WAITING_MAX: usize = 65_536;

/// The new marks.
#[derive(Debug, Default)]
pub struct RevocationNews {
    is_wanted: AtomicBool,
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// The marks, each with the time until which it is kept (seconds since 1970, exclusive).
    marks: Vec<(Mark, u64)>,
    has_overflowed: bool,
}

impl RevocationNews {
    /// Begins to keep new marks.
    pub fn want(&self) {
        self.is_wanted.store(true, Ordering::Release);
    }

    /// Deletes the waiting marks, and keeps no new ones.
    pub fn stop(&self) {
        let mut waiting = self.waiting();
        self.is_wanted.store(false, Ordering::Release);
        *waiting = Waiting::default();
    }

    /// Adds a mark. `mark` is called only if new marks are kept.
    pub(super) fn push(&self, until: u64, mark: impl FnOnce() -> Mark) {
        if !self.is_wanted() {
            return;
        }
        let mut waiting = self.waiting();
        // `stop` holds the lock, so no mark stays after it.
        if !self.is_wanted() {
            return;
        }
        if waiting.marks.len() < WAITING_MAX {
            waiting.marks.push((mark(), until));
        } else {
            waiting.has_overflowed = true;
        }
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Takes at most `max` marks, the oldest first.
    pub fn take(&self, max: usize) -> Vec<(Mark, u64)> {
        let mut waiting = self.waiting();
        let count = waiting.marks.len().min(max);
        waiting.marks.drain(..count).collect()
    }

    /// Puts marks back that could not be sent.
    pub fn put_back(&self, marks: Vec<(Mark, u64)>) {
        let mut waiting = self.waiting();
        if !self.is_wanted() {
            return;
        }
        let newer = std::mem::replace(&mut waiting.marks, marks);
        waiting.marks.extend(newer);
        if waiting.marks.len() > WAITING_MAX {
            waiting.marks.truncate(WAITING_MAX);
            waiting.has_overflowed = true;
        }
    }

    /// Returns whether marks were lost since the last call.
    pub fn take_overflow(&self) -> bool {
        std::mem::take(&mut self.waiting().has_overflowed)
    }

    /// Waits for a new mark.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Returns the number of waiting marks.
    pub fn len(&self) -> usize {
        self.waiting().marks.len()
    }

    /// Returns whether no mark waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Acquire)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // A thread that panicked left only complete marks.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(number: usize) -> Mark {
        Mark::Token(number.to_string())
    }

    #[test]
    fn marks_are_kept_in_order_once_they_are_wanted_and_no_more_than_fit() {
        let news = RevocationNews::default();
        news.push(1, || mark(0));
        assert!(news.is_empty(), "nobody wants them");
        news.want();
        for number in 0..WAITING_MAX {
            news.push(1, || mark(number));
        }
        assert!(!news.take_overflow());
        news.push(1, || mark(WAITING_MAX));
        assert!(news.take_overflow() && !news.take_overflow());
        let taken = news.take(2);
        assert_eq!(taken, [(mark(0), 1), (mark(1), 1)]);
        news.put_back(taken);
        assert_eq!(news.take(3), [(mark(0), 1), (mark(1), 1), (mark(2), 1)]);
    }

    #[test]
    fn after_a_stop_no_mark_is_kept_until_marks_are_wanted_again() {
        let news = RevocationNews::default();
        news.want();
        for number in 0..=WAITING_MAX {
            news.push(1, || mark(number));
        }
        let taken = news.take(1);
        news.stop();
        assert!(news.is_empty() && !news.take_overflow());
        assert_eq!(news.waiting().marks.capacity(), 0, "the memory is free");
        news.put_back(taken);
        news.push(1, || mark(0));
        assert!(news.is_empty());
        news.want();
        news.push(1, || mark(0));
        assert_eq!(news.len(), 1);
    }

    #[test]
    fn marks_that_are_put_back_displace_newer_ones_only_with_a_note() {
        let news = RevocationNews::default();
        news.want();
        for number in 0..WAITING_MAX {
            news.push(1, || mark(number));
        }
        let taken = news.take(1);
        news.push(1, || mark(WAITING_MAX));
        news.put_back(taken);
        assert_eq!((news.len(), news.take_overflow()), (WAITING_MAX, true));
        assert_eq!(news.take(1), [(mark(0), 1)]);
    }
}
