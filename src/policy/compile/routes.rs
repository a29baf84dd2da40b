//! Compiles `[[route]]`: the matcher, the requirements and the destination.

use super::counters::CounterRegistry;
use super::credential_policy::{check_login, sources};
use super::limits::{NamedLimits, chosen_limits};
use super::trust::{Claims, is_reserved};
use super::upstreams::{Audiences, Upstreams};
use super::{Faults, endpoints, files, identity_choice, mirror, resources, rule, shaping, signals, split};
use crate::authenticate::{Access, CredentialPolicy, IdentityHeaders, Issuer, Source, Sources, digest_of};
use crate::authority::IssuerSettings;
use crate::authorize::ShadowMode;
use crate::config::file::{self, File, RouteSection};
use crate::forward::{Delivery, Destination, strip};
use crate::policy::{Handler, ProtectedResource, Route};
use crate::respond::cors::Cors;
use crate::route::field::is_word;
use crate::route::{Fields, Guard, HostPattern, Matcher, Methods, PathPattern, RouteTable};
use crate::signals::Receiver;
use http::{HeaderName, HeaderValue, Method};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// The maximum number of distinct methods in a policy. About forty methods are registered.
const METHODS_MAX: usize = 100;
/// The maximum number of distinct `headers` in a policy. They are compared pairwise, and a review tries each of them.
const HEADERS_MAX: usize = 100;

/// The compiled parts that routes refer to.
pub(super) struct References<'r> {
    pub(super) upstreams: &'r Upstreams,
    pub(super) audiences: &'r Audiences,
    pub(super) limits: &'r NamedLimits,
    pub(super) rule: rule::RuleContext<'r>,
    pub(super) settings: Option<&'r IssuerSettings>,
    pub(super) issuers: &'r [Issuer],
    pub(super) receivers: &'r [Arc<Receiver>],
    /// The header of API keys, if the policy accepts API keys.
    pub(super) api_key_header: Option<&'r HeaderName>,
    pub(super) cors: &'r HashMap<&'r str, Option<Arc<Cors>>>,
    pub(super) counters: CounterRegistry,
}

