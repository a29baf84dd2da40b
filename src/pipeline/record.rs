//! Records one request: an access line and counts, written exactly once.
//!
//! The stages report to the record and never read it. The record is written when it is dropped, after the last byte of
//! the response or when the client disconnects. The record has no field for a token, a query or a client's header
//! field.

use super::access_log::{self, Line};
use super::exchange::{Exchange, OriginalRequest};
use crate::authenticate::Principal;
use crate::clock::Now;
use crate::denial::Denial;
use crate::forward::outgoing::traceparent;
use crate::forward::{
    Destination, Meter, Notes, OpenStream, ResponseError, ResponseErrorKind, StreamEnd, StreamKind,
};
use crate::limit::Standing;
use crate::metrics::{RequestOutcome, RouteCounters};
use crate::peer::{Caller, Connection};
use crate::policy::{Handler, PinnedPolicy};
use crate::request_id::{RequestId, trace_id_of};
use crate::worker::Worker;
use crate::worker_settings::AccessLog;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;
use std::time::Instant;

/// The logged status of a request whose client disconnected before the response. It is never sent. Operators know the
/// number from nginx.
const CLIENT_LEFT: u16 = 499;

#[derive(Debug)]
pub(super) struct Record {
    worker: Rc<Worker>,
    /// `None` once a WebSocket has released it.
    policy: Option<PinnedPolicy>,
    /// The counters of the route of a WebSocket.
    kept: Option<Arc<RouteCounters>>,
    connection: Rc<Connection>,
    now: Now,
    caller: Caller,
    id: RequestId,
    /// The request id that a trusted proxy set.
    id_of_proxy: Option<HeaderValue>,
    traceparent: Option<HeaderValue>,
    version: Version,
    method: Method,
    target: Option<PathAndQuery>,
    host: Option<HeaderValue>,
    route: Option<usize>,
    status: Option<StatusCode>,
    denial: Option<Denial>,
    shadow: Option<Denial>,
    principal: Option<Rc<Principal>>,
    meter: Option<Rc<Meter>>,
    /// The WebSocket or long answer of the request.
    stream: Option<Rc<OpenStream>>,
    notes: Notes,
    bytes_out: u64,
    complete: bool,
    broken: Option<ResponseErrorKind>,
    is_question: bool,
    /// Whether the request is a validation by an ACME server.
    is_challenge: bool,
}

impl Record {
    pub(super) fn begin(
        worker: &Rc<Worker>,
        policy: PinnedPolicy,
        connection: &Rc<Connection>,
        exchange: &Exchange,
        parts: &Parts,
    ) -> Box<Self> {
        connection.activity.begin_request();
        worker.counters().requests_in_progress.add(1);
        let logged = worker.settings().access != AccessLog::Off;
        // The body of the response carries the record, which is too large to be moved there. It is created in its box,
        // because `Box::new` would copy it.
        let uninitialized = Box::new_uninit();
        let record = Self {
            worker: worker.clone(),
            policy: Some(policy),
            kept: None,
            connection: connection.clone(),
            now: exchange.now,
            caller: exchange.caller,
            id: exchange.id,
            // A copy of the gateway's own id would cost an allocation.
            id_of_proxy: (!exchange.is_own_id).then(|| exchange.id_header.clone()),
            traceparent: if logged { traceparent(&parts.headers).cloned() } else { None },
            version: parts.version,
            method: parts.method.clone(),
            target: if logged { parts.uri.path_and_query().cloned() } else { None },
            host: if logged {
                parts.headers.get(header::HOST).cloned().or_else(|| authority(parts))
            } else {
                None
            },
            route: None,
            status: None,
            denial: None,
            shadow: None,
            principal: None,
            meter: None,
            stream: None,
            notes: Notes::default(),
            bytes_out: 0,
            complete: false,
            broken: None,
            is_question: false,
            is_challenge: false,
        };
        Box::write(uninitialized, record)
    }

    /// Returns the trace id if it differs from the request id. The trace id is from the client's `traceparent`. Without
    /// a `traceparent`, it is the gateway's id, which differs from the request id if a trusted proxy set the request
    /// id.
    fn trace_id(&self) -> Option<[u8; 32]> {
        let of_client = self.traceparent.as_ref().and_then(trace_id_of);
        let begun_here = || {
            let id_of_proxy = self.id_of_proxy.as_ref()?;
            Some(self.id.trace_id()).filter(|id| id_of_proxy.as_bytes() != id)
        };
        of_client.or_else(begun_here)
    }

