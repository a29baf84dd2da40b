//! A permitted request, and its facts that both protocols need.

use super::body::inflow::Inflow;
use super::body::meter::Meter;
use super::body::request_body::RequestBody;
use super::body::request_trailers::RequestTrailers;
use super::connection::pool::Pools;
use super::delivery::Delivery;
use super::head::outgoing::Target;
use super::notes::Notes;
use crate::authorize::Permit;
use crate::denial::Denial;
use crate::field_list::members;
use crate::http1::RequestFraming;
use crate::peer::Connection;
use crate::websocket::Handshake;
use http::request::Parts;
use http::{Version, header};
use std::rc::Rc;

/// A request that may be forwarded once.
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

/// Returns the client's side of a request with a body.
pub(super) fn inflow<'r>(
    pools: &'r Pools,
    delivery: &Delivery,
    meter: Option<&'r Rc<Meter>>,
    permit: &'r Permit,
    connection: &'r Rc<Connection>,
) -> Option<Inflow<'r>> {
    let meter = meter?;
    let caller = permit.principal().filter(|_| delivery.ends_with_token);
    let certified = delivery.ends_with_token && connection.certificate().is_some();
    Some(Inflow::new(pools.streams(), meter, caller, certified.then_some(connection)))
}

/// Returns whether the HTTP library sends `100 Continue` once the body is read. It sends none over HTTP/2. A request that
/// is forwarded without content has nothing to wait for (RFC 9110 section 10.1.1).
#[cold]
pub(super) fn expects_continue(parts: &Parts, framing: RequestFraming) -> bool {
    framing != RequestFraming::None
        && parts.version == Version::HTTP_11
        && members(&parts.headers, &header::EXPECT).any(|it| it.eq_ignore_ascii_case(b"100-continue"))
}

/// Returns the trailers of a request that the upstream receives.
#[inline]
pub(super) fn trailers(
    delivery: &Delivery,
    parts: &Parts,
    framing: RequestFraming,
    body: &RequestBody,
) -> Option<RequestTrailers> {
    let listed = delivery.request_trailers.as_ref()?;
    let RequestBody::Streamed(_) = body else { return None };
    RequestTrailers::of(listed, parts, framing)
}

/// Returns the denial if the client's body failed, and records the reason. In that case the upstream is not at fault.
pub(super) fn body_denial(meter: Option<&Rc<Meter>>, notes: &mut Notes) -> Option<Denial> {
    let denial = meter?.denial()?;
    notes.detail = meter?.detail();
    Some(denial)
}
