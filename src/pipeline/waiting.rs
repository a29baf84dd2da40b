//! Waits for something that the judgement of a request lacks, such as a key that the issuer has just published, and
//! decides about the request again.

use super::stages::Routed;
use crate::authenticate::{CredentialError, Credentials, InVain, Pending, TokenCache, Trust};
use crate::authorize::{Permit, Refusal};
use crate::denial::Denial;
use crate::key_source::{Owner, WAIT_MAX};
use crate::policy::Policy;
use crate::worker::Worker;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// Maximum number of repeated decisions for a request. A wait may join a fetch that began before the key was published,
/// so one repetition may not be enough.
const ROUNDS_MAX: usize = 3;

/// Waits for the missing fact and decides again, within bounds on time and repetitions. If the fact does not exist,
/// returns the first refusal. If the fact could not be checked, returns a denial that says so.
///
/// The result is boxed to keep the future of ordinary requests small.
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
        // The request keeps its turn for all repetitions.
        let credentials = &Credentials { turns: None, ..*credentials };
        if let Some(turn) = refusal.pending.take_if(|pending| matches!(**pending, Pending::Turn(_))) {
            if let Err(InVain::Unavailable(why)) = turn.wait(deadline, worker.now()).await {
                return Err(Refusal { detail: why, ..refusal });
            }
            refusal = match routed.decide(&policy.trust, credentials, worker.now(), &mut worker.tokens()) {
                Ok(permit) => return Ok(permit),
                Err(refusal) => refusal,
            };
        }
        for _ in 0..ROUNDS_MAX {
            let Some(pending) = refusal.pending.take() else { break };
            match pending.wait(deadline, worker.now()).await {
                Ok(()) => {}
                Err(InVain::Absent) => break,
                Err(InVain::Unavailable(why)) => {
                    refusal.denial = Denial::CheckUnavailable;
                    refusal.detail = why.or(refusal.detail);
                    break;
                }
            }
            let Some(trust) = current_trust(worker, policy, &pending) else { break };
            // The core's token cache is only for the current policy's trust, and the current policy may have changed.
            let mut tokens = TokenCache::new(1);
            refusal = match routed.decide(&trust, credentials, worker.now(), &mut tokens) {
                Ok(permit) => return Ok(permit),
                Err(refusal) => refusal,
            };
        }
        Err(refusal)
    })
}

/// Returns the trust of the request's policy, with the fetched keys added. The rest stays unchanged, because the
/// route's rule refers to the claims of that policy. Returns `None` if the current policy no longer asks the issuer in
/// the same way: the first refusal then stands.
fn current_trust(worker: &Worker, policy: &Policy, pending: &Pending) -> Option<Trust> {
    let current = worker.policy();
    match pending {
        Pending::Keys(wanted) => {
            // A token waits only for keys of its issuer.
            let Owner::Issuer(name) = wanted.owner() else { return None };
            let known = current.trust.issuers().iter().find(|issuer| issuer.name == *name);
            let keys = known.map(|issuer| issuer.keys.clone()).unwrap_or_default();
            Some(policy.trust.with_keys(name, &keys))
        }
        Pending::Introspection(inquiry) => {
            let mut known = current.trust.issuers().iter().filter_map(|issuer| issuer.introspector.as_ref());
            known.any(|known| Arc::ptr_eq(known, inquiry.introspector())).then(|| Trust::clone(&policy.trust))
        }
        // A request waits for a turn only once, before all other waits.
        Pending::Turn(_) => None,
    }
}

/// Waits for a turn of the core, in which a signature is checked without a decision about a request: that of a proof for
/// new tokens, of a token that a service inspects, or of a signal.
///
/// # Errors
/// Returns [`Denial::CheckUnavailable`] if the core has no time for the signature.
pub(super) async fn turn(worker: &Worker) -> Result<(), CredentialError> {
    let now = worker.now();
    let taken = Pending::Turn(worker.turns().clone()).wait(now.steady + WAIT_MAX, now).await;
    taken.map_err(|in_vain| {
        let detail = match in_vain {
            InVain::Unavailable(why) => why,
            InVain::Absent => None,
        };
        CredentialError { denial: Denial::CheckUnavailable, detail, pending: None }
    })
}
