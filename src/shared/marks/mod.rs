//! Sends the gateway's revocations to the other gateways, and applies theirs.
//!
//! The marks are entries of a stream, which each gateway reads from its last position. A gateway that does not find its
//! last position in the stream has missed entries, or Redis has lost its memory. It then reads the whole stream, and
//! writes back the marks that it knows and the stream does not have. A gateway never drops a mark because Redis did.
//!
//! The marks of the local authority's tokens are in its store, too, which stays the source of truth. The stream only
//! brings them sooner.

mod entry;
mod follow;
mod publish;
mod stream;

pub use entry::{Found as FoundMark, read as read_mark, write as write_mark};
pub(super) use follow::{UNKNOWN, follow};
pub(super) use publish::publish;
#[doc(hidden)]
pub use stream::read_page;

use super::settings::SharedSettings;
use crate::authenticate::{MarkDigest, Revoked};
use crate::config::file::OnError;
use arc_swap::ArcSwap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The kind of the stream's key.
pub(super) const KIND: &str = "marks";
/// The name of the stream's key.
pub(super) const NAME: &str = "stream";
/// The time that the stream may be unreadable. After that time, the marks count as incomplete.
const BLIND_AFTER: Duration = Duration::from_secs(10);
/// The time that a start waits while the stream is being read. It does not wait for a stream that cannot be read.
const READ_MAX: Duration = Duration::from_secs(30);
/// The time that a start waits before it logs that it waits.
const SILENT: Duration = Duration::from_millis(100);
/// The longest time for which a mark is kept: no duration in a policy is longer.
const KEPT_MAX: u64 = 10 * 366 * 86_400;

/// The marks of the policy in force.
#[derive(Clone, Debug)]
pub struct Followed {
    /// The marks.
    pub revoked: Arc<Revoked>,
    /// The digest of the local authority's name, if the policy has one.
    pub issuer: Option<MarkDigest>,
    /// Whether the gateway also reads the marks from a store.
    pub has_store: bool,
}

/// The state of the exchange of marks.
#[derive(Debug)]
pub(super) struct MarkExchange {
    followed: ArcSwap<Followed>,
    /// The longest time from a mark's entry in the stream to its end, in seconds.
    retention: AtomicU64,
    /// The time of the last entry that was read, by the clock of Redis in seconds since 1970; 0 if the stream is empty.
    newest: AtomicU64,
    /// Whether the whole stream has to be read again.
    must_compare: AtomicBool,
    /// Whether a mark of a signal had no room, and the whole stream was not read again since then.
    lacks_room: AtomicBool,
    /// The number of marks of signals that had no room.
    without_room: AtomicU64,
    /// When the stream was last read; `None` before the first time.
    heard: Mutex<Option<Instant>>,
    is_heard: Condvar,
    /// The reason why the last reading failed; `None` after a reading that ended well.
    fault: Mutex<Option<String>>,
    /// Whether the incomplete marks are in the log.
    is_blind: AtomicBool,
    counts: MarkCounts,
}

/// The counts of marks, and whether they are complete.
#[derive(Debug, Default)]
pub struct MarkCounts {
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) rejected: AtomicU64,
}

impl MarkExchange {
    pub(super) fn new(followed: Followed) -> Self {
        followed.revoked.signals().news().want();
        Self {
            followed: ArcSwap::from_pointee(followed),
            retention: AtomicU64::new(0),
            newest: AtomicU64::new(0),
            must_compare: AtomicBool::new(false),
            lacks_room: AtomicBool::new(false),
            without_room: AtomicU64::new(0),
            heard: Mutex::new(None),
            is_heard: Condvar::new(),
            fault: Mutex::new(None),
            // A start logs whether the marks are known once it has waited for them.
            is_blind: AtomicBool::new(true),
            counts: MarkCounts::default(),
        }
    }

    /// Applies the marks of a new policy.
    pub(super) fn set_followed(&self, followed: Followed, settings: &SharedSettings) {
        followed.revoked.signals().news().want();
        self.followed.store(Arc::new(followed));
        self.judge(settings);
    }

    /// Deletes the marks that wait to be sent, and collects no more.
    pub(super) fn stop_collecting(&self) {
        self.followed.load().revoked.signals().news().stop();
    }

