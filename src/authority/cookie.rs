//! The authority's cookies: given with the tokens they hold, for as long as those live; taken back at logout.
//!
//! All are `__Host-` cookies (RFC 6265bis section 4.1.3.2): over TLS only, for this host only, for all paths; so no
//! subdomain, and nobody on the way, can put another session in their place. Those that bear another's names (`compat`)
//! have the same attributes, but no browser holds subdomains to them.

use super::terms::Cookies;
use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue};

/// Gives the access token, the refresh token and the CSRF value, the tokens each with the seconds that it lives.
pub(super) fn give(
    headers: &mut HeaderMap,
    cookies: &Cookies,
    access: (&str, u64),
    refresh: (&str, u64),
    csrf: &str,
) {
    let names = &cookies.names;
    set(headers, &names.access, access.0, access.1, true, cookies.lax);
    set(headers, &names.refresh, refresh.0, refresh.1, true, cookies.lax);
    // It is needed for a refresh too, so it lives as long as that can be done.
    set(headers, &names.csrf, csrf, refresh.1, false, cookies.lax);
    if let Some(name) = &names.csrf_refresh {
        set(headers, name, csrf, refresh.1, false, cookies.lax);
    }
}

/// Takes them back.
pub(super) fn take_back(headers: &mut HeaderMap, cookies: &Cookies) {
    let names = &cookies.names;
    set(headers, &names.access, "", 0, true, cookies.lax);
    set(headers, &names.refresh, "", 0, true, cookies.lax);
    set(headers, &names.csrf, "", 0, false, cookies.lax);
    if let Some(name) = &names.csrf_refresh {
        set(headers, name, "", 0, false, cookies.lax);
    }
}

fn set(headers: &mut HeaderMap, name: &str, value: &str, seconds: u64, http_only: bool, lax: bool) {
    let http_only = if http_only { "; HttpOnly" } else { "" };
    let same_site = if lax { "Lax" } else { "Strict" };
    let text = format!("{name}={value}; Max-Age={seconds}; Path=/; Secure{http_only}; SameSite={same_site}");
    let mut value = HeaderValue::try_from(text).expect("names and values of ours are visible ASCII");
    value.set_sensitive(true);
    headers.append(SET_COOKIE, value);
}
