//! The reasons for which a request waits before it can be judged. Authentication never waits; the pipeline does.

use super::error::CredentialError;
use super::keys::KeySet;
use crate::clock::Now;
use crate::denial::Denial;
use crate::introspection::Inquiry;
use crate::key_source::{Asked, KeySource, Waited, Wanted};
use crate::turns::Turns;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Instant;

/// Something that the judgement of a request lacks, and that may come while the request waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pending {
    /// A key of the issuer.
    Keys(Wanted),
    /// The issuer's answer about the token.
    Introspection(Inquiry),
    /// A turn of the core for the check of a signature.
    Turn(Turns),
}

/// Why a wait was in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InVain {
    /// The fact does not exist, so the first refusal stands.
    Absent,
    /// The fact could not be checked, for this reason if the first refusal does not give it.
    Unavailable(Option<Box<str>>),
}

impl Pending {
    /// Waits until the token can be judged again, `deadline` at the latest.
    ///
    /// # Errors
    /// If waiting was in vain.
    pub async fn wait(&self, deadline: Instant, now: Now) -> Result<(), InVain> {
        match self {
            Self::Keys(wanted) => match wanted.wait(deadline, now).await {
                Waited::Fetched => Ok(()),
                Waited::Absent => Err(InVain::Absent),
                Waited::Unavailable => Err(InVain::Unavailable(None)),
            },
            Self::Introspection(inquiry) => {
                let answered = inquiry.wait(deadline, now).await;
                answered.map_err(|unanswered| InVain::Unavailable(Some(unanswered.words().into())))
            }
            Self::Turn(turns) => {
                let granted = tokio::time::timeout_at(deadline.into(), turns.take()).await;
                granted.map_err(|_elapsed| {
                    InVain::Unavailable(Some("the core had no time to check the signature".into()))
                })
            }
        }
    }

    /// Asks for the fact without waiting for it.
    pub fn ask(&self, now: Now) -> Asked {
        match self {
            Self::Keys(wanted) => wanted.ask(now),
            // Only signals ask without waiting, and their statements are signed.
            Self::Introspection(_) => Asked::Absent,
            // Signals are not judged by a core.
            Self::Turn(_) => Asked::Absent,
        }
    }

    /// Says what the gateway would do about it, for an explanation, which never waits.
    pub const fn words(&self) -> &'static str {
        match self {
            Self::Keys(_) => "a running gateway fetches the issuer's keys and decides again",
            Self::Introspection(_) => "a running gateway asks the issuer about the token and decides again",
            Self::Turn(_) => "a running gateway checks the signature after those of other requests",
        }
    }
}

/// Takes a turn of the core for the check of a signature. Without `turns`, the caller has a turn already.
///
/// # Errors
/// Returns an error that waits for a turn if others have to be served first.
#[inline]
pub(super) fn take_turn(turns: Option<&Turns>) -> Result<(), CredentialError> {
    match turns {
        Some(turns) if !turns.try_take() => {
            Err(CredentialError::from(Denial::CheckUnavailable).until(Pending::Turn(turns.clone())))
        }
        Some(_) | None => Ok(()),
    }
}

/// Adds to the refusal of an unverified token that the next key set of its signer may bring its key. `is_current`: the
/// token's other facts do not refuse it. Nobody waits for the key of another.
#[cold]
pub(super) fn until_keys(
    refused: CredentialError,
    header: &Map<String, Value>,
    (keys, source): (&KeySet, Option<&Arc<KeySource>>),
    is_current: bool,
) -> CredentialError {
    let Some(source) = source else { return refused };
    let kid = header.get("kid").and_then(Value::as_str);
    let is_known = kid.is_some() && keys.iter().any(|key| key.id() == kid);
    let refused = match &refused.denial {
        Denial::UnknownKey if keys.is_empty() => {
            let status = source.status();
            let why = status.error.map_or("not tried yet".to_owned(), |(_, error)| error.to_string());
            let detail = format!("no keys of the issuer could be fetched: {why}");
            CredentialError::because(Denial::CheckUnavailable, detail)
        }
        Denial::UnknownKey => refused,
        // Keys without `kid` are tried for tokens that no `kid` leads to a key, and their successors look the same.
        Denial::BadSignature if !is_known => refused,
        _ => return refused,
    };
    let has_bare_keys = || keys.iter().any(|key| key.id().is_none());
    if is_current {
        refused.until(Pending::Keys(source.wanted(kid.filter(|_| !has_bare_keys()))))
    } else {
        refused
    }
}
