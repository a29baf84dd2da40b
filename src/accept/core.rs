//! Registers the connections of one core, enforces their deadlines and drains them.

use super::failure_log::FailureLog;
use super::stream_executor::StreamExecutor;
use crate::clock::Now;
use crate::denial::{Denial, Malformed};
use crate::memory;
use crate::metrics::proxy_failure::ProxyFailure;
use crate::metrics::tls_failure::TlsFailure;
use crate::peer::activity::{Command, SWEEP, Timeout, Timeouts};
use crate::peer::streams::Pace;
use crate::peer::{CoarseMillis, Connection, CoreState, coarse_millis};
use crate::pipeline::unreadable;
use crate::route::HeadBounds;
use crate::turns::Turns;
use crate::worker::Worker;
use crate::worker_settings::WorkerSettings;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioTimer;
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// The time that a closing connection waits for a request in transit.
const FAREWELL: Duration = Duration::from_secs(1);

/// The time that a connection is idle before it releases its buffers. A client that sends one request after the other then
/// never pays for new ones.
const PARK_AFTER: Duration = Duration::from_secs(1);

/// The number of connections that a core parks before it gives their memory back to the system: 5 MiB of buffers.
const PARKED_MIN: u64 = 256;
/// A core gives memory back after a sweep that parked fewer connections than this number.
const PARKED_LAST: u64 = 16;

/// One core and its connections.
pub(super) struct Core {
    /// The resources that requests use.
    pub(super) worker: Rc<Worker>,
    /// The state that connections read.
    pub(super) state: Rc<CoreState>,
    http1: http1::Builder,
    handshakes: Turns,
    connections: RefCell<Vec<Weak<Connection>>>,
    open: Cell<usize>,
    parks: Parks,
    started: Instant,
    draining: Cell<bool>,
    tls_log: FailureLog<{ TlsFailure::ALL.len() }>,
    proxy_log: FailureLog<{ ProxyFailure::ALL.len() }>,
    drain_wakers: RefCell<Vec<Waker>>,
    all_closed: Notify,
}

impl Core {
    pub(super) fn new(worker: Worker) -> Self {
        let settings = *worker.settings();
        Self {
            worker: Rc::new(worker),
            state: Rc::new(CoreState::new(settings.body_timeout)),
            http1: http1_settings(&settings),
            handshakes: Turns::default(),
            connections: RefCell::new(Vec::new()),
            open: Cell::new(0),
            parks: Parks::default(),
            started: Instant::now(),
            draining: Cell::new(false),
            tls_log: FailureLog::default(),
            proxy_log: FailureLog::default(),
            drain_wakers: RefCell::new(Vec::new()),
            all_closed: Notify::new(),
        }
    }

    /// Returns the settings for HTTP/1.1 connections.
    pub(super) fn http1(&self) -> &http1::Builder {
        &self.http1
    }

    /// Returns the turns in which TLS handshakes sign.
    pub(super) fn handshakes(&self) -> &Turns {
        &self.handshakes
    }

    /// Returns the settings for an HTTP/2 connection whose streams run on `executor`.
    pub(super) fn http2(&self, executor: StreamExecutor) -> http2::Builder<StreamExecutor> {
        http2_settings(self.worker.settings(), executor)
    }

    /// Returns the log of recent TLS failures.
    pub(super) fn tls_log(&self) -> &FailureLog<{ TlsFailure::ALL.len() }> {
        &self.tls_log
    }

    /// Returns the log of recent connections without an accepted PROXY header.
    pub(super) fn proxy_log(&self) -> &FailureLog<{ ProxyFailure::ALL.len() }> {
        &self.proxy_log
    }

    pub(super) fn coarse_now(&self) -> CoarseMillis {
        self.state.coarse_now.get()
    }

    /// Registers an accepted connection.
    pub(super) fn register(&self, connection: &Rc<Connection>) {
        self.worker.counters().connections_accepted.add(1);
        self.open.set(self.open.get() + 1);
        self.worker.counters().connections_open.add(1);
        self.track(connection);
    }

    /// Enforces the deadlines of a registered connection.
    pub(super) fn track(&self, connection: &Rc<Connection>) {
        self.connections.borrow_mut().push(Rc::downgrade(connection));
        if self.draining.get() {
            connection.activity.issue(Command::Drain, self.state.coarse_now.get());
        }
    }

    /// Deregisters a connection that has ended.
    pub(super) fn deregister(&self) {
        self.open.set(self.open.get() - 1);
        self.worker.counters().connections_open.sub(1);
        if self.open.get() == 0 {
            self.all_closed.notify_one();
        }
    }

