//! Builds the head of a forwarded request: the canonical target, and the fields that the gateway adds.

use super::client::{self, ConnectionHeaders};
use super::fields::{FieldSink, HeadWriter};
use super::proof::{Audience, Proof, Proofs};
use super::strip;
use crate::authenticate::dpop::DPOP;
use crate::authenticate::sources::{strip_subprotocol, without_fields};
use crate::authenticate::{CookieNames, IdentityHeaders, Place, Source, Sources};
use crate::authorize::Permit;
use crate::clock::Now;
use crate::http1::write_request_line;
use crate::peer::{Caller, Relayed};
use crate::request_id::{RequestId, trace_id_of};
use crate::route::Head;
use crate::websocket::Handshake;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header};
use std::borrow::Cow;

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The prefix that the gateway removed from the client's path.
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
/// The CSRF token, which the upstream's pages write into their forms.
const X_AUTH_CSRF: HeaderName = HeaderName::from_static("x-auth-csrf");
/// The trace of a request (W3C Trace Context).
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// The space that the head of an ordinary request takes, in bytes.
const HEAD_SIZE: usize = 1024;

/// The target of the forwarded request.
#[derive(Debug)]
pub(crate) struct Target {
    /// The canonical path without the removed prefix, and the client's query. Query fields that may hold a token are
    /// removed.
    pub(crate) path: PathAndQuery,
    /// The canonical host and port. `None` only if an HTTP/1.0 client sent no host.
    pub(crate) authority: Option<HeaderValue>,
    /// The prefix that was removed from the path.
    pub(crate) prefix: Option<HeaderValue>,
}

impl Target {
    /// Returns the target of a request that a route with these token sources permitted.
    ///
    /// Removes every query field in which the route looks for a token, regardless of the value. If the token was found
    /// outside the query, all query fields are kept.
    pub(crate) fn of_route(
        head: &Head<'_>,
        uri: &Uri,
        strip_prefix: Option<&str>,
        sources: &Sources,
        permit: &Permit,
    ) -> Self {
        let may_hold_token = match permit.place() {
            Some(Place::Query) | None => sources.queries().next().is_some(),
            Some(
                Place::Header
                | Place::Dpop
                | Place::Cookie
                | Place::ForeignCookie
                | Place::Named
                | Place::WebSocket
                | Place::ApiKey
                | Place::Certificate,
            ) => false,
        };
        Self::of(head, uri, strip_prefix, Some(sources).filter(|_| may_hold_token))
    }

    /// Returns the target of a head. If `sources` is given, removes the query fields that may hold a token.
    pub(crate) fn of(
        head: &Head<'_>,
        uri: &Uri,
        strip_prefix: Option<&str>,
        sources: Option<&Sources>,
    ) -> Self {
        let stripped = strip_prefix.and_then(|prefix| strip(&head.path, prefix));
        let prefix = strip_prefix.filter(|_| stripped.is_some()).map(|prefix| prefix.trim_end_matches('/'));
        let prefix = prefix.and_then(|prefix| HeaderValue::from_str(prefix).ok());
        let path = match (uri.path_and_query(), stripped, sources) {
            (Some(as_sent), None, None) if as_sent.path() == head.path => as_sent.clone(),
            (_, stripped, None) => join(stripped.as_deref().unwrap_or(&head.path), head.query),
            (_, stripped, Some(sources)) => {
                let is_token = |name: &str| sources.queries().any(|query| query == name);
                let query = head.query.and_then(|query| without_fields(query, is_token));
                join(stripped.as_deref().unwrap_or(&head.path), query.as_deref())
            }
        };
        let authority = match head.headers.get(header::HOST) {
            Some(as_sent) if head.authority_is(as_sent.as_bytes()) => Some(as_sent.clone()),
            Some(_) | None => head.authority().and_then(|authority| HeaderValue::from_str(&authority).ok()),
        };
        Self { path, authority, prefix }
    }
}

/// Returns the part of a path below a prefix, with a leading slash. The prefix must end at the end of a segment.
fn strip<'p>(path: &'p str, prefix: &str) -> Option<Cow<'p, str>> {
    let rest = path.strip_prefix(prefix.trim_end_matches('/'))?;
    match rest.as_bytes().first() {
        None => Some(Cow::Borrowed("/")),
        Some(b'/') => Some(Cow::Borrowed(rest)),
        Some(_) => None,
    }
}

fn join(path: &str, query: Option<&str>) -> PathAndQuery {
    let text = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    PathAndQuery::try_from(text).expect("a canonical path and the query of a URI make a URI")
}

