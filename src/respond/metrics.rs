//! What is counted, and how it is told to Prometheus.
//!
//! Promises closed label sets (names from the policy, codes of ours, classes of status: never text of a client)
//! and counting without a locked instruction: each core writes to a shard of its own, and a scrape adds them
//! up. Gauges of others are added through [`Exposition`].

pub mod process;
mod upstreams;

use super::tls_failure::{TlsFailure, TlsFailures};
use crate::counter::{BOUNDS, Counter, Durations, Sharded};
use crate::denial::Denial;
use crate::forward::Upstream;
use crate::limit::Limit;
use http::StatusCode;
use std::fmt::Write;
use std::sync::{Arc, LazyLock, OnceLock};

/// The codes of all denials with the class of their status, in order.
static REASONS: LazyLock<Vec<(&'static str, &'static str)>> = LazyLock::new(|| {
    Denial::every().iter().map(|denial| (denial.code(), class_name(class(denial.status())))).collect()
});

/// A count for each code of [`Denial`].
#[derive(Debug)]
pub struct Reasons(Box<[Counter]>);

impl Default for Reasons {
    fn default() -> Self {
        Self(REASONS.iter().map(|_| Counter::default()).collect())
    }
}

impl Reasons {
    /// Counts one refusal.
    pub fn record(&self, denial: &Denial) {
        // A walk over some thirty short words, on refusals alone.
        let code = denial.code();
        if let Some((_, counter)) = REASONS.iter().zip(&self.0).find(|((known, _), _)| *known == code) {
            counter.add(1);
        }
    }

    fn by_code(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        REASONS.iter().zip(&self.0).map(|((code, class), counter)| (*code, *class, counter.get()))
    }
}

/// How a request of a route ended.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'d> {
    /// The upstream answered, with this status.
    Forwarded(StatusCode),
    /// Another proxy was told that it may forward it.
    Permitted,
    /// We refused.
    Refused(&'d Denial),
}

const CLASSES: usize = 5;

/// The counts of one route, a shard for each core.
#[derive(Debug)]
pub struct RouteCounters {
    name: Arc<str>,
    shards: Sharded<RouteShard>,
}

/// One core's counts of one route. Aligned, so that two cores never write to one cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct RouteShard {
    forwarded: [Counter; CLASSES],
    permitted: Counter,
    durations: Durations,
    refused: Reasons,
    /// Made when first needed: few routes are ever in shadow mode.
    shadowed: OnceLock<Reasons>,
}

impl RouteCounters {
    /// Counters for the route of this name, for this many cores (at least one).
    pub fn new(name: Arc<str>, cores: usize) -> Self {
        Self { name, shards: Sharded::new(cores) }
    }

    /// For how many cores.
    pub fn cores(&self) -> usize {
        self.shards.cores()
    }

    /// The route's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Counts one request and its duration. Each shard has one writer, the core of its number; a number without a
    /// shard is not counted.
    pub fn record(&self, core: usize, outcome: Outcome<'_>, micros: u64) {
        let Some(shard) = self.shards.of(core) else { return };
        match outcome {
            Outcome::Forwarded(status) => shard.forwarded[class(status)].add(1),
            Outcome::Permitted => shard.permitted.add(1),
            Outcome::Refused(denial) => shard.refused.record(denial),
        }
        shard.durations.record(micros);
    }

    /// Counts a refusal that shadow mode did not enforce.
    pub fn shadowed(&self, core: usize, denial: &Denial) {
        if let Some(shard) = self.shards.of(core) {
            shard.shadowed.get_or_init(Reasons::default).record(denial);
        }
    }

    fn sum(&self, of: impl Fn(&RouteShard) -> u64) -> u64 {
        self.shards.sum(of)
    }

    fn used(&self) -> impl Iterator<Item = &RouteShard> {
        self.shards.used()
    }
}

/// The class of a status, from 0 for 1xx; what no class has counts as the last.
fn class(status: StatusCode) -> usize {
    (usize::from(status.as_u16() / 100).max(1) - 1).min(CLASSES - 1)
}

const fn class_name(class: usize) -> &'static str {
    match class {
        0 => "1xx",
        1 => "2xx",
        2 => "3xx",
        3 => "4xx",
        _ => "5xx",
    }
}

