//! Sends a permitted request to an upstream and returns the response.
//!
//! The function `forward` consumes the [`Permit`](crate::authorize::Permit), so each permit sends only one request. A
//! request that is not authorized has no permit.
//!
//! The parts, in the order in which a request meets them (`tests/structure.rs` has the order of their imports):
//!
//! 1. `delivery` has the settings of a route and chooses the upstream. `mirror` copies the request.
//! 2. `head` makes the head that the upstream receives.
//! 3. `http1` and `http2` exchange the request and its answer with one server after the other. `tunnel` passes the
//!    bytes of WebSockets. `echo` and `files` answer without a server.
//! 4. `connection` has the core's connections and deadlines.
//! 5. `body` reads and bounds the bodies.
//! 6. `upstream` describes servers: their names, checks, health and order.
//!
//! `open_streams` ends streams with their token. `faults` names the failures of answers.

mod answer;
mod body;
mod connection;
mod delivery;
mod echo;
mod faults;
pub(crate) mod files;
mod head;
mod http1;
mod http2;
mod mirror;
mod notes;
mod open_streams;
mod request;
mod tunnel;
mod upstream;

pub(crate) use answer::Answer;
pub use body::meter::BodyBounds;
pub(crate) use body::meter::Meter;
pub(crate) use body::request_body::{BodyOwner, Inbound, RequestBody};
pub(crate) use connection::pool::Pools;
pub use delivery::{Delivery, Destination};
pub(crate) use delivery::{Mirror, Selector, Share, Split};
pub(crate) use faults::{ResponseError, ResponseErrorKind};
pub(crate) use head::client::ConnectionHeaders;
pub use head::fields::FieldSink;
pub use head::identity_choice::IdentityChoice;
pub(crate) use head::outgoing::{ForwardContext, Target, X_REQUEST_ID};
pub use head::proof::{Assertor, Audience, Proof, Proofs};
pub(crate) use head::{edits, foreign, outgoing, pattern, rewrite};
pub use head::{proof, strip};
pub(crate) use http1::response_body::ResponseBody;
pub(crate) use http2::body::Http2Body;
pub(crate) use notes::Notes;
pub(crate) use open_streams::{OpenStream, StreamEnd, StreamKind};
pub(crate) use request::PermittedRequest;
pub(crate) use tunnel::Tunnel;
pub use upstream::Upstream;
pub(crate) use upstream::balance::KeyFacts;
pub use upstream::balance::{Balance, HashBy};
pub(crate) use upstream::check::{Check, CheckSettings, Probe};
pub use upstream::counters::{UpstreamCounters, UpstreamShard};
pub(crate) use upstream::members::{Configured, Effect, MemberSettings, Names};
pub(crate) use upstream::pins::{PinVerifier, PinnedName, Pins};
pub(crate) use upstream::resolve::Nameservers;
pub(crate) use upstream::retry_budget::{RetryBudget, WINDOW as RETRY_WINDOW};
pub use upstream::server::{Protocol, Server, Tls};

use crate::denial::Denial;
use crate::http1::{AnswerHead, BodyReader, Framing, RequestFraming};
use crate::websocket::Handshake;
use answer::{micros, reject_switch, report_cookies, response, switched_to};
use body::early::EarlyAnswer;
use body::inflow::Inflow;
use body::sending;
use bytes::{Buf, Bytes, BytesMut};
use head::outgoing::WrittenHead;
use head::reframe;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use http1::attempts::{Outbound, send};
use http1::exchange::Answered;
use http1::upload::Upload;
use request::{body_denial, expects_continue, inflow, trailers};
use std::rc::Rc;
use tunnel::server_end::ServerEnd;

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
            let framing = sending::framing(&parts.method, &body);
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
            let timeout = delivery.answer_timeout(upstream);
            let silence = delivery.answer_silence(upstream);
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
