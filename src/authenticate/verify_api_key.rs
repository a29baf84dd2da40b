//! Verifies API keys.

use super::api_key::check_form;
use super::cache::{ApiKeyOutcome, TokenCache};
use super::digest::digest_of;
use super::error::CredentialError;
use super::principal::Principal;
use super::trust::Trust;
use crate::clock::Now;
use crate::denial::Denial;
use std::rc::Rc;

/// Verifies an API key.
///
/// # Errors
/// Returns [`Denial::MalformedToken`] if the credential does not have the form of a key, [`Denial::UnknownApiKey`] if
/// the current set does not contain the key, and [`Denial::ExpiredToken`] if the key has expired.
pub(super) fn verify_api_key(
    credential: &[u8],
    trust: &Trust,
    now: Now,
    tokens: &mut TokenCache,
) -> Result<Rc<Principal>, CredentialError> {
    check_form(credential).inspect_err(|_| tokens.count_api_key(ApiKeyOutcome::Malformed))?;
    let found = trust.api_keys().and_then(|keys| Some((keys, keys.get(&digest_of(credential))?)));
    let Some((keys, key)) = found else {
        tokens.count_api_key(ApiKeyOutcome::Unknown);
        return Err(Denial::UnknownApiKey.into());
    };
    if let Some(expired) = key.facts.expires.filter(|expires| now.unix >= *expires) {
        tokens.count_api_key(ApiKeyOutcome::Expired);
        let detail = format!("the API key {} expired {} s ago", key.facts.name, now.unix - expired);
        return Err(CredentialError::because(Denial::ExpiredToken, detail));
    }
    key.note_use(now);
    tokens.count_api_key(ApiKeyOutcome::Accepted);
    if let Some(principal) = tokens.get(&key.identity, trust.epoch(), now) {
        return Ok(principal);
    }
    let principal = Rc::new(key.principal(trust.claims(), trust.identity(), &keys.issuer)?);
    tokens.insert(key.identity, principal.clone());
    Ok(principal)
}
