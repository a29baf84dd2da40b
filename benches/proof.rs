//! The cost of proving identity to an upstream: a cached assertion, a new assertion, and a signature.
#![allow(missing_docs, reason = "criterion's macros")]

use aws_lc_rs::hmac;
use criterion::{Criterion, criterion_group, criterion_main};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use portcullis::authenticate::{Algorithm, IdentityFields, Principal};
use portcullis::authority::sign;
use portcullis::clock::Now;
use portcullis::forward::proof::TYPE;
use portcullis::forward::{Assertor, Audience, Proof, Proofs};
use portcullis::keyring::{KeyStorage, Keyring, MissingKey};
use std::hint::black_box;
use std::sync::Arc;

fn principal() -> Principal {
    let header = |name, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
    Principal {
        subject: "user-1".into(),
        roles: Box::new(["user".into(), "admin".into()]),
        scopes: Box::new(["orders:read".into()]),
        headers: IdentityFields::new(vec![
            header("x-auth-subject", "user-1"),
            header("x-auth-roles", "user,admin"),
            header("x-auth-scopes", "orders:read"),
            header("x-auth-issuer", "https://id.example.com"),
        ]),
        ..Principal::for_tests()
    }
}

fn proofs(algorithm: Algorithm, binds: bool) -> Proofs {
    let folder = std::env::temp_dir().join("portcullis-bench-proof");
    let keyring = Keyring::open(KeyStorage::Folder(&folder), algorithm, None, MissingKey::Ephemeral)
        .expect("a key for the moment");
    let sign = Arc::new(move |claims: &_, now| sign(&keyring, TYPE, claims, now).ok());
    let header = HeaderName::from_static("x-auth-assertion");
    let issuer = "https://localhost:8443".into();
    Proofs {
        assertion: Some(Assertor { header, issuer, claims: Box::new([]), binds, sign }),
        signature: None,
    }
}

fn proving(c: &mut Criterion) {
    let (method, target) = (Method::GET, PathAndQuery::from_static("/orders/7?x=1"));
    let audience = Audience::new(
        Arc::from("orders"),
        Some(hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef0123456789abcdef")),
    );
    let caller = principal();
    let now = Now::read();
    let write = |proofs: &Proofs| {
        let mut headers = HeaderMap::with_capacity(16);
        Proof { proofs, audience: &audience, method: &method, target: &target, now }
            .write(&mut headers, &caller);
        headers
    };
    let mut group = c.benchmark_group("proof");
    let kept = proofs(Algorithm::ES256, false);
    group.bench_function("assertion given again", |b| b.iter(|| black_box(write(&kept))));
    for algorithm in [Algorithm::ES256, Algorithm::EdDSA] {
        let made = proofs(algorithm, true);
        group.bench_function(format!("assertion made, {algorithm}"), |b| b.iter(|| black_box(write(&made))));
    }
    let signed = Proofs { assertion: None, signature: Some(HeaderName::from_static("x-auth-signature")) };
    group.bench_function("signature", |b| b.iter(|| black_box(write(&signed))));
    let none = Proofs::default();
    group.bench_function("nothing", |b| b.iter(|| black_box(write(&none))));
    group.finish();
}

criterion_group!(benches, proving);
criterion_main!(benches);
