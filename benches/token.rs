//! The cost of a token: verifying, refusing, finding it in the cache, and caching it in a full cache.
#![allow(missing_docs, reason = "criterion's macros")]

#[path = "../tests/kit/measured.rs"]
mod measured;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use measured::{AUDIENCE, ISSUER};
use portcullis::authenticate::{Algorithm, Issuer, Principal, TokenCache, Trust, digest_of, verify};
use portcullis::authority::{AccessClaims, mint};
use portcullis::clock::Now;
use portcullis::keyring::{KeyStorage, Keyring, MissingKey};
use std::hint::black_box;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// The number of tokens that the measured caches can hold.
const CAPACITY: usize = 4096;
/// The numbers of roles of the measured callers.
const ROLES: [usize; 3] = [3, 10, 30];

fn keyring(algorithm: Algorithm) -> Keyring {
    let secret = (algorithm == Algorithm::HS256).then_some(&[7; 32][..]);
    Keyring::open(KeyStorage::Folder(Path::new("no-such-folder")), algorithm, secret, MissingKey::Ephemeral)
        .expect("a key in memory")
}

fn trust(keyring: &Keyring) -> Trust {
    let issuer = Issuer {
        algorithms: vec![keyring.algorithm()],
        keys: keyring.key_set().expect("the keyring's own keys"),
        local: false,
        types: Box::new(["at+jwt".into()]),
        ..measured::issuer()
    };
    measured::trust(issuer, &[])
}

fn token(keyring: &Keyring, now: Now) -> String {
    let claims = AccessClaims {
        issuer: ISSUER.into(),
        audience: vec![AUDIENCE.into()],
        subject: "user-1".into(),
        roles: vec!["user".into(), "admin".into()],
        scopes: vec!["orders:read".into(), "orders:write".into()],
        expires_in: Duration::from_secs(3600),
        ..AccessClaims::default()
    };
    mint(keyring, claims, now).expect("a token")
}

/// Returns the token with a different signature of the same length, which only the signature check can refuse.
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

/// The claims of a token in addition to the subject.
#[derive(Clone, Copy)]
enum Claims {
    /// Everything that an application may want: display names, memberships and preferences.
    Full,
    /// Only the claims that a decision needs.
    Trimmed,
}

/// Returns a token as the authority issues it, for a caller with this many roles.
fn token_of(keyring: &Keyring, roles: usize, claims: Claims, now: Now) -> String {
    const AREAS: [&str; 10] = [
        "orders",
        "billing",
        "catalogue",
        "shipping",
        "returns",
        "reports",
        "support",
        "pricing",
        "stock",
        "partners",
    ];
    const LEVELS: [&str; 3] = ["viewer", "editor", "approver"];
    let names = (0..roles).map(|role| format!("{}-{}", AREAS[role % 10], LEVELS[role / 10 % 3]));
    let profile = serde_json::json!({
        "name": "Ada Lovelace", "email": "ada.lovelace@shop.example", "email_verified": true,
        "department": "Customer operations", "locale": "en-GB", "zoneinfo": "Europe/London", "tenant": "acme",
        "plan": "enterprise", "employee": "E-104729",
    });
    let extra = match (claims, profile) {
        (Claims::Full, serde_json::Value::Object(profile)) => profile,
        (Claims::Full | Claims::Trimmed, _) => serde_json::Map::new(),
    };
    let claims = AccessClaims {
        issuer: ISSUER.into(),
        audience: vec![AUDIENCE.into()],
        subject: "ada.lovelace".into(),
        roles: names.collect(),
        expires_in: Duration::from_secs(900),
        session: Some("mPTMTr0ZBnxN3Ho0v0V9Yw".into()),
        fresh: true,
        authenticated: Some(now.unix),
        extra,
        ..AccessClaims::default()
    };
    mint(keyring, claims, now).expect("a token")
}

/// The gain from trimming: prints the sizes of tokens, and measures the verification of each.
#[allow(clippy::print_stdout, reason = "sizes are figures too")]
fn sizes(c: &mut Criterion) {
    let now = Now::read();
    let keyring = keyring(Algorithm::ES256);
    let trust = trust(&keyring);
    let both = |roles| [Claims::Full, Claims::Trimmed].map(|claims| token_of(&keyring, roles, claims, now));
    println!("| roles | all claims, bytes | trimmed, bytes | of the size |\n| --- | --- | --- | --- |");
    for roles in ROLES {
        let [full, trimmed] = both(roles).map(|token| token.len());
        println!("| {roles} | {full} | {trimmed} | {} % |", trimmed * 100 / full);
    }
    let mut group = c.benchmark_group("size");
    for roles in ROLES {
        for (claims, token) in ["all", "trimmed"].into_iter().zip(both(roles)) {
            assert!(verify(&token, &trust, now).is_ok());
            group.bench_function(format!("{roles} roles, {claims} claims: new"), |b| {
                b.iter(|| black_box(verify(black_box(&token), &trust, now)).is_ok());
            });
            group.bench_function(
                format!("{roles} roles, {claims} claims: its digest, if seen before"),
                |b| {
                    b.iter(|| digest_of(black_box(&token)));
                },
            );
        }
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

    // Every token is new and is looked up first, as in a request, so that no lookup succeeds.
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

criterion_group!(benches, verification, sizes, cache);
criterion_main!(benches);
