//! The authority's cookies. Each cookie lives as long as its token, and is expired at logout.
//!
//! All names begin with `__Host-` (RFC 6265bis section 4.1.3.2), so a subdomain or an attacker on the network cannot
//! replace the cookies. Cookie names from `compat` may lack the prefix; subdomains can then set the cookies.
//!
//! A cookie has `Expires` beside `Max-Age`, which browsers prefer (RFC 6265 section 5.3). Java's HttpCookie takes a cookie with
//! `Max-Age` alone for one of RFC 2965, and returns its value in quotation marks.

use super::request::EndpointRequest;
use super::settings::Cookies;
use crate::peer::Scheme;
use crate::route::host::is_own_machine;
use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue};
use std::time::{Duration, UNIX_EPOCH};

/// The last second that `Expires` can name, in seconds since 1970.
const LAST_SECOND: u64 = 253_402_300_799;

/// The time that a cookie lives.
#[derive(Clone, Copy, Debug)]
enum Life {
    /// The cookie is deleted.
    Over,
    /// The cookie lives for `seconds` from `now`, in seconds since 1970.
    Lasts { seconds: u64, now: u64 },
}

/// Sets the cookies of the access token, the refresh token and the CSRF value. `access` and `refresh` are a token and
/// its lifetime in seconds, `now` is in seconds since 1970.
pub(super) fn set_session_cookies(
    headers: &mut HeaderMap,
    cookies: &Cookies,
    access: (&str, u64),
    refresh: (&str, u64),
    csrf: &str,
    now: u64,
) {
    let names = &cookies.names;
    let [access_life, refresh_life] = [access.1, refresh.1].map(|seconds| Life::Lasts { seconds, now });
    set(headers, &names.access, access.0, access_life, true, cookies.lax);
    set(headers, &names.refresh, refresh.0, refresh_life, true, cookies.lax);
    // A refresh needs the CSRF value, so this cookie lives as long as the refresh token.
    set(headers, &names.csrf, csrf, refresh_life, false, cookies.lax);
    if let Some(name) = &names.csrf_refresh {
        set(headers, name, csrf, refresh_life, false, cookies.lax);
    }
}

/// Expires only the access token's cookie. The session continues if the browser has the refresh token.
pub fn expire_access_cookie(headers: &mut HeaderMap, cookies: &Cookies) {
    set(headers, &cookies.names.access, "", Life::Over, true, cookies.lax);
}

/// Expires the cookies of a session.
pub fn expire_session_cookies(headers: &mut HeaderMap, cookies: &Cookies) {
    let names = &cookies.names;
    set(headers, &names.access, "", Life::Over, true, cookies.lax);
    set(headers, &names.refresh, "", Life::Over, true, cookies.lax);
    set(headers, &names.csrf, "", Life::Over, false, cookies.lax);
    if let Some(name) = &names.csrf_refresh {
        set(headers, name, "", Life::Over, false, cookies.lax);
    }
}

/// Sets the cookie that ties the form of the login page to the browser, for `seconds` from `now`.
pub(super) fn set_visit_cookie(
    headers: &mut HeaderMap,
    cookies: &Cookies,
    value: &str,
    seconds: u64,
    now: u64,
) {
    set(headers, &cookies.names.login, value, Life::Lasts { seconds, now }, true, cookies.lax);
}

/// Expires the login page's cookie.
pub(super) fn expire_visit_cookie(headers: &mut HeaderMap, cookies: &Cookies) {
    set(headers, &cookies.names.login, "", Life::Over, true, cookies.lax);
}

/// Whether the browser stores `Secure` cookies from the response: the connection uses TLS, or the browser runs on the
/// gateway's machine.
pub(super) fn is_stored_by_browsers(request: &EndpointRequest) -> bool {
    let host = match request.authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        Some(_) | None => &request.authority,
    };
    request.scheme == Scheme::Https || is_own_machine(host)
}

