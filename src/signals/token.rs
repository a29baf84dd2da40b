//! Verifies security event tokens (RFC 8417, Shared Signals Framework section 4) and logout tokens (OpenID Connect
//! Back-Channel Logout section 2.6), and converts them to marks.
//!
//! The checks run in this order: form, type, issuer, signature, audience, times, events. A token has no effect before
//! its signature is verified.

use super::event::{Effect, EventKind};
use super::subject::{Opaque, Reading, Target, targets};
use crate::authenticate::{
    Algorithm, CredentialError, KeySet, LOGOUT_EVENT, MARK_MARGIN, MarkedClaim, Pending, SignalMark,
    Statement, audience_matches, has_type, mark_seconds, numeric_date,
};
use crate::clock::Now;
use crate::denial::{Denial, RequiredClaim, TokenPart};
use crate::key_source::KeySource;
use serde_json::{Map, Value};
use std::sync::Arc;

/// The maximum number of events in one token. Shared Signals allows exactly one.
const EVENTS_MAX: usize = 8;
/// The maximum length of `jti`, `sub` and `sid` in bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// The requirements for a token, and its verification keys.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'r> {
    /// The issuer of the access tokens. It also issues logout tokens.
    pub issuer: &'r str,
    /// The issuer of security event tokens.
    pub transmitter: &'r str,
    /// The accepted values of `aud`.
    pub audience: &'r [Box<str>],
    /// The verification keys.
    pub keys: &'r KeySet,
    /// The source of the keys, if the gateway fetches them.
    pub source: Option<&'r Arc<KeySource>>,
    /// The accepted algorithms.
    pub algorithms: &'r [Algorithm],
    /// The tolerated clock difference in seconds.
    pub leeway: u64,
    /// The maximum life of the issuer's access tokens in seconds.
    pub life: u64,
    /// The interpretation of an `opaque` identifier.
    pub opaque: Opaque,
    /// Whether every access token of the issuer has `sid`.
    pub has_sid: bool,
}

/// A verified signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    /// The `jti`.
    pub id: String,
    /// The kinds of its events.
    pub events: Vec<EventKind>,
    /// The marks that it demands.
    pub marks: Vec<SignalMark>,
    /// The reason why the gateway does not understand the subject of an event.
    pub not_understood: Option<&'static str>,
    /// The `status` of an event about the stream.
    pub status: Option<String>,
}

/// The reason why a signal is not accepted. `code` is from RFC 8935 section 2.4. `code` and `description` are fixed
/// texts.
#[derive(Clone, Debug)]
pub struct SignalError {
    /// The code for the transmitter.
    pub code: &'static str,
    /// The sentence for the transmitter.
    pub description: &'static str,
    /// The refusal in logs and metrics.
    pub denial: Denial,
    /// The facts for the operator.
    pub detail: Option<Box<str>>,
    /// The key that a wait could bring.
    pub pending: Option<Box<Pending>>,
}

impl SignalError {
    pub(crate) fn new(code: &'static str, description: &'static str, denial: Denial) -> Self {
        Self { code, description, denial, detail: Some(description.into()), pending: None }
    }

    fn because(mut self, detail: String) -> Self {
        self.detail = Some(detail.into());
        self
    }
}

impl From<CredentialError> for SignalError {
    /// Converts a refusal of form, key or signature.
    fn from(error: CredentialError) -> Self {
        let (code, description) = match error.denial {
            Denial::UnsupportedAlgorithm | Denial::UnknownKey | Denial::BadSignature => {
                ("invalid_key", "The signature is not by a known key of the transmitter.")
            }
            Denial::CheckUnavailable => (
                "temporarily_unavailable",
                "The key of the signature cannot be looked up now. Repeat the signal later.",
            ),
            _ => ("invalid_request", "The token is not a signed JWT."),
        };
        let detail = error.words().map(Into::into);
        Self { code, description, denial: error.denial, detail, pending: error.pending }
    }
}

type Claims = Map<String, Value>;

fn malformed(description: &'static str) -> SignalError {
    SignalError::new("invalid_request", description, Denial::MalformedToken(TokenPart::Claims))
}

