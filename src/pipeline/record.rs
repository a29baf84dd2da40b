//! What is told of one request: an access line and counts, once, whatever becomes of it.
//!
//! A record is written when it is dropped: with the answer's last byte, or when the client leaves before. It has no
//! field that could hold a token, a query or a header of the client's.

use super::access_log::{self, Line};
use super::forward_auth::{Manner, Original};
use crate::authenticate::{Access, Principal, Refused, Sources, credential};
use crate::authorize::{Permit, Refusal};
use crate::clock::Now;
use crate::denial::Denial;
use crate::forward::outgoing::TRACEPARENT;
use crate::forward::{Destination, Meter, Notes, ResponseError, ResponseErrorKind};
use crate::limit::Standing;
use crate::metrics::Outcome;
use crate::peer::{Caller, Relayed};
use crate::peer::{Connection, forwarded};
use crate::plan::AccessLog;
use crate::policy::{Handler, PinnedPolicy, Route};
use crate::recent;
use crate::request_id::{RequestId, trace_id_of};
use crate::respond::{Format, Ways, is_repeatable};
use crate::route::{Head, Params};
use crate::worker::Worker;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use std::rc::Rc;
use std::time::Instant;

/// The status that stands in the log when the client left before its answer. Not sent to anybody; the number is the
/// one that operators know from other proxies.
const CLIENT_LEFT: u16 = 499;

/// The facts of one request, gathered as it goes.
#[derive(Debug)]
pub(crate) struct Record {
    worker: Rc<Worker>,
    policy: PinnedPolicy,
    connection: Rc<Connection>,
    now: Now,
    caller: Caller,
    relayed: Option<Box<Relayed>>,
    id: RequestId,
    id_header: HeaderValue,
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
    notes: Notes,
    bytes_out: u64,
    complete: bool,
    format: Format,
    at_root: bool,
    broken: Option<ResponseErrorKind>,
    to_login: Option<HeaderValue>,
    ways: Option<Box<Ways>>,
    session_over: bool,
    access_over: bool,
    verdict: Option<Manner>,
}

impl Record {
    /// Begins with what the head says.
    pub(crate) fn begin(
        worker: &Rc<Worker>,
        policy: PinnedPolicy,
        connection: &Rc<Connection>,
        parts: &Parts,
    ) -> Self {
        connection.pulse.request_begins();
        worker.counters().requests_in_progress.add(1);
        let (caller, relayed) =
            forwarded::read(&connection.peer, &policy.front.trusted_proxies, &parts.headers);
        let id = worker.request_ids().next();
        // From a trusted proxy its own name for the request is kept, so that one name leads through all logs.
        let id_header = parts
            .headers
            .get(crate::forward::X_REQUEST_ID)
            .filter(|value| caller.by_trusted_proxy && is_plain_id(value))
            .cloned()
            .unwrap_or_else(|| id.header());
        let logged = worker.plan().access != AccessLog::Off;
        Self {
            worker: worker.clone(),
            policy,
            connection: connection.clone(),
            now: worker.now(),
            caller,
            relayed,
            id,
            id_header,
            traceparent: if logged { parts.headers.get(TRACEPARENT).cloned() } else { None },
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
            notes: Notes::default(),
            bytes_out: 0,
            complete: false,
            format: Format::of(&parts.headers),
            at_root: parts.uri.path() == "/",
            broken: None,
            to_login: None,
            ways: None,
            session_over: false,
            access_over: false,
            verdict: None,
        }
    }

    /// When the request was read: the time that all stages agree on.
    pub(crate) fn now(&self) -> Now {
        self.now
    }

    /// Who sent it.
    pub(crate) fn caller(&self) -> Caller {
        self.caller
    }

    /// The account that a trusted proxy gives of it.
    pub(crate) fn relayed(&self) -> Option<&Relayed> {
        self.relayed.as_deref()
    }

    /// The same, for the stage that forwards the request to keep.
    pub(crate) fn take_relayed(&mut self) -> Option<Box<Relayed>> {
        self.relayed.take()
    }

    /// Its name.
    pub(crate) fn id(&self) -> RequestId {
        self.id
    }

    /// Its name as a field value.
    pub(crate) fn id_header(&self) -> &HeaderValue {
        &self.id_header
    }

