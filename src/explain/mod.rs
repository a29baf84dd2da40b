//! What would become of a request: asked, and not served.
//!
//! The stages are those that serve: the head is read, the route found, the caller established, the rule asked and the
//! outgoing head written by the very functions of the pipeline. What is different is only what a question has not: limits
//! are named and not charged, nothing is sent, and a caller may be described by claims instead of a token.

pub mod case;
pub mod diff;
mod facts;
mod near;
mod question;
pub mod replay;
pub mod sample;
pub mod spelling;
mod text;

pub use near::{Miss, Near};
pub use question::{Credential, NOBODYS_ADDRESS, Question};

use crate::accept::forwarded;
use crate::authenticate::csrf::is_unsafe;
use crate::authenticate::{
    Access, CookieNames, KeySet, Place, Principal, Shown, TokenCache, Trust, claims_of,
};
use crate::authorize::{self, Permit};
use crate::clock::Now;
use crate::decision::{Refusal, decide};
use crate::denial::Denial;
use crate::forward::outgoing::{self, X_REQUEST_ID};
use crate::forward::{Delivery, Destination, Prepared, Proofs, Target, Told};
use crate::limit::{By, Limit};
use crate::peer::{Caller, Peer, Scheme};
use crate::policy::{Handler, Policy, Route};
use crate::request_id::RequestId;
use crate::route::{Found, Head};
use aws_lc_rs::rand;
use http::request::Parts;
use http::{HeaderValue, Uri, header};
use jsonwebtoken::{EncodingKey, Header};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;

/// How long the token of a described caller lives that says nothing of it, in seconds.
const LIFE: u64 = 60;
/// How many described callers are remembered: a matrix asks about the same few again and again.
const CALLERS: usize = 1024;

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It passes.
    Passed,
    /// It came in cleartext, and is sent to TLS.
    Redirected,
    /// It is refused.
    Refused(Denial),
}

impl Outcome {
    /// Whether it passes.
    pub fn passes(&self) -> bool {
        matches!(self, Self::Passed)
    }

    /// In a word: `passed`, `redirected`, or the code of the refusal.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Redirected => "redirected",
            Self::Refused(denial) => denial.code(),
        }
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

/// The verdict on a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The route that covers it: a position in [`Policy::routes`].
    pub route: Option<usize>,
    /// What becomes of it, were its route not in the shadow.
    pub outcome: Outcome,
    /// Whether it is refused and passes all the same, because its route is in the shadow.
    pub shadow: bool,
}

impl Verdict {
    /// Whether it reaches the upstream, in the shadow or not.
    pub fn reaches(&self) -> bool {
        self.shadow || self.outcome.passes()
    }
}

/// All that can be told of a request.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// As asked.
    pub method: String,
    /// As asked: scheme, host, path and query.
    pub url: String,
    /// The client's address, as limits count it.
    pub client: IpAddr,
    /// The host that decides, where there is one reading.
    pub host: Option<String>,
    /// The path that decides and is forwarded, where there is one reading.
    pub path: Option<String>,
    /// The route that covers it.
    pub route: Option<Covering>,
    /// Other routes that cover it less specifically, or nearly.
    pub near: Vec<Near>,
    /// Who calls, where a token verified.
    pub caller: Option<Known>,
    /// What is asked of the caller, in order.
    pub checks: Vec<Checked>,
    /// The limits that would count it, in order.
    pub limits: Vec<Counting>,
    /// What becomes of it, were its route not in the shadow.
    pub outcome: Outcome,
    /// Whether it is refused and passes all the same, because its route is in the shadow.
    pub shadow: bool,
    /// The status of the refusal.
    pub status: Option<u16>,
    /// What the client is told of the refusal.
    pub detail: Option<&'static str>,
    /// What the upstream gets.
    pub outgoing: Option<Outgoing>,
}

