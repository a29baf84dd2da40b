//! The login page: a person with a browser logs in here and returns to the page that they requested.
//!
//! It works without scripts, by redirects, cookies and forms alone. It guarantees that it never links to another host,
//! that a form on another site cannot log anybody in, and that no browser is redirected in a loop.

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
pub use next::NEXT_MAX;
use next::{Next, location};
use visit::Visit;

/// `Cross-Origin-Opener-Policy`: denies a page that opened this one access to it.
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

/// The query parameter of the login page that states the requested action.
pub const PROMPT: &str = "prompt";
/// The value of [`PROMPT`] for a route that requires a fresh login, as in OpenID Connect Core, section 3.1.2.1: a
/// logged-in person must enter the password anyway.
pub const PROMPT_LOGIN: &str = "login";
/// The query parameter that marks a second visit, after the first came from another site.
const AGAIN: &str = "again";
/// The query parameter that states that the person has logged out.
const LOGGED_OUT: &str = "logged_out";

/// Whether the request is a form that a person sent in a browser.
pub(super) fn wants_page(request: &EndpointRequest) -> bool {
    request.settings.cookies.is_some()
        && request.fields.is_form()
        && Format::of(&request.headers) == Format::Html
}

/// Answers with the login page, or redirects a person who need not log in.
pub(super) async fn show(authority: &Authority, request: EndpointRequest) -> Result<Response<Bytes>, Denial> {
    let cookies = request.settings.cookies.as_ref().ok_or(Denial::NotFound)?;
    if !cookie::is_stored_by_browsers(&request) {
        return Ok(refused(&request, Denial::InsecureTransport, None));
    }
    // An unreadable parameter has no effect.
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
    // For a link on another site, the browser withholds cookies that are `SameSite=Strict`. It sends them for a link on
    // a page of the gateway, so a logged-in person need not enter the password because of where the link was. This
    // gives another site no more than `Lax` does: it can open a page here, in a separate window (the page cannot be
    // framed).
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
                // The session is over: its cookies are deleted, and the person must log in.
                Err(_) => is_over = true,
            }
        }
    }
    let visit = visit.map_or_else(Visit::new, Ok)?;
    let mut response = page(StatusCode::OK, form(&request, &visit, next.as_ref(), note, false));
    if is_over {
        cookie::expire_session_cookies(response.headers_mut(), cookies);
    }
    visit.keep(response.headers_mut(), cookies);
    Ok(response)
}

/// Whether a form comes from a client that is not a browser, such as `curl -d`. A browser names the site that sends a
/// form, prefers HTML, and returns the login page's CSRF value; this form does none of these. The client could not log
/// in with cookies, so it gets the tokens in the body. A wrong guess does no harm: the response sets no cookie, and no
/// page can read it.
pub(super) fn is_form_without_browser(request: &EndpointRequest) -> Result<bool, Denial> {
    let headers = &request.headers;
    Ok(request.fields.is_form()
        && request.fields.optional("csrf_token")?.is_none()
        && !names_site(headers)
        && !headers.contains_key(COOKIE)
        && Format::of(headers) != Format::Html
        && cookie::is_stored_by_browsers(request))
}

