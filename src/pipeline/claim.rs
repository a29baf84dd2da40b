//! Claims the proof of an allowed request for this gateway, if the gateways share the used proofs.

use crate::authenticate::dpop::UsedProof;
use crate::authorize::{Permit, Refusal};
use crate::policy::Policy;
use std::future::Future;
use std::pin::Pin;

/// Asks the shared state whether another gateway has accepted the proof. The decision stays if none has.
///
/// The result is boxed to keep the future of ordinary requests small.
#[cold]
pub(super) fn claim(
    policy: &Policy,
    proof: UsedProof,
    decision: Result<Permit, Refusal>,
) -> Pin<Box<dyn Future<Output = Result<Permit, Refusal>> + '_>> {
    Box::pin(async move {
        // A refused request reaches no service, so its proof is not claimed.
        let permit = decision?;
        let Some(link) = &policy.link else { return Ok(permit) };
        match link.claim(proof).await {
            Ok(()) => Ok(permit),
            Err((denial, why)) => Err(Refusal {
                denial,
                detail: why.map(|why| why.to_string().into()),
                caller: permit.principal().cloned().zip(permit.place()),
                pending: None,
            }),
        }
    })
}