    /// The id of its trace, where that is another than its name: that of a client's `traceparent`, or the one that began
    /// here while a trusted proxy had named the request.
    fn trace_id(&self) -> Option<[u8; 32]> {
        let of_client = self.traceparent.as_ref().and_then(trace_id_of);
        let ours = || Some(self.id.trace_id()).filter(|id| self.id_header.as_bytes() != id);
        of_client.or_else(ours)
    }

    /// Where forwarding notes what came of it.
    pub(crate) fn notes(&mut self) -> &mut Notes {
        &mut self.notes
    }

    /// The route that covers it.
    pub(crate) fn routed(&mut self, route: usize) {
        self.route = Some(route);
    }

    /// The route that covers it, once that is known.
    pub(crate) fn route(&self) -> Option<usize> {
        self.route
    }

    /// It was permitted.
    pub(crate) fn permitted(&mut self, permit: &Permit) {
        self.principal = permit.principal().cloned();
    }

    /// It was decided: kept for a while, so that another policy can be asked about it.
    pub(crate) fn decided(
        &self,
        head: &Head<'_>,
        route: Option<&Route>,
        principal: Option<&Principal>,
        denial: Option<&Denial>,
    ) {
        let Some(recorder) = self.worker.recorder().filter(|_| self.policy.front.keeps_decisions) else {
            return;
        };
        // The authority's own endpoints are no policy's business, and the paths of some name a session.
        if route.is_some_and(|route| matches!(route.handler, Handler::Answer(_))) {
            return;
        }
        if !recorder.wants(denial.is_some(), self.connection.tick()) {
            return;
        }
        // A request of HTTP/1.0 that names no host is nothing that could be asked again.
        let Some(host) = head.host.as_deref() else { return };
        let credential = match (principal, route) {
            (Some(_), _) => recent::Credential::Verified,
            (None, Some(route)) if route.admission.access != Access::Public => match denial {
                None | Some(Denial::MissingToken) => recent::Credential::None,
                Some(_) => recent::Credential::Refused,
            },
            (None, route) => {
                let usual = Sources::default();
                let sources = route.map_or(&usual, |route| &route.admission.sources);
                match credential::find(head, sources, self.policy.trust.cookies()) {
                    Ok(None) => recent::Credential::None,
                    Ok(Some(_)) | Err(_) => recent::Credential::Unexamined,
                }
            }
        };
        let decision = recent::Observed {
            time: self.now.unix,
            method: head.method.as_str(),
            scheme: self.caller.scheme,
            host,
            path: &head.path,
            client: self.caller.address,
            credential,
            principal,
            claims: self.policy.trust.claims(),
            route: route.map(|route| &*route.name),
            code: denial.map(Denial::code),
            shadow: denial.is_some() && route.is_some_and(|route| route.shadow.is_some()),
        };
        recorder.keep(self.now, &decision);
    }

    /// It was not: notes for the operator who was refused and what they lack.
    pub(crate) fn not_permitted(&mut self, refusal: Refusal, route: &Route, params: &Params<'_>) -> Denial {
        if let Some(why) = refusal.why(&route.rule, params, self.now) {
            self.notes.detail = Some(why);
        }
        self.principal = refusal.caller.map(|(principal, _)| principal);
        refusal.denial
    }

    /// Notes why a credential was refused.
    pub(crate) fn noted(&mut self, refused: Refused) -> Denial {
        self.notes.detail = refused.detail.map(String::from);
        refused.denial
    }

    /// It would have been refused, were its route not in the shadow. The first such refusal is the one that counts.
    pub(crate) fn shadowed(&mut self, denial: Denial) {
        if self.notes.detail.is_none() {
            self.notes.detail = denial.finer().map(str::to_owned);
        }
        self.shadow.get_or_insert(denial);
    }

    /// It asks for a verdict on another request.
    pub(crate) fn verdict_asked(&mut self) {
        self.verdict.get_or_insert(Manner::Statuses);
    }

    /// It asks about this request, of which is told from here on: the operator looks for what the client sent.
    pub(crate) fn asked_about(&mut self, original: &Original) {
        self.verdict = Some(original.manner);
        self.route = None;
        self.caller.scheme = original.scheme;
        // Its head names the client's own host.
        self.relayed = None;
        self.method = original.parts.method.clone();
        self.at_root = original.parts.uri.path() == "/";
        if self.target.is_some() {
            self.target = original.parts.uri.path_and_query().cloned();
            self.host = original.parts.headers.get(header::HOST).cloned();
        }
    }

