//! Compiles `request_trailers` of a route.

use super::Faults;
use super::shaping::is_decided_by_gateway;
use crate::authenticate::{CookieNames, IdentityHeaders, Source, Sources, fold_eq};
use crate::config::file::RouteSection;
use http::HeaderName;
use std::sync::Arc;

/// The maximum number of names.
const NAMES_MAX: usize = 16;

/// The names that no trailer may have, beside those that the gateway decides about. The receiver needs these fields
/// before the content (RFC 9110 section 6.5.1): RFC 9112 sections 6.1 and 6.2 (framing), RFC 9110 sections 7.2 and 7.6.2
/// (routing), 10.1 and 14.2 (controls), 13.1 (conditions), 12.5 (negotiation), 11.6, 11.7 and RFC 6265 (authentication),
/// 8.3 to 8.8 and 14.4 (the meaning of the content), RFC 9111 section 5 (caching), RFC 6454 and the Fetch standard (the
/// origin). A name with a `*` at the end is a prefix.
const FORBIDDEN: [&str; 42] = [
    "accept*",
    "access-control-*",
    "age",
    "authentication-info",
    "authorization",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "early-data",
    "etag",
    "expect",
    "expires",
    "from",
    "grpc-timeout",
    "host",
    "if-*",
    "last-modified",
    "location",
    "max-forwards",
    "origin",
    "pragma",
    "prefer",
    "priority",
    "proxy-*",
    "range",
    "referer",
    "retry-after",
    "sec-*",
    "set-cookie",
    "tracestate",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
];

/// Returns the names of the trailers that the upstream of a route receives.
pub(super) fn compile(
    key: &str,
    table: &RouteSection,
    sources: &Sources,
    cookies: Option<&CookieNames>,
    identity: &IdentityHeaders,
    faults: &mut Faults<'_>,
) -> Option<Arc<[HeaderName]>> {
    let at = format!("{key}.request_trailers");
    if table.request_trailers.len() > NAMES_MAX {
        let found = format!("{} names", table.request_trailers.len());
        faults.fault("too_many", &at, found, format!("use at most {NAMES_MAX}"));
    }
    let of_sources = sources.others.iter().filter_map(|source| match source {
        Source::Header(named) => Some(&named.name),
        Source::ApiKey(name) => Some(name),
        Source::Cookie(_) | Source::WebSocket(_) | Source::Query(_) | Source::Certificate => None,
    });
    let of_credentials =
        of_sources.chain(cookies.map(|cookies| &cookies.csrf_header)).map(HeaderName::as_str);
    let changed = table.set_request_headers.keys().chain(table.add_request_headers.keys());
    let changed = changed.chain(&table.remove_request_headers).map(String::as_str);
    let of_route: Vec<&str> = of_credentials.chain(changed).collect();
    let mut names: Vec<HeaderName> = Vec::new();
    for (index, text) in table.request_trailers.iter().enumerate() {
        let at = format!("{at}[{index}]");
        let Ok(name) = text.parse::<HeaderName>() else {
            let found = format!("\"{text}\" is not a header name");
            faults.fault("bad_header", &at, found, "for example \"X-Checksum\"");
            continue;
        };
        let is_own = of_route.iter().any(|own| fold_eq(own, name.as_str()));
        if is_own || is_forbidden(&name, identity) {
            let found = format!(
                "\"{text}\" has a meaning only before the content, or is one that the gateway decides about"
            );
            faults.fault("bad_header", &at, found, "use a name of your service, such as \"X-Checksum\"");
        } else if let Some(other) = names.iter().find(|other| fold_eq(other.as_str(), name.as_str())) {
            let found = format!("\"{name}\" and \"{other}\" are listed");
            faults.fault("same_header", &at, found, "use each name once");
        } else {
            names.push(name);
        }
    }
    (!names.is_empty()).then(|| names.into())
}

/// Some servers read `X_Env` as `X-Env`, so every spelling of a forbidden name is forbidden.
fn is_forbidden(name: &HeaderName, identity: &IdentityHeaders) -> bool {
    let folded: String =
        name.as_str().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let is_listed = FORBIDDEN.iter().any(|forbidden| match forbidden.strip_suffix('*') {
        Some(prefix) => folded.starts_with(prefix),
        None => folded == *forbidden,
    });
    let is_decided = |name: &HeaderName| is_decided_by_gateway(name, identity);
    is_listed || is_decided(name) || folded.parse().is_ok_and(|folded| is_decided(&folded))
}
