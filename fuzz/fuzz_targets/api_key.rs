//! The checks of API keys never panic. Only a text of the exact form is a key. An accepted file has distinct keys,
//! which do not set the gateway's own claims.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::api_key_file::parse;
use portcullis::authenticate::check_api_key;

fuzz_target!(|data: &[u8]| {
    if check_api_key(data).is_ok() {
        let text = std::str::from_utf8(data).expect("a key is ASCII");
        assert!(text.starts_with("pck_") && text.len() == 42);
        assert!(text[4..].bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }
    if let Ok(keys) = parse(data) {
        for key in &keys {
            assert!(!key.name.is_empty() && key.name.is_ascii());
            assert!(!key.claims.contains_key("sub") && !key.claims.contains_key("iss"));
            assert_eq!(keys.iter().filter(|other| other.name == key.name).count(), 1);
            assert_eq!(keys.iter().filter(|other| other.digest == key.digest).count(), 1);
        }
    }
});
