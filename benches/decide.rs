//! The cost of a decision: on a token in the cache, on a new token, and for a refusal.
#![allow(missing_docs, reason = "criterion's macros")]

use criterion::{Criterion, criterion_group, criterion_main};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use portcullis::authenticate::{
    Access, Algorithm, ClaimPath, CredentialPolicy, Credentials, IdentityHeaders, Issuer, KeySet, Profile,
    TokenCache, Trust,
};
use portcullis::authorize::{Check, Rule};
use portcullis::clock::Now;
use portcullis::decision::decide;
use portcullis::peer::Scheme;
use portcullis::route::{Head, Params};
use std::hint::black_box;
use std::sync::Arc;

const SECRET: &[u8; 32] = b"0123456789abcdef0123456789abcdef";

fn trust() -> Trust {
    let mut keys = KeySet::default();
    keys.add_secret(None, Algorithm::HS256, SECRET).expect("32 bytes are enough");
    let path = |text: &str| ClaimPath::parse(text).expect("a claim path");
    let issuer = Issuer {
        name: Arc::from("https://id.example.com"),
        audience: Box::new(["bench".into()]),
        audience_of_clients: Box::new([]),
        algorithms: vec![Algorithm::HS256],
        keys,
        source: None,
        introspector: None,
        leeway: 0,
        // A local issuer, so that the decision also looks up revocations.
        local: true,
        roles: path("roles"),
        scopes: path("scope"),
        types: Box::new(["JWT".into()]),
        profile: Profile::default(),
    };
    Trust::new(vec![issuer], Vec::new(), IdentityHeaders::default())
}

fn request(now: Now) -> HeaderMap {
    let claims = serde_json::json!({
        "iss": "https://id.example.com", "aud": "bench", "sub": "user-1",
        "exp": now.unix + 3600, "roles": ["user", "admin"],
    });
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET);
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("a token");
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().expect("a header value"));
    headers
}

fn decision(c: &mut Criterion) {
    let (trust, now) = (trust(), Now::read());
    let headers = request(now);
    let rule = |role: &str| Rule::new(vec![Check::Roles(Box::new([role.into()]))]);
    let (admin, root) = (rule("admin"), rule("root"));
    let mut group = c.benchmark_group("decide");
    let mut tokens = TokenCache::new(1024);
    let method = http::Method::GET;
    let head = Head {
        method: &method,
        host: Some("api.example.com".into()),
        port: None,
        path: "/".into(),
        query: None,
        headers: &headers,
    };
    let shown = Credentials::new(&head, Scheme::Https);
    let credential_policy = CredentialPolicy::from(Access::Authenticated);
    let ask = |rule: &Rule, tokens: &mut TokenCache| {
        decide(&credential_policy, rule, &trust, &shown, &Params::default(), now, tokens).is_ok()
    };
    assert!(ask(&admin, &mut tokens));
    assert!(!ask(&root, &mut tokens));
    group.bench_function("a token seen before", |b| b.iter(|| black_box(ask(&admin, &mut tokens))));
    group.bench_function("a role that is missing", |b| b.iter(|| black_box(ask(&root, &mut tokens))));
    group.bench_function("a new token, HS256", |b| {
        b.iter_batched(
            || TokenCache::new(16),
            |mut tokens| black_box(ask(&admin, &mut tokens)),
            criterion::BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, decision);
criterion_main!(benches);
