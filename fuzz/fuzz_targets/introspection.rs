//! Reads any bytes as an issuer's answer about a token, plain and signed. The reader returns, and calls a token active
//! only if a plain answer says so: nobody signed the others.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::authenticate::{read_introspection, signer_of};
use portcullis::clock::Now;
use portcullis::config::load_text;
use portcullis::introspection::Verdict;
use portcullis::keyring::MissingKey;
use portcullis::policy::{Policy, compile};
use serde_json::Value;
use std::sync::OnceLock;

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
});
