//! What a token costs: verified by each algorithm, refused, remembered, and remembered in place of another.
#![allow(missing_docs, reason = "criterion's macros")]

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use portcullis::authenticate::{
    Algorithm, ClaimPath, IdentityHeaders, Issuer, Principal, TokenCache, Trust, digest_of, verify,
};
use portcullis::authority::{Absent, AccessClaims, Keyring, mint};
use portcullis::clock::Now;
use std::hint::black_box;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

const ISSUER: &str = "https://id.example.com";
/// How many tokens the caches of these measurements hold.
const CAPACITY: usize = 4096;

fn keyring(algorithm: Algorithm) -> Keyring {
    let secret = (algorithm == Algorithm::HS256).then_some(&[7; 32][..]);
    Keyring::open(Path::new("no-such-folder"), algorithm, secret, Absent::Pretend).expect("a key in memory")
}

fn trust(keyring: &Keyring) -> Trust {
    let path = |text: &str| ClaimPath::parse(text).expect("a claim path");
    let issuer = Issuer {
        name: Arc::from(ISSUER),
        audience: Box::new(["bench".into()]),
        algorithms: vec![keyring.algorithm()],
        keys: keyring.key_set().expect("the keyring's own keys"),
        leeway: 0,
        local: false,
        roles: path("roles"),
        scopes: path("scope"),
        types: Box::new(["at+jwt".into()]),
    };
    Trust::new(vec![issuer], Vec::new(), IdentityHeaders::default())
}

fn token(keyring: &Keyring, now: Now) -> String {
    let claims = AccessClaims {
        issuer: ISSUER.into(),
        audience: vec!["bench".into()],
        subject: "user-1".into(),
        roles: vec!["user".into(), "admin".into()],
        scopes: vec!["orders:read".into(), "orders:write".into()],
        expires_in: Duration::from_secs(3600),
        ..AccessClaims::default()
    };
    mint(keyring, claims, now).expect("a token")
}

/// The token with another signature of the same length: one that only the signature check can refuse.
fn forged(token: &str) -> String {
    let (message, signature) = token.rsplit_once('.').expect("three parts");
    let first = if signature.starts_with('A') { 'B' } else { 'A' };
    format!("{message}.{first}{}", &signature[1..])
}

fn verification(c: &mut Criterion) {
    let now = Now::read();
    let mut group = c.benchmark_group("verify");
    for algorithm in [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        let keyring = keyring(algorithm);
        let (trust, token) = (trust(&keyring), token(&keyring, now));
        let forged = forged(&token);
        assert!(verify(&token, &trust, now).is_ok());
        assert!(verify(&forged, &trust, now).is_err());
        group.bench_function(format!("a good token, {algorithm}"), |b| {
            b.iter(|| black_box(verify(black_box(&token), &trust, now)).is_ok());
        });
        group.bench_function(format!("a forged token, {algorithm}"), |b| {
            b.iter(|| black_box(verify(black_box(&forged), &trust, now)).is_err());
        });
    }
    group.finish();
}

fn cache(c: &mut Criterion) {
    let now = Now::read();
    let keyring = keyring(Algorithm::HS256);
    let trust = trust(&keyring);
    let token = token(&keyring, now);
    let principal: Rc<Principal> = Rc::new(verify(&token, &trust, now).expect("a good token"));
    let digest = digest_of(&token);
    let full = || {
        let mut tokens = TokenCache::new(CAPACITY);
        tokens.get(&digest, 1, now);
        (0..CAPACITY).for_each(|other| tokens.insert(digest_of(other.to_le_bytes()), principal.clone()));
        tokens
    };
    let mut group = c.benchmark_group("cache");

    group.bench_function("the digest of a token", |b| b.iter(|| digest_of(black_box(&token))));
    let mut tokens = full();
    tokens.insert(digest, principal.clone());
    group.bench_function("a hit", |b| b.iter(|| black_box(tokens.get(black_box(&digest), 1, now))));
    let mut tokens = full();
    group.bench_function("a miss", |b| b.iter(|| black_box(tokens.get(black_box(&digest), 1, now))));

    // Every token another, and a look-up before each, as a request makes it: nothing is ever found again.
    let mut tokens = full();
    let mut next = CAPACITY as u64;
    group.bench_function("a new token in a full cache", |b| {
        b.iter_batched(
            || {
                next += 1;
                digest_of(next.to_be_bytes())
            },
            |digest| {
                black_box(tokens.get(&digest, 1, now));
                tokens.insert(digest, principal.clone());
            },
            BatchSize::SmallInput,
        );
    });
    assert_eq!(tokens.len(), CAPACITY);
    group.finish();
}

criterion_group!(benches, verification, cache);
criterion_main!(benches);
