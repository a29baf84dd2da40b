//! Whether a request whose credential is a cookie was meant by the person whose browser sent it.
//!
//! A browser attaches a cookie whoever made it send the request. So a request that may change something must show, in
//! a place that another site cannot write to, what only pages of ours can read: the value of the token's `csrf` claim,
//! which the readable cookie holds too. Whoever can write cookies but not read them gains nothing: the value that counts
//! is signed into the token.

use super::credential::CookieNames;
use super::principal::Local;
use crate::denial::Denial;
use crate::peer::Scheme;
use crate::route::Head;
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
    head: &Head<'_>,
    scheme: Scheme,
    field: Option<&str>,
    names: &CookieNames,
    origins: &[Box<str>],
    local: Option<&Local>,
) -> Result<(), Denial> {
    if !is_unsafe(head.method) {
        return Ok(());
    }
    same_site(head, scheme, origins)?;
    let shown = shown(head.headers, names, field)?.ok_or(Denial::CsrfMissing)?;
    // A token without the claim was not made to be a cookie.
    let expected = local.and_then(|local| local.csrf.as_deref()).ok_or(Denial::CsrfMismatch)?;
    verify_slices_are_equal(shown, expected.as_bytes()).map_err(|_| Denial::CsrfMismatch)
}

/// The CSRF token that a request shows: in the header, else in the field of its form.
///
/// # Errors
/// [`Denial::CsrfMismatch`] where the header stands twice.
pub fn shown<'r>(
    headers: &'r HeaderMap,
    names: &CookieNames,
    field: Option<&'r str>,
) -> Result<Option<&'r [u8]>, Denial> {
    let mut fields = headers.get_all(&names.csrf_header).iter();
    match (fields.next(), fields.next()) {
        (Some(value), None) => Ok(Some(value.as_bytes())),
        (None, _) => Ok(field.map(str::as_bytes)),
        (Some(_), Some(_)) => Err(Denial::CsrfMismatch),
    }
}

/// Refuses what a browser says was sent by another site: `Sec-Fetch-Site` and `Origin` cannot be set by a page. A client
/// that says neither is no browser of today, and is asked for its CSRF token all the same.
///
/// # Errors
/// [`Denial::CsrfMismatch`].
pub fn same_site(head: &Head<'_>, scheme: Scheme, origins: &[Box<str>]) -> Result<(), Denial> {
    let mut written = head.headers.get_all(header::ORIGIN).iter();
    let origin = match (written.next(), written.next()) {
        (None, _) => None,
        (Some(origin), None) => Some(origin.as_bytes()),
        (Some(_), Some(_)) => return Err(Denial::CsrfMismatch),
    };
    if let Some(origin) = origin {
        let allowed = origins.iter().any(|allowed| allowed.as_bytes() == origin);
        if allowed {
            return Ok(());
        }
        if !is_own(origin, head, scheme) {
            return Err(Denial::CsrfMismatch);
        }
    }
    match head.headers.get(SEC_FETCH_SITE).map(|site| site.as_bytes()) {
        // A person typed the address, or chose a bookmark.
        None | Some(b"same-origin" | b"none") => Ok(()),
        Some(_) => Err(Denial::CsrfMismatch),
    }
}

/// Whether a browser named the request's own origin (RFC 6454 section 7), the port left out where it is the scheme's.
fn is_own(origin: &[u8], head: &Head<'_>, scheme: Scheme) -> bool {
    let Some(rest) = origin.strip_prefix(scheme.as_str().as_bytes()) else { return false };
    let Some(authority) = rest.strip_prefix(b"://") else { return false };
    let default = match scheme {
        Scheme::Http => 80,
        Scheme::Https => 443,
    };
    match head.port {
        Some(port) if port == default => {
            head.host.as_deref().is_some_and(|host| host.as_bytes() == authority)
                || head.authority_is(authority)
        }
        Some(_) | None => head.authority_is(authority),
    }
}
