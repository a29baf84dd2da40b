//! One core's HTTP/2 connections to upstream servers, and the streams that requests hold on them.
//!
//! A request takes a stream of the first connection that has a free one. A request that finds none opens a connection,
//! unless connections that are being opened will have a stream for it.

use super::pool::Pools;
use crate::forward::upstream::Upstream;
use crate::forward::upstream::connect;
use crate::forward::upstream::connect_error::ConnectError;
use crate::forward::upstream::counters::UpstreamCounters;
use crate::forward::upstream::server::Server;
use crate::forward::upstream::server_id::ServerId;
use crate::forward::upstream::stream::Stream;
use bytes::Bytes;
use h2::client::{self, SendRequest};
use h2::{Ping, PingPong};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The maximum number of streams of one connection. A server may allow fewer.
const STREAMS_MAX: usize = 100;
/// The window of one stream, in bytes: the memory that a client which does not read its answer can take.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The window of a connection. All streams together fit in it, so that slow clients never stop the others.
const CONNECTION_WINDOW: u32 = (STREAMS_MAX as u32 + 1) * STREAM_WINDOW;
/// The memory that frames below 256 bytes may take beside their content, before the library closes the connection. The
/// windows of all streams fit in it with messages of 20 bytes.
const SMALL_FRAMES_MAX: usize = STREAMS_MAX * 800 * 1024;
/// The maximum size of the fields of an answer, with 32 octets for each (RFC 9113 section 10.5.1).
const HEADER_LIST_MAX: u32 = 64 * 1024;
/// The time that a connection without streams stays open, in milliseconds.
const IDLE_TIMEOUT: u64 = 45_000;
/// The maximum number of requests of one core that wait for a stream to one server.
const WAITING_MAX: usize = 1024;
/// The time that frames of a stream that was reset may still arrive without an error.
const RESET_TIME: Duration = Duration::from_secs(10);
/// The maximum time for the answer to a PING. A connection without an answer closes.
const PONG_TIME: Duration = Duration::from_secs(5);
/// The interval at which a waiting request looks for a stream. SETTINGS that allow more streams wake nobody.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The connections of one core, by [`Server::id`].
#[derive(Default)]
pub(in crate::forward) struct Links(RefCell<HashMap<usize, Rc<PerServer>>>);

/// One core's connections to one server.
#[derive(Default)]
pub(in crate::forward) struct PerServer {
    pub(in crate::forward) origin: Rc<str>,
    /// The connections that accept further requests.
    links: RefCell<Vec<Rc<Link>>>,
    /// The number of connections, including those that finish their last requests.
    open: Rc<Cell<usize>>,
    /// The number of connections that are being opened.
    opening: Cell<usize>,
    /// The number of requests that wait.
    waiting: Cell<usize>,
    /// Wakes the requests that wait.
    changed: Notify,
    /// The number of connections that could not be opened, and the reason of the last failure.
    failures: Cell<u64>,
    fault: RefCell<Option<Rc<ConnectError>>>,
}

/// A connection. It closes when its last request has ended and no list contains it.
struct Link {
    sender: SendRequest<Bytes>,
    /// The number of requests that hold a stream.
    streams: Cell<usize>,
    /// Makes the connection's task send a PING.
    suspected: Rc<Notify>,
    /// Wakes the requests that wait for the answer to a PING.
    answered: Rc<Notify>,
    /// When the server last sent something of an answer, on the core's coarse clock.
    heard: Cell<Option<u64>>,
    /// When the last stream was freed, on the core's coarse clock.
    idle_since: Cell<u64>,
    open: Rc<Cell<usize>>,
    /// Keeps the number from being used for another server.
    _server: ServerId,
    counters: Arc<UpstreamCounters>,
    core: usize,
}

/// A stream that one request holds. Dropping the slot frees the stream for another request.
pub(in crate::forward) struct StreamSlot {
    link: Rc<Link>,
    server: Rc<PerServer>,
    pools: Rc<Pools>,
}

/// The reason why a request gets no stream.
#[derive(Debug)]
pub(in crate::forward) enum ObtainError {
    /// All streams of all connections are in use.
    Full,
    /// All streams stayed in use until the request's time was over.
    Waited,
    /// All streams are in use, and the line is full.
    LineFull,
    /// No connection could be opened.
    Fault(Rc<ConnectError>),
}

