//! Keeps the latest decisions of each core in bounded rings.
//!
//! Each core writes to its rings, and the control thread reads them. A core never waits: it drops a decision while the
//! ring is being read. A core with few requests keeps all other decisions. A busy core keeps a sample that is spread
//! evenly over time, so each entry stays for at least a minute.
//!
//! Permitted and refused decisions have separate rings, so many decisions of one kind do not evict the other kind.

use super::entry::Decision;
use crate::clock::Now;
use std::cell::Cell;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// Maximum length of a line, in bytes. A longer decision is not kept, because truncating the path or the roles would
/// change its meaning.
pub const LINE_BYTES_MAX: usize = 2048;
/// Minimum time to replace all entries of a full ring, in milliseconds.
const SPAN: u64 = 60_000;

/// The recent decisions of one core.
#[derive(Debug)]
pub struct DecisionLog {
    permitted: Mutex<Ring>,
    refused: Mutex<Ring>,
}

impl DecisionLog {
    /// Creates a log for `capacity` decisions. Half of the capacity is for refusals.
    pub fn new(capacity: usize) -> Self {
        let half = || Mutex::new(Ring::new(capacity.div_ceil(2)));
        Self { permitted: half(), refused: half() }
    }

    /// Appends all entries to `out`: the time of the decision in milliseconds since 1970, and the line.
    pub fn copy_to(&self, out: &mut Vec<(u64, Vec<u8>)>) {
        for ring in [&self.permitted, &self.refused] {
            let ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
            out.extend(ring.iter().map(|kept| (kept.time, kept.line.clone())));
        }
    }

    /// Removes all entries.
    pub fn clear(&self) {
        for ring in [&self.permitted, &self.refused] {
            let mut ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
            *ring = Ring::new(ring.kept.len());
        }
    }

    fn ring(&self, is_refusal: bool) -> &Mutex<Ring> {
        if is_refusal { &self.refused } else { &self.permitted }
    }
}

/// Returns the entries of all cores as lines, from oldest to newest.
pub fn lines(cores: &[Arc<DecisionLog>]) -> Vec<u8> {
    let mut kept = Vec::new();
    cores.iter().for_each(|recent| recent.copy_to(&mut kept));
    kept.sort_by_key(|(time, _)| *time);
    let mut out = Vec::with_capacity(kept.iter().map(|(_, line)| line.len() + 1).sum());
    for (_, line) in kept {
        out.extend_from_slice(&line);
        out.push(b'\n');
    }
    out
}

/// The writer of one core's log.
#[derive(Debug)]
pub struct Recorder {
    recent: Arc<DecisionLog>,
    permitted: Allowance,
    refused: Allowance,
}

impl Recorder {
    /// Creates the writer of a log.
    pub fn new(recent: Arc<DecisionLog>) -> Self {
        let allowance = |ring: &Mutex<Ring>| {
            Allowance::new(ring.lock().unwrap_or_else(PoisonError::into_inner).kept.len())
        };
        let (permitted, refused) = (allowance(&recent.permitted), allowance(&recent.refused));
        Self { recent, permitted, refused }
    }

    /// Returns whether to keep the next decision of this kind. `tick` is the time in milliseconds. This check is cheap.
    /// On a busy core, it usually returns false.
    pub fn wants(&self, is_refusal: bool, tick: u64) -> bool {
        let allowance = if is_refusal { &self.refused } else { &self.permitted };
        allowance.take(tick)
    }

    /// Replaces the oldest decision of the same kind with this decision. Does not allocate once the ring is full.
    pub fn keep(&self, now: Now, decision: &Decision<'_>) {
        let ring = self.recent.ring(decision.code.is_some());
        let mut ring: MutexGuard<'_, Ring> = match ring.try_lock() {
            Ok(ring) => ring,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        ring.keep(now.unix.saturating_mul(1000) + u64::from(now.subsec_nanos / 1_000_000), decision);
    }
}

#[derive(Debug)]
struct Ring {
    kept: Box<[Kept]>,
    next: usize,
    /// The buffer for the next line. When complete, it is swapped with the oldest entry.
    scratch: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
struct Kept {
    time: u64,
    line: Vec<u8>,
}

impl Ring {
    fn new(capacity: usize) -> Self {
        Self { kept: vec![Kept::default(); capacity].into(), next: 0, scratch: Vec::new() }
    }

    fn keep(&mut self, time: u64, decision: &Decision<'_>) {
        self.scratch.clear();
        if serde_json::to_writer(Bounded(&mut self.scratch), decision).is_err() {
            return;
        }
        let Some(oldest) = self.kept.get_mut(self.next) else { return };
        oldest.time = time;
        std::mem::swap(&mut oldest.line, &mut self.scratch);
        self.next = (self.next + 1) % self.kept.len();
    }

    fn iter(&self) -> impl Iterator<Item = &Kept> {
        let (newer, older) = self.kept.split_at(self.next);
        older.iter().chain(newer).filter(|kept| !kept.line.is_empty())
    }
}

/// A writer that fails if a line becomes longer than [`LINE_BYTES_MAX`].
struct Bounded<'l>(&'l mut Vec<u8>);

