//! The login page. After the login, the browser is redirected to the page that it requested first.
//!
//! The page works without scripts and never links to another host. A form on another site cannot log a browser in.

mod document;
mod next;
mod visit;

use super::cookie;
use super::endpoint::Endpoint;
use super::fields::Fields;
use super::refresh::{check_csrf, spend};
use super::request::{EndpointRequest, Holder};
use super::response::Refused;
use super::runtime::Authority;
use crate::authenticate::credential;
use crate::authenticate::csrf::{is_cross_site, names_site};
use crate::denial::{BodyFault, Denial};
use crate::hex;
use crate::respond::page::{card, span};
use crate::respond::{Format, refuse, see_other};
use bytes::Bytes;
use document::{LoggedIn, LoginForm, Note};
use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use next::location;
pub use next::{NEXT_MAX, Next};
use visit::Visit;

/// `Cross-Origin-Opener-Policy`. A page of another site that opens the login page gets no access to the window.
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

/// The query parameter that requires a login even from a logged-in person.
pub const PROMPT: &str = "prompt";
/// The value of [`PROMPT`] for a route that requires a fresh login. OpenID Connect Core, section 3.1.2.1, defines the
/// same parameter and value.
pub const PROMPT_LOGIN: &str = "login";
/// The query parameter that marks the second request for the login page. The first request came from another site.
const AGAIN: &str = "again";
/// The query parameter that makes the page show the logout notice.
const LOGGED_OUT: &str = "logged_out";

/// Whether the request is a form from a browser. The response must then be a page.
pub(super) fn wants_page(request: &EndpointRequest) -> bool {
    request.settings.cookies.is_some()
        && request.fields.is_form()
        && Format::of(&request.headers) == Format::Html
}

/// Returns the login page, or redirects a person who is already logged in.
pub(super) async fn show(authority: &Authority, request: EndpointRequest) -> Result<Response<Bytes>, Denial> {
    let cookies = request.settings.cookies.as_ref().ok_or(Denial::NotFound)?;
    if !cookie::is_stored_by_browsers(&request) {
        return Ok(refused(&request, Denial::InsecureTransport, None));
    }
    // An unreadable query counts as empty.
    let query = Fields::form(request.query.as_deref().unwrap_or_default().as_bytes()).unwrap_or_default();
    let next = Next::of(&query);
    let says = |name: &str| query.optional(name).ok().flatten();
    let must_prove = says(PROMPT) == Some(PROMPT_LOGIN);
    if let Some(holder) = request.caller.as_ref().filter(|holder| holder.by_cookie && !must_prove) {
        return Ok(match &next {
            Some(next) => see_other(location(Some(next))),
            None => logged_in(&request, holder),
        });
    }
    // If a person follows a link from another site, the browser does not send `SameSite=Strict` cookies. The gateway
    // therefore returns a page that redirects to the login page, and the browser sends the cookies with that second
    // request. Another site gains no more than with `SameSite=Lax`: it can open a page of this host in a window, but
    // not in a frame.
    if is_cross_site(&request.headers) && says(AGAIN).is_none() {
        return Ok(page(StatusCode::OK, document::onward(&again(&request, next.as_ref(), must_prove))));
    }
    let visit = Visit::of(&request);
    let mut note = says(LOGGED_OUT).map(|_| Note::Plain("You are logged out."));
    let mut is_over = false;
    let held = if request.method == Method::GET && !must_prove { held(&request) } else { None };
    if let Some((token, csrf)) = held {
        if visit.as_ref().is_some_and(|visit| visit.was_renewed(request.now.unix)) {
            note = Some(Note::Bad(
                "Your browser did not keep the session that it was given. Allow cookies for this site, then log in.",
            ));
        } else {
            match renew(authority, &request, token, csrf).await {
                Ok(given) => {
                    let onward = match &next {
                        Some(next) => location(Some(next)),
                        None => HeaderValue::from_str(request.settings.path(Endpoint::LoginPage))
                            .map_err(|_| Denial::NotFound)?,
                    };
                    let mut response = copy_cookies(&given, see_other(onward));
                    let visit = visit.map_or_else(Visit::new, Ok)?;
                    visit.renew(response.headers_mut(), cookies, request.now.unix);
                    return Ok(response);
                }
                Err(denial @ (Denial::StoreUnavailable | Denial::Overloaded)) => {
                    return Ok(refused(&request, denial, next.as_ref()));
                }
                // The session has ended. Delete its cookies and show the form.
                Err(_) => is_over = true,
            }
        }
    }
    let visit = visit.map_or_else(Visit::new, Ok)?;
    let mut response = page(StatusCode::OK, form(&request, &visit, next.as_ref(), note, false));
    if is_over {
        cookie::expire_session_cookies(response.headers_mut(), cookies);
    }
    visit.keep(response.headers_mut(), cookies, request.now.unix);
    Ok(response)
}