/// Verifies a security event token.
///
/// # Errors
/// Returns the first check that failed.
pub fn read_event_token(text: &str, terms: &Terms<'_>, now: Now) -> Result<Signal, SignalError> {
    let statement = Statement::read(text)?;
    // Without a distinct type, another token of the issuer could be mistaken for an event (RFC 8417 section 4.6).
    if !has_type(statement.header(), &["secevent+jwt", ""]) {
        return Err(SignalError::new("invalid_request", "The type is not secevent+jwt.", Denial::WrongType));
    }
    let claims = signed(statement, terms.transmitter, terms)?;
    // `exp` is forbidden (Shared Signals section 4.1.7), so that no access token or ID token is accepted as an event.
    if claims.contains_key("exp") {
        return Err(SignalError::new(
            "invalid_request",
            "A security event token has no exp.",
            Denial::WrongType,
        ));
    }
    let issued = issued(&claims, terms, now)?;
    let id = id(&claims)?;
    let Some(Value::Object(members)) = claims.get("events") else {
        return Err(malformed("There are no events."));
    };
    if members.is_empty() || members.len() > EVENTS_MAX {
        return Err(malformed("There are no events, or too many."));
    }
    let reading = Reading { issuer: terms.issuer, opaque: terms.opaque, has_sid: terms.has_sid };
    let mut signal = Signal { id, events: Vec::new(), marks: Vec::new(), not_understood: None, status: None };
    for (uri, event) in members {
        let Value::Object(event) = event else { return Err(malformed("An event is not an object.")) };
        let kind = EventKind::of(uri);
        signal.events.push(kind);
        match kind.effect() {
            Effect::None => {}
            Effect::OfStream => {
                signal.status = event.get("status").and_then(Value::as_str).map(str::to_owned)
            }
            Effect::Revokes => {
                let at = event_time(&claims, event, issued);
                // RISC and the drafts of CAEP put the subject into the event.
                let subject = event.get("subject").or_else(|| claims.get("sub_id"));
                let found = match (subject, claims.get("sub")) {
                    (Some(subject), _) => targets(subject, reading),
                    // Without another identifier, `sub` with `iss` is the subject (RFC 8417 section 2.2).
                    (None, Some(Value::String(subject)))
                        if terms.transmitter == terms.issuer && is_short(subject) =>
                    {
                        Ok(vec![(MarkedClaim::Subject, subject.as_str())])
                    }
                    (None, _) => Err("there is no subject"),
                };
                match found {
                    Ok(found) => {
                        signal.marks.extend(found.into_iter().map(|found| mark(found, at, terms, now)))
                    }
                    Err(why) => signal.not_understood = Some(why),
                }
            }
        }
    }
    Ok(signal)
}

/// Verifies a logout token.
///
/// # Errors
/// Returns the first check that failed.
pub fn read_logout_token(text: &str, terms: &Terms<'_>, now: Now) -> Result<Signal, SignalError> {
    let statement = Statement::read(text)?;
    // The type is only recommended (section 2.4). Providers that do not set it write `JWT` or no type.
    if !has_type(statement.header(), &["logout+jwt", "jwt", ""]) {
        return Err(SignalError::new("invalid_request", "The type is not logout+jwt.", Denial::WrongType));
    }
    let claims = signed(statement, terms.issuer, terms)?;
    let issued = issued(&claims, terms, now)?;
    let Some(expires) = time(&claims, "exp") else {
        return Err(SignalError::new(
            "invalid_request",
            "The logout token has no exp.",
            Denial::MissingClaim(RequiredClaim::Expiry),
        ));
    };
    if now.unix >= expires.saturating_add(terms.leeway) {
        return Err(SignalError::new(
            "invalid_request",
            "The logout token has expired.",
            Denial::ExpiredToken,
        ));
    }
    // Only a logout token has this member, and only an ID token has `nonce`.
    let is_logout = matches!(
        claims.get("events"),
        Some(Value::Object(events)) if events.get(LOGOUT_EVENT).is_some_and(Value::is_object)
    );
    if !is_logout {
        return Err(SignalError::new("invalid_request", "There is no logout event.", Denial::WrongType));
    }
    if claims.contains_key("nonce") {
        return Err(SignalError::new("invalid_request", "A logout token has no nonce.", Denial::WrongType));
    }
    let id = id(&claims)?;
    let text = |name| match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if is_short(text) => Ok(Some(text.as_str())),
        Some(_) => Err(malformed("sub or sid is not a short text.")),
    };
    let (subject, session) = (text("sub")?, text("sid")?);
    let mut found: Vec<Target<'_>> = Vec::new();
    found.extend(session.map(|session| (MarkedClaim::Session, session)));
    // If access tokens have no `sid`, only the subject identifies the session's tokens.
    if session.is_none() || !terms.has_sid {
        found.extend(subject.map(|subject| (MarkedClaim::Subject, subject)));
    }
    if found.is_empty() {
        return Err(SignalError::new(
            "invalid_request",
            "There is neither sub nor sid.",
            Denial::MissingClaim(RequiredClaim::Subject),
        ));
    }
    let marks = found.into_iter().map(|found| mark(found, issued, terms, now)).collect();
    Ok(Signal { id, events: vec![EventKind::Logout], marks, not_understood: None, status: None })
}

