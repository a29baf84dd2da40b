//! Waits for what a refused request lacks, such as a key that its issuer has just published, and decides again.

use super::stages::Routed;
use crate::authenticate::{Credentials, Pending, TokenCache, Trust};
use crate::authorize::{Permit, Refusal};
use crate::key_source::WAIT_MAX;
use crate::policy::Policy;
use crate::worker::Worker;
use std::future::Future;
use std::pin::Pin;

/// How often a request is decided about again. Each wait but the last may end before the fetch that can answer it began.
const ROUNDS_MAX: usize = 3;

/// Decides again about a request that waits for something, within a bound on time and number. A request that waits in
/// vain stays refused; if the check could not be made, it is refused for that.
///
/// The result is boxed, so that a request that waits for nothing does not carry the room for a wait.
#[cold]
pub(super) fn decide_after_wait<'w>(
    worker: &'w Worker,
    policy: &'w Policy,
    routed: &'w Routed<'_, '_>,
    credentials: &'w Credentials<'_>,
    first: Refusal,
) -> Pin<Box<dyn Future<Output = Result<Permit, Refusal>> + 'w>> {
    Box::pin(async move {
        let deadline = worker.now().steady + WAIT_MAX;
        let mut refusal = first;
        for _ in 0..ROUNDS_MAX {
            let Some(pending) = refusal.pending.take() else { break };
            if let Err(denial) = pending.wait(deadline, worker.now()).await {
                if let Some(denial) = denial {
                    refusal.denial = denial;
                }
                break;
            }
            let trust = current_trust(worker, policy, &pending);
            // The core's cache belongs to the trust of the policy in force, which may be another one by now.
            let mut tokens = TokenCache::new(1);
            refusal = match routed.decide(&trust, credentials, worker.now(), &mut tokens) {
                Ok(permit) => return Ok(permit),
                Err(refusal) => refusal,
            };
        }
        Err(refusal)
    })
}

/// Returns the trust of the request's policy with what the wait brought. The rest stays as it was when the request
/// began: the route's rule refers to the claims of its own policy.
fn current_trust(worker: &Worker, policy: &Policy, pending: &Pending) -> Trust {
    match pending {
        Pending::Keys(wanted) => {
            let current = worker.policy();
            let known = current.trust.issuers().iter().find(|issuer| issuer.name == *wanted.issuer());
            let keys = known.map(|issuer| issuer.keys.clone()).unwrap_or_default();
            policy.trust.with_keys(wanted.issuer(), &keys)
        }
    }
}