/// Refuses a cookie login that the person at the browser may not have intended.
///
/// # Errors
/// [`Denial::CsrfMismatch`], [`Denial::CsrfMissing`], [`Denial::InsecureTransport`].
pub(super) fn check_login_origin(request: &EndpointRequest) -> Result<(), Denial> {
    if !cookie::is_stored_by_browsers(request) {
        return Err(Denial::InsecureTransport);
    }
    // Another site must not log a browser in to an account of somebody else, who would see everything that the user
    // does next.
    if !request.own_site {
        return Err(Denial::CsrfMismatch);
    }
    // Another site cannot send JSON without a CORS preflight, but it can send a form.
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

/// Answers a login: a browser is redirected to its destination or shown the form again; any other client gets the API
/// response.
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

/// Answers a person who logged out: a redirect to the login page, with a notice, that deletes the cookies.
pub(super) fn logout_response(request: &EndpointRequest, goodbye: &Response<Bytes>) -> Response<Bytes> {
    let page = format!("{}?{LOGGED_OUT}=1", request.settings.path(Endpoint::LoginPage));
    // A path of the policy is a valid request path, and therefore a valid header value.
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

/// Gives the next pair of tokens to a browser whose access token has expired. The request is a GET, which another site
/// can cause. The only effect is that the tokens are replaced, in the browser that holds them.
async fn renew(
    authority: &Authority,
    request: &EndpointRequest,
    token: &str,
    csrf: &str,
) -> Result<Response<Bytes>, Denial> {
    check_csrf(authority, token, csrf).await?;
    spend(authority, request, token, Some(csrf)).await
}

/// Returns the login page's own address, marked as a second visit.
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

/// Returns the page with a note about the refusal, and with the refusal's status and headers.
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
    // The page keeps the status, the challenge and `Retry-After` of the refusal.
    let plain = refuse(&denial, Format::Html, &HeaderValue::from_static("-"), &Method::GET);
    let (mut parts, _) = plain.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    let mut response = Response::from_parts(parts, Bytes::from(text));
    protect(response.headers_mut());
    if let (Ok(visit), Some(cookies), true) =
        (visit, &request.settings.cookies, denial != Denial::InsecureTransport)
    {
        visit.keep(response.headers_mut(), cookies);
    }
    response.extensions_mut().insert(Refused(denial));
    response
}

/// Returns a refusal in words for the person who logs in.
fn words(denial: &Denial, request: &EndpointRequest, came_without_cookie: bool) -> String {
    if let Denial::TooManyAttempts { wait } = denial {
        return format!("Too many failed attempts. Try again in {}.", span(*wait));
    }
    let words = match denial {
        Denial::BadCredentials => "The user name or the password is wrong.",
        Denial::AccountDisabled => "This account is disabled.",
        Denial::StoreUnavailable | Denial::Overloaded => {
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

/// Sets the headers that keep other sites away from the gateway's pages.
fn protect(headers: &mut HeaderMap) {
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(card::CONTENT_SECURITY_POLICY));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    // Not `no-referrer`: the browser would then omit the origin of the form as well (Fetch, section 3.2.1).
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
pub(super) mod tests {
    use super::super::settings::{Cookies, IssuerSettings, StoreLocation};
    use super::*;
    use crate::authenticate::{Algorithm, CookieNames};
    use crate::clock::Now;
    use crate::keyring::{Keyring, MissingKey};
    use crate::peer::Scheme;
    use http::header::{LOCATION, SET_COOKIE};
    use proptest::prelude::*;
    use std::sync::Arc;
    use std::time::Duration;

    /// Returns a request to the login endpoint of `shop.example` over HTTPS, from a page of its own.
    pub(in super::super) fn request(
        method: &str,
        form: Option<&str>,
        fields: &[(&str, &str)],
    ) -> EndpointRequest {
        let secret = Some(&[7_u8; 32][..]);
        let keyring =
            Keyring::open(std::path::Path::new("/nonexistent"), Algorithm::HS256, secret, MissingKey::Create);
        let settings = IssuerSettings {
            issuer: "https://shop.example".into(),
            audience: vec!["shop".into()],
            keyring: keyring.unwrap(),
            revoked: Arc::default(),
            access_expires: Duration::from_secs(900),
            refresh_expires: Duration::from_secs(3600),
            refresh_grace: Duration::from_secs(10),
            session_expires: Duration::from_secs(7200),
            sessions: 10,
            role_limit: None,
            claims: Vec::new(),
            cookies: Some(Cookies { names: CookieNames::default(), lax: false }),
            origins: Box::new([]),
            store: StoreLocation("sqlite:".into()),
            clients: std::collections::BTreeMap::new(),
            paths: vec![(Endpoint::LoginPage, "/enter".into())],
            compat: None,
            metadata: std::sync::OnceLock::new(),
        };
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        EndpointRequest {
            endpoint: Endpoint::Login,
            settings: Arc::new(settings),
            method: method.parse().unwrap(),
            address: [192, 0, 2, 1].into(),
            scheme: Scheme::Https,
            authority: "shop.example".into(),
            request_id: String::new(),
            headers,
            query: None,
            id: None,
            fields: form.map(|form| Fields::form(form.as_bytes()).unwrap()).unwrap_or_default(),
            inspected: None,
            own_site: true,
            caller: None,
            now: Now::at(1000),
        }
    }

    const HTML: (&str, &str) = ("accept", "text/html,*/*;q=0.8");
    const VISIT: &str = "abcdefghijklmnopqrstuv";
    const COOKIE: (&str, &str) = ("cookie", "__Host-portcullis-login=abcdefghijklmnopqrstuv");

    fn given() -> Response<Bytes> {
        let mut response = page(StatusCode::OK, "tokens".into());
        response.headers_mut().append(SET_COOKIE, HeaderValue::from_static("__Host-portcullis=A"));
        response
    }

    #[test]
    fn a_form_logs_in_only_the_browser_that_its_page_was_shown_to() {
        let own = format!("a=b&csrf_token={VISIT}");
        let other = format!("a=b&csrf_token={}", VISIT.to_uppercase());
        let site = ("sec-fetch-site", "same-origin");
        let origin = ("origin", "https://shop.example");
        let mismatch = Err(Denial::CsrfMismatch);
        for (form, fields, outcome) in [
            (&*own, &[COOKIE][..], Ok(())),
            (&own, &[COOKIE, site, origin], Ok(())),
            (&own, &[], mismatch.clone()),
            (&own, &[site, origin], mismatch.clone()),
            (&other, &[COOKIE], mismatch.clone()),
            (&other, &[COOKIE, site, origin], mismatch.clone()),
            (&own, &[COOKIE, COOKIE], mismatch.clone()),
            // A page of the application itself, in a browser that names the origin.
            ("a=b", &[site], Ok(())),
            ("a=b", &[origin], Ok(())),
            ("a=b", &[COOKIE], Err(Denial::CsrfMissing)),
            ("a=b", &[], Err(Denial::CsrfMissing)),
            ("a=b&csrf_token=", &[COOKIE], Err(Denial::CsrfMissing)),
        ] {
            assert_eq!(
                check_login_origin(&request("POST", Some(form), fields)),
                outcome,
                "{form} {fields:?}"
            );
            let mut foreign = request("POST", Some(form), fields);
            foreign.own_site = false;
            assert_eq!(check_login_origin(&foreign), mismatch, "{form} {fields:?}");
            let mut clear = request("POST", Some(form), fields);
            clear.scheme = Scheme::Http;
            assert_eq!(check_login_origin(&clear), Err(Denial::InsecureTransport), "{form} {fields:?}");
        }
        assert_eq!(
            check_login_origin(&request("POST", None, &[])),
            Ok(()),
            "JSON, which no other site's page can send"
        );
    }

    #[test]
    fn a_form_without_a_trace_of_a_browser_is_a_programs() {
        let form = "username=ada&password=x";
        let program = |form: Option<&str>, fields: &[(&str, &str)]| {
            is_form_without_browser(&request("POST", form, fields)).unwrap()
        };
        assert!(program(Some(form), &[]));
        assert!(program(Some(form), &[("accept", "*/*"), ("user-agent", "curl/8.0")]));
        for fields in [
            &[HTML][..],
            &[("origin", "https://shop.example")],
            &[("origin", "null")],
            &[("sec-fetch-site", "same-origin")],
            &[COOKIE],
            &[("cookie", "a=b")],
        ] {
            assert!(!program(Some(form), fields), "{fields:?}");
        }
        assert!(!program(None, &[]), "JSON, for which a session of a client's library may want cookies");
        assert!(!program(Some("username=ada&password=x&csrf_token=y"), &[]));
        let mut clear = request("POST", Some(form), &[]);
        clear.scheme = Scheme::Http;
        assert!(!is_form_without_browser(&clear).unwrap(), "in cleartext the refusal says what to do");
    }

    #[test]
    fn a_person_goes_on_and_a_program_gets_what_it_asked_for() {
        let person = request("POST", Some("username=ada&password=x&next=/a?b"), &[HTML, COOKIE]);
        let response = login_response(&person, Ok(given())).unwrap();
        assert_eq!(
            (response.status(), &response.headers()[LOCATION]),
            (StatusCode::SEE_OTHER, &"/a?b".parse().unwrap())
        );
        let cookies: Vec<_> =
            response.headers().get_all(SET_COOKIE).iter().map(|c| c.to_str().unwrap()).collect();
        assert_eq!(cookies[0], "__Host-portcullis=A");
        assert!(cookies[1].starts_with("__Host-portcullis-login=; Max-Age=0;"), "{cookies:?}");
        assert!(response.body().is_empty());
        for (form, fields) in [
            (Some("username=ada&password=x"), &[][..]),
            (Some("username=ada&password=x"), &[("accept", "application/json")]),
            (Some("username=ada&password=x&deliver=body"), &[HTML]),
            (None, &[HTML]),
        ] {
            let program = request("POST", form, fields);
            assert_eq!(login_response(&program, Ok(given())).unwrap().status(), StatusCode::OK, "{form:?}");
            let refused = login_response(&program, Err(Denial::BadCredentials)).unwrap_err();
            assert_eq!(refused, Denial::BadCredentials, "{form:?}");
        }
    }

    #[test]
    fn a_refusal_is_the_page_again_with_its_status_and_what_was_typed_but_the_password() {
        let form = "username=a%22%3E%3Cb&password=s3cret&next=/a";
        for (denial, status, words) in [
            (Denial::BadCredentials, 401, "The user name or the password is wrong."),
            (Denial::AccountDisabled, 401, "This account is disabled."),
            (Denial::TooManyAttempts { wait: 1 }, 429, "Try again in 1 second."),
            (Denial::TooManyAttempts { wait: 61 }, 429, "Try again in 61 seconds."),
            (Denial::TooManyAttempts { wait: 121 }, 429, "Try again in 3 minutes."),
            (Denial::StoreUnavailable, 503, "Try again in a moment."),
            (Denial::Overloaded, 503, "Try again in a moment."),
            (Denial::InvalidBody(BodyFault::Missing), 400, "Enter your user name and your password."),
            (Denial::InvalidBody(BodyFault::Value), 400, "A field is too long"),
            (Denial::CsrfMismatch, 403, "Log in again."),
        ] {
            let response =
                login_response(&request("POST", Some(form), &[HTML, COOKIE]), Err(denial.clone())).unwrap();
            assert_eq!(response.status().as_u16(), status, "{denial:?}");
            let text = std::str::from_utf8(response.body()).unwrap();
            assert!(text.contains(words) && text.contains("role=\"alert\""), "{denial:?} {text}");
            assert!(text.contains("value=\"a&quot;&gt;&lt;b\""), "{text}");
            assert!(text.contains("name=\"next\" value=\"/a\"") && !text.contains("s3cret"), "{text}");
            assert!(text.contains(VISIT), "the visit goes on: {text}");
            let headers = response.headers();
            for (name, value) in [
                ("content-type", "text/html; charset=utf-8"),
                ("cache-control", "no-store"),
                ("x-frame-options", "DENY"),
                ("referrer-policy", "same-origin"),
                ("x-content-type-options", "nosniff"),
                ("content-security-policy", card::CONTENT_SECURITY_POLICY),
            ] {
                assert_eq!(headers.get_all(name).iter().collect::<Vec<_>>(), [value], "{name}");
            }
            assert_eq!(headers.contains_key("retry-after"), matches!(status, 429 | 503));
            assert_eq!(headers.contains_key("www-authenticate"), status == 401);
            assert_eq!(response.extensions().get::<Refused>().unwrap().0, denial);
        }
    }

    #[test]
    fn another_sites_form_is_answered_with_a_page_that_says_so() {
        let mut foreign = request("POST", Some("username=ada&password=x"), &[HTML]);
        foreign.own_site = false;
        let response = login_response(&foreign, Err(Denial::CsrfMismatch)).unwrap();
        assert!(std::str::from_utf8(response.body()).unwrap().contains("Another site sent this form."));
        let mut clear = request("POST", Some("username=ada&password=x"), &[HTML]);
        clear.scheme = Scheme::Http;
        let response = login_response(&clear, Err(Denial::InsecureTransport)).unwrap();
        let text = std::str::from_utf8(response.body()).unwrap();
        assert!(!text.contains("<form") && !response.headers().contains_key(SET_COOKIE), "{text}");
    }

    #[test]
    fn the_pages_own_address_keeps_what_it_was_asked() {
        let request = request("GET", None, &[]);
        assert_eq!(again(&request, None, false), "/enter?again=1");
        let next = Next::parse("/a?b=c&d=%20").unwrap();
        let address = again(&request, Some(&next), true);
        assert_eq!(address, "/enter?again=1&prompt=login&next=/a%3Fb%3Dc%26d%3D%2520");
        let query = Fields::form(address.split_once('?').unwrap().1.as_bytes()).unwrap();
        assert_eq!(Next::of(&query), Some(next));
    }

    proptest! {
        #[test]
        fn an_encoded_text_is_always_one_value_and_decodes_to_itself(text in any::<String>()) {
            let form = format!("t={}", encoded(&text));
            prop_assert!(form.bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert_eq!(form.matches(['&', '=', '#', '+', '?']).count(), 1);
            let read = Fields::one_of_form(form.as_bytes(), "t").unwrap();
            prop_assert_eq!(read.map(|value| value.to_string()).unwrap_or_default(), text);
        }
    }
}
