//! Compiles the endpoints of the local authority into routes.

use super::Faults;
use super::counters::CounterRegistry;
use super::endpoint_limits;
use super::limits::NamedLimits;
use crate::authenticate::Access;
use crate::authority::{Compat, Endpoint, EndpointSpec, IssuerSettings};
use crate::authorize::Rule;
use crate::config::file::File;
use crate::policy::{Handler, Route};
use crate::route::{Fields, HostPattern, Matcher, Methods, PathPattern};
use std::collections::HashSet;
use std::sync::Arc;

/// Adds a route for each endpoint and for every host in the file.
pub(super) fn compile(
    file: &File,
    settings: &IssuerSettings,
    limits: &NamedLimits,
    registry: &CounterRegistry,
    routes: &mut Vec<Route>,
    entries: &mut Vec<(Matcher, usize)>,
    faults: &mut Faults<'_>,
) {
    let hosts = hosts_of(entries);
    let Some(table) = &file.authority else { return };
    endpoint_limits::unknown_endpoints(table, faults);
    for facts in Endpoint::ALL {
        if facts.endpoint == Endpoint::LoginPage && settings.cookies.is_none() {
            // Without cookies, a browser could not keep tokens from the login page.
            continue;
        }
        let name: Arc<str> = Arc::from(format!("auth:{}", facts.name));
        let path = settings.path(facts.endpoint);
        let mut paths = vec![path.to_owned()];
        if facts.endpoint == Endpoint::Verify {
            // Envoy appends the path of the original request to the path of the endpoint.
            paths.push(format!("{}/{{*rest}}", path.trim_end_matches('/')));
        }
        let mut first = None;
        for path in paths {
            let (Ok(pattern), Ok(methods)) =
                (PathPattern::parse(&path), methods_of(methods_asked(settings, facts)))
            else {
                let hint = "use a path such as /auth/login";
                faults.fault("bad_path", "authority.paths", format!("\"{path}\""), hint);
                continue;
            };
            first.get_or_insert_with(|| Matcher {
                host: HostPattern::Any,
                path: pattern.clone(),
                methods: methods.clone(),
                fields: Fields::default(),
            });
            for host in &hosts {
                let matcher = Matcher {
                    host: host.clone(),
                    path: pattern.clone(),
                    methods: methods.clone(),
                    fields: Fields::default(),
                };
                entries.push((matcher, routes.len()));
            }
        }
        let Some(matcher) = first else { continue };
        let limits = endpoint_limits::limits_of(table, facts, limits, faults);
        routes.push(Route {
            name: name.clone(),
            index: routes.len(),
            matcher,
            limits,
            credential_policy: facts.access.into(),
            rule: Rule::default(),
            handler: Handler::Answer(facts.endpoint),
            login_page: false,
            // A page without scripts logs out with a form, which contains the CSRF token.
            csrf_field: (facts.access == Access::Authenticated).then(|| "csrf_token".into()),
            shadow: None,
            cors: None,
            maintenance: None,
            compression: None,
            counters: registry.of(&name),
        });
    }
}

/// Returns the hosts of the gateway's own endpoints: every host in the routes, and [`HostPattern::Any`]. With only
/// `Any`, a catch-all route of a host would hide the endpoints.
pub(super) fn hosts_of(entries: &[(Matcher, usize)]) -> HashSet<HostPattern> {
    entries.iter().map(|(matcher, _)| matcher.host.clone()).chain([HostPattern::Any]).collect()
}

/// Returns the methods of an endpoint, including methods for compatibility with other products.
fn methods_asked(settings: &IssuerSettings, facts: EndpointSpec) -> &'static [&'static str] {
    match (settings.compat, facts.endpoint) {
        // The documentation of Flask-JWT-Extended uses both methods.
        (Some(Compat::FlaskJwtExtended), Endpoint::Logout) => &["POST", "DELETE"],
        (Some(Compat::FlaskJwtExtended) | None, _) => facts.methods,
    }
}

fn methods_of(list: &[&str]) -> Result<Methods, crate::route::PatternFault> {
    if list.is_empty() { Ok(Methods::any()) } else { Methods::parse(list) }
}
