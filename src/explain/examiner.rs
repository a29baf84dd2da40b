//! Evaluates hypothetical requests with the code that serves clients' requests.

mod cross_origin;
mod described;
mod effect;
mod outgoing;

use super::explanation::{CallerIdentity, Explanation, MatchedRoute, Outcome, UpstreamRequest, Verdict};
use super::near;
use crate::authenticate::{Algorithm, Credentials, KeySet, Place, Principal, TokenCache, Trust};
use crate::authorize::{Permit, Refusal, RequestFacts};
use crate::clock::Now;
use crate::denial::{Challenge, Denial};
use crate::peer::forwarded;
use crate::peer::{Caller, Peer, Relayed, Scheme};
use crate::pipeline::{preflight, stages};
use crate::policy::{Policy, Question};
use crate::respond::cors;
use crate::route::{Found, Head};
use crate::tls::{ClientCertificate, ClientRule, Misdirected};
use aws_lc_rs::rand;
use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, Version, header};
use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

/// The maximum number of described callers whose verification is cached.
const CALLERS: usize = 1024;

/// Evaluates hypothetical requests under one policy. An examiner does not serve requests, and does not run on a core.
#[derive(Debug)]
pub struct Examiner<'p> {
    policy: &'p Policy,
    /// The policy's trust, which verifies the tokens that questions contain.
    trust: Trust,
    /// The policy's trust plus the examiner's key. It verifies the tokens that the examiner creates for described
    /// callers.
    assuming: Trust,
    key: [u8; 32],
    tokens: RefCell<TokenCache>,
    described: RefCell<TokenCache>,
}

/// A request with its credential, and what verifies the credential.
struct Prepared<'e> {
    parts: Parts,
    trust: Cow<'e, Trust>,
    cache: &'e RefCell<TokenCache>,
    /// The certificate of the client's connection.
    certificate: Option<ClientCertificate>,
}

/// The sender of a request: the caller, and the request that a trusted proxy relays, if any.
struct Sender {
    caller: Caller,
    relayed: Option<Box<Relayed>>,
}

/// The results of the stages that a request has reached.
struct Evaluation<'p, 'h> {
    found: Option<Found<'p, 'h, usize>>,
    /// The answer to a preflight, and the position of its route. No later stage sees a preflight.
    preflight: Option<(usize, Response<Bytes>)>,
    caller: Option<(Rc<Principal>, Place)>,
    permit: Option<Permit>,
    outcome: Outcome,
    /// The value that authentication found and the value that it expected, if authentication refused the request.
    detail: Option<Box<str>>,
    shadow: bool,
}

impl<'p> Examiner<'p> {
    /// Creates an examiner for a policy.
    pub fn new(policy: &'p Policy) -> Self {
        let mut key = [0; 32];
        // Without random numbers, the key is predictable. This is harmless, because clients' requests are verified with
        // a trust that does not contain this key.
        let _ = rand::fill(&mut key);
        let mut keys = KeySet::default();
        keys.add_secret(None, Algorithm::HS256, &key)
            .expect("256 bits are long enough, and random ones are no key of another kind");
        Self {
            policy,
            trust: policy.trust.uncounted(),
            assuming: policy.trust.assuming(&keys),
            key,
            tokens: RefCell::new(TokenCache::new(1)),
            described: RefCell::new(TokenCache::new(CALLERS)),
        }
    }

