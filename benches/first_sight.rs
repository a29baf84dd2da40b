//! The cost of a new token, compared with a bare signature check with the same library. It includes the digest, a cache
//! miss, all checks, and the insertion into the cache.
#![allow(missing_docs, reason = "criterion's macros")]

#[path = "../tests/kit/measured.rs"]
mod measured;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use portcullis::authenticate::{Algorithm, Issuer, KeySet, TokenCache, Trust, digest_of, verify};
use portcullis::clock::Now;
use serde_json::json;
use std::hint::black_box;
use std::rc::Rc;

/// A key of one algorithm: its public form, and the signer.
struct Signer {
    algorithm: Algorithm,
    public: serde_json::Value,
    parsed: ParsedPublicKey,
    sign: Sign,
}

/// Signs a message.
type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn parsed(algorithm: &'static dyn VerificationAlgorithm, key: &[u8]) -> ParsedPublicKey {
    ParsedPublicKey::new(algorithm, key).expect("the library's own key")
}

fn rs256() -> Signer {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("a new key");
    let public = pair.public_key();
    let (n, e) = (public.modulus().big_endian_without_leading_zero(), public.exponent());
    Signer {
        algorithm: Algorithm::RS256,
        public: json!({ "kty": "RSA", "n": base64url(n), "e": base64url(e.big_endian_without_leading_zero()) }),
        parsed: parsed(&RSA_PKCS1_2048_8192_SHA256, public.as_der().expect("a key in DER").as_ref()),
        sign: Box::new(move |message| {
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).expect("a signature");
            signature
        }),
    }
}

fn es256() -> Signer {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a new key");
    let point = pair.public_key().as_ref().to_vec();
    Signer {
        algorithm: Algorithm::ES256,
        public: json!({ "kty": "EC", "crv": "P-256", "x": base64url(&point[1..33]), "y": base64url(&point[33..]) }),
        parsed: parsed(&ECDSA_P256_SHA256_FIXED, &point),
        sign: Box::new(move |message| {
            pair.sign(&SystemRandom::new(), message).expect("a signature").as_ref().to_vec()
        }),
    }
}

fn eddsa() -> Signer {
    let pair = Ed25519KeyPair::generate().expect("a new key");
    let key = pair.public_key().as_ref().to_vec();
    Signer {
        algorithm: Algorithm::EdDSA,
        public: json!({ "kty": "OKP", "crv": "Ed25519", "x": base64url(&key) }),
        parsed: parsed(&ED25519, &key),
        sign: Box::new(move |message| pair.sign(message).as_ref().to_vec()),
    }
}

fn trust(signer: &Signer) -> Trust {
    let set = json!({ "keys": [signer.public] }).to_string();
    let (keys, _) = KeySet::from_jwks(set.as_bytes(), &[signer.algorithm]).expect("a usable key");
    let issuer = Issuer {
        algorithms: vec![signer.algorithm],
        keys,
        local: false,
        types: Box::new(["at+jwt".into()]),
        ..measured::issuer()
    };
    measured::trust(issuer, &[])
}

fn first_sight(c: &mut Criterion) {
    let now = Now::read();
    let mut group = c.benchmark_group("first sight");
    for signer in [rs256(), es256(), eddsa()] {
        let (trust, algorithm) = (trust(&signer), signer.algorithm);
        let header = json!({ "alg": algorithm.as_str(), "typ": "at+jwt" });
        let claims = json!({
            "iss": measured::ISSUER, "aud": measured::AUDIENCE, "sub": "user-1", "iat": now.unix,
            "exp": now.unix + 3600, "jti": "mPTMTr0ZBnxN3Ho0v0V9Yw", "roles": ["user", "admin"],
            "scope": "orders:read orders:write",
        });
        let message = format!("{}.{}", base64url(header.to_string()), base64url(claims.to_string()));
        let signature = (signer.sign)(message.as_bytes());
        let token = format!("{message}.{}", base64url(&signature));
        group.bench_function(format!("bare signature check, {algorithm}"), |b| {
            b.iter(|| signer.parsed.verify_sig(black_box(message.as_bytes()), black_box(&signature)).is_ok());
        });
        group.bench_function(format!("a token at first sight, {algorithm}"), |b| {
            b.iter_batched_ref(
                || TokenCache::new(16),
                |tokens| {
                    let digest = digest_of(black_box(token.as_bytes()));
                    assert!(tokens.get(&digest, 1, now).is_none());
                    let principal = verify(black_box(&token), &trust, now).expect("a good token");
                    tokens.insert(digest, Rc::new(principal));
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, first_sight);
criterion_main!(benches);
