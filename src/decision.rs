//! Decides whether a request is allowed: authentication and authorization as one pure function.
//!
//! The function does no I/O, does not await and reads no clock. Both the proxy and `explain` call it.

use crate::authenticate::{CredentialError, CredentialPolicy, Credentials, TokenCache, Trust, authenticate};
use crate::authorize::{Permit, Refusal, RequestFacts, Rule, authorize};
use crate::clock::Now;
use crate::route::Params;

/// Authenticates the caller and checks the route's rule. Does not allocate if the token is cached (`tests/alloc.rs`).
///
/// # Errors
/// Returns the refusal of the first check that fails.
pub fn decide(
    credential_policy: &CredentialPolicy,
    rule: &Rule,
    trust: &Trust,
    credentials: &Credentials<'_>,
    params: &Params<'_>,
    now: Now,
    tokens: &mut TokenCache,
) -> Result<Permit, Refusal> {
    let caller = authenticate(credential_policy, trust, credentials, now, tokens).map_err(
        |CredentialError { denial, detail, pending }| Refusal { denial, detail, caller: None, pending },
    )?;
    let request = RequestFacts { head: credentials.head, params, now };
    authorize(rule, caller.clone(), &request).map_err(|denial| Refusal {
        denial,
        detail: None,
        caller,
        pending: None,
    })
}
