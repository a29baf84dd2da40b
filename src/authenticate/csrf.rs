//! Whether a request whose credential is a cookie was meant by the person whose browser sent it.
//!
//! A browser attaches a cookie whoever made it send the request. So a request that may change something must show, in
//! a place that another site cannot write to, what only pages of ours can read: the value of the token's `csrf` claim,
//! which the readable cookie holds too. Whoever can write cookies but not read them gains nothing: the value that counts
//! is signed into the token.

use super::Shown;
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
    shown: &Shown<'_>,
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
pub fn same_site(shown: &Shown<'_>, origins: &[Box<str>]) -> Result<(), Denial> {
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
fn is_own(origin: &[u8], shown: &Shown<'_>) -> bool {
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
mod tests {
    use super::*;
    use crate::peer::Scheme;
    use crate::route::Head;
    use proptest::prelude::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        headers
    }

    /// What is said of a request to `shop.example`, at this port, over https.
    fn at(method: &Method, port: Option<u16>, fields: &[(&'static str, &str)]) -> Result<(), Denial> {
        let headers = headers(fields);
        let host = Some("shop.example".into());
        let head = Head { method, host, port, path: "/".into(), query: None, headers: &headers };
        let local = Local::new(None, 0, Some("right".into()));
        let origins = ["https://app.example".into()];
        let shown = Shown { head: &head, scheme: Scheme::Https, relayed: None, csrf_field: None };
        check(&shown, &CookieNames::default(), &origins, Some(&local))
    }

    fn post(fields: &[(&'static str, &str)]) -> Result<(), Denial> {
        at(&Method::POST, None, fields)
    }

    const TOKEN: (&str, &str) = ("x-csrf-token", "right");
    const MISMATCH: Result<(), Denial> = Err(Denial::CsrfMismatch);

    #[test]
    fn only_methods_known_to_change_nothing_need_no_token() {
        for method in ["GET", "HEAD", "OPTIONS", "TRACE"] {
            assert_eq!(at(&method.parse().unwrap(), None, &[("origin", "https://evil.example")]), Ok(()));
        }
        for method in ["POST", "PUT", "PATCH", "DELETE", "PURGE", "get", "Head", "QUERY", "CONNECT"] {
            let method = method.parse().unwrap();
            assert_eq!(at(&method, None, &[]), Err(Denial::CsrfMissing), "{method}");
            assert_eq!(at(&method, None, &[TOKEN]), Ok(()), "{method}");
        }
    }

    #[test]
    fn a_handshake_by_any_of_its_marks_is_for_pages_of_ours_alone() {
        // Crossings C1: each proxy leaves different marks in the question. RFC 6455 section 10.2 asks the server to
        // check the origin.
        for mark in [
            ("upgrade", "websocket"),
            ("upgrade", "h2c"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-version", "13"),
            ("sec-fetch-mode", "websocket"),
        ] {
            // Offers of other protocols come from clients that are not browsers and send no origin.
            let without = if mark.1 == "h2c" { Ok(()) } else { MISMATCH };
            for (fields, outcome) in [
                (&[mark][..], without.clone()),
                (&[mark, ("sec-fetch-site", "same-origin")], without),
                (&[mark, ("origin", "https://shop.example")], Ok(())),
                (&[mark, ("origin", "https://app.example")], Ok(())),
                (&[mark, ("origin", "https://evil.example")], MISMATCH),
                (&[mark, ("origin", "https://evil.shop.example")], MISMATCH),
                (&[mark, ("origin", "null")], MISMATCH),
                (&[mark, ("sec-fetch-site", "cross-site")], MISMATCH),
            ] {
                assert_eq!(at(&Method::GET, None, fields), outcome, "{fields:?}");
            }
        }
        assert_eq!(at(&Method::GET, None, &[("origin", "https://evil.example")]), Ok(()), "no handshake");
    }

    #[test]
    fn the_token_is_that_of_the_session_to_the_letter() {
        for wrong in ["", "righ", "rights", "Right", "wrong", "right "] {
            let fields = headers(&[("x-csrf-token", wrong)]);
            let head = Head {
                method: &Method::POST,
                host: None,
                port: None,
                path: "/".into(),
                query: None,
                headers: &fields,
            };
            let local = Local::new(None, 0, Some("right".into()));
            let names = CookieNames::default();
            let shown = |csrf_field| Shown { head: &head, scheme: Scheme::Https, relayed: None, csrf_field };
            let outcome = check(&shown(None), &names, &[], Some(&local));
            assert_eq!(outcome, MISMATCH, "{wrong:?}");
            // A field of a form does not make good what the header says, and a token without the claim has no right one.
            assert_eq!(check(&shown(Some("right")), &names, &[], Some(&local)), MISMATCH);
            let without = Local::new(None, 0, None);
            assert_eq!(check(&shown(Some(wrong)), &names, &[], Some(&without)), MISMATCH);
            assert_eq!(check(&shown(Some(wrong)), &names, &[], None), MISMATCH);
        }
        assert_eq!(post(&[TOKEN, TOKEN]), MISMATCH);
    }

    #[test]
    fn an_origin_is_ours_by_scheme_host_and_port() {
        for (port, origin, outcome) in [
            (None, "https://shop.example", Ok(())),
            (None, "https://app.example", Ok(())),
            (None, "http://shop.example", MISMATCH),
            (None, "https://shop.example:444", MISMATCH),
            (None, "https://shop.example.evil.example", MISMATCH),
            (None, "https://shop.exampl", MISMATCH),
            (None, "https://evilshop.example", MISMATCH),
            (None, "https://shop.example@evil.example", MISMATCH),
            (None, "https://shop.example/", MISMATCH),
            (None, "https://app.example:444", MISMATCH),
            (None, "https://", MISMATCH),
            (None, "shop.example", MISMATCH),
            (None, "null", MISMATCH),
            (None, "", MISMATCH),
            (None, "https://shop.example https://evil.example", MISMATCH),
            (Some(443), "https://shop.example", Ok(())),
            (Some(443), "https://shop.example:443", Ok(())),
            (Some(444), "https://shop.example:444", Ok(())),
            (Some(444), "https://shop.example", MISMATCH),
            (Some(444), "https://shop.example:443", MISMATCH),
            (Some(80), "https://shop.example", MISMATCH),
        ] {
            assert_eq!(at(&Method::POST, port, &[TOKEN, ("origin", origin)]), outcome, "{port:?} {origin}");
        }
        let own = ("origin", "https://shop.example");
        assert_eq!(post(&[TOKEN, own, own]), MISMATCH, "twice");
    }

    #[test]
    fn the_host_that_a_trusted_proxys_client_asked_is_the_requests_own() {
        // Report 22: `Host: internal`, `X-Forwarded-Host: pub.example`.
        for (host, port, origin, outcome) in [
            ("pub.example", None, "https://pub.example", Ok(())),
            ("pub.example:443", None, "https://pub.example", Ok(())),
            ("pub.example", Some(8443), "https://pub.example:8443", Ok(())),
            ("pub.example", Some(8443), "https://pub.example", Ok(())),
            ("pub.example:8443", None, "https://pub.example:8443", Ok(())),
            ("pub.example:8443", None, "https://pub.example", MISMATCH),
            ("pub.example", None, "http://pub.example", MISMATCH),
            ("pub.example", None, "https://evil.example", MISMATCH),
            ("pub.example", None, "https://shop.example", Ok(())),
        ] {
            let fields = headers(&[TOKEN, ("origin", origin)]);
            let head = Head {
                method: &Method::POST,
                host: Some("shop.example".into()),
                port: None,
                path: "/".into(),
                query: None,
                headers: &fields,
            };
            let relayed = Relayed { host: Some(host.into()), port, ..Relayed::default() };
            let local = Local::new(None, 0, Some("right".into()));
            let shown =
                Shown { head: &head, scheme: Scheme::Https, relayed: Some(&relayed), csrf_field: None };
            let checked = check(&shown, &CookieNames::default(), &[], Some(&local));
            assert_eq!(checked, outcome, "{host} {port:?} {origin}");
        }
    }

    #[test]
    fn what_a_browser_says_of_the_site_is_believed_when_it_says_ours_alone() {
        let own = ("origin", "https://shop.example");
        for (site, outcome) in [
            ("same-origin", Ok(())),
            ("none", Ok(())),
            ("same-site", MISMATCH),
            ("cross-site", MISMATCH),
            ("Same-Origin", MISMATCH),
            ("", MISMATCH),
            ("same-origin, cross-site", MISMATCH),
        ] {
            assert_eq!(post(&[TOKEN, ("sec-fetch-site", site)]), outcome, "{site}");
            assert_eq!(post(&[TOKEN, own, ("sec-fetch-site", site)]), outcome, "{site}");
            assert_eq!(post(&[TOKEN, ("sec-fetch-site", "same-origin"), ("sec-fetch-site", site)]), MISMATCH);
            // Of an origin that the policy names, another site is expected.
            let app = ("origin", "https://app.example");
            assert_eq!(post(&[TOKEN, app, ("sec-fetch-site", site)]), Ok(()), "{site}");
            let null = ("origin", "null");
            let expected = if site == "same-origin" { Ok(()) } else { MISMATCH };
            assert_eq!(post(&[TOKEN, null, ("sec-fetch-site", site)]), expected, "no-referrer, {site}");
        }
    }

    proptest! {
        #[test]
        fn another_origin_never_passes_whatever_it_is_called(
            origin in "(https?://)?[a-z.:@/\\\\0-9-]{0,24}|https://shop\\.example[ -~]{1,8}",
            site in proptest::option::of(proptest::sample::select(vec!["same-origin", "none", "same-site", "cross-site"])),
        ) {
            prop_assume!(origin != "https://shop.example" && origin != "https://app.example");
            let mut fields = vec![TOKEN, ("origin", &*origin)];
            fields.extend(site.map(|site| ("sec-fetch-site", site)));
            prop_assert_eq!(post(&fields), MISMATCH);
        }

        #[test]
        fn no_value_but_the_right_one_ever_passes(value in "[ -~]{0,12}") {
            prop_assume!(value != "right");
            prop_assert!(post(&[("x-csrf-token", &value)]).is_err());
        }
    }
}
