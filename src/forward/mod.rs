//! Send it on: a permitted request to an upstream, and its answer back.
//!
//! [`forward`] takes the [`Permit`] by value: nothing that was not authorized has one, and one sends one request.

mod body;
mod deadline;
mod echo;
pub mod outgoing;
mod pool;
pub mod proof;
pub mod strip;
mod upstream;

pub use body::{BodyBounds, Cut, Meter, RequestBody, ResponseBody};
pub use outgoing::{Prepared, Target, Told, X_REQUEST_ID};
pub use pool::Pools;
pub use proof::{Assertor, Audience, Proof, Proofs};
pub use upstream::{Server, Tls, Upstream};

use crate::authorize::Permit;
use crate::denial::Denial;
use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version, header};
use hyper::body::Incoming;
use pool::Lease;
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
    /// Whether it is to be timed: only for a line of the log.
    pub timed: bool,
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
    meter: Option<&Meter>,
    told: &Told<'_>,
    now: Instant,
    notes: &mut Notes,
) -> Result<Answer, Denial> {
    let (method, path, headers, forged) = outgoing::head(parts, target, &permit, &delivery.audience, told);
    notes.forged = forged;
    match &delivery.destination {
        Destination::Echo => match Box::pin(echo::answer(&method, &path, &headers, body)).await {
            Ok(response) => Ok(Answer::Whole(response)),
            Err(fault) => {
                notes.detail = Some(fault.to_string());
                Err(meter.and_then(Meter::denial).unwrap_or(Denial::UpstreamFailed))
            }
        },
        Destination::Upstream(upstream) => {
            let request = outbound(method, path, headers, body);
            let timeout = delivery.timeout.unwrap_or(upstream.timeout);
            let sent = send(pools, upstream, timeout, request, now, notes).await;
            if notes.timed {
                notes.took = Some(now.elapsed());
            }
            match sent {
                Ok((response, lease)) => answer(response, lease, timeout, notes).map(Answer::Streamed),
                Err(denial) => Err(meter.and_then(Meter::denial).unwrap_or(denial)),
            }
        }
    }
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

/// Tries servers in turn until one takes the request.
///
/// A request goes to another server, or again to the same, only where that is safe: nothing of it was sent; or it
/// went over a connection that had been idle, which the server closed meanwhile, and it is idempotent (RFC 9110
/// section 9.2.2) and has no body.
async fn send(
    pools: &Rc<Pools>,
    upstream: &Upstream,
    timeout: Duration,
    mut request: Request<RequestBody>,
    now: Instant,
    notes: &mut Notes,
) -> Result<(Response<Incoming>, Lease), Denial> {
    let repeatable = request.method().is_idempotent() && request.body().is_empty();
    // A client of HTTP/1.0 may name no host; a request of HTTP/1.1 has one (RFC 9112 section 3.2).
    let named = request.headers().contains_key(header::HOST);
    for server in upstream.in_turn(now) {
        notes.server = Some(server.clone());
        if let (false, Some(authority)) = (named, server.authority()) {
            request.headers_mut().insert(header::HOST, authority);
        }
        let mut idle = pools.reuse(server);
        loop {
            let mut lease = match idle.take() {
                Some(lease) => lease,
                // Seldom needed, and large: kept out of every other request's own memory.
                None => match Box::pin(pools.connect(upstream, server)).await {
                    Ok(lease) => lease,
                    Err(error) => {
                        server.failed(Instant::now());
                        notes.detail = Some(format!("cannot connect to {}: {error}", server.origin));
                        break;
                    }
                },
            };
            let copy = (lease.reused && repeatable).then(|| copy_of(&request));
            let response = lease.sender.try_send_request(request);
            let mut error = match pools.deadlines.within(timeout, response).await {
                Ok(Ok(response)) => {
                    server.answered();
                    return Ok((response, lease));
                }
                Ok(Err(error)) => error,
                Err(deadline::Elapsed) => {
                    notes.detail = Some(format!("{} did not answer within {timeout:?}", server.origin));
                    return Err(Denial::UpstreamTimeout);
                }
            };
            match error.take_message().or(copy.filter(|_| broke_off(error.error()))) {
                Some(unsent) if lease.reused => request = unsent,
                Some(_) | None => {
                    let error = error.into_error();
                    if broke_off(&error) {
                        server.failed(Instant::now());
                    }
                    notes.detail = Some(format!("{}: {}", server.origin, chain(&error)));
                    return Err(Denial::UpstreamFailed);
                }
            }
        }
    }
    Err(Denial::UpstreamUnavailable)
}

/// Whether a connection ended before the answer's head, as one does that the server closed while it was idle.
fn broke_off(error: &hyper::Error) -> bool {
    error.is_incomplete_message()
        || error.is_closed()
        || error.is_canceled()
        || (!error.is_parse() && !error.is_user())
}

fn copy_of(request: &Request<RequestBody>) -> Request<RequestBody> {
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    outbound(request.method().clone(), path, request.headers().clone(), RequestBody::Empty)
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

/// The upstream's answer, re-framed for the client.
fn answer(
    response: Response<Incoming>,
    lease: Lease,
    timeout: Duration,
    notes: &mut Notes,
) -> Result<Response<ResponseBody>, Denial> {
    let (mut parts, body) = response.into_parts();
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        // No upgrade was asked for: what follows on this connection is not HTTP that we could frame.
        notes.detail = Some("the upstream switched protocols unasked".to_owned());
        return Err(Denial::UpstreamFailed);
    }
    strip::hop_by_hop(&mut parts.headers);
    parts.version = Version::HTTP_11;
    Ok(Response::from_parts(parts, ResponseBody::new(body, lease, timeout)))
}