/// The route that covers a request.
#[derive(Clone, Debug, Serialize)]
pub struct Covering {
    /// Its name.
    pub name: String,
    /// The hosts that it covers.
    pub host: String,
    /// The paths.
    pub path: String,
    /// The methods; empty: all.
    pub methods: Vec<String>,
    /// The values of the path's parameters.
    pub params: Vec<(String, String)>,
}

/// Who calls.
#[derive(Clone, Debug, Serialize)]
pub struct Known {
    /// `sub`.
    pub subject: String,
    /// `iss`.
    pub issuer: String,
    /// The roles.
    pub roles: Vec<String>,
    /// The scopes.
    pub scopes: Vec<String>,
}

/// One thing that is asked of the caller.
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    /// What.
    pub asks: String,
    /// How it ended; `None` where it was not come to.
    pub outcome: Option<Outcome>,
}

/// A limit that would count the request.
#[derive(Clone, Debug, Serialize)]
pub struct Counting {
    /// Its name.
    pub name: String,
    /// How fast.
    pub quota: String,
    /// By what, for this request.
    pub by: String,
    /// Whether it is charged before the caller is known.
    pub before_token: bool,
}

/// What the upstream gets.
#[derive(Clone, Debug, Serialize)]
pub struct Outgoing {
    /// The upstream's name; `authority` where the gateway answers itself.
    pub upstream: String,
    /// Its servers.
    pub servers: Vec<String>,
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The header fields, names in lower case. What is made anew for each request is described in angle brackets.
    pub headers: Vec<(String, String)>,
}

/// The verdict on a request. Whoever has many questions makes one [`Examiner`].
pub fn verdict(policy: &Policy, question: &Question) -> Verdict {
    Examiner::new(policy).verdict(question)
}

/// All that can be told of a request. Whoever has many questions makes one [`Examiner`].
pub fn explain(policy: &Policy, question: &Question) -> Explanation {
    Examiner::new(policy).explain(question)
}

/// Answers questions about one policy. Not for requests: it is not of any core.
#[derive(Debug)]
pub struct Examiner<'p> {
    policy: &'p Policy,
    /// The policy's trust, but for the keys: what described callers are verified under.
    assuming: Trust,
    key: [u8; 32],
    tokens: RefCell<TokenCache>,
    described: RefCell<TokenCache>,
}

/// How far a request came.
struct Course<'p, 'h> {
    found: Option<Found<'p, 'h, usize>>,
    caller: Option<(Rc<Principal>, Place)>,
    permit: Option<Permit>,
    outcome: Outcome,
    shadow: bool,
}

impl<'p> Examiner<'p> {
    /// One for this policy.
    pub fn new(policy: &'p Policy) -> Self {
        let mut key = [0; 32];
        // Without random numbers a described caller's key is known: which matters to nobody, since nothing that serves
        // believes it.
        let _ = rand::fill(&mut key);
        let mut keys = KeySet::default();
        keys.add_secret(None, &key)
            .expect("256 bits are long enough, and random ones are no key of another kind");
        Self {
            policy,
            assuming: policy.trust.assuming(&keys),
            key,
            tokens: RefCell::new(TokenCache::new(1)),
            described: RefCell::new(TokenCache::new(CALLERS)),
        }
    }

