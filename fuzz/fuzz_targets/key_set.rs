//! Reads bytes as a key set and as metadata. The reader keeps its bounds, and metadata gives keys only for its own
//! issuer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::authenticate::{Algorithm, KeySet};
use portcullis::key_source::endpoint_of;

fuzz_target!(|data: &[u8]| {
    if let Ok((keys, _)) = KeySet::from_jwks(data, &Algorithm::ALL) {
        assert!(!keys.is_empty() && keys.iter().count() <= 100);
    }
    let issuer = "https://id.example.com";
    if endpoint_of(data, issuer, "jwks_uri").is_ok() {
        assert!(data.windows(issuer.len()).any(|part| part == issuer.as_bytes()) || data.contains(&b'\\'));
    }
});