/// Whether a form comes from a client that is not a browser, such as `curl -d`. Such a client gets the tokens in the
/// body.
///
/// Any of these signs identifies a browser: `Sec-Fetch-Site`, `Origin`, a cookie, a preference for HTML, or the login
/// page's CSRF value. A wrong guess is harmless: the response sets no cookie, and a page of another site cannot read
/// it.
pub(super) fn is_form_without_browser(request: &EndpointRequest) -> Result<bool, Denial> {
    let headers = &request.headers;
    Ok(request.fields.is_form()
        && request.fields.optional("csrf_token")?.is_none()
        && !names_site(headers)
        && !headers.contains_key(COOKIE)
        && Format::of(headers) != Format::Html
        && cookie::is_stored_by_browsers(request))
}

/// Rejects a login with cookies if another site may have caused it.
///
/// # Errors
/// [`Denial::CsrfMismatch`], [`Denial::CsrfMissing`], [`Denial::InsecureTransport`].
pub(super) fn check_login_origin(request: &EndpointRequest) -> Result<(), Denial> {
    if !cookie::is_stored_by_browsers(request) {
        return Err(Denial::InsecureTransport);
    }
    // Another site must not log the browser in to an attacker's account. The attacker would see everything that the
    // user then does.
    if !request.own_site {
        return Err(Denial::CsrfMismatch);
    }
    // A page of another site can send a form, but it cannot send JSON without a CORS preflight.
    if !request.fields.is_form() {
        return Ok(());
    }
    match (request.fields.optional("csrf_token")?, Visit::of(request)) {
        (Some(field), Some(visit)) if visit.is(field) => Ok(()),
        (Some(_), Some(_) | None) => Err(Denial::CsrfMismatch),
        (None, _) if names_site(&request.headers) => Ok(()),
        (None, _) => Err(Denial::CsrfMissing),
    }
}

/// Returns the response to a login: for a browser a redirect or the form, for any other client the API response.
pub(super) fn login_response(
    request: &EndpointRequest,
    outcome: Result<Response<Bytes>, Denial>,
) -> Result<Response<Bytes>, Denial> {
    if !wants_page(request) || request.fields.optional("deliver").ok().flatten().is_some() {
        return outcome;
    }
    let next = Next::of(&request.fields);
    Ok(match outcome {
        Ok(given) => {
            let mut response = copy_cookies(&given, see_other(location(next.as_ref())));
            if let Some(cookies) = &request.settings.cookies {
                cookie::expire_visit_cookie(response.headers_mut(), cookies);
            }
            response
        }
        Err(denial) => refused(request, denial, next.as_ref()),
    })
}

/// Returns the response to a logout in a browser: a redirect to the login page, with the cookies that `goodbye` sets.
pub(super) fn logout_response(request: &EndpointRequest, goodbye: &Response<Bytes>) -> Response<Bytes> {
    let page = format!("{}?{LOGGED_OUT}=1", request.settings.path(Endpoint::LoginPage));
    // The policy has checked that the path is a valid header value.
    let to = HeaderValue::try_from(page).unwrap_or_else(|_| location(None));
    copy_cookies(goodbye, see_other(to))
}

/// Returns the refresh token and the CSRF value in the browser's cookies.
fn held(request: &EndpointRequest) -> Option<(&str, &str)> {
    let names = &request.settings.cookies.as_ref()?.names;
    let text = |name: &str| {
        let value = credential::cookie(&request.headers, name).ok()??;
        std::str::from_utf8(value).ok()
    };
    Some((text(&names.refresh)?, text(&names.csrf)?))
}

/// Renews the tokens of a browser whose access token has expired. Another site can cause this GET request, but its only
/// effect is that the browser gets new tokens.
async fn renew(
    authority: &Authority,
    request: &EndpointRequest,
    token: &str,
    csrf: &str,
) -> Result<Response<Bytes>, Denial> {
    check_csrf(authority, token, csrf).await?;
    spend(authority, request, token, Some(csrf)).await
}

/// Returns the address of the login page for the second request.
fn again(request: &EndpointRequest, next: Option<&Next>, must_prove: bool) -> String {
    let mut address = format!("{}?{AGAIN}=1", request.settings.path(Endpoint::LoginPage));
    if must_prove {
        address.push_str(&format!("&{PROMPT}={PROMPT_LOGIN}"));
    }
    if let Some(next) = next {
        address.push_str(&format!("&next={}", encoded(next.as_str())));
    }
    address
}

/// Encodes a text as the value of a query parameter (RFC 3986 section 2.1).
pub fn encoded(text: &str) -> String {
    hex::percent_encoded(text.as_bytes(), |byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/')
    })
}

