//! The head of the request that an upstream gets: the canonical target, and what the gateway adds.

use super::client::{self, ConnectionHeaders};
use super::proof::{Audience, Proof, Proofs};
use super::strip;
use crate::authenticate::{CookieNames, IdentityHeaders, Place, Sources};
use crate::authorize::Permit;
use crate::clock::Now;
use crate::peer::{Caller, Relayed};
use crate::request_id::{RequestId, trace_id_of};
use crate::route::Head;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header};
use std::borrow::Cow;

/// `X-Request-Id`.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// `X-Forwarded-Prefix`: the prefix removed from the client's path.
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
/// `X-Auth-Csrf`: what a page of the upstream writes into the CSRF field of its forms.
const X_AUTH_CSRF: HeaderName = HeaderName::from_static("x-auth-csrf");
/// The trace that a request belongs to (W3C Trace Context).
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The target of the forwarded request: the path that was matched, taken from the head.
#[derive(Debug)]
pub(crate) struct Target {
    /// Canonical path, prefix stripped, and the query as it came.
    pub(crate) path: PathAndQuery,
    /// Canonical host and port; absent only where an HTTP/1.0 client named none.
    pub(crate) authority: Option<HeaderValue>,
    /// The prefix that was stripped.
    pub(crate) prefix: Option<HeaderValue>,
}

impl Target {
    /// The target of a request that a route of these sources permitted. A field of the query in which the route looks
    /// for tokens does not pass, whether what it held was one or not.
    pub(crate) fn of_route(
        head: &Head<'_>,
        uri: &Uri,
        strip_prefix: Option<&str>,
        sources: &Sources,
        permit: &Permit,
    ) -> Self {
        let token = match permit.place() {
            Some(Place::Query) | None => sources.query.as_deref(),
            Some(Place::Header | Place::Cookie | Place::Named) => None,
        };
        Self::of(head, uri, strip_prefix, token)
    }

    /// The target of a head.
    ///
    /// `token` names a field of the query that held the caller's token, which the upstream does not get.
    pub(crate) fn of(head: &Head<'_>, uri: &Uri, strip_prefix: Option<&str>, token: Option<&str>) -> Self {
        let stripped = strip_prefix.and_then(|prefix| strip(&head.path, prefix));
        let prefix = strip_prefix.filter(|_| stripped.is_some()).map(|prefix| prefix.trim_end_matches('/'));
        let prefix = prefix.and_then(|prefix| HeaderValue::from_str(prefix).ok());
        let path = match (uri.path_and_query(), stripped, token) {
            (Some(as_sent), None, None) if as_sent.path() == head.path => as_sent.clone(),
            (_, stripped, None) => join(stripped.as_deref().unwrap_or(&head.path), head.query),
            (_, stripped, Some(token)) => {
                let is_token = |field: &&str| field.split_once('=').is_some_and(|(name, _)| name == token);
                let fields = head.query.unwrap_or_default().split('&').filter(|field| !is_token(field));
                let query = fields.collect::<Vec<_>>().join("&");
                let query = Some(&*query).filter(|query| !query.is_empty());
                join(stripped.as_deref().unwrap_or(&head.path), query)
            }
        };
        let authority = match head.headers.get(header::HOST) {
            Some(as_sent) if head.authority_is(as_sent.as_bytes()) => Some(as_sent.clone()),
            Some(_) | None => head.authority().and_then(|authority| HeaderValue::from_str(&authority).ok()),
        };
        Self { path, authority, prefix }
    }
}

/// The rest of a path below a prefix, which ends at a segment's end; always with a leading slash.
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

/// Facts of one request that the upstream is context.
#[derive(Debug)]
pub(crate) struct ForwardContext<'a> {
    /// The sender.
    pub(crate) caller: Caller,
    /// The facts that a trusted proxy states about it.
    pub(crate) relayed: Option<&'a Relayed>,
    /// Its connection.
    pub(crate) connection: ConnectionHeaders<'a>,
    /// Its name.
    pub(crate) id: RequestId,
    /// Its name as a field value.
    pub(crate) id_header: &'a HeaderValue,
    /// The names under which identity is context.
    pub(crate) identity: &'a IdentityHeaders,
    /// Whether a verified token passes in `Authorization`.
    pub(crate) forward_token: bool,
    /// Whether `Authorization` passes unchanged: on a public route, where the gateway does not check it.
    pub(crate) pass_authorization: bool,
    /// Fields of [`super::foreign`] that pass from a trusted proxy.
    pub(crate) pass: &'a [HeaderName],
    /// The local authority's cookies, which do not pass.
    pub(crate) cookies: Option<&'a CookieNames>,
    /// Whether the route takes the CSRF token from a form's field, so that the upstream must be able to write it there.
    pub(crate) write_csrf: bool,
    /// Header fields that may hold the caller's token, which do not pass.
    pub(crate) credentials: &'a [HeaderName],
    /// The proofs of identity for upstreams.
    pub(crate) proofs: &'a Proofs,
    /// When the request was read.
    pub(crate) now: Now,
}

