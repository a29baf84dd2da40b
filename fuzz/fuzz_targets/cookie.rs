//! The parser of `Cookie` never panics, and a returned cookie occurs exactly once. Stripping removes all of the
//! gateway's cookies, and keeps every other cookie unchanged and in order. No `Set-Cookie` of an upstream can set one of
//! the gateway's cookies in a browser.
#![no_main]

use http::{HeaderMap, HeaderValue, header::COOKIE, header::SET_COOKIE};
use libfuzzer_sys::fuzz_target;
use portcullis::authenticate::CookieNames;
use portcullis::authenticate::credential::cookie;
use portcullis::forward::strip;

fn pairs(headers: &HeaderMap) -> Vec<&[u8]> {
    let fields = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    let pairs = fields.flat_map(|field| field.split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty()).collect()
}

fn name(pair: &[u8]) -> &[u8] {
    pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii()
}

/// Returns the names under which servers may read the cookie that a browser stores for a `Set-Cookie`: the text before
/// each `=` at the start, since some browsers store `=NAME=VALUE` without a name and send `NAME=VALUE`.
fn stored_names(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    let pair = field.split(|byte| *byte == b';').next().unwrap_or_default();
    let begins = pair.iter().take_while(|byte| **byte == b'=' || byte.is_ascii_whitespace()).count();
    (0..=begins).map(|at| name(&pair[at..]))
}

fuzz_target!(|data: &[u8]| {
    let names = CookieNames::default();
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(8) {
        if let Ok(field) = HeaderValue::from_bytes(line) {
            headers.append(COOKIE, field);
        }
    }
    for ours in [&names.access, &names.refresh, &names.csrf, &names.login] {
        let all: Vec<_> = pairs(&headers).into_iter().filter(|pair| name(pair) == ours.as_bytes()).collect();
        if let Ok(Some(value)) = cookie(&headers, ours) {
            let written = [ours.as_bytes(), b"=", value].concat();
            assert_eq!(all.iter().filter(|pair| ***pair == *written).count(), 1);
        }
        if all.is_empty() {
            assert_eq!(cookie(&headers, ours), Ok(None));
        }
    }
    let mut left = headers.clone();
    strip::cookies(&mut left, &names);
    let is_ours = |pair: &[u8]| {
        let value = &pair[pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len())..];
        let rest = value.iter().position(|byte| !b"=\" \t".contains(byte)).map_or(&[][..], |start| &value[start..]);
        names.includes(name(pair)) || rest.starts_with(b"pcr_")
    };
    let others: Vec<_> = pairs(&headers).into_iter().filter(|pair| !is_ours(pair)).collect();
    assert_eq!(pairs(&left), others);
    let mut set = HeaderMap::new();
    for field in headers.get_all(COOKIE) {
        set.append(SET_COOKIE, field.clone());
    }
    let mut kept = set.clone();
    let removed = strip::set_cookies(&mut kept, &names);
    let mut rest = set.get_all(SET_COOKIE).iter();
    for field in kept.get_all(SET_COOKIE) {
        assert!(rest.any(|sent| sent == field), "a field that the upstream did not send");
        assert!(!stored_names(field.as_bytes()).any(|name| names.includes(name)), "{field:?}");
    }
    assert_eq!(removed as usize, set.len() - kept.len());
});
