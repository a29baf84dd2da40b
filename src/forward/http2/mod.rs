//! Sends requests to upstreams over HTTP/2. Requests share connections, and each request has a stream of its own.

pub(super) mod body;
mod head;
mod trailers;
mod upload;

use crate::denial::Denial;
use crate::forward::answer::{
    Answer, micros, reject_switch, report_cookies, response as answer, switched_to,
};
use crate::forward::body::early::EarlyAnswer;
use crate::forward::body::inflow::{Inflow, refuse};
use crate::forward::body::request_body::RequestBody;
use crate::forward::body::request_trailers::RequestTrailers;
use crate::forward::body::sending::{self, UploadError};
use crate::forward::connection::deadline::Stopped;
use crate::forward::connection::http2::{Links, ObtainError, StreamSlot};
use crate::forward::connection::pool::Pools;
use crate::forward::delivery::Delivery;
use crate::forward::faults::Http2Error;
use crate::forward::head::outgoing::{self, ForwardContext};
use crate::forward::head::reframe;
use crate::forward::http1::attempts::{report_down, report_up};
use crate::forward::notes::Notes;
use crate::forward::request::{
    PermittedRequest, body_denial, expects_continue, inflow, trailers as request_trailers,
};
use crate::forward::tunnel::http2_stream::{self, WebSocketStream};
use crate::forward::tunnel::server_end::ServerEnd;
use crate::forward::upstream::Upstream;
use crate::forward::upstream::balance::{Key, KeyFacts};
use crate::forward::upstream::server::Server;
use crate::http1::RequestFraming;
use body::{Http2Body, Open};
use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use head::RequestHead;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use trailers::AnswerTrailers;
use upload::Upload;

/// The maximum number of times that a request is sent again because no server has processed it.
const REFUSALS_MAX: u32 = 3;
/// The maximum number of interim answers before an answer, as over HTTP/1.1.
const INTERIM_MAX: u32 = 16;
/// The longest time after `grpc-timeout` at which a call ends while its client sends: the core's sweep ends the others.
const DEADLINE_DELAY: Duration = Duration::from_secs(1);