    /// Returns whether the marks of the whole fleet were known within the last seconds.
    pub(super) fn is_complete(&self) -> bool {
        let has_heard = self.heard().is_some_and(|heard| heard.elapsed() < BLIND_AFTER);
        has_heard && !self.lacks_room.load(Ordering::Relaxed)
    }

    /// Returns whether this gateway refuses tokens while the marks are incomplete. A gateway with a store does not,
    /// because its store has all marks.
    pub(super) fn denies(&self, settings: &SharedSettings) -> bool {
        !self.followed.load().has_store && settings.on_error.revocation == OnError::Deny
    }

    /// Returns whether the gateway has never known the marks of the fleet, and must know them.
    pub(super) fn is_unready(&self, settings: &SharedSettings) -> bool {
        self.heard().is_none() && self.denies(settings)
    }

    /// Refuses or accepts tokens by the state of the marks. Returns `Some(blind)` if that has changed.
    fn judge(&self, settings: &SharedSettings) -> Option<bool> {
        let followed = self.followed.load();
        if followed.has_store {
            // The reader of the store decides.
            self.is_blind.store(false, Ordering::Relaxed);
            return None;
        }
        let blind = self.denies(settings) && !self.is_complete();
        followed.revoked.set_blind(blind);
        (self.is_blind.swap(blind, Ordering::Relaxed) != blind).then_some(blind)
    }

    /// Counts the marks as unknown from now on, because nobody reads the stream any more.
    fn stop(&self, settings: &SharedSettings) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.judge(settings);
    }

    /// Waits until the marks of the fleet are known. Waits for `patience` only while the server does not answer, or its
    /// answers cannot be used. Returns whether the marks are known. `announce` is called if the wait is not short.
    pub(super) fn wait(
        &self,
        patience: Duration,
        is_up: impl Fn() -> bool,
        announce: impl FnOnce(Duration),
    ) -> bool {
        let begun = Instant::now();
        let mut announce = Some(announce);
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        while heard.is_none() {
            let is_reading = is_up() && self.fault().is_none();
            if begun.elapsed() >= if is_reading { READ_MAX } else { patience } {
                return false;
            }
            if let Some(announce) = announce.take_if(|_| begun.elapsed() >= SILENT) {
                announce(if is_reading { READ_MAX } else { patience });
            }
            let waited = self.is_heard.wait_timeout(heard, Duration::from_millis(20));
            heard = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn heard(&self) -> Option<Instant> {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns why the last reading failed.
    pub(super) fn fault(&self) -> Option<String> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note_fault(&self, why: Option<String>) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    fn note_heard(&self) {
        self.note_fault(None);
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.is_heard.notify_all();
    }

    /// Returns the counts of marks.
    pub(super) fn counts(&self) -> &MarkCounts {
        &self.counts
    }

    /// Returns the number of marks that wait to be sent.
    pub(super) fn waiting(&self) -> usize {
        self.followed.load().revoked.signals().news().len()
    }

    /// Returns the time before which entries of the stream are not needed, in milliseconds since 1970. `None` while
    /// entries may be unknown, because a gateway must not delete what it has not read.
    ///
    /// An entry must be old by the clock of this gateway and by that of Redis: its age in the stream counts from the
    /// newest entry. A gateway whose clock is ahead would delete what others need.
    fn oldest(&self, now: u64) -> Option<u64> {
        /// For clocks that differ.
        const MARGIN: u64 = 3600;
        let newest = self.newest.load(Ordering::Relaxed);
        if newest == 0 || !self.is_complete() {
            return None;
        }
        let retention = self.retention.load(Ordering::Relaxed).saturating_add(MARGIN);
        Some(now.min(newest).saturating_sub(retention).saturating_mul(1000))
    }

    /// Notes for how long an entry of the stream is needed.
    fn retain(&self, added: u64, until: u64) {
        self.retention.fetch_max(until.saturating_sub(added).min(KEPT_MAX), Ordering::Relaxed);
    }
}

impl MarkCounts {
    /// Returns the number of marks that were sent to the other gateways.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Returns the number of marks of other gateways that were applied.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Returns the number of entries that were not applied: unreadable, or too many.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }
}
