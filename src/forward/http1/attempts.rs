//! Sends one request to the servers of its upstream until one of them answers.

use super::exchange::{Answered, Exchange, ExchangeError};
use super::upload::Upload;
use crate::denial::Denial;
use crate::forward::body::inflow::{Inflow, refuse};
use crate::forward::connection::deadline::Stopped;
use crate::forward::connection::pool::{Lease, LeaseError, Pools};
use crate::forward::notes::Notes;
use crate::forward::upstream::Upstream;
use crate::forward::upstream::balance::Key;
use crate::forward::upstream::server::Server;
use crate::journal::Level;
use http::HeaderMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A request to send.
pub(in crate::forward) struct Outbound<'r> {
    pub(in crate::forward) upload: &'r mut Upload,
    /// An empty map, for the fields of the answer.
    pub(in crate::forward) headers: &'r mut HeaderMap,
    /// The client's side of the body, if there is one.
    pub(in crate::forward) inflow: Option<&'r Inflow<'r>>,
    /// The key that selects the server, if the upstream balances by a key.
    pub(in crate::forward) key: Option<Key>,
}

/// Tries servers in turn until one answers.
///
/// Skips a server that is unreachable, and a busy server, whose connections are all in use. If all servers were tried
/// and one of them is busy, the request waits for a connection to the busy server, within the request's timeout.
///
/// If a new connection breaks before an answer, the request is retried once, at the next server or at the same server. A
/// kept connection may break because its server closes idle connections, or because the server stops, so its break does
/// not count as the retry: the request continues over new connections, at a server that is in use.
///
/// A retry is safe if no part of the request was sent, or if its method is idempotent (RFC 9110 section 9.2.2) and its
/// body is in memory. A streamed body is not kept and cannot be sent again. The upstream's budget bounds the retries over
/// new connections.
pub(in crate::forward) async fn send(
    pools: &Rc<Pools>,
    upstream: &Upstream,
    timeout: Duration,
    request: Outbound<'_>,
    now: Instant,
    notes: &mut Notes,
) -> Result<(Answered, Lease), Denial> {
    let Outbound { upload, headers, inflow, key } = request;
    let mut attempts = Attempts::default();
    let members = upstream.members_of(pools.core);
    let mut servers =
        upstream.in_turn(pools.core, &members, now, key, |server| pools.load(server)).peekable();
    while let Some(server) = servers.next().or_else(|| attempts.left_over()) {
        upload.name_host(|| server.authority());
        let mut idle = if attempts.kept_broke { None } else { pools.reuse(server) };
        notes.server = Some(match &idle {
            Some(lease) => lease.connection.slot.origin.clone(),
            None => Rc::from(&*server.origin),
        });
        loop {
            let lease = match idle.take() {
                Some(lease) => lease,
                // This future is large and rarely needed. The box keeps it out of the memory of all other requests.
                None => {
                    let wait = attempts.last.then(|| timeout.saturating_sub(now.elapsed()));
                    let earlier = notes.detail.take();
                    let accepts_kept = !attempts.kept_broke;
                    let opened =
                        Box::pin(connect(pools, upstream, server, (wait, accepts_kept), notes)).await;
                    // The first failure is the cause, and the later ones follow from it.
                    notes.detail = match (earlier, notes.detail.take()) {
                        (Some(earlier), Some(later)) => Some(format!("{earlier}; then {later}")),
                        (earlier, later) => later.or(earlier),
                    };
                    match opened {
                        Ok(lease) => lease,
                        Err(LeaseError::Full) => {
                            attempts.busy.get_or_insert(server);
                            break;
                        }
                        Err(LeaseError::LineFull | LeaseError::Waited) => return Err(Denial::Overloaded),
                        Err(LeaseError::Fault(fault)) => {
                            attempts.out_of_reach |= fault.blames_server();
                            break;
                        }
                    }
                }
            };
            let mut exchange = Exchange::new(&lease.connection, upload, headers);
            let answer = poll_fn(|cx| exchange.poll(cx));
            // Later attempts get only the remaining time.
            let first = !attempts.kept_broke && !attempts.last && !attempts.broke_off;
            let left = if first { timeout } else { timeout.saturating_sub(now.elapsed()) };
            let error = match pools.deadlines.answer_within(left, inflow, answer).await {
                Ok(Ok(answered)) => {
                    if server.record_response() {
                        report_up(pools, upstream, server);
                    }
                    return Ok((answered, lease));
                }
                Ok(Err(error)) => error,
                Err(Stopped::Ended(end)) => return Err(refuse(inflow, end, notes)),
                Err(Stopped::Elapsed) => {
                    notes.detail = Some(format!("{} did not answer within {timeout:?}", server.origin));
                    return Err(Denial::UpstreamTimeout);
                }
            };
            let is_broken = matches!(error, ExchangeError::Broken(_));
            let why = error.to_string();
            if is_broken && !lease.reused && server.record_failure(Instant::now()) {
                report_down(pools, upstream, server, &why);
            }
            notes.detail = Some(format!("{}: {why}", server.origin));
            let was_sent = upload.is_begun();
            if !is_broken || (was_sent && !upload.is_repeatable()) {
                return Err(Denial::UpstreamFailed);
            }
            if was_sent {
                upload.rewind();
            }
            if lease.reused {
                attempts.kept_broke = true;
                let has_other = servers.peek().is_some_and(|other| !other.is_set_aside(now));
                if !(was_sent && has_other) {
                    // The loop tries the same server again over a new connection.
                    continue;
                }
            } else {
                if attempts.broke_off {
                    return Err(Denial::UpstreamFailed);
                }
                attempts.broke_off = true;
                if !upstream.take_retry(pools.core) {
                    notes.detail = Some(format!("{}: {why}; the retry budget is spent", server.origin));
                    return Err(Denial::UpstreamFailed);
                }
            }
            attempts.again = Some(server);
            upstream.counters.of(pools.core).inspect(|counts| counts.retries.add(1));
            break;
        }
    }
    Err(attempts.denial())
}