impl Links {
    /// Returns a stream. If `waits` is false, returns [`ObtainError::Full`] when all streams are in use. Otherwise, waits
    /// for up to `timeout`.
    pub(in crate::forward) async fn obtain(
        pools: &Rc<Pools>,
        upstream: &Upstream,
        (server, own): (&Server, &Rc<PerServer>),
        waits: bool,
        timeout: Duration,
    ) -> Result<StreamSlot, ObtainError> {
        let begun = Instant::now();
        let failures = own.failures.get();
        let mut may_open = true;
        loop {
            if let Some(link) = own.with_room() {
                link.streams.set(link.streams.get() + 1);
                return Ok(StreamSlot { link, server: own.clone(), pools: pools.clone() });
            }
            let is_served_soon = own.waiting.get() < own.opening.get() * STREAMS_MAX;
            if !is_served_soon && may_open && own.open.get() + own.opening.get() < upstream.share {
                match own.open(pools, upstream, server).await {
                    Ok(()) => continue,
                    // A request still gets a stream of another connection.
                    Err(_) if !own.links.borrow().is_empty() => may_open = false,
                    Err(fault) => return Err(ObtainError::Fault(fault)),
                }
            } else if !is_served_soon && !waits {
                return Err(ObtainError::Full);
            }
            if own.waiting.get() >= WAITING_MAX {
                return Err(ObtainError::LineFull);
            }
            let waiting = Waiting::begin(own, upstream, pools.core);
            let left = timeout.saturating_sub(begun.elapsed());
            let woken = pools.deadlines.within(left.min(LOOK_AGAIN), own.changed.notified()).await;
            drop(waiting);
            if woken.is_err() && begun.elapsed() >= timeout {
                return Err(ObtainError::Waited);
            }
            if own.failures.get() != failures && own.links.borrow().is_empty() && own.opening.get() == 0 {
                let fault = own.fault.borrow().clone();
                return Err(fault.map_or(ObtainError::Waited, ObtainError::Fault));
            }
        }
    }

    /// Returns this core's connections to a server.
    pub(in crate::forward) fn of(&self, server: &Server) -> Rc<PerServer> {
        let mut servers = self.0.borrow_mut();
        let own = servers.entry(server.id.index()).or_default();
        // The entry may be new, or that of a server that had the number before and has no connection any more.
        if *own.origin != *server.origin {
            *own = Rc::new(PerServer { origin: Rc::from(&*server.origin), ..PerServer::default() });
        }
        own.clone()
    }

    /// Returns the number of this core's requests that use or await a stream to a server.
    pub(in crate::forward) fn load(&self, server: &Server) -> usize {
        let servers = self.0.borrow();
        servers.get(&server.id.index()).map_or(0, |own| {
            own.waiting.get() + own.links.borrow().iter().map(|link| link.streams.get()).sum::<usize>()
        })
    }

    /// Closes connections that had no stream for too long, and forgets those that their servers closed. `now` is the
    /// core's coarse clock.
    pub(in crate::forward) fn sweep(&self, now: u64) {
        self.0.borrow_mut().retain(|_, own| {
            own.links.borrow_mut().retain(|link| link.is_open() && !link.is_idle(now));
            // A later request makes the entry again.
            Rc::strong_count(own) > 1 || own.open.get() > 0
        });
    }
}

impl PerServer {
    /// Returns a connection with a free stream.
    fn with_room(&self) -> Option<Rc<Link>> {
        let mut links = self.links.borrow_mut();
        links.retain(|link| link.is_open());
        links.iter().find(|link| link.has_room()).cloned()
    }

    /// Opens a connection, and wakes the requests that wait for it.
    async fn open(
        &self,
        pools: &Pools,
        upstream: &Upstream,
        server: &Server,
    ) -> Result<(), Rc<ConnectError>> {
        let _opening = Opening::begin(self);
        let opened = Box::pin(handshake(server, upstream.connect_timeout)).await;
        let counts = upstream.counters.of(pools.core);
        match opened {
            Ok((sender, suspected, answered)) => {
                self.open.set(self.open.get() + 1);
                counts.inspect(|counts| {
                    counts.connections.add(1);
                    counts.open.add(1);
                });
                self.links.borrow_mut().push(Rc::new(Link {
                    sender,
                    streams: Cell::new(0),
                    suspected,
                    answered,
                    heard: Cell::new(None),
                    idle_since: Cell::new(pools.deadlines.now()),
                    open: self.open.clone(),
                    _server: server.id.clone(),
                    counters: upstream.counters.clone(),
                    core: pools.core,
                }));
                Ok(())
            }
            Err(fault) => {
                counts.inspect(|counts| counts.count_connect_error(&fault));
                let fault = Rc::new(fault);
                self.failures.set(self.failures.get() + 1);
                *self.fault.borrow_mut() = Some(fault.clone());
                Err(fault)
            }
        }
    }
}

