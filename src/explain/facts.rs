//! What a policy says beside who may do what, one fact a line: two policies' facts are compared by name.
//!
//! Facts are told as they were compiled, and hold no secret: of keys they tell the ids.

use super::diff::Other;
use crate::authenticate::{IdentityHeaders, Sources};
use crate::limit::By;
use crate::policy::{Handler, Policy, Route};
use crate::route::path::Slashes;
use std::collections::BTreeMap;

type Facts = BTreeMap<String, String>;

/// What is different between two policies' facts.
pub(super) fn others(old: &Policy, new: &Policy) -> Vec<Other> {
    let (before, after) = (facts(old), facts(new));
    let mut names: Vec<_> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    let differ = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    differ
        .map(|name| Other {
            what: name.clone(),
            before: before.get(name).cloned(),
            after: after.get(name).cloned(),
        })
        .collect()
}

/// Whether both policies accept the same tokens, as far as their facts tell.
pub(super) fn trusts_alike(old: &Policy, new: &Policy) -> bool {
    let of = |policy| {
        let mut facts = Facts::new();
        issuers(policy, &mut facts);
        facts
    };
    of(old) == of(new)
}

fn facts(policy: &Policy) -> Facts {
    let mut facts = Facts::new();
    issuers(policy, &mut facts);
    limits(policy, &mut facts);
    upstreams(policy, &mut facts);
    identity(policy, &mut facts);
    front(policy, &mut facts);
    for route in policy.routes.iter() {
        of_route(policy, route, &mut facts);
    }
    facts
}

fn issuers(policy: &Policy, facts: &mut Facts) {
    for issuer in policy.trust.issuers() {
        let name = format!("issuer {}", issuer.name);
        let keys: Vec<_> = issuer.keys.iter().map(|key| key.id().unwrap_or("without id")).collect();
        let algorithms: Vec<_> = issuer.algorithms.iter().map(|algorithm| algorithm.as_str()).collect();
        facts.insert(format!("{name}: audience"), list(&issuer.audience));
        facts.insert(format!("{name}: algorithms"), algorithms.join(", "));
        facts.insert(format!("{name}: keys"), keys.join(", "));
        facts.insert(format!("{name}: types"), list(&issuer.types));
        facts.insert(format!("{name}: leeway"), format!("{} s", issuer.leeway));
        facts.insert(format!("{name}: roles at"), issuer.roles.to_string());
        facts.insert(format!("{name}: scopes at"), issuer.scopes.to_string());
    }
    if let Some(cookies) = policy.trust.cookies() {
        facts.insert("cookie of the access token".to_owned(), cookies.access.to_string());
    }
}

fn limits(policy: &Policy, facts: &mut Facts) {
    for limit in policy.limits.iter() {
        let by = match limit.by() {
            By::ClientIp => "the client's address".to_owned(),
            By::Subject => "subject".to_owned(),
            By::Route => "route".to_owned(),
            By::Header(name) => format!("header {name}"),
            By::Claim(id) => {
                let path = policy.trust.claims().get(usize::from(id.0));
                format!("claim {}", path.map(ToString::to_string).unwrap_or_default())
            }
        };
        facts.insert(format!("rate limit {}", limit.name()), format!("{}, by {by}", limit.told()));
    }
}

fn upstreams(policy: &Policy, facts: &mut Facts) {
    for upstream in policy.upstreams.iter() {
        let name = format!("upstream {}", upstream.name);
        let servers: Vec<_> = upstream.servers.iter().map(|server| &*server.origin).collect();
        facts.insert(format!("{name}: servers"), servers.join(", "));
        facts.insert(format!("{name}: timeout"), format!("{:?}", upstream.timeout));
        facts.insert(format!("{name}: connect timeout"), format!("{:?}", upstream.connect_timeout));
    }
}

fn identity(policy: &Policy, facts: &mut Facts) {
    for (fact, header) in told(policy, policy.trust.identity()) {
        facts.insert(format!("identity header of {fact}"), header);
    }
    if let Some(assertor) = &policy.proofs.assertion {
        facts.insert("identity header of the assertion".to_owned(), assertor.header.to_string());
    }
    if let Some(header) = &policy.proofs.signature {
        facts.insert("identity header of the signature".to_owned(), header.to_string());
    }
    facts.insert("the client's token is forwarded".to_owned(), yes(policy.front.forward_token));
}

fn told(policy: &Policy, identity: &IdentityHeaders) -> Vec<(String, String)> {
    let claim = |id: u16| policy.trust.claims().get(usize::from(id)).map(ToString::to_string);
    let named = identity.named().map(|(fact, header)| (fact.to_owned(), header.to_string()));
    let of_claims = identity
        .of_claims()
        .map(|(header, id)| (format!("claim {}", claim(id.0).unwrap_or_default()), header.to_string()));
    named.chain(of_claims).collect()
}

fn front(policy: &Policy, facts: &mut Facts) {
    let front = &policy.front;
    let proxies: Vec<_> = front.trusted_proxies.iter().map(ToString::to_string).collect();
    let slashes = match front.slashes {
        Slashes::Strict => "refused",
        Slashes::Merge => "merged",
    };
    for (name, value) in [
        ("trusted proxies", proxies.join(", ")),
        ("empty segments of paths", slashes.to_owned()),
        ("cleartext is redirected", yes(front.redirect)),
        (
            "Strict-Transport-Security",
            front.hsts.as_ref().map(|value| format!("{value:?}")).unwrap_or_default(),
        ),
        ("header fields of a request", front.head_bounds.header_count.to_string()),
        ("bytes of a request's head", front.head_bounds.header_bytes.to_string()),
        ("bytes of a request's body", front.body_bounds.size.to_string()),
    ] {
        facts.insert(name.to_owned(), value);
    }
}

/// What of a route is not a matter of who passes.
fn of_route(policy: &Policy, route: &Route, facts: &mut Facts) {
    let name = format!("route {}", route.name);
    let limits = route.limits.by_address.iter().chain(&route.limits.by_caller);
    let limits: Vec<_> = limits.map(|limit| limit.name().to_string()).collect();
    facts.insert(format!("{name}: rate limits"), limits.join(", "));
    facts.insert(format!("{name}: tokens from"), places(&route.admission.sources, policy));
    facts.insert(format!("{name}: login page"), yes(route.login_page));
    if let Some(field) = &route.csrf_field {
        facts.insert(format!("{name}: CSRF field of forms"), field.to_string());
    }
    match &route.handler {
        Handler::Forward(delivery) => {
            facts.insert(format!("{name}: upstream"), super::upstream_of(delivery).0);
            if let Some(prefix) = &delivery.strip_prefix {
                facts.insert(format!("{name}: prefix that is stripped"), prefix.to_string());
            }
            if let Some(timeout) = delivery.timeout {
                facts.insert(format!("{name}: timeout"), format!("{timeout:?}"));
            }
        }
        Handler::Answer(_) => {
            facts.insert(format!("{name}: upstream"), "the gateway itself".to_owned());
        }
    }
}

fn places(sources: &Sources, policy: &Policy) -> String {
    let mut places = Vec::new();
    if sources.header {
        places.push("Authorization".to_owned());
    }
    if sources.cookie && policy.trust.cookies().is_some() {
        places.push("cookie".to_owned());
    }
    places.extend(sources.named.iter().map(|name| format!("header {name}")));
    places.extend(sources.query.iter().map(|name| format!("query {name}")));
    places.join(", ")
}

fn list(names: &[Box<str>]) -> String {
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

fn yes(flag: bool) -> String {
    if flag { "yes".to_owned() } else { "no".to_owned() }
}
