//! Describes parts of a route in the notation of the policy file.

use crate::authenticate::{ClaimPath, NamedHeader, Source, Sources};
use crate::config::units;
use crate::forward::{
    Balance, Delivery, Destination, HashBy, KeyFacts, Protocol, RETRY_WINDOW, RetryBudget, Server, Split,
    Upstream,
};
use crate::route::{Fields, HostPattern, Matcher, Methods};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Returns the host and path of a matcher. Omits the host if the matcher applies to all hosts.
pub(crate) fn covers(matcher: &Matcher) -> String {
    let host = match &matcher.host {
        HostPattern::Any => String::new(),
        HostPattern::Below(_) | HostPattern::Exact(_) => matcher.host.to_string(),
    };
    format!("{host}{}{}", matcher.path, with_fields(&matcher.fields))
}

/// Returns the header fields that a matcher requires: ` with x-api-version: 2`; empty if it requires none.
pub(crate) fn with_fields(fields: &Fields) -> String {
    if fields.is_empty() { String::new() } else { format!(" with {fields}") }
}

/// Returns the methods, host and path of a matcher.
pub(super) fn methods_and_place(matcher: &Matcher) -> String {
    let methods = methods(&matcher.methods);
    let methods = if methods.is_empty() { String::new() } else { format!("{} ", methods.join(",")) };
    format!("{methods}{}", covers(matcher))
}

/// Returns the names of the methods. Returns no names if all methods match.
pub(crate) fn methods(methods: &Methods) -> Vec<String> {
    if methods.is_any() { Vec::new() } else { methods.iter().map(ToString::to_string).collect() }
}

/// Returns the name of the upstream. If several upstreams share the requests, returns their names and shares.
pub(crate) fn upstream_name(delivery: &Delivery) -> String {
    match (&delivery.split, &delivery.destination) {
        (Some(split), _) => split.to_string(),
        (None, Destination::Upstream(upstream)) => upstream.name.to_string(),
        (None, Destination::Echo) => delivery.audience.name.to_string(),
    }
}

/// Returns the name of the upstream, and the copies of requests if the route makes any: `shop, copies 10 % of the ...`.
pub(crate) fn upstream_and_copies(delivery: &Delivery) -> String {
    let copies = delivery.mirror.as_ref().map_or_else(String::new, |mirror| format!(", copies {mirror}"));
    upstream_name(delivery) + &copies
}

/// Returns the properties by which a split keeps a request with one upstream, as in the policy.
pub(crate) fn split_by(split: &Split, claims: &[ClaimPath]) -> String {
    match &*split.by {
        [] => "drawn for each request".to_owned(),
        by => format!("by {}", properties(by, claims)),
    }
}

/// Returns properties of requests, as in the policy.
fn properties(by: &[HashBy], claims: &[ClaimPath]) -> String {
    let name = |by: &HashBy| match by {
        HashBy::ClientIp => "client_ip".to_owned(),
        HashBy::Subject => "subject".to_owned(),
        HashBy::Claim(id) => {
            format!("claim:{}", claims.get(usize::from(id.0)).map(ToString::to_string).unwrap_or_default())
        }
        HashBy::Header(name) => format!("header:{name}"),
        HashBy::Cookie(name) => format!("cookie:{name}"),
    };
    by.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// Returns the places where a route looks for a credential, as in the policy.
pub(crate) fn places(sources: &Sources) -> Vec<String> {
    let own = [("header", sources.header), ("cookie", sources.cookie)];
    let own = own.into_iter().filter(|(_, is_read)| *is_read).map(|(name, _)| name.to_owned());
    let other = |source: &Source| match source {
        Source::Header(NamedHeader { name, prefix }) if prefix.is_empty() => format!("header {name}"),
        Source::Header(NamedHeader { name, prefix }) => format!("header {name} after {prefix:?}"),
        Source::Cookie(name) => format!("cookie {name}"),
        Source::WebSocket(marker) => format!("websocket protocol after {marker}"),
        Source::ApiKey(name) => format!("api_key in {name}"),
        Source::Certificate => "client_certificate".to_owned(),
        Source::Query(name) => format!("query field {name}"),
    };
    own.chain(sources.others.iter().map(other)).collect()
}

/// Returns a duration as in the policy.
pub(crate) fn duration(duration: Duration) -> String {
    units::Duration::millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)).to_string()
}

