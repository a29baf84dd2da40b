//! The revocation check of a token with a million marks, without a change and after each new mark. Prints the memory of
//! the marks.
#![allow(missing_docs, reason = "criterion's macros")]

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis::authenticate::{MarkedClaim, SignalMark, SignalMarks, Signalled};
use std::hint::black_box;

const ISSUER: &str = "https://id.example.com";
const MARKS: u32 = 1_000_000;

fn mark(n: u32) -> SignalMark {
    SignalMark { digest: MarkedClaim::Subject.digest(ISSUER, &n.to_string()), before: 100, until: u32::MAX }
}

/// Returns the resident memory of this process in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|text| text.parse::<u64>().ok()).unwrap_or_default() * 1024
}

fn admit(c: &mut Criterion) {
    let marks = SignalMarks::default();
    let before = resident();
    (0..MARKS).for_each(|n| marks.mark(&mark(n)));
    let megabytes = (resident() - before) / 1_000_000;
    #[expect(clippy::print_stdout, reason = "a figure of the benchmark")]
    {
        println!("{} marks: {megabytes} MB", marks.len());
    }
    let token = Signalled::new(ISSUER, Some("ada"), Some("session"), Some("token"), 50);
    let mut group = c.benchmark_group("signals");
    group.bench_function("a token in the cache, nothing new", |b| b.iter(|| black_box(marks.admit(&token))));
    group.bench_function("a token in the cache, after a new mark", |b| {
        b.iter_batched(
            || Signalled::new(ISSUER, Some("ada"), Some("session"), Some("token"), 50),
            |token| black_box(marks.admit(&token)),
            criterion::BatchSize::SmallInput,
        )
    });
    group.bench_function("a new token: the digests of its claims", |b| {
        b.iter(|| black_box(Signalled::new(ISSUER, Some("ada"), Some("session"), Some("token"), 50)))
    });
    let mut n = MARKS;
    group.bench_function("a mark", |b| {
        b.iter(|| {
            n = MARKS + n % 1000;
            marks.mark(&mark(n));
        })
    });
    group.finish();
}

criterion_group!(benches, admit);
criterion_main!(benches);