impl io::Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > LINE_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A token bucket for `capacity` decisions that refills within [`SPAN`]. Its state is a single number (GCRA).
#[derive(Debug)]
struct Allowance {
    /// The cost of one decision in milliseconds.
    cost: u64,
    /// The capacity of the bucket, in milliseconds.
    credit: u64,
    /// The time at which the bucket is full again, in milliseconds.
    paid: Cell<u64>,
}

impl Allowance {
    fn new(capacity: usize) -> Self {
        let capacity = u64::try_from(capacity).unwrap_or(u64::MAX).max(1);
        let cost = SPAN.div_ceil(capacity);
        Self { cost, credit: cost.saturating_mul(capacity), paid: Cell::new(0) }
    }

    fn take(&self, now: u64) -> bool {
        let paid = self.paid.get().max(now).saturating_add(self.cost);
        let is_allowed = paid - now <= self.credit;
        if is_allowed {
            self.paid.set(paid);
        }
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Entry, LoggedCredential};
    use super::*;
    use crate::peer::Scheme;
    use proptest::prelude::*;
    use std::net::IpAddr;

    fn observed<'o>(path: &'o str, code: Option<&'static str>) -> Decision<'o> {
        Decision {
            time: 100,
            method: "GET",
            scheme: Scheme::Http,
            host: "h",
            path,
            client: IpAddr::from([127, 0, 0, 1]),
            credential: LoggedCredential::None,
            principal: None,
            claims: &[],
            route: None,
            code,
            shadow: false,
        }
    }

    fn kept(recent: &Arc<DecisionLog>) -> Vec<String> {
        let lines = lines(std::slice::from_ref(recent));
        let lines = std::str::from_utf8(&lines).unwrap().lines();
        lines.map(|line| serde_json::from_str::<Entry>(line).unwrap().path).collect()
    }

    fn at(millis: u64) -> Now {
        Now { subsec_nanos: u32::try_from(millis % 1000).unwrap() * 1_000_000, ..Now::at(millis / 1000) }
    }

    #[test]
    fn the_oldest_of_its_kind_is_evicted_and_the_list_is_ordered_by_time() {
        let recent = Arc::new(DecisionLog::new(4));
        let recorder = Recorder::new(recent.clone());
        recorder.keep(at(1), &observed("/refused", Some("no_route")));
        for (time, path) in [(2, "/a"), (3, "/b"), (4, "/c")] {
            recorder.keep(at(time), &observed(path, None));
        }
        assert_eq!(kept(&recent), ["/refused", "/b", "/c"], "a refusal is not pushed out by others");
        let other = Arc::new(DecisionLog::new(2));
        Recorder::new(other.clone()).keep(at(3), &observed("/elsewhere", None));
        let both = lines(&[recent, other]);
        let both = String::from_utf8(both).unwrap();
        let order = ["/refused", "/b", "/elsewhere", "/c"].map(|path| both.find(path).unwrap());
        assert!(order.is_sorted(), "{both}");
    }

    #[test]
    fn a_decision_that_needs_too_many_bytes_is_left_out_whole() {
        let recent = Arc::new(DecisionLog::new(4));
        let recorder = Recorder::new(recent.clone());
        let spare = LINE_BYTES_MAX - serde_json::to_string(&observed("", None)).unwrap().len();
        recorder.keep(at(1), &observed("/before", None));
        recorder.keep(at(2), &observed(&"a".repeat(spare + 1), None));
        assert_eq!(kept(&recent), ["/before"]);
        recorder.keep(at(3), &observed(&"a".repeat(spare), None));
        assert_eq!(kept(&recent).len(), 2, "one byte less is kept");
    }

    #[test]
    fn a_core_does_not_wait_for_who_reads_and_what_is_forgotten_is_gone() {
        let recent = Arc::new(DecisionLog::new(4));
        let recorder = Recorder::new(recent.clone());
        let reading = recent.permitted.lock().unwrap();
        recorder.keep(at(1), &observed("/lost", None));
        drop(reading);
        recorder.keep(at(2), &observed("/kept", None));
        assert_eq!(kept(&recent), ["/kept"]);
        recent.clear();
        assert!(kept(&recent).is_empty());
    }

    #[test]
    fn no_room_keeps_nothing() {
        let recent = Arc::new(DecisionLog::new(0));
        Recorder::new(recent.clone()).keep(at(1), &observed("/a", None));
        assert!(kept(&recent).is_empty());
    }

    proptest! {
        #[test]
        fn a_burst_is_kept_and_then_a_ring_is_never_replaced_within_a_minute(
            capacity in 1..600usize,
            gaps in proptest::collection::vec(0..400u64, 1..2000),
        ) {
            let allowance = Allowance::new(capacity);
            let mut now = 0;
            let mut taken = Vec::new();
            for (nth, gap) in gaps.into_iter().enumerate() {
                now += gap;
                let is_taken = allowance.take(now);
                prop_assert!(is_taken || nth >= capacity, "the first ones are all kept");
                if is_taken {
                    taken.push(now);
                }
            }
            // A burst may fill the ring. Filling it again takes at least a minute.
            for window in taken.windows(2 * capacity + 1) {
                let span = window[2 * capacity] - window[0];
                prop_assert!(span >= SPAN, "{span}");
            }
        }
    }
}
