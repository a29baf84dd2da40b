//! CSRF protection for requests whose credential is a cookie.
//!
//! A browser attaches cookies to requests that any site causes. A request that may change state must therefore repeat a
//! secret value in a header or a form field. The value is the token's `csrf` claim; a second cookie, which only pages
//! of the same origin can read, contains the same value. An attacker who can write cookies but not read them gains
//! nothing, since the value is signed into the token.

use super::Credentials;
use super::credential::CookieNames;
use super::error::{CredentialError, Quoted};
use super::principal::Local;
use crate::denial::Denial;
use crate::peer::Relayed;
use crate::route::upgrade;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

/// `Sec-Fetch-Site`, in which a browser states how the initiating site is related to the requested site (W3C Fetch
/// Metadata, section 2.4).
pub(crate) const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Returns whether a method may change state: all methods except the safe ones of RFC 9110 section 9.2.1.
pub(crate) fn is_unsafe(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

/// Checks a request whose credential is in a cookie.
///
/// # Errors
/// [`Denial::CsrfMismatch`] if the request comes from another site, or if its CSRF token is not the CSRF token of the
/// session; [`Denial::CsrfMissing`] if the request has no CSRF token.
pub(super) fn check(
    credentials: &Credentials<'_>,
    names: &CookieNames,
    origins: &[Box<str>],
    local: Option<&Local>,
) -> Result<(), CredentialError> {
    let head = credentials.head;
    if !is_unsafe(head.method) {
        return check_handshake(credentials, origins);
    }
    same_site(credentials, origins).map_err(|denial| {
        of_another_site(
            denial,
            "the token is in a cookie, and the request",
            head.headers,
            "[authority] origins",
        )
    })?;
    let because = |detail| CredentialError::because(Denial::CsrfMismatch, detail);
    let token = token_shown(head.headers, names, credentials.csrf_field)
        .map_err(|_| because("the request has several CSRF tokens"))?
        .ok_or(Denial::CsrfMissing)?;
    // A token without the `csrf` claim was not issued for use in a cookie.
    let expected = local
        .and_then(|local| local.csrf.as_deref())
        .ok_or_else(|| because("the token in the cookie has no claim csrf: it was not issued as a cookie"))?;
    verify_slices_are_equal(token, expected.as_bytes())
        .map_err(|_| because("the request has a CSRF token that is not that of the session of its cookie"))
}

/// Describes a request that comes from a page of another site. `key` lists the origins whose pages may send it.
fn of_another_site(denial: Denial, request: &str, headers: &HeaderMap, key: &str) -> CredentialError {
    CredentialError::because(denial, another_site(request, headers, key))
}

/// Describes a request that comes from a page of another site, for the operator.
#[cold]
pub(crate) fn another_site(request: &str, headers: &HeaderMap, key: &str) -> String {
    let shown = |name: &HeaderName| {
        let mut values = headers.get_all(name).iter();
        match (values.next().map(HeaderValue::to_str), values.next()) {
            (None, _) => "absent".to_owned(),
            (Some(Ok(value)), None) => Quoted(value).to_string(),
            (Some(Err(_)), None) => "not ASCII".to_owned(),
            (Some(_), Some(_)) => "repeated".to_owned(),
        }
    };
    let (origin, site) = (shown(&header::ORIGIN), shown(&SEC_FETCH_SITE));
    format!(
        "{request} comes from a page of another site: Origin is {origin}, Sec-Fetch-Site is {site}; {key} lists the sites \
         whose pages may send it"
    )
}

/// Checks a request whose credential is in a cookie that another program sets. The gateway issues no CSRF token for
/// such a cookie. If the request may change state, its `Sec-Fetch-Site` or `Origin` must therefore show that it comes
/// from a page of the same origin or of one of `origins`.
///
/// # Errors
/// [`Denial::CsrfMismatch`] if the request comes from another site, or if it may change state and has neither
/// `Sec-Fetch-Site` nor `Origin`.
pub(super) fn check_foreign(
    credentials: &Credentials<'_>,
    origins: &[Box<str>],
) -> Result<(), CredentialError> {
    let head = credentials.head;
    if !is_unsafe(head.method) {
        return check_handshake(credentials, origins);
    }
    if !names_site(head.headers) {
        let detail = "the token is in a cookie of another program, and the request has neither Origin nor \
                      Sec-Fetch-Site: a client that is not a browser sends its token in a header";
        return Err(CredentialError::because(Denial::CsrfMismatch, detail));
    }
    same_site(credentials, origins).map_err(|denial| {
        let request = "the token is in a cookie of another program, and the request";
        of_another_site(denial, request, head.headers, "[policy] origins")
    })
}

/// Checks a request whose credential is a client certificate. A browser sends the certificate of its user with requests
/// from the pages of all sites, as it does with cookies. Other clients send neither `Origin` nor `Sec-Fetch-Site`.
///
/// # Errors
/// [`Denial::CsrfMismatch`] if a page of another site sent a request with an unsafe method, or asked for an upgrade.
pub(super) fn check_certificate(
    credentials: &Credentials<'_>,
    origins: &[Box<str>],
) -> Result<(), CredentialError> {
    let head = credentials.head;
    if !is_unsafe(head.method) && !upgrade::is_asked(head.method, head.headers) {
        return Ok(());
    }
    same_site(credentials, origins).map_err(|denial| {
        let request = "the caller has a client certificate, and the request";
        of_another_site(denial, request, head.headers, "[policy] origins")
    })
}

/// Checks a request with a safe method whose credential is in a cookie.
fn check_handshake(credentials: &Credentials<'_>, origins: &[Box<str>]) -> Result<(), CredentialError> {
    let head = credentials.head;
    // A page of any site can open a WebSocket with cookies and read from it, so the origin is checked. A page cannot
    // set a header on a handshake, so no CSRF token is required.
    if !upgrade::is_asked(head.method, head.headers) {
        return Ok(());
    }
    // A browser sends `Origin` in each handshake (RFC 6455 section 4.1). If the field is missing, a proxy may have
    // removed it, so the gateway does not accept the session.
    if upgrade::is_websocket(head.headers) && !head.headers.contains_key(header::ORIGIN) {
        let detail = "a WebSocket handshake with a cookie, and without Origin";
        return Err(CredentialError::because(Denial::CsrfMismatch, detail));
    }
    same_site(credentials, origins).map_err(|denial| {
        let request = "the token is in a cookie, and the WebSocket handshake, or another upgrade,";
        of_another_site(denial, request, head.headers, "[authority] origins or [policy] origins")
    })
}

/// Returns the CSRF token of a request: from the header, otherwise from the form field.
///
/// # Errors
/// [`Denial::CsrfMismatch`] if the header field is repeated.
pub(crate) fn token_shown<'r>(
    headers: &'r HeaderMap,
    names: &CookieNames,
    field: Option<&'r str>,
) -> Result<Option<&'r [u8]>, Denial> {
    Ok(only(headers, &names.csrf_header)?.or(field.map(str::as_bytes)))
}