    /// Returns the notes, for the forwarding code.
    pub(super) fn notes(&mut self) -> &mut Notes {
        &mut self.notes
    }

    pub(super) fn routed(&mut self, route: usize) {
        self.route = Some(route);
    }

    /// Records the caller, if the token was verified.
    pub(super) fn identified(&mut self, principal: Option<&Rc<Principal>>) {
        self.principal = principal.cloned();
    }

    /// Records the detailed reason for a refusal, for the operator. Replaces an earlier reason, unless that is the reason for
    /// a refusal that shadow mode did not enforce.
    pub(super) fn explained(&mut self, detail: String) {
        let shadowed = self.notes.detail.take().filter(|_| self.shadow.is_some());
        self.notes.detail = Some(match shadowed {
            Some(shadowed) => format!("{shadowed}; then {detail}"),
            None => detail,
        });
    }

    /// Records a refusal that is not enforced because the route is in shadow mode. Keeps only the first.
    pub(super) fn shadowed(&mut self, denial: Denial) {
        if self.notes.detail.is_none() {
            self.notes.detail = denial.finer().map(str::to_owned);
        }
        self.shadow.get_or_insert(denial);
    }

    /// Records that this is a forward-auth request.
    pub(super) fn asks_for_verdict(&mut self) {
        self.is_question = true;
    }

    /// Replaces the facts with the facts of the original request, because operators search the log for the original
    /// request.
    pub(super) fn asked_about(&mut self, original: &OriginalRequest) {
        self.is_question = true;
        self.route = None;
        self.caller.scheme = original.scheme;
        self.method = original.parts.method.clone();
        if self.target.is_some() {
            self.target = original.parts.uri.path_and_query().cloned();
            self.host = original.parts.headers.get(header::HOST).cloned();
        }
    }

    pub(super) fn metered(&mut self, meter: Rc<Meter>) {
        self.meter = Some(meter);
    }

    /// Records that the client read the response too slowly.
    pub(super) fn not_read(&mut self) {
        self.complete = false;
        self.notes.detail = Some("the client did not read the answer in time".to_owned());
    }

    /// Explains the refusal of a head or body that exceeds its limit.
    pub(super) fn too_large(&mut self, denial: &Denial, headers: &HeaderMap) {
        let Some(policy) = &self.policy else { return };
        let front = &policy.front;
        if *denial == Denial::HeadersTooLarge {
            let bounds = front.head_bounds;
            let bounds = if self.is_question { bounds.of_question() } else { bounds };
            self.notes.detail = Some(bounds.excess(headers));
        } else if *denial == Denial::BodyTooLarge {
            // hyper has already parsed the field as a number. Without the field, the length is unknown.
            let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
            let (length, bound) = (length.unwrap_or("more"), front.body_bounds.size);
            let detail = format!("a body of {length} bytes, and body_size in [server.bounds] is {bound}");
            self.notes.detail = Some(detail);
        }
    }

    /// Explains a refusal by a rate limit.
    pub(super) fn limited(&mut self, standing: &Standing<'_>) {
        if self.notes.detail.is_none() {
            self.notes.detail = standing.refused_by();
        }
    }

    /// Records that the request is a validation by an ACME server.
    pub(super) fn is_validation(&mut self) {
        self.is_challenge = true;
        self.explained("a validation by the ACME server".to_owned());
    }

    pub(super) fn refused(&mut self, denial: Denial) {
        // The meter has the exact reason. If a streamed body exceeds its limit, the upstream connection only reports
        // that the body ended.
        if let (Denial::BodyTooLarge, Some(meter), Some(policy)) = (&denial, &self.meter, &self.policy) {
            let (came, bound) = (meter.bytes(), policy.front.body_bounds.size);
            self.notes.detail = Some(if came > bound {
                format!("the body has more bytes than body_size in [server.bounds], which is {bound}")
            } else {
                "the body has more bytes than this endpoint reads".to_owned()
            });
        }
        if let Some(finer) = denial.finer().filter(|_| self.notes.detail.is_none() || self.shadow.is_some()) {
            self.explained(finer.to_owned());
        }
        self.denial = Some(denial);
    }

