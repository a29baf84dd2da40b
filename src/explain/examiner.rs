//! Runs a question through the code that serves requests.

use super::describe::upstream_of;
use super::explanation::{
    AppliedLimit, CallerIdentity, CheckResult, Explanation, MatchedRoute, Outcome, UpstreamRequest, Verdict,
};
use super::matched_route;
use super::near;
use crate::authenticate::csrf::is_unsafe;
use crate::authenticate::{
    Access, CookieNames, Credentials, KeySet, Place, Principal, TokenCache, Trust, claims_of,
};
use crate::authorize::{Permit, Refusal};
use crate::clock::Now;
use crate::denial::Denial;
use crate::forward::outgoing::{self, X_REQUEST_ID};
use crate::forward::{ConnectionHeaders, Proofs, Target};
use crate::limit::{By, Limit};
use crate::peer::forwarded;
use crate::peer::{Caller, Peer, Relayed};
use crate::pipeline::exchange::Exchange;
use crate::pipeline::stages;
use crate::policy::{Credential, Handler, Policy, Question, Route};
use crate::route::{Found, Head};
use aws_lc_rs::rand;
use http::request::Parts;
use http::{HeaderValue, Uri, header};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::rc::Rc;

/// The lifetime of a described caller's token without `exp`, in seconds.
const LIFE: u64 = 60;
/// The number of described callers whose verification is cached. A matrix asks about the same few callers repeatedly.
const CALLERS: usize = 1024;

/// Answers questions about one policy. It does not serve requests and belongs to no core.
#[derive(Debug)]
pub struct Examiner<'p> {
    policy: &'p Policy,
    /// The policy's trust, which verifies tokens.
    trust: Trust,
    /// The same trust with a key of the examiner's own, which verifies the tokens made for described callers.
    assuming: Trust,
    key: [u8; 32],
    tokens: RefCell<TokenCache>,
    described: RefCell<TokenCache>,
}

/// The sender of a request.
struct Sender {
    caller: Caller,
    relayed: Option<Box<Relayed>>,
}

/// The result of each stage that a request reached.
struct Evaluation<'p, 'h> {
    found: Option<Found<'p, 'h, usize>>,
    caller: Option<(Rc<Principal>, Place)>,
    permit: Option<Permit>,
    outcome: Outcome,
    /// The value found and the value expected, if authentication refused the request.
    detail: Option<Box<str>>,
    shadow: bool,
}

impl<'p> Examiner<'p> {
    /// Creates an examiner for a policy.
    pub fn new(policy: &'p Policy) -> Self {
        let mut key = [0; 32];
        // If no random numbers are available, the key is predictable. That is harmless: the trust that serves requests
        // does not accept it.
        let _ = rand::fill(&mut key);
        let mut keys = KeySet::default();
        keys.add_secret(None, &key)
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

    /// Returns the policy that questions are about.
    pub fn policy(&self) -> &'p Policy {
        self.policy
    }

    /// Returns the verdict on a request.
    pub fn verdict(&self, question: &Question) -> Verdict {
        let (parts, trust, cache) = self.prepare(question);
        let read = self.policy.front.head(&parts);
        let evaluation = match &read {
            Ok(head) => self.follow(head, &self.sender(question, &parts), question, trust, cache),
            Err(denial) => Evaluation::ended(denial.clone()),
        };
        evaluation.verdict()
    }

    /// Returns the verdict on a request, and the request that the upstream receives if it is forwarded. This omits the
    /// explanation, which examines every route.
    pub fn verdict_and_request(&self, question: &Question) -> (Verdict, Option<UpstreamRequest>) {
        let (parts, trust, cache) = self.prepare(question);
        let sender = self.sender(question, &parts);
        let read = self.policy.front.head(&parts);
        let (evaluation, outgoing) = match &read {
            Ok(head) => {
                let evaluation = self.follow(head, &sender, question, trust, cache);
                let outgoing = self.outgoing(head, &evaluation, &parts, &sender, question);
                (evaluation, outgoing)
            }
            Err(denial) => (Evaluation::ended(denial.clone()), None),
        };
        (evaluation.verdict(), outgoing)
    }

    /// Returns why a request is refused, in detail for operators.
    pub fn reason(&self, question: &Question) -> Option<String> {
        let (parts, trust, cache) = self.prepare(question);
        let read = self.policy.front.head(&parts);
        let evaluation = match &read {
            Ok(head) => self.follow(head, &self.sender(question, &parts), question, trust, cache),
            Err(denial) => Evaluation::ended(denial.clone()),
        };
        self.why(&evaluation, question.now)
    }

