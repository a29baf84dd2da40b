//! Sends a permitted request to an upstream and returns the response.
//!
//! The function `forward` consumes the [`Permit`], so each permit sends only one request. A request that is not
//! authorized has no permit.

mod answer_wait;
mod attempts;
mod balance;
mod check;
pub(crate) mod client;
mod connect;
mod connection;
mod counters;
mod deadline;
mod early;
mod echo;
pub(crate) mod edits;
mod exchange;
mod faults;
pub(crate) mod fields;
pub(crate) mod files;
pub(crate) mod foreign;
mod health;
mod http2;
mod identity_choice;
mod inflow;
mod members;
pub(crate) mod mirror;
mod notes;
mod open_streams;
pub(crate) mod outgoing;
pub(crate) mod pattern;
mod pins;
mod pool;
pub mod proof;
mod reframe;
mod request_body;
mod request_trailers;
mod resolve;
mod response_body;
mod retry_budget;
pub(crate) mod rewrite;
mod server_end;
mod server_id;
pub(crate) mod split;
pub mod strip;
mod tee;
mod tunnel;
mod upload;
mod upstream;

pub(crate) use balance::KeyFacts;
pub use balance::{Balance, HashBy};
pub(crate) use check::{Check, CheckSettings, Probe};
pub(crate) use client::ConnectionHeaders;
pub use counters::{UpstreamCounters, UpstreamShard};
pub(crate) use faults::{ResponseError, ResponseErrorKind};
pub use fields::FieldSink;
pub(crate) use http2::Http2Body;
pub use identity_choice::IdentityChoice;
pub(crate) use members::{Configured, Effect, MemberSettings, Names};
use mirror::Mirror;
pub(crate) use notes::Notes;
pub(crate) use open_streams::{OpenStream, StreamEnd, StreamKind};
use outgoing::WrittenHead;
pub(crate) use outgoing::{ForwardContext, Target, X_REQUEST_ID};
pub(crate) use pins::{PinVerifier, PinnedName, Pins};
pub(crate) use pool::Pools;
pub use proof::{Assertor, Audience, Proof, Proofs};
pub use request_body::BodyBounds;
pub(crate) use request_body::{BodyOwner, Inbound, Meter, RequestBody};
pub(crate) use resolve::Nameservers;
pub(crate) use response_body::ResponseBody;
pub(crate) use retry_budget::{RetryBudget, WINDOW as RETRY_WINDOW};
pub(crate) use tunnel::Tunnel;
pub use upstream::{Protocol, Server, Tls, Upstream};

use crate::authorize::Permit;
use crate::denial::Denial;
use crate::field_list::members;
use crate::http1::{AnswerHead, BodyReader, Framing, RequestFraming};
use crate::journal::Level;
use crate::peer::Connection;
use crate::websocket::Handshake;
use attempts::{Outbound, send};
use bytes::{Buf, Bytes, BytesMut};
use early::EarlyAnswer;
use edits::{AnswerFields, Edits};
use exchange::Answered;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri, Version, header};
use inflow::Inflow;
use request_trailers::RequestTrailers;
use rewrite::Rewrite;
use server_end::ServerEnd;
use split::Split;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use upload::Upload;

/// The destination of a route's requests.
#[derive(Clone, Debug)]
pub enum Destination {
    /// The servers of an upstream.
    Upstream(Arc<Upstream>),
    /// The built-in echo.
    Echo,
}

/// The forwarding settings of a route.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub(crate) destination: Destination,
    /// The other upstreams that share the requests of the route.
    pub(crate) split: Option<Box<Split>>,
    /// The copies of requests for another upstream.
    pub(crate) mirror: Option<Box<Mirror>>,
    /// The changes to the path and the host for the upstream.
    pub(crate) rewrite: Option<Box<Rewrite>>,
    /// The changes to the fields of requests.
    pub(crate) request_fields: Option<Box<Edits>>,
    /// The names of the trailers of requests that the upstream receives.
    pub(crate) request_trailers: Option<Arc<[HeaderName]>>,
    /// The changes to the fields of the upstream's answers.
    pub(crate) answer_fields: Option<Box<AnswerFields>>,
    /// Whether the client's `Authorization` header is forwarded unchanged.
    pub(crate) pass_authorization: bool,
    /// The timeout of the route. It overrides the upstream's timeout.
    pub(crate) timeout: Option<Duration>,
    /// Whether the route forwards WebSockets.
    pub(crate) websocket: bool,
    /// Whether WebSockets, long answers and long uploads end with the caller's token.
    pub(crate) ends_with_token: bool,
    /// The maximum time without a byte of an answer's body, or in either direction of a WebSocket.
    pub(crate) silence: Option<Duration>,
    /// The upstream's audience, for the proofs of identity.
    pub(crate) audience: Arc<Audience>,
}