    pub(super) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// Records the WebSocket or the long answer that follows the head of the response.
    pub(super) fn open(&mut self, stream: Rc<OpenStream>) {
        if stream.kind == StreamKind::WebSocket {
            self.worker.counters().websockets_open.add(1);
        }
        if self.connection.certificate().is_some() && self.ends_with_token() {
            stream.require_certificate(&self.connection);
        }
        self.stream = Some(stream);
    }

    /// Registers the answer with the core's sweep if it has to end with the caller's token or certificate.
    pub(super) fn bound(&mut self) {
        let is_bound = self.principal.is_some() || self.connection.certificate().is_some();
        if self.stream.is_none() && is_bound && self.ends_with_token() {
            let stream = self.worker.pools().open_answer(self.principal.clone());
            self.open(stream);
        }
    }

    /// Returns whether the streams of the route end with the caller's token.
    fn ends_with_token(&self) -> bool {
        let (Some(policy), Some(route)) = (&self.policy, self.route) else { return false };
        policy.routes[route].handler.ends_with_token() == Some(true)
    }

    /// Returns the reason why the answer has to end. Without one, the end wakes the task of `cx`.
    #[inline]
    pub(super) fn poll_end(&self, cx: &Context<'_>) -> Option<StreamEnd> {
        self.stream.as_ref()?.poll_end(cx)
    }

    /// Returns whether bytes were passed to the client's connection.
    pub(super) fn has_sent(&self) -> bool {
        self.bytes_out > 0
    }

    /// Returns whether the client does not read the output that waits for it, so that the body must not add to it.
    #[inline]
    pub(super) fn is_client_blocked(&self) -> bool {
        self.connection.activity.is_blocked() && !self.connection.is_http2()
    }