/// The facts about a request that determine the upstream's header fields.
#[derive(Debug)]
pub(crate) struct ForwardContext<'a> {
    /// The client that sent the request.
    pub(crate) caller: Caller,
    /// The facts that a trusted proxy states about the request.
    pub(crate) relayed: Option<&'a Relayed>,
    /// The field values that are prepared once per connection.
    pub(crate) connection: ConnectionHeaders<'a>,
    pub(crate) id: RequestId,
    /// The request id as a field value.
    pub(crate) id_header: &'a HeaderValue,
    /// The names of the identity fields.
    pub(crate) identity: &'a IdentityHeaders,
    /// Whether a verified token is forwarded in `Authorization`.
    pub(crate) forward_token: bool,
    /// Whether `Authorization` is forwarded unchanged. This is for public routes, where the gateway does not check it.
    pub(crate) pass_authorization: bool,
    /// The fields of [`super::foreign`] that a trusted proxy may send.
    pub(crate) pass: &'a [HeaderName],
    /// The names of the local authority's cookies. These cookies are never forwarded.
    pub(crate) cookies: Option<&'a CookieNames>,
    /// Whether the route accepts the CSRF token in a form field. If so, the upstream receives the token for its forms.
    pub(crate) write_csrf: bool,
    /// The places in which the route looks for a token. The token is not forwarded.
    pub(crate) sources: &'a Sources,
    /// The proofs of identity for upstreams.
    pub(crate) proofs: &'a Proofs,
    /// The time at which the request was read.
    pub(crate) now: Now,
}

/// The request that an upstream receives, with its fields in a map.
#[derive(Debug)]
pub(crate) struct OutgoingHead {
    /// The method.
    pub(crate) method: Method,
    /// The path and query.
    pub(crate) path: PathAndQuery,
    /// All fields.
    pub(crate) headers: HeaderMap,
}

/// Returns the head of the request for an upstream. The permit contains the caller's identity.
pub(crate) fn head(
    parts: Parts,
    target: Target,
    permit: &Permit,
    audience: &Audience,
    context: &ForwardContext<'_>,
) -> (OutgoingHead, Removed) {
    let mut headers = parts.headers;
    let removed = strip_client(&mut headers, parts.version, permit, context);
    add_fields(&mut headers, &parts.method, &target, permit, audience, context);
    (OutgoingHead { method: parts.method, path: target.path, headers }, removed)
}

/// Writes the same head as [`head`], in the form in which it is sent. `Host` is absent if the client sent no host.
pub(super) fn write(
    parts: Parts,
    target: &Target,
    permit: &Permit,
    audience: &Audience,
    context: &ForwardContext<'_>,
) -> (Method, HeadWriter, Removed) {
    let mut headers = parts.headers;
    let removed = strip_client(&mut headers, parts.version, permit, context);
    let mut head = Vec::with_capacity(HEAD_SIZE);
    write_request_line(&mut head, &parts.method, &target.path);
    let mut writer = HeadWriter::new(head, headers);
    add_fields(&mut writer, &parts.method, target, permit, audience, context);
    (parts.method, writer, removed)
}

/// Adds the fields of a WebSocket handshake, which [`strip_client`] removes.
pub(crate) fn add_handshake(sink: &mut impl FieldSink, handshake: &mut Handshake) {
    handshake.offer(sink.client());
    for (name, value) in handshake.fields() {
        sink.set(&name, &value);
    }
}

/// The number of the client's identity fields that were removed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Removed(pub(crate) u64);

/// Removes the client's fields that the upstream must not receive.
fn strip_client(
    headers: &mut HeaderMap,
    version: Version,
    permit: &Permit,
    context: &ForwardContext<'_>,
) -> Removed {
    if version == Version::HTTP_2 {
        join_cookies(headers);
    }
    if let Some(cookies) = context.cookies {
        strip::cookies(headers, cookies);
        if permit.place() == Some(Place::Cookie) {
            headers.remove(&cookies.csrf_header);
        }
    }
    for source in &context.sources.others {
        match source {
            // The code after this loop handles `Authorization`.
            Source::Header(named) if named.name == header::AUTHORIZATION => {}
            Source::Header(named) => drop(headers.remove(&named.name)),
            Source::Cookie(name) => strip::cookie(headers, name),
            Source::WebSocket(marker) => strip_subprotocol(headers, marker),
            // The code after this loop handles `Authorization: ApiKey`.
            Source::ApiKey(name) => drop(headers.remove(name)),
            // `Target` already removed the query field, and a certificate is not in the request.
            Source::Query(_) | Source::Certificate => {}
        }
    }
    // With `forward_token`, only a verified token from the header is forwarded. The proof of a bound token never is: an
    // upstream could use the token with the proof.
    let verified = match permit.place() {
        Some(Place::Header) if context.forward_token => Some("Bearer "),
        Some(Place::Dpop) if context.forward_token => Some("DPoP "),
        Some(
            Place::Header
            | Place::Dpop
            | Place::Cookie
            | Place::ForeignCookie
            | Place::Named
            | Place::WebSocket
            | Place::ApiKey
            | Place::Certificate
            | Place::Query,
        )
        | None => None,
    };
    match verified {
        Some(scheme) => strip::canonical_scheme(headers, scheme),
        None if context.pass_authorization => {}
        None => drop(headers.remove(header::AUTHORIZATION)),
    }
    // An upstream that verifies `Authorization` itself needs the proof too.
    let proofs: Vec<HeaderValue> = match context.pass_authorization {
        true => headers.get_all(DPOP).iter().cloned().collect(),
        false => Vec::new(),
    };
    let pass = if context.relayed.is_some() { context.pass } else { &[] };
    let removed = strip::request(headers, context.identity, pass);
    for proof in proofs {
        headers.append(DPOP, proof);
    }
    Removed(removed)
}

