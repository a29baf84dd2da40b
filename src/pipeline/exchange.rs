//! The facts of one request on which all stages agree: made from its head, and final once it is known
//! whether the request is a question of another proxy. The stages only read them.

use crate::clock::Now;
use crate::forward::{ConnectionHeaders, Delivery, ForwardContext, Proofs, X_REQUEST_ID};
use crate::peer::{Caller, Connection, Relayed, Scheme, forwarded};
use crate::policy::{Policy, Route};
use crate::request_id::RequestId;
use crate::respond::{Format, PageLinks, is_repeatable};
use crate::worker::Worker;
use http::HeaderValue;
use http::request::Parts;

/// The facts of one request.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// When the request was read.
    pub(crate) now: Now,
    /// The sender: the connection's peer, or the client that a trusted proxy names.
    pub(crate) caller: Caller,
    /// The facts that a trusted proxy states about the request.
    pub(crate) relayed: Option<Box<Relayed>>,
    /// The request's id.
    pub(crate) id: RequestId,
    /// The id as a field value. A trusted proxy's own id takes the place of the gateway's.
    pub(crate) id_header: HeaderValue,
    /// The form in which the client can read a refusal.
    pub(crate) format: Format,
    /// Whether another proxy asks for a verdict about a request that it holds, and which answers it understands.
    pub(crate) verdict: Option<VerdictStyle>,
    is_repeatable: bool,
    is_for_root: bool,
}

/// The answers that a proxy understands when it asks for a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VerdictStyle {
    /// Any answer: the proxy passes it on to its own client, redirects too. Traefik, Caddy, Envoy.
    Answers,
    /// Only the statuses 2xx, 401 and 403. The `Location` of a 401 holds the address of the login page. nginx.
    Statuses,
}

/// The request that a proxy holds and asks about.
#[derive(Debug)]
pub(crate) struct OriginalRequest {
    /// Its head, with the path as the proxy will forward it, and the fields that the proxy passed on.
    pub(crate) parts: Parts,
    /// The scheme that its client used.
    pub(crate) scheme: Scheme,
    /// The answers that the proxy understands.
    pub(crate) style: VerdictStyle,
}

impl Exchange {
    /// Gathers the facts from the head as it was sent, and from its connection.
    pub(crate) fn new(worker: &Worker, policy: &Policy, connection: &Connection, parts: &Parts) -> Self {
        let (caller, relayed) =
            forwarded::read(&connection.peer, &policy.front.trusted_proxies, &parts.headers);
        let id = worker.request_ids().next();
        // A trusted proxy's id is kept, so that one id leads through all logs.
        let id_header = parts
            .headers
            .get(X_REQUEST_ID)
            .filter(|value| caller.by_trusted_proxy && is_plain_id(value))
            .cloned()
            .unwrap_or_else(|| id.header());
        Self {
            now: worker.now(),
            caller,
            relayed,
            id,
            id_header,
            format: Format::of(&parts.headers),
            verdict: None,
            is_repeatable: is_repeatable(&parts.method),
            is_for_root: parts.uri.path() == "/",
        }
    }

    /// Gathers the facts of a request that nobody sent, for explanations.
    pub(crate) fn unsent(now: Now, caller: Caller, relayed: Option<Box<Relayed>>) -> Self {
        Self {
            now,
            caller,
            relayed,
            id: RequestId::default(),
            id_header: HeaderValue::from_static("<made for each request>"),
            format: Format::Json,
            verdict: None,
            is_repeatable: true,
            is_for_root: false,
        }
    }

    /// From here on the facts are those of the request that the proxy asks about. The caller's address and the id stay.
    pub(crate) fn turn_to(&mut self, original: &OriginalRequest) {
        self.caller.scheme = original.scheme;
        // The original head names the client's own host.
        self.relayed = None;
        self.verdict = Some(original.style);
        self.is_repeatable = is_repeatable(&original.parts.method);
        self.is_for_root = original.parts.uri.path() == "/";
    }

    /// Completes the links of a refusal page.
    pub(crate) fn ways(&self, ways: PageLinks) -> PageLinks {
        PageLinks { again: self.is_repeatable, home: !self.is_for_root, ..ways }
    }

    /// The facts that the upstream of a route receives. `proofs` prove the caller's identity.
    pub(crate) fn forward_context<'a>(
        &'a self,
        policy: &'a Policy,
        route: &'a Route,
        delivery: &'a Delivery,
        connection: ConnectionHeaders<'a>,
        proofs: &'a Proofs,
    ) -> ForwardContext<'a> {
        ForwardContext {
            caller: self.caller,
            relayed: self.relayed.as_deref(),
            connection,
            id: self.id,
            id_header: &self.id_header,
            identity: policy.trust.identity(),
            forward_token: policy.front.forward_token,
            pass_authorization: delivery.pass_authorization,
            pass: &policy.front.pass,
            cookies: policy.trust.cookies(),
            write_csrf: route.csrf_field.is_some(),
            credentials: &route.credential_policy.sources.named,
            proofs,
            now: self.now,
        }
    }
}

/// Whether a proxy's request id is short and of visible ASCII.
fn is_plain_id(value: &HeaderValue) -> bool {
    (1..=128).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
}
