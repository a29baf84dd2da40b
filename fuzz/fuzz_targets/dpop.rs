//! The verifier of proofs never panics. A proof with an invalid signature is neither accepted nor remembered. The
//! fuzzer cannot sign a proof, because each request has a new target.
#![no_main]

use http::{HeaderMap, HeaderValue, Method};
use libfuzzer_sys::fuzz_target;
use portcullis::authenticate::dpop::DPOP;
use portcullis::authenticate::{Credentials, Dpop};
use portcullis::clock::Now;
use portcullis::peer::Scheme;
use portcullis::route::Head;

fuzz_target!(|data: &[u8]| {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(3) {
        if let Ok(field) = HeaderValue::from_bytes(line) {
            headers.append(DPOP, field);
        }
    }
    let path = "/a-path-that-no-signed-proof-names".into();
    let head = Head { method: &Method::GET, host: Some("h".into()), port: None, path, query: None, headers: &headers };
    let credentials = Credentials::new(&head, Scheme::Https);
    let dpop = Dpop::default();
    assert!(dpop.verify(&credentials, None, Now::at(1_700_000_000)).is_err());
    assert_eq!(dpop.remembered(), 0);
});
