//! Records decisions for the decision log. An operator can later replay them under another policy.

use super::exchange::Exchange;
use crate::authenticate::{Access, Principal, Sources, credential};
use crate::decision_log;
use crate::denial::Denial;
use crate::policy::{Policy, Route};
use crate::route::Head;
use crate::worker::Worker;

/// Records a decision. Does nothing if the policy disables the log, or if the core has recently recorded enough
/// decisions of this kind.
#[inline]
pub(super) fn observe(
    worker: &Worker,
    policy: &Policy,
    exchange: &Exchange,
    head: &Head<'_>,
    route: Option<&Route>,
    principal: Option<&Principal>,
    denial: Option<&Denial>,
) {
    let Some(recorder) = worker.recorder().filter(|_| policy.front.keeps_decisions) else { return };
    // The policy does not decide about the authority's endpoints, and some of their paths contain a session id.
    if route.is_some_and(|route| route.handler.is_own()) {
        return;
    }
    if !recorder.wants(denial.is_some(), worker.coarse_now()) {
        return;
    }
    // An HTTP/1.0 request without a host cannot be replayed.
    let Some(host) = head.host.as_deref() else { return };
    let credential = match (principal, route) {
        (Some(_), _) => decision_log::LoggedCredential::Verified,
        (None, Some(route)) if route.credential_policy.access != Access::Public => match denial {
            None | Some(Denial::MissingToken) => decision_log::LoggedCredential::None,
            Some(_) => decision_log::LoggedCredential::Refused,
        },
        (None, route) => {
            let usual = Sources::default();
            let sources = route.map_or(&usual, |route| &route.credential_policy.sources);
            match credential::find(head, sources, policy.trust.cookies()) {
                Ok(None) => decision_log::LoggedCredential::None,
                Ok(Some(_)) | Err(_) => decision_log::LoggedCredential::Unexamined,
            }
        }
    };
    let decision = decision_log::Decision {
        time: exchange.now.unix,
        method: head.method.as_str(),
        scheme: exchange.caller.scheme,
        host,
        path: &head.path,
        client: exchange.caller.address,
        credential,
        principal,
        claims: policy.trust.claims(),
        route: route.map(|route| &*route.name),
        code: denial.map(Denial::code),
        shadow: denial.is_some() && route.is_some_and(|route| route.shadow.is_some()),
    };
    recorder.keep(exchange.now, &decision);
}