/// The progress of one request through the servers of its upstream.
#[derive(Default)]
struct Attempts<'u> {
    /// The first server whose connections are all in use.
    busy: Option<&'u Arc<Server>>,
    /// The server that broke a new connection before its answer. The server is tried a second time, after all other
    /// servers.
    again: Option<&'u Arc<Server>>,
    /// Whether all servers were tried. The request then waits for a connection to a busy server.
    last: bool,
    /// Whether a kept connection broke before its answer. The request then uses new connections only.
    kept_broke: bool,
    /// Whether a server broke a new connection before its answer.
    broke_off: bool,
    /// Whether a connection could not be opened for a reason other than the gateway's own resources.
    out_of_reach: bool,
}

impl<'u> Attempts<'u> {
    /// Returns a server for another attempt after all servers were tried: a busy server, or else the server that broke
    /// a new connection.
    fn left_over(&mut self) -> Option<&'u Arc<Server>> {
        self.last = true;
        self.busy.take().or_else(|| self.again.take())
    }

    fn denial(&self) -> Denial {
        if self.broke_off {
            Denial::UpstreamFailed
        } else if self.out_of_reach {
            Denial::UpstreamUnavailable
        } else {
            Denial::Overloaded
        }
    }
}

/// Returns a connection to a server: a new connection, or with `wait` and `accepts_kept` possibly a connection that
/// another request has released. Records the reason of a failure.
async fn connect(
    pools: &Rc<Pools>,
    upstream: &Upstream,
    server: &Server,
    (wait, accepts_kept): (Option<Duration>, bool),
    notes: &mut Notes,
) -> Result<Lease, LeaseError> {
    let connected = pools.obtain(upstream, server, wait, accepts_kept).await;
    notes.detail = match &connected {
        // `Full` is not yet a failure: the request waits for a connection after all servers were tried. Only the end
        // of that wait is recorded.
        Ok(_) | Err(LeaseError::Full) => return connected,
        Err(LeaseError::Waited) => Some(format!(
            "all connections to {} that upstream.{}.connections allows are in use",
            server.origin, upstream.name
        )),
        Err(LeaseError::LineFull) => {
            Some(format!("too many requests wait for a connection to {}", server.origin))
        }
        Err(LeaseError::Fault(fault)) => {
            let why = fault.to_string();
            if fault.blames_server() && server.record_failure(Instant::now()) {
                report_down(pools, upstream, server, &why);
            }
            Some(format!("cannot connect to {}: {why}", server.origin))
        }
    };
    connected
}

#[cold]
pub(in crate::forward) fn report_down(pools: &Pools, upstream: &Upstream, server: &Server, why: &str) {
    let fields = [("upstream", &*upstream.name), ("server", &server.origin), ("error", why)];
    pools.journal.event(Level::Warn, "an upstream server is down", &fields);
}

#[cold]
pub(in crate::forward) fn report_up(pools: &Pools, upstream: &Upstream, server: &Server) {
    let fields = [("upstream", &*upstream.name), ("server", &*server.origin)];
    pools.journal.event(Level::Info, "an upstream server is up again", &fields);
}