/// What one core counts apart from routes. It has one writer: the core itself.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct WorkerCounters {
    /// Connections of clients that are open now.
    pub connections_open: Counter,
    /// Connections of clients that were accepted.
    pub connections_accepted: Counter,
    /// Connections that were closed at once because the bound was reached.
    pub connections_refused: Counter,
    /// Failed TLS handshakes, including timeouts, by reason.
    pub tls_failures: TlsFailures,
    /// Connections that were closed because a request's head did not come in time.
    pub head_timeouts: Counter,
    /// Connections that were closed because no request came.
    pub idle_timeouts: Counter,
    /// Connections that were closed because the client did not read its answer.
    pub reader_timeouts: Counter,
    /// HTTP/2 streams that were reset because the client did not read its answer.
    pub stream_reader_timeouts: Counter,
    /// Connections that were closed because the drain was over.
    pub drain_timeouts: Counter,
    /// Requests that were sent from cleartext to TLS.
    pub redirected: Counter,
    /// Requests whose client left before an answer.
    pub clients_left: Counter,
    /// Requests that were refused before a route was found, by code.
    pub unrouted: Reasons,
    /// Tokens whose verification was remembered.
    pub token_cache_hits: Counter,
    /// Tokens that had to be verified.
    pub token_cache_misses: Counter,
    /// Bytes of memory that remembered verifications take.
    pub token_cache_bytes: Counter,
    /// Header fields under an identity name that were taken from clients' requests.
    pub identity_dropped: Counter,
    /// Requests that are being served now.
    pub requests_in_progress: Counter,
}

/// What a family of samples is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// Builds an exposition in Prometheus's text format 0.0.4.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
    family: &'static str,
}

/// The media type of [`Exposition::finish`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Exposition {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a family. All its samples follow before the next begins, and each name begins once: the format
    /// asks for both.
    pub fn family(&mut self, name: &'static str, help: &'static str, kind: Kind) {
        self.family = name;
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.push(&["# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind, "\n"]);
    }

    /// A sample of the family.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: u64) {
        self.series("", labels, &[]);
        self.push(&[itoa::Buffer::new().format(value), "\n"]);
    }

    /// A sample that is a number of seconds, given in microseconds.
    pub fn sample_seconds(&mut self, labels: &[(&str, &str)], micros: u64) {
        self.series("", labels, &[]);
        self.seconds(micros);
    }

    /// The text.
    pub fn finish(self) -> String {
        self.text
    }

    /// The series of one histogram of durations, over all cores.
    fn durations<'d>(
        &mut self,
        labels: &[(&str, &str)],
        shards: impl Iterator<Item = &'d Durations> + Clone,
    ) {
        let mut total = 0_u64;
        let bounds = BOUNDS.iter().map(|(_, shown)| *shown).chain(["+Inf"]);
        for (place, bound) in bounds.enumerate() {
            total = shards.clone().map(|shard| shard.bucket(place)).fold(total, u64::wrapping_add);
            self.series("_bucket", labels, &[("le", bound)]);
            self.push(&[itoa::Buffer::new().format(total), "\n"]);
        }
        self.series("_sum", labels, &[]);
        self.seconds(shards.map(Durations::micros).fold(0, u64::wrapping_add));
        self.series("_count", labels, &[]);
        self.push(&[itoa::Buffer::new().format(total), "\n"]);
    }

    /// The series of a histogram of whole numbers. `counts` are not cumulated, and one longer than `bounds`.
    pub fn spread(&mut self, labels: &[(&str, &str)], bounds: &[u64], counts: &[u64], sum: u64) {
        let mut total = 0_u64;
        let shown = bounds.iter().map(u64::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in shown.zip(counts) {
            total = total.wrapping_add(*count);
            self.series("_bucket", labels, &[("le", &bound)]);
            self.push(&[itoa::Buffer::new().format(total), "\n"]);
        }
        self.series("_sum", labels, &[]);
        self.push(&[itoa::Buffer::new().format(sum), "\n"]);
        self.series("_count", labels, &[]);
        self.push(&[itoa::Buffer::new().format(total), "\n"]);
    }

    /// The name and labels of a sample, and the space before its value.
    fn series(&mut self, suffix: &str, labels: &[(&str, &str)], more: &[(&str, &str)]) {
        self.push(&[self.family, suffix]);
        for (place, (name, value)) in labels.iter().chain(more).enumerate() {
            self.push(&[if place == 0 { "{" } else { "," }, name, "=\""]);
            for c in value.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        self.text.push_str(if labels.is_empty() && more.is_empty() { " " } else { "} " });
    }

    fn seconds(&mut self, micros: u64) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    }

    fn push(&mut self, parts: &[&str]) {
        self.text.extend(parts.iter().copied());
    }
}