    fn why(&self, evaluation: &Evaluation<'_, '_>, now: Now) -> Option<String> {
        let Outcome::Refused(denial) = &evaluation.outcome else { return None };
        let by_rule = || {
            let (found, (principal, _)) = (evaluation.found.as_ref()?, evaluation.caller.as_ref()?);
            self.policy.routes[*found.entry].rule.why(principal, &found.params, now)
        };
        let detail = evaluation.detail.as_deref().map(str::to_owned);
        detail.or_else(by_rule).or_else(|| denial.finer().map(str::to_owned))
    }

    /// Explains a request.
    pub fn explain(&self, question: &Question) -> Explanation {
        let policy = self.policy;
        let (parts, trust, cache) = self.prepare(question);
        let sender = self.sender(question, &parts);
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
            route: None,
            near: Vec::new(),
            caller: None,
            checks: Vec::new(),
            limits: Vec::new(),
            outcome: Outcome::Passed,
            shadow: false,
            status: None,
            detail: None,
            reason: None,
            outgoing: None,
        };
        let read = policy.front.head(&parts);
        let evaluation = match &read {
            Ok(head) => self.follow(head, &sender, question, trust, cache),
            Err(denial) => Evaluation::ended(denial.clone()),
        };
        if let Ok(head) = &read {
            explanation.host = head.host.as_deref().map(str::to_owned);
            explanation.path = Some(head.path.to_string());
            explanation.near = near::near(&policy.table, &policy.routes, head, evaluation.found.as_ref());
        }
        if let (Ok(head), Some(found)) = (&read, &evaluation.found) {
            let route = &policy.routes[*found.entry];
            explanation.route = Some(MatchedRoute::of(route, found));
            explanation.checks = checks(route, &evaluation, found, question.now);
            explanation.limits = self.limits(route, &sender, head, evaluation.caller.as_ref());
        }
        if let Outcome::Refused(denial) = &evaluation.outcome {
            explanation.status = Some(denial.status().as_u16());
            explanation.detail = Some(denial.detail().into());
            explanation.reason = self.why(&evaluation, question.now);
        }
        explanation.caller = evaluation.caller.as_ref().map(|(principal, _)| CallerIdentity::of(principal));
        if let Ok(head) = &read {
            explanation.outgoing = self.outgoing(head, &evaluation, &parts, &sender, question);
        }
        explanation.outcome = evaluation.outcome;
        explanation.shadow = evaluation.shadow;
        explanation
    }

    /// Takes a request through the stages of the pipeline. Limits are not charged.
    fn follow<'h>(
        &self,
        head: &'h Head<'_>,
        sender: &Sender,
        question: &Question,
        trust: &Trust,
        cache: &RefCell<TokenCache>,
    ) -> Evaluation<'p, 'h> {
        if self.policy.front.redirects(question.scheme) && self.policy.front.redirects(sender.caller.scheme) {
            if let Err(denial) = stages::redirect(self.policy, head) {
                let found = stages::find(self.policy, head).ok().map(|routed| routed.found);
                return Evaluation { found, ..Evaluation::ended(denial) };
            }
            return Evaluation { outcome: Outcome::Redirected, ..Evaluation::ended(Denial::NoRoute) };
        }
        let routed = match stages::find(self.policy, head) {
            Ok(routed) => routed,
            Err(denial) => return Evaluation::ended(denial),
        };
        let route = routed.route;
        let shown = Credentials {
            head,
            scheme: sender.caller.scheme,
            relayed: sender.relayed.as_deref(),
            csrf_field: None,
        };
        let decided = routed.decide(trust, &shown, question.now, &mut cache.borrow_mut());
        // In the pipeline this check comes after the decision, in shadow mode or not.
        if (decided.is_ok() || route.shadow.is_some())
            && let Err(denial) = routed.check_protocol(head.headers)
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
                    evaluation.detail = refusal.detail;
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

    /// Returns the request with its credential inserted, and the trust and cache that verify it.
    fn prepare(&self, question: &Question) -> (Parts, &Trust, &RefCell<TokenCache>) {
        let mut parts = question.parts.clone();
        match &question.credential {
            Credential::AsSent => (parts, &self.trust, &self.tokens),
            Credential::Token(token) => {
                let csrf = claims_of(token).and_then(|claims| Some(claims.get("csrf")?.as_str()?.to_owned()));
                self.place(&mut parts, question, token, csrf.as_deref());
                (parts, &self.trust, &self.tokens)
            }
            Credential::Claims(claims) => {
                let (token, csrf) = self.token_of(claims.clone(), question.now);
                self.place(&mut parts, question, &token, Some(&csrf));
                (parts, &self.assuming, &self.described)
            }
        }
    }

    /// Makes a token with these claims, and returns it with its CSRF token.
    fn token_of(&self, mut claims: Map<String, Value>, now: Now) -> (String, String) {
        let issuers = self.assuming.issuers();
        let issuer = match claims.get("iss") {
            Some(named) => issuers.iter().find(|issuer| Some(&*issuer.name) == named.as_str()),
            None => issuers.first(),
        };
        let mut typ = None;
        if let Some(issuer) = issuer {
            claims.entry("iss").or_insert_with(|| (*issuer.name).into());
            if let Some(audience) = issuer.audience.first() {
                claims.entry("aud").or_insert_with(|| (**audience).into());
            }
            typ = issuer.types.iter().find(|kind| !kind.is_empty()).map(|kind| kind.to_string());
            if issuer.local {
                claims.entry("gen").or_insert_with(|| i64::MAX.into());
                claims.entry("iat").or_insert_with(|| now.unix.into());
            }
        }
        let life = LIFE.min(self.assuming.revoked().longest());
        claims.entry("exp").or_insert_with(|| now.unix.saturating_add(life).into());
        let csrf = claims.entry("csrf").or_insert_with(|| "of-this-question".into());
        let csrf = csrf.as_str().unwrap_or_default().to_owned();
        let header = Header { typ, ..Header::default() };
        let token = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(&self.key));
        (
            token.expect("a map of JSON values can be written as JSON, and HMAC signs whatever it is given"),
            csrf,
        )
    }

    /// Inserts a token where the matching route looks for one: in `Authorization` if it accepts that, otherwise in the
    /// first source that it names.
    fn place(&self, parts: &mut Parts, question: &Question, token: &str, csrf: Option<&str>) {
        let route = matched_route(self.policy, question).map(|route| &self.policy.routes[route]);
        let sources = route.map(|route| &route.admission.sources);
        let cookies = self.policy.trust.cookies();
        let value = |text: String| HeaderValue::try_from(text).ok();
        match sources {
            Some(sources) if !sources.header => {
                if let (Some(name), Some(value)) = (sources.named.first(), value(token.to_owned())) {
                    parts.headers.append(name.clone(), value);
                } else if let (true, Some(names)) = (sources.cookie, cookies) {
                    let unsafe_method = is_unsafe(&parts.method);
                    cookie(parts, names, token, csrf.filter(|_| unsafe_method));
                } else if let Some(name) = &sources.query {
                    let separator = if parts.uri.query().is_some() { '&' } else { '?' };
                    let target = format!("{}{separator}{name}={token}", parts.uri);
                    parts.uri = target.parse::<Uri>().unwrap_or_else(|_| parts.uri.clone());
                }
            }
            Some(_) | None => {
                if let Some(value) = value(format!("Bearer {token}")) {
                    parts.headers.append(header::AUTHORIZATION, value);
                }
            }
        }
    }

    /// Returns the sender: the client of the question, or the one that it names if it is a trusted proxy.
    fn sender(&self, question: &Question, parts: &Parts) -> Sender {
        let peer = Peer { address: question.client, scheme: question.scheme };
        let trusted = &self.policy.front.trusted_proxies;
        let (caller, relayed) = forwarded::read(&peer, trusted, &parts.headers);
        Sender { caller, relayed }
    }

    fn limits(
        &self,
        route: &Route,
        sender: &Sender,
        head: &Head<'_>,
        caller: Option<&(Rc<Principal>, Place)>,
    ) -> Vec<AppliedLimit> {
        let principal = caller.map(|(principal, _)| &**principal);
        let explanation = |limit: &Limit, before_token| AppliedLimit {
            name: limit.name().to_string(),
            quota: limit.describe(),
            by: self.counted_by(limit.by(), route, sender, head, principal),
            before_token,
        };
        let before = route.limits.by_address.iter().map(|limit| explanation(limit, true));
        before.chain(route.limits.by_caller.iter().map(|limit| explanation(limit, false))).collect()
    }

    /// Describes the property that a limit counts a request by, with its value if it is known.
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

    /// Returns the request that the upstream would receive, written by the function that serves; `None` if the request
    /// is not forwarded.
    fn outgoing(
        &self,
        head: &Head<'_>,
        evaluation: &Evaluation<'_, '_>,
        parts: &Parts,
        sender: &Sender,
        question: &Question,
    ) -> Option<UpstreamRequest> {
        let (Some(found), Some(permit)) = (&evaluation.found, &evaluation.permit) else { return None };
        let route = &self.policy.routes[*found.entry];
        let delivery = match &route.handler {
            Handler::Forward(delivery) => delivery,
            Handler::Answer(_) => {
                return Some(UpstreamRequest {
                    upstream: "authority".to_owned(),
                    servers: Vec::new(),
                    method: parts.method.to_string(),
                    path: head.path.to_string(),
                    headers: Vec::new(),
                });
            }
        };
        let policy = self.policy;
        let target = Target::of_route(
            head,
            &parts.uri,
            delivery.strip_prefix.as_deref(),
            &route.admission.sources,
            permit,
        );
        let exchange = Exchange::unsent(question.now, sender.caller, sender.relayed.clone());
        let (id, id_header) = (exchange.id, exchange.id_header.clone());
        let forwarded_for =
            HeaderValue::try_from(question.client.to_string()).expect("an address is visible ASCII");
        let connection = ConnectionHeaders {
            forwarded_for: &forwarded_for,
            forwarded: &RefCell::new(None),
            address: question.client,
        };
        // Proofs are omitted: a valid proof would be a credential for anyone who can read the explanation.
        let none = Proofs::default();
        let context = exchange.forward_context(policy, route, delivery, connection, &none);
        let (method, path, mut headers, _) =
            outgoing::head(parts.clone(), target, permit, &delivery.audience, &context);
        if headers.get("traceparent") == Some(&id.traceparent()) {
            headers.insert("traceparent", id_header);
        }
        // The person who supplied the token already has it, but a reader of a failed test should not see it.
        if !matches!(question.credential, Credential::AsSent) && headers.contains_key(header::AUTHORIZATION) {
            let token = HeaderValue::from_static("Bearer <the caller's token>");
            headers.insert(header::AUTHORIZATION, token);
        }
        if permit.principal().is_some() {
            let proven = HeaderValue::from_static("<proof of the identity, made for each request>");
            if let Some(assertor) = &policy.proofs.assertion {
                headers.insert(assertor.header.clone(), proven.clone());
            }
            if let (Some(name), Some(_)) = (&policy.proofs.signature, &delivery.audience.key) {
                headers.insert(name.clone(), proven);
            }
        }
        debug_assert!(headers.contains_key(X_REQUEST_ID), "every request that goes out has one");
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let mut headers: Vec<_> =
            headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        headers.sort();
        let (upstream, servers) = upstream_of(delivery);
        Some(UpstreamRequest {
            upstream,
            servers,
            method: method.to_string(),
            path: path.to_string(),
            headers,
        })
    }
}

