//! The state of the questions to one issuer: the answers, the open questions, and the counts for operators.

use super::answers::Answers;
use super::flights::{Flights, OVER};
use crate::key_source::FetchError;
use crate::outbound::Url;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The upper bounds of the histogram of durations, in milliseconds.
pub const LATENCIES: [u64; 7] = [5, 10, 50, 100, 500, 1000, 5000];

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) answers: Answers,
    pub(super) flights: Flights,
    /// The endpoint according to the issuer's metadata, and when they were read.
    pub(super) metadata: Option<(Url, Instant)>,
    /// The number of look-ups that found an answer.
    pub(super) hits: u64,
    pub(super) error: Option<(u64, FetchError)>,
    outcomes: BTreeMap<&'static str, u64>,
    latencies: [u64; LATENCIES.len() + 1],
    micros: u64,
}

impl State {
    /// Counts an ended question.
    pub(super) fn count(&mut self, outcome: &'static str, took: Duration) {
        *self.outcomes.entry(outcome).or_default() += 1;
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let place = LATENCIES.iter().position(|bound| millis <= *bound).unwrap_or(LATENCIES.len());
        self.latencies[place] += 1;
        self.micros = self.micros.saturating_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn status(&self) -> Status {
        let (active, inactive, bytes) = self.answers.sizes();
        Status {
            active,
            inactive,
            bytes,
            open: self.flights.len(),
            hits: self.hits,
            outcomes: self.outcomes.clone(),
            over: OVER.iter().copied().zip(self.flights.over).collect(),
            latencies: self.latencies.to_vec(),
            micros: self.micros,
            error: self.error.clone(),
        }
    }
}

/// The state for operators.
#[derive(Clone, Debug)]
pub struct Status {
    /// The number of kept answers about active tokens. Some may be too old to be used.
    pub active: usize,
    /// The number of kept answers about inactive tokens.
    pub inactive: usize,
    /// The size of the answers about active tokens in bytes.
    pub bytes: usize,
    /// The number of open questions.
    pub open: usize,
    /// The number of look-ups that found an answer.
    pub hits: u64,
    /// The number of ended questions by outcome: `active`, `inactive`, or the kind of the error.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// The number of requests that were refused without a question, by the bound that was reached.
    pub over: Vec<(&'static str, u64)>,
    /// The ended questions by duration: a count for each bound of [`LATENCIES`], and a count for longer ones.
    pub latencies: Vec<u64>,
    /// The sum of all durations in microseconds.
    pub micros: u64,
    /// The time of the last failure in seconds since 1970, and its reason; `None` if the last question was answered.
    pub error: Option<(u64, FetchError)>,
}
