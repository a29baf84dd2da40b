//! Describes parts of a route in the notation of the policy file.

use crate::forward::{Delivery, Destination};
use crate::route::{Fields, HostPattern, Matcher, Methods};

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

/// Returns the name of the upstream and the origins of its servers.
pub(crate) fn upstream_of(delivery: &Delivery) -> (String, Vec<String>) {
    match &delivery.destination {
        Destination::Upstream(upstream) => {
            let servers = upstream.servers.iter().map(|server| server.origin.to_string()).collect();
            (upstream.name.to_string(), servers)
        }
        Destination::Echo => (delivery.audience.name.to_string(), vec!["the built-in echo".to_owned()]),
    }
}

/// Returns header fields as pairs of name and value.
pub(crate) fn fields(fields: &Fields) -> Vec<(String, String)> {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    fields.iter().map(|(name, value)| (name.to_string(), text(value.as_bytes()))).collect()
}
