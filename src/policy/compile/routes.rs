//! Compiles `[[route]]`: the matcher, the requirements and the destination.

use super::claims::Claims;
use super::counters::CounterRegistry;
use super::credential_policy::{check_login, sources};
use super::limits::{NamedLimits, chosen_limits};
use super::matcher::matcher;
use super::route_list::RouteList;
use super::rule::{NamedRules, RuleContext};
use super::upstreams::{Audiences, Upstreams, destination};
use super::{
    Faults, endpoints, files, identity_choice, mirror, request_trailers, resources, rule, shaping, signals,
    split,
};
use crate::authenticate::{Access, CredentialPolicy, Issuer, Source, Sources};
use crate::authority::IssuerSettings;
use crate::authorize::ShadowMode;
use crate::config::file::{self, File, RouteSection};
use crate::forward::{Delivery, Destination};
use crate::policy::{Handler, ProtectedResource, Route};
use crate::respond::cors::Cors;
use crate::respond::redirect::Redirect;
use crate::route::{Matcher, RouteTable};
use crate::signals::Receiver;
use http::{HeaderName, Method};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

/// The compiled parts that routes refer to.
pub(super) struct References<'r> {
    pub(super) upstreams: &'r Upstreams,
    pub(super) audiences: &'r Audiences,
    pub(super) limits: &'r NamedLimits,
    pub(super) rule: RuleContext<'r>,
    pub(super) settings: Option<&'r IssuerSettings>,
    pub(super) issuers: &'r [Issuer],
    pub(super) receivers: &'r [Arc<Receiver>],
    /// The header of API keys, if the policy accepts API keys.
    pub(super) api_key_header: Option<&'r HeaderName>,
    pub(super) cors: &'r HashMap<&'r str, Option<Arc<Cors>>>,
    pub(super) counters: CounterRegistry,
}

/// The parts of the file that all routes use.
struct Common<'c> {
    file: &'c File,
    references: &'c References<'c>,
    /// The places of tokens on routes that list none.
    sources: Sources,
    rules: NamedRules<'c>,
}

/// Compiles the routes and the route table. The table is `None` if two routes conflict.
pub(super) fn compile(
    file: &File,
    references: &References<'_>,
    claims: &mut Claims,
    faults: &mut Faults<'_>,
) -> (Vec<Route>, Vec<Arc<ProtectedResource>>, Option<RouteTable<usize>>) {
    let References { limits, settings, issuers, receivers, api_key_header, counters, .. } = references;
    if file.route.is_empty() {
        faults.fault(
            "no_routes",
            "route",
            "there is no [[route]]: every request would be refused",
            "add a [[route]] with path and upstream",
        );
    }
    let sources = match &file.policy.sources {
        Some(list) => sources("policy.sources", list, *settings, *api_key_header, faults),
        None => Sources {
            others: api_key_header.iter().map(|name| Source::ApiKey((*name).clone())).collect(),
            ..Sources::default()
        },
    };
    let rules = rule::named(&references.rule, claims, faults);
    let common = Common { file, references, sources, rules };
    let mut list = RouteList::default();
    let mut names: HashMap<&str, usize> = HashMap::new();
    for (index, table) in file.route.iter().enumerate() {
        let key = format!("route[{index}]");
        let name = name(&key, table, faults);
        if let Some(first) = names.insert(name, index) {
            let there = faults.place_of(&format!("route[{first}]"));
            faults.fault(
                "same_name",
                &format!("{key}.name"),
                format!("\"{name}\" is also the name of the route at {there}"),
                "a unique name: logs and metrics identify routes by it",
            );
        }
        if let Some(route) = route(&key, name, table, &common, claims, faults) {
            list.add(index, route);
        }
    }
    list.check_methods(faults);
    if let Some(settings) = settings {
        endpoints::compile(file, settings, limits, counters, &mut list, faults);
    }
    signals::routes(file, receivers, limits, counters, &mut list, faults);
    let resources = resources::compile(file, issuers, counters, &mut list, faults);
    let (routes, table) = list.build(faults);
    (routes, resources, table)
}

/// Compiles a route. Every part is compiled before the first fault ends the function, so that all faults of the route
/// are reported.
fn route(
    key: &str,
    name: &str,
    table: &RouteSection,
    common: &Common<'_>,
    claims: &mut Claims,
    faults: &mut Faults<'_>,
) -> Option<Route> {
    let References { limits, rule: context, settings, api_key_header, cors, counters, .. } =
        common.references;
    let mut matcher = matcher(key, table, context.identity, faults);
    let service = service(key, table, matcher.as_mut(), common, faults);
    let limits = chosen_limits(&format!("{key}.rate_limits"), &table.rate_limits, limits, faults);
    let sources = match &table.sources {
        Some(list) => sources(&format!("{key}.sources"), list, *settings, *api_key_header, faults),
        None => common.sources.clone(),
    };
    let facts = rule::RouteContext { matcher: matcher.as_ref(), sources: &sources };
    let rule = rule::compile(key, table, &facts, &common.rules, context, claims, faults);
    check_login(key, table, &sources, *settings, faults);
    let handler = handler(key, table, service, &facts, common, claims, faults);
    let cors = super::cors::chosen(key, table, cors, faults);
    let maintenance = shaping::maintenance(key, table, faults);
    let compression = super::compression::compile(key, table, faults);
    let access = match table.access {
        file::Access::Authenticated => Access::Authenticated,
        file::Access::Optional => Access::Optional,
        file::Access::Public => Access::Public,
    };
    let name: Arc<str> = Arc::from(name);
    Some(Route {
        counters: counters.of(&name),
        name,
        // The list of routes sets it.
        index: 0,
        matcher: matcher?,
        limits,
        credential_policy: CredentialPolicy { access, sources },
        rule: rule?,
        handler: handler?,
        login_page: table.login.is_some(),
        csrf_field: table.csrf_field.as_deref().map(Into::into),
        shadow: match table.mode.unwrap_or(common.file.policy.mode) {
            file::Mode::Shadow => Some(ShadowMode::new()),
            file::Mode::Enforce => None,
        },
        cors,
        maintenance,
        compression,
    })
}

