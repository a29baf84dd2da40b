//! Writes Prometheus's text format.

use crate::counter::{BOUNDS, Durations, total};
use std::fmt::Write;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A value that only grows.
    Counter,
    /// A value that can grow and shrink.
    Gauge,
    /// Counts of observed values, by size.
    Histogram,
}

#[derive(Debug, Default)]
pub(crate) struct Exposition {
    text: String,
    family: &'static str,
}

/// The media type of Prometheus's text format 0.0.4.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Exposition {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Begins a family of samples. All samples of a family must follow directly, and each family name may occur only
    /// once.
    pub(crate) fn family(&mut self, name: &'static str, help: &'static str, kind: Kind) {
        self.family = name;
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.push(&["# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind, "\n"]);
    }

    /// Adds a sample to the current family.
    pub(crate) fn sample(&mut self, labels: &[(&str, &str)], value: u64) {
        self.series("", labels, &[]);
        self.push(&[itoa::Buffer::new().format(value), "\n"]);
    }

    /// Adds a sample in seconds. `micros` is in microseconds.
    pub(crate) fn sample_seconds(&mut self, labels: &[(&str, &str)], micros: u64) {
        self.series("", labels, &[]);
        self.seconds(micros);
    }

    pub(crate) fn finish(self) -> String {
        self.text
    }

    /// Adds a histogram of durations, summed over all cores.
    pub(super) fn durations<'d>(
        &mut self,
        labels: &[(&str, &str)],
        shards: impl Iterator<Item = &'d Durations> + Clone,
    ) {
        let bounds = BOUNDS.iter().map(|(_, shown)| *shown);
        let counts = (0..=BOUNDS.len()).map(|place| total(shards.clone().map(|shard| shard.bucket(place))));
        let count = self.buckets(labels, bounds, counts);
        self.series("_sum", labels, &[]);
        self.seconds(total(shards.map(Durations::micros)));
        self.count(labels, count);
    }

    /// Adds a histogram of whole numbers. `counts` is not cumulative, and has one element more than `bounds`.
    pub(crate) fn spread(&mut self, labels: &[(&str, &str)], bounds: &[u64], counts: &[u64], sum: u64) {
        let count = self.buckets(labels, bounds.iter().map(u64::to_string), counts.iter().copied());
        self.series("_sum", labels, &[]);
        self.push(&[itoa::Buffer::new().format(sum), "\n"]);
        self.count(labels, count);
    }

    /// Adds a histogram of durations in seconds. `bounds` are in milliseconds and `sum` is in microseconds; `counts` is
    /// not cumulative, and has one element more than `bounds`.
    pub(crate) fn spread_durations(
        &mut self,
        labels: &[(&str, &str)],
        bounds: &[u64],
        counts: &[u64],
        sum: u64,
    ) {
        let bounds = bounds.iter().map(|bound| (*bound as f64 / 1000.0).to_string());
        let count = self.buckets(labels, bounds, counts.iter().copied());
        self.series("_sum", labels, &[]);
        self.seconds(sum);
        self.count(labels, count);
    }

    /// Writes the buckets of a histogram, the last one without a bound. Returns the number of observations.
    fn buckets<B: AsRef<str>>(
        &mut self,
        labels: &[(&str, &str)],
        bounds: impl Iterator<Item = B>,
        counts: impl Iterator<Item = u64>,
    ) -> u64 {
        let mut sum = 0_u64;
        for (bound, count) in bounds.map(Some).chain([None]).zip(counts) {
            sum = sum.wrapping_add(count);
            self.series("_bucket", labels, &[("le", bound.as_ref().map_or("+Inf", |bound| bound.as_ref()))]);
            self.push(&[itoa::Buffer::new().format(sum), "\n"]);
        }
        sum
    }

    /// Writes the number of observations of a histogram.
    fn count(&mut self, labels: &[(&str, &str)], count: u64) {
        self.series("_count", labels, &[]);
        self.push(&[itoa::Buffer::new().format(count), "\n"]);
    }

    /// Writes the name and labels of a sample, and a space.
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
