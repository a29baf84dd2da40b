//! The spelling attack finds requests that a route rejects, but that another route accepts in an odd spelling.
//!
//! The attack uses the code that serves requests. A bypass is nearly always caused by a laxer catch-all route, together
//! with an upstream that is more lenient than the gateway.

mod findings;
mod folders;
mod inverse;
#[cfg(test)]
mod tests;
mod variants;

pub(super) use findings::{attack, bounded};

use super::sample::{self, Caller, Grants, Sample};
use crate::clock::Now;
use crate::denial::Denial;
use crate::explain::Examiner;
use crate::forward::rewrite::Rewrite;
use crate::forward::{Delivery, Destination, Target};
use crate::policy::{Handler, Policy, Question, Route};
use crate::route::{Fields, HostPattern, lenient};
use http::header::HOST;
use http::{HeaderValue, Method};
use inverse::Inverse;
use std::collections::{HashMap, HashSet};
use variants::SpellingKind;

/// The maximum number of callers with grants per route. For a rule with several roles, each role is tried.
const CALLERS_MAX: usize = 8;

/// The maximum number of different rewrites to try for each request.
const REWRITES_MAX: usize = 100;

/// A request that its route rejects, but that another route accepts in an odd spelling.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bypass {
    /// The index of the bypassed route in [`Policy::routes`].
    route: usize,
    kind: SpellingKind,
    /// The rejected request, in its plain spelling.
    plain: String,
    /// The accepted request, in its odd spelling.
    odd: String,
    /// The index in [`Policy::routes`] of the route that accepts the odd spelling.
    by: usize,
    /// The caller whose request is accepted.
    caller: Caller,
}

/// Returns the bypasses of a policy, at most one for each route and kind of spelling.
fn bypasses(policy: &Policy) -> Vec<Bypass> {
    let mut attack = Attack {
        policy,
        examiner: Examiner::new(policy),
        now: Now::read(),
        fields: policy.table.iter().map(|(matcher, _)| &matcher.fields).collect(),
        ways: rewrites(policy).into_iter().map(Way::of).collect(),
        callers: HashMap::new(),
        known: HashSet::new(),
        found: Vec::new(),
    };
    let mut asked: HashSet<(usize, String, Fields)> = HashSet::new();
    // The gateway answers requests to its own endpoints, so no upstream can read them differently.
    let is_forwarded = |route: &Route| !route.handler.is_own();
    let mut samples = sample::requests_to(policy, is_forwarded).peekable();
    while let Some(sample) = samples.next() {
        let mut methods = vec![sample.method.clone()];
        while let Some(same) = samples.next_if(|next| next.route == sample.route && next.url == sample.url) {
            methods.push(same.method);
        }
        for url in plain_urls(policy, &sample) {
            if !asked.insert((sample.route, url.clone(), sample.fields.clone())) {
                continue;
            }
            match &policy.routes[sample.route].handler {
                Handler::Forward(delivery) => attack.try_route(&sample, delivery, &url, &methods),
                Handler::Files(files) => attack.try_files(&sample, files, &url),
                Handler::Answer(_) | Handler::Publish(_) | Handler::Redirect(_) | Handler::Receive(..) => {}
            }
        }
    }
    attack.found.sort_by_key(|bypass| (bypass.route, bypass.kind));
    attack.found
}

/// Returns the different rewrites of paths in a policy.
fn rewrites(policy: &Policy) -> Vec<Option<&Rewrite>> {
    let mut known = HashSet::new();
    let mut rewrites = Vec::new();
    for route in policy.routes.iter() {
        if let Handler::Forward(delivery) = &route.handler
            && let Some(rewrite) = delivery.rewrite.as_deref()
            && (rewrite.strip.is_some() || rewrite.add.is_some() || rewrite.pattern.is_some())
            && rewrites.len() < REWRITES_MAX
            && known.insert((rewrite.strip.as_deref(), rewrite.add.as_deref(), pattern_of(rewrite)))
        {
            rewrites.push(Some(rewrite));
        }
    }
    if !rewrites.is_empty() {
        rewrites.push(None);
    }
    rewrites
}