/// Forwards a request to an upstream that uses HTTP/2, and returns the upstream's response.
pub(super) async fn forward(
    pools: &Rc<Pools>,
    upstream: &Upstream,
    delivery: &Delivery,
    request: PermittedRequest<'_>,
    context: &ForwardContext<'_>,
    notes: &mut Notes,
) -> Result<Answer, Denial> {
    let PermittedRequest { permit, parts, target, body, meter, connection, mut handshake } = request;
    let now = context.now.steady;
    let version = parts.version;
    let accepts_trailers = head::accepts_trailers(&parts.headers);
    let deadline = head::grpc_timeout(&parts.headers);
    let is_grpc = version == Version::HTTP_2 && head::is_grpc(&parts.headers);
    let timeout = delivery.answer_timeout(upstream);
    let silence = delivery.answer_silence(upstream);
    let authority = context.host.or(target.authority.as_ref()).cloned();
    let principal = permit.principal().map(|principal| &**principal);
    let address = context.caller.address;
    let key = upstream.balance.key(KeyFacts { principal, headers: &parts.headers, address });
    let framing = sending::framing(&parts.method, &body);
    let is_held = body.expects_continue() && expects_continue(parts, framing);
    let trailers = request_trailers(delivery, parts, framing, &body);
    let mut body = if framing == RequestFraming::None { RequestBody::Empty } else { body };
    let announced = trailers.as_ref().and_then(RequestTrailers::announcement);
    if let Some(trailers) = trailers {
        body.pass_trailers(trailers);
    }
    let upload = Upload::new(body, is_held);
    let names = Rc::new(AnswerTrailers::new(context, delivery));

    let (outgoing, removed) = outgoing::head(parts, target, &permit, &delivery.audience, context);
    notes.forged = removed.0;
    let mut head = RequestHead::new(outgoing, authority.as_ref(), framing, accepts_trailers);
    if is_held {
        head.add(header::EXPECT, HeaderValue::from_static("100-continue"));
    }
    if let Some(names) = announced {
        head.add(header::TRAILER, names);
    }
    if let Some(handshake) = &mut handshake {
        head.turn_to(handshake);
    }
    let mut attempts =
        Attempts { pools, upstream, head, upload, refusals: 0, is_repeated: false, is_out_of_reach: false };
    let until_answer = deadline.map_or(timeout, |deadline| deadline.min(timeout));
    let is_head = *attempts.head.method() == Method::HEAD;
    let inflow = inflow(pools, delivery, meter, &permit, connection);
    let sending = attempts.send(until_answer, now, key, inflow.as_ref(), notes);
    let sent = match deadline {
        // A slow upload does not extend the time of a call.
        Some(deadline) => tokio::time::timeout(deadline + DEADLINE_DELAY, sending)
            .await
            .unwrap_or(Err(Denial::UpstreamTimeout)),
        None => sending.await,
    };
    let took = now.elapsed();
    notes.took = Some(took);
    let (mut received, slot) = sent.map_err(|denial| body_denial(meter, notes).unwrap_or(denial))?;
    let counts = upstream.counters.of(pools.core);
    counts.inspect(|counts| counts.durations.record(micros(took)));

    let (head, stream) = received.response.into_parts();
    let mut headers = head.headers;
    let opened = match (&handshake, received.opened.take()) {
        (Some(handshake), Some(sender)) if head.status.is_success() => {
            // The bytes of the WebSocket have no length (RFC 9110 section 9.3.6).
            headers.remove(header::CONTENT_LENGTH);
            handshake.accept_http2(&mut headers);
            let checked = handshake.check(&headers);
            checked.map_err(|fault| reject_switch(notes, &not_accepted(fault)))?;
            Some(sender)
        }
        (_, Some(mut sender)) => {
            // The server has refused the handshake. A failure means that its stream has ended.
            let _ = sender.send_data(Bytes::new(), true);
            None
        }
        (_, None) => None,
    };
    frame(head.status, &mut headers).map_err(|fault| {
        notes.detail = notes.server.as_ref().map(|server| format!("{server}: {fault}"));
        Denial::UpstreamFailed
    })?;
    let cookies_removed = reframe::answer(&mut headers, context.cookies);
    if cookies_removed > 0 {
        counts.inspect(|counts| counts.cookies_removed.add(cookies_removed));
        report_cookies(pools, upstream);
    }
    if let (Some(sender), Some(handshake)) = (opened, &handshake) {
        let end = ServerEnd::Stream(Box::new(WebSocketStream::new(slot, sender, stream)));
        return Ok(Answer::Switched(switched_to(pools, delivery, &permit, handshake, headers, end)));
    }
    if let Some(fields) = &delivery.answer_fields {
        fields.apply(&mut headers);
    }
    let is_bodyless = is_head || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if is_bodyless && !stream.is_end_stream() {
        // These answers have no content (RFC 9110 section 6.4.1). Dropping the stream resets it, so data from the server
        // does not reach the client.
        return Ok(Answer::Whole(answer(head.status, headers, Bytes::new())));
    }
    let slot = Rc::new(slot);
    // A server that answers in place of `100 Continue` gets no body, and the client is not asked for it. The stream is reset
    // at the end of the answer.
    let rest = received.rest.filter(|_| !attempts.upload.is_held());
    let early = rest.map(|mut rest| {
        let Attempts { mut upload, .. } = attempts;
        upload.forget();
        let slot = slot.clone();
        let send = move |cx: &mut Context<'_>| {
            // The stream is in use until the request is sent.
            let _ = &slot;
            upload.poll(cx, &mut rest)
        };
        EarlyAnswer::begin(send, meter.cloned(), inflow.as_ref().and_then(Inflow::rest))
    });
    let is_grpc = is_grpc && head::is_grpc(&headers);
    let meter = meter.filter(|meter| !meter.is_ended()).cloned();
    let left = deadline.map(|deadline| deadline.saturating_sub(now.elapsed()));
    let is_sized = headers.contains_key(header::CONTENT_LENGTH);
    let body = Http2Body::new(Open { stream, slot, names, early }, is_grpc, is_sized, silence, meter, left);
    Ok(Answer::Multiplexed(answer(head.status, headers, Box::new(body))))
}

fn not_accepted(fault: &str) -> String {
    format!("the answer to the handshake is invalid: {fault}")
}

/// Leaves at most one length in the head of an answer, and none in the head of a 204.
fn frame(status: StatusCode, headers: &mut HeaderMap) -> Result<(), &'static str> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let (first, second) = (lengths.next(), lengths.next());
    if second.is_some() {
        return Err("the answer has several lengths");
    }
    if first.is_some() && status == StatusCode::NO_CONTENT {
        headers.remove(header::CONTENT_LENGTH);
    }
    Ok(())
}

/// The head of an answer, and the stream of the request's body if the request is not sent yet.
struct Received {
    response: Response<RecvStream>,
    rest: Option<SendStream<Bytes>>,
    /// The gateway's side of a WebSocket's stream.
    opened: Option<SendStream<Bytes>>,
}

/// The reason why no answer arrived.
#[derive(Debug)]
enum Failure {
    /// The server has certainly not processed the request.
    NotProcessed(h2::Error),
    /// The connection was lost.
    Lost(h2::Error),
    /// The server reset the stream, or violated the protocol.
    Invalid(h2::Error),
    /// The server sent too many interim answers.
    Interim,
    /// The client's body failed.
    Upload,
}

