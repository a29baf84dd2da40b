//! The verifier never panics, and accepts nothing, because the fuzzer does not have the key.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::authenticate::{
    Algorithm, ClaimPath, IdentityHeaders, Issuer, KeySet, Profile, Trust, bearer, token, verify,
};
use portcullis::clock::Now;
use std::sync::{Arc, LazyLock};

static TRUST: LazyLock<Trust> = LazyLock::new(|| {
    let mut secret = [0; 32];
    secret[..8].copy_from_slice(&std::process::id().to_le_bytes().repeat(2));
    let mut keys = KeySet::default();
    keys.add_secret(None, Algorithm::HS256, &secret).expect("32 bytes");
    let path = |text: &str| ClaimPath::parse(text).expect("a claim path");
    let issuer = Issuer {
        name: Arc::from("i"),
        audience: Box::new(["a".into()]),
        audience_of_clients: Box::new([]),
        algorithms: vec![Algorithm::HS256],
        keys,
        source: None,
        introspector: None,
        leeway: 0, local: false,
        roles: path("roles"),
        scopes: path("scope"),
        types: Box::new(["".into(), "JWT".into()]),
        profile: Profile::default(),
    };
    Trust::new(vec![issuer], Vec::new(), IdentityHeaders::default())
});

fuzz_target!(|data: &[u8]| {
    let mut headers = http::HeaderMap::new();
    let Ok(value) = http::HeaderValue::from_bytes(&[b"Bearer ", data].concat()) else { return };
    headers.insert(http::header::AUTHORIZATION, value);
    if let Ok(Some(credential)) = bearer(&headers)
        && let Ok(token) = token(credential)
    {
        assert!(verify(token, &TRUST, Now::at(1)).is_err());
    }
    // Use the same bytes as claims with an invalid signature, to reach code after the first checks.
    use base64::Engine;
    let part = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(data);
    let forged = format!("eyJhbGciOiJIUzI1NiJ9.{part}.{}", "A".repeat(43));
    assert!(verify(&forged, &TRUST, Now::at(1)).is_err());
});
