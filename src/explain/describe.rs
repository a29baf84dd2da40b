//! Describes parts of a route in the notation of the policy file.

use crate::forward::{Delivery, Destination, KeyFacts, Server};
use crate::route::{Fields, HostPattern, Matcher, Methods};
use std::sync::Arc;
use std::time::Instant;

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

/// Returns the name of the upstream. If several upstreams share the requests, returns their names and shares. Adds the
/// upstream that gets copies.
pub(crate) fn upstream_name(delivery: &Delivery) -> String {
    let mirror = delivery.mirror.as_ref().map_or_else(String::new, |mirror| format!(", copied to {mirror}"));
    let name = match (&delivery.split, &delivery.destination) {
        (Some(split), _) => split.to_string(),
        (None, Destination::Upstream(upstream)) => upstream.name.to_string(),
        (None, Destination::Echo) => delivery.audience.name.to_string(),
    };
    name + &mirror
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
