//! Remembers the proofs that were accepted, so that no proof is accepted twice (RFC 9449 section 11.1).
//!
//! All cores share the memory, but only requests with a valid proof touch it. It stores 16 bytes for each proof. Memory
//! is bounded in two ways: in total, and for each key, so that one client cannot fill it. A proof that does not fit is
//! refused: to accept it, or to forget an older proof, would allow a replay.
//!
//! Proofs are forgotten by generation. A generation lasts as long as a proof can be accepted, and is kept for one more
//! such span. A proof that was created before the end of a forgotten generation is refused, so a clock that is set back
//! does not revive proofs.

use super::{AHEAD, Thumbprint};
use aws_lc_rs::digest::{Context, SHA256};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// The number of parts with a lock of their own. All proofs by one key are in one part.
const PARTS: usize = 64;
/// The share of the memory that the proofs by one key may take.
const KEY_SHARE: usize = 8;

/// The first 16 bytes of the SHA-256 of a proof's key and `jti`.
type Mark = [u8; 16];

/// The reason why a proof is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplayFault {
    /// The proof was accepted before.
    Seen,
    /// The proof was created at a time of which proofs have been forgotten.
    Forgotten,
    /// The memory is full.
    Full,
    /// The proofs by this key take their whole share of the memory.
    FullForKey,
}

/// The time at which a proof was created, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Created {
    /// The gateway issued the proof's nonce at this time.
    ByNonce(u64),
    /// The proof has no nonce, and its `iat` is this time. The client's clock may be ahead by `AHEAD` seconds.
    ByClient(u64),
}

impl Created {
    const fn seconds(self) -> u64 {
        match self {
            Self::ByNonce(seconds) | Self::ByClient(seconds) => seconds,
        }
    }

    /// Returns the latest time before which the proof cannot have been used.
    const fn earliest_use(self) -> u64 {
        match self {
            Self::ByNonce(seconds) => seconds,
            Self::ByClient(seconds) => seconds.saturating_sub(AHEAD),
        }
    }
}

/// How long and how many proofs are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReplayBounds {
    /// The longest time between the first and the last moment at which a proof is acceptable, in seconds.
    pub(super) span: u64,
    /// The maximum number of proofs.
    pub(super) capacity: usize,
}

/// The proofs that were accepted in one generation.
#[derive(Debug, Default)]
struct Generation {
    marks: HashSet<Mark>,
    /// The number of proofs by each key.
    by_key: HashMap<Thumbprint, usize>,
}

#[derive(Debug, Default)]
struct Part {
    /// When the current generation began, in seconds since 1970.
    began: u64,
    current: Generation,
    before: Generation,
    /// Proofs created before this time are refused, because the part may have forgotten them.
    forgotten: u64,
}

/// The accepted proofs.
#[derive(Debug)]
pub(super) struct ReplaySet {
    parts: [Mutex<Part>; PARTS],
    /// The number of proofs in all parts.
    count: AtomicUsize,
    /// Proofs that could be used before this time are refused, because another process may have accepted them.
    start: AtomicU64,
}

impl Default for ReplaySet {
    fn default() -> Self {
        Self {
            parts: std::array::from_fn(|_| Mutex::default()),
            count: AtomicUsize::default(),
            start: AtomicU64::default(),
        }
    }
}

impl ReplaySet {
    /// Refuses proofs that could be used before this time, in seconds since 1970.
    pub(super) fn refuse_before(&self, start: u64) {
        self.start.store(start, Ordering::Relaxed);
    }

    /// Returns the number of remembered proofs.
    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Remembers a proof. With `is_recorded` set to false, only looks it up.
    ///
    /// # Errors
    /// Returns why the proof must not be accepted.
    pub(super) fn admit(
        &self,
        key: &Thumbprint,
        id: &str,
        created: Created,
        now: u64,
        bounds: ReplayBounds,
        is_recorded: bool,
    ) -> Result<(), ReplayFault> {
        let mark = mark(key, id);
        let admitted = self.try_admit(key, mark, created, now, bounds, is_recorded);
        if admitted != Err(ReplayFault::Full) {
            return admitted;
        }
        // Parts without recent requests may still contain forgettable proofs.
        for part in &self.parts {
            self.forget(&mut part.lock().unwrap_or_else(PoisonError::into_inner), now, bounds.span);
        }
        self.try_admit(key, mark, created, now, bounds, is_recorded)
    }

    fn try_admit(
        &self,
        key: &Thumbprint,
        mark: Mark,
        created: Created,
        now: u64,
        bounds: ReplayBounds,
        is_recorded: bool,
    ) -> Result<(), ReplayFault> {
        let mut part =
            self.parts[usize::from(key.0[0]) % PARTS].lock().unwrap_or_else(PoisonError::into_inner);
        self.forget(&mut part, now, bounds.span);
        let start = self.start.load(Ordering::Relaxed);
        if created.seconds() < part.forgotten || created.earliest_use() < start {
            return Err(ReplayFault::Forgotten);
        }
        if part.current.marks.contains(&mark) || part.before.marks.contains(&mark) {
            return Err(ReplayFault::Seen);
        }
        if !is_recorded {
            return Ok(());
        }
        let of_key = |generation: &Generation| generation.by_key.get(key).copied().unwrap_or(0);
        if of_key(&part.current) + of_key(&part.before) >= (bounds.capacity / KEY_SHARE).max(1) {
            return Err(ReplayFault::FullForKey);
        }
        // The count is raised before the check, so that two parts cannot both take the last place.
        if self.count.fetch_add(1, Ordering::Relaxed) >= bounds.capacity {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return Err(ReplayFault::Full);
        }
        part.current.marks.insert(mark);
        *part.current.by_key.entry(*key).or_default() += 1;
        Ok(())
    }

