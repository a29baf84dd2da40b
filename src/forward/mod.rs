//! Send it on: a permitted request to an upstream, and its answer back.
//!
//! [`forward`] takes the [`Permit`] by value: nothing that was not authorized has one, and one sends one request.

mod body;
pub mod client;
mod connect;
mod counters;
mod deadline;
mod echo;
pub mod foreign;
mod link;
pub mod outgoing;
mod pool;
pub mod proof;
mod reframe;
pub mod strip;
mod upstream;

pub use body::{BodyBounds, Broken, Cut, Inbound, Meter, RequestBody, ResponseBody, Unread};
pub use client::Prepared;
pub use counters::{UpstreamCounters, UpstreamShard};
pub use outgoing::{Target, Told, X_REQUEST_ID};
pub use pool::Pools;
pub use proof::{Assertor, Audience, Proof, Proofs};
pub use upstream::{Server, Tls, Upstream};

use crate::authorize::Permit;
use crate::denial::Denial;
use crate::journal::Level;
use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, Uri, Version, header};
use hyper::body::Incoming;
use pool::{Lease, NoConnection};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where a route's requests go.
#[derive(Clone, Debug)]
pub enum Destination {
    /// To servers.
    Upstream(Arc<Upstream>),
    /// To the built-in echo.
    Echo,
}

/// What a route says of forwarding.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Where to.
    pub destination: Destination,
    /// A prefix of the path that the upstream does not see.
    pub strip_prefix: Option<Box<str>>,
    /// Whether the client's `Authorization` passes unchanged.
    pub pass_authorization: bool,
    /// The route's own timeout, in place of its upstream's.
    pub timeout: Option<Duration>,
    /// To whom identity is proven.
    pub audience: Arc<Audience>,
}

/// What came of it, beside the answer: for the log.
#[derive(Debug, Default)]
pub struct Notes {
    /// The server that was asked last.
    pub server: Option<Arc<Server>>,
    /// What went wrong, for the operator.
    pub detail: Option<String>,
    /// From the reading of the request to the head of the upstream's answer.
    pub took: Option<Duration>,
    /// Identity fields of the client's that were dropped.
    pub forged: u64,
}

/// An answer on its way to the client.
#[derive(Debug)]
pub enum Answer {
    /// Whole.
    Whole(Response<Bytes>),
    /// Streamed from an upstream.
    Streamed(Response<ResponseBody>),
}

/// Sends a permitted request on.
///
/// # Errors
/// [`Denial::UpstreamUnavailable`], [`Denial::UpstreamTimeout`], [`Denial::UpstreamFailed`]; or the refusal that the
/// client's body earned on its way.
#[allow(clippy::too_many_arguments, reason = "each is one fact that the pipeline has at hand")]
pub async fn forward(
    pools: &Rc<Pools>,
    delivery: &Delivery,
    permit: Permit,
    parts: Parts,
    target: Target,
    body: RequestBody,
    meter: Option<&Rc<Meter>>,
    told: &Told<'_>,
    now: Instant,
    notes: &mut Notes,
) -> Result<Answer, Denial> {
    let (method, path, headers, forged) = outgoing::head(parts, target, &permit, &delivery.audience, told);
    notes.forged = forged;
    match &delivery.destination {
        Destination::Echo => match Box::pin(echo::answer(&method, &path, &headers, body)).await {
            Ok(response) => {
                let (mut parts, body) = response.into_parts();
                reframe::answer(&mut parts, &method, told.cookies)
                    .map_err(|bad| rejected(&bad, None, notes))?;
                Ok(Answer::Whole(Response::from_parts(parts, body)))
            }
            Err(fault) => {
                notes.detail = Some(fault.to_string());
                Err(of_body(meter, notes).unwrap_or(Denial::UpstreamFailed))
            }
        },
        Destination::Upstream(upstream) => {
            let asked = method.clone();
            let request = outbound(method, path, headers, body);
            let timeout = delivery.timeout.unwrap_or(upstream.timeout);
            let sent = send(pools, upstream, timeout, request, meter, now, notes).await;
            let took = now.elapsed();
            notes.took = Some(took);
            let (response, mut lease) = sent.map_err(|denial| of_body(meter, notes).unwrap_or(denial))?;
            let counts = upstream.counters.of(pools.core);
            counts.inspect(|counts| counts.durations.record(micros(took)));

            let (mut parts, body) = response.into_parts();
            let reframed = reframe::answer(&mut parts, &asked, told.cookies)
                .map_err(|bad| rejected(&bad, notes.server.clone().as_deref(), notes))?;
            lease.keep = reframed.keep;
            if reframed.cookies_removed > 0 {
                counts.inspect(|counts| counts.cookies_removed.add(reframed.cookies_removed));
                report_cookies(pools, upstream);
            }
            // If an answer starts before the request ends, its server also has the time of the request.
            let upload = meter.filter(|meter| !meter.is_ended()).cloned();
            let body = ResponseBody::new(body, lease, timeout, upload);
            Ok(Answer::Streamed(Response::from_parts(parts, body)))
        }
    }
}

/// An answer that cannot be passed on.
#[cold]
fn rejected(bad: &reframe::BadAnswer, server: Option<&Server>, notes: &mut Notes) -> Denial {
    notes.detail = Some(match server {
        Some(server) => format!("{}: {bad}", server.origin),
        None => bad.to_string(),
    });
    Denial::UpstreamFailed
}