/// Method, target and fields for the upstream. The permit is the proof that the request may go; its identity
/// headers go with it.
pub(crate) fn head(
    parts: Parts,
    target: Target,
    permit: &Permit,
    audience: &Audience,
    context: &ForwardContext<'_>,
) -> (Method, PathAndQuery, HeaderMap, u64) {
    let mut headers = parts.headers;
    if parts.version == Version::HTTP_2 {
        join_cookies(&mut headers);
    }
    if let Some(cookies) = context.cookies {
        strip::cookies(&mut headers, cookies);
        if permit.place() == Some(Place::Cookie) {
            headers.remove(&cookies.csrf_header);
        }
    }
    for name in context.credentials {
        headers.remove(name);
    }
    // With `forward_token` only the verified credential passes.
    let verified = context.forward_token && permit.place() == Some(Place::Header);
    if !verified && !context.pass_authorization {
        headers.remove(header::AUTHORIZATION);
    } else if verified {
        strip::canonical_scheme(&mut headers);
    }
    let pass = if context.relayed.is_some() { context.pass } else { &[] };
    let forged = strip::request(&mut headers, context.identity, pass);

    match &target.authority {
        Some(authority) => {
            headers.insert(header::HOST, authority.clone());
        }
        None => {
            headers.remove(header::HOST);
        }
    }
    client::write(
        &mut headers,
        &context.connection,
        context.caller,
        context.relayed,
        target.authority.as_ref(),
    );
    if let Some(prefix) = target.prefix {
        let whole = append_prefix(headers.get(X_FORWARDED_PREFIX), prefix);
        headers.insert(X_FORWARDED_PREFIX, whole);
    }
    headers.insert(X_REQUEST_ID, context.id_header.clone());
    if headers.get(TRACEPARENT).and_then(trace_id_of).is_none() {
        headers.insert(TRACEPARENT, context.id.traceparent());
        // A state without its parent belongs to nothing (W3C Trace Context, section 3.3.1.1).
        headers.remove(TRACESTATE);
    }
    let proof = Proof {
        proofs: context.proofs,
        audience,
        method: &parts.method,
        target: &target.path,
        now: context.now,
    };
    write_identity(&mut headers, permit, context.write_csrf, &proof);
    (parts.method, target.path, headers, forged)
}

/// Appends a stripped prefix to the one that a trusted proxy stripped before, if the policy accepts that field.
fn append_prefix(before: Option<&HeaderValue>, ours: HeaderValue) -> HeaderValue {
    let Some(before) = before else { return ours };
    let before = before.as_bytes();
    let whole = [before.strip_suffix(b"/").unwrap_or(before), ours.as_bytes()].concat();
    HeaderValue::from_bytes(&whole).unwrap_or(ours)
}

/// Writes the identity of the caller for the upstream of a request, or for the proxy that asked about it. With
/// `write_csrf` it includes the CSRF token of the session, for a route that accepts the token in its forms.
pub(crate) fn write_identity(headers: &mut HeaderMap, permit: &Permit, write_csrf: bool, proof: &Proof<'_>) {
    if let Some(principal) = permit.principal() {
        for (name, value) in &principal.headers {
            headers.insert(name.clone(), value.clone());
        }
        proof.write(headers, principal);
        // The readable cookie does not pass, and what is in no cookie needs no such protection.
        if write_csrf
            && permit.place() == Some(Place::Cookie)
            && let Some(csrf) = principal.local.as_deref().and_then(|local| local.csrf.as_deref())
            && let Ok(mut value) = HeaderValue::from_str(csrf)
        {
            value.set_sensitive(true);
            headers.insert(X_AUTH_CSRF, value);
        }
    }
}

/// Joins the pieces that a client of HTTP/2 may split `Cookie` into: HTTP/1.1 knows one field only (RFC 9113 section
/// 8.2.3).
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
