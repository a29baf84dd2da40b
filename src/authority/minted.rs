//! Tokens that a command makes, beside those that gateways issue.

use crate::clock::Now;
use crate::store::{Standing, Store, StoreError};
use std::time::Duration;

/// Puts a token on record before it is made, if it lives longer than any that a gateway has issued: what revokes it is to
/// outlive it. Returns the generation of the account that the token is about, 0 if there is none, so that the token is as
/// good as that of a login.
///
/// # Errors
/// A sentence for the operator. Then the token may not be made.
pub async fn put_on_record(store: &Store, subject: &str, life: Duration, now: Now) -> Result<i64, String> {
    let fault = |error: StoreError| error.to_string();
    let millis = |seconds: u64| i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
    if store.lives().await.map_err(fault)?.longest < millis(life.as_secs()) {
        let expires = millis(now.unix.saturating_add(life.as_secs()));
        store.record_token(subject, expires).await.map_err(fault)?;
    }
    // After the record: a revocation that comes now has read it, or its generation is read here.
    match store.standing(subject).await.map_err(fault)? {
        None => Ok(0),
        Some(Standing { removed: true, .. }) => Err(format!(
            "\"{subject}\" is the id of an account that was removed: give the token another --sub"
        )),
        Some(Standing { disabled: true, .. }) => Err(format!(
            "the account with the id \"{subject}\" is disabled: portcullis user enable lets its owner in again"
        )),
        Some(standing) => Ok(standing.generation),
    }
}