/// Compiles the routes and the route table. The table is `None` if two routes conflict.
pub(super) fn compile(
    file: &File,
    references: &References<'_>,
    claims: &mut Claims,
    faults: &mut Faults<'_>,
) -> (Vec<Route>, Vec<Arc<ProtectedResource>>, Option<RouteTable<usize>>) {
    let References {
        upstreams,
        audiences,
        limits,
        rule: context,
        settings,
        issuers,
        receivers,
        api_key_header,
        cors,
        counters,
    } = references;
    let (settings, limits, api_key_header) = (*settings, *limits, *api_key_header);
    if file.route.is_empty() {
        faults.fault(
            "no_routes",
            "route",
            "there is no [[route]]: every request would be refused",
            "add a [[route]] with path and upstream",
        );
    }
    let usual_sources = match &file.policy.sources {
        Some(list) => sources("policy.sources", list, settings, api_key_header, faults),
        None => Sources {
            others: api_key_header.iter().map(|name| Source::ApiKey((*name).clone())).collect(),
            ..Sources::default()
        },
    };
    let rules = rule::named(context, claims, faults);
    let mut routes = Vec::new();
    let mut entries = Vec::new();
    let mut positions = Vec::new();
    let mut names: HashMap<&str, usize> = HashMap::new();
    for (index, table) in file.route.iter().enumerate() {
        let key = format!("route[{index}]");
        let name = name(&key, table, faults);
        if let Some(first) = names.insert(name, index) {
            faults.fault(
                "same_name",
                &format!("{key}.name"),
                format!("\"{name}\" is also the name of route {}", first + 1),
                "a unique name: logs and metrics identify routes by it",
            );
        }
        // Compiles every part before the route is skipped, so that all faults of the route are reported.
        let matcher = matcher(&key, table, context.identity, faults);
        let redirect = match (&table.redirect, &matcher) {
            (Some(template), Some(matcher)) => {
                Some(shaping::redirect(&key, table, template, matcher.path.params(), faults))
            }
            (Some(_), None) => Some(None),
            (None, _) => None,
        };
        let folder = match table.files.is_empty() {
            true => None,
            false => Some(files::folder(&key, table, file, faults)),
        };
        let matcher = match (matcher, &folder) {
            (Some(matcher), Some(_)) => {
                Some(Matcher { methods: files::methods(&key, &matcher.methods, faults), ..matcher })
            }
            (matcher, _) => matcher,
        };
        let destination = if redirect.is_some() || folder.is_some() {
            Some(Destination::Echo)
        } else {
            destination(&key, &table.upstream, upstreams, faults)
        };
        let limits = chosen_limits(&format!("{key}.rate_limits"), &table.rate_limits, limits, faults);
        let sources = match &table.sources {
            Some(list) => sources(&format!("{key}.sources"), list, settings, api_key_header, faults),
            None => usual_sources.clone(),
        };
        let route = rule::RouteContext { matcher: matcher.as_ref(), sources: &sources };
        let rule = rule::compile(&key, table, &route, &rules, context, claims, faults);
        check_login(&key, table, &sources, settings, faults);
        let rewrite = shaping::rewrite(&key, table, faults);
        let request_fields = shaping::request_fields(&key, table, context.identity, faults);
        let answer_fields = shaping::answer_fields(&key, table, file, context.identity, faults);
        if table.pass_authorization && table.access != file::Access::Public {
            // The upstream could trust an identity in `Authorization` that the gateway has not verified.
            faults.fault(
                "impossible_rule",
                &format!("{key}.pass_authorization"),
                "set on a route whose credentials the gateway reads itself",
                "access = \"public\" for a service with its own login, or [identity] forward_token",
            );
        }
        let mirror = mirror::compile(&key, table, upstreams, faults);
        let split = split::compile(&key, table, upstreams, context.identity, claims, faults);
        if table.websocket {
            let shares = split.iter().flat_map(split::Draft::destinations);
            for destination in destination.iter().chain(shares) {
                websocket(&key, destination, faults);
            }
            websocket_method(&key, matcher.as_ref(), faults);
        }
        let cors = super::cors::chosen(&key, table, cors, faults);
        let maintenance = shaping::maintenance(&key, table, faults);
        let compression = super::compression::compile(&key, table, faults);
        let choice = identity_choice::choice(&key, table, file, context.identity, faults);
        let audience = |upstream: &str| {
            let audience = audiences.get(upstream)?;
            Some(match &choice {
                Some(choice) => Arc::new(audience.receiving(choice.clone())),
                None => audience.clone(),
            })
        };
        let (Some(matcher), Some(destination), Some(rule)) = (matcher, destination, rule) else { continue };
        let handler = match (redirect, folder, audience(&table.upstream)) {
            (Some(Some(redirect)), ..) => Handler::Redirect(redirect),
            (None, Some(Some(root)), _) => {
                Handler::Files(Box::new(files::compile(table, root, rewrite, answer_fields)))
            }
            (None, None, Some(own)) => {
                let delivery = Delivery {
                    destination,
                    split: None,
                    mirror: mirror.and_then(|draft| draft.complete(audience)),
                    rewrite,
                    request_fields,
                    answer_fields,
                    pass_authorization: table.pass_authorization,
                    timeout: table.timeout.map(Into::into),
                    websocket: table.websocket,
                    ends_with_token: table.streams == file::Streams::Expiry,
                    silence: table.silence.map(Into::into),
                    audience: own,
                };
                Handler::Forward(match split {
                    Some(draft) => draft.complete(delivery, audience),
                    None => delivery,
                })
            }
            (Some(None), ..) | (None, Some(None), _) | (None, None, None) => continue,
        };
        let name: Arc<str> = Arc::from(name);
        let route = Route {
            counters: counters.of(&name),
            name,
            index: routes.len(),
            matcher: matcher.clone(),
            limits,
            credential_policy: CredentialPolicy {
                access: match table.access {
                    file::Access::Authenticated => Access::Authenticated,
                    file::Access::Optional => Access::Optional,
                    file::Access::Public => Access::Public,
                },
                sources,
            },
            rule,
            handler,
            login_page: table.login.is_some(),
            csrf_field: table.csrf_field.as_deref().map(Into::into),
            shadow: match table.mode.unwrap_or(file.policy.mode) {
                file::Mode::Shadow => Some(ShadowMode::new()),
                file::Mode::Enforce => None,
            },
            cors,
            maintenance,
            compression,
        };
        entries.push((matcher, routes.len()));
        positions.push(Some(index));
        routes.push(route);
    }
    let methods: HashSet<&Method> = entries.iter().flat_map(|(matcher, _)| listed(matcher)).collect();
    if methods.len() > METHODS_MAX {
        faults.fault(
            "too_many",
            "route",
            format!("{} different methods in the file", methods.len()),
            format!("use at most {METHODS_MAX}: every route for all methods is tested with each of them"),
        );
    }
    if let Some(settings) = settings {
        endpoints::compile(file, settings, limits, counters, &mut routes, &mut entries, faults);
    }
    signals::routes(file, receivers, limits, counters, &mut routes, &mut entries, faults);
    let resources = resources::compile(file, issuers, counters, &mut routes, &mut entries, faults);
    positions.resize(entries.len(), None);
    let sets: HashSet<&Fields> = entries.iter().map(|(matcher, _)| &matcher.fields).collect();
    if sets.len() > HEADERS_MAX {
        faults.fault(
            "too_many",
            "route",
            format!("{} different sets of headers in the file", sets.len()),
            format!("use at most {HEADERS_MAX}: each is compared with the others"),
        );
        return (routes, resources, None);
    }
    let entry_routes: Vec<usize> = entries.iter().map(|(_, route)| *route).collect();
    let table = match RouteTable::build(entries) {
        Ok(table) => {
            for entries in table.grouped() {
                let own = entries.iter().any(|&entry| positions[entry].is_none());
                for index in entries.iter().filter(|_| own).filter_map(|&entry| positions[entry]) {
                    faults.fault(
                        "same_route",
                        &format!("route[{index}].path"),
                        "matches an endpoint of the gateway, whose path no headers divide",
                        "use another path, or move the endpoint in [authority] paths",
                    );
                }
            }
            Some(table.guarding(|index| guard(&routes[*index])))
        }
        Err(conflicts) => {
            for conflict in conflicts {
                let (one, other) = match (positions[conflict.first], positions[conflict.second]) {
                    (Some(one), Some(other)) => (one, other),
                    (Some(index), None) | (None, Some(index)) => {
                        faults.fault(
                            "same_route",
                            &format!("route[{index}].path"),
                            "matches an endpoint of the gateway",
                            "use another path, or move the endpoint in [authority] paths or [signals]; the metadata of a [resource] cannot move",
                        );
                        continue;
                    }
                    (None, None) => {
                        faults.fault(
                            "same_route",
                            "authority.paths",
                            "two endpoints have the same path",
                            "a separate path for each",
                        );
                        continue;
                    }
                };
                let named = &routes[entry_routes[conflict.first]].name;
                if conflict.by_fields {
                    faults.fault(
                        "same_route",
                        &format!("route[{other}].headers"),
                        format!("a request may have these headers and those of route \"{named}\", and neither route is more specific"),
                        format!("let one of them require all headers of the other, or different values of one header (the other is route {})", one + 1),
                    );
                    continue;
                }
                faults.fault(
                    "same_route",
                    &format!("route[{other}].path"),
                    format!("matches the same host, path and method as route \"{named}\"",),
                    format!(
                        "remove one of them, or give them different methods (the other is route {})",
                        one + 1
                    ),
                );
            }
            None
        }
    };
    (routes, resources, table)
}