/// Rejects a request that a browser marks as cross-site. The marks are reliable, since a page cannot set
/// `Sec-Fetch-Site` or `Origin`. A client that sends neither field is not a current browser and passes this check; the
/// CSRF token is checked in any case.
///
/// # Errors
/// [`Denial::CsrfMismatch`] if the request is cross-site, or if one of the two fields is repeated.
pub(crate) fn same_site(credentials: &Credentials<'_>, origins: &[Box<str>]) -> Result<(), Denial> {
    let head = credentials.head;
    let origin = only(head.headers, &header::ORIGIN)?;
    let site = only(head.headers, &SEC_FETCH_SITE)?;
    let is_own = match origin {
        None => true,
        Some(origin) if origins.iter().any(|allowed| allowed.as_bytes() == origin) => return Ok(()),
        // A form on a page with `Referrer-Policy: no-referrer` is submitted with `Origin: null` (Fetch, section 3.2.1),
        // but the browser marks the request as same-origin. A sandboxed frame also sends `Origin: null`, but the
        // browser marks its requests as cross-site.
        Some(b"null") => site == Some(b"same-origin"),
        Some(origin) => is_own(origin, credentials),
    };
    // A browser sends `none` for a typed address or a bookmark, since no site initiated the request.
    let is_same_site = matches!(site, None | Some(b"same-origin" | b"none"));
    if is_own && is_same_site { Ok(()) } else { Err(Denial::CsrfMismatch) }
}

/// Returns whether the request has `Origin` or `Sec-Fetch-Site`, which browsers send to identify the initiating site.
pub(crate) fn names_site(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN) || headers.contains_key(SEC_FETCH_SITE)
}

/// Returns whether a browser marks the request as coming from a page of another site.
pub(crate) fn is_cross_site(headers: &HeaderMap) -> bool {
    headers.get_all(SEC_FETCH_SITE).iter().any(|site| site == "cross-site")
}

/// Returns the value of a field; an error if the field is repeated.
fn only<'r>(headers: &'r HeaderMap, name: &HeaderName) -> Result<Option<&'r [u8]>, Denial> {
    let mut written = headers.get_all(name).iter();
    match (written.next(), written.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => Ok(Some(value.as_bytes())),
        (Some(_), Some(_)) => Err(Denial::CsrfMismatch),
    }
}

/// Returns whether `origin` is the request's own origin (RFC 6454 section 7), with or without the scheme's default
/// port. The request's own host is the host in its head, or the host that a trusted proxy reports.
fn is_own(origin: &[u8], credentials: &Credentials<'_>) -> bool {
    let Some(rest) = origin.strip_prefix(credentials.scheme.as_str().as_bytes()) else { return false };
    let Some(authority) = rest.strip_prefix(b"://") else { return false };
    let (head, default) = (credentials.head, credentials.scheme.default_port());
    let is_heads = match head.port {
        Some(port) if port == default => {
            head.host.as_deref().is_some_and(|host| host.as_bytes() == authority)
                || head.authority_is(authority)
        }
        Some(_) | None => head.authority_is(authority),
    };
    is_heads || credentials.relayed.is_some_and(|relayed| is_relayed(authority, relayed, default))
}

/// Returns whether a trusted proxy reports that the client requested this host and port.
fn is_relayed(authority: &[u8], relayed: &Relayed, default: u16) -> bool {
    let Some(host) = relayed.host.as_deref() else { return false };
    let is = |written: &str| written.as_bytes() == authority;
    let with_port = || relayed.port.is_some_and(|port| is(&format!("{host}:{port}")));
    is(host) || host.strip_suffix(&format!(":{default}")).is_some_and(is) || with_port()
}

#[cfg(test)]
mod tests;