/// Tells all counts. Of the counts of refusals those that are zero are left out: there are some thirty codes
/// for each route, and a route meets few of them. A route's durations are told once it has met a request.
pub fn render(
    out: &mut Exposition,
    routes: &[Arc<RouteCounters>],
    workers: &[Arc<WorkerCounters>],
    limits: &[Arc<Limit>],
    upstreams: &[Arc<Upstream>],
) {
    render_requests(out, routes, workers);
    render_workers(out, workers);
    upstreams::render(out, upstreams);
    process::render(out);
    out.family("portcullis_rate_limited_total", "Requests that a limit refused.", Kind::Counter);
    for limit in limits {
        out.sample(&[("limit", limit.name())], limit.refused());
    }
    let help = "Active keys that lost their place in a limit's table.";
    out.family("portcullis_rate_limit_displaced_total", help, Kind::Counter);
    for limit in limits {
        out.sample(&[("limit", limit.name())], limit.displaced());
    }
}

fn render_requests(out: &mut Exposition, routes: &[Arc<RouteCounters>], workers: &[Arc<WorkerCounters>]) {
    out.family("portcullis_requests_total", "Requests by route and how they ended.", Kind::Counter);
    for route in routes {
        for class in 0..CLASSES {
            let labels = request_labels(&route.name, "forwarded", class_name(class), "");
            out.sample(&labels, route.sum(|shard| shard.forwarded[class].get()));
        }
        let permitted = route.sum(|shard| shard.permitted.get());
        if permitted > 0 {
            out.sample(&request_labels(&route.name, "permitted", class_name(1), ""), permitted);
        }
        refusals(out, &route.name, route.used().map(|shard| &shard.refused));
    }
    // No route has an empty name.
    refusals(out, "", workers.iter().map(|worker| &worker.unrouted));

    let help = "Requests that passed because their route is in shadow mode, by reason of the refusal.";
    out.family("portcullis_shadow_refusals_total", help, Kind::Counter);
    for route in routes {
        for (code, _, count) in sums(route.used().filter_map(|shard| shard.shadowed.get())) {
            out.sample(&[("route", &*route.name), ("reason", code)], count);
        }
    }

    let help = "Time from a request's first reading to its answer's last byte.";
    out.family("portcullis_request_duration_seconds", help, Kind::Histogram);
    // An all-zero histogram adds nothing to a route's five zero request counts.
    for route in routes.iter().filter(|route| route.used().next().is_some()) {
        out.durations(&[("route", &route.name)], route.shards.used().map(|shard| &shard.durations));
    }
}

fn refusals<'r>(out: &mut Exposition, route: &str, shards: impl Iterator<Item = &'r Reasons>) {
    for (code, class, count) in sums(shards) {
        out.sample(&request_labels(route, "refused", class, code), count);
    }
}

/// Each code that was met, with the class of its status and how often.
fn sums<'r>(shards: impl Iterator<Item = &'r Reasons>) -> Vec<(&'static str, &'static str, u64)> {
    let mut sums: Vec<_> = REASONS.iter().map(|(code, class)| (*code, *class, 0_u64)).collect();
    for shard in shards {
        for (sum, (_, _, count)) in sums.iter_mut().zip(shard.by_code()) {
            sum.2 = sum.2.wrapping_add(count);
        }
    }
    sums.retain(|(_, _, count)| *count > 0);
    sums
}

const fn request_labels<'l>(
    route: &'l str,
    outcome: &'l str,
    status: &'l str,
    reason: &'l str,
) -> [(&'static str, &'l str); 4] {
    [("route", route), ("outcome", outcome), ("status", status), ("reason", reason)]
}