/// Returns digests of a route's servers and requirements, for comparison with other routes.
fn guard(route: &Route) -> Guard {
    let digest = |parts: &[String]| {
        let digest = digest_of(parts.join("\n"));
        digest.first_chunk().copied().map(u64::from_be_bytes).unwrap_or_default()
    };
    let before = match &route.handler {
        Handler::Answer(endpoint) => vec![format!("{endpoint:?}")],
        Handler::Files(files) => vec![format!("files {}", files.root.display())],
        Handler::Publish(resource) => vec![resource.metadata_url.to_string()],
        Handler::Redirect(_) => vec!["redirect".to_owned(), route.name.to_string()],
        Handler::Receive(receiver, kind) => vec![format!("{} {kind:?}", receiver.name)],
        Handler::Forward(delivery) => {
            let servers = |delivery: &Delivery| match &delivery.destination {
                Destination::Echo => vec!["echo".to_owned()],
                Destination::Upstream(upstream) => upstream.addresses(),
            };
            let mut servers: Vec<_> = delivery.alternatives().flat_map(servers).collect();
            servers.sort_unstable();
            servers.dedup();
            servers
        }
    };
    let asks = || {
        let checks = route.rule.checks().iter().map(ToString::to_string);
        digest(
            &std::iter::once(format!("{:?}", route.credential_policy.access))
                .chain(checks)
                .collect::<Vec<_>>(),
        )
    };
    Guard {
        before: digest(&before),
        asks: (route.credential_policy.access != Access::Public).then(asks),
        is_lax: route.shadow.is_some(),
    }
}

/// Returns the listed methods. Empty if the route covers all methods.
fn listed(matcher: &Matcher) -> impl Iterator<Item = &Method> {
    matcher.methods.iter().filter(|_| !matcher.methods.is_any())
}

