//! Builds the head of a forwarded request: the canonical target, and the fields that the gateway adds.

use super::client::{self, ConnectionHeaders};
use super::edits::Edits;
use super::fields::{FieldSink, HeadWriter};
use super::proof::{Audience, Proof, Proofs};
use super::rewrite::Rewrite;
use super::strip::{self, Filter, Verdict};
use crate::authenticate::sources::{strip_subprotocol, without_fields};
use crate::authenticate::{CookieNames, IdentityHeaders, Place, Source, Sources};
use crate::authorize::Permit;
use crate::clock::Now;
use crate::denial::{Denial, Malformed};
use crate::field_list::FieldNames;
use crate::http1::{RequestFraming, write_fields, write_request_line};
use crate::peer::{Caller, Relayed};
use crate::request_id::{RequestId, trace_id_of};
use crate::route::Head;
use crate::websocket::Handshake;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header};

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The prefix that the gateway removed from the client's path.
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
/// The CSRF token, which the upstream's pages write into their forms.
const X_AUTH_CSRF: HeaderName = HeaderName::from_static("x-auth-csrf");
/// The trace of a request (W3C Trace Context).
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// The space that the head of an ordinary request takes, in bytes.
const HEAD_SIZE: usize = 1024;

/// The target of the forwarded request.
#[derive(Debug)]
pub(crate) struct Target {
    /// The canonical path as the route rewrites it, and the client's query. Query fields that may hold a token are
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
    ///
    /// # Errors
    /// Refuses a request whose path the route's pattern turns into an invalid path.
    pub(crate) fn of_route(
        head: &Head<'_>,
        uri: &Uri,
        rewrite: Option<&Rewrite>,
        sources: &Sources,
        permit: &Permit,
    ) -> Result<Self, Denial> {
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
        Self::of(head, uri, rewrite, Some(sources).filter(|_| may_hold_token)).map_err(Denial::BadRequest)
    }

