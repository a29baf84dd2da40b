use super::*;
use crate::peer::Scheme;
use crate::route::Head;
use proptest::prelude::*;

fn check(
    credentials: &Credentials<'_>,
    names: &CookieNames,
    origins: &[Box<str>],
    local: Option<&Local>,
) -> Result<(), Denial> {
    super::check(credentials, names, origins, local).map_err(|refused| refused.denial)
}

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_static(name), value.parse().unwrap());
    }
    headers
}

/// Checks a request to `https://shop.example` with this port in its host.
fn at(method: &Method, port: Option<u16>, fields: &[(&'static str, &str)]) -> Result<(), Denial> {
    let headers = headers(fields);
    let host = Some("shop.example".into());
    let head = Head { method, host, port, path: "/".into(), query: None, headers: &headers };
    let local = Local::new(None, 0, Some("right".into()));
    let origins = ["https://app.example".into()];
    let credentials = Credentials::new(&head, Scheme::Https);
    check(&credentials, &CookieNames::default(), &origins, Some(&local))
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
    // A proxy may forward only some of the fields that mark a handshake, so each of these fields alone marks a
    // handshake. RFC 6455 section 10.2 recommends that the server check the origin.
    for mark in [
        ("upgrade", "websocket"),
        ("upgrade", "h2c"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
        ("sec-fetch-mode", "websocket"),
    ] {
        // Clients that offer other protocols are not browsers and send no origin.
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
        let credentials = |csrf_field| Credentials { csrf_field, ..Credentials::new(&head, Scheme::Https) };
        let outcome = check(&credentials(None), &names, &[], Some(&local));
        assert_eq!(outcome, MISMATCH, "{wrong:?}");
        // A correct form field does not replace a wrong header, and no value is correct for a token without the `csrf`
        // claim.
        assert_eq!(check(&credentials(Some("right")), &names, &[], Some(&local)), MISMATCH);
        let without = Local::new(None, 0, None);
        assert_eq!(check(&credentials(Some(wrong)), &names, &[], Some(&without)), MISMATCH);
        assert_eq!(check(&credentials(Some(wrong)), &names, &[], None), MISMATCH);
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
    // A trusted proxy sends `Host: internal` and `X-Forwarded-Host: pub.example`.
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
        let credentials = Credentials { relayed: Some(&relayed), ..Credentials::new(&head, Scheme::Https) };
        let checked = check(&credentials, &CookieNames::default(), &[], Some(&local));
        assert_eq!(checked, outcome, "{host} {port:?} {origin}");
    }
}

#[test]
fn only_the_sec_fetch_site_same_origin_is_trusted() {
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
        // For an origin that the policy lists, `Sec-Fetch-Site` may have any value.
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