/// Returns the name of a route. The default is the path.
fn name<'t>(key: &str, table: &'t RouteSection, faults: &mut Faults<'_>) -> &'t str {
    let name = if table.name.is_empty() { &table.path } else { &table.name };
    if name.len() > 200 || name.chars().any(char::is_control) {
        faults.fault(
            "bad_name",
            &format!("{key}.name"),
            "longer than 200 bytes, or contains control characters",
            "a short name",
        );
    }
    name
}

/// Compiles the header fields that a route requires.
pub(super) fn fields(
    key: &str,
    table: &BTreeMap<String, String>,
    identity: &IdentityHeaders,
    faults: &mut Faults<'_>,
) -> Option<Fields> {
    let mut fields = Vec::new();
    for (name, value) in table {
        let at = format!("{key}.headers.{name}");
        let Ok(parsed) = name.parse::<HeaderName>() else {
            let hint = "for example { \"X-Api-Version\" = \"2\" }";
            faults.fault("bad_header", &at, format!("\"{name}\" is not a header name"), hint);
            return None;
        };
        if is_reserved(&parsed) || !strip::passes(&parsed, identity) {
            let hint = "use a header that the upstream reads, such as \"X-Api-Version\"";
            let found =
                format!("the gateway removes or rewrites \"{name}\", so the upstream would not see it");
            faults.fault("bad_header", &at, found, hint);
            return None;
        }
        match HeaderValue::from_str(value) {
            Ok(value) if is_word(value.as_bytes()) => fields.push((parsed, value)),
            Ok(_) | Err(_) => {
                let hint = "one word of visible ASCII without commas, semicolons, quotes and backslashes";
                faults.fault("bad_value", &at, format!("\"{value}\""), hint);
                return None;
            }
        }
    }
    Fields::new(fields)
        .map_err(|name| {
            let found = format!("\"{name}\" is listed twice");
            faults.fault("same_header", &format!("{key}.headers"), found, "use each header once");
        })
        .ok()
}

fn matcher(
    key: &str,
    table: &RouteSection,
    identity: &IdentityHeaders,
    faults: &mut Faults<'_>,
) -> Option<Matcher> {
    let path = if table.path.is_empty() {
        faults.fault("missing_key", &format!("{key}.path"), "nothing", "path = \"/orders/{id}\"");
        None
    } else {
        PathPattern::parse(&table.path)
            .map_err(|fault| faults.fault("bad_path", &format!("{key}.path"), fault.found(), fault.remedy()))
            .ok()
    };
    let host = match table.host.as_str() {
        "" => Some(HostPattern::Any),
        text => HostPattern::parse(text)
            .map_err(|fault| faults.fault("bad_host", &format!("{key}.host"), fault.found(), fault.remedy()))
            .ok(),
    };
    let methods = if table.methods.is_empty() {
        Some(Methods::any())
    } else {
        Methods::parse(&table.methods)
            .map_err(|fault| {
                faults.fault("bad_method", &format!("{key}.methods"), fault.found(), fault.remedy())
            })
            .ok()
    };
    let fields = fields(key, &table.headers, identity, faults);
    Some(Matcher { host: host?, path: path?, methods: methods?, fields: fields? })
}

pub(super) fn destination(
    key: &str,
    name: &str,
    upstreams: &Upstreams,
    faults: &mut Faults<'_>,
) -> Option<Destination> {
    let at = format!("{key}.upstream");
    if name.is_empty() {
        faults.fault("missing_key", &at, "nothing", "upstream = \"NAME\" of an [upstream.NAME]");
        return None;
    }
    match upstreams.get(name) {
        Some(Some(upstream)) => Some(Destination::Upstream(upstream.clone())),
        // The upstream is the built-in echo, or its fault has already been reported.
        Some(None) => Some(Destination::Echo),
        None => {
            faults.undefined(&at, "upstream", name, upstreams.keys().map(String::as_str));
            None
        }
    }
}

/// Checks that a destination of a route supports WebSockets.
fn websocket(key: &str, destination: &Destination, faults: &mut Faults<'_>) {
    let at = format!("{key}.websocket");
    if matches!(destination, Destination::Echo) {
        let found = "true, and the built-in echo does not support WebSockets";
        faults.fault("impossible_rule", &at, found, "an upstream with servers");
    }
}

/// Checks that the methods of a route include that of WebSocket handshakes.
fn websocket_method(key: &str, matcher: Option<&Matcher>, faults: &mut Faults<'_>) {
    let at = format!("{key}.websocket");
    if matcher.is_some_and(|matcher| !matcher.methods.contains(&Method::GET)) {
        let found = "true, and the route's methods lack GET, the method of every WebSocket handshake";
        faults.fault("impossible_rule", &at, found, "add \"GET\" to methods");
    }
}
