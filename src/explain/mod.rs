//! Evaluates a hypothetical request, and explains the decision.
//!
//! The request passes through the code that serves clients' requests, with three differences. Limits are listed but not
//! charged. Nothing is forwarded. Claims may describe the caller instead of a token.

pub(crate) mod describe;
mod examiner;
mod explanation;
mod near;
pub(crate) mod text;

pub use examiner::Examiner;
#[cfg(test)]
pub(crate) use examiner::table_keys;
pub use explanation::{
    AppliedLimit, CallerIdentity, CheckResult, CrossOrigin, Explanation, MatchedRoute, NOT_SHOWN, Outcome,
    Responder, UpstreamRequest, Verdict,
};
pub use near::{NearReason, NearRoute};

use crate::peer::Peer;
use crate::peer::forwarded;
use crate::policy::{Policy, Question};

/// Returns the position of the matching route in [`Policy::routes`]. Returns `None` if no route matches, or if an
/// earlier stage refuses or redirects the request.
pub fn matched_route(policy: &Policy, question: &Question) -> Option<usize> {
    let peer = Peer { address: question.client, scheme: question.scheme };
    let (caller, _) = forwarded::read(&peer, &policy.front.trusted_proxies, &question.parts.headers);
    if policy.front.redirects(question.scheme) && policy.front.redirects(caller.scheme) {
        return None;
    }
    let head = policy.front.head(&question.parts).ok()?;
    policy.table.find(&head).ok().map(|found| *found.entry)
}

/// Returns the verdict on a request. To evaluate several requests under one policy, create an [`Examiner`].
pub fn verdict(policy: &Policy, question: &Question) -> Verdict {
    Examiner::new(policy).verdict(question)
}

/// Explains the decision on a request. To explain several requests under one policy, create an [`Examiner`].
pub fn explain(policy: &Policy, question: &Question) -> Explanation {
    Examiner::new(policy).explain(question)
}