/// A response for the client.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A response whose whole body is in memory.
    Whole(Response<Bytes>),
    /// A response whose body streams from an upstream.
    Streamed(Response<Box<ResponseBody>>),
    /// A response whose body streams from an upstream over HTTP/2.
    Multiplexed(Response<Box<Http2Body>>),
    /// The answer to a handshake that the upstream accepted, and the WebSocket that follows it.
    Switched(Response<Box<Tunnel>>),
}

#[derive(Debug)]
pub(crate) struct PermittedRequest<'m> {
    /// The proof that the request is authorized.
    pub(crate) permit: Permit,
    /// The head as the client sent it.
    pub(crate) parts: &'m mut Parts,
    /// The path and host that the upstream receives.
    pub(crate) target: Target,
    pub(crate) body: RequestBody,
    /// Measures the body while it is forwarded. `None` if the request has no body.
    pub(crate) meter: Option<&'m Rc<Meter>>,
    /// The client's connection.
    pub(crate) connection: &'m Rc<Connection>,
    /// The handshake, if the request is one.
    pub(crate) handshake: Option<Box<Handshake>>,
}

/// Forwards a request and returns the upstream's response.
///
/// # Errors
/// Returns [`Denial::UpstreamUnavailable`], [`Denial::UpstreamTimeout`], [`Denial::UpstreamFailed`] or
/// `Denial::Overloaded`. If the client's body failed while it was forwarded, returns the denial for that failure
/// instead.
pub(crate) async fn forward(
    pools: &Rc<Pools>,
    delivery: &Delivery,
    mut request: PermittedRequest<'_>,
    context: &ForwardContext<'_>,
    notes: &mut Notes,
) -> Result<Answer, Denial> {
    if let Some(mirror) = &delivery.mirror {
        mirror.copy(pools, &mut request, context);
    }
    if let Destination::Upstream(upstream) = &delivery.destination
        && upstream.protocol == Protocol::Http2
    {
        return Box::pin(http2::forward(pools, upstream, delivery, request, context, notes)).await;
    }
    let PermittedRequest { permit, parts, target, body, meter, connection, mut handshake } = request;
    let now = context.now.steady;
    match &delivery.destination {
        Destination::Echo => {
            let (head, removed) = outgoing::head(parts, target, &permit, &delivery.audience, context);
            notes.forged = removed.0;
            let mut response = match Box::pin(echo::answer(&head, body)).await {
                Ok(response) => response,
                Err(fault) => {
                    notes.detail = Some(fault.to_string());
                    return Err(body_denial(meter, notes).unwrap_or(Denial::UpstreamFailed));
                }
            };
            reframe::answer(response.headers_mut(), context.cookies);
            if let Some(fields) = &delivery.answer_fields {
                fields.apply(response.headers_mut());
            }
            Ok(Answer::Whole(response))
        }
        Destination::Upstream(upstream) => {
            let principal = permit.principal().map(|principal| &**principal);
            let address = context.caller.address;
            let key = upstream.balance.key(KeyFacts { principal, headers: &parts.headers, address });
            let framing = upload::framing(&parts.method, &body);
            let expects_continue = body.expects_continue() && expects_continue(parts, framing);
            let trailers = trailers(delivery, parts, framing, &body);
            let framing = if trailers.is_some() { RequestFraming::Chunked } else { framing };
            let (written, removed) = outgoing::write(
                parts,
                &target,
                framing,
                handshake.as_deref_mut(),
                &permit,
                &delivery.audience,
                context,
            );
            notes.forged = removed.0;
            let WrittenHead { bytes, mut headers } = written;
            let is_named = target.authority.is_some() || context.host.is_some();
            let mut upload = Upload::new(parts.method.clone(), bytes, framing, body, is_named);
            if let Some(trailers) = trailers {
                upload.pass_trailers(trailers);
            }
            if expects_continue {
                upload.expect_continue();
            }
            // Slices of the client's head would make hyper take a new buffer for its next read.
            drop(target);
            parts.uri = Uri::default();
            let timeout = delivery.timeout.unwrap_or(upstream.timeout);
            let silence = delivery.silence.unwrap_or(timeout);
            let inflow = inflow(pools, delivery, meter, &permit, connection);
            let request =
                Outbound { upload: &mut upload, headers: &mut headers, inflow: inflow.as_ref(), key };
            let sent = send(pools, upstream, timeout, request, now, notes).await;
            let took = now.elapsed();
            notes.took = Some(took);
            let (answered, lease) = sent.map_err(|denial| body_denial(meter, notes).unwrap_or(denial))?;
            let counts = upstream.counters.of(pools.core);
            counts.inspect(|counts| counts.durations.record(micros(took)));

            let Answered { head, is_sent, is_refused } = answered;
            let switched = check_switch(handshake, &head, is_sent, &headers, notes)?;
            let cookies_removed = reframe::answer(&mut headers, context.cookies);
            if cookies_removed > 0 {
                counts.inspect(|counts| counts.cookies_removed.add(cookies_removed));
                report_cookies(pools, upstream);
            }
            if let Some(handshake) = switched {
                let end = ServerEnd::Connection(lease);
                return Ok(Answer::Switched(switched_to(pools, delivery, &permit, &handshake, headers, end)));
            }
            if let Some(fields) = &delivery.answer_fields {
                fields.apply(&mut headers);
            }
            // hyper writes the length of a body that it sends.
            if let Some(length) = length_without_body(&head) {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            }
            // A server that answers in place of `100 Continue` gets no body, and the client is not asked for it.
            let is_refused = is_refused || upload.is_held();
            let keep = head.keep_alive && !is_refused;
            if is_sent && let Some(body) = lease.connection.arrived(|buffer| take_whole(buffer, head.framing))
            {
                if keep {
                    lease.release();
                }
                return Ok(Answer::Whole(response(head.status, headers, body)));
            }
            let is_early = !is_sent && !is_refused;
            let early = is_early.then(|| {
                let connection = lease.connection.clone();
                let stream = inflow.as_ref().and_then(Inflow::rest);
                EarlyAnswer::begin(move |cx| upload.poll(cx, &connection), meter.cloned(), stream)
            });
            // The response may begin before the client has sent its whole body. The server's timeout does not run while
            // the gateway waits for the client's body.
            let meter = meter.filter(|meter| !meter.is_ended()).cloned();
            let body = ResponseBody::new(BodyReader::new(head.framing), lease, keep, silence, early, meter);
            Ok(Answer::Streamed(response(head.status, headers, Box::new(body))))
        }
    }
}

