//! The cost of a DPoP proof: its whole verification, compared with the check of its signature alone.
#![allow(missing_docs, reason = "criterion's macros")]

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Method};
use portcullis::authenticate::dpop::DPOP;
use portcullis::authenticate::{Credentials, Dpop, digest_of};
use portcullis::clock::Now;
use portcullis::peer::Scheme;
use portcullis::route::Head;
use serde_json::{Value, json};
use std::hint::black_box;

const NOW: u64 = 1_700_000_000;
const TOKEN: &str = "a.b.c";

type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

struct Signer {
    jwk: Value,
    algorithm: &'static str,
    public: Vec<u8>,
    verification: &'static dyn VerificationAlgorithm,
    sign: Sign,
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn es256() -> Signer {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let public = pair.public_key().as_ref().to_vec();
    Signer {
        jwk: json!({ "kty": "EC", "crv": "P-256", "x": b64(&public[1..33]), "y": b64(&public[33..]) }),
        algorithm: "ES256",
        public,
        verification: &ECDSA_P256_SHA256_FIXED,
        sign: Box::new(move |message| {
            pair.sign(&SystemRandom::new(), message).expect("a signature").as_ref().to_vec()
        }),
    }
}

fn ed25519() -> Signer {
    let pair = Ed25519KeyPair::generate().expect("a key");
    let public = pair.public_key().as_ref().to_vec();
    Signer {
        jwk: json!({ "kty": "OKP", "crv": "Ed25519", "x": b64(&public) }),
        algorithm: "Ed25519",
        public,
        verification: &ED25519,
        sign: Box::new(move |message| pair.sign(message).as_ref().to_vec()),
    }
}

fn proof(signer: &Signer, id: u64) -> HeaderValue {
    let header = json!({ "typ": "dpop+jwt", "alg": signer.algorithm, "jwk": signer.jwk });
    let claims = json!({
        "jti": format!("a-usual-id-of-a-proof-{id}"), "htm": "GET", "htu": "https://api.example.com/orders/7",
        "iat": NOW, "ath": b64(digest_of(TOKEN)),
    });
    let message = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
    let signature = (signer.sign)(message.as_bytes());
    HeaderValue::try_from(format!("{message}.{}", b64(signature))).expect("a field value")
}

fn proofs(c: &mut Criterion) {
    for signer in [es256(), ed25519()] {
        let mut group = c.benchmark_group(format!("dpop {}", signer.algorithm));
        let field = proof(&signer, 0);
        let text = field.to_str().expect("ASCII");
        let (message, signature) = text.rsplit_once('.').expect("three parts");
        let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
        let key = UnparsedPublicKey::new(signer.verification, &signer.public);
        group.bench_function("signature alone", |b| {
            b.iter(|| key.verify(black_box(message.as_bytes()), black_box(&signature)));
        });
        let mut id = 1;
        let token = digest_of(TOKEN);
        let verifier = Dpop::default();
        group.bench_function("whole proof", |b| {
            b.iter_batched(
                || {
                    id += 1;
                    HeaderMap::from_iter([(DPOP, proof(&signer, id))])
                },
                |headers| {
                    let head = Head {
                        method: &Method::GET,
                        host: Some("api.example.com".into()),
                        port: None,
                        path: "/orders/7".into(),
                        query: None,
                        headers: &headers,
                    };
                    let credentials = Credentials::new(&head, Scheme::Https);
                    let verified = verifier.verify(&credentials, None, Now::at(NOW)).map(Some);
                    black_box((verified.is_ok(), token))
                },
                BatchSize::SmallInput,
            );
        });
        group.finish();
    }
}

criterion_group!(benches, proofs);
criterion_main!(benches);
