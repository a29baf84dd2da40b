//! The cost of routing: canonical paths, and lookups, whose cost must not depend on the size of the table.
#![allow(missing_docs, reason = "criterion's macros make public items")]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, Method};
use portcullis::route::{Fields, Head, HostPattern, Matcher, Methods, PathPattern, RouteTable, path};
use std::borrow::Cow;
use std::hint::black_box;

fn canonical(c: &mut Criterion) {
    let mut group = c.benchmark_group("canonical");
    for (name, raw) in [
        ("plain", "/tenants/acme/orders/20471/lines/7"),
        ("encoded", "/tenants/acme/orders/M%C3%BCller%20%26%20Co/lines/7"),
        ("rewritten", "/tenants/%61cme/./orders/../orders/%7e20471/lines/7"),
    ] {
        group.bench_function(name, |b| b.iter(|| path::canonical(black_box(raw))));
    }
    group.finish();
}

/// Returns a table with this many routes, in groups of four for one service: a list, an item, a part of the item, and
/// all other paths.
fn table(routes: usize) -> RouteTable<usize> {
    let parse = |path: String| PathPattern::parse(&path).expect("a pattern");
    let matchers = (0..routes.div_ceil(4)).flat_map(|nth| {
        [
            parse(format!("/service{nth}/orders")),
            parse(format!("/service{nth}/orders/{{id}}")),
            parse(format!("/service{nth}/orders/{{id}}/lines/{{line}}")),
            parse(format!("/service{nth}/{{*rest}}")),
        ]
    });
    let entries = matchers.enumerate().take(routes).map(|(nth, path)| {
        (Matcher { host: HostPattern::Any, path, methods: Methods::any(), fields: Fields::default() }, nth)
    });
    RouteTable::build(entries.collect()).expect("no conflicts")
}

fn find(c: &mut Criterion) {
    let mut group = c.benchmark_group("find");
    let headers = HeaderMap::new();
    let head = Head {
        method: &Method::GET,
        host: Some(Cow::Borrowed("api.example.com")),
        port: None,
        path: Cow::Borrowed("/service1/orders/20471/lines/7"),
        query: None,
        headers: &headers,
    };
    for routes in [10, 100, 1_000, 10_000] {
        let table = table(routes);
        group.bench_with_input(BenchmarkId::from_parameter(routes), &table, |b, table| {
            b.iter(|| table.find(black_box(&head)).map(|found| *found.entry));
        });
    }
    group.finish();
}

criterion_group!(benches, canonical, find);
criterion_main!(benches);
