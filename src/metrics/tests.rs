//! Parses the rendered metrics and checks them.

use super::counters::CLASSES;
use super::*;
use crate::counter::BOUNDS;
use crate::denial::Denial;
use crate::limit::By;
use http::StatusCode;
use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroU32;
use std::time::Duration;

type Samples = BTreeMap<String, f64>;

/// Parses the text format. Checks that every sample is in the latest family, that no family and no series occurs twice,
/// and that every value is a number.
fn parse(text: &str) -> Samples {
    let (mut samples, mut families, mut family) = (Samples::new(), HashSet::new(), String::new());
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            family = rest.split_once(' ').unwrap().0.to_owned();
            assert!(families.insert(family.clone()), "{family} begins twice");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, family);
            assert!(["counter", "gauge", "histogram"].contains(&kind));
            assert_eq!(kind == "counter", name.ends_with("_total"));
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|s| name.strip_suffix(s));
            assert!(name == family || base == Some(&family), "{name} in {family}");
            check_labels(&series[name.len()..]);
            assert!(samples.insert(series.to_owned(), value.parse().unwrap()).is_none(), "{series} twice");
        }
    }
    samples
}

/// Checks that labels are `{a="b",c="d"}` or empty, with escaped quotes and backslashes in the values.
fn check_labels(mut text: &str) {
    if text.is_empty() {
        return;
    }
    text = text.strip_prefix('{').unwrap();
    loop {
        let (name, rest) = text.split_once("=\"").unwrap();
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next().unwrap() {
                (_, '\\') => assert!(matches!(chars.next().unwrap().1, '\\' | '"' | 'n')),
                (at, '"') => break at,
                _ => {}
            }
        };
        text = &rest[end + 1..];
        match text.strip_prefix(',') {
            Some(more) => text = more,
            None => break,
        }
    }
    assert_eq!(text, "}");
}

fn rendered(
    routes: &[Arc<RouteCounters>],
    workers: &[Arc<WorkerCounters>],
    limits: &[Arc<Limit>],
) -> Samples {
    let mut out = Exposition::new();
    render(&mut out, routes, workers, limits, &[]);
    parse(&out.finish())
}

#[test]
fn requests_are_summed_over_the_shards() {
    let route = Arc::new(RouteCounters::new("orders".into(), 3));
    for shard in 0..3 {
        route.record(shard, RequestOutcome::Forwarded(StatusCode::OK), 800);
        route.record(shard, RequestOutcome::Refused(&Denial::ExpiredToken), 20);
    }
    route.record(1, RequestOutcome::Forwarded(StatusCode::NOT_FOUND), 20_000_000);
    // There is no fourth core, so this request is not counted.
    route.record(3, RequestOutcome::Forwarded(StatusCode::OK), 800);

    let samples = rendered(&[route], &[], &[]);
    let total = |outcome: &str, status: &str, reason: &str| {
        let labels = format!("outcome=\"{outcome}\",status=\"{status}\",reason=\"{reason}\"");
        samples.get(&format!("portcullis_requests_total{{route=\"orders\",{labels}}}")).copied()
    };
    assert_eq!(total("forwarded", "2xx", ""), Some(3.0));
    assert_eq!(total("forwarded", "4xx", ""), Some(1.0));
    assert_eq!(total("forwarded", "5xx", ""), Some(0.0));
    assert_eq!(total("refused", "4xx", "expired_token"), Some(3.0));
    assert_eq!(total("refused", "4xx", "bad_signature"), None);

    let series = |rest: &str| samples[&format!("portcullis_request_duration_seconds{rest}")];
    assert_eq!(series("_bucket{route=\"orders\",le=\"0.0005\"}"), 3.0);
    assert_eq!(series("_bucket{route=\"orders\",le=\"0.001\"}"), 6.0);
    assert_eq!(series("_bucket{route=\"orders\",le=\"10\"}"), 6.0);
    assert_eq!(series("_bucket{route=\"orders\",le=\"+Inf\"}"), 7.0);
    assert_eq!(series("_count{route=\"orders\"}"), 7.0);
    assert!((series("_sum{route=\"orders\"}") - 20.00246).abs() < 1e-9);
}

#[test]
fn a_route_takes_memory_and_reports_durations_after_its_first_request() {
    let (used, unused) =
        (Arc::new(RouteCounters::new("used".into(), 64)), Arc::new(RouteCounters::new("unused".into(), 64)));
    used.record(7, RequestOutcome::Refused(&Denial::ExpiredToken), 20);
    assert_eq!((used.used().count(), unused.used().count()), (1, 0));
    let samples = rendered(&[used, unused], &[], &[]);
    let of = |route: &str, family: &str| {
        let label = format!("route=\"{route}\"");
        samples.keys().filter(|key| key.contains(&label) && key.contains(family)).count()
    };
    assert_eq!((of("used", "_duration_"), of("unused", "_duration_")), (BOUNDS.len() + 3, 0));
    // The count is zero before the first request. A rate then includes the first request.
    assert_eq!((of("used", "requests_total"), of("unused", "requests_total")), (CLASSES + 1, CLASSES));
}

#[test]
fn every_denial_is_counted_under_its_own_code() {
    for denial in Denial::every() {
        let worker = Arc::new(WorkerCounters::default());
        worker.unrouted.record(&denial);
        let samples = rendered(&[], &[worker, Arc::default()], &[]);
        let requests: Vec<_> =
            samples.keys().filter(|key| key.starts_with("portcullis_requests_total")).collect();
        assert_eq!(requests.len(), 1);
        assert!(requests[0].contains(&format!("reason=\"{}\"", denial.code())));
        assert!(requests[0].contains("route=\"\",outcome=\"refused\""));
    }
}

#[test]
fn workers_are_summed_and_connections_go_down_too() {
    let (one, two) = (Arc::new(WorkerCounters::default()), Arc::new(WorkerCounters::default()));
    one.connections_open.add(3);
    one.connections_open.sub(1);
    two.connections_open.sub(1);
    two.connections_open.add(5);
    two.token_cache_hits.add(9);
    let samples = rendered(&[], &[one, two], &[]);
    assert_eq!(samples["portcullis_connections_open"], 7.0);
    assert_eq!(samples["portcullis_token_cache_hits_total"], 9.0);
    assert_eq!(samples["portcullis_token_cache_misses_total"], 0.0);
}

#[test]
fn limits_are_reported_by_name() {
    let second = Duration::from_secs(1);
    let limit = Limit::new("login".into(), By::Route, NonZeroU32::MIN, second, NonZeroU32::MIN);
    let samples = rendered(&[], &[], &[Arc::new(limit)]);
    assert_eq!(samples["portcullis_rate_limited_total{limit=\"login\"}"], 0.0);
    assert_eq!(samples["portcullis_rate_limit_displaced_total{limit=\"login\"}"], 0.0);
}

#[test]
fn a_label_cannot_break_out_of_its_quotes() {
    let mut out = Exposition::new();
    out.family("portcullis_up", "Whether a server answers.", Kind::Gauge);
    out.sample(&[("server", "a\"} 1\nb\\")], 1);
    out.sample_seconds(&[("server", "b")], 1_500_000);
    let text = out.finish();
    assert!(text.contains("portcullis_up{server=\"a\\\"} 1\\nb\\\\\"} 1\n"), "{text}");
    assert_eq!(parse(&text)["portcullis_up{server=\"b\"}"], 1.5);
}