/// Returns the client's side of a request with a body.
fn inflow<'r>(
    pools: &'r Pools,
    delivery: &Delivery,
    meter: Option<&'r Rc<Meter>>,
    permit: &'r Permit,
    connection: &'r Rc<Connection>,
) -> Option<Inflow<'r>> {
    let meter = meter?;
    let caller = permit.principal().filter(|_| delivery.ends_with_token);
    let certified = delivery.ends_with_token && connection.certificate().is_some();
    Some(Inflow::new(pools, meter, caller, certified.then_some(connection)))
}

/// Returns whether the HTTP library sends `100 Continue` once the body is read. It sends none over HTTP/2. A request that
/// is forwarded without content has nothing to wait for (RFC 9110 section 10.1.1).
#[cold]
fn expects_continue(parts: &Parts, framing: RequestFraming) -> bool {
    framing != RequestFraming::None
        && parts.version == Version::HTTP_11
        && members(&parts.headers, &header::EXPECT).any(|it| it.eq_ignore_ascii_case(b"100-continue"))
}

/// Returns the trailers of a request that the upstream receives.
#[inline]
fn trailers(
    delivery: &Delivery,
    parts: &Parts,
    framing: RequestFraming,
    body: &RequestBody,
) -> Option<RequestTrailers> {
    RequestTrailers::of(delivery.request_trailers.as_ref()?, parts, framing, body)
}

