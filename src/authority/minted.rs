//! Tokens that a command makes, in addition to those that gateways issue.

use crate::clock::Now;
use crate::store::{Standing, Store, StoreError};
use std::time::Duration;

/// Records a token before it is made if it lives longer than any that a gateway has issued, so that its revocation
/// outlives it. Returns the generation of the token's account, or 0 without an account, so that the token is equivalent
/// to one from a login.
///
/// # Errors
/// A sentence for the operator. The token must not be made then.
pub async fn record_long_token(
    store: &Store,
    subject: &str,
    life: Duration,
    now: Now,
) -> Result<i64, String> {
    let fault = |error: StoreError| error.to_string();
    let millis = |seconds: u64| i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
    if store.lives().await.map_err(fault)?.longest < millis(life.as_secs()) {
        let expires = millis(now.unix.saturating_add(life.as_secs()));
        store.record_token(subject, expires).await.map_err(fault)?;
    }
    // Read this after the record is written: a concurrent revocation either saw the record, or its generation is read
    // here.
    match store.standing(subject).await.map_err(fault)? {
        None => Ok(0),
        Some(Standing { removed: true, .. }) => {
            Err(format!("\"{subject}\" is the id of a removed account: use another --sub"))
        }
        Some(Standing { disabled: true, .. }) => Err(format!(
            "the account with the id \"{subject}\" is disabled: enable it with portcullis user enable"
        )),
        Some(standing) => Ok(standing.generation),
    }
}
