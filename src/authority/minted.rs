//! Records tokens that a command of the CLI issues.

use crate::clock::Now;
use crate::store::{Standing, Store, StoreError};
use std::time::Duration;

/// Records the token's life if it exceeds the longest recorded life. The store then keeps a revocation of the token
/// until the token expires. Returns the generation of the account `subject`, or 0 if there is no such account.
///
/// # Errors
/// A sentence for the operator. The caller must not issue the token then.
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
    // Read the generation after the record is written. A concurrent revocation then either saw the record, or has
    // already raised the generation.
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
