//! Verifies the signals of one transmitter and puts their marks into force.

use super::event::{EventKind, SignalCounters, SignalOutcome};
use super::keys::SignalKeys;
use super::recorder::{Recorder, Unrecorded};
use super::subject::Opaque;
use super::token::{Signal, SignalError, Terms, read_event_token, read_logout_token};
use crate::authenticate::{CredentialError, InVain, Issuer, MarkDigest, digest_of};
use crate::clock::Now;
use crate::denial::Denial;
use crate::journal::{Journal, Level};
use crate::key_source::WAIT_MAX;
use crate::outbound::{Client, Url};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::HeaderValue;
use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// The number of accepted signals whose `jti` a receiver remembers. The marks of an older signal that arrives again are
/// written again, without any further effect.
const REMEMBERED: usize = 16_384;
/// The number of times that a signal is judged again after a wait. A wait may join a fetch that began before the key was published, so
/// one repetition may not be enough.
const ROUNDS_MAX: usize = 3;

/// The kinds of signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalKind {
    /// A security event token.
    EventToken,
    /// A logout token.
    LogoutToken,
}

/// The outcome of a signal, with the error for the transmitter.
pub(super) type Judged = Result<SignalOutcome, (SignalOutcome, SignalError)>;

/// The endpoint of a transmitter that is polled.
pub struct Poll {
    /// The URL.
    pub url: Url,
    /// The value of `Authorization`; sensitive.
    pub authorization: Option<HeaderValue>,
    /// The client.
    pub client: Client,
}

impl fmt::Debug for Poll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poll").field("url", &self.url).finish_non_exhaustive()
    }
}

/// A receiver of signals, `[signals.NAME]`.
#[derive(Debug)]
pub struct Receiver {
    /// The name in the policy.
    pub name: Arc<str>,
    /// The issuer whose tokens are revoked.
    pub issuer: Arc<str>,
    /// The `iss` of security event tokens.
    pub transmitter: Arc<str>,
    /// The accepted values of `aud`.
    pub audience: Box<[Box<str>]>,
    /// The keys that verify the signals.
    pub keys: SignalKeys,
    /// The digest of the bearer token that the push endpoint requires of the transmitter.
    pub push_secret: Option<[u8; 32]>,
    /// The endpoint that the gateway polls, if any.
    pub poll: Option<Poll>,
    /// The interpretation of an `opaque` identifier.
    pub opaque: Opaque,
    /// Whether every access token of the issuer has `sid`.
    pub has_sid: bool,
    /// The counts, and the signals that were accepted.
    pub state: Arc<ReceiverState>,
}

/// The part of a receiver that outlives a reload of the policy.
#[derive(Debug, Default)]
pub struct ReceiverState {
    /// The counts.
    pub counters: SignalCounters,
    recent: Mutex<Recent>,
}

/// The last accepted signals.
#[derive(Debug, Default)]
struct Recent {
    known: HashSet<MarkDigest>,
    order: VecDeque<MarkDigest>,
}