/// Returns the texts of a rewrite's pattern.
fn pattern_of(rewrite: &Rewrite) -> Option<(&str, String)> {
    rewrite.pattern.as_ref().map(|pattern| (pattern.expression(), pattern.to_string()))
}

/// A rewrite of a path. `None` stands for routes that rewrite nothing.
struct Way<'p> {
    rewrite: Option<&'p Rewrite>,
    inverse: Option<Inverse>,
}

impl<'p> Way<'p> {
    fn of(rewrite: Option<&'p Rewrite>) -> Self {
        let pattern = rewrite.and_then(|rewrite| rewrite.pattern.as_ref());
        Self { rewrite, inverse: pattern.and_then(Inverse::of) }
    }

    /// Returns paths that a route with this rewrite sends as `sent`.
    fn sources(&self, sent: &str) -> Vec<String> {
        match (self.rewrite, &self.inverse) {
            (None, _) => vec![sent.to_owned()],
            (Some(Rewrite { pattern: Some(pattern), .. }), Some(inverse)) => inverse.sources(pattern, sent),
            (Some(rewrite), _) => rewrite.source(sent).into_iter().collect(),
        }
    }
}

/// Returns the URLs to vary: the URL of the sample, and the URL in which `{*rest}` is empty.
fn plain_urls(policy: &Policy, sample: &Sample) -> Vec<String> {
    let mut urls = vec![sample.url.clone()];
    let pattern = policy.routes[sample.route].matcher.path.to_string();
    let (folder, last) = pattern.rsplit_once('/').unwrap_or_default();
    if last.starts_with("{*") {
        let depth = folder.matches('/').count() + 1;
        let start = sample.url.find("://").map_or(0, |at| at + 3);
        if let Some((slash, _)) = sample.url[start..].match_indices('/').nth(depth - 1) {
            urls.push(sample.url[..=start + slash].to_owned());
        }
    }
    urls
}

struct Attack<'p> {
    policy: &'p Policy,
    examiner: Examiner<'p>,
    now: Now,
    /// The header fields by which routes are chosen.
    fields: HashSet<&'p Fields>,
    /// The rewrites of all routes, and the absence of one. Empty if no route rewrites.
    ways: Vec<Way<'p>>,
    /// The callers to try, by the index of the route.
    callers: HashMap<usize, Vec<Caller>>,
    known: HashSet<(usize, SpellingKind)>,
    found: Vec<Bypass>,
}

/// A request that its route rejects without a credential.
struct ProtectedRequest<'d> {
    route: usize,
    delivery: &'d Delivery,
    /// The request in its plain spelling, without a credential.
    plain: Question,
    /// The path that the upstream would receive for the plain spelling.
    sent: String,
    /// The pairs of a kind and another route that were already tried.
    tried: HashSet<(SpellingKind, usize)>,
}

/// The match of a spelling in the route table.
enum TableMatch {
    /// The index of the matching route.
    Route(usize),
    /// Only routes for other methods match.
    OtherMethod,
    /// No route matches, or the request is rejected for every method.
    Nothing,
}

