use super::*;
use proptest::prelude::*;

fn headers(fields: &[(&HeaderName, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

fn origins() -> Vec<Box<str>> {
    vec!["https://app.example".into(), "https://other.example:8443".into()]
}

#[test]
fn an_origin_is_listed_letter_for_letter() {
    for (named, expected) in [
        (&["https://app.example"][..], true),
        (&["https://other.example:8443"], true),
        (&["https://other.example"], false),
        (&["https://APP.example"], false),
        (&["https://app.example/"], false),
        (&["https://app.example.evil.example"], false),
        (&["http://app.example"], false),
        (&["null"], false),
        (&["*"], false),
        (&[""], false),
        (&["https://app.example", "https://app.example"], false),
        (&["https://app.example, https://evil.example"], false),
        (&[], false),
    ] {
        let fields: Vec<_> = named.iter().map(|origin| (&ORIGIN, *origin)).collect();
        assert_eq!(listed(&headers(&fields), &origins()).is_some(), expected, "{named:?}");
        assert_eq!(listed(&headers(&fields), &[]), None, "{named:?}");
    }
}

#[test]
fn credentials_are_named_where_there_are_cookies_and_nothing_for_an_origin_that_is_not_listed() {
    let mut shared = HeaderMap::new();
    share(&mut shared, Some(&HeaderValue::from_static("https://app.example")), true);
    assert_eq!(shared[ACCESS_CONTROL_ALLOW_ORIGIN], "https://app.example");
    assert_eq!(shared[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
    assert_eq!(shared[VARY], "origin");
    let mut shared = HeaderMap::new();
    share(&mut shared, Some(&HeaderValue::from_static("https://app.example")), false);
    assert!(!shared.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS));
    let mut shared = headers(&[(&VARY, "accept")]);
    share(&mut shared, None, true);
    assert_eq!(shared.get_all(VARY).iter().collect::<Vec<_>>(), ["accept", "origin"]);
    assert_eq!(shared.len(), 2, "{shared:?}");
}

#[test]
fn a_preflight_is_options_with_one_method() {
    let asked = headers(&[(&ACCESS_CONTROL_REQUEST_METHOD, "DELETE")]);
    assert_eq!(method_asked(&Method::OPTIONS, &asked), Some(Method::DELETE));
    assert_eq!(method_asked(&Method::GET, &asked), None);
    assert_eq!(method_asked(&Method::OPTIONS, &HeaderMap::new()), None);
    let twice = headers(&[(&ACCESS_CONTROL_REQUEST_METHOD, "GET"), (&ACCESS_CONTROL_REQUEST_METHOD, "GET")]);
    assert_eq!(method_asked(&Method::OPTIONS, &twice), None);
    let answer = preflight(&Method::DELETE, Some(&HeaderName::from_static("x-csrf-token")));
    assert_eq!(answer.headers()[ACCESS_CONTROL_ALLOW_METHODS], "DELETE");
    assert_eq!(
        answer.headers()[ACCESS_CONTROL_ALLOW_HEADERS],
        "authorization, content-type, dpop, x-csrf-token"
    );
}

proptest! {
    #[test]
    fn no_other_origin_is_ever_named(origin in "(https?://)?(app|other)?\\.?[a-z.:0-9*@/-]{0,16}|https://app\\.example[ -~]{1,8}") {
        prop_assume!(!origins().iter().any(|listed| **listed == *origin));
        let headers = headers(&[(&ORIGIN, &origin)]);
        prop_assert_eq!(listed(&headers, &origins()), None);
    }
}