impl Failure {
    /// Returns the failure of a request that was passed to the connection.
    ///
    /// GOAWAY ends the streams that the server has not processed (RFC 9113 section 6.8), and REFUSED_STREAM is such a
    /// stream (section 8.7).
    fn of(error: h2::Error) -> Self {
        let is_refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        if error.is_remote() && (error.is_go_away() || is_refused) {
            Self::NotProcessed(error)
        } else if error.is_io() {
            Self::Lost(error)
        } else {
            Self::Invalid(error)
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotProcessed(error) => {
                write!(f, "the server did not process the request: {}", Http2Error(error))
            }
            Self::Lost(error) => write!(f, "the connection broke before the answer: {}", Http2Error(error)),
            Self::Invalid(error) => write!(f, "no answer: {}", Http2Error(error)),
            Self::Interim => f.write_str("too many interim answers"),
            Self::Upload => f.write_str("the body of the request was not sent to its end"),
        }
    }
}

/// Sends a request over a stream, and returns the head of its answer. Dropping the future resets the stream.
async fn exchange(slot: &StreamSlot, request: Request<()>, upload: &mut Upload) -> Result<Received, Failure> {
    let is_websocket = request.method() == Method::CONNECT;
    let sent = slot.sender().send_request(request, upload.is_empty() && !is_websocket);
    let (mut response, stream) = sent.map_err(|error| match error.is_io() || error.is_go_away() {
        // The connection has ended in the meantime.
        true => Failure::NotProcessed(error),
        false => Failure::Invalid(error),
    })?;
    let (opened, stream) = if is_websocket { (Some(stream), None) } else { (None, Some(stream)) };
    let mut rest = stream.filter(|_| !upload.is_empty());
    let mut interim = Interim::default();
    let response = poll_fn(|cx| {
        if let Some(stream) = &mut rest {
            match upload.poll(cx, stream) {
                Poll::Ready(Err(UploadError::Body)) => return Poll::Ready(Err(Failure::Upload)),
                // A server that takes no more of the request may still answer.
                Poll::Ready(Ok(()) | Err(UploadError::Connection(_))) => rest = None,
                Poll::Pending => {}
            }
        }
        if std::mem::take(&mut interim.is_asked) {
            // The body was polled. The HTTP library now asks the client for it, which it does only before the answer.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        poll_response(cx, &mut response, &mut interim, upload)
    });
    let response = response.await?;
    slot.heard();
    Ok(Received { response, rest, opened })
}

/// The interim answers of a server.
#[derive(Default)]
struct Interim {
    count: u32,
    /// Whether the server has just asked for the body.
    is_asked: bool,
}

fn poll_response(
    cx: &mut Context<'_>,
    response: &mut ResponseFuture,
    interim: &mut Interim,
    upload: &mut Upload,
) -> Poll<Result<Response<RecvStream>, Failure>> {
    while let Poll::Ready(Some(informed)) = response.poll_informational(cx) {
        let informed = informed.map_err(Failure::of)?;
        interim.count += 1;
        if interim.count > INTERIM_MAX {
            return Poll::Ready(Err(Failure::Interim));
        }
        if informed.status() == StatusCode::CONTINUE && upload.release() {
            // The next poll sends the body.
            interim.is_asked = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
    }
    Poll::Ready(ready!(Pin::new(response).poll(cx)).map_err(Failure::of))
}

/// One request on its way through the servers of its upstream.
struct Attempts<'r> {
    pools: &'r Rc<Pools>,
    upstream: &'r Upstream,
    head: RequestHead,
    upload: Upload,
    /// The number of times that the request was sent again because no server had processed it.
    refusals: u32,
    /// Whether the request was sent again although a server may have processed it.
    is_repeated: bool,
    is_out_of_reach: bool,
}

impl Attempts<'_> {
    /// Tries servers in turn until one answers.
    ///
    /// A request that its server certainly has not processed is sent again. If the connection is lost, only a request
    /// with an idempotent method is sent again, once. In both cases, the body must still be in memory.
    async fn send(
        &mut self,
        timeout: Duration,
        now: Instant,
        key: Option<Key>,
        inflow: Option<&Inflow<'_>>,
        notes: &mut Notes,
    ) -> Result<(Received, StreamSlot), Denial> {
        let (pools, upstream) = (self.pools, self.upstream);
        let mut busy = None;
        let mut again = None;
        let mut is_last = false;
        let members = upstream.members_of(pools.core);
        let mut servers =
            upstream.in_turn(pools.core, &members, now, key, |server| pools.links.load(server)).peekable();
        loop {
            let next = servers.next().or_else(|| {
                is_last = true;
                busy.take().or_else(|| again.take())
            });
            let Some(server) = next else { break };
            let own = pools.links.of(server);
            notes.server = Some(own.origin.clone());
            loop {
                let left = timeout.saturating_sub(now.elapsed());
                let slot = match Links::obtain(pools, upstream, (server, &own), is_last, left).await {
                    Ok(slot) => slot,
                    Err(ObtainError::Full) => {
                        busy.get_or_insert(server);
                        break;
                    }
                    Err(error) => {
                        self.note_unreachable(server, &error, notes)?;
                        break;
                    }
                };
                if self.head.is_websocket() && !slot.accepts_websockets(left).await {
                    notes.detail = Some(format!("{}: {}", server.origin, http2_stream::NOT_ANNOUNCED));
                    return Err(Denial::UpstreamFailed);
                }
                let started = pools.deadlines.now();
                let exchange = exchange(&slot, self.head.request(server), &mut self.upload);
                let left = timeout.saturating_sub(now.elapsed());
                let failure = match pools.deadlines.answer_within(left, inflow, exchange).await {
                    Ok(Ok(received)) => {
                        if server.record_response() {
                            report_up(pools, upstream, server);
                        }
                        return Ok((received, slot));
                    }
                    Ok(Err(failure)) => failure,
                    Err(Stopped::Ended(end)) => return Err(refuse(inflow, end, notes)),
                    Err(Stopped::Elapsed) => {
                        slot.doubt(started);
                        notes.detail = Some(format!("{} did not answer within {timeout:?}", server.origin));
                        return Err(Denial::UpstreamTimeout);
                    }
                };
                notes.detail = Some(format!("{}: {failure}", server.origin));
                let is_lost = matches!(failure, Failure::Lost(_));
                if is_lost && slot.is_fresh() && server.record_failure(Instant::now()) {
                    report_down(pools, upstream, server, &failure.to_string());
                }
                if !self.may_repeat(&failure) {
                    return Err(Denial::UpstreamFailed);
                }
                // A server that replaces its connection is no failure, so GOAWAY takes nothing from the budget.
                let is_free = matches!(&failure, Failure::NotProcessed(error) if !error.is_reset());
                if !is_free && !upstream.take_retry(pools.core) {
                    let detail = format!("{}: {failure}; the retry budget is spent", server.origin);
                    notes.detail = Some(detail);
                    return Err(Denial::UpstreamFailed);
                }
                self.upload.rewind();
                upstream.counters.of(pools.core).inspect(|counts| counts.retries.add(1));
                // A server that refuses a stream may refuse the next one too.
                let mut has_other = || servers.peek().is_some_and(|other| !other.is_set_aside(now));
                if is_lost || !is_free && has_other() {
                    again = Some(server);
                    break;
                }
            }
        }
        if self.is_repeated {
            return Err(Denial::UpstreamFailed);
        }
        Err(if self.is_out_of_reach { Denial::UpstreamUnavailable } else { Denial::Overloaded })
    }

    fn may_repeat(&mut self, failure: &Failure) -> bool {
        if !self.upload.is_kept() {
            return false;
        }
        match failure {
            Failure::NotProcessed(_) => {
                self.refusals += 1;
                self.refusals <= REFUSALS_MAX
            }
            Failure::Lost(_) => {
                !std::mem::replace(&mut self.is_repeated, true) && self.head.method().is_idempotent()
            }
            Failure::Invalid(_) | Failure::Interim | Failure::Upload => false,
        }
    }

    /// Records why a server offers no stream. Returns the denial if no other server is to be tried.
    fn note_unreachable(
        &mut self,
        server: &Arc<Server>,
        error: &ObtainError,
        notes: &mut Notes,
    ) -> Result<(), Denial> {
        let origin = &server.origin;
        let (detail, is_over) = match error {
            ObtainError::Full => return Ok(()),
            ObtainError::Waited => {
                let name = &self.upstream.name;
                (format!("all streams to {origin} that upstream.{name}.connections allows are in use"), true)
            }
            ObtainError::LineFull => (format!("too many requests wait for a stream to {origin}"), true),
            ObtainError::Fault(fault) => {
                let why = fault.to_string();
                self.is_out_of_reach |= fault.blames_server();
                if fault.blames_server() && server.record_failure(Instant::now()) {
                    report_down(self.pools, self.upstream, server, &why);
                }
                (format!("cannot connect to {origin}: {why}"), false)
            }
        };
        notes.detail = Some(match notes.detail.take() {
            // The first failure is the cause, and the later ones follow from it.
            Some(earlier) => format!("{earlier}; then {detail}"),
            None => detail,
        });
        if is_over { Err(Denial::Overloaded) } else { Ok(()) }
    }
}
