//! All that one core owns. Neither `Send` nor `Sync`: no other core can touch it.

use crate::accept::Connection;
use crate::accept::handshake::TlsLog;
use crate::accept::pulse::{Order, Overdue, Patience, SWEEP, Tick, ticks};
use crate::accept::reader::{OfConnection, Pace};
use crate::authenticate::TokenCache;
use crate::clock::Now;
use crate::denial::{Denial, Malformed};
use crate::forward::Pools;
use crate::journal::Journal;
use crate::metrics::WorkerCounters;
use crate::pipeline::unreadable;
use crate::plan::Plan;
use crate::policy::{LivePolicy, PinnedPolicy};
use crate::recent::{Recent, Recorder};
use crate::request_id::RequestIds;
use crate::route::HeadBounds;
use crate::tls::Certificates;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioTimer;
use std::cell::{Cell, RefCell, RefMut};
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How many verified tokens a core remembers.
const TOKENS: usize = 16_384;
/// How long a connection that is about to close waits for a request that is on its way.
const FAREWELL: Duration = Duration::from_secs(1);
/// How many bytes of memory they take at most: 2 KiB for each, which is ample unless tokens hold long lists.
const TOKEN_BYTES: usize = 2048 * TOKENS;
/// Access lines are handed over when so many bytes have gathered, or at the next sweep.
const LOG_BATCH: usize = 32 * 1024;

/// What the cores share with each other and with the control thread.
pub(crate) struct Shared {
    /// The policy in force.
    pub(crate) policy: LivePolicy,
    /// What clients are shown over TLS, where TLS is spoken.
    pub(crate) certificates: Option<Certificates>,
    /// Where log lines go.
    pub(crate) journal: Journal,
    /// One set of counters a core.
    pub(crate) counters: Vec<Arc<WorkerCounters>>,
    /// What was decided lately, one a core; none where nothing is kept.
    pub(crate) recent: Vec<Arc<Recent>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// One core.
pub(crate) struct Worker {
    index: usize,
    plan: Plan,
    policy: RefCell<crate::policy::Pinned>,
    tokens: RefCell<TokenCache>,
    pools: Rc<Pools>,
    counters: Arc<WorkerCounters>,
    recorder: Option<Recorder>,
    journal: Journal,
    lines: RefCell<Vec<u8>>,
    request_ids: RequestIds,
    http1: http1::Builder,
    connections: RefCell<Vec<Weak<Connection>>>,
    open: Cell<usize>,
    started: Instant,
    clock: Cell<Now>,
    tick: Cell<Tick>,
    closing: Cell<bool>,
    draining: Cell<bool>,
    tls_log: TlsLog,
    drain_wakers: RefCell<Vec<Waker>>,
    emptied: Notify,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Worker {
    /// A core with nothing to do yet.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub(crate) fn new(index: usize, shared: &Shared, plan: Plan) -> io::Result<Self> {
        let counters = shared.counters[index].clone();
        Ok(Self {
            index,
            plan,
            policy: RefCell::new(shared.policy.pin()),
            tokens: RefCell::new(TokenCache::bounded(TOKENS, TOKEN_BYTES)),
            pools: Rc::new(Pools::new(index, shared.journal.clone())),
            counters,
            recorder: shared.recent.get(index).cloned().map(Recorder::new),
            journal: shared.journal.clone(),
            lines: RefCell::new(Vec::new()),
            request_ids: RequestIds::seeded()
                .map_err(|_| io::Error::other("the system gives no random numbers"))?,
            http1: http1_settings(&plan),
            connections: RefCell::new(Vec::new()),
            open: Cell::new(0),
            started: Instant::now(),
            clock: Cell::new(Now::read()),
            tick: Cell::new(0),
            closing: Cell::new(false),
            draining: Cell::new(false),
            tls_log: TlsLog::default(),
            drain_wakers: RefCell::new(Vec::new()),
            emptied: Notify::new(),
        })
    }

    /// This core's number, from 0.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// What is fixed for the life of the process.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The policy in force, counted by this core alone.
    pub(crate) fn policy(&self) -> PinnedPolicy {
        self.policy.borrow_mut().current()
    }

    /// The verified tokens. To be held over no await.
    pub(crate) fn tokens(&self) -> RefMut<'_, TokenCache> {
        self.tokens.borrow_mut()
    }

