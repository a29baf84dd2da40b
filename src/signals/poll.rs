//! Polls a transmitter for security event tokens (RFC 8936). A signal is acknowledged only after its marks are durable.
//! If the marks cannot be stored, the signal is neither acknowledged nor refused, so the transmitter returns it again.

use super::event::SignalOutcome;
use super::held::Held;
use super::receiver::{Poll, Receiver, SignalKind};
use super::recorder::Recorder;
use super::token::SignalError;
use crate::authenticate::Issuer;
use crate::clock::Now;
use crate::denial::Denial;
use crate::journal::{Journal, Level};
use crate::outbound::{Answer, Bounds, Error};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// The maximum number of signals that are read from an answer. The rest is not acknowledged.
const EVENTS_MAX: usize = 64;
/// The bounds of a poll. The transmitter may delay its answer until there is a signal (RFC 8936 section 2.1).
const BOUNDS: Bounds = Bounds { time: Duration::from_secs(60), body: 2 << 20 };
/// The pause after an answer without a new signal. It limits the rate of polls if the transmitter always answers
/// immediately, or returns settled signals again and again.
const PAUSE: Duration = Duration::from_millis(500);
/// The pause after the first error. It doubles with every further error.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// The state of a poller between two polls.
#[derive(Debug, Default)]
pub struct Poller {
    /// The signals to acknowledge with the next poll.
    acknowledged: Vec<String>,
    /// The signals to refuse with the next poll, each with its code and description.
    refused: Map<String, Value>,
    /// The signals whose key is not known yet.
    held: Held,
    errors: u32,
}

/// The outcome of a polled signal.
enum Handled {
    /// It is new, and in force. The next poll acknowledges it.
    Accepted,
    /// It was already known, or is refused. The next poll reports this.
    Settled,
    /// It stays at the transmitter.
    Left,
}

/// The reason why a poll failed.
enum Failure {
    Outbound(Error),
    Answer(&'static str),
}

impl Poller {
    /// Makes one poll and handles its signals. Returns how long to wait until the next one.
    pub async fn poll(
        &mut self,
        receiver: &Receiver,
        poll: &Poll,
        recorder: &Recorder,
        journal: &Journal,
        issuer: impl Fn() -> Option<Issuer>,
    ) -> Duration {
        let answered = self.exchange(poll).await;
        let now = Now::read();
        let counters = &receiver.state.counters;
        match answered {
            Ok(sets) => {
                counters.polled(true, now.unix);
                if std::mem::take(&mut self.errors) > 0 {
                    journal.event(
                        Level::Info,
                        "the transmitter of signals answers again",
                        &[("signals", &receiver.name)],
                    );
                }
                let (mut are_settled, mut is_any_new) = (true, false);
                for (id, set) in sets {
                    match self.handle(receiver, &id, &set, recorder, journal, issuer()).await {
                        Handled::Accepted => is_any_new = true,
                        Handled::Settled => {}
                        Handled::Left => are_settled = false,
                    }
                }
                match (are_settled, is_any_new) {
                    (false, _) => RETRY_MIN,
                    (true, true) => Duration::ZERO,
                    (true, false) => PAUSE,
                }
            }
            Err(why) => {
                counters.polled(false, now.unix);
                let why = match why {
                    Failure::Outbound(error) => error.to_string(),
                    Failure::Answer(why) => why.to_owned(),
                };
                if self.errors == 0 {
                    journal.event(
                        Level::Error,
                        "cannot poll the transmitter of signals",
                        &[("signals", &receiver.name), ("url", &poll.url.to_string()), ("error", &why)],
                    );
                }
                let pause = RETRY_MIN.saturating_mul(1 << self.errors.min(6)).min(RETRY_MAX);
                self.errors = self.errors.saturating_add(1);
                pause
            }
        }
    }

    /// Sends a poll. Returns the signals.
    async fn exchange(&mut self, poll: &Poll) -> Result<Vec<(String, String)>, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(authorization) = &poll.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        // A poll that acknowledges is not held, so that the acknowledgement takes effect at once.
        let acknowledges = !self.acknowledged.is_empty() || !self.refused.is_empty();
        let request = json!({
            "maxEvents": EVENTS_MAX,
            "returnImmediately": acknowledges,
            "ack": self.acknowledged,
            "setErrs": self.refused,
        });
        let body = Bytes::from(request.to_string());
        let answer = poll.client.post(&poll.url, headers, body, BOUNDS).await;
        let answer = answer.and_then(Answer::ok).map_err(Failure::Outbound)?;
        // The transmitter has received the acknowledgements. Signals in an unusable answer are returned by the next
        // poll.
        self.acknowledged.clear();
        self.refused.clear();
        let Ok(Value::Object(mut answer)) = serde_json::from_slice::<Value>(&answer.body) else {
            return Err(Failure::Answer("the answer is not a JSON object"));
        };
        let sets = match answer.remove("sets") {
            None => Map::new(),
            Some(Value::Object(sets)) => sets,
            Some(_) => return Err(Failure::Answer("sets is not an object")),
        };
        let sets = sets.into_iter().take(EVENTS_MAX).map(|(id, set)| match set {
            Value::String(set) => Ok((id, set)),
            _ => Err(Failure::Answer("a signal is not text")),
        });
        sets.collect()
    }

    /// Handles one signal.
    async fn handle(
        &mut self,
        receiver: &Receiver,
        id: &str,
        set: &str,
        recorder: &Recorder,
        journal: &Journal,
        issuer: Option<Issuer>,
    ) -> Handled {
        if issuer.is_none() {
            return Handled::Left;
        }
        let now = Now::read();
        let mut judged = receiver.judge(SignalKind::EventToken, set, issuer, recorder, journal, now).await;
        // A key may be in the next key set. The other signals of the poll do not wait for it.
        let is_held = match &judged {
            Err((_, SignalError { pending: Some(pending), .. })) => self.held.hold(id, pending, now),
            Ok(_) | Err(_) => false,
        };
        if let (true, Err((outcome, _))) = (is_held, &mut judged) {
            *outcome = SignalOutcome::Deferred;
        }
        receiver.count(&judged);
        match judged {
            Ok(outcome) => {
                self.held.release(id);
                self.acknowledged.push(id.to_owned());
                if outcome == SignalOutcome::Accepted { Handled::Accepted } else { Handled::Settled }
            }
            // Neither acknowledged nor refused: the transmitter returns it again.
            Err(_) if is_held => Handled::Left,
            Err((_, error)) if matches!(error.denial, Denial::StoreUnavailable) => Handled::Left,
            Err((_, error)) => {
                self.held.release(id);
                journal.event(
                    Level::Warn,
                    "a polled signal is refused",
                    &[
                        ("signals", &receiver.name),
                        ("code", error.denial.code()),
                        ("detail", error.detail.as_deref().unwrap_or_default()),
                    ],
                );
                // RFC 8935 section 2.4 has no code for a key that cannot be looked up.
                let code = if error.denial == Denial::CheckUnavailable { "invalid_key" } else { error.code };
                let error = json!({ "err": code, "description": error.description });
                self.refused.insert(id.to_owned(), error);
                Handled::Settled
            }
        }
    }
}
