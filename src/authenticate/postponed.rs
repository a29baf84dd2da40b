//! Refusals that may change while the request waits: the next key set of a signer may bring its key, and the core may have
//! to serve others first.

use super::error::CredentialError;
use super::keys::KeySet;
use super::pending::Pending;
use crate::denial::Denial;
use crate::key_source::KeySource;
use crate::turns::Turns;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Takes a turn of the core for the check of a signature, unless the request has one already: `turns` is then `None`.
///
/// # Errors
/// Returns an error that waits for a turn if others have to be served first.
#[inline]
pub(super) fn take_turn(turns: &mut Option<&Turns>) -> Result<(), CredentialError> {
    match turns.take() {
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
