//! Sends one request to the servers of its upstream until one of them answers.

use super::deadline;
use super::faults::chain;
use super::notes::Notes;
use super::pool::{Lease, LeaseError, Pools};
use super::request_body::{Meter, RequestBody};
use super::upstream::{Server, Upstream};
use crate::denial::Denial;
use crate::journal::Level;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, Uri, Version, header};
use hyper::body::Incoming;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Tries servers in turn until one answers.
///
/// A server that is unreachable or whose connections are all in use is skipped. If all others fail and one is only
/// busy, the request waits for that one, within its timeout.
///
/// A request whose connection breaks before an answer is retried once, at the next server or at the same one, if that
/// is safe: either none of it was sent, or its method is idempotent (RFC 9110 section 9.2.2) and its body is available.
/// A streamed body is gone and cannot be sent again.
pub(super) async fn send(
    pools: &Rc<Pools>,
    upstream: &Upstream,
    timeout: Duration,
    mut request: Request<RequestBody>,
    meter: Option<&Rc<Meter>>,
    now: Instant,
    notes: &mut Notes,
) -> Result<(Response<Incoming>, Lease), Denial> {
    let idempotent = request.method().is_idempotent();
    // A client of HTTP/1.0 may name no host; a request of HTTP/1.1 has one (RFC 9112 section 3.2).
    let named = request.headers().contains_key(header::HOST);
    let mut attempts = Attempts::default();
    let mut servers = upstream.in_turn(now);
    while let Some(server) = servers.next().or_else(|| attempts.left_over()) {
        notes.server = Some(server.clone());
        if let (false, Some(authority)) = (named, server.authority()) {
            request.headers_mut().insert(header::HOST, authority);
        }
        let mut idle = pools.reuse(server);
        loop {
            let mut lease = match idle.take() {
                Some(lease) => lease,
                // Seldom needed, and large: kept out of every other request's own memory.
                None => {
                    let wait = attempts.last.then(|| timeout.saturating_sub(now.elapsed()));
                    match Box::pin(connect(pools, upstream, server, wait, notes)).await {
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
            let copy = if idempotent && !attempts.sent { copy_of(&request) } else { None };
            lease.link.upload = meter.cloned();
            let response = lease.link.sender.try_send_request(request);
            let upload = meter.map(|meter| || meter.waiting());
            // Only the first attempt has the full time.
            let first = !attempts.sent && !attempts.last && !attempts.broke_off;
            let left = if first { timeout } else { timeout.saturating_sub(now.elapsed()) };
            let mut error = match pools.deadlines.answer_within(left, upload, response).await {
                Ok(Ok(response)) => {
                    if server.record_response() {
                        report_up(pools, upstream, server);
                    }
                    return Ok((response, lease));
                }
                Ok(Err(error)) => error,
                Err(deadline::Elapsed) => {
                    notes.detail = Some(format!("{} did not answer within {timeout:?}", server.origin));
                    return Err(Denial::UpstreamTimeout);
                }
            };
            let unsent = error.take_message();
            let error = error.into_error();
            let broke = broke_off(&error);
            let why = chain(&error);
            if broke && !lease.reused && server.record_failure(Instant::now()) {
                report_down(pools, upstream, server, &why);
            }
            notes.detail = Some(format!("{}: {why}", server.origin));
            let was_sent = unsent.is_none();
            let Some(again) = unsent.or(copy.filter(|_| broke)) else { return Err(Denial::UpstreamFailed) };
            request = again;
            attempts.sent |= was_sent;
            if !lease.reused {
                if attempts.broke_off {
                    return Err(Denial::UpstreamFailed);
                }
                attempts.broke_off = true;
                attempts.again = Some(server);
                upstream.counters.of(pools.core).inspect(|counts| counts.retries.add(1));
                break;
            }
            // The server closed an idle connection. Retry over a new one to the same server.
        }
    }
    Err(attempts.denial())
}

/// How far one request has come through the servers of its upstream.
#[derive(Default)]
struct Attempts<'u> {
    /// The first server all of whose connections are in use.
    busy: Option<&'u Arc<Server>>,
    /// The server that failed on a new connection.
    again: Option<&'u Arc<Server>>,
    /// Whether all servers were tried, so that the request now waits for a busy one.
    last: bool,
    /// Whether the request was sent once, so that it may be sent only once more.
    sent: bool,
    /// Whether a server failed on a new connection.
    broke_off: bool,
    /// Whether a connection failed for a reason other than the gateway's own resources.
    out_of_reach: bool,
}

impl<'u> Attempts<'u> {
    /// A server to try after all were tried: one that was busy, or the one that failed.
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

/// Returns a new connection to a server, or, with `wait`, one that another request has released. Records why it returns
/// neither.
async fn connect(
    pools: &Rc<Pools>,
    upstream: &Upstream,
    server: &Server,
    wait: Option<Duration>,
    notes: &mut Notes,
) -> Result<Lease, LeaseError> {
    let connected = pools.obtain(upstream, server, wait).await;
    notes.detail = match &connected {
        // A request that finds no room yet waits for it after all servers were tried: only the wait's end is worth a
        // word.
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

/// Whether a connection ended before the answer's head, as one does that the server closed while it was idle.
fn broke_off(error: &hyper::Error) -> bool {
    error.is_incomplete_message()
        || error.is_closed()
        || error.is_canceled()
        || (!error.is_parse() && !error.is_user())
}

/// The request as it goes out: HTTP/1.1 whatever the client spoke (an HTTP/2 request keeps its version otherwise, and
/// no HTTP/1.1 connection takes it), its target in origin form.
pub(super) fn outbound(
    method: Method,
    path: PathAndQuery,
    headers: HeaderMap,
    body: RequestBody,
) -> Request<RequestBody> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from(path);
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = headers;
    request
}

fn copy_of(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let body = request.body().copy()?;
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    Some(outbound(request.method().clone(), path, request.headers().clone(), body))
}

#[cold]
fn report_down(pools: &Pools, upstream: &Upstream, server: &Server, why: &str) {
    let fields = [("upstream", &*upstream.name), ("server", &server.origin), ("error", why)];
    pools.journal.event(Level::Warn, "an upstream server is down", &fields);
}

#[cold]
fn report_up(pools: &Pools, upstream: &Upstream, server: &Server) {
    let fields = [("upstream", &*upstream.name), ("server", &*server.origin)];
    pools.journal.event(Level::Info, "an upstream server is up again", &fields);
}