    /// Counts body bytes that were passed to the client's connection.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.bytes_out += bytes as u64;
    }

    /// Records that the upstream's response ended early, after its head.
    pub(super) fn cut(&mut self, error: &ResponseError) {
        self.notes.detail = Some(error.to_string());
        self.broken = error.kind();
        if let (ResponseError::Ended(end), None) = (error, &self.stream) {
            self.notes.ended = Some(*end);
        }
    }

    /// Returns whether the whole response was passed to the client's connection.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Records that the response ends early. Over HTTP/1.1 the client sees the end of a response in chunks. If the response
    /// has a length, or ends with its connection as over HTTP/1.0, only a reset shows all clients that it is incomplete.
    pub(super) fn break_off(&self, is_sized: bool) {
        if !self.connection.is_http2() && (is_sized || self.version == Version::HTTP_10) {
            self.connection.activity.break_off();
        }
    }

    /// Records that the whole response was passed to the client's connection.
    pub(super) fn completed(&mut self) {
        self.complete = true;
    }

    /// Releases the policy, because a WebSocket may outlive many policies, and the buffer of the request's head.
    pub(super) fn unpin(&mut self) {
        self.kept = self.counters().cloned();
        self.policy = None;
        self.target = self.target.take().and_then(|target| target.as_str().parse().ok());
        for value in [&mut self.host, &mut self.traceparent, &mut self.id_of_proxy] {
            *value = value.take().and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok());
        }
        if !self.connection.is_http2() {
            self.connection.peer_lines.take();
        }
    }

    /// Returns the counters of the route, if one was found.
    fn counters(&self) -> Option<&Arc<RouteCounters>> {
        let of_policy = || Some(&self.policy.as_ref()?.routes[self.route?].counters);
        self.kept.as_ref().or_else(of_policy)
    }

    fn count(&self, outcome: RequestOutcome<'_>, micros: u64) {
        if let Some(counters) = self.counters() {
            counters.record(self.worker.index(), outcome, micros);
        }
    }

    #[cold]
    fn count_broken(&self, broken: ResponseErrorKind) {
        if let Some(counters) = &self.notes.split {
            counters.of(self.worker.index()).inspect(|counts| counts.count_response_error(broken));
        } else if let (Some(route), Some(policy)) = (self.route, &self.policy)
            && let Handler::Forward(delivery) = &policy.routes[route].handler
            && let Destination::Upstream(upstream) = &delivery.destination
            && let Some(counts) = upstream.counters.of(self.worker.index())
        {
            counts.count_response_error(broken);
        }
    }

    /// Returns the reason why the gateway ended the upload, or the stream ended.
    fn ended(&self) -> Option<StreamEnd> {
        self.notes.ended.or_else(|| self.stream.as_ref()?.end())
    }

    fn stream_bytes(&self, of: impl Fn(&OpenStream) -> &Cell<u64>) -> u64 {
        self.stream.as_ref().map_or(0, |stream| of(stream).get())
    }

    fn line<'l>(&'l self, micros: u64, own_id: &'l [u8; 32], trace_id: Option<&'l [u8; 32]>) -> Line<'l> {
        Line {
            unix: self.now.unix,
            subsec_nanos: self.now.subsec_nanos,
            level: access_log::level(self.denial.as_ref(), self.broken.is_some()),
            request_id: self.id_of_proxy.as_ref().map_or(own_id, HeaderValue::as_bytes),
            trace_id: trace_id.map(|id| &id[..]),
            client: self.caller.address,
            scheme: self.caller.scheme,
            version: protocol(self.version),
            method: self.method.as_str().as_bytes(),
            host: self.host.as_ref().map_or(b"", HeaderValue::as_bytes),
            path: self.target.as_ref().map_or("", PathAndQuery::path).as_bytes(),
            route: self.counters().map(|counters| &**counters.name()),
            status: self.status.map_or(CLIENT_LEFT, |status| status.as_u16()),
            code: self.denial.as_ref().map(Denial::code),
            shadow: self.shadow.as_ref().map(Denial::code),
            detail: self.notes.detail.as_deref(),
            subject: self.principal.as_ref().map(|principal| &*principal.subject),
            issuer: self.principal.as_ref().map(|principal| &*principal.issuer),
            upstream: self.notes.server.as_deref(),
            bytes_in: self.meter.as_ref().map_or(0, |meter| meter.bytes())
                + self.stream_bytes(|it| &it.bytes_in),
            bytes_out: self.bytes_out + self.stream_bytes(|it| &it.bytes_out),
            ended: self.ended().map(StreamEnd::as_str),
            micros,
            upstream_micros: self.notes.took.map(|took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX)),
            complete: self.complete,
            verdict_for: self.is_question.then_some(self.connection.peer.address),
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let worker = &self.worker;
        let elapsed = Instant::now().saturating_duration_since(self.now.steady);
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let counters = worker.counters();
        match (self.route, &self.denial, self.status) {
            (Some(_), Some(denial), _) => self.count(RequestOutcome::Refused(denial), micros),
            (Some(_), None, Some(_)) if self.is_question => self.count(RequestOutcome::Permitted, micros),
            (Some(_), None, Some(status)) => self.count(RequestOutcome::Forwarded(status), micros),
            (None, Some(denial), _) => counters.unrouted.record(denial),
            (None, None, Some(_)) if self.is_challenge => counters.acme_challenges.add(1),
            (None, None, Some(_)) => counters.redirected.add(1),
            (_, None, None) => counters.clients_left.add(1),
        }
        if let (Some(counters), Some(shadow)) = (self.counters(), &self.shadow) {
            counters.shadowed(worker.index(), shadow);
        }
        if self.notes.forged > 0 {
            counters.identity_dropped.add(self.notes.forged);
        }
        if let Some(broken) = self.broken {
            self.count_broken(broken);
        }
        if let Some(counters) = &self.notes.split {
            counters.of(worker.index()).inspect(|counts| counts.split.add(1));
        }
        if let Some(stream) = &self.stream {
            counters.record_stream(stream.kind, stream.end());
        }
        if self.notes.ended.is_some() {
            counters.record_stream(StreamKind::Upload, self.notes.ended);
        }
        counters.requests_in_progress.sub(1);
        let wanted = match worker.settings().access {
            AccessLog::On => true,
            AccessLog::Refusals => self.denial.is_some() || self.shadow.is_some() || self.broken.is_some(),
            AccessLog::Off => false,
        };
        if wanted {
            let (own_id, trace_id) = (self.id.trace_id(), self.trace_id());
            worker.log_line(|lines| {
                self.line(micros, &own_id, trace_id.as_ref()).write(worker.settings().style, lines);
            });
        }
        self.connection.activity.end_request(self.connection.coarse_now());
    }
}

fn protocol(version: Version) -> &'static str {
    if version == Version::HTTP_2 {
        "HTTP/2"
    } else if version == Version::HTTP_10 {
        "HTTP/1.0"
    } else {
        "HTTP/1.1"
    }
}

/// Returns the host in the request target: `:authority` over HTTP/2, or the host of an absolute-form target over
/// HTTP/1.1.
fn authority(parts: &Parts) -> Option<HeaderValue> {
    parts.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok())
}