fn form(
    request: &EndpointRequest,
    visit: &Visit,
    next: Option<&Next>,
    note: Option<Note<'_>>,
    is_wrong: bool,
) -> String {
    let name = request.fields.optional("username").ok().flatten().filter(|name| name.len() <= NAME_SHOWN);
    let form = LoginForm {
        action: request.settings.path(Endpoint::Login),
        host: &request.authority,
        next: next.map(Next::as_str),
        visit: visit.value(),
        name: name.unwrap_or_default(),
        is_wrong,
        note,
    };
    form.page()
}

/// Maximum length of a user name that the form shows again, in bytes.
const NAME_SHOWN: usize = 256;

/// Returns the login page with a note about the refusal, and with the refusal's status and headers.
fn refused(request: &EndpointRequest, denial: Denial, next: Option<&Next>) -> Response<Bytes> {
    let visit = Visit::of(request).map_or_else(Visit::new, Ok);
    let words = words(&denial, request, visit.is_ok() && Visit::of(request).is_none());
    let text = match (&visit, &denial) {
        (Err(_), _) | (Ok(_), Denial::InsecureTransport) => {
            document::notice("Log in", &request.authority, &words)
        }
        (Ok(visit), _) => {
            form(request, visit, next, Some(Note::Bad(&words)), denial == Denial::BadCredentials)
        }
    };
    // Take the status, `WWW-Authenticate` and `Retry-After` from the plain refusal.
    let plain = refuse(&denial, Format::Html, &HeaderValue::from_static("-"), &Method::GET);
    let (mut parts, _) = plain.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    let mut response = Response::from_parts(parts, Bytes::from(text));
    protect(response.headers_mut());
    if let (Ok(visit), Some(cookies), true) =
        (visit, &request.settings.cookies, denial != Denial::InsecureTransport)
    {
        visit.keep(response.headers_mut(), cookies, request.now.unix);
    }
    response.extensions_mut().insert(Refused(denial));
    response
}

/// Describes a refusal to the person who logs in.
fn words(denial: &Denial, request: &EndpointRequest, came_without_cookie: bool) -> String {
    if let Denial::TooManyAttempts { wait } = denial {
        return format!("Too many failed attempts. Try again in {}.", span(*wait));
    }
    let words = match denial {
        Denial::BadCredentials => "The user name or the password is wrong.",
        Denial::AccountDisabled => "This account is disabled.",
        Denial::StoreUnavailable | Denial::Overloaded | Denial::LoginUnavailable => {
            "Logging in does not work right now. Try again in a moment."
        }
        Denial::InvalidBody(BodyFault::Missing) => "Enter your user name and your password.",
        Denial::InsecureTransport => {
            "This page came over a connection that is not encrypted. Open it with https to log in."
        }
        Denial::CsrfMismatch | Denial::CsrfMissing if !request.own_site => {
            "Another site sent this form. If you want to log in, check the address of this page and do it here."
        }
        Denial::CsrfMismatch | Denial::CsrfMissing if came_without_cookie => {
            "The page was open for too long, or your browser keeps no cookies for this site. Log in again; if this \
             comes back, allow cookies."
        }
        Denial::CsrfMismatch | Denial::CsrfMissing => "The page was open for too long. Log in again.",
        other => other.detail(),
    };
    words.to_owned()
}

fn logged_in(request: &EndpointRequest, holder: &Holder) -> Response<Bytes> {
    let csrf = request.settings.cookies.as_ref().and_then(|cookies| {
        let value = credential::cookie(&request.headers, &cookies.names.csrf).ok()??;
        std::str::from_utf8(value).ok()
    });
    let text = LoggedIn {
        host: &request.authority,
        subject: &holder.subject,
        logout: request.settings.path(Endpoint::Logout),
        csrf: csrf.unwrap_or_default(),
    };
    page(StatusCode::OK, text.page())
}

fn page(status: StatusCode, text: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    protect(headers);
    response
}

/// Sets the headers that protect the gateway's pages from other sites.
fn protect(headers: &mut HeaderMap) {
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(card::CONTENT_SECURITY_POLICY));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    // With `no-referrer`, the browser would also omit the `Origin` of the form (Fetch, section 3.2.1).
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(OPENER_POLICY, HeaderValue::from_static("same-origin"));
}

fn copy_cookies(given: &Response<Bytes>, mut response: Response<Bytes>) -> Response<Bytes> {
    for cookie in given.headers().get_all(http::header::SET_COOKIE) {
        response.headers_mut().append(http::header::SET_COOKIE, cookie.clone());
    }
    response
}

#[cfg(test)]
pub(super) mod tests;