fn set(headers: &mut HeaderMap, name: &str, value: &str, life: Life, http_only: bool, lax: bool) {
    let (seconds, end) = match life {
        Life::Over => (0, 0),
        Life::Lasts { seconds, now } => (seconds, now.saturating_add(seconds).min(LAST_SECOND)),
    };
    let expires = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(end));
    let http_only = if http_only { "; HttpOnly" } else { "" };
    let same_site = if lax { "Lax" } else { "Strict" };
    let text = format!(
        "{name}={value}; Max-Age={seconds}; Expires={expires}; Path=/; Secure{http_only}; SameSite={same_site}"
    );
    let mut value =
        HeaderValue::try_from(text).expect("the authority's cookie names and values are visible ASCII");
    value.set_sensitive(true);
    headers.append(SET_COOKIE, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authenticate::CookieNames;

    const NOW: u64 = 1_700_000_000;

    fn lines(lax: bool, act: impl Fn(&mut HeaderMap, &Cookies)) -> Vec<String> {
        let mut headers = HeaderMap::new();
        act(&mut headers, &Cookies { names: CookieNames::default(), lax });
        assert!(headers.values().all(HeaderValue::is_sensitive), "not shown in anybody's debug form");
        headers.get_all(SET_COOKIE).iter().map(|line| line.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn each_cookie_lives_as_long_as_what_it_holds_and_scripts_read_one_alone() {
        let given = lines(false, |headers, cookies| {
            set_session_cookies(headers, cookies, ("A", 900), ("R", 604_800), "C", NOW)
        });
        assert_eq!(
            given,
            [
                "__Host-portcullis=A; Max-Age=900; Expires=Tue, 14 Nov 2023 22:28:20 GMT; Path=/; Secure; HttpOnly; \
                 SameSite=Strict",
                "__Host-portcullis-refresh=R; Max-Age=604800; Expires=Tue, 21 Nov 2023 22:13:20 GMT; Path=/; Secure; \
                 HttpOnly; SameSite=Strict",
                "__Host-portcullis-csrf=C; Max-Age=604800; Expires=Tue, 21 Nov 2023 22:13:20 GMT; Path=/; Secure; \
                 SameSite=Strict",
            ]
        );
        let visit = lines(false, |headers, cookies| set_visit_cookie(headers, cookies, "V", 60, NOW));
        assert_eq!(
            visit,
            [
                "__Host-portcullis-login=V; Max-Age=60; Expires=Tue, 14 Nov 2023 22:14:20 GMT; Path=/; Secure; HttpOnly; \
                 SameSite=Strict"
            ]
        );
    }

    #[test]
    fn each_cookie_that_is_set_can_be_expired() {
        for lax in [false, true] {
            let given = lines(lax, |headers, cookies| {
                set_session_cookies(headers, cookies, ("", 0), ("", 0), "", 0);
                set_visit_cookie(headers, cookies, "", 0, 0);
            });
            let taken = lines(lax, |headers, cookies| {
                expire_session_cookies(headers, cookies);
                expire_visit_cookie(headers, cookies);
            });
            assert_eq!(given, taken);
            let site = if lax { "SameSite=Lax" } else { "SameSite=Strict" };
            for line in taken {
                // Browsers drop a `__Host-` cookie without these attributes (RFC 6265bis section 4.1.3.2).
                assert!(
                    line.starts_with("__Host-")
                        && line.contains("; Path=/; Secure; ")
                        && line.ends_with(site)
                );
                assert!(line.contains("=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; "), "{line}");
                assert!(!line.contains("Domain"), "{line}");
            }
        }
    }

    #[test]
    fn a_time_of_the_distant_future_is_the_last_one_of_the_format() {
        let given = lines(false, |headers, cookies| set_visit_cookie(headers, cookies, "V", u64::MAX, NOW));
        assert!(given[0].contains("; Expires=Fri, 31 Dec 9999 23:59:59 GMT; "), "{given:?}");
    }

    #[test]
    fn browsers_keep_them_over_tls_and_on_their_own_machine() {
        use crate::authority::page::tests::request;
        for (scheme, authority, kept) in [
            (Scheme::Https, "shop.example", true),
            (Scheme::Https, "", true),
            (Scheme::Http, "localhost", true),
            (Scheme::Http, "localhost:8080", true),
            (Scheme::Http, "app.localhost:8080", true),
            (Scheme::Http, "127.0.0.1:8080", true),
            (Scheme::Http, "127.9.9.9", true),
            (Scheme::Http, "[::1]:8080", true),
            (Scheme::Http, "[::1]", true),
            (Scheme::Http, "shop.example", false),
            (Scheme::Http, "shop.example:443", false),
            (Scheme::Http, "localhost.example", false),
            (Scheme::Http, "notlocalhost", false),
            (Scheme::Http, "128.0.0.1", false),
            (Scheme::Http, "[::2]", false),
            (Scheme::Http, "", false),
        ] {
            let mut request = request("GET", None, &[]);
            request.scheme = scheme;
            authority.clone_into(&mut request.authority);
            assert_eq!(is_stored_by_browsers(&request), kept, "{scheme:?} {authority}");
        }
    }
}