/// The service of a route, without the settings of its requests.
enum Service {
    Redirect(Redirect),
    Files(PathBuf),
    Upstream(Destination),
}

/// Compiles the service of a route. A route with files covers only the methods that read them.
fn service(
    key: &str,
    table: &RouteSection,
    matcher: Option<&mut Matcher>,
    common: &Common<'_>,
    faults: &mut Faults<'_>,
) -> Option<Service> {
    let params = matcher.as_ref().map(|matcher| matcher.path.params().to_owned());
    let folder = match table.files.is_empty() {
        true => None,
        false => {
            if let Some(matcher) = matcher {
                matcher.methods = files::methods(key, &matcher.methods, faults);
            }
            Some(files::folder(key, table, faults))
        }
    };
    match (&table.redirect, folder) {
        (Some(template), _) => {
            shaping::redirect(key, table, template, &params?, faults).map(Service::Redirect)
        }
        (None, Some(folder)) => folder.map(Service::Files),
        (None, None) => {
            destination(key, &table.upstream, common.references.upstreams, faults).map(Service::Upstream)
        }
    }
}

/// Compiles the handler of a route. `service` is `None` if its fault has already been reported.
fn handler(
    key: &str,
    table: &RouteSection,
    service: Option<Service>,
    facts: &rule::RouteContext<'_>,
    common: &Common<'_>,
    claims: &mut Claims,
    faults: &mut Faults<'_>,
) -> Option<Handler> {
    let References { upstreams, audiences, settings, rule: RuleContext { file, identity }, .. } =
        common.references;
    let rewrite = shaping::rewrite(key, table, faults);
    let request_fields = shaping::request_fields(key, table, identity, faults);
    let cookies = settings.and_then(|settings| Some(&settings.cookies.as_ref()?.names));
    let request_trailers = request_trailers::compile(key, table, facts.sources, cookies, identity, faults);
    let answer_fields = shaping::answer_fields(key, table, file, identity, faults);
    if table.pass_authorization && table.access != file::Access::Public {
        // The upstream could trust an identity in `Authorization` that the gateway has not verified.
        faults.fault(
            "impossible_rule",
            &format!("{key}.pass_authorization"),
            "set on a route whose credentials the gateway reads itself",
            "access = \"public\" for a service with its own login, or forward_token = true for the verified token",
        );
    }
    let forward_token = forward_token(key, table, file, faults);
    let mirror = mirror::compile(key, table, upstreams, faults);
    let split = split::compile(key, table, upstreams, identity, claims, faults);
    if table.websocket {
        let own = match &service {
            Some(Service::Upstream(destination)) => Some(destination),
            Some(Service::Redirect(_) | Service::Files(_)) | None => None,
        };
        for destination in own.into_iter().chain(split.iter().flat_map(split::Draft::destinations)) {
            websocket(key, destination, faults);
        }
        websocket_method(key, facts.matcher, faults);
    }
    let choice = identity_choice::choice(key, table, file, identity, faults);
    let audience = |upstream: &str| {
        let audience = audiences.get(upstream)?;
        Some(match &choice {
            Some(choice) => Arc::new(audience.receiving(choice.clone())),
            None => audience.clone(),
        })
    };
    let destination = match service? {
        Service::Redirect(redirect) => return Some(Handler::Redirect(redirect)),
        Service::Files(root) => {
            return Some(Handler::Files(Box::new(files::compile(table, root, rewrite, answer_fields))));
        }
        Service::Upstream(destination) => destination,
    };
    let delivery = Delivery {
        destination,
        split: None,
        mirror: mirror.and_then(|draft| draft.complete(audience)),
        rewrite,
        request_fields,
        request_trailers,
        answer_fields,
        pass_authorization: table.pass_authorization,
        forward_token,
        timeout: table.timeout.map(Into::into),
        websocket: table.websocket,
        ends_with_token: table.streams == file::Streams::Expiry,
        silence: table.silence.map(Into::into),
        audience: audience(&table.upstream)?,
    };
    Some(Handler::Forward(match split {
        Some(draft) => draft.complete(delivery, audience),
        None => delivery,
    }))
}

/// Returns whether the upstream receives the caller's token. Reports a route that asks for it and never has one.
fn forward_token(key: &str, table: &RouteSection, file: &File, faults: &mut Faults<'_>) -> bool {
    if table.forward_token == Some(true) && table.access == file::Access::Public {
        faults.fault(
            "impossible_rule",
            &format!("{key}.forward_token"),
            "set on a public route, on which the gateway verifies no token",
            "pass_authorization = true, for a service that verifies credentials itself",
        );
    }
    table.forward_token.unwrap_or(file.identity.forward_token)
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
