//! What would become of a request: asked, and not served.
//!
//! The stages are those that serve: the head is read, the route found, the caller established, the rule asked and the
//! outgoing head written by the very functions of the pipeline. What is different is only what a question has not: limits
//! are named and not charged, nothing is sent, and a caller may be described by claims instead of a token.

pub(crate) mod describe;
mod examiner;
mod explanation;
mod near;
pub(crate) mod text;

pub use examiner::Examiner;
pub use explanation::{
    AppliedLimit, CallerIdentity, CheckResult, Explanation, MatchedRoute, Outcome, UpstreamRequest, Verdict,
};
pub use near::{NearReason, NearRoute};

use crate::peer::Peer;
use crate::peer::forwarded;
use crate::policy::{Policy, Question};

/// Returns the position in [`Policy::routes`] of the route that covers a request; `None` if no route does, or if the
/// request is refused or redirected first.
pub fn matched_route(policy: &Policy, question: &Question) -> Option<usize> {
    let peer = Peer { address: question.client, scheme: question.scheme };
    let (caller, _) = forwarded::read(&peer, &policy.front.trusted_proxies, &question.parts.headers);
    if policy.front.redirects(question.scheme) && policy.front.redirects(caller.scheme) {
        return None;
    }
    let head = policy.front.head(&question.parts).ok()?;
    policy.table.find(&head).ok().map(|found| *found.entry)
}

/// The verdict on a request. Whoever has many questions makes one [`Examiner`].
pub fn verdict(policy: &Policy, question: &Question) -> Verdict {
    Examiner::new(policy).verdict(question)
}

/// All that can be told of a request. Whoever has many questions makes one [`Examiner`].
pub fn explain(policy: &Policy, question: &Question) -> Explanation {
    Examiner::new(policy).explain(question)
}
