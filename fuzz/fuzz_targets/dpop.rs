//! The verifier of proofs never panics. A proof with an invalid signature is neither accepted nor remembered. A proof
//! that is signed is accepted only for its method, target and time, and only once.
#![no_main]

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, Method};
use libfuzzer_sys::fuzz_target;
use portcullis::authenticate::dpop::DPOP;
use portcullis::authenticate::{Credentials, Dpop, Thumbprint};
use portcullis::clock::Now;
use portcullis::denial::Denial;
use portcullis::peer::Scheme;
use portcullis::route::Head;
use std::sync::LazyLock;

const NOW: u64 = 1_700_000_000;

struct Client {
    key: EcdsaKeyPair,
    header: String,
}

static CLIENT: LazyLock<Client> = LazyLock::new(|| {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let point = key.public_key().as_ref();
    let [x, y] = [&point[1..33], &point[33..]].map(|half| URL_SAFE_NO_PAD.encode(half));
    let header = format!(
        r#"{{"typ":"dpop+jwt","alg":"ES256","jwk":{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}"}}}}"#
    );
    Client { key, header: URL_SAFE_NO_PAD.encode(header) }
});

fn verify(dpop: &Dpop, fields: &[&[u8]]) -> Result<Thumbprint, Denial> {
    let mut headers = HeaderMap::new();
    for field in fields {
        if let Ok(field) = HeaderValue::from_bytes(field) {
            headers.append(DPOP, field);
        }
    }
    let path = "/orders".into();
    let head = Head {
        method: &Method::GET,
        host: Some("h".into()),
        port: None,
        path,
        query: None,
        headers: &headers,
    };
    let credentials = Credentials::new(&head, Scheme::Https);
    dpop.verify(&credentials, None, Now::at(NOW)).map_err(|refused| refused.denial)
}

fuzz_target!(|data: &[u8]| {
    let dpop = Dpop::default();
    let lines: Vec<_> = data.split(|byte| *byte == b'\n').take(3).collect();
    assert!(verify(&dpop, &lines).is_err(), "the fuzzer has no key");
    assert_eq!(dpop.remembered(), 0);
    // The same bytes as signed claims.
    let message = format!("{}.{}", CLIENT.header, URL_SAFE_NO_PAD.encode(data));
    let forged = format!("{message}.{}", "A".repeat(86));
    assert!(verify(&dpop, &[forged.as_bytes()]).is_err());
    assert_eq!(dpop.remembered(), 0);
    // A signature takes most of the time, so texts that are not JSON have none.
    let Ok(claims) = serde_json::from_slice::<serde_json::Value>(data) else { return };
    let signature = CLIENT.key.sign(&SystemRandom::new(), message.as_bytes()).expect("a signature");
    let proof = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
    if verify(&dpop, &[proof.as_bytes()]).is_ok() {
        assert_eq!(claims["htm"], "GET");
        let target = claims["htu"].as_str().expect("a text").to_ascii_lowercase();
        assert!(target.starts_with("https://h"));
        assert!(claims["jti"].as_str().is_some_and(|id| !id.is_empty()) && claims.get("nonce").is_none());
        let age = NOW as f64 - claims["iat"].as_f64().expect("a number").floor();
        assert!((-10.0..=60.0).contains(&age));
        assert_eq!((verify(&dpop, &[proof.as_bytes()]), dpop.remembered()), (Err(Denial::ReplayedProof), 1));
        let fields = [proof.as_bytes(), proof.as_bytes()];
        assert!(verify(&Dpop::default(), &fields).is_err(), "two proofs");
    }
});
