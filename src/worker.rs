//! The resources of one core, which its requests borrow. They are neither `Send` nor `Sync`, so no other core can
//! access them.

use crate::authenticate::TokenCache;
use crate::clock::Now;
use crate::decision_log::{DecisionLog, Recorder};
use crate::forward::Pools;
use crate::journal::Journal;
use crate::metrics::WorkerCounters;
use crate::peer::CoarseMillis;
use crate::policy::{LivePolicy, PinnedPolicy};
use crate::request_id::RequestIds;
use crate::tls::Certificates;
use crate::worker_settings::WorkerSettings;
use std::cell::{Cell, RefCell, RefMut};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// The maximum number of verified tokens in a core's cache.
const TOKENS: usize = 16_384;
/// The maximum size of a core's token cache in bytes: 2 KiB per token, which suffices unless tokens contain long lists.
const TOKEN_BYTES: usize = 2048 * TOKENS;
/// The size in bytes at which a batch of access lines is passed to the log. A batch that is still smaller is passed to
/// the log at the next sweep.
const LOG_BATCH: usize = 32 * 1024;

/// The parts that the cores share with each other and with the control thread.
pub(crate) struct Shared {
    /// The policy in force.
    pub(crate) policy: LivePolicy,
    /// The certificates, if a listener uses TLS.
    pub(crate) certificates: Option<Certificates>,
    /// The log.
    pub(crate) journal: Journal,
    /// The counters of each core.
    pub(crate) counters: Vec<Arc<WorkerCounters>>,
    /// The decision log of each core; empty if decisions are not kept.
    pub(crate) recent: Vec<Arc<DecisionLog>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// The resources of one core.
pub(crate) struct Worker {
    index: usize,
    settings: WorkerSettings,
    policy: RefCell<crate::policy::Pinned>,
    tokens: RefCell<TokenCache>,
    pools: Rc<Pools>,
    counters: Arc<WorkerCounters>,
    recorder: Option<Recorder>,
    journal: Journal,
    lines: RefCell<Vec<u8>>,
    request_ids: RequestIds,
    clock: Cell<Now>,
    coarse_now: Cell<CoarseMillis>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Worker {
    /// Creates the resources of core number `index`.
    ///
    /// # Errors
    /// Returns an error if the system provides no random numbers.
    pub(crate) fn new(index: usize, shared: &Shared, settings: WorkerSettings) -> io::Result<Self> {
        let counters = shared.counters[index].clone();
        Ok(Self {
            index,
            settings,
            policy: RefCell::new(shared.policy.pin()),
            tokens: RefCell::new(TokenCache::bounded(TOKENS, TOKEN_BYTES)),
            pools: Rc::new(Pools::new(index, shared.journal.clone())),
            counters,
            recorder: shared.recent.get(index).cloned().map(Recorder::new),
            journal: shared.journal.clone(),
            lines: RefCell::new(Vec::new()),
            request_ids: RequestIds::seeded()
                .map_err(|_| io::Error::other("the system gives no random numbers"))?,
            clock: Cell::new(Now::read()),
            coarse_now: Cell::new(0),
        })
    }

    /// Returns the number of the core, counted from 0.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Returns the settings that are fixed for the life of the process.
    pub(crate) fn settings(&self) -> &WorkerSettings {
        &self.settings
    }

    /// Pins the policy in force. The pins are counted on this core only, so that no cache line is shared with other
    /// cores.
    pub(crate) fn policy(&self) -> PinnedPolicy {
        self.policy.borrow_mut().current()
    }

    /// Borrows the cache of verified tokens. The caller must not hold the borrow across an `await`.
    pub(crate) fn tokens(&self) -> RefMut<'_, TokenCache> {
        self.tokens.borrow_mut()
    }

    /// Returns the pools of upstream connections.
    pub(crate) fn pools(&self) -> &Rc<Pools> {
        &self.pools
    }

    /// Returns this core's counters.
    pub(crate) fn counters(&self) -> &WorkerCounters {
        &self.counters
    }

    /// Returns the recorder of decisions; `None` if decisions are not kept.
    pub(crate) fn recorder(&self) -> Option<&Recorder> {
        self.recorder.as_ref()
    }

    /// Returns the log.
    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Returns the source of request ids.
    pub(crate) fn request_ids(&self) -> &RequestIds {
        &self.request_ids
    }

    /// Returns the current time. Only the steady clock is read: the wall-clock time is computed from the last sweep,
    /// which was at most a quarter of a second ago.
    pub(crate) fn now(&self) -> Now {
        self.clock.get().later(Instant::now())
    }

    /// Returns the core's coarse clock, as of the last sweep.
    pub(crate) fn coarse_now(&self) -> CoarseMillis {
        self.coarse_now.get()
    }

    /// Appends access lines, which are passed to the log in batches.
    pub(crate) fn log_line(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut lines = self.lines.borrow_mut();
        write(&mut lines);
        if lines.len() >= LOG_BATCH {
            self.hand_over(&mut lines);
        }
    }

    fn hand_over(&self, lines: &mut Vec<u8>) {
        if !lines.is_empty() {
            let batch = std::mem::replace(lines, Vec::with_capacity(LOG_BATCH + LOG_BATCH / 8));
            // The result can be ignored, because the journal counts the lines that it cannot accept.
            let _ = self.journal.lines(batch);
        }
    }

    /// Stores the time, closes idle upstream connections, releases an outdated policy, trims the token cache and passes
    /// access lines to the log. `tick` is the core's coarse clock.
    pub(crate) fn sweep(&self, now: Now, tick: CoarseMillis) {
        self.clock.set(now);
        self.coarse_now.set(tick);
        self.pools.sweep(now.steady, tick);
        // Without requests, a core would otherwise keep an outdated policy.
        drop(self.policy());
        let mut tokens = self.tokens.borrow_mut();
        tokens.weigh(now);
        self.counters.token_cache_bytes.set(tokens.bytes() as u64);
        self.counters.token_cache_hits.set(tokens.hits());
        self.counters.token_cache_misses.set(tokens.misses());
        drop(tokens);
        self.flush_log();
    }

    /// Passes the gathered access lines to the log.
    pub(crate) fn flush_log(&self) {
        self.hand_over(&mut self.lines.borrow_mut());
    }
}
