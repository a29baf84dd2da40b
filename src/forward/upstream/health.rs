//! The recent state of one server, as this process knows it: whether requests try other servers first, and whether the
//! server has come back so recently that it gets only a share of its requests.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The time that a server is set aside after its first failure. The time doubles with each further failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The maximum time for which a server is set aside. A server that stays up for this time is forgiven one pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The number of pauses after which they no longer become longer.
const PAUSES_MAX: u32 = 6;
/// The share of its requests that a server gets at the beginning of a slow start, of 2^16.
const FIRST_SHARE: u32 = (1 << 16) / 10;

#[derive(Debug)]
pub(in crate::forward) struct Health {
    /// The origin of all times, which are in nanoseconds.
    since: Instant,
    /// Whether the server failed and has not answered since.
    is_down: AtomicBool,
    /// Whether the active checks fail.
    fails_checks: AtomicBool,
    /// The number of pauses that are not forgiven.
    pauses: AtomicU32,
    /// The end of the current pause; 0 if an answer ended it.
    aside_until: AtomicU64,
    /// The end of the last pause.
    last_pause: AtomicU64,
    /// The time at which the server came back; 0 if a slow start is over.
    back_at: AtomicU64,
}

impl Health {
    pub(in crate::forward) fn new() -> Self {
        Self {
            since: Instant::now(),
            is_down: AtomicBool::new(false),
            fails_checks: AtomicBool::new(false),
            pauses: AtomicU32::new(0),
            aside_until: AtomicU64::new(0),
            last_pause: AtomicU64::new(0),
            back_at: AtomicU64::new(0),
        }
    }

    /// Whether the server failed so recently, or fails its checks, that requests try other servers first.
    #[inline]
    pub(in crate::forward) fn is_set_aside(&self, now: Instant) -> bool {
        self.is_pausing(now) || self.fails_checks.load(Ordering::Relaxed)
    }

    #[inline]
    fn is_pausing(&self, now: Instant) -> bool {
        let until = self.aside_until.load(Ordering::Relaxed);
        until > 0 && self.nanos(now) < until
    }

    /// Records a failure. Returns whether this is the first failure in a row.
    pub(in crate::forward) fn record_failure(&self, now: Instant) -> bool {
        if self.is_pausing(now) {
            // A failure during the pause does not extend the pause. The request was sent before the pause began, or all
            // servers of the upstream were set aside.
            return false;
        }
        // A server that answers between its failures still gets longer pauses.
        let quiet = self.nanos(now).saturating_sub(self.last_pause.load(Ordering::Relaxed));
        let forgiven = u32::try_from(quiet / nanos(LONGEST_PAUSE)).unwrap_or(u32::MAX);
        let pauses = self.pauses.load(Ordering::Relaxed).saturating_sub(forgiven);
        let pause = FIRST_PAUSE.saturating_mul(1 << pauses.min(PAUSES_MAX)).min(LONGEST_PAUSE);
        let until = self.nanos(now + pause);
        self.pauses.store((pauses + 1).min(PAUSES_MAX), Ordering::Relaxed);
        self.last_pause.store(until, Ordering::Relaxed);
        self.aside_until.store(until, Ordering::Relaxed);
        !self.is_down.swap(true, Ordering::Relaxed)
    }

    /// Whether the server passes its checks and has answered since its last failure. The end of a pause does not count
    /// as an answer, because an alert must not end before the problem does.
    pub(in crate::forward) fn is_up(&self) -> bool {
        !self.is_down() && !self.fails_checks.load(Ordering::Relaxed)
    }

    /// Whether the server failed and has not answered since.
    #[inline]
    pub(in crate::forward) fn is_down(&self) -> bool {
        self.is_down.load(Ordering::Relaxed)
    }

    /// Records that the server answered. Returns whether the server was down before.
    #[inline]
    pub(in crate::forward) fn record_response(&self) -> bool {
        // The value is read first, because a store on each request would move the cache line between the cores.
        self.is_down() && self.recover(Instant::now())
    }

    #[cold]
    fn recover(&self, now: Instant) -> bool {
        self.aside_until.store(0, Ordering::Relaxed);
        self.back_at.store(self.nanos(now).max(1), Ordering::Relaxed);
        self.is_down.swap(false, Ordering::Relaxed)
    }

    /// Begins the slow start of a server that is new among others.
    pub(in crate::forward) fn begin_slow_start(&self, now: Instant) {
        self.back_at.store(self.nanos(now).max(1), Ordering::Relaxed);
    }

    /// Records whether the active checks pass. Returns whether this is a change.
    pub(in crate::forward) fn set_checked(&self, passes: bool, now: Instant) -> bool {
        let is_change = self.fails_checks.swap(!passes, Ordering::Relaxed) == passes;
        if passes && (is_change || self.is_down()) {
            // A passed check is an answer.
            return self.recover(now) || is_change;
        }
        is_change
    }