/// Returns the body of an answer that arrived together with its head.
fn take_whole(buffer: &mut BytesMut, framing: Framing) -> Option<Bytes> {
    let length = match framing {
        Framing::Empty => 0,
        Framing::Length(length) => usize::try_from(length).ok()?,
        Framing::Chunked | Framing::UntilClose => return None,
    };
    let body = Bytes::copy_from_slice(buffer.get(..length)?);
    buffer.advance(length);
    Some(body)
}

fn response<B>(status: StatusCode, headers: HeaderMap, body: B) -> Response<B> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    // An empty map holds no memory, and dropping one takes 60 instructions.
    std::mem::forget(std::mem::replace(response.headers_mut(), headers));
    response
}

/// Returns the `Content-Length` of a response without a body: that of the response to GET (RFC 9110 section 8.6), or 0.
fn length_without_body(head: &AnswerHead) -> Option<u64> {
    match head.framing {
        Framing::Empty if head.status != StatusCode::NO_CONTENT => head.length,
        Framing::Length(0) => Some(0),
        Framing::Empty | Framing::Length(_) | Framing::Chunked | Framing::UntilClose => None,
    }
}

/// Returns the handshake if the answer accepts it, and `None` for an answer that switches no protocol.
///
/// # Errors
/// Returns [`Denial::UpstreamFailed`] for an answer that accepts no handshake of this client.
#[inline]
fn check_switch(
    handshake: Option<Box<Handshake>>,
    head: &AnswerHead,
    is_sent: bool,
    headers: &HeaderMap,
    notes: &mut Notes,
) -> Result<Option<Box<Handshake>>, Denial> {
    let is_switched = head.status == StatusCode::SWITCHING_PROTOCOLS;
    let fault = match handshake {
        Some(handshake) if is_switched && is_sent => match handshake.check(headers) {
            Ok(()) => return Ok(Some(handshake)),
            Err(fault) => format!("the answer to the handshake is invalid: {fault}"),
        },
        Some(_) if is_switched => "the answer to the handshake came before the end of the request".to_owned(),
        None if is_switched => "the upstream switched protocols without being asked".to_owned(),
        // Over HTTP/2, a 2xx would open the WebSocket (RFC 8441 section 5).
        Some(handshake) if handshake.is_http2() && head.status.is_success() => {
            "the upstream answered a WebSocket handshake with 2xx".to_owned()
        }
        Some(_) | None => return Ok(None),
    };
    Err(reject_switch(notes, &fault))
}

/// Returns the answer to an accepted handshake.
fn switched_to(
    pools: &Pools,
    delivery: &Delivery,
    permit: &Permit,
    handshake: &Handshake,
    mut headers: HeaderMap,
    end: ServerEnd,
) -> Response<Box<Tunnel>> {
    handshake.complete(&mut headers);
    let status = if handshake.is_http2() { StatusCode::OK } else { StatusCode::SWITCHING_PROTOCOLS };
    let caller = permit.principal().filter(|_| delivery.ends_with_token).cloned();
    let stream = pools.open_websocket(caller, delivery.silence);
    response(status, headers, Box::new(Tunnel::new(end, stream)))
}

#[cold]
fn reject_switch(notes: &mut Notes, fault: &str) -> Denial {
    let origin = notes.server.as_deref().unwrap_or_default();
    notes.detail = Some(format!("{origin}: {fault}"));
    Denial::UpstreamFailed
}

/// Logs a warning when an upstream first sets a cookie with one of the gateway's names. The upstream may be
/// compromised, or may be another gateway. The metrics count every such cookie.
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

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Returns the denial if the client's body failed, and records the reason. In that case the upstream is not at fault.
fn body_denial(meter: Option<&Rc<Meter>>, notes: &mut Notes) -> Option<Denial> {
    let denial = meter?.denial()?;
    notes.detail = meter?.detail();
    Some(denial)
}
