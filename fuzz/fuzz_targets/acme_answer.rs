//! Follows an order at an ACME server that answers with any bytes. The order ends, and its failures are one bounded line
//! each, without control characters.
//!
//! An empty line separates the answers. The first line of an answer has its status and perhaps a `Retry-After`.
#![no_main]

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use libfuzzer_sys::fuzz_target;
use portcullis::acme::rehearse;
use portcullis::outbound::Answer;
use std::time::Duration;

fn answer(text: &str) -> Option<Answer> {
    let (first, body) = text.split_once('\n').unwrap_or((text, ""));
    let (status, wait) = first.split_once(' ').unwrap_or((first, ""));
    let status = StatusCode::from_u16(status.parse().ok()?).ok()?;
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("content-type", "application/json"),
        ("replay-nonce", "nonce"),
        ("location", "https://ca.test/thing"),
        ("retry-after", wait),
    ] {
        if !value.is_empty() {
            headers.insert(name, HeaderValue::from_str(value).ok()?);
        }
    }
    Some(Answer { status, headers, body: Bytes::copy_from_slice(body.as_bytes()) })
}

fuzz_target!(|text: &str| {
    let answers = text.split("\n\n").take(32).map_while(answer).collect();
    for failure in rehearse(answers, Duration::from_millis(5)) {
        assert!(!failure.contains(char::is_control), "{failure:?}");
        assert!(failure.len() < 10_000, "{}", failure.len());
    }
});