/// Logs once that an upstream sets cookies of the gateway: it may be compromised, or be another gateway. The metrics
/// count each cookie.
#[cold]
fn report_cookies(pools: &Pools, upstream: &Upstream) {
    if upstream.is_first_report_of_cookies() {
        pools.journal.event(
            Level::Warn,
            "an upstream's answer set a cookie with one of the gateway's names; the gateway removed it, and will remove all others",
            &[("upstream", &upstream.name)],
        );
    }
}

#[cold]
fn report_down(pools: &Pools, upstream: &Upstream, server: &Server, why: &str) {
    let fields = [("upstream", &*upstream.name), ("server", &server.origin), ("error", why)];
    pools.journal.event(Level::Warn, "a server does not answer", &fields);
}

#[cold]
fn report_up(pools: &Pools, upstream: &Upstream, server: &Server) {
    let fields = [("upstream", &*upstream.name), ("server", &*server.origin)];
    pools.journal.event(Level::Info, "a server answers again", &fields);
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The refusal that the client's body caused, if it did: with its own reason, since the upstream is not at fault.
fn of_body(meter: Option<&Rc<Meter>>, notes: &mut Notes) -> Option<Denial> {
    let denial = meter?.denial()?;
    notes.detail = meter?.detail();
    Some(denial)
}

/// The request as it goes out: HTTP/1.1 whatever the client spoke (an HTTP/2 request keeps its version otherwise, and
/// no HTTP/1.1 connection takes it), its target in origin form.
fn outbound(
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

/// Tries servers in turn until one answers.
///
/// A server that is unreachable or whose connections are all in use is skipped. If all others fail and one is only
/// busy, the request waits for that one, within its timeout.
///
/// A request whose connection breaks before an answer is retried once, at the next server or at the same one, if that
/// is safe: either none of it was sent, or its method is idempotent (RFC 9110 section 9.2.2) and its body is available.
/// A streamed body is gone and cannot be sent again.
async fn send(
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
    let mut tried = Tried::default();
    let mut servers = upstream.in_turn(now);
    while let Some(server) = servers.next().or_else(|| tried.left_over()) {
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
                    let wait = tried.last.then(|| timeout.saturating_sub(now.elapsed()));
                    match Box::pin(connect(pools, upstream, server, wait, notes)).await {
                        Ok(lease) => lease,
                        Err(NoConnection::Full) => {
                            tried.busy.get_or_insert(server);
                            break;
                        }
                        Err(NoConnection::LineFull | NoConnection::Waited) => return Err(Denial::Overloaded),
                        Err(NoConnection::Fault(fault)) => {
                            tried.out_of_reach |= fault.is_the_servers();
                            break;
                        }
                    }
                }
            };
            let copy = if idempotent && !tried.sent { copy_of(&request) } else { None };
            lease.link.upload = meter.cloned();
            let response = lease.link.sender.try_send_request(request);
            let upload = meter.map(|meter| || meter.waiting());
            // Only the first attempt has the full time.
            let first = !tried.sent && !tried.last && !tried.broke_off;
            let left = if first { timeout } else { timeout.saturating_sub(now.elapsed()) };
            let mut error = match pools.deadlines.answer_within(left, upload, response).await {
                Ok(Ok(response)) => {
                    if server.answered() {
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
            if broke && !lease.reused && server.failed(Instant::now()) {
                report_down(pools, upstream, server, &why);
            }
            notes.detail = Some(format!("{}: {why}", server.origin));
            let was_sent = unsent.is_none();
            let Some(again) = unsent.or(copy.filter(|_| broke)) else { return Err(Denial::UpstreamFailed) };
            request = again;
            tried.sent |= was_sent;
            if !lease.reused {
                if tried.broke_off {
                    return Err(Denial::UpstreamFailed);
                }
                tried.broke_off = true;
                tried.again = Some(server);
                upstream.counters.of(pools.core).inspect(|counts| counts.retries.add(1));
                break;
            }
            // The server closed an idle connection. Retry over a new one to the same server.
        }
    }
    Err(tried.denial())
}

/// How far one request has come through the servers of its upstream.
#[derive(Default)]
struct Tried<'u> {
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

impl<'u> Tried<'u> {
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

/// Returns a new connection to a server, or, with `wait`, one that another request has released. Records why it returns neither.
async fn connect(
    pools: &Rc<Pools>,
    upstream: &Upstream,
    server: &Server,
    wait: Option<Duration>,
    notes: &mut Notes,
) -> Result<Lease, NoConnection> {
    let connected = pools.obtain(upstream, server, wait).await;
    notes.detail = match &connected {
        // A request that finds no room yet waits for it after all servers were tried: only the wait's end is worth a word.
        Ok(_) | Err(NoConnection::Full) => return connected,
        Err(NoConnection::Waited) => Some(format!(
            "all connections to {} that upstream.{}.connections allows are in use",
            server.origin, upstream.name
        )),
        Err(NoConnection::LineFull) => {
            Some(format!("too many requests wait for a connection to {}", server.origin))
        }
        Err(NoConnection::Fault(fault)) => {
            let why = fault.to_string();
            if fault.is_the_servers() && server.failed(Instant::now()) {
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

fn copy_of(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let body = request.body().copy()?;
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    Some(outbound(request.method().clone(), path, request.headers().clone(), body))
}

/// An error and its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
