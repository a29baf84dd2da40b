//! Compiles `[resource.NAME]`: the metadata of protected resources (RFC 9728) and its routes.

use super::Faults;
use super::counters::CounterRegistry;
use super::route_list::{RouteList, own_route};
use crate::authenticate::Issuer;
use crate::authenticate::dpop;
use crate::authorize::Check;
use crate::config::file::{File, ResourceSection};
use crate::policy::resource::{ProtectedResource, WELL_KNOWN};
use crate::policy::{Handler, Route};
use crate::route::host::{Authority, is_own_machine};
use crate::route::path::canonical;
use crate::route::{Fields, HostPattern, Matcher, Methods, PathPattern};
use bytes::Bytes;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The maximum number of resources. The path of each rejected request is compared with all resources.
const RESOURCES_MAX: usize = 100;
/// The maximum length of a resource identifier, in bytes. Each challenge contains its host and path.
const IDENTIFIER_BYTES_MAX: usize = 1024;

/// Compiles the resources. Adds a route for the metadata of each resource.
pub(super) fn compile(
    file: &File,
    issuers: &[Issuer],
    registry: &CounterRegistry,
    list: &mut RouteList,
    faults: &mut Faults<'_>,
) -> Vec<Arc<ProtectedResource>> {
    if file.resource.len() > RESOURCES_MAX {
        let found = format!("{} resources", file.resource.len());
        faults.fault("too_many", "resource", found, format!("use at most {RESOURCES_MAX}"));
    }
    let mut resources: Vec<Arc<ProtectedResource>> = Vec::new();
    let forwarded = list.routes().len();
    for (name, table) in &file.resource {
        let key = format!("resource.{name}");
        let Some((identifier, host, path)) = identifier(&key, table, faults) else { continue };
        if let Some(same) = resources.iter().find(|same| *same.host == *host && *same.path == *path) {
            let found = format!("\"{}\" is also the identifier of another resource", same.identifier);
            faults.fault("same_resource", &format!("{key}.identifier"), found, "a unique identifier");
            continue;
        }
        let issuers = issuers_of(&key, table, issuers, faults);
        let below: Vec<&Route> =
            list.routes()[..forwarded].iter().filter(|route| is_below(route, &host, &path)).collect();
        if below.is_empty() {
            faults.warn(
                "unused",
                &format!("{key}.identifier"),
                format!("no route covers \"{identifier}\""),
                "use the host and the path of a [[route]], or remove the resource",
            );
        }
        if !issuers.iter().any(|issuer| issuer.audience.iter().any(|audience| **audience == *identifier)) {
            faults.warn(
                "resource_audience",
                &format!("{key}.identifier"),
                format!("no issuer of the resource has \"{identifier}\" in its audience"),
                "add the identifier to `audience` of the issuer: a client asks for a token with `resource` = the \
                 identifier, and the issuer puts it into `aud`",
            );
        }
        let metadata = metadata(&identifier, table, &issuers, &below, file.dpop.announce);
        let authority = &identifier[..identifier.len() - path_of(&identifier).len()];
        let resource = Arc::new(ProtectedResource {
            metadata_url: format!("{authority}{WELL_KNOWN}{path}").into(),
            metadata: Bytes::from(metadata),
            identifier: identifier.into(),
            host: host.into(),
            path: path.into(),
        });
        if let Some(matcher) = matcher(&resource) {
            let handler = Handler::Publish(resource.clone());
            let route = own_route(format!("resource:{name}"), matcher.clone(), handler, registry);
            list.add_own(route, [matcher]);
            resources.push(resource);
        }
    }
    resources
}

/// Checks the identifier of a resource. Returns the identifier, its host, and its path without a trailing slash.
fn identifier(
    key: &str,
    table: &ResourceSection,
    faults: &mut Faults<'_>,
) -> Option<(String, String, String)> {
    let key = format!("{key}.identifier");
    let text = &table.identifier;
    let hint = "an https URL without query and fragment, such as \"https://api.example.com/mcp\"";
    if text.is_empty() {
        faults.fault("missing_key", &key, "nothing", hint);
        return None;
    }
    let mut reject = |why: &str| {
        faults.fault("bad_resource", &key, format!("\"{text}\": {why}"), hint);
        None
    };
    if text.len() > IDENTIFIER_BYTES_MAX {
        return reject("longer than 1024 bytes");
    }
    let (secure, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return reject("the scheme is not https"),
    };
    // RFC 9728 section 1.2 forbids a fragment and advises against a query.
    if rest.contains(['?', '#']) {
        return reject("it has a query or a fragment");
    }
    let path = path_of(text);
    let Ok(authority) = Authority::parse(&rest[..rest.len() - path.len()]) else {
        return reject("the host is not valid");
    };
    if !secure && !is_own_machine(&authority.host) {
        return reject("the scheme is not https, and the host is not this machine");
    }
    let literal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&byte);
    let is_canonical = path.is_empty() || canonical(path).is_ok_and(|canonical| *canonical == *path);
    if !is_canonical || !path.bytes().all(literal) {
        return reject("the path is not canonical");
    }
    let path = path.strip_suffix('/').unwrap_or(path).to_owned();
    Some((text.clone(), authority.host.into_owned(), path))
}

