//! The parser of `Cookie` never panics, and a returned cookie occurs exactly once. Stripping removes all of the
//! gateway's cookies, and keeps every other cookie unchanged and in order.
#![no_main]

use http::{HeaderMap, HeaderValue, header::COOKIE};
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
    let others: Vec<_> = pairs(&headers).into_iter().filter(|pair| !names.includes(name(pair))).collect();
    assert_eq!(pairs(&left), others);
});
