//! Reads any bytes as an issuer's answer about a token, plain and signed. The reader returns, and calls a token active
//! only if a plain answer says so, or an answer that the issuer signed for the gateway at this time.
#![no_main]

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use portcullis::authenticate::{read_introspection, signer_of};
use portcullis::clock::Now;
use portcullis::config::load_text;
use portcullis::introspection::Verdict;
use portcullis::keyring::MissingKey;
use portcullis::policy::{Policy, compile};
use serde_json::Value;
use std::sync::OnceLock;

const SECRET: &[u8] = b"k7Qz1k8Wv3Jq0ZpLmX2v5T9rY4uB6nHc";
const POLICY: &str = r#"
[[issuer]]
issuer = "https://id.example.com/"
audience = ["orders"]
algorithms = ["HS256"]
secret = "k7Qz1k8Wv3Jq0ZpLmX2v5T9rY4uB6nHc"

[upstream.orders]
servers = ["http://127.0.0.1:9001"]

[[route]]
path = "/"
upstream = "orders"
"#;

fn policy() -> &'static Policy {
    static POLICY_ONCE: OnceLock<Policy> = OnceLock::new();
    POLICY_ONCE.get_or_init(|| {
        let file = load_text("gateway.toml", POLICY.to_owned(), ".".into(), Vec::new()).unwrap();
        compile(&file, MissingKey::Ephemeral).unwrap().policy
    })
}

fuzz_target!(|data: &[u8]| {
    let issuer = &policy().trust.issuers()[0];
    let now = Now::at(1_000_000);
    if let Ok(Verdict::Active(claims)) = read_introspection(data, issuer, None, now.unix, now) {
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(claims["active"], Value::Bool(true));
    }
    assert!(read_introspection(data, issuer, Some("gateway"), now.unix, now).is_err());
    let _ = signer_of(data);
    // The same bytes as the claims of a signed answer.
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"token-introspection+jwt"}"#);
    let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(data));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message.as_bytes());
    let signed = format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag));
    assert!(read_introspection(signed.as_bytes(), issuer, None, now.unix, now).is_err(), "not JSON");
    if let Ok(verdict) = read_introspection(signed.as_bytes(), issuer, Some("gateway"), now.unix - 5, now) {
        let answer: Value = serde_json::from_slice(data).unwrap();
        assert_eq!(answer["iss"], "https://id.example.com/");
        let is_ours = |aud: &Value| aud == "gateway";
        assert!(
            is_ours(&answer["aud"]) || answer["aud"].as_array().is_some_and(|list| list.iter().any(is_ours))
        );
        assert!(answer.get("sub").is_none());
        let age = now.unix as f64 - answer["iat"].as_f64().unwrap();
        assert!(age.abs() <= 5.0 + 60.0);
        let said = &answer["token_introspection"];
        assert_eq!(said["active"], Value::Bool(matches!(verdict, Verdict::Active(_))));
    }
    let forged = format!("{message}.{}", "A".repeat(43));
    assert!(read_introspection(forged.as_bytes(), issuer, Some("gateway"), now.unix, now).is_err());
});