    /// How who asks for a verdict understands one; `None` for a request that is no such question.
    pub(crate) fn verdict(&self) -> Option<Manner> {
        self.verdict
    }

    /// It holds a field of this name that its proxy must not pass on.
    pub(crate) fn passed_on(&mut self, name: &str) {
        self.notes.detail = Some(format!(
            "the proxy passes on the client's `{name}`, by which a service could take the request for another one: see \
             docs/forward-auth.md"
        ));
    }

    /// It asks about a request to an endpoint of ours, which no other service is to get.
    pub(crate) fn own_endpoint(&mut self) -> Denial {
        self.notes.detail =
            Some("an endpoint of the gateway: the proxy sends it here without asking".to_owned());
        Denial::NoRoute
    }

    /// The session that the client's cookies tell of is over.
    pub(crate) fn session_is_over(&mut self) {
        self.session_over = true;
    }

    /// Whether it is.
    pub(crate) fn is_session_over(&self) -> bool {
        self.session_over
    }

    /// The access token in the client's cookie is of no use any more.
    pub(crate) fn access_is_over(&mut self) {
        self.access_over = true;
    }

    /// Whether it is of none.
    pub(crate) fn is_access_over(&self) -> bool {
        self.access_over
    }

    /// The form in which the client can read a refusal.
    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// A page that refuses the request leads on by these ways.
    pub(crate) fn offer(&mut self, ways: Ways) {
        self.ways = Some(Box::new(ways));
    }

    /// The ways by which the page that refuses the request leads on.
    pub(crate) fn take_ways(&mut self) -> Ways {
        let ways = self.ways.take().map(|ways| *ways).unwrap_or_default();
        Ways { again: is_repeatable(&self.method), home: !self.at_root, ..ways }
    }

    /// A person is to log in, at this address.
    pub(crate) fn send_to_login(&mut self, location: HeaderValue) {
        self.to_login = Some(location);
    }

    /// Where the person who sent it logs in, if that is what they are to do.
    pub(crate) fn take_login(&mut self) -> Option<HeaderValue> {
        self.to_login.take()
    }

    /// Its body is counted here.
    pub(crate) fn metered(&mut self, meter: Option<Rc<Meter>>) {
        self.meter = meter;
    }

    /// Whether the client may still be sending its body.
    pub(crate) fn is_body_on_its_way(&self) -> bool {
        self.meter.as_ref().is_some_and(|meter| !meter.is_ended())
    }

    /// The client did not read the answer, or not the last piece of it.
    pub(crate) fn not_read(&mut self) {
        self.complete = false;
        self.notes.detail = Some("the client did not read the answer in time".to_owned());
    }

    /// Its head, or the announced length of its body, is larger than the bound.
    pub(crate) fn too_large(&mut self, denial: &Denial, headers: &HeaderMap) {
        let front = &self.policy.front;
        if *denial == Denial::HeadersTooLarge {
            let bounds = front.head_bounds;
            let bounds = if self.verdict.is_some() { bounds.of_question() } else { bounds };
            self.notes.detail = Some(bounds.excess(headers));
        } else if *denial == Denial::BodyTooLarge {
            // hyper read a number there, or it would have announced nothing.
            let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
            let (length, bound) = (length.unwrap_or("more"), front.body_bounds.size);
            let detail = format!("a body of {length} bytes, and body_size in [server.bounds] is {bound}");
            self.notes.detail = Some(detail);
        }
    }

    /// A limit refused it.
    pub(crate) fn limited(&mut self, standing: &Standing<'_>) {
        if self.notes.detail.is_none() {
            self.notes.detail = standing.refused_by();
        }
    }

    /// It was refused.
    pub(crate) fn refused(&mut self, denial: Denial) {
        // Of a body that grew too large on its way, the upstream's connection knows only that it ended.
        if let (Denial::BodyTooLarge, Some(meter)) = (&denial, &self.meter) {
            let (came, bound) = (meter.bytes(), self.policy.front.body_bounds.size);
            self.notes.detail = Some(if came > bound {
                format!("the body has more bytes than body_size in [server.bounds], which is {bound}")
            } else {
                "the body has more bytes than this endpoint reads".to_owned()
            });
        }
        if self.notes.detail.is_none() {
            self.notes.detail = denial.finer().map(str::to_owned);
        }
        self.denial = Some(denial);
    }

