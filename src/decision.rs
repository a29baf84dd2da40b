//! Who, and may they: the pure core.
//!
//! No I/O, no await, no clock of its own, so that the proxy, and whatever else must know a verdict, call one and
//! the same function.

use crate::authenticate::{CredentialError, CredentialPolicy, Credentials, TokenCache, Trust, authenticate};
use crate::authorize::{Permit, Refusal, Rule, authorize};
use crate::clock::Now;
use crate::route::Params;

/// Decides: is the caller who the route asks for, and may they do this?
///
/// # Errors
/// The first check that fails. On a cached token this allocates nothing (`tests/alloc.rs`).
pub fn decide(
    admission: &CredentialPolicy,
    rule: &Rule,
    trust: &Trust,
    shown: &Credentials<'_>,
    params: &Params<'_>,
    now: Now,
    tokens: &mut TokenCache,
) -> Result<Permit, Refusal> {
    let caller = authenticate(admission, trust, shown, now, tokens)
        .map_err(|CredentialError { denial, detail }| Refusal { denial, detail, caller: None })?;
    authorize(rule, caller.clone(), params, now).map_err(|denial| Refusal { denial, detail: None, caller })
}