    /// Counts a connection that was closed because a deadline passed.
    pub(super) fn count_timeout(&self, timeout: Timeout) {
        match timeout {
            Timeout::Head => self.worker.counters().head_timeouts.add(1),
            Timeout::Idle => self.worker.counters().idle_timeouts.add(1),
            Timeout::Reader => self.worker.counters().reader_timeouts.add(1),
            Timeout::Drain => self.worker.counters().drain_timeouts.add(1),
            // This timeout is not counted, because the client is not at fault. The connection was closing, and no
            // request was in transit.
            Timeout::Farewell => {}
        }
    }

    /// Logs and counts a request that cannot be parsed, and returns the response. Returns `None` for other errors.
    pub(super) fn reject_unparsable(
        &self,
        connection: &Connection,
        error: &hyper::Error,
    ) -> Option<Box<[u8]>> {
        let denial = match (error.is_parse_too_large(), error.is_parse()) {
            (true, _) => Denial::HeadersTooLarge,
            (false, true) => Denial::BadRequest(Malformed::Target),
            (false, false) => return None,
        };
        Some(unreadable::refuse(&self.worker, connection, denial, &error.to_string()))
    }

    /// Logs and counts a head that missed its deadline, and returns the response (RFC 9110 section 15.5.9).
    pub(super) fn reject_slow_head(&self, connection: &Connection) -> Box<[u8]> {
        let detail = "the request head took longer than header_timeout";
        unreadable::refuse(&self.worker, connection, Denial::RequestTimeout, detail)
    }

    /// Counts a connection that is parked now.
    pub(super) fn count_park(&self) {
        self.worker.counters().connections_parked.add(1);
        self.parks.all.set(self.parks.all.get() + 1);
    }

    /// Counts a parked connection that is served again, or has ended.
    pub(super) fn count_unpark(&self) {
        self.worker.counters().connections_parked.sub(1);
    }

    /// Makes each HTTP/1.1 connection close after its next response.
    pub(super) fn begin_closing(&self) {
        self.state.is_closing.set(true);
    }

    /// Returns whether the core is draining. If it is not, the start of the drain wakes the task of `cx`.
    pub(super) fn is_draining(&self, cx: &Context<'_>) -> bool {
        if !self.draining.get() {
            let mut wakers = self.drain_wakers.borrow_mut();
            if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                wakers.push(cx.waker().clone());
            }
        }
        self.draining.get()
    }

    /// Waits until the listeners have accepted what is in their queues, lets connections finish their requests for up to
    /// `[server] drain`, then closes all that remain.
    pub(super) async fn drain(&self, listeners: Vec<JoinHandle<()>>) {
        self.draining.set(true);
        self.drain_wakers.take().into_iter().for_each(Waker::wake);
        self.command_all(Command::Drain);
        let until_closed = async {
            for listener in listeners {
                // A listener that panicked has closed its socket, too.
                let _ = listener.await;
            }
            self.wait_until_empty().await;
        };
        if tokio::time::timeout(self.worker.settings().drain, until_closed).await.is_err() {
            if self.worker.pools().streams().drain() {
                // The close frames are on their way.
                let _ = tokio::time::timeout(Duration::from_secs(2), self.wait_for_websockets()).await;
            }
            self.command_all(Command::Close(Timeout::Drain));
            // A connection's task ends at its next poll. One second is more than enough.
            let _ = tokio::time::timeout(Duration::from_secs(1), self.wait_until_empty()).await;
        }
        self.worker.flush_log();
    }

    async fn wait_until_empty(&self) {
        while self.open.get() > 0 {
            self.all_closed.notified().await;
        }
    }

    async fn wait_for_websockets(&self) {
        while self.worker.pools().streams().drain() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn command_all(&self, command: Command) {
        for connection in self.connections.borrow().iter().filter_map(Weak::upgrade) {
            connection.activity.issue(command, self.state.coarse_now.get());
        }
    }

    /// Runs the core's periodic work every [`SWEEP`]: deadlines, idle upstream connections and the log.
    pub(super) async fn sweep(self: Rc<Self>) {
        // Each event is recorded with the time of the previous sweep. The extra interval keeps a deadline from passing
        // early.
        let with_delay = |duration: Duration| coarse_millis(duration.saturating_add(SWEEP));
        let pace = Pace {
            grace: with_delay(self.worker.settings().body_timeout),
            bytes_per_second: self.worker.settings().min_rate,
        };
        let timeouts = Timeouts {
            head: with_delay(self.worker.settings().header_timeout),
            idle: with_delay(self.worker.settings().idle_timeout),
            farewell: with_delay(FAREWELL),
            park: with_delay(PARK_AFTER),
            pace,
        };
        let mut interval = tokio::time::interval(SWEEP);
        loop {
            interval.tick().await;
            let now = Now::read();
            let now_millis = coarse_millis(now.steady.saturating_duration_since(self.started));
            self.state.coarse_now.set(now_millis);
            self.connections.borrow_mut().retain(|connection| match connection.upgrade() {
                Some(connection) => {
                    connection.activity.examine(now_millis, timeouts);
                    // An HTTP/1.1 connection releases its token together with its read buffer.
                    if connection.is_http2() {
                        connection.known_token.release();
                    }
                    let timed_out = connection.streams.examine(now_millis, pace);
                    if timed_out > 0 {
                        self.worker.counters().stream_reader_timeouts.add(timed_out);
                    }
                    true
                }
                None => false,
            });
            self.worker.sweep(now, now_millis);
            // No request waits for the few milliseconds that this takes.
            if self.parks.is_burst_over() && self.worker.counters().requests_in_progress.get() == 0 {
                self.parks.released.set(self.parks.all.get());
                memory::release();
            }
        }
    }
}

