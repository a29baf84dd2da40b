//! The open questions of one issuer, and the requests that wait for their answers.

use super::{Introspector, TokenDigest, Verdict};
use crate::clock::Now;
use crate::key_source::FetchError;
use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use zeroize::Zeroizing;

/// The number of requests that may wait for the answers of one issuer.
const WAITING_MAX: usize = 1024;
/// The number of characters of a failure's reason that the access lines of the requests contain.
const REASON_MAX: usize = 300;

/// A token about which the issuer is to be asked.
#[derive(Clone)]
pub struct Inquiry {
    introspector: Arc<Introspector>,
    digest: TokenDigest,
    token: Arc<Zeroizing<String>>,
}

impl fmt::Debug for Inquiry {
    /// Shows the issuer, and no token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Inquiry").field(&self.introspector.settings.issuer).finish()
    }
}

impl PartialEq for Inquiry {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.introspector, &other.introspector) && self.digest == other.digest
    }
}

impl Eq for Inquiry {}

/// The reason why a request gets no answer about its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// The issuer did not answer, or its answer was unusable, for this reason. `None` if the question was dropped.
    Failed(Option<Arc<str>>),
    /// The question was not answered in time.
    Late,
    /// Too many requests wait.
    Waiting,
    /// Too many questions are open.
    Concurrent,
    /// Too many questions about unknown tokens were asked.
    Rate,
}

/// The names of the bounds, in the order of `Flights::over`.
pub(super) const OVER: [&str; 3] = ["waiting", "concurrent", "rate"];

impl Unanswered {
    /// Describes the reason for the operator.
    pub fn words(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Failed(Some(why)) => {
                return Cow::Owned(format!("the issuer gave no usable answer about the token: {why}"));
            }
            Self::Failed(None) => "the issuer gave no usable answer about the token",
            Self::Late => "the issuer did not answer about the token in time",
            Self::Waiting => "too many requests wait for the issuer's answers",
            Self::Concurrent => "too many questions to the issuer are open (introspection.concurrent)",
            Self::Rate => "too many unknown tokens (introspection.rate)",
        })
    }
}

/// A question that is to be sent. If it is dropped, it has failed.
pub struct Asked {
    introspector: Arc<Introspector>,
    digest: TokenDigest,
    token: Arc<Zeroizing<String>>,
    is_ended: bool,
}

impl fmt::Debug for Asked {
    /// Shows the issuer, and no token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Asked").field(&self.introspector.settings.issuer).finish()
    }
}

impl Asked {
    /// Returns the token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Returns the introspector.
    pub fn introspector(&self) -> &Arc<Introspector> {
        &self.introspector
    }

    /// Ends the question: keeps the answer, and wakes the requests that wait for it. `took` is its duration. Returns
    /// whether the reason of a failure differs from the last one, or an answer follows a failure.
    pub fn end(mut self, answer: Result<Verdict, FetchError>, took: Duration, now: Now) -> bool {
        self.is_ended = true;
        let settings = &self.introspector.settings;
        let mut state = self.introspector.state();
        let ended = answer.as_ref().map(drop).map_err(|error| Some(reason(error)));
        let (outcome, is_news) = match answer {
            Ok(Verdict::Active(claims)) => {
                state.answers.keep_active(self.digest, &claims, settings.max_age, now);
                ("active", state.error.take().is_some())
            }
            Ok(Verdict::Inactive) => {
                state.answers.keep_inactive(self.digest, settings.negative_max_age, now);
                ("inactive", state.error.take().is_some())
            }
            Err(error) => {
                let is_news = state.error.as_ref().is_none_or(|(_, last)| *last != error);
                let kind = error.kind;
                state.error = Some((now.unix, error));
                (kind, is_news)
            }
        };
        state.count(outcome, took);
        state.flights.end(&self.digest, ended);
        is_news
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.is_ended {
            self.introspector.state().flights.end(&self.digest, Err(None));
        }
    }
}

/// The outcome of a question. An error has the reason, unless the question was dropped.
type Ended = Result<(), Option<Arc<str>>>;

/// Returns the reason of a failure for the access line: one line of bounded length.
fn reason(error: &FetchError) -> Arc<str> {
    let escaped = |c: char| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() };
    error.why.chars().take(REASON_MAX).map(escaped).collect::<String>().into()
}

/// The open questions.
#[derive(Debug, Default)]
pub(super) struct Flights {
    /// The outcome of each open question, once it has one.
    open: HashMap<TokenDigest, watch::Sender<Option<Ended>>>,
    /// The questions that are not sent yet.
    queue: VecDeque<(TokenDigest, Queued)>,
    pub(super) waiting: usize,
    /// When the next question about an unknown token would exactly keep the rate.
    paced: Option<Instant>,
    /// The number of times that each bound of [`OVER`] was reached.
    pub(super) over: [u64; OVER.len()],
}