    /// Returns the target of a head. If `sources` is given, removes the query fields that may hold a token.
    ///
    /// # Errors
    /// Returns the error of [`Rewrite::path`].
    pub(crate) fn of(
        head: &Head<'_>,
        uri: &Uri,
        rewrite: Option<&Rewrite>,
        sources: Option<&Sources>,
    ) -> Result<Self, Malformed> {
        let rewritten = rewrite.map(|rewrite| rewrite.path(&head.path)).transpose()?;
        let prefix = rewrite.and_then(|rewrite| rewrite.stripped(&head.path));
        let path = match (uri.path_and_query(), rewritten, sources) {
            // `path` returns `/` for the empty path of `http://host?query`, and the text has none.
            (Some(as_sent), None, None)
                if as_sent.path() == head.path && as_sent.as_str().starts_with('/') =>
            {
                as_sent.clone()
            }
            (_, rewritten, None) => join(rewritten.as_deref().unwrap_or(&head.path), head.query),
            (_, rewritten, Some(sources)) => {
                let is_token = |name: &str| sources.queries().any(|query| query == name);
                let query = head.query.and_then(|query| without_fields(query, is_token));
                join(rewritten.as_deref().unwrap_or(&head.path), query.as_deref())
            }
        };
        // `Host` is the first field of nearly all requests, so this search is faster than a look-up.
        let host = head.headers.iter().find(|(name, _)| *name == header::HOST);
        let authority = match host.map(|(_, value)| value) {
            Some(as_sent) if head.authority_is(as_sent.as_bytes()) => Some(as_sent.clone()),
            Some(_) | None => head.authority().and_then(|authority| HeaderValue::from_str(&authority).ok()),
        };
        Ok(Self { path, authority, prefix })
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
    /// The names of the local authority's cookies, also if it sets none. These cookies are never forwarded.
    pub(crate) cookies: Option<&'a CookieNames>,
    /// Whether the route accepts the CSRF token in a form field. If so, the upstream receives the token for its forms.
    pub(crate) write_csrf: bool,
    /// The places in which the route looks for a token. The token is not forwarded.
    pub(crate) sources: &'a Sources,
    /// The value of `Host` that the route sets.
    pub(crate) host: Option<&'a HeaderValue>,
    /// The changes to the client's fields.
    pub(crate) edits: Option<&'a Edits>,
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
    parts: &mut Parts,
    target: Target,
    permit: &Permit,
    audience: &Audience,
    context: &ForwardContext<'_>,
) -> (OutgoingHead, Removed) {
    let mut headers = std::mem::take(&mut parts.headers);
    let filter = prepare_client(&mut headers, parts.version, permit, context);
    let removed = Removed(strip::request(&mut headers, &filter));
    let client = ClientFields::of(&headers, FieldNames::of(&headers), &filter, &target);
    strip::remove_where(&mut headers, |name| client.is_replaced(&target, name));
    add_fields(&mut headers, &parts.method, &target, &client, permit, audience, context);
    (OutgoingHead { method: parts.method.clone(), path: target.path, headers }, removed)
}

/// The request that an upstream receives, in the form in which it is sent.
#[derive(Debug)]
pub(in crate::forward) struct WrittenHead {
    /// The head without its last line break. `Host` is absent if the client sent no host.
    pub(in crate::forward) bytes: Vec<u8>,
    /// The map of the client's fields, emptied.
    pub(in crate::forward) headers: HeaderMap,
}

/// Writes the same head as [`head`], in the form in which it is sent. The client's fields are filtered while they are
/// written, because removing a field from a map costs more than looking at its name.
pub(in crate::forward) fn write(
    parts: &mut Parts,
    target: &Target,
    framing: RequestFraming,
    handshake: Option<&mut Handshake>,
    permit: &Permit,
    audience: &Audience,
    context: &ForwardContext<'_>,
) -> (WrittenHead, Removed) {
    let (method, mut headers) = (&parts.method, std::mem::take(&mut parts.headers));
    let filter = prepare_client(&mut headers, parts.version, permit, context);
    let names = FieldNames::of(&headers);
    if names.may_include("connection") {
        strip::connection(&mut headers);
    }
    let client = ClientFields::of(&headers, names, &filter, target);
    let mut bytes = Vec::with_capacity(HEAD_SIZE);
    write_request_line(&mut bytes, method, &target.path);
    let mut writer = HeadWriter::new(bytes);
    add_fields(&mut writer, method, target, &client, permit, audience, context);
    let is_handshake = handshake.is_some();
    if let Some(handshake) = handshake {
        handshake.offer(&headers);
        handshake.fields().iter().for_each(|(name, value)| writer.set(name, value));
    }
    let (mut forged, mut last) = (0, std::ptr::null());
    let mut bytes = std::mem::take(&mut writer.head);
    write_fields(&mut bytes, &headers, framing, |name| {
        if client.is_replaced(target, name) {
            return false;
        }
        match filter.verdict(name) {
            Verdict::Keep if is_handshake && name == header::SEC_WEBSOCKET_KEY => false,
            Verdict::Keep => {
                writer.assert_free(name);
                true
            }
            Verdict::Drop => false,
            Verdict::Forged => {
                // A field with several values counts once.
                forged += u64::from(!std::ptr::eq(last, name));
                last = name;
                false
            }
        }
    });
    headers.clear();
    (WrittenHead { bytes, headers }, Removed(forged))
}

/// Adds the fields of a WebSocket handshake to the fields of [`head`], which lack them. [`write`] adds them itself.
pub(crate) fn add_handshake(headers: &mut HeaderMap, handshake: &mut Handshake) {
    handshake.offer(headers);
    headers.extend(handshake.fields().map(|(name, value)| (Some(name), value)));
}

/// The number of the client's identity fields that were removed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Removed(pub(crate) u64);

/// Removes credentials from the client's fields. Returns the filter for the fields that are left.
fn prepare_client<'c>(
    headers: &mut HeaderMap,
    version: Version,
    permit: &Permit,
    context: &ForwardContext<'c>,
) -> Filter<'c> {
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
            // The filter decides about `Authorization`.
            Source::Header(named) if named.name == header::AUTHORIZATION => {}
            Source::Header(named) => drop(headers.remove(&named.name)),
            Source::Cookie(name) => strip::cookie(headers, name),
            Source::WebSocket(marker) => strip_subprotocol(headers, marker),
            // The filter decides about `Authorization: ApiKey`.
            Source::ApiKey(name) => drop(headers.remove(name)),
            // `Target` already removed the query field, and a certificate is not in the request.
            Source::Query(_) | Source::Certificate => {}
        }
    }
    if let Some(edits) = context.edits {
        edits.prepare(headers);
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
    if let Some(scheme) = verified {
        strip::canonical_scheme(headers, scheme);
    }
    Filter {
        identity: context.identity,
        pass: if context.relayed.is_some() { context.pass } else { &[] },
        authorization: verified.is_some() || context.pass_authorization,
        // An upstream that verifies `Authorization` itself needs the proof too.
        proof: context.pass_authorization,
    }
}

