//! The cost of a start or a reload: reading and compiling ten thousand routes with as many tests, and running the
//! tests.
#![allow(missing_docs, reason = "criterion's macros make public items")]

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use portcullis::clock::Now;
use portcullis::config::load_text;
use portcullis::diagnostic::Severity;
use portcullis::keyring::MissingKey;
use portcullis::policy::{Compiled, compile};
use portcullis::review::{cases, lint};
use std::fmt::Write;
use std::hint::black_box;
use std::time::Duration;

const MANY: usize = 10_000;

/// The expectations of the policy's tests.
#[derive(Clone, Copy, Debug)]
enum Expecting {
    /// Every other test expects a permitted request and its route, the others expect a refusal.
    Verdicts,
    /// Each test expects headers at the upstream.
    Headers,
    /// Each test expects the wrong route.
    Nonsense,
}

fn policy(expecting: Expecting) -> String {
    let mut text = String::from(
        "[[issuer]]\nissuer = \"https://id.example.com/\"\naudience = [\"a\"]\nalgorithms = [\"HS256\"]\n\
         secret = \"0123456789abcdef0123456789abcdef\"\n[upstream.app]\nservers = [\"http://127.0.0.1:9001\"]\n",
    );
    for n in 0..MANY {
        let _ = write!(
            text,
            "[[route]]\nname = \"r{n}\"\npath = \"/service{n}/{{tenant}}/orders\"\nmethods = [\"GET\"]\n\
             upstream = \"app\"\nroles = [\"role{}\"]\nclaims = {{ tenant = \"{{tenant}}\" }}\n",
            n % 50
        );
    }
    for n in 0..MANY {
        let expect = match (expecting, n % 2) {
            (Expecting::Verdicts, 0) => format!("allow = true, route = \"r{n}\""),
            (Expecting::Verdicts, _) => "deny = \"claim_mismatch\"".to_owned(),
            (Expecting::Headers, _) => {
                "headers = { X-Auth-Subject = \"ada\", Authorization = \"\" }".to_owned()
            }
            (Expecting::Nonsense, _) => format!("route = \"r{}\"", MANY - 1 - n),
        };
        let tenant = if expect.starts_with("deny") { "other" } else { "acme" };
        let _ = write!(
            text,
            "[[test]]\nname = \"t{n}\"\nrequest = \"GET https://h.example/service{n}/{tenant}/orders\"\n\
             claims = {{ sub = \"ada\", roles = [\"role{}\"], tenant = \"acme\" }}\nexpect = {{ {expect} }}\n",
            n % 50
        );
    }
    text
}

fn compiled(text: String) -> Compiled {
    let loaded = load_text("gateway.toml", text, ".".into(), Vec::new()).expect("it can be read");
    lint(&loaded, compile(&loaded, MissingKey::Ephemeral).expect("it can be obeyed"))
}

fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("ten_thousand");
    group.sample_size(10).measurement_time(Duration::from_secs(10)).warm_up_time(Duration::from_millis(500));
    let text = policy(Expecting::Verdicts);
    group.bench_function("routes_and_tests_compiled", |b| {
        b.iter_batched(|| text.clone(), compiled, BatchSize::PerIteration);
    });
    for (name, expecting) in [("verdicts", Expecting::Verdicts), ("headers", Expecting::Headers)] {
        let Compiled { policy, cases, .. } = compiled(policy(expecting));
        group.bench_function(format!("tests_of_{name}_run"), |b| {
            b.iter(|| {
                let failed = cases::failures(black_box(&policy), &cases, Severity::Fault, Now::read());
                assert!(failed.is_empty(), "{}", failed[0]);
            });
        });
    }
    let Compiled { policy, cases, .. } = compiled(policy(Expecting::Nonsense));
    group.bench_function("failing_tests_run_and_explained", |b| {
        b.iter_batched(
            || cases.clone(),
            |cases| cases::run(black_box(&policy), cases, Now::read(), cases::EXPLAINED_MAX),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(policies, benches);
criterion_main!(policies);