    /// The upstream connections.
    pub(crate) fn pools(&self) -> &Rc<Pools> {
        &self.pools
    }

    /// This core's counters.
    pub(crate) fn counters(&self) -> &WorkerCounters {
        &self.counters
    }

    /// Where decisions are kept for a while, unless the policy keeps none.
    pub(crate) fn recorder(&self) -> Option<&Recorder> {
        self.recorder.as_ref()
    }

    /// Where events for operators go.
    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The source of request ids.
    pub(crate) fn request_ids(&self) -> &RequestIds {
        &self.request_ids
    }

    /// How connections of HTTP/1.1 are served.
    pub(crate) fn http1(&self) -> &http1::Builder {
        &self.http1
    }

    /// How a connection of HTTP/2 is served.
    pub(crate) fn http2(&self, executor: OfConnection) -> http2::Builder<OfConnection> {
        http2_settings(&self.plan, executor)
    }

    /// Which failures of TLS were logged lately.
    pub(crate) fn tls_log(&self) -> &TlsLog {
        &self.tls_log
    }

    /// What time it is, by one reading of the steady clock: the wall clock was read beside it at the last sweep, a
    /// quarter of a second ago, and no clock is set as often as that.
    pub(crate) fn now(&self) -> Now {
        self.clock.get().later(Instant::now())
    }

    /// The coarse clock that deadlines of connections are kept by.
    pub(crate) fn tick(&self) -> Tick {
        self.tick.get()
    }

    /// Appends access lines; they are handed over in batches, never on a request's own time.
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
            // The journal counts what it cannot take.
            let _ = self.journal.lines(batch);
        }
    }

    /// A connection was accepted.
    pub(crate) fn opened(&self, connection: &Rc<Connection>) {
        self.counters.connections_accepted.add(1);
        self.open.set(self.open.get() + 1);
        self.counters.connections_open.add(1);
        self.connections.borrow_mut().push(Rc::downgrade(connection));
        if self.draining.get() {
            connection.pulse.command(Order::Drain, self.tick());
        }
    }

    /// A connection has ended.
    pub(crate) fn closed(&self) {
        self.open.set(self.open.get() - 1);
        self.counters.connections_open.sub(1);
        if self.open.get() == 0 {
            self.emptied.notify_one();
        }
    }

    /// Counts a connection that was closed because something did not come in time.
    pub(crate) fn overdue(&self, overdue: Overdue) {
        match overdue {
            Overdue::Head => self.counters.head_timeouts.add(1),
            Overdue::Idle => self.counters.idle_timeouts.add(1),
            Overdue::Reader => self.counters.reader_timeouts.add(1),
            Overdue::Drain => self.counters.drain_timeouts.add(1),
            // Nobody was late: the connection was about to close, and no request came.
            Overdue::Farewell => {}
        }
    }

    /// Logs and counts bytes that were not HTTP. Returns the answer to them, where they deserve one.
    pub(crate) fn unreadable(&self, connection: &Connection, error: &hyper::Error) -> Option<Box<[u8]>> {
        let denial = match (error.is_parse_too_large(), error.is_parse()) {
            (true, _) => Denial::HeadersTooLarge,
            (false, true) => Denial::BadRequest(Malformed::Target),
            (false, false) => return None,
        };
        Some(unreadable::refuse(self, connection, denial, &error.to_string()))
    }

    /// Logs and counts a head that did not come in time. Returns the answer (RFC 9110 section 15.5.9).
    pub(crate) fn slow_head(&self, connection: &Connection) -> Box<[u8]> {
        let detail = "the head of the request took longer than header_timeout";
        unreadable::refuse(self, connection, Denial::RequestTimeout, detail)
    }

    /// From now on each answer of HTTP/1.1 is its connection's last.
    pub(crate) fn announce_end(&self) {
        self.closing.set(true);
    }

    /// Whether it is.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// Whether the worker takes no new connections. Otherwise the task of `cx` is woken when that begins.
    pub(crate) fn is_draining(&self, cx: &Context<'_>) -> bool {
        if !self.draining.get() {
            let mut wakers = self.drain_wakers.borrow_mut();
            if !wakers.iter().any(|known| known.will_wake(cx.waker())) {
                wakers.push(cx.waker().clone());
            }
        }
        self.draining.get()
    }

    /// Lets connections finish what they do, for as long as the plan says; then closes them.
    pub(crate) async fn drain(&self) {
        self.draining.set(true);
        self.drain_wakers.take().into_iter().for_each(Waker::wake);
        self.command_all(Order::Drain);
        // Accept loops take what is in the kernel's queue first: let them have their turn.
        tokio::task::yield_now().await;
        if tokio::time::timeout(self.plan.drain, self.until_empty()).await.is_err() {
            self.command_all(Order::Close(Overdue::Drain));
            // Connections that are ordered closed end at their next turn; one second is ample.
            let _ = tokio::time::timeout(Duration::from_secs(1), self.until_empty()).await;
        }
        self.hand_over(&mut self.lines.borrow_mut());
    }

    async fn until_empty(&self) {
        while self.open.get() > 0 {
            self.emptied.notified().await;
        }
    }

    fn command_all(&self, order: Order) {
        for connection in self.connections.borrow().iter().filter_map(Weak::upgrade) {
            connection.pulse.command(order, self.tick());
        }
    }

    /// Looks after deadlines, idle upstream connections and the log, a few times a second.
    pub(crate) async fn sweep(self: Rc<Self>) {
        // What happened since the last sweep bears its time: without one sweep more, deadlines would pass early.
        let late = |duration: Duration| ticks(duration.saturating_add(SWEEP));
        let pace = Pace { grace: late(self.plan.body_timeout), bytes_per_second: self.plan.min_rate };
        let patience = Patience {
            head: late(self.plan.header_timeout),
            idle: late(self.plan.idle_timeout),
            farewell: late(FAREWELL),
            pace,
        };
        let mut interval = tokio::time::interval(SWEEP);
        loop {
            interval.tick().await;
            let now = Now::read();
            self.clock.set(now);
            let tick = ticks(now.steady.saturating_duration_since(self.started));
            self.tick.set(tick);
            self.connections.borrow_mut().retain(|connection| match connection.upgrade() {
                Some(connection) => {
                    connection.pulse.examine(tick, patience);
                    let given_up = connection.streams.examine(tick, pace);
                    if given_up > 0 {
                        self.counters.stream_reader_timeouts.add(given_up);
                    }
                    true
                }
                None => false,
            });
            self.pools.sweep(now.steady, tick);
            // A core without requests lets go of a policy that is no longer in force, too.
            drop(self.policy());
            let mut tokens = self.tokens.borrow_mut();
            tokens.weigh(now);
            self.counters.token_cache_bytes.set(tokens.bytes() as u64);
            self.counters.token_cache_hits.set(tokens.hits());
            self.counters.token_cache_misses.set(tokens.misses());
            drop(tokens);
            self.hand_over(&mut self.lines.borrow_mut());
        }
    }
}

