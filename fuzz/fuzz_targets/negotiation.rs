//! The format of a refusal and the coding of an answer depend on the lists that a client sends, not on their division
//! into fields or their case. Neither is chosen unless the client names it.
#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue, header};
use libfuzzer_sys::fuzz_target;
use portcullis::respond::{Coding, Format, negotiate};

fn headers<'v>(name: &HeaderName, values: impl Iterator<Item = &'v [u8]>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values.filter_map(|value| HeaderValue::from_bytes(value).ok()) {
        headers.append(name, value);
    }
    headers
}

fuzz_target!(|data: &[u8]| {
    let names = [header::ACCEPT, header::ACCEPT_ENCODING];
    let upper = data.to_ascii_uppercase();
    let [whole, divided, upper] = [
        names.each_ref().map(|name| headers(name, std::iter::once(data))),
        names.each_ref().map(|name| headers(name, data.split(|byte| *byte == b','))),
        names.each_ref().map(|name| headers(name, std::iter::once(&upper[..]))),
    ];
    if whole[0].is_empty() {
        return;
    }
    let format = Format::of(&whole[0]);
    assert_eq!(format, Format::of(&divided[0]));
    assert_eq!(format, Format::of(&upper[0]));
    let lower = String::from_utf8_lossy(data).to_ascii_lowercase();
    assert!(format == Format::Json || (format == Format::Html && lower.contains("text/html")));
    let all = Coding::ALL;
    let chosen = negotiate(&whole[1], &all);
    assert_eq!(chosen, negotiate(&divided[1], &all));
    assert_eq!(chosen, negotiate(&upper[1], &all));
    if let Some(coding) = chosen {
        assert!(lower.contains(coding.as_str()) || lower.contains('*'));
        // A coding that was chosen is chosen if it is the only one, and never if it is not offered.
        assert_eq!(negotiate(&whole[1], &[coding]), chosen);
        let others: Vec<_> = all.into_iter().filter(|other| *other != coding).collect();
        assert_ne!(negotiate(&whole[1], &others), chosen);
    }
    assert_eq!(negotiate(&whole[1], &[]), None);
});
