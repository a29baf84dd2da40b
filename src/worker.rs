//! Holds the resources of one core, which its requests borrow. They are neither `Send` nor `Sync`, so no other core can
//! access them.

use crate::acme::{Acme, Challenges};
use crate::authenticate::{Principal, TokenCache};
use crate::clock::Now;
use crate::decision_log::{DecisionLog, Recorder};
use crate::denial::Denial;
use crate::forward::Pools;
use crate::forward::files::DiskTasks;
use crate::journal::{Journal, Level};
use crate::metrics::WorkerCounters;
use crate::peer::{CoarseMillis, Connection};
use crate::policy::{LivePolicy, PinnedPolicy};
use crate::request_id::RequestIds;
use crate::tls::Certificates;
use crate::turns::Turns;
use crate::worker_settings::WorkerSettings;
use std::cell::{Cell, RefCell, RefMut};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// Maximum number of verified tokens in a core's cache.
const TOKENS: usize = 16_384;
/// Maximum size of a core's token cache, in bytes: 2 KiB per token, which is enough unless tokens contain long lists.
const TOKEN_BYTES: usize = 2048 * TOKENS;
/// Size in bytes at which access lines are passed to the log. Smaller batches are passed at the next sweep.
const LOG_BATCH: usize = 32 * 1024;

/// The state that the cores and the control thread share.
pub(crate) struct Shared {
    pub(crate) policy: LivePolicy,
    /// The certificates, if a listener uses TLS.
    pub(crate) certificates: Option<Certificates>,
    /// The certificate that the gateway orders, if the policy asks for it.
    pub(crate) acme: Arc<Acme>,
    pub(crate) journal: Journal,
    pub(crate) counters: Vec<Arc<WorkerCounters>>,
    /// The decision log of each core. Empty if decisions are not kept.
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
    turns: Turns,
    pools: Rc<Pools>,
    disk: DiskTasks,
    /// The memory of the encoders of compressed answers, in bytes.
    encoder_memory: Cell<u64>,
    counters: Arc<WorkerCounters>,
    challenges: Arc<Challenges>,
    recorder: Option<Recorder>,
    journal: Journal,
    lines: RefCell<Vec<u8>>,
    request_ids: RequestIds,
    clock: Cell<Now>,
    coarse_now: Cell<CoarseMillis>,
    /// The number of refused requests that the log has reported, and when it did.
    shed: Cell<(u64, CoarseMillis)>,
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
            turns: Turns::default(),
            pools: Rc::new(Pools::new(index, shared.journal.clone(), settings.body_timeout)),
            disk: DiskTasks::default(),
            encoder_memory: Cell::new(0),
            counters,
            challenges: shared.acme.challenges.clone(),
            recorder: shared.recent.get(index).cloned().map(Recorder::new),
            journal: shared.journal.clone(),
            lines: RefCell::new(Vec::new()),
            request_ids: RequestIds::seeded()
                .map_err(|_| io::Error::other("the system gives no random numbers"))?,
            clock: Cell::new(Now::read()),
            coarse_now: Cell::new(0),
            shed: Cell::default(),
        })
    }

    /// Returns the core's number, counted from 0.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Returns the settings, which never change while the process runs.
    pub(crate) fn settings(&self) -> &WorkerSettings {
        &self.settings
    }

    /// Pins the current policy. The pins are counted on this core only, so cores share no cache line.
    pub(crate) fn policy(&self) -> PinnedPolicy {
        self.policy.borrow_mut().current()
    }

    /// Borrows the cache of verified tokens. Do not hold the borrow across an `await`.
    pub(crate) fn tokens(&self) -> RefMut<'_, TokenCache> {
        self.tokens.borrow_mut()
    }

    /// Returns the turns in which requests check signatures.
    pub(crate) fn turns(&self) -> &Turns {
        &self.turns
    }

    pub(crate) fn pools(&self) -> &Rc<Pools> {
        &self.pools
    }

    /// Returns the threads that read files.
    pub(crate) fn disk(&self) -> &DiskTasks {
        &self.disk
    }

    pub(crate) fn encoder_memory(&self) -> &Cell<u64> {
        &self.encoder_memory
    }

    pub(crate) fn counters(&self) -> &WorkerCounters {
        &self.counters
    }

    /// Returns the answers to the challenges of an ACME server.
    pub(crate) fn challenges(&self) -> &Challenges {
        &self.challenges
    }

    /// Returns the recorder of decisions, or `None` if decisions are not kept.
    pub(crate) fn recorder(&self) -> Option<&Recorder> {
        self.recorder.as_ref()
    }

    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    pub(crate) fn request_ids(&self) -> &RequestIds {
        &self.request_ids
    }

    /// Returns the current time. Reads only the steady clock: the wall-clock time is computed from the last sweep, at
    /// most a quarter of a second ago.
    pub(crate) fn now(&self) -> Now {
        self.clock.get().later(Instant::now())
    }

    /// Returns the core's coarse clock: the time of the last sweep.
    pub(crate) fn coarse_now(&self) -> CoarseMillis {
        self.coarse_now.get()
    }

    /// Writes access lines to a buffer, which is passed to the log in batches.
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
            // The journal counts the lines that it cannot accept.
            let _ = self.journal.lines(batch);
        }
    }

    /// Updates the clocks, closes idle upstream connections, releases an outdated policy, trims the token cache and
    /// flushes access lines. `tick` is the core's coarse clock.
    pub(crate) fn sweep(&self, now: Now, tick: CoarseMillis) {
        self.clock.set(now);
        self.coarse_now.set(tick);
        self.pools.sweep(now.steady, tick);
        // Without requests, the core would keep an outdated policy.
        let policy = self.policy();
        let admit = |caller: Option<&Principal>, client: Option<&Connection>| {
            caller.map_or(Ok(()), |caller| policy.trust.still_admits(caller, now))?;
            let session = client.and_then(|client| client.tls());
            session.map_or(Ok(()), |session| session.still_holds(now.unix)).map_err(|_| Denial::Misdirected)
        };
        let count = |kind, end| self.counters.record_stream(kind, end);
        self.pools.streams().sweep(tick, admit, count);
        drop(policy);
        let mut tokens = self.tokens.borrow_mut();
        tokens.weigh(now);
        self.counters.token_cache_bytes.set(tokens.bytes() as u64);
        self.counters.token_cache_hits.set(tokens.hits());
        self.counters.token_cache_misses.set(tokens.misses());
        self.counters.api_keys.iter().zip(tokens.api_keys()).for_each(|(counter, count)| counter.set(count));
        drop(tokens);
        self.report_shed(tick);
        self.counters.sweeps.add(1);
        self.flush_log();
    }

    /// Logs the number of requests that were refused without an access line, at most once per second.
    fn report_shed(&self, tick: CoarseMillis) {
        let (reported, at) = self.shed.get();
        let shed = self.counters.requests_shed.get();
        if shed == reported || tick < at.saturating_add(1000) {
            return;
        }
        self.shed.set((shed, tick));
        self.journal.event_with(
            Level::Warn,
            "requests were refused: as many are in progress as [server.bounds] requests allows",
            &[
                ("core", self.index.into()),
                ("refused", shed.saturating_sub(reported).into()),
                ("bound", self.settings.requests_max.into()),
            ],
        );
    }

    /// Passes the buffered access lines to the log.
    pub(crate) fn flush_log(&self) {
        self.hand_over(&mut self.lines.borrow_mut());
    }
}