/// hyper's own bounds stand a little above ours, so that ours answer with a reason and its own are the last resort.
fn http1_settings(plan: &Plan) -> http1::Builder {
    let HeadBounds { header_count, header_bytes } = head_bounds(plan);
    let mut http1 = http1::Builder::new();
    http1
        .timer(TokioTimer::new())
        // Deadlines of heads are kept by the sweep, which tells an idle connection from a slow head.
        .header_read_timeout(None)
        .max_headers(header_count + 1)
        .max_buf_size((header_bytes + header_bytes / 4).max(8192 + 512));
    http1
}

/// The bounds on the heads that the library takes: wider where other proxies may ask for verdicts.
fn head_bounds(plan: &Plan) -> HeadBounds {
    let bounds = HeadBounds { header_count: plan.header_count, header_bytes: plan.header_size };
    if plan.is_asked { bounds.of_question() } else { bounds }
}

fn http2_settings(plan: &Plan, executor: OfConnection) -> http2::Builder<OfConnection> {
    let HeadBounds { header_count, header_bytes } = head_bounds(plan);
    let mut http2 = http2::Builder::new(executor);
    http2
        .timer(TokioTimer::new())
        .max_concurrent_streams(plan.streams)
        // A list counts 32 octets a field more than its text (RFC 9113 section 10.5.1).
        .max_header_list_size(u32::try_from(header_bytes + 32 * header_count).unwrap_or(u32::MAX))
        // Envoy's advice for the edge: what one stream, and one connection, may make us hold.
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_send_buf_size(64 * 1024)
        // Rapid reset (CVE-2023-44487) and its kin end the connection after so many.
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(64)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    http2
}
