//! Compiles the endpoints of the local authority into routes.

use super::Faults;
use super::counters::CounterRegistry;
use super::endpoint_limits;
use super::limits::NamedLimits;
use super::route_list::{RouteList, on_each, own_route};
use crate::authenticate::Access;
use crate::authority::{Compat, Endpoint, EndpointSpec, IssuerSettings};
use crate::config::file::File;
use crate::policy::{Handler, Route};
use crate::route::{Fields, HostPattern, Matcher, Methods, PathPattern};

/// Adds a route for each endpoint and for every host in the file.
pub(super) fn compile(
    file: &File,
    settings: &IssuerSettings,
    limits: &NamedLimits,
    registry: &CounterRegistry,
    list: &mut RouteList,
    faults: &mut Faults<'_>,
) {
    let Some(table) = &file.authority else { return };
    let hosts = list.hosts();
    endpoint_limits::unknown_endpoints(table, faults);
    for facts in Endpoint::ALL {
        if facts.endpoint == Endpoint::LoginPage && settings.cookies.is_none() {
            // Without cookies, a browser could not keep tokens from the login page.
            continue;
        }
        let path = settings.path(facts.endpoint);
        let mut paths = vec![path.to_owned()];
        if facts.endpoint == Endpoint::Verify {
            // Envoy appends the path of the original request to the path of the endpoint.
            paths.push(format!("{}/{{*rest}}", path.trim_end_matches('/')));
        }
        let mut matchers = Vec::new();
        for path in paths {
            match (PathPattern::parse(&path), methods_of(methods_asked(settings, facts))) {
                (Ok(path), Ok(methods)) => {
                    let (host, fields) = (HostPattern::Any, Fields::default());
                    matchers.push(Matcher { host, path, methods, fields });
                }
                (Err(_), _) | (_, Err(_)) => {
                    let hint = "use a path such as /auth/login";
                    faults.fault("bad_path", "authority.paths", format!("\"{path}\""), hint);
                }
            }
        }
        let Some(matcher) = matchers.first().cloned() else { continue };
        let (name, handler) = (format!("auth:{}", facts.name), Handler::Answer(facts.endpoint));
        let route = Route {
            limits: endpoint_limits::limits_of(table, facts, limits, faults),
            credential_policy: facts.access.into(),
            // A page without scripts logs out with a form, which contains the CSRF token.
            csrf_field: (facts.access == Access::Authenticated).then(|| "csrf_token".into()),
            ..own_route(name, matcher, handler, registry)
        };
        list.add_own(route, matchers.iter().flat_map(|matcher| on_each(&hosts, matcher)));
    }
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