fn render_workers(out: &mut Exposition, workers: &[Arc<WorkerCounters>]) {
    type Pick = fn(&WorkerCounters) -> &Counter;
    let families: [(&'static str, &'static str, Kind, Pick); 10] = [
        ("portcullis_connections_open", "Connections of clients, now.", Kind::Gauge, |w| &w.connections_open),
        ("portcullis_connections_total", "Connections accepted.", Kind::Counter, |w| &w.connections_accepted),
        (
            "portcullis_connections_refused_total",
            "Connections closed at once because the bound was reached.",
            Kind::Counter,
            |w| &w.connections_refused,
        ),
        (
            "portcullis_token_cache_hits_total",
            "Tokens whose verification was remembered.",
            Kind::Counter,
            |w| &w.token_cache_hits,
        ),
        ("portcullis_token_cache_misses_total", "Tokens that had to be verified.", Kind::Counter, |w| {
            &w.token_cache_misses
        }),
        (
            "portcullis_token_cache_bytes",
            "Bytes of memory that remembered verifications take, about.",
            Kind::Gauge,
            |w| &w.token_cache_bytes,
        ),
        (
            "portcullis_identity_headers_dropped_total",
            "Identity header fields that clients sent and the gateway removed.",
            Kind::Counter,
            |w| &w.identity_dropped,
        ),
        ("portcullis_redirects_total", "Requests sent from cleartext to TLS.", Kind::Counter, |w| {
            &w.redirected
        }),
        (
            "portcullis_clients_left_total",
            "Requests whose client left before an answer.",
            Kind::Counter,
            |w| &w.clients_left,
        ),
        ("portcullis_requests_in_progress", "Requests whose answer is not complete yet.", Kind::Gauge, |w| {
            &w.requests_in_progress
        }),
    ];
    let sum = |pick: Pick| workers.iter().map(|worker| pick(worker).get()).fold(0, u64::wrapping_add);
    for (name, help, kind, pick) in families {
        out.family(name, help, kind);
        out.sample(&[], sum(pick));
    }
    let timeouts: [(&str, Pick); 4] = [
        ("head", |w| &w.head_timeouts),
        ("idle", |w| &w.idle_timeouts),
        ("reader", |w| &w.reader_timeouts),
        ("drain", |w| &w.drain_timeouts),
    ];
    let help = "Connections closed because something did not come in time.";
    out.family("portcullis_connection_timeouts_total", help, Kind::Counter);
    for (waited_for, pick) in timeouts {
        out.sample(&[("waited_for", waited_for)], sum(pick));
    }
    let help = "HTTP/2 streams reset because a deadline passed.";
    out.family("portcullis_stream_timeouts_total", help, Kind::Counter);
    out.sample(&[("waited_for", "reader")], sum(|worker| &worker.stream_reader_timeouts));
    out.family("portcullis_tls_failures_total", "TLS handshakes that failed, by reason.", Kind::Counter);
    for failure in TlsFailure::ALL {
        let count =
            workers.iter().map(|worker| worker.tls_failures.of(failure).get()).fold(0, u64::wrapping_add);
        out.sample(&[("reason", failure.as_str())], count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::By;
    use std::collections::{BTreeMap, HashSet};
    use std::num::NonZeroU32;
    use std::time::Duration;

    type Samples = BTreeMap<String, f64>;

    /// Reads the text format: every sample belongs to the family that was begun last, no family and no series
    /// comes twice, and every value is a number.
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
                assert!(
                    samples.insert(series.to_owned(), value.parse().unwrap()).is_none(),
                    "{series} twice"
                );
            }
        }
        samples
    }

    /// `{a="b",c="d"}` or nothing, with quotes and backslashes escaped inside the values.
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
            route.record(shard, Outcome::Forwarded(StatusCode::OK), 800);
            route.record(shard, Outcome::Refused(&Denial::ExpiredToken), 20);
        }
        route.record(1, Outcome::Forwarded(StatusCode::NOT_FOUND), 20_000_000);
        // There is no fourth core.
        route.record(3, Outcome::Forwarded(StatusCode::OK), 800);

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
    fn a_route_takes_memory_and_tells_durations_once_it_met_a_request() {
        let (used, unused) = (
            Arc::new(RouteCounters::new("used".into(), 64)),
            Arc::new(RouteCounters::new("unused".into(), 64)),
        );
        used.record(7, Outcome::Refused(&Denial::ExpiredToken), 20);
        assert_eq!((used.used().count(), unused.used().count()), (1, 0));
        let samples = rendered(&[used, unused], &[], &[]);
        let of = |route: &str, family: &str| {
            let label = format!("route=\"{route}\"");
            samples.keys().filter(|key| key.contains(&label) && key.contains(family)).count()
        };
        assert_eq!((of("used", "_duration_"), of("unused", "_duration_")), (BOUNDS.len() + 3, 0));
        // From its first request on, a rate of requests can be told: the count was there before, and zero.
        assert_eq!((of("used", "requests_total"), of("unused", "requests_total")), (CLASSES + 1, CLASSES));
    }

    #[test]
    fn every_denial_is_counted_under_its_own_code() {
        for denial in Denial::every() {
            let worker = Arc::new(WorkerCounters::default());
            worker.unrouted.record(&denial);
            let samples = rendered(&[], &[worker, Arc::default()], &[]);
            let requests: Vec<_> = samples.keys().filter(|key| key.contains("requests_total")).collect();
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
    fn limits_are_told_by_name() {
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

    #[test]
    fn odd_statuses_have_a_class() {
        for (status, name) in
            [(100, "1xx"), (204, "2xx"), (308, "3xx"), (499, "4xx"), (599, "5xx"), (999, "5xx")]
        {
            assert_eq!(class_name(class(StatusCode::from_u16(status).unwrap())), name);
        }
    }
}