    /// Returns the policy under which requests are evaluated.
    pub fn policy(&self) -> &'p Policy {
        self.policy
    }

    /// Returns the verdict on a request.
    pub fn verdict(&self, question: &Question) -> Verdict {
        let prepared = self.prepare(question);
        let parts = &prepared.parts;
        let read = self.policy.front.head(parts);
        let evaluation = match &read {
            Ok(head) => self.follow(head, &self.sender(question, parts), question, &prepared),
            Err(denial) => Evaluation::ended(denial.clone()),
        };
        evaluation.verdict()
    }

    /// Returns the verdict on a request and, if the request is forwarded, the upstream's request. This is faster than
    /// `explain`, which examines every route.
    pub fn verdict_and_request(&self, question: &Question) -> (Verdict, Option<UpstreamRequest>) {
        let prepared = self.prepare(question);
        let parts = &prepared.parts;
        let sender = self.sender(question, parts);
        let read = self.policy.front.head(parts);
        let (evaluation, outgoing) = match &read {
            Ok(head) => {
                let evaluation = self.follow(head, &sender, question, &prepared);
                let outgoing = self.outgoing(head, &evaluation, parts, &sender, question);
                (evaluation, outgoing)
            }
            Err(denial) => (Evaluation::ended(denial.clone()), None),
        };
        (evaluation.verdict(), outgoing)
    }

    /// Returns whether clients of the request's host are asked for a certificate: `required`, `optional` or `none`.
    pub fn client_certificate(&self, question: &Question) -> &'static str {
        match self.policy.front.head(&question.parts) {
            Ok(head) => demand(self.client_rule(&head, question.scheme)),
            Err(_) => demand(None),
        }
    }

    /// Returns the rule for the certificates of clients that ask for the host in the handshake (SNI).
    fn client_rule(&self, head: &Head<'_>, scheme: Scheme) -> Option<&ClientRule> {
        let rules = self.policy.front.client_rules.as_ref().filter(|_| scheme == Scheme::Https)?;
        rules.get(head.host.as_deref()).map(|rule| &**rule)
    }

    /// Returns the detailed reason for a refusal, for operators; `None` if the request is not refused.
    pub fn reason(&self, question: &Question) -> Option<String> {
        let prepared = self.prepare(question);
        let parts = &prepared.parts;
        let read = self.policy.front.head(parts);
        let evaluation = match &read {
            Ok(head) => self.follow(head, &self.sender(question, parts), question, &prepared),
            Err(denial) => Evaluation::ended(denial.clone()),
        };
        self.why(read.as_ref().ok(), &evaluation, question.now)
    }

    fn why(&self, head: Option<&Head<'_>>, evaluation: &Evaluation<'_, '_>, now: Now) -> Option<String> {
        let Outcome::Refused(denial) = &evaluation.outcome else { return None };
        // A request that cannot be forwarded is refused after the rule, in shadow mode also after a rule that it does not meet.
        let is_of_request = matches!(denial, Denial::BadRequest(_));
        let by_rule = || {
            if is_of_request {
                return None;
            }
            let (found, (principal, _)) = (evaluation.found.as_ref()?, evaluation.caller.as_ref()?);
            let request = RequestFacts { head: head?, params: &found.params, now };
            self.policy.routes[*found.entry].rule.why(principal, &request)
        };
        let detail = evaluation.detail.as_deref().map(str::to_owned);
        detail.or_else(by_rule).or_else(|| denial.finer().map(str::to_owned))
    }

    /// Explains the decision on a request.
    pub fn explain(&self, question: &Question) -> Explanation {
        let policy = self.policy;
        let prepared = self.prepare(question);
        let parts = &prepared.parts;
        let sender = self.sender(question, parts);
        let authority = question.parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let mut explanation = Explanation {
            method: parts.method.to_string(),
            url: format!(
                "{}://{}{}",
                question.scheme.as_str(),
                authority.unwrap_or_default(),
                question.parts.uri
            ),
            client: sender.caller.address,
            host: None,
            path: None,
            client_certificate: None,
            route: None,
            near: Vec::new(),
            caller: None,
            cross_origin: None,
            checks: Vec::new(),
            limits: Vec::new(),
            outcome: Outcome::Passed,
            shadow: false,
            status: None,
            detail: None,
            reason: None,
            challenge: Vec::new(),
            resource_metadata: None,
            outgoing: None,
        };
        let read = policy.front.head(parts);
        let mut evaluation = match &read {
            Ok(head) => self.follow(head, &sender, question, &prepared),
            Err(denial) => Evaluation::ended(denial.clone()),
        };
        // Tests and reviews ask about the rule of a route, so only an explanation knows its maintenance.
        if let Some(wait) =
            evaluation.found.as_ref().and_then(|found| policy.routes[*found.entry].maintenance)
        {
            evaluation.outcome = Outcome::Refused(Denial::Maintenance { wait });
            (evaluation.permit, evaluation.detail, evaluation.shadow) = (None, None, false);
        }
        if let Ok(head) = &read {
            explanation.host = head.host.as_deref().map(str::to_owned);
            let rule = self.client_rule(head, question.scheme);
            explanation.client_certificate =
                rule.map(|rule| format!("{} by client_certificates.{}", demand(Some(rule)), rule.name));
            explanation.path = Some(head.path.to_string());
            let resource = head.host.as_deref().and_then(|host| policy.resource_of(host, &head.path));
            explanation.resource_metadata = resource.map(|resource| resource.metadata_url.to_string());
            let method =
                evaluation.preflight.as_ref().and_then(|_| cors::method_asked(head.method, head.headers));
            let asked = method.as_ref().map(|method| preflight::asked(head, method));
            let head = asked.as_ref().unwrap_or(head);
            let asked = asked.as_ref().and_then(|asked| policy.table.find(asked).ok());
            let found = asked.as_ref().or(evaluation.found.as_ref());
            explanation.near = near::near(&policy.table, &policy.routes, head, found);
            explanation.route = found.map(|found| MatchedRoute::of(&policy.routes[*found.entry], found));
        }
        if let (Ok(head), Some(found)) = (&read, &evaluation.found) {
            let route = &policy.routes[*found.entry];
            let request = RequestFacts { head, params: &found.params, now: question.now };
            explanation.checks = effect::checks(route, &evaluation, &request);
            explanation.limits = self.limits(route, &sender, head, evaluation.caller.as_ref());
        }
        if let Outcome::Refused(denial) = &evaluation.outcome {
            explanation.status = Some(denial.status().as_u16());
            explanation.detail = Some(denial.detail().into());
            explanation.reason = self.why(read.as_ref().ok(), &evaluation, question.now);
        }
        if let (Outcome::Refused(denial), Some(found)) = (&evaluation.outcome, &evaluation.found)
            && denial.challenge() != Challenge::None
        {
            explanation.challenge = effect::challenge(&policy.routes[*found.entry], denial);
        }
        explanation.caller = evaluation.caller.as_ref().map(|(principal, _)| CallerIdentity::of(principal));
        if let Ok(head) = &read {
            explanation.outgoing = self.outgoing(head, &evaluation, parts, &sender, question);
            let reaches = evaluation.shadow || evaluation.outcome.passes();
            explanation.cross_origin = self.scripts_of(head, evaluation.route(), reaches);
        }
        explanation.outcome = evaluation.outcome;
        explanation.shadow = evaluation.shadow;
        explanation
    }

    /// Evaluates a request through the stages of the pipeline, without charging limits.
    fn follow<'h>(
        &self,
        head: &'h Head<'_>,
        sender: &Sender,
        question: &Question,
        prepared: &Prepared<'_>,
    ) -> Evaluation<'p, 'h> {
        if self.policy.front.redirects(question.scheme) && self.policy.front.redirects(sender.caller.scheme) {
            if let Err(denial) = stages::redirect(self.policy, head) {
                let found = stages::find(self.policy, head).ok().map(|routed| routed.found);
                return Evaluation { found, ..Evaluation::ended(denial) };
            }
            return Evaluation { outcome: Outcome::Redirected, ..Evaluation::ended(Denial::NoRoute) };
        }
        // The hypothetical client requested this host in its handshake (SNI).
        if question.scheme == Scheme::Http
            && let Some(rules) = &self.policy.front.client_rules
            && rules.get(head.host.as_deref()).is_some_and(|rule| rule.required)
        {
            let detail = Some(Misdirected::Cleartext.reason().into());
            return Evaluation { detail, ..Evaluation::ended(Denial::Misdirected) };
        }
        if head.method == Method::OPTIONS
            && let Some(preflight) = preflight::preflight(self.policy, head)
        {
            return Evaluation {
                preflight: Some(preflight),
                outcome: Outcome::Passed,
                ..Evaluation::ended(Denial::NoRoute)
            };
        }
        let Prepared { trust, cache, certificate, .. } = prepared;
        let routed = match stages::find(self.policy, head) {
            Ok(routed) => routed,
            Err(denial) => return Evaluation::ended(denial),
        };
        let route = routed.route;
        let is_relayed = sender.relayed.as_deref().is_some_and(Relayed::names_client);
        let credentials = Credentials {
            head,
            scheme: sender.caller.scheme,
            relayed: sender.relayed.as_deref(),
            csrf_field: None,
            certificate: certificate.as_ref().filter(|_| !is_relayed),
            known_token: None,
            used_proof: None,
            turns: None,
        };
        let decided = routed.decide(trust, &credentials, question.now, &mut cache.borrow_mut());
        // As in the pipeline, the protocol and the new path are checked after the rule. In shadow mode, it is checked even after a
        // refusal.
        // A hypothetical request is one of HTTP/1.1.
        if (decided.is_ok() || route.shadow.is_some())
            && let Err(denial) = stages::check_protocol(route, head, Version::HTTP_11)
                .and_then(|_| stages::check_rewrite(route, head))
        {
            let caller = match decided {
                Ok(permit) => permit.principal().cloned().zip(permit.place()),
                Err(Refusal { caller, .. }) => caller,
            };
            return Evaluation { found: Some(routed.found), caller, ..Evaluation::ended(denial) };
        }
        match decided {
            Ok(permit) => {
                let caller = permit.principal().cloned().zip(permit.place());
                Evaluation {
                    found: Some(routed.found),
                    preflight: None,
                    caller,
                    permit: Some(permit),
                    outcome: Outcome::Passed,
                    detail: None,
                    shadow: false,
                }
            }
            Err(refusal) => {
                let mut evaluation =
                    Evaluation { found: Some(routed.found), ..Evaluation::ended(refusal.denial.clone()) };
                let mut note = |refusal: Refusal| {
                    evaluation.caller = refusal.caller;
                    evaluation.detail = match refusal.pending {
                        Some(pending) => {
                            let why = refusal.detail.unwrap_or_default();
                            Some(
                                format!("{why}{}{}", if why.is_empty() { "" } else { "; " }, pending.words())
                                    .into(),
                            )
                        }
                        None => refusal.detail,
                    };
                };
                match &route.shadow {
                    Some(mode) => {
                        evaluation.permit = Some(Permit::in_shadow(refusal, mode).record(note));
                        evaluation.shadow = true;
                    }
                    None => note(refusal),
                }
                evaluation
            }
        }
    }

    /// Returns the sender of a request. If the question's client is a trusted proxy, the sender is the client that the
    /// proxy reports.
    fn sender(&self, question: &Question, parts: &Parts) -> Sender {
        let peer = Peer { address: question.client, scheme: question.scheme };
        let trusted = &self.policy.front.trusted_proxies;
        let (caller, relayed) = forwarded::read(&peer, trusted, &parts.headers);
        Sender { caller, relayed }
    }
}

fn demand(rule: Option<&ClientRule>) -> &'static str {
    match rule {
        Some(rule) if rule.required => "required",
        Some(_) => "optional",
        None => "none",
    }
}

impl Evaluation<'_, '_> {
    fn verdict(self) -> Verdict {
        Verdict { route: self.route(), outcome: self.outcome, shadow: self.shadow }
    }

    /// Returns the position of the route.
    fn route(&self) -> Option<usize> {
        let of_preflight = self.preflight.as_ref().map(|(route, _)| *route);
        of_preflight.or_else(|| self.found.as_ref().map(|found| *found.entry))
    }

    /// Creates the evaluation of a request that is refused before a route is found.
    fn ended(denial: Denial) -> Self {
        let outcome = Outcome::Refused(denial);
        Self {
            found: None,
            preflight: None,
            caller: None,
            permit: None,
            outcome,
            detail: None,
            shadow: false,
        }
    }
}

#[cfg(test)]
pub(crate) mod table_keys;
#[cfg(test)]
mod tests;