struct Queued(Arc<Zeroizing<String>>);

impl fmt::Debug for Queued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Queued")
    }
}

impl Flights {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    fn end(&mut self, digest: &TokenDigest, ended: Ended) {
        if let Some(flight) = self.open.remove(digest) {
            flight.send_replace(Some(ended));
        }
    }

    /// Keeps the rate of questions about unknown tokens. A pause saves up at most `per`.
    fn pace(&mut self, rate: u32, per: Duration, now: Now) -> bool {
        let interval = per / rate;
        let paced = self.paced.unwrap_or(now.steady).max(now.steady);
        let is_within = paced + interval <= now.steady + per;
        if is_within {
            self.paced = Some(paced + interval);
        }
        is_within
    }
}

/// Counts a request as waiting for as long as it lives.
struct Waiting<'i>(&'i Introspector);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().flights.waiting -= 1;
    }
}

impl Inquiry {
    /// Returns the introspector.
    pub fn introspector(&self) -> &Arc<Introspector> {
        &self.introspector
    }

    /// Waits until there is an answer about the token, but at most until `deadline`.
    ///
    /// # Errors
    /// Returns the reason why there is no answer.
    pub async fn wait(&self, deadline: Instant, now: Now) -> Result<(), Unanswered> {
        let (mut ended, _waiting) = match self.join(now) {
            Ok(Some(ended)) => (ended, Waiting(&self.introspector)),
            Ok(None) => return Ok(()),
            Err(over) => return Err(over),
        };
        match tokio::time::timeout_at(deadline.into(), ended.wait_for(Option::is_some)).await {
            Ok(Ok(ended)) => ended.clone().unwrap_or(Err(None)).map_err(Unanswered::Failed),
            Ok(Err(_)) => Err(Unanswered::Failed(None)),
            Err(_elapsed) => Err(Unanswered::Late),
        }
    }

    /// Joins the open question about the token, or opens one. Returns `None` if there is an answer already.
    fn join(&self, now: Now) -> Result<Option<watch::Receiver<Option<Ended>>>, Unanswered> {
        let settings = &self.introspector.settings;
        let mut guard = self.introspector.state();
        let state = &mut *guard;
        if state.answers.find(&self.digest, now).is_some() {
            return Ok(None);
        }
        let is_known = state.answers.is_known(&self.digest);
        let flights = &mut state.flights;
        let over = |flights: &mut Flights, why: Unanswered, place: usize| {
            flights.over[place] += 1;
            Err(why)
        };
        // A quarter is reserved for tokens that were active lately, so that invented tokens cannot take all.
        let of_known = |all: usize| if is_known { 0 } else { all / 4 };
        if flights.waiting >= WAITING_MAX - of_known(WAITING_MAX) {
            return over(flights, Unanswered::Waiting, 0);
        }
        if let Some(flight) = flights.open.get(&self.digest) {
            flights.waiting += 1;
            return Ok(Some(flight.subscribe()));
        }
        if flights.open.len() >= settings.concurrent - of_known(settings.concurrent) {
            return over(flights, Unanswered::Concurrent, 1);
        }
        if !is_known && !flights.pace(settings.rate, settings.per, now) {
            return over(flights, Unanswered::Rate, 2);
        }
        let flight = watch::Sender::new(None);
        let ended = flight.subscribe();
        flights.open.insert(self.digest, flight);
        flights.queue.push_back((self.digest, Queued(self.token.clone())));
        flights.waiting += 1;
        self.introspector.queued.notify_one();
        Ok(Some(ended))
    }
}

impl Introspector {
    /// Returns the wish for an answer about a token.
    pub fn inquiry(self: &Arc<Self>, digest: TokenDigest, token: &str) -> Inquiry {
        Inquiry { introspector: self.clone(), digest, token: Arc::new(Zeroizing::new(token.to_owned())) }
    }

    /// Waits for the next question that is to be sent. One task calls this function.
    pub async fn next(self: &Arc<Self>) -> Asked {
        loop {
            let next = self.state().flights.queue.pop_front();
            if let Some((digest, Queued(token))) = next {
                return Asked { introspector: self.clone(), digest, token, is_ended: false };
            }
            self.queued.notified().await;
        }
    }

    /// Fails all questions that are not sent yet, because no task sends them any more.
    pub fn abandon(&self) {
        let mut state = self.state();
        while let Some((digest, _)) = state.flights.queue.pop_front() {
            state.flights.end(&digest, Err(None));
        }
    }
}
