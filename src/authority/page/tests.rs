//! Tests of the login page: forms, refusals and redirects.

use super::super::settings::{Cookies, IssuerSettings, StoreLocation};
use super::*;
use crate::authenticate::{Algorithm, CookieNames};
use crate::clock::Now;
use crate::keyring::{KeyStorage, Keyring, MissingKey};
use crate::peer::Scheme;
use http::header::{LOCATION, SET_COOKIE};
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;

/// Returns a request to the login endpoint of `shop.example` over HTTPS, from a page of the same site.
pub(in super::super) fn request(
    method: &str,
    form: Option<&str>,
    fields: &[(&str, &str)],
) -> EndpointRequest {
    let secret = Some(&[7_u8; 32][..]);
    let keyring = Keyring::open(
        KeyStorage::Folder(std::path::Path::new("/nonexistent")),
        Algorithm::HS256,
        secret,
        MissingKey::Create,
    );
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
        client_id: None,
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
        proof: None,
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
        // The form is on a page of the application. The browser sends `Sec-Fetch-Site` or `Origin`.
        ("a=b", &[site], Ok(())),
        ("a=b", &[origin], Ok(())),
        ("a=b", &[COOKIE], Err(Denial::CsrfMissing)),
        ("a=b", &[], Err(Denial::CsrfMissing)),
        ("a=b&csrf_token=", &[COOKIE], Err(Denial::CsrfMissing)),
    ] {
        assert_eq!(check_login_origin(&request("POST", Some(form), fields)), outcome, "{form} {fields:?}");
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
        (Denial::LoginUnavailable, 503, "Try again in a moment."),
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
