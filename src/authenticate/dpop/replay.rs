//! Remembers accepted proofs, so that no proof is accepted twice (RFC 9449 section 11.1).
//!
//! All cores share the memory, which stores 16 bytes for each proof. The number of proofs is bounded in total, and for
//! each key, so that one client cannot fill the memory. A proof that does not fit is rejected, because accepting it or
//! forgetting an older proof would allow a replay.
//!
//! A generation contains the proofs of one span, the longest time for which a proof is acceptable. It is forgotten
//! after another span. Every proof that may be as old as a forgotten proof is rejected. A clock that is set back, or a
//! change of the window, therefore cannot allow a replay.

use super::{AHEAD, Thumbprint};
use aws_lc_rs::digest::{Context, SHA256};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// The number of parts, each with its own lock. All proofs by one key are in the same part.
const PARTS: usize = 64;
/// The proofs by one key may use at most one eighth of the memory.
const KEY_SHARE: usize = 8;

/// The first 16 bytes of the SHA-256 of a proof's key and `jti`.
type Mark = [u8; 16];

/// The reason why a proof is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplayFault {
    /// The proof was accepted before.
    Seen,
    /// The proof is so old that it may have been forgotten.
    Forgotten,
    /// The memory is full.
    Full,
    /// The proofs by this key use their share of the memory.
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

/// The bounds of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReplayBounds {
    /// The longest time during which a proof is acceptable, in seconds.
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
    /// The latest creation time of these proofs, in seconds since 1970.
    latest: u64,
}

#[derive(Debug, Default)]
struct Part {
    /// When the current generation began, in seconds since 1970.
    began: u64,
    current: Generation,
    before: Generation,
    /// Proofs created before this time are refused, because the part may have forgotten them.
    refused_before: u64,
}

impl Part {
    /// Forgets the proofs of a generation. Returns their number.
    fn drop_generation(&mut self, generation: Generation) -> usize {
        if !generation.marks.is_empty() {
            self.refused_before = self.refused_before.max(generation.latest.saturating_add(1));
        }
        generation.marks.len()
    }
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
    /// Rejects proofs that could be used before this time, in seconds since 1970.
    pub(super) fn refuse_before(&self, start: u64) {
        self.start.store(start, Ordering::Relaxed);
    }

    /// Returns the number of remembered proofs.
    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Remembers a proof. If `is_recorded` is false, only looks it up.
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
        // Parts without recent requests may contain expired proofs.
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
        if created.seconds() < part.refused_before || created.earliest_use() < start {
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
        // Raise the count before the check, so that two parts cannot both take the last place.
        if self.count.fetch_add(1, Ordering::Relaxed) >= bounds.capacity {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return Err(ReplayFault::Full);
        }
        part.current.marks.insert(mark);
        part.current.latest = part.current.latest.max(created.seconds());
        *part.current.by_key.entry(*key).or_default() += 1;
        Ok(())
    }

    /// Begins a new generation if the current one is older than `span` seconds. If the clock was set back, forgets
    /// nothing until the clock has caught up.
    ///
    /// A proof is created at most `AHEAD` seconds after its acceptance. An acceptable proof is therefore younger than
    /// all proofs of a generation that ended `span` seconds ago.
    fn forget(&self, part: &mut Part, now: u64, span: u64) {
        if now < part.began.saturating_add(span) {
            return;
        }
        let (before, current) = (std::mem::take(&mut part.before), std::mem::take(&mut part.current));
        let mut freed = part.drop_generation(before);
        if now < part.began.saturating_add(2 * span) {
            part.before = current;
        } else {
            freed += part.drop_generation(current);
        }
        part.began = now;
        self.count.fetch_sub(freed, Ordering::Relaxed);
    }
}

/// Returns the digest of a proof's key and `jti`.
pub(super) fn mark(key: &Thumbprint, id: &str) -> Mark {
    let mut context = Context::new(&SHA256);
    context.update(&key.0);
    context.update(id.as_bytes());
    let mut mark = [0; 16];
    mark.copy_from_slice(&context.finish().as_ref()[..16]);
    mark
}

#[cfg(test)]
mod tests;