    /// Begins a new generation once the current one has lasted for `span` seconds. If the clock was set back, nothing
    /// is forgotten until it has caught up.
    ///
    /// A proof that was accepted before a moment was created at most `AHEAD` seconds after it. `forgotten` is therefore
    /// the end of the dropped generation plus `AHEAD`, and no acceptable proof is older than that.
    fn forget(&self, part: &mut Part, now: u64, span: u64) {
        if now < part.began.saturating_add(span) {
            return;
        }
        let mut freed = 0;
        let (before, current) = (std::mem::take(&mut part.before), std::mem::take(&mut part.current));
        if !before.marks.is_empty() {
            freed += before.marks.len();
            part.forgotten = part.forgotten.max(part.began + AHEAD);
        }
        if now < part.began.saturating_add(2 * span) {
            part.before = current;
        } else if !current.marks.is_empty() {
            freed += current.marks.len();
            part.forgotten = part.forgotten.max(part.began + span + AHEAD);
        }
        part.began = now;
        self.count.fetch_sub(freed, Ordering::Relaxed);
    }
}

fn mark(key: &Thumbprint, id: &str) -> Mark {
    let mut context = Context::new(&SHA256);
    context.update(&key.0);
    context.update(id.as_bytes());
    let mut mark = [0; 16];
    mark.copy_from_slice(&context.finish().as_ref()[..16]);
    mark
}

#[cfg(test)]
mod tests {
    use super::Created::{ByClient, ByNonce};
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    const SPAN: u64 = 70;

    fn bounds(capacity: usize) -> ReplayBounds {
        ReplayBounds { span: SPAN, capacity }
    }

    fn key(byte: u8) -> Thumbprint {
        Thumbprint([byte; 32])
    }

    #[test]
    fn a_proof_is_accepted_once_by_each_key() {
        let set = ReplaySet::default();
        let admit =
            |key_byte, id: &str, now| set.admit(&key(key_byte), id, ByClient(now), now, bounds(1000), true);
        assert_eq!(admit(1, "a", 1000), Ok(()));
        assert_eq!(admit(1, "a", 1000), Err(ReplayFault::Seen));
        assert_eq!(admit(2, "a", 1000), Ok(()), "another key");
        assert_eq!(admit(1, "b", 1000), Ok(()), "another id");
        assert_eq!(set.len(), 3);
        assert_eq!(
            set.admit(&key(1), "c", ByClient(1000), 1000, bounds(1000), false),
            Ok(()),
            "only looked up"
        );
        assert_eq!(admit(1, "c", 1000), Ok(()));
    }

    #[test]
    fn when_it_is_full_new_proofs_are_refused_and_none_is_forgotten() {
        let set = ReplaySet::default();
        let admit = |key_byte: u8, id: usize, now| {
            set.admit(&key(key_byte), &id.to_string(), ByClient(now), now, bounds(64), true)
        };
        for byte in 0..8 {
            for id in 0..8 {
                assert_eq!(admit(byte, id, 1000), Ok(()));
            }
            assert_eq!(admit(byte, 8, 1000), Err(ReplayFault::FullForKey), "one client cannot fill it");
        }
        assert_eq!(admit(200, 1, 1000), Err(ReplayFault::Full));
        for byte in 0..8 {
            assert_eq!(admit(byte, 0, 1000), Err(ReplayFault::Seen));
        }
        assert_eq!(admit(200, 1, 1000 + 2 * SPAN), Ok(()), "the expired proofs of all parts make room");
        assert_eq!(set.len(), 1);
    }

    #[test]
    fn neither_a_restart_nor_a_clock_that_is_set_back_revives_a_proof() {
        let set = ReplaySet::default();
        set.refuse_before(1000);
        let admit =
            |id: &str, created, now| set.admit(&key(1), id, ByNonce(created), now, bounds(1000), true);
        assert_eq!(admit("a", 999, 1001), Err(ReplayFault::Forgotten));
        // A client's clock may be ahead: its proof may have been used before the time that it states.
        for (created, expected) in [(1000 + AHEAD - 1, Err(ReplayFault::Forgotten)), (1000 + AHEAD, Ok(()))] {
            assert_eq!(set.admit(&key(2), "a", ByClient(created), 1001, bounds(1000), true), expected);
        }
        assert_eq!(admit("a", 1001, 1001), Ok(()));
        assert_eq!(admit("b", 1001 + 3 * SPAN, 1001 + 3 * SPAN), Ok(()));
        assert_eq!(admit("a", 1001, 1002), Err(ReplayFault::Forgotten), "the clock was set back");
        assert_eq!(admit("b", 1001 + 3 * SPAN, 1002), Err(ReplayFault::Seen));
    }

    proptest! {
        #[test]
        fn no_proof_is_accepted_twice_and_no_acceptable_one_is_lost(
            steps in proptest::collection::vec((0_u64..40, 0_u64..SPAN, 0_u8..6, 0_u8..3), 1..300)
        ) {
            let (set, mut seen, mut now) = (ReplaySet::default(), HashSet::new(), 10_000);
            for (wait, age, id, by) in steps {
                now += wait;
                // The window is `SPAN - AHEAD`.
                let created = now + AHEAD - age;
                let proof = (by, id, created);
                let admitted = set.admit(&key(by), &format!("{id} {created}"), ByClient(created), now, bounds(1_000_000), true);
                let expected = if seen.insert(proof) { Ok(()) } else { Err(ReplayFault::Seen) };
                prop_assert_eq!(admitted, expected);
            }
        }
    }
}