/// Checks `iss`, the signature and `aud`.
fn signed(statement: Statement<'_>, issuer: &str, terms: &Terms<'_>) -> Result<Claims, SignalError> {
    if statement.claims().get("iss").and_then(Value::as_str) != Some(issuer) {
        let error =
            SignalError::new("invalid_issuer", "The issuer is not expected here.", Denial::UnknownIssuer);
        return Err(error.because(format!("iss is not '{issuer}'")));
    }
    let ours = |text: &str| terms.audience.iter().any(|audience| **audience == *text);
    let is_meant = statement.claims().get("aud").and_then(|aud| audience_matches(aud, ours)).unwrap_or(false);
    let claims = statement.verify((terms.keys, terms.source), terms.algorithms, is_meant)?;
    if !is_meant {
        let error =
            SignalError::new("invalid_audience", "The audience is not this receiver.", Denial::WrongAudience);
        return Err(error.because(format!("aud has none of '{}'", terms.audience.join("', '"))));
    }
    Ok(claims)
}

/// Returns `iat`. Rejects an `iat` in the future.
fn issued(claims: &Claims, terms: &Terms<'_>, now: Now) -> Result<u64, SignalError> {
    let Some(issued) = time(claims, "iat") else {
        return Err(SignalError::new(
            "invalid_request",
            "There is no iat.",
            Denial::MissingClaim(RequiredClaim::Time),
        ));
    };
    if issued > now.unix.saturating_add(terms.leeway) {
        let error = SignalError::new("invalid_request", "iat is in the future.", Denial::TokenNotYetValid);
        return Err(error.because(format!("iat is {} s ahead", issued - now.unix)));
    }
    Ok(issued)
}

fn id(claims: &Claims) -> Result<String, SignalError> {
    match claims.get("jti") {
        Some(Value::String(id)) if is_short(id) => Ok(id.clone()),
        Some(_) | None => Err(malformed("There is no jti.")),
    }
}

fn is_short(text: &str) -> bool {
    !text.is_empty() && text.len() <= TEXT_BYTES_MAX
}

/// Returns a NumericDate, rounded down.
fn time(claims: &Claims, name: &str) -> Option<u64> {
    numeric_date(claims.get(name)?).map(|seconds| seconds.floor() as u64)
}

/// Returns the time of an event, at most the time of the token. Some transmitters write milliseconds. Such a time is
/// later than every token, so the time of the token is used.
fn event_time(claims: &Claims, event: &Claims, issued: u64) -> u64 {
    let at = time(event, "event_timestamp").or_else(|| time(claims, "toe"));
    at.unwrap_or(issued).min(issued)
}

/// Returns the mark for tokens that were issued until `at`. A mark for a session or a token id has no such limit.
fn mark((kind, value): Target<'_>, at: u64, terms: &Terms<'_>, now: Now) -> SignalMark {
    let before = match kind {
        MarkedClaim::Subject => mark_seconds(at),
        MarkedClaim::Session | MarkedClaim::Token => u32::MAX,
    };
    let kept = now.unix.max(at).saturating_add(terms.life).saturating_add(terms.leeway);
    let until = mark_seconds(kept.saturating_add(MARK_MARGIN.as_secs()));
    SignalMark { digest: kind.digest(terms.issuer, value), before, until }
}

#[cfg(test)]
mod tests;
