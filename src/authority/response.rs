//! The responses that endpoints build.

use crate::denial::Denial;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::Value;

/// A response extension that marks a response as a refusal, for logs and metrics.
#[derive(Clone, Debug)]
pub struct Refused(pub Denial);

/// Returns a JSON response that must not be cached (RFC 6749 section 5.1).
pub(super) fn json_response(status: StatusCode, body: &Value) -> Response<Bytes> {
    filled(Response::new(Bytes::new()), status, body)
}

pub(super) fn filled(mut response: Response<Bytes>, status: StatusCode, body: &Value) -> Response<Bytes> {
    *response.status_mut() = status;
    // The line break helps readers in a terminal.
    *response.body_mut() = Bytes::from(format!("{body}\n"));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Returns a response without a body that must not be cached.
pub(super) fn empty_response(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
