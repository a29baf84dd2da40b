//! The decision about a caller: authentication and authorization as one pure function.
//!
//! It does no I/O, does not await and reads no clock, so that the proxy and `explain` call the same function.

use crate::authenticate::{CredentialError, CredentialPolicy, Credentials, TokenCache, Trust, authenticate};
use crate::authorize::{Permit, Refusal, Rule, authorize};
use crate::clock::Now;
use crate::route::Params;

/// Establishes the caller and checks the route's rule.
///
/// # Errors
/// Returns the first check that fails. With a cached token this does not allocate (`tests/alloc.rs`).
pub fn decide(
    credential_policy: &CredentialPolicy,
    rule: &Rule,
    trust: &Trust,
    credentials: &Credentials<'_>,
    params: &Params<'_>,
    now: Now,
    tokens: &mut TokenCache,
) -> Result<Permit, Refusal> {
    let caller = authenticate(credential_policy, trust, credentials, now, tokens)
        .map_err(|CredentialError { denial, detail }| Refusal { denial, detail, caller: None })?;
    authorize(rule, caller.clone(), params, now).map_err(|denial| Refusal { denial, detail: None, caller })
}