    /// An answer of this status is on its way.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// So many bytes of the answer's body were handed to the connection.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.bytes_out += bytes as u64;
    }

    /// The upstream's answer broke off after its head.
    pub(crate) fn cut(&mut self, cut: &ResponseError) {
        self.notes.detail = Some(cut.to_string());
        self.broken = Some(cut.kind());
    }

    /// The whole answer was handed to the client's connection.
    pub(crate) fn completed(&mut self) {
        self.complete = true;
    }

    fn count(&self, route: usize, outcome: Outcome<'_>, micros: u64) {
        self.policy.routes[route].counters.record(self.worker.index(), outcome, micros);
    }

    #[cold]
    fn count_broken(&self, broken: ResponseErrorKind) {
        if let Some(route) = self.route
            && let Handler::Forward(delivery) = &self.policy.routes[route].handler
            && let Destination::Upstream(upstream) = &delivery.destination
            && let Some(counts) = upstream.counters.of(self.worker.index())
        {
            counts.count_response_error(broken);
        }
    }

    fn line<'l>(&'l self, micros: u64, trace_id: Option<&'l [u8; 32]>) -> Line<'l> {
        Line {
            unix: self.now.unix,
            subsec_nanos: self.now.subsec_nanos,
            level: access_log::level(self.denial.as_ref(), self.broken.is_some()),
            request_id: self.id_header.as_bytes(),
            trace_id: trace_id.map(|id| &id[..]),
            client: self.caller.address,
            scheme: self.caller.scheme,
            version: protocol(self.version),
            method: self.method.as_str().as_bytes(),
            host: self.host.as_ref().map_or(b"", HeaderValue::as_bytes),
            path: self.target.as_ref().map_or("", PathAndQuery::path).as_bytes(),
            route: self.route.map(|route| &*self.policy.routes[route].name),
            status: self.status.map_or(CLIENT_LEFT, |status| status.as_u16()),
            code: self.denial.as_ref().map(Denial::code),
            shadow: self.shadow.as_ref().map(Denial::code),
            detail: self.notes.detail.as_deref(),
            subject: self.principal.as_ref().map(|principal| &*principal.subject),
            issuer: self.principal.as_ref().map(|principal| &*principal.issuer),
            upstream: self.notes.server.as_ref().map(|server| &*server.origin),
            bytes_in: self.meter.as_ref().map_or(0, |meter| meter.bytes()),
            bytes_out: self.bytes_out,
            micros,
            upstream_micros: self.notes.took.map(|took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX)),
            complete: self.complete,
            verdict_for: self.verdict.map(|_| self.connection.peer.address),
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
            (Some(route), Some(denial), _) => self.count(route, Outcome::Refused(denial), micros),
            (Some(route), None, Some(_)) if self.verdict.is_some() => {
                self.count(route, Outcome::Permitted, micros);
            }
            (Some(route), None, Some(status)) => self.count(route, Outcome::Forwarded(status), micros),
            (None, Some(denial), _) => counters.unrouted.record(denial),
            (None, None, Some(_)) => counters.redirected.add(1),
            (_, None, None) => counters.clients_left.add(1),
        }
        if let (Some(route), Some(shadow)) = (self.route, &self.shadow) {
            self.policy.routes[route].counters.shadowed(worker.index(), shadow);
        }
        if self.notes.forged > 0 {
            counters.identity_dropped.add(self.notes.forged);
        }
        if let Some(broken) = self.broken {
            self.count_broken(broken);
        }
        counters.requests_in_progress.sub(1);
        let wanted = match worker.plan().access {
            AccessLog::On => true,
            AccessLog::Refusals => self.denial.is_some() || self.shadow.is_some() || self.broken.is_some(),
            AccessLog::Off => false,
        };
        if wanted {
            let trace_id = self.trace_id();
            worker.log_line(|lines| self.line(micros, trace_id.as_ref()).write(worker.plan().style, lines));
        }
        self.connection.pulse.request_ends(self.connection.tick());
    }
}

/// The protocol's name, as logs write it.
fn protocol(version: Version) -> &'static str {
    if version == Version::HTTP_2 {
        "HTTP/2"
    } else if version == Version::HTTP_10 {
        "HTTP/1.0"
    } else {
        "HTTP/1.1"
    }
}

/// The host that an HTTP/2 request names in `:authority`, or one in absolute form.
fn authority(parts: &Parts) -> Option<HeaderValue> {
    parts.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok())
}

/// Whether a proxy's request id is short and of visible ASCII.
fn is_plain_id(value: &HeaderValue) -> bool {
    (1..=128).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
}
