//! Collects the facts of one request from its head, for all stages. For a forward-auth request, the facts are replaced
//! once with the facts of the original request.

use crate::clock::Now;
use crate::forward::{ConnectionHeaders, Delivery, ForwardContext, Proofs, X_REQUEST_ID};
use crate::peer::{Caller, Connection, Relayed, Scheme, forwarded};
use crate::policy::{Policy, Route};
use crate::request_id::RequestId;
use crate::respond::{Format, PageLinks, is_repeatable};
use crate::worker::Worker;
use http::HeaderValue;
use http::request::Parts;

#[derive(Debug)]
pub(crate) struct Exchange {
    /// The time at which the request was read.
    pub(crate) now: Now,
    /// The client: the peer, or the client that a trusted proxy names.
    pub(crate) caller: Caller,
    /// The facts that a trusted proxy states about the request.
    pub(crate) relayed: Option<Box<Relayed>>,
    pub(crate) id: RequestId,
    /// The request id as a field value. A trusted proxy's id takes precedence over the gateway's.
    pub(crate) id_header: HeaderValue,
    /// Whether `id_header` is the gateway's own id.
    pub(crate) is_own_id: bool,
    /// The format in which the client can read a refusal.
    pub(crate) format: Format,
    /// The responses that the proxy understands. `None` unless this is a forward-auth request.
    pub(crate) verdict: Option<VerdictStyle>,
    is_repeatable: bool,
    is_for_root: bool,
}

/// The responses that a proxy understands when it sends a forward-auth request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VerdictStyle {
    /// Any response, including redirects. Traefik, Caddy and Envoy forward the response to their client.
    Answers,
    /// Only the statuses 2xx, 401 and 403, as nginx does. The `Location` of a 401 contains the address of the login
    /// page.
    Statuses,
}

/// The request that a proxy holds while it sends a forward-auth request to the gateway.
#[derive(Debug)]
pub(crate) struct OriginalRequest {
    /// The head: the path as the proxy will forward it, and the header fields that the proxy included.
    pub(crate) parts: Parts,
    /// The scheme that the proxy's client used.
    pub(crate) scheme: Scheme,
    /// The responses that the proxy understands.
    pub(crate) style: VerdictStyle,
}

impl Exchange {
    pub(crate) fn new(worker: &Worker, policy: &Policy, connection: &Connection, parts: &Parts) -> Self {
        let (caller, relayed) =
            forwarded::read(&connection.peer, &policy.front.trusted_proxies, &parts.headers);
        let id = worker.request_ids().next();
        // A trusted proxy's id is kept, so that the logs of all servers contain the same id.
        let id_of_proxy = if caller.by_trusted_proxy { parts.headers.get(X_REQUEST_ID) } else { None };
        let id_of_proxy = id_of_proxy.filter(|value| is_plain_id(value));
        Self {
            now: worker.now(),
            caller,
            relayed,
            id,
            is_own_id: id_of_proxy.is_none(),
            id_header: id_of_proxy.cloned().unwrap_or_else(|| id.header()),
            format: Format::of(&parts.headers),
            verdict: None,
            is_repeatable: is_repeatable(&parts.method),
            is_for_root: parts.uri.path() == "/",
        }
    }

    /// Creates the facts of a hypothetical request, for an explanation.
    pub(crate) fn unsent(now: Now, caller: Caller, relayed: Option<Box<Relayed>>) -> Self {
        Self {
            now,
            caller,
            relayed,
            id: RequestId::default(),
            is_own_id: true,
            id_header: HeaderValue::from_static("<made for each request>"),
            format: Format::Json,
            verdict: None,
            is_repeatable: true,
            is_for_root: false,
        }
    }

    /// Replaces the facts with the facts of the original request. Keeps the caller's address and the request id.
    pub(crate) fn turn_to(&mut self, original: &OriginalRequest) {
        self.caller.scheme = original.scheme;
        // The `Host` field of the original request already contains the host that the client requested.
        self.relayed = None;
        self.verdict = Some(original.style);
        self.is_repeatable = is_repeatable(&original.parts.method);
        self.is_for_root = original.parts.uri.path() == "/";
    }

    /// Completes the links of a refusal page. Adds a link to repeat the request if it can be repeated, and a link to
    /// the site's root.
    pub(crate) fn ways(&self, ways: PageLinks) -> PageLinks {
        PageLinks { again: self.is_repeatable, home: !self.is_for_root, ..ways }
    }

    /// Returns the facts for the upstream of a route. `proofs` prove the caller's identity.
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
            forward_token: delivery.forward_token,
            pass_authorization: delivery.pass_authorization,
            pass: &policy.front.pass,
            cookies: policy.trust.removed_cookies(),
            write_csrf: route.csrf_field.is_some(),
            sources: &route.credential_policy.sources,
            host: delivery.rewrite.as_deref().and_then(|rewrite| rewrite.host.as_ref()),
            edits: delivery.request_fields.as_deref(),
            proofs,
            now: self.now,
        }
    }
}

/// Returns whether a proxy's request id has at most 128 bytes of visible ASCII.
fn is_plain_id(value: &HeaderValue) -> bool {
    (1..=128).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
}
