//! The parser of an endpoint's fields never panics, and decodes an encoded form exactly.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::authority::Fields;

fuzz_target!(|data: &[u8]| {
    let mut headers = http::HeaderMap::new();
    for kind in ["application/json", "application/x-www-form-urlencoded"] {
        headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
        if let Ok(fields) = Fields::read(&headers, data) {
            for name in ["username", "password", "refresh_token"] {
                let _ = fields.optional(name);
            }
        }
    }
    // A form with every byte of a value encoded is read back unchanged if the value is UTF-8, and refused otherwise.
    let encoded: String = data.iter().map(|byte| format!("%{byte:02x}")).collect();
    let read = Fields::form(format!("a={encoded}").as_bytes());
    match std::str::from_utf8(data) {
        Ok("") => assert_eq!(read.expect("a form").optional("a"), Ok(None)),
        Ok(text) => assert_eq!(read.expect("a form").optional("a"), Ok(Some(text))),
        Err(_) => assert!(read.is_err()),
    }
});