/// Adds the gateway's fields.
fn add_fields(
    sink: &mut impl FieldSink,
    method: &Method,
    target: &Target,
    permit: &Permit,
    audience: &Audience,
    context: &ForwardContext<'_>,
) {
    match &target.authority {
        Some(authority) => sink.set(&header::HOST, authority),
        None => drop(sink.client().remove(header::HOST)),
    }
    let authority = target.authority.as_ref();
    client::write(sink, &context.connection, context.caller, context.relayed, authority);
    if let Some(prefix) = &target.prefix {
        let whole = append_prefix(sink.client().get(X_FORWARDED_PREFIX), prefix.clone());
        sink.set(&X_FORWARDED_PREFIX, &whole);
    }
    sink.set(&X_REQUEST_ID, context.id_header);
    if sink.client().get(TRACEPARENT).and_then(trace_id_of).is_none() {
        sink.set(&TRACEPARENT, &context.id.traceparent());
        // A `tracestate` has no meaning without its `traceparent` (W3C Trace Context, section 3.3.1.1).
        sink.client().remove(TRACESTATE);
    }
    let proof = Proof { proofs: context.proofs, audience, method, target: &target.path, now: context.now };
    write_identity(sink, permit, context.write_csrf, &proof);
}

/// Appends the prefix that the gateway removed to the prefix that a trusted proxy removed. `before` is present only if
/// the policy lets the proxy's field pass.
fn append_prefix(before: Option<&HeaderValue>, ours: HeaderValue) -> HeaderValue {
    let Some(before) = before else { return ours };
    let before = before.as_bytes();
    let whole = [before.strip_suffix(b"/").unwrap_or(before), ours.as_bytes()].concat();
    HeaderValue::from_bytes(&whole).unwrap_or(ours)
}

/// Writes the caller's identity into the fields for an upstream, or into a forward-auth response. With `write_csrf`,
/// also writes the CSRF token of the session.
pub(crate) fn write_identity(
    sink: &mut impl FieldSink,
    permit: &Permit,
    write_csrf: bool,
    proof: &Proof<'_>,
) {
    if let Some(principal) = permit.principal() {
        proof.audience.write_headers(sink, principal);
        proof.write(sink, principal);
        // The gateway removes the CSRF cookie, so the upstream needs the token in a field. CSRF protection applies only
        // to callers with a session cookie.
        if write_csrf
            && permit.place() == Some(Place::Cookie)
            && let Some(csrf) = principal.local.as_deref().and_then(|local| local.csrf.as_deref())
            && let Ok(mut value) = HeaderValue::from_str(csrf)
        {
            value.set_sensitive(true);
            sink.set(&X_AUTH_CSRF, &value);
        }
    }
}

/// Joins the `Cookie` fields of an HTTP/2 request. HTTP/2 allows several, but HTTP/1.1 allows only one (RFC 9113
/// section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut pieces = headers.get_all(header::COOKIE).iter();
    if pieces.nth(1).is_some() {
        let pieces: Vec<_> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
        let whole = HeaderValue::from_bytes(&pieces.join(&b"; "[..]));
        headers.insert(header::COOKIE, whole.expect("field values joined by semicolons are a field value"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_stripped_at_the_end_of_a_segment_only() {
        for (path, prefix, rest) in [
            ("/api/orders", "/api", Some("/orders")),
            ("/api/orders", "/api/", Some("/orders")),
            ("/api", "/api", Some("/")),
            ("/api/", "/api", Some("/")),
            ("/apix", "/api", None),
            ("/other", "/api", None),
        ] {
            assert_eq!(strip(path, prefix).as_deref(), rest, "{path} {prefix}");
        }
    }
}