/// Opens a connection, and starts the task that drives it.
async fn handshake(
    server: &Server,
    timeout: Duration,
) -> Result<(SendRequest<Bytes>, Rc<Notify>, Rc<Notify>), ConnectError> {
    let begun = Instant::now();
    let stream = connect::connect(server, timeout).await?;
    if let Stream::Tls(tls) = &stream
        && tls.get_ref().1.alpn_protocol() != Some(b"h2")
    {
        let why = "the server does not offer HTTP/2 (ALPN \"h2\")";
        return Err(ConnectError::Tls(io::Error::other(why)));
    }
    let mut settings = client::Builder::new();
    settings
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .data_frame_budget(SMALL_FRAMES_MAX)
        .initial_max_send_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_LIST_MAX)
        .max_send_buffer_size(STREAM_WINDOW as usize)
        // Frames of streams that clients cancelled may still arrive. By default, the library ends the connection with
        // all its streams after 1024 resets that it sends for such frames and for invalid answers.
        .max_concurrent_reset_streams(10 * STREAMS_MAX)
        .reset_stream_duration(RESET_TIME)
        .max_local_error_reset_streams(None);
    let left = timeout.saturating_sub(begun.elapsed());
    let (sender, mut connection) = match tokio::time::timeout(left, settings.handshake(stream)).await {
        Ok(shaken) => shaken.map_err(|error| ConnectError::Other(io::Error::other(error)))?,
        Err(_elapsed) => return Err(ConnectError::Timeout(timeout)),
    };
    let (suspected, answered) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
    let (pings, asked, pong) = (connection.ping_pong(), suspected.clone(), answered.clone());
    tokio::task::spawn_local(async move {
        let (mut connection, mut silent) = (pin!(connection), pin!(until_silent(pings, &asked, &pong)));
        // Each stream learns of the connection's end by itself.
        let end = poll_fn(|cx| match connection.as_mut().poll(cx) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => silent.as_mut().poll(cx),
        });
        end.await;
    });
    Ok((sender, suspected, answered))
}

/// Sends a PING (RFC 9113 section 6.7) each time the connection is suspected, and wakes those who wait for the answer.
/// Returns once the server does not answer.
async fn until_silent(pings: Option<PingPong>, suspected: &Notify, answered: &Notify) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        suspected.notified().await;
        let Ok(Ok(_)) = tokio::time::timeout(PONG_TIME, pings.ping(Ping::opaque())).await else { return };
        answered.notify_waiters();
    }
}

/// Counts a connection that is being opened. Its end wakes the requests that wait.
struct Opening<'s>(&'s PerServer);

impl<'s> Opening<'s> {
    fn begin(server: &'s PerServer) -> Self {
        server.opening.set(server.opening.get() + 1);
        Self(server)
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.opening.set(self.0.opening.get() - 1);
        self.0.changed.notify_waiters();
    }
}

/// Counts a request that waits.
struct Waiting<'s> {
    server: &'s PerServer,
    upstream: &'s Upstream,
    core: usize,
}

impl<'s> Waiting<'s> {
    fn begin(server: &'s PerServer, upstream: &'s Upstream, core: usize) -> Self {
        server.waiting.set(server.waiting.get() + 1);
        upstream.counters.of(core).inspect(|counts| counts.waiting.add(1));
        Self { server, upstream, core }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.server.waiting.set(self.server.waiting.get() - 1);
        self.upstream.counters.of(self.core).inspect(|counts| counts.waiting.sub(1));
    }
}

impl Link {
    /// Whether the connection accepts further requests: its server has neither closed it nor sent GOAWAY.
    fn is_open(&self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        !matches!(self.sender.clone().poll_ready(&mut context), Poll::Ready(Err(_)))
    }

    fn has_room(&self) -> bool {
        self.streams.get() < STREAMS_MAX.min(self.sender.current_max_send_streams())
    }

    fn is_idle(&self, now: u64) -> bool {
        self.streams.get() == 0 && now.saturating_sub(self.idle_since.get()) >= IDLE_TIMEOUT
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.open.set(self.open.get() - 1);
        self.counters.of(self.core).inspect(|counts| counts.open.sub(1));
    }
}

impl StreamSlot {
    pub(in crate::forward) fn sender(&self) -> SendRequest<Bytes> {
        self.link.sender.clone()
    }

    /// Returns the core's buffer for reads of WebSockets.
    pub(in crate::forward) fn scratch(&self) -> &RefCell<Vec<u8>> {
        self.pools.scratch()
    }

    /// Returns whether the server accepts WebSockets. The server says so in its SETTINGS, which precede the answer to a
    /// PING.
    pub(in crate::forward) async fn accepts_websockets(&self, timeout: Duration) -> bool {
        let accepts = || self.link.sender.is_extended_connect_protocol_enabled();
        if !accepts() && self.is_fresh() {
            let answered = self.link.answered.notified();
            self.link.suspected.notify_one();
            // Without an answer, the connection's own task closes it.
            if self.pools.deadlines.within(timeout, answered).await.is_ok() {
                self.heard();
            }
        }
        accepts()
    }

    /// Whether the server has not answered over this connection yet.
    pub(in crate::forward) fn is_fresh(&self) -> bool {
        self.link.heard.get().is_none()
    }

    /// Records that the server sends.
    pub(in crate::forward) fn heard(&self) {
        self.link.heard.set(Some(self.pools.deadlines.now()));
    }

    /// Checks whether the connection is dead, if its server has sent nothing since `started`.
    pub(in crate::forward) fn doubt(&self, started: u64) {
        if self.link.heard.get().is_none_or(|heard| heard < started) {
            self.link.suspected.notify_one();
        }
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        let streams = self.link.streams.get() - 1;
        self.link.streams.set(streams);
        if streams == 0 {
            self.link.idle_since.set(self.pools.deadlines.now());
        }
        self.server.changed.notify_one();
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").finish_non_exhaustive()
    }
}

impl fmt::Debug for StreamSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamSlot").finish_non_exhaustive()
    }
}
