//! Bounds the cost of a Redis that is slow or does not answer.
//!
//! A few late answers in a row open the breaker. Calls then fail at once, until a new connection has answered.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of late answers, without an answer in time between them, that open the breaker.
const LATE_MAX: usize = 3;

/// Counts the calls in flight and the late answers.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    calls: AtomicUsize,
    late: AtomicUsize,
}

impl Breaker {
    /// Begins a call; `None` if `max` calls are in flight.
    pub(super) fn enter(&self, max: usize) -> Option<Call<'_>> {
        // Raise the count before the check, so that two calls cannot both take the last place.
        let call = Call(self);
        (self.calls.fetch_add(1, Ordering::Relaxed) < max).then_some(call)
    }

    /// Notes an answer in time.
    pub(super) fn answered(&self) {
        // Most answers are in time. A write of the same value would take the line from the other cores.
        if self.late.load(Ordering::Relaxed) != 0 {
            self.late.store(0, Ordering::Relaxed);
        }
    }

    /// Notes a late answer. Returns whether the breaker opens.
    pub(super) fn is_opened_by_late(&self) -> bool {
        self.late.fetch_add(1, Ordering::Relaxed) + 1 >= LATE_MAX
    }

    /// Closes the breaker.
    pub(super) fn close(&self) {
        self.late.store(0, Ordering::Relaxed);
    }
}

/// A call in flight.
#[derive(Debug)]
pub(super) struct Call<'b>(&'b Breaker);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_answers_in_a_row_open_it_and_an_answer_in_time_begins_a_new_row() {
        let breaker = Breaker::default();
        for _ in 1..LATE_MAX {
            assert!(!breaker.is_opened_by_late());
        }
        breaker.answered();
        for _ in 1..LATE_MAX {
            assert!(!breaker.is_opened_by_late());
        }
        assert!(breaker.is_opened_by_late());
    }

    #[test]
    fn calls_in_flight_are_bounded_and_a_refused_call_takes_no_place() {
        let breaker = Breaker::default();
        let one = breaker.enter(2).unwrap();
        let _other = breaker.enter(2).unwrap();
        assert!(breaker.enter(2).is_none() && breaker.enter(2).is_none());
        drop(one);
        assert!(breaker.enter(2).is_some());
    }
}