impl Evaluation<'_, '_> {
    fn verdict(self) -> Verdict {
        Verdict { route: self.found.map(|found| *found.entry), outcome: self.outcome, shadow: self.shadow }
    }

    /// Returns the evaluation of a request that is refused before a route is found.
    fn ended(denial: Denial) -> Self {
        let outcome = Outcome::Refused(denial);
        Self { found: None, caller: None, permit: None, outcome, detail: None, shadow: false }
    }
}

/// Evaluates every check of a route: first the caller, then the rule's checks. Serving stops at the first check that
/// fails.
fn checks(
    route: &Route,
    evaluation: &Evaluation<'_, '_>,
    found: &Found<'_, '_, usize>,
    now: Now,
) -> Vec<CheckResult> {
    let caller = evaluation.caller.as_ref().map(|(principal, _)| principal);
    let of_caller = match &evaluation.outcome {
        Outcome::Refused(denial) if caller.is_none() => Outcome::Refused(denial.clone()),
        Outcome::Passed | Outcome::Redirected | Outcome::Refused(_) => Outcome::Passed,
    };
    let asks = match route.admission.access {
        Access::Public => "nothing: anyone may call",
        Access::Optional => "a valid token, or none",
        Access::Authenticated => "a valid token",
    };
    let mut explanation = vec![CheckResult { asks: asks.to_owned(), outcome: Some(of_caller) }];
    explanation.extend(route.rule.checks().iter().map(|check| {
        let verdict = caller.map(|principal| check.verdict(principal, &found.params, now));
        let outcome = verdict.map(|verdict| verdict.map_or_else(Outcome::Refused, |()| Outcome::Passed));
        CheckResult { asks: check.to_string(), outcome }
    }));
    explanation
}

/// Inserts a token as the authority's access cookie, with the CSRF header where it is required.
fn cookie(parts: &mut Parts, names: &CookieNames, token: &str, csrf: Option<&str>) {
    if let Ok(value) = HeaderValue::try_from(format!("{}={token}", names.access)) {
        parts.headers.append(header::COOKIE, value);
    }
    if let Some(csrf) = csrf.and_then(|csrf| HeaderValue::from_str(csrf).ok()) {
        parts.headers.insert(names.csrf_header.clone(), csrf);
    }
}

#[cfg(test)]
mod tests;