    /// Forgets the results of checks that no longer run.
    pub(in crate::forward) fn end_checks(&self) {
        self.fails_checks.store(false, Ordering::Relaxed);
    }

    /// Returns the share of its requests that the server gets now, of 2^16; `None` if it gets all of them.
    pub(in crate::forward) fn share(&self, now: Instant, slow_start: Duration) -> Option<u32> {
        if self.is_down() {
            // The pause is over, but the server has not answered yet.
            return Some(FIRST_SHARE);
        }
        let back_at = self.back_at.load(Ordering::Relaxed);
        if back_at == 0 {
            return None;
        }
        let (elapsed, whole) = (self.nanos(now).saturating_sub(back_at), nanos(slow_start).max(1));
        if elapsed >= whole {
            // A server that came back again in the meantime keeps its new slow start.
            let _ = self.back_at.compare_exchange(back_at, 0, Ordering::Relaxed, Ordering::Relaxed);
            return None;
        }
        let grown = u128::from(elapsed) * u128::from((1 << 16) - FIRST_SHARE) / u128::from(whole);
        Some(FIRST_SHARE + u32::try_from(grown).unwrap_or_default())
    }

    fn nanos(&self, at: Instant) -> u64 {
        nanos(at.saturating_duration_since(self.since))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_double_up_to_a_bound_and_an_answer_ends_them() {
        let health = Health::new();
        let mut now = Instant::now();
        for (round, pause) in [1, 2, 4, 8, 16, 30, 30].into_iter().enumerate() {
            assert_eq!(health.record_failure(now), round == 0, "only the first failure brings it down");
            assert!(!health.record_failure(now), "a failure while set aside counts once");
            now += Duration::from_secs(pause);
            assert!(!health.is_set_aside(now), "after {pause} s");
            assert!(health.is_set_aside(now - Duration::from_millis(1)), "before {pause} s");
        }
        health.record_failure(now);
        assert!(!health.is_up());
        assert!(health.record_response());
        assert!(!health.is_set_aside(now) && health.is_up());
    }

    #[test]
    fn a_server_that_fails_again_and_again_gets_longer_pauses_although_it_answers_between() {
        let health = Health::new();
        let mut now = Instant::now();
        for pause in [1, 2, 4, 8] {
            assert!(health.record_failure(now));
            assert!(health.is_set_aside(now + SECOND * pause - Duration::from_millis(1)));
            now += SECOND * pause;
            assert!(health.record_response());
        }
        // One pause is forgiven for each 30 s.
        now += Duration::from_secs(61);
        health.record_failure(now);
        assert!(health.is_set_aside(now + Duration::from_millis(3_999)));
        assert!(!health.is_set_aside(now + Duration::from_secs(4)));
        health.record_response();
        now += Duration::from_secs(3_600);
        health.record_failure(now);
        assert!(!health.is_set_aside(now + SECOND), "all is forgiven");
    }

    #[test]
    fn a_server_is_up_again_once_it_has_answered_and_not_before() {
        let (health, now) = (Health::new(), Instant::now());
        assert!(health.is_up());
        health.record_failure(now);
        let later = now + Duration::from_secs(60);
        assert!(!health.is_set_aside(later), "its pause is over, and it is tried again");
        assert!(!health.is_up(), "but it has not answered yet");
        assert!(health.record_response() && health.is_up());
        assert!(!health.record_response(), "it was up already");
    }

    #[test]
    fn an_answer_does_not_outweigh_failed_checks() {
        let (health, now) = (Health::new(), Instant::now());
        assert!(health.set_checked(false, now) && !health.set_checked(false, now));
        assert!(!health.record_response());
        assert!(health.is_set_aside(now) && !health.is_up());
        assert!(health.set_checked(true, now) && !health.set_checked(true, now));
        assert!(!health.is_set_aside(now) && health.is_up());
        health.record_failure(now);
        assert!(health.set_checked(true, now), "passed checks end a pause");
        assert!(!health.is_set_aside(now) && health.is_up());
    }

    #[test]
    fn the_share_of_a_server_that_came_back_grows_to_the_whole() {
        let (health, now) = (Health::new(), Instant::now() + SECOND);
        let share = |seconds: u32| health.share(now + SECOND * seconds, SECOND * 10);
        assert_eq!(share(0), None, "a new server gets all its requests");
        health.record_failure(now);
        assert_eq!(share(5), Some(FIRST_SHARE), "it has not answered yet");
        health.recover(now);
        assert_eq!(share(0), Some(FIRST_SHARE));
        let half = share(5).unwrap();
        assert!((35_000..37_000).contains(&half), "55 % after half of the time: {half}");
        assert!(share(9).unwrap() < 1 << 16);
        assert_eq!(share(10), None);
        assert_eq!(share(5), None, "the slow start is over");
    }
}
