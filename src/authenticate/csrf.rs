//! Whether a request whose credential is a cookie was meant by the person whose browser sent it.
//!
//! A browser attaches a cookie whoever made it send the request. So a request that may change something must show, in
//! a place that another site cannot write to, what only pages of ours can read: the value of the token's `csrf` claim,
//! which the readable cookie holds too. Whoever can write cookies but not read them gains nothing: the value that counts
//! is signed into the token.

use super::Credentials;
use super::credential::CookieNames;
use super::principal::Local;
use crate::denial::Denial;
use crate::peer::Relayed;
use crate::route::upgrade;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::{HeaderMap, HeaderName, Method, header};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether a method asks for a change (RFC 9110 section 9.2.1): all do but those that are known not to.
pub fn is_unsafe(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

/// Checks a request whose credential came in a cookie.
///
/// # Errors
/// [`Denial::CsrfMismatch`] where another site sent the request, or the value shown is not the token's;
/// [`Denial::CsrfMissing`] where none is shown.
pub(super) fn check(
    shown: &Credentials<'_>,
    names: &CookieNames,
    origins: &[Box<str>],
    local: Option<&Local>,
) -> Result<(), Denial> {
    let head = shown.head;
    if !is_unsafe(head.method) {
        // A page of any site may open a WebSocket, with cookies, and read what comes over it; it cannot send a header
        // with it, so the token is not asked for.
        if !upgrade::is_asked(head.method, head.headers) {
            return Ok(());
        }
        // A browser names the origin in each handshake (RFC 6455 section 4.1). If it is missing, a proxy may have
        // removed it, so the session is not accepted.
        if upgrade::is_websocket(head.headers) && !head.headers.contains_key(header::ORIGIN) {
            return Err(Denial::CsrfMismatch);
        }
        return same_site(shown, origins);
    }
    same_site(shown, origins)?;
    let token = token_shown(head.headers, names, shown.csrf_field)?.ok_or(Denial::CsrfMissing)?;
    // A token without the claim was not made to be a cookie.
    let expected = local.and_then(|local| local.csrf.as_deref()).ok_or(Denial::CsrfMismatch)?;
    verify_slices_are_equal(token, expected.as_bytes()).map_err(|_| Denial::CsrfMismatch)
}

/// The CSRF token that a request shows: in the header, else in the field of its form.
///
/// # Errors
/// [`Denial::CsrfMismatch`] where the header stands twice.
pub fn token_shown<'r>(
    headers: &'r HeaderMap,
    names: &CookieNames,
    field: Option<&'r str>,
) -> Result<Option<&'r [u8]>, Denial> {
    Ok(only(headers, &names.csrf_header)?.or(field.map(str::as_bytes)))
}

/// Refuses what a browser says was sent by another site: `Sec-Fetch-Site` and `Origin` cannot be set by a page. A client
/// that says neither is no browser of today, and is asked for its CSRF token all the same.
///
/// # Errors
/// [`Denial::CsrfMismatch`].
pub fn same_site(shown: &Credentials<'_>, origins: &[Box<str>]) -> Result<(), Denial> {
    let head = shown.head;
    let origin = only(head.headers, &header::ORIGIN)?;
    let site = only(head.headers, &SEC_FETCH_SITE)?;
    let is_own = match origin {
        None => true,
        Some(origin) if origins.iter().any(|allowed| allowed.as_bytes() == origin) => return Ok(()),
        // A page with `Referrer-Policy: no-referrer` names no origin in its forms (Fetch, section 3.2.1); that it is one
        // of ours, the browser says beside it. A sandboxed frame names none either, and is a site of its own.
        Some(b"null") => site == Some(b"same-origin"),
        Some(origin) => is_own(origin, shown),
    };
    // A person who typed the address, or chose a bookmark, comes from no site.
    let is_same_site = matches!(site, None | Some(b"same-origin" | b"none"));
    if is_own && is_same_site { Ok(()) } else { Err(Denial::CsrfMismatch) }
}

/// Whether a browser says at all which site sent the request.
pub fn names_site(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN) || headers.contains_key(SEC_FETCH_SITE)
}

/// Whether a browser says that a page of another site led here.
pub fn is_cross_site(headers: &HeaderMap) -> bool {
    headers.get(SEC_FETCH_SITE).is_some_and(|site| site == "cross-site")
}

/// The one value of a field.
fn only<'r>(headers: &'r HeaderMap, name: &HeaderName) -> Result<Option<&'r [u8]>, Denial> {
    let mut written = headers.get_all(name).iter();
    match (written.next(), written.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => Ok(Some(value.as_bytes())),
        (Some(_), Some(_)) => Err(Denial::CsrfMismatch),
    }
}

/// Whether a browser named the request's own origin (RFC 6454 section 7), the port left out where it is the scheme's.
/// The request's own host is the one in the request, or the one that the client asked for according to a trusted proxy.
fn is_own(origin: &[u8], shown: &Credentials<'_>) -> bool {
    let Some(rest) = origin.strip_prefix(shown.scheme.as_str().as_bytes()) else { return false };
    let Some(authority) = rest.strip_prefix(b"://") else { return false };
    let (head, default) = (shown.head, shown.scheme.default_port());
    let is_heads = match head.port {
        Some(port) if port == default => {
            head.host.as_deref().is_some_and(|host| host.as_bytes() == authority)
                || head.authority_is(authority)
        }
        Some(_) | None => head.authority_is(authority),
    };
    is_heads || shown.relayed.is_some_and(|relayed| is_relayed(authority, relayed, default))
}

/// Whether the client asked for this authority according to a trusted proxy.
fn is_relayed(authority: &[u8], relayed: &Relayed, default: u16) -> bool {
    let Some(host) = relayed.host.as_deref() else { return false };
    let is = |written: &str| written.as_bytes() == authority;
    let with_port = || relayed.port.is_some_and(|port| is(&format!("{host}:{port}")));
    is(host) || host.strip_suffix(&format!(":{default}")).is_some_and(is) || with_port()
}

#[cfg(test)]
mod tests;