/// Returns the way in which requests choose a server, as in the policy, with the shares of the servers. `None` if there is
/// only one server.
pub(super) fn balance(upstream: &Upstream, claims: &[ClaimPath]) -> Option<String> {
    let members = upstream.members();
    if members.servers.len() < 2 {
        return None;
    }
    let way = match &upstream.balance {
        Balance::RoundRobin => "in turn (round_robin)".to_owned(),
        Balance::LeastRequests => "by the fewest requests (least_requests)".to_owned(),
        Balance::TwoChoices => "by the fewer requests of two (two_choices)".to_owned(),
        Balance::Hash(by) => format!("by a hash of {}", properties(by, claims)),
    };
    let weights: Vec<String> = members.weights().iter().map(ToString::to_string).collect();
    let is_equal = weights.windows(2).all(|pair| pair[0] == pair[1]);
    Some(if is_equal { way } else { format!("{way}, with the weights {}", weights.join(", ")) })
}

/// Returns the bound on requests that are sent again.
pub(super) fn retry_budget(budget: RetryBudget) -> String {
    let RetryBudget { percent, floor } = budget;
    format!(
        "within {}, {percent} % of the answered requests and {floor} more of each core",
        duration(RETRY_WINDOW)
    )
}

/// Returns the name of a protocol, as in the policy.
pub(super) fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http1 => "http1",
        Protocol::Http2 => "http2",
    }
}

/// Returns the origins of the upstream's servers. If a key of the request selects the server, the servers are in the
/// order in which the request tries them.
pub(super) fn servers_of(delivery: &Delivery, key: KeyFacts<'_>) -> Vec<String> {
    let Destination::Upstream(upstream) = &delivery.destination else {
        return vec!["the built-in echo".to_owned()];
    };
    let origin = |server: &Arc<Server>| server.origin.to_string();
    let members = upstream.members();
    match upstream.balance.key(key) {
        Some(key) => upstream.in_turn(0, &members, Instant::now(), Some(key), |_| 0).map(origin).collect(),
        None => members.servers.iter().map(origin).collect(),
    }
}

/// Returns the server that a request tries first, if the request itself decides this.
pub(super) fn server_of(delivery: &Delivery, key: KeyFacts<'_>) -> Option<String> {
    let Destination::Upstream(upstream) = &delivery.destination else { return None };
    let members = upstream.members();
    let key = upstream.balance.key(key);
    if key.is_none() && members.servers.len() > 1 {
        return None;
    }
    let first = upstream.in_turn(0, &members, Instant::now(), key, |_| 0).next()?;
    Some(first.origin.to_string())
}

/// Describes the TLS settings of the upstream's servers. `None` without TLS.
pub(super) fn tls_of(delivery: &Delivery) -> Option<String> {
    let Destination::Upstream(upstream) = &delivery.destination else { return None };
    let members = upstream.members();
    members.servers.iter().find_map(|server| Some(server.tls.as_ref()?.description.to_string()))
}

/// Returns whether the streams of a route end with the caller's token, as in the policy.
pub(crate) fn streams(ends_with_token: bool) -> &'static str {
    if ends_with_token { "expiry" } else { "open" }
}

/// Returns header fields as pairs of name and value.
pub(crate) fn fields(fields: &Fields) -> Vec<(String, String)> {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    fields.iter().map(|(name, value)| (name.to_string(), text(value.as_bytes()))).collect()
}
