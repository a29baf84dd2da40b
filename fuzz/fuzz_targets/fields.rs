//! The parser of an endpoint's fields never panics, and decodes an encoded form exactly. It reads JSON as serde_json
//! does. The reader of one field of a form agrees with the reader of all.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::authority::Fields;

fuzz_target!(|data: &[u8]| {
    let mut headers = http::HeaderMap::new();
    for kind in ["application/json", "application/x-www-form-urlencoded"] {
        headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
        if let Ok(fields) = Fields::read(&headers, data) {
            for name in ["username", "password", "refresh_token"] {
                let found = fields.optional(name);
                if kind == "application/json" {
                    let object: serde_json::Value = serde_json::from_slice(data).unwrap_or_default();
                    let text = object.get(name).map(|value| value.as_str());
                    assert_eq!(
                        found.ok(),
                        Some(text.flatten().filter(|text| !text.is_empty())).filter(|_| text != Some(None))
                    );
                } else {
                    let one = Fields::one_of_form(data, name).expect("a good form has each field once");
                    assert_eq!(found, Ok(one.as_deref().map(|text| &**text)));
                }
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