/// The numbers of connections that a core has parked.
#[derive(Debug, Default)]
struct Parks {
    all: Cell<u64>,
    /// The number at the last sweep.
    swept: Cell<u64>,
    /// The number at the last release of memory.
    released: Cell<u64>,
}

impl Parks {
    /// Returns whether many connections were parked since the last release, but only a few since the last call.
    fn is_burst_over(&self) -> bool {
        let all = self.all.get();
        let is_over = all - self.swept.replace(all) < PARKED_LAST;
        is_over && all - self.released.get() >= PARKED_MIN
    }
}

/// Returns the settings for HTTP/1.1. hyper's bounds are slightly above the gateway's bounds, so the gateway's bounds
/// apply first. The client then receives a reason.
fn http1_settings(settings: &WorkerSettings) -> http1::Builder {
    let HeadBounds { header_count, header_bytes } = head_bounds(settings);
    let mut http1 = http1::Builder::new();
    http1
        .timer(TokioTimer::new())
        // The sweep enforces the deadline of a head. Unlike hyper, it distinguishes a slow head from an idle
        // connection.
        .header_read_timeout(None)
        .max_buf_size((header_bytes + header_bytes / 4).max(8192 + 512));
    // hyper parses heads of up to 100 fields without an allocation, unless another bound is set.
    if header_count > 100 {
        http1.max_headers(header_count + 1);
    }
    http1
}

/// Returns the bounds on request heads. They are wider if the gateway serves forward-auth.
fn head_bounds(settings: &WorkerSettings) -> HeadBounds {
    let bounds = HeadBounds { header_count: settings.header_count, header_bytes: settings.header_size };
    if settings.is_asked { bounds.of_question() } else { bounds }
}

fn http2_settings(settings: &WorkerSettings, executor: StreamExecutor) -> http2::Builder<StreamExecutor> {
    let HeadBounds { header_count, header_bytes } = head_bounds(settings);
    let mut http2 = http2::Builder::new(executor);
    http2
        .timer(TokioTimer::new())
        // WebSockets (RFC 8441 section 3). Whether a route forwards them is decided for each handshake.
        .enable_connect_protocol()
        .max_concurrent_streams(settings.streams)
        // The size of a header list includes 32 octets per field (RFC 9113 section 10.5.1).
        .max_header_list_size(u32::try_from(header_bytes + 32 * header_count).unwrap_or(u32::MAX))
        // These settings limit the memory of one stream and one connection. Envoy recommends the values for edge
        // proxies.
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_send_buf_size(64 * 1024)
        // These limits protect against Rapid Reset (CVE-2023-44487) and similar attacks. The HTTP library closes a
        // connection that exceeds a limit.
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(64)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    http2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_released_once_after_a_burst() {
        let parks = Parks::default();
        let sweep = |parked: u64| {
            parks.all.set(parks.all.get() + parked);
            let is_over = parks.is_burst_over();
            if is_over {
                parks.released.set(parks.all.get());
            }
            is_over
        };
        assert!(!sweep(PARKED_MIN - 1) && !sweep(0), "too few");
        assert!(!sweep(1000) && !sweep(PARKED_LAST), "the burst goes on");
        assert!(sweep(PARKED_LAST - 1) && !sweep(0), "one release");
    }
}