/// Returns the client's `traceparent`. Of a request with several, none counts: each reader could choose another one.
pub(crate) fn traceparent(headers: &HeaderMap) -> Option<&HeaderValue> {
    let first = headers.get(TRACEPARENT)?;
    headers.get_all(TRACEPARENT).iter().nth(1).is_none().then_some(first)
}

/// The client's fields that the gateway extends or keeps if they are valid.
#[derive(Debug)]
struct ClientFields {
    /// The prefix that a trusted proxy removed from the path, if the gateway removes another prefix.
    prefix: Option<HeaderValue>,
    /// Whether the client's trace continues.
    has_trace: bool,
}

impl ClientFields {
    /// Looks at the fields that the filter keeps. `names` are their names, and may be those of removed fields, too.
    fn of(headers: &HeaderMap, names: FieldNames, filter: &Filter<'_>, target: &Target) -> Self {
        let is_extended = target.prefix.is_some() && filter.verdict(&X_FORWARDED_PREFIX) == Verdict::Keep;
        Self {
            prefix: is_extended.then(|| headers.get(X_FORWARDED_PREFIX).cloned()).flatten(),
            has_trace: names.may_include("traceparent")
                && traceparent(headers).and_then(trace_id_of).is_some(),
        }
    }

    /// Whether the gateway writes a field instead of the client's field of this name, or removes it.
    fn is_replaced(&self, target: &Target, name: &HeaderName) -> bool {
        match name.as_str().len() {
            4 => name == header::HOST,
            // A `tracestate` has no meaning without its `traceparent` (W3C Trace Context, section 3.3.1.1).
            10 => !self.has_trace && *name == TRACESTATE,
            11 => !self.has_trace && *name == TRACEPARENT,
            18 => target.prefix.is_some() && *name == X_FORWARDED_PREFIX,
            _ => false,
        }
    }
}

/// Adds the gateway's fields.
fn add_fields(
    sink: &mut impl FieldSink,
    method: &Method,
    target: &Target,
    client: &ClientFields,
    permit: &Permit,
    audience: &Audience,
    context: &ForwardContext<'_>,
) {
    let authority = target.authority.as_ref();
    client::write(sink, &context.connection, context.caller, context.relayed, authority, context.host);
    if let Some(prefix) = &target.prefix {
        let whole = append_prefix(client.prefix.as_ref(), prefix.clone());
        sink.set(&X_FORWARDED_PREFIX, &whole);
    }
    sink.set(&X_REQUEST_ID, context.id_header);
    if !client.has_trace {
        sink.set_lines(&context.id.traceparent_line());
    }
    let proof = Proof { proofs: context.proofs, audience, method, target: &target.path, now: context.now };
    write_identity(sink, permit, context.write_csrf, &proof);
    if let Some(edits) = context.edits {
        edits.write(sink);
    }
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
mod tests;