/// Returns the path of a URL. Empty if the URL has no path.
fn path_of(url: &str) -> &str {
    let after_scheme = url.find("://").map_or(0, |at| at + 3);
    url[after_scheme..].find('/').map_or("", |at| &url[after_scheme + at..])
}

/// Returns the issuers that a resource names. The default is all issuers.
fn issuers_of<'i>(
    key: &str,
    table: &ResourceSection,
    issuers: &'i [Issuer],
    faults: &mut Faults<'_>,
) -> Vec<&'i Issuer> {
    if table.issuers.is_empty() {
        return issuers.iter().collect();
    }
    let mut named = Vec::new();
    for (index, name) in table.issuers.iter().enumerate() {
        match issuers.iter().find(|issuer| *issuer.name == **name) {
            Some(issuer) => named.push(issuer),
            // The issuer is in the file but has a fault, which has already been reported.
            None if faults.loaded.file.issuer.iter().any(|issuer| issuer.issuer == *name) => {}
            None => {
                let known = issuers.iter().map(|issuer| &*issuer.name);
                faults.undefined(&format!("{key}.issuers[{index}]"), "issuer", name, known);
            }
        }
    }
    named
}

/// Whether a route may cover requests for the resource with this host and path.
fn is_below(route: &Route, host: &str, path: &str) -> bool {
    let own = route.matcher.path.to_string();
    let literal = own.split("{").next().unwrap_or_default();
    let below = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    // A route with a path parameter may cover the path of the resource.
    route.matcher.host.covers(Some(host))
        && (below(&own, path) || (own.len() > literal.len() && path.starts_with(literal)))
}

/// Returns the metadata as JSON (RFC 9728 section 2). The default scopes are the scopes that the
/// routes in `below` require.
fn metadata(
    identifier: &str,
    table: &ResourceSection,
    issuers: &[&Issuer],
    below: &[&Route],
    announces_dpop: bool,
) -> String {
    let mut document = Map::new();
    document.insert("resource".into(), identifier.into());
    let servers: Vec<Value> = issuers.iter().map(|issuer| (*issuer.name).into()).collect();
    document.insert("authorization_servers".into(), servers.into());
    let required = below.iter().flat_map(|route| route.rule.checks()).filter_map(|check| match check {
        Check::Scopes { all: scopes, .. } | Check::AnyScope { any: scopes, .. } => {
            Some(scopes.iter().map(|scope| &**scope))
        }
        _ => None,
    });
    let required: BTreeSet<&str> = required.flatten().collect();
    let scopes: Vec<&str> = match table.scopes.is_empty() {
        true => required.into_iter().collect(),
        false => table.scopes.iter().map(String::as_str).collect(),
    };
    if !scopes.is_empty() {
        document.insert("scopes_supported".into(), scopes.into());
    }
    let mut methods = vec!["header"];
    if below.iter().any(|route| route.credential_policy.sources.queries().next().is_some()) {
        methods.push("query");
    }
    document.insert("bearer_methods_supported".into(), methods.into());
    let requires_bound =
        |route: &&&Route| route.rule.checks().iter().any(|check| matches!(check, Check::Bound));
    let bound = below.iter().filter(requires_bound).count();
    if announces_dpop || bound > 0 {
        let algorithms: Vec<&str> = dpop::algorithms().split(' ').collect();
        document.insert("dpop_signing_alg_values_supported".into(), algorithms.into());
    }
    if bound > 0 && bound == below.len() {
        document.insert("dpop_bound_access_tokens_required".into(), true.into());
    }
    for (name, text) in [
        ("resource_name", &table.name),
        ("resource_documentation", &table.documentation),
        ("resource_policy_uri", &table.policy),
        ("resource_tos_uri", &table.terms),
    ] {
        if let Some(text) = text {
            document.insert(name.into(), text.as_str().into());
        }
    }
    Value::Object(document).to_string()
}

/// Returns the matcher of the metadata. Its host and path are literals, so no other route is more specific.
fn matcher(resource: &ProtectedResource) -> Option<Matcher> {
    Some(Matcher {
        host: HostPattern::parse(&resource.host).ok()?,
        path: PathPattern::parse(&format!("{WELL_KNOWN}{}", resource.path)).ok()?,
        methods: Methods::parse(&["GET", "HEAD", "OPTIONS"]).ok()?,
        fields: Fields::default(),
    })
}
