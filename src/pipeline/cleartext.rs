//! Answers on the cleartext port: the validation of a domain, and the redirect to HTTPS.

use super::body::Body;
use super::exchange::Exchange;
use super::progress::Progress;
use super::record::Record;
use super::rejection::Rejection;
use super::stages;
use crate::denial::{Denial, Malformed};
use crate::peer::{Connection, Scheme};
use crate::policy::Policy;
use crate::route::Head;
use crate::route::host::Authority;
use crate::worker::Worker;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, header};

/// Answers an ACME server that validates a domain by HTTP-01. Returns `None` for any other request.
#[cold]
pub(super) fn validation(worker: &Worker, connection: &Connection, parts: &Parts) -> Option<Response<Body>> {
    if connection.peer.scheme != Scheme::Http || !matches!(parts.method, Method::GET | Method::HEAD) {
        return None;
    }
    let text = worker.challenges().text(parts.uri.path())?;
    let mut response = Response::new(Body::whole(Bytes::copy_from_slice(text.as_bytes())));
    let kind = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Some(response)
}

/// Redirects a client from the cleartext port to HTTPS. The status 308 makes the client keep its method (RFC 9110
/// section 15.4.9). Refuses a request that carries a credential.
#[cold]
pub(super) fn to_https(
    policy: &Policy,
    exchange: &Exchange,
    head: &Head<'_>,
    port: u16,
    record: &mut Record,
    progress: &mut Progress<'_>,
) -> Result<Response<Body>, Rejection> {
    if let Err(denial) = stages::redirect(policy, head) {
        if let Ok(routed) = stages::find(policy, head) {
            progress.routed(*routed.found.entry, record);
        }
        return Err(denial.into());
    }
    let asked = exchange.relayed.as_deref().and_then(|relayed| relayed.host.as_deref());
    let asked = asked.and_then(|asked| Authority::parse(asked).ok()).map(|authority| authority.host);
    let host = asked.as_deref().or(head.host.as_deref()).ok_or(Denial::BadRequest(Malformed::Host))?;
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    let query = head.query.map(|query| format!("?{query}")).unwrap_or_default();
    let location = format!("https://{host}{port}{}{query}", head.path);
    let location = HeaderValue::try_from(location).map_err(|_| Denial::BadRequest(Malformed::Target))?;
    let mut response = Response::new(Body::whole(Bytes::new()));
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}