impl<'p> Attack<'p> {
    fn try_route(&mut self, sample: &Sample, delivery: &Delivery, url: &str, methods: &[Method]) {
        let route = sample.route;
        let Some(first) = methods.first() else { return };
        let Some(plain) = sample::question(first, url, &sample.fields) else { return };
        let plain = plain.at(self.now);
        let verdict = self.examiner.verdict(&plain);
        // A route that accepts everyone cannot be bypassed. A more specific route is tried with its own sample.
        if verdict.outcome.passes() || verdict.route != Some(route) {
            return;
        }
        let Some(sent) = self.forwarded_path(delivery, &plain) else { return };
        let matcher = &self.policy.routes[route].matcher;
        let path = plain.parts.uri.path().to_owned();
        let host = plain.parts.headers.get(HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
        let mut odd = plain.clone();
        let mut request = ProtectedRequest { route, delivery, plain, sent, tried: HashSet::new() };
        for (kind, path) in variants::paths(&path) {
            // A spelling that is not a valid request target cannot be sent.
            let Ok(uri) = path.parse() else { continue };
            odd.parts.uri = uri;
            self.try_methods(&mut request, kind, &mut odd, methods);
        }
        odd.parts.uri = request.plain.parts.uri.clone();
        // A route for any host also covers every spelling of the host.
        if let Some(host) = host.filter(|_| matcher.host != HostPattern::Any) {
            let spellings = variants::hosts(&host).into_iter().map(|host| (SpellingKind::Host, host));
            // A wildcard route may cover the other host itself, which is not a bypass.
            let others = variants::others(&host).into_iter().map(|host| (SpellingKind::OtherHost, host));
            for (kind, host) in spellings.chain(others) {
                let Ok(host) = HeaderValue::try_from(host) else { continue };
                odd.parts.headers.insert(HOST, host);
                self.try_methods(&mut request, kind, &mut odd, methods);
            }
        }
        for fields in self.fields.clone().into_iter().filter(|fields| **fields != sample.fields) {
            odd.parts.headers = request.plain.parts.headers.clone();
            for (name, _) in sample.fields.iter() {
                odd.parts.headers.remove(name);
            }
            fields.set(&mut odd.parts.headers);
            self.try_methods(&mut request, SpellingKind::OtherHeader, &mut odd, methods);
        }
        odd.parts.headers = request.plain.parts.headers.clone();
        let sources: Vec<String> = self.ways.iter().flat_map(|way| way.sources(&request.sent)).collect();
        for source in sources.into_iter().filter(|source| *source != path) {
            let Ok(uri) = source.parse() else { continue };
            odd.parts.uri = uri;
            self.try_methods(&mut request, SpellingKind::Rewritten, &mut odd, methods);
        }
        odd.parts.uri = request.plain.parts.uri.clone();
        for method in methods.iter().take(if matcher.methods.is_any() { 1 } else { methods.len() }) {
            request.plain.parts.method = method.clone();
            for spelling in variants::methods(method.as_str()) {
                let Ok(spelling) = Method::from_bytes(spelling.as_bytes()) else { continue };
                odd.parts.method = spelling;
                self.try_spelling(&mut request, SpellingKind::Method, &odd);
            }
        }
    }

    /// Tries a spelling with each method.
    fn try_methods(
        &mut self,
        request: &mut ProtectedRequest<'_>,
        kind: SpellingKind,
        odd: &mut Question,
        methods: &[Method],
    ) {
        for method in methods {
            request.plain.parts.method = method.clone();
            odd.parts.method = method.clone();
            match self.try_spelling(request, kind, odd) {
                TableMatch::Route(by) if !self.policy.routes[by].matcher.methods.is_any() => {}
                TableMatch::OtherMethod => {}
                // The method makes no difference, so the other methods are not tried.
                TableMatch::Route(_) | TableMatch::Nothing => return,
            }
        }
    }

    /// Tries a spelling, records a bypass, and returns how the route table matches the spelling.
    fn try_spelling(
        &mut self,
        request: &mut ProtectedRequest<'_>,
        kind: SpellingKind,
        odd: &Question,
    ) -> TableMatch {
        let policy = self.policy;
        let front = &policy.front;
        let Ok(head) = front.head(&odd.parts) else { return TableMatch::Nothing };
        let by = match policy.table.find(&head) {
            Ok(found) => *found.entry,
            Err(Denial::MethodNotAllowed(_)) => return TableMatch::OtherMethod,
            Err(_) => return TableMatch::Nothing,
        };
        let Handler::Forward(other) = &policy.routes[by].handler else { return TableMatch::Route(by) };
        let is_hopeless = by == request.route
            || !(same_servers(request.delivery, other)
                || kind == SpellingKind::Rewritten && copies_to_servers(request.delivery, other, odd))
            || self.known.contains(&(request.route, kind))
            || !request.tried.insert((kind, by))
            || !self.forwarded_path(other, odd).is_some_and(|sent| may_read_alike(&sent, &request.sent));
        if !is_hopeless {
            self.record_if_weaker((request.route, by), kind, &request.plain, odd);
        }
        TableMatch::Route(by)
    }

    /// Records a bypass if the route `by` accepts the odd request of a caller whose plain request is rejected.
    fn record_if_weaker(
        &mut self,
        (route, by): (usize, usize),
        kind: SpellingKind,
        plain: &Question,
        odd: &Question,
    ) {
        let policy = self.policy;
        let callers = self.callers.entry(by).or_insert_with(|| callers(policy, &policy.routes[by]));
        let ask = |caller: &Caller, question: &Question| {
            self.examiner.verdict(&caller.question(policy, question.clone()))
        };
        // Shadow mode is handled differently for the two requests. The odd request counts as accepted if it reaches an
        // upstream, even through shadow mode. The plain request counts as rejected if the rule rejects it, because the
        // rule states the intended protection.
        let weaker =
            callers.iter().find(|caller| ask(caller, odd).reaches() && !ask(caller, plain).outcome.passes());
        if let Some(caller) = weaker {
            self.known.insert((route, kind));
            self.found.push(Bypass {
                route,
                kind,
                plain: request_line(plain),
                odd: request_line(odd),
                by,
                caller: caller.clone(),
            });
        }
    }

    /// Returns the path that the upstream would receive. `None` if the head of the request is rejected.
    fn forwarded_path(&self, delivery: &Delivery, question: &Question) -> Option<String> {
        let front = &self.policy.front;
        let head = front.head(&question.parts).ok()?;
        let target = Target::of(&head, &question.parts.uri, delivery.rewrite.as_deref(), None).ok()?;
        Some(target.path.path().to_owned())
    }
}

/// Formats a request for operators. Omits the placeholder host of routes without a host.
fn request_line(question: &Question) -> String {
    let host = question.parts.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let origin = if host == sample::ANY_HOST { String::new() } else { format!("https://{host}") };
    let fields = question.parts.headers.iter().filter(|(name, _)| **name != HOST);
    let fields =
        fields.map(|(name, value)| format!(" with {name}: {}", String::from_utf8_lossy(value.as_bytes())));
    format!("{} {origin}{}{}", question.parts.method, question.parts.uri, fields.collect::<String>())
}

/// Returns callers to try: without a token, with a token without grants, and with exactly the grants that the rule
/// requires.
fn callers(policy: &Policy, route: &Route) -> Vec<Caller> {
    let required = sample::minimal_grants(policy, route).into_iter().take(CALLERS_MAX);
    let mut callers = vec![Caller::Nobody, Caller::WithToken(Grants::default())];
    callers.extend(required.map(Caller::WithToken));
    callers.dedup();
    callers
}

/// Whether an upstream may read two paths as the same path. `strip_prefix` was already applied, because it can remove
/// the odd part of a spelling.
fn may_read_alike(one: &str, other: &str) -> bool {
    let read = |path: &str| {
        let read = lenient::reading(path)?.to_ascii_lowercase();
        Some(read.trim_end_matches('/').to_owned())
    };
    read(one).is_some() && read(one) == read(other)
}

/// Whether two routes have a server address in common.
fn same_servers(one: &Delivery, other: &Delivery) -> bool {
    one.alternatives().any(|one| other.alternatives().any(|other| same_destination(one, other)))
}

/// Whether a route copies a request to a server of a guarded route. The answer is lost, but the request has its effect.
fn copies_to_servers(guarded: &Delivery, other: &Delivery, question: &Question) -> bool {
    let copies = other.alternatives().filter_map(|other| other.mirror.as_deref());
    let mut copies = copies.filter(|mirror| mirror.covers(&question.parts.method, false));
    copies.any(|mirror| {
        let copied = Destination::Upstream(mirror.upstream.clone());
        guarded.alternatives().any(|guarded| is_same(&guarded.destination, &copied))
    })
}

fn same_destination(one: &Delivery, other: &Delivery) -> bool {
    is_same(&one.destination, &other.destination)
        || matches!((&one.destination, &other.destination), (Destination::Echo, Destination::Echo))
            && one.audience.name == other.audience.name
}

/// Whether two upstreams have a server address in common.
fn is_same(one: &Destination, other: &Destination) -> bool {
    match (one, other) {
        (Destination::Upstream(one), Destination::Upstream(other)) => {
            let others = other.addresses();
            one.addresses().iter().any(|address| others.contains(address))
        }
        (Destination::Echo | Destination::Upstream(_), _) => false,
    }
}
