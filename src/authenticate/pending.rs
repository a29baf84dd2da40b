//! What a refused request can wait for. Authentication itself never waits: its refusal says for what the pipeline can.

use super::error::CredentialError;
use super::trust::Issuer;
use crate::clock::Now;
use crate::denial::Denial;
use crate::key_source::{Waited, Wanted};
use serde_json::{Map, Value};
use std::time::Instant;

/// A fact that is missing, and that a wait can bring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pending {
    /// A key of the issuer.
    Keys(Wanted),
}

impl Pending {
    /// Waits until the token can be judged again, `deadline` at the latest.
    ///
    /// # Errors
    /// If waiting was in vain: the denial for a check that could not be made, or `None` if the first one stands.
    pub async fn wait(&self, deadline: Instant, now: Now) -> Result<(), Option<Denial>> {
        match self {
            Self::Keys(wanted) => match wanted.wait(deadline, now).await {
                Waited::Fetched => Ok(()),
                Waited::Absent => Err(None),
                Waited::Unavailable => Err(Some(Denial::CheckUnavailable)),
            },
        }
    }

    /// Says what the gateway would do about it, for an explanation, which never waits.
    pub const fn words(&self) -> &'static str {
        match self {
            Self::Keys(_) => "a running gateway fetches the issuer's keys and decides again",
        }
    }
}

/// Adds to the refusal of an unverified token that the issuer's next key set may bring its key. `is_current`: the token
/// is within its times. Nobody waits for the key of another.
#[cold]
pub(super) fn unverified(
    refused: CredentialError,
    header: &Map<String, Value>,
    issuer: &Issuer,
    is_current: bool,
) -> CredentialError {
    let Some(source) = &issuer.source else { return refused };
    let kid = header.get("kid").and_then(Value::as_str);
    let is_known = kid.is_some() && issuer.keys.iter().any(|key| key.id() == kid);
    let refused = match &refused.denial {
        Denial::UnknownKey if issuer.keys.is_empty() => {
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
    if is_current {
        refused.until(Pending::Keys(source.wanted(kid.filter(|_| !has_bare_keys(issuer)))))
    } else {
        refused
    }
}

/// Whether the issuer publishes keys without `kid`.
fn has_bare_keys(issuer: &Issuer) -> bool {
    issuer.keys.iter().any(|key| key.id().is_none())
}