    /// The policy that is asked about.
    pub fn policy(&self) -> &'p Policy {
        self.policy
    }

    /// The verdict on a request.
    pub fn verdict(&self, question: &Question) -> Verdict {
        let (parts, trust, cache) = self.prepared(question);
        let read = Head::read(&parts, self.policy.front.head_bounds, self.policy.front.slashes);
        let course = match &read {
            Ok(head) => self.follow(head, &self.sender(question, &parts), question, trust, cache),
            Err(denial) => Course::ended(denial.clone()),
        };
        Verdict {
            route: course.found.map(|found| *found.entry),
            outcome: course.outcome,
            shadow: course.shadow,
        }
    }

    /// All that can be told of a request.
    pub fn explain(&self, question: &Question) -> Explanation {
        let policy = self.policy;
        let (parts, trust, cache) = self.prepared(question);
        let sender = self.sender(question, &parts);
        let authority = question.parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let mut told = Explanation {
            method: parts.method.to_string(),
            url: format!(
                "{}://{}{}",
                question.scheme.as_str(),
                authority.unwrap_or_default(),
                question.parts.uri
            ),
            client: sender.address,
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
            outgoing: None,
        };
        let read = Head::read(&parts, policy.front.head_bounds, policy.front.slashes);
        let course = match &read {
            Ok(head) => self.follow(head, &sender, question, trust, cache),
            Err(denial) => Course::ended(denial.clone()),
        };
        if let Ok(head) = &read {
            told.host = head.host.as_deref().map(str::to_owned);
            told.path = Some(head.path.to_string());
            told.near = near::near(&policy.table, &policy.routes, head, course.found.as_ref());
        }
        if let (Ok(head), Some(found)) = (&read, &course.found) {
            let route = &policy.routes[*found.entry];
            told.route = Some(Covering::of(route, found));
            told.checks = checks(route, &course, found, question.now);
            told.limits = self.limits(route, &sender, head, course.caller.as_ref());
        }
        if let Outcome::Refused(denial) = &course.outcome {
            told.status = Some(denial.status().as_u16());
            told.detail = Some(denial.detail());
        }
        told.caller = course.caller.as_ref().map(|(principal, _)| Known::of(principal));
        if let (Ok(head), Some(found), Some(permit)) = (&read, &course.found, &course.permit) {
            let route = &policy.routes[*found.entry];
            told.outgoing = Some(self.outgoing(route, head, &parts, permit, &sender, question));
        }
        told.outcome = course.outcome;
        told.shadow = course.shadow;
        told
    }

    /// The stages, as the pipeline has them in order; limits are not charged.
    fn follow<'h>(
        &self,
        head: &'h Head<'_>,
        sender: &Caller,
        question: &Question,
        trust: &Trust,
        cache: &RefCell<TokenCache>,
    ) -> Course<'p, 'h> {
        // By the listener, whatever a proxy before it says of its own client.
        if self.policy.front.redirect && question.scheme == Scheme::Http {
            return Course { outcome: Outcome::Redirected, ..Course::ended(Denial::NoRoute) };
        }
        let found = match self.policy.table.find(head) {
            Ok(found) => found,
            Err(denial) => return Course::ended(denial),
        };
        let route = &self.policy.routes[*found.entry];
        let shown = Shown { head, scheme: sender.scheme, csrf_field: None };
        let decided = decide(
            &route.admission,
            &route.rule,
            trust,
            &shown,
            &found.params,
            question.now,
            &mut cache.borrow_mut(),
        );
        match decided {
            Ok(permit) => {
                let caller = permit.principal().cloned().zip(permit.place());
                Course {
                    found: Some(found),
                    caller,
                    permit: Some(permit),
                    outcome: Outcome::Passed,
                    shadow: false,
                }
            }
            Err(Refusal { denial, caller }) => Course {
                permit: route.shadow.then(|| authorize::let_pass(caller.clone())),
                found: Some(found),
                caller,
                outcome: Outcome::Refused(denial),
                shadow: route.shadow,
            },
        }
    }

    /// The request with its credential in its place, and what verifies it.
    fn prepared(&self, question: &Question) -> (Parts, &Trust, &RefCell<TokenCache>) {
        let mut parts = question.parts.clone();
        match &question.credential {
            Credential::AsSent => (parts, &self.policy.trust, &self.tokens),
            Credential::Token(token) => {
                let csrf = claims_of(token).and_then(|claims| Some(claims.get("csrf")?.as_str()?.to_owned()));
                self.place(&mut parts, token, csrf.as_deref());
                (parts, &self.policy.trust, &self.tokens)
            }
            Credential::Claims(claims) => {
                let (token, csrf) = self.token_of(claims.clone(), question.now);
                self.place(&mut parts, &token, Some(&csrf));
                (parts, &self.assuming, &self.described)
            }
        }
    }

    /// A token of these claims, and its CSRF token.
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
            }
        }
        claims.entry("exp").or_insert_with(|| now.unix.saturating_add(LIFE).into());
        let csrf = claims.entry("csrf").or_insert_with(|| "of-this-question".into());
        let csrf = csrf.as_str().unwrap_or_default().to_owned();
        let header = Header { typ, ..Header::default() };
        let token = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(&self.key));
        (
            token.expect("a map of JSON values can be written as JSON, and HMAC signs whatever it is given"),
            csrf,
        )
    }

    /// Puts a token where the request's route looks for one: in the header where it does, else in the place that it
    /// names.
    fn place(&self, parts: &mut Parts, token: &str, csrf: Option<&str>) {
        let route = {
            let read = Head::read(parts, self.policy.front.head_bounds, self.policy.front.slashes);
            let found = read.as_ref().ok().and_then(|head| self.policy.table.find(head).ok());
            found.map(|found| &self.policy.routes[*found.entry])
        };
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

    /// Who sends it: whom the question names, or whom they name as a trusted proxy.
    fn sender(&self, question: &Question, parts: &Parts) -> Caller {
        let peer = Peer { address: question.client, scheme: question.scheme };
        forwarded::caller(&peer, &self.policy.front.trusted_proxies, &parts.headers)
    }

    fn limits(
        &self,
        route: &Route,
        sender: &Caller,
        head: &Head<'_>,
        caller: Option<&(Rc<Principal>, Place)>,
    ) -> Vec<Counting> {
        let principal = caller.map(|(principal, _)| &**principal);
        let told = |limit: &Limit, before_token| Counting {
            name: limit.name().to_string(),
            quota: limit.told(),
            by: self.counted_by(limit.by(), route, sender, head, principal),
            before_token,
        };
        let before = route.limits.by_address.iter().map(|limit| told(limit, true));
        before.chain(route.limits.by_caller.iter().map(|limit| told(limit, false))).collect()
    }

    /// What a limit counts a request by, in words and with the value where it is known.
    fn counted_by(
        &self,
        by: &By,
        route: &Route,
        sender: &Caller,
        head: &Head<'_>,
        principal: Option<&Principal>,
    ) -> String {
        let unknown = "of the caller, who is not known";
        match by {
            By::ClientIp => format!("client address {}", sender.address),
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
                    Some(principal) => format!("subject {}, for want of claim {name}", principal.subject),
                    None => format!("claim {name} {unknown}"),
                }
            }
        }
    }

    /// What the upstream would get, by the function that writes it.
    fn outgoing(
        &self,
        route: &Route,
        head: &Head<'_>,
        parts: &Parts,
        permit: &Permit,
        sender: &Caller,
        question: &Question,
    ) -> Outgoing {
        let delivery = match &route.handler {
            Handler::Forward(delivery) => delivery,
            Handler::Answer(_) => {
                return Outgoing {
                    upstream: "authority".to_owned(),
                    servers: Vec::new(),
                    method: parts.method.to_string(),
                    path: head.path.to_string(),
                    headers: Vec::new(),
                };
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
        let id = RequestId::default();
        let id_header = HeaderValue::from_static("<made for each request>");
        let forwarded_for =
            HeaderValue::try_from(question.client.to_string()).expect("an address is visible ASCII");
        let none = Proofs::default();
        let told = Told {
            caller: *sender,
            prepared: Prepared {
                forwarded_for: &forwarded_for,
                forwarded: &RefCell::new(None),
                address: question.client,
            },
            id,
            id_header: &id_header,
            identity: policy.trust.identity(),
            forward_token: policy.front.forward_token,
            cookies: policy.trust.cookies(),
            tell_csrf: route.csrf_field.is_some(),
            credentials: &route.admission.sources.named,
            // Not proven: a proof that holds would be a credential in whatever keeps this answer.
            proofs: &none,
            now: question.now,
        };
        let (method, path, mut headers, _) =
            outgoing::head(parts.clone(), target, permit, &delivery.audience, &told);
        if headers.get("traceparent") == Some(&id.traceparent()) {
            headers.insert("traceparent", id_header.clone());
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
        Outgoing { upstream, servers, method: method.to_string(), path: path.to_string(), headers }
    }
}

impl Course<'_, '_> {
    /// One that came to no route.
    fn ended(denial: Denial) -> Self {
        Self { found: None, caller: None, permit: None, outcome: Outcome::Refused(denial), shadow: false }
    }
}

impl Covering {
    fn of(route: &Route, found: &Found<'_, '_, usize>) -> Self {
        let names = found.matcher.path.params().iter();
        let values = found.params.as_slice().iter();
        Self {
            name: route.name.to_string(),
            host: found.matcher.host.to_string(),
            path: found.matcher.path.to_string(),
            methods: methods(&found.matcher.methods),
            params: names.zip(values).map(|(name, value)| (name.to_string(), (*value).to_owned())).collect(),
        }
    }
}

impl Known {
    fn of(principal: &Principal) -> Self {
        let owned = |list: &[Box<str>]| list.iter().map(ToString::to_string).collect();
        Self {
            subject: principal.subject.to_string(),
            issuer: principal.issuer.to_string(),
            roles: owned(&principal.roles),
            scopes: owned(&principal.scopes),
        }
    }
}

/// The methods by name; none where all are covered.
pub(crate) fn methods(methods: &crate::route::Methods) -> Vec<String> {
    if methods.is_any() { Vec::new() } else { methods.iter().map(ToString::to_string).collect() }
}

/// What a route asks, and how each of it ended: the caller first, then the rule's checks, of which serving asks as many
/// as until the first that fails, and explaining all.
fn checks(route: &Route, course: &Course<'_, '_>, found: &Found<'_, '_, usize>, now: Now) -> Vec<Checked> {
    let caller = course.caller.as_ref().map(|(principal, _)| principal);
    let of_caller = match &course.outcome {
        Outcome::Refused(denial) if caller.is_none() => Outcome::Refused(denial.clone()),
        Outcome::Passed | Outcome::Redirected | Outcome::Refused(_) => Outcome::Passed,
    };
    let asks = match route.admission.access {
        Access::Public => "nothing: whoever calls",
        Access::Optional => "a good token, or none",
        Access::Authenticated => "a good token",
    };
    let mut told = vec![Checked { asks: asks.to_owned(), outcome: Some(of_caller) }];
    told.extend(route.rule.checks().iter().map(|check| {
        let verdict = caller.map(|principal| check.verdict(principal, &found.params, now));
        let outcome = verdict.map(|verdict| verdict.map_or_else(Outcome::Refused, |()| Outcome::Passed));
        Checked { asks: check.to_string(), outcome }
    }));
    told
}

/// Puts a token into the authority's cookie, as a browser would send it, with the CSRF token where it has to show one.
fn cookie(parts: &mut Parts, names: &CookieNames, token: &str, csrf: Option<&str>) {
    if let Ok(value) = HeaderValue::try_from(format!("{}={token}", names.access)) {
        parts.headers.append(header::COOKIE, value);
    }
    if let Some(csrf) = csrf.and_then(|csrf| HeaderValue::from_str(csrf).ok()) {
        parts.headers.insert(names.csrf_header.clone(), csrf);
    }
}

fn upstream_of(delivery: &Delivery) -> (String, Vec<String>) {
    match &delivery.destination {
        Destination::Upstream(upstream) => {
            let servers = upstream.servers.iter().map(|server| server.origin.to_string()).collect();
            (upstream.name.to_string(), servers)
        }
        Destination::Echo => (delivery.audience.name.to_string(), vec!["the built-in echo".to_owned()]),
    }
}
