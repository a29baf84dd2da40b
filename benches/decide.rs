//! The cost of a decision: on a token in the cache, on a new token, and for a refusal.
#![allow(missing_docs, reason = "criterion's macros")]

#[path = "../tests/kit/measured.rs"]
mod measured;

use criterion::{Criterion, criterion_group, criterion_main};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use portcullis::authenticate::{Access, CredentialPolicy, Credentials, TokenCache};
use portcullis::authorize::{Check, Rule};
use portcullis::clock::Now;
use portcullis::decision::decide;
use portcullis::peer::Scheme;
use portcullis::route::{Head, Params};
use std::hint::black_box;

fn decision(c: &mut Criterion) {
    let (trust, now) = (measured::trust(measured::issuer(), &[]), Now::read());
    let claims = serde_json::json!({ "roles": ["user", "admin"] });
    let headers = HeaderMap::from_iter([(AUTHORIZATION, measured::authorization(now, claims))]);
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
