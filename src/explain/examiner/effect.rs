//! Evaluates the checks and the limits of a route for one request.

use super::{Evaluation, Examiner, Sender};
use crate::authenticate::{Access, Place, Principal};
use crate::authorize::{Check, RequestFacts};
use crate::denial::Denial;
use crate::explain::explanation::{AppliedLimit, CheckResult, Outcome};
use crate::limit::{By, Limit};
use crate::policy::Route;
use crate::route::Head;
use http::StatusCode;
use std::rc::Rc;

impl Examiner<'_> {
    /// Returns the rate limits that the request would be charged to.
    pub(super) fn limits(
        &self,
        route: &Route,
        sender: &Sender,
        head: &Head<'_>,
        caller: Option<&(Rc<Principal>, Place)>,
    ) -> Vec<AppliedLimit> {
        let principal = caller.map(|(principal, _)| &**principal);
        let explanation = |limit: &Limit, before_token| AppliedLimit {
            name: limit.name().to_string(),
            quota: self.quota_of(limit, principal),
            by: self.counted_by(limit.by(), route, sender, head, principal),
            before_token,
        };
        let before = route.limits.by_address.iter().map(|limit| explanation(limit, true));
        before.chain(route.limits.by_caller.iter().map(|limit| explanation(limit, false))).collect()
    }

    /// Describes the quota of a limit, with the claim that selects the quota.
    fn quota_of(&self, limit: &Limit, principal: Option<&Principal>) -> String {
        let quota = self.own_quota_of(limit, principal);
        match limit.sharing() {
            None => quota,
            Some(sharing) if sharing.is_exact => format!("{quota}, exactly for all gateways"),
            Some(_) => format!("{quota}, for all gateways"),
        }
    }

    fn own_quota_of(&self, limit: &Limit, principal: Option<&Principal>) -> String {
        let Some(claim) = limit.rate_claim() else { return limit.describe() };
        let name = self.policy.trust.claims().get(usize::from(claim.0)).map(ToString::to_string);
        let name = name.unwrap_or_default();
        match (limit.rate_of(principal), principal) {
            ((Some(value), rate), _) => format!("{}, because claim {name} = \"{value}\"", rate.describe()),
            ((None, rate), Some(_)) => format!("{}, the default of claim {name}", rate.describe()),
            ((None, rate), None) => format!("{}, unless claim {name} selects another rate", rate.describe()),
        }
    }

    /// Describes the property by which a limit counts a request, with the value of the property if it is known.
    fn counted_by(
        &self,
        by: &By,
        route: &Route,
        sender: &Sender,
        head: &Head<'_>,
        principal: Option<&Principal>,
    ) -> String {
        let unknown = "of the caller, who is unknown";
        match by {
            By::ClientIp => format!("client address {}", sender.caller.address),
            By::Route => format!("route {}", route.name),
            By::Subject => match principal {
                Some(principal) => format!("subject {} of {}", principal.subject, principal.issuer),
                None => format!("subject {unknown}"),
            },
            By::Header(name) if head.headers.contains_key(name) => format!("header {name}"),
            By::Header(name) => format!("header {name}, which is absent"),
            By::Claim(id) => {
                let name = self.policy.trust.claims().get(usize::from(id.0)).map(ToString::to_string);
                let name = name.unwrap_or_default();
                match principal {
                    Some(principal) if principal.claim(*id).is_some() => format!("claim {name}"),
                    Some(principal) => {
                        format!("subject {}, because claim {name} is missing", principal.subject)
                    }
                    None => format!("claim {name} {unknown}"),
                }
            }
        }
    }
}

/// Evaluates the credential and every check of the rule. The pipeline instead stops at the first check that fails.
pub(super) fn checks(
    route: &Route,
    evaluation: &Evaluation<'_, '_>,
    request: &RequestFacts<'_>,
) -> Vec<CheckResult> {
    let caller = evaluation.caller.as_ref().map(|(principal, _)| principal);
    let of_caller = match &evaluation.outcome {
        Outcome::Refused(denial) if caller.is_none() => Outcome::Refused(denial.clone()),
        Outcome::Passed | Outcome::Redirected | Outcome::Refused(_) => Outcome::Passed,
    };
    let asks = match route.credential_policy.access {
        Access::Public => "nothing: anyone may call",
        Access::Optional => "a valid token, or none",
        Access::Authenticated => "a valid token",
    };
    let mut explanation = vec![CheckResult { asks: asks.to_owned(), outcome: Some(of_caller) }];
    explanation.extend(route.rule.checks().iter().map(|check| {
        let verdict = caller.map(|principal| check.verdict(principal, request));
        let outcome = verdict.map(|verdict| verdict.map_or_else(Outcome::Refused, |()| Outcome::Passed));
        CheckResult { asks: check.to_string(), outcome }
    }));
    explanation
}

/// Returns the schemes of the challenge with which a route refuses a request.
pub(super) fn challenge(route: &Route, denial: &Denial) -> Vec<String> {
    let is_bound = |check: &Check| matches!(check, Check::Bound);
    let schemes: &[&str] = match route.rule.checks().iter().any(is_bound) {
        true => &["DPoP"],
        // A caller that may not do this needs no other credential.
        false if denial.status() != StatusCode::UNAUTHORIZED => {
            route.credential_policy.sources.schemes().get(..1).unwrap_or_default()
        }
        false => route.credential_policy.sources.schemes(),
    };
    schemes.iter().map(|scheme| (*scheme).to_owned()).collect()
}
