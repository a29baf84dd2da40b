//! The cost of a limit per request: with one key, with many keys that fit into the table, and with a full table in
//! which each key replaces another.

use criterion::{Criterion, criterion_group, criterion_main};
use http::HeaderMap;
use portcullis::limit::{By, Fleet, FleetSecret, Limit, LimitKey, Sharing, Standing, admit};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

fn limits() -> [Arc<Limit>; 1] {
    let much = NonZeroU32::MAX;
    [Arc::new(Limit::new("bench".into(), By::ClientIp, much, Duration::from_secs(1), much))]
}

fn cases(criterion: &mut Criterion) {
    let headers = HeaderMap::new();
    // The number of distinct addresses in rotation: one, half of the table, and sixteen times the table.
    for (case, keys) in [("one key", 1_u32), ("32,768 keys", 32_768), ("full table", 1 << 20)] {
        let limits = limits();
        let mut turn = 0_u32;
        criterion.bench_function(&format!("admit/{case}"), |bencher| {
            bencher.iter(|| {
                turn = turn.wrapping_add(1);
                let address = IpAddr::V4(Ipv4Addr::from_bits(turn % keys));
                let key = LimitKey { address, headers: &headers, route: "r", principal: None };
                let mut standing = Standing::default();
                black_box(admit(&limits, &key, &mut standing))
            });
        });
    }

    // The same with leased tokens of a fleet. Nobody answers the reports, so all requests are on credit.
    for (case, keys) in [("one key", 1_u32), ("32,768 keys", 32_768)] {
        let sharing = Sharing {
            fleet: Arc::new(Fleet::for_tests(1)),
            is_exact: false,
            applies_alone: true,
            by: "client_ip".into(),
            secret: FleetSecret::derive("portcullis", ""),
        };
        let much = NonZeroU32::MAX;
        let limit = Limit::new("bench".into(), By::ClientIp, much, Duration::from_secs(1), much);
        let limits = [Arc::new(limit.shared(&sharing, None))];
        let mut turn = 0_u32;
        criterion.bench_function(&format!("admit of a fleet/{case}"), |bencher| {
            bencher.iter(|| {
                turn = turn.wrapping_add(1);
                let address = IpAddr::V4(Ipv4Addr::from_bits(turn % keys));
                let key = LimitKey { address, headers: &headers, route: "r", principal: None };
                let mut standing = Standing::default();
                black_box(admit(&limits, &key, &mut standing))
            });
        });
    }

    let limits = limits();
    let key =
        LimitKey { address: Ipv4Addr::LOCALHOST.into(), headers: &headers, route: "r", principal: None };
    let mut standing = Standing::default();
    let _ = admit(&limits, &key, &mut standing);
    let mut answer = HeaderMap::new();
    criterion.bench_function("write the fields", |bencher| bencher.iter(|| standing.write(&mut answer, 0)));
}

criterion_group!(benches, cases);
criterion_main!(benches);