impl Recent {
    fn remember(&mut self, id: MarkDigest) {
        if self.known.insert(id) {
            self.order.push_back(id);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

impl Receiver {
    /// Checks the `Authorization` field of a push request.
    ///
    /// # Errors
    /// Returns an error if the policy requires a bearer token and the field does not contain it.
    pub fn authorize(&self, field: Option<&[u8]>) -> Result<(), SignalError> {
        let Some(wanted) = &self.push_secret else { return Ok(()) };
        let given = field.and_then(|field| {
            let (scheme, rest) = field.split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then_some(rest)
        });
        // Both digests have the same length, so the time of the comparison reveals nothing about the secret.
        let given = digest_of(given.unwrap_or_default());
        match verify_slices_are_equal(&given[..], &wanted[..]) {
            Ok(()) => Ok(()),
            Err(_) => Err(SignalError::new(
                "authentication_failed",
                "The bearer token is missing or wrong.",
                Denial::InvalidClient,
            )),
        }
    }

    /// Verifies a signal and applies its marks. When the function returns `Ok`, the marks are durable. `issuer`
    /// returns the issuer in the current policy, whose keys may have changed since the receiver was compiled. A signal
    /// whose key is unknown waits for one fetch of the keys that all such signals and requests share.
    ///
    /// # Errors
    /// If the signal is not valid, not understood, its key could not be looked up, or its marks could not be made
    /// durable.
    pub async fn accept(
        &self,
        kind: SignalKind,
        text: &str,
        issuer: impl Fn() -> Option<Issuer>,
        recorder: &Recorder,
        journal: &Journal,
        now: Now,
    ) -> Result<(), SignalError> {
        let deadline = now.steady + WAIT_MAX;
        let mut outcome = self.judge(kind, text, issuer(), recorder, journal, now).await;
        for _ in 0..ROUNDS_MAX {
            let Err((_, SignalError { pending: Some(pending), .. })) = &outcome else { break };
            match pending.wait(deadline, Now::read()).await {
                Ok(()) => outcome = self.judge(kind, text, issuer(), recorder, journal, Now::read()).await,
                Err(InVain::Absent) => break,
                Err(InVain::Unavailable(_)) => {
                    let error = SignalError::from(CredentialError::from(Denial::CheckUnavailable));
                    outcome = Err((SignalOutcome::Deferred, error));
                    break;
                }
            }
        }
        self.count(&outcome);
        outcome.map(drop).map_err(|(_, error)| error)
    }

    /// Counts the outcome of a signal.
    pub(super) fn count(&self, outcome: &Judged) {
        self.state.counters.outcome(match outcome {
            Ok(outcome) => *outcome,
            Err((outcome, _)) => *outcome,
        });
    }

    /// Judges a signal once, without a wait for its key.
    pub(super) async fn judge(
        &self,
        kind: SignalKind,
        text: &str,
        issuer: Option<Issuer>,
        recorder: &Recorder,
        journal: &Journal,
        now: Now,
    ) -> Judged {
        let Some(issuer) = issuer else {
            // A reload has removed the issuer. The transmitter repeats the signal, and no receiver answers then.
            let error = SignalError::from(CredentialError::from(Denial::CheckUnavailable));
            return Err((SignalOutcome::Deferred, error));
        };
        let (keys, source) = self.keys.current(&issuer);
        let terms = Terms {
            issuer: &self.issuer,
            transmitter: &self.transmitter,
            audience: &self.audience,
            keys: &keys,
            source,
            algorithms: &issuer.algorithms,
            leeway: issuer.leeway,
            // The compiler sets `max_lifetime` for every issuer with signals.
            life: issuer.profile.max_lifetime.unwrap_or(u64::from(u32::MAX)),
            opaque: self.opaque,
            has_sid: self.has_sid,
        };
        let read = match kind {
            SignalKind::EventToken => read_event_token(text, &terms, now),
            SignalKind::LogoutToken => read_logout_token(text, &terms, now),
        };
        let signal = read.map_err(|error| match error.denial {
            Denial::CheckUnavailable => (SignalOutcome::Deferred, error),
            _ => (SignalOutcome::Rejected, error),
        })?;
        let id = self.id(kind, &signal.id);
        if self.recent().known.contains(&id) {
            return Ok(SignalOutcome::Repeated);
        }
        recorder.record(signal.marks.clone(), now).await.map_err(|why| {
            journal.event(
                Level::Error,
                "a signal could not be kept: its tokens are not revoked until the transmitter repeats it",
                &[
                    ("signals", &self.name),
                    ("id", &signal.id),
                    (
                        "why",
                        match why {
                            Unrecorded::Unavailable => "the store or the file does not answer",
                            Unrecorded::Full => "too many marks",
                        },
                    ),
                ],
            );
            let error = SignalError::new(
                "temporarily_unavailable",
                "The signal cannot be kept now. Repeat it later.",
                Denial::StoreUnavailable,
            );
            (SignalOutcome::Failed, error)
        })?;
        self.log(&signal, journal);
        for event in &signal.events {
            self.state.counters.event(*event, now.unix);
        }
        if let Some(why) = signal.not_understood {
            let denial = Denial::MalformedToken(crate::denial::TokenPart::Claims);
            let mut error =
                SignalError::new("invalid_request", "The subject of the event is not understood.", denial);
            error.detail = Some(why.into());
            return Err((SignalOutcome::NotUnderstood, error));
        }
        self.recent().remember(id);
        Ok(SignalOutcome::Accepted)
    }

    fn log(&self, signal: &Signal, journal: &Journal) {
        let events: Vec<_> = signal.events.iter().map(|event| event.as_str()).collect();
        let marks = signal.marks.len() as u64;
        let about_stream = signal.events.contains(&EventKind::StreamUpdated);
        journal.event_with(
            if about_stream { Level::Warn } else { Level::Info },
            if about_stream {
                "the transmitter has changed its stream of signals"
            } else {
                "a signal was accepted"
            },
            &[
                ("signals", (&*self.name).into()),
                ("events", (&*events.join(",")).into()),
                ("marks", marks.into()),
                ("id", (&*signal.id).into()),
                ("status", signal.status.as_deref().unwrap_or_default().into()),
            ],
        );
    }

    fn id(&self, kind: SignalKind, id: &str) -> MarkDigest {
        let digest = digest_of(format!("{kind:?} {id}"));
        digest.first_chunk().copied().expect("a digest has 32 bytes")
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, Recent> {
        self.state.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_signals_are_remembered_and_no_more() {
        let mut recent = Recent::default();
        let id = |n: usize| (n as u128).to_le_bytes();
        for n in 0..REMEMBERED + 10 {
            recent.remember(id(n));
            recent.remember(id(n));
        }
        assert_eq!((recent.known.len(), recent.order.len()), (REMEMBERED, REMEMBERED));
        assert!(!recent.known.contains(&id(9)) && recent.known.contains(&id(10)));
    }
}
