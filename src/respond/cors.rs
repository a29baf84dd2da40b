//! Lets scripts of listed origins read the gateway's responses (Fetch Standard, section 3.2).
//!
//! A response names an origin only if the policy lists it. Upstreams decide about CORS for their responses, unless the
//! route has a [`Cors`].

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, CACHE_CONTROL, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};

/// The response fields that a script of another origin may read, in addition to those that are always readable (Fetch
/// Standard, section 2.2.2). A refusal of gRPC-Web has its status in the head only
/// (findings/grpc-web-refusal-of-another-origin.sh).
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "www-authenticate, dpop-nonce, retry-after, ratelimit, ratelimit-policy, allow, x-request-id, grpc-status, \
     grpc-message",
);
/// The time that a browser may cache the response to a preflight, in seconds. After an origin is removed from the policy,
/// browsers may use a cached response for this time. The gateway still checks the origin of each request.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// Returns the request's origin. Returns `None` if the request has no origin or several.
pub(crate) fn origin(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut named = headers.get_all(ORIGIN).iter();
    named.next().filter(|_| named.next().is_none())
}

/// Returns the request's origin if the policy lists it.
pub(crate) fn listed<'h>(headers: &'h HeaderMap, origins: &[Box<str>]) -> Option<&'h HeaderValue> {
    if origins.is_empty() {
        return None;
    }
    origin(headers).filter(|origin| is_listed(origin, origins))
}

/// Returns whether a list has this origin, compared byte by byte.
pub(crate) fn is_listed(origin: &HeaderValue, origins: &[Box<str>]) -> bool {
    origins.iter().any(|listed| listed.as_bytes() == origin.as_bytes())
}

/// Allows the origin to read a response of the gateway. `cookies` is true if the authority sets cookies.
#[cold]
pub(crate) fn share(headers: &mut HeaderMap, origin: Option<&HeaderValue>, cookies: bool) {
    // `Vary` is set even if no origin may read the response. Otherwise a cache could serve this response to an allowed
    // origin.
    headers.append(VARY, HeaderValue::from_static("origin"));
    let Some(origin) = origin else { return };
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    if cookies {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
}

/// Returns the method that a preflight asks for (Fetch Standard, section 4.8). Returns `None` if the request is not a
/// preflight.
pub(crate) fn method_asked(method: &Method, headers: &HeaderMap) -> Option<Method> {
    if *method != Method::OPTIONS {
        return None;
    }
    let mut asked = headers.get_all(ACCESS_CONTROL_REQUEST_METHOD).iter();
    match (asked.next(), asked.next()) {
        (Some(asked), None) => Method::from_bytes(asked.as_bytes()).ok(),
        _ => None,
    }
}

/// Returns the response to a preflight from a listed origin. It allows this method, and the fields that the endpoints
/// use.
pub(crate) fn preflight(method: &Method, csrf_header: Option<&HeaderName>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(method) = HeaderValue::from_str(method.as_str()) {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, method);
    }
    let more = csrf_header.map(|name| format!(", {name}")).unwrap_or_default();
    if let Ok(fields) = HeaderValue::try_from(format!("authorization, content-type, dpop{more}")) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, fields);
    }
    headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    response
}

mod route;

pub(crate) use route::{Cors, OriginPattern, Origins};
pub(crate) use route::{CorsParts, asked_by_browser};

#[cfg(test)]
mod tests;
