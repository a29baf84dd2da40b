//! The readers of signals never panic, and accept nothing without the key. Signed claims revoke tokens only with the
//! right issuer and audience, and only tokens of that issuer.
#![no_main]

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use portcullis::authenticate::{Algorithm, KeySet};
use portcullis::clock::Now;
use portcullis::signals::{Opaque, Terms, read_event_token, read_logout_token};
use std::sync::LazyLock;

const SECRET: &[u8; 32] = b"0123456789abcdef0123456789abcdef";

static KEYS: LazyLock<KeySet> = LazyLock::new(|| {
    let mut keys = KeySet::default();
    keys.add_secret(None, Algorithm::HS256, SECRET).expect("32 bytes");
    keys
});
static AUDIENCE: LazyLock<[Box<str>; 1]> = LazyLock::new(|| ["g".into()]);

fuzz_target!(|data: &[u8]| {
    let terms = Terms {
        issuer: "i",
        transmitter: "i",
        audience: &*AUDIENCE,
        keys: &KEYS,
        source: None,
        algorithms: &[Algorithm::HS256],
        leeway: 0,
        life: 3600,
        opaque: Opaque::Subject,
        has_sid: data.len().is_multiple_of(2),
    };
    let now = Now::at(1_800_000_000);
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = read_event_token(text, &terms, now);
        let _ = read_logout_token(text, &terms, now);
    }
    // The same bytes as signed claims, which reach the code behind the signature.
    let message = format!("eyJhbGciOiJIUzI1NiJ9.{}", URL_SAFE_NO_PAD.encode(data));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message.as_bytes());
    let signed = format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag));
    for signal in [read_event_token(&signed, &terms, now), read_logout_token(&signed, &terms, now)].into_iter().flatten() {
        let claims: serde_json::Value = serde_json::from_slice(data).expect("accepted claims are JSON");
        assert_eq!(claims["iss"], "i");
        assert!(claims["aud"] == "g" || claims["aud"].as_array().is_some_and(|list| list.contains(&"g".into())));
        assert!(!signal.id.is_empty() && !signal.events.is_empty());
        assert!(signal.marks.iter().all(|mark| mark.until > 1_800_003_600));
    }
    let forged = format!("{message}.{}", "A".repeat(43));
    assert!(read_event_token(&forged, &terms, now).is_err());
    assert!(read_logout_token(&forged, &terms, now).is_err());
});
