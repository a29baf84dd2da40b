//! The readers of certificates, revocation lists and OCSP responses never panic. They read exactly one value: no part
//! of one, and nothing after it. The names in a certificate are parts of its bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::tls::{Facts, OcspAnswer, next_update};

/// Checks that a reader rejects each beginning of the bytes, and the bytes with one more.
fn exact<T>(data: &[u8], read: impl Fn(&[u8]) -> Option<T>) {
    for end in (0..data.len()).rev().take(64) {
        assert!(read(&data[..end]).is_none(), "the first {end} bytes");
    }
    assert!(read(&[data, &[0]].concat()).is_none(), "a byte too many");
}

fuzz_target!(|data: &[u8]| {
    if let Some(facts) = Facts::of(&data.into()) {
        let names = &facts.names;
        for name in [&names.common, &names.dns, &names.uris, &names.emails].into_iter().flatten() {
            assert!(name.is_empty() || data.windows(name.len()).any(|part| part == name.as_bytes()));
        }
        exact(data, |bytes| Facts::of(&bytes.into()));
    }
    if next_update(data).is_some() {
        exact(data, next_update);
    }
    if OcspAnswer::of(data).is_some() {
        exact(data, OcspAnswer::of);
    }
});
