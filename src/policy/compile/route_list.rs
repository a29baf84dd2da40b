//! The routes of a policy in their order, and the table that finds the route of a request.

use super::Faults;
use super::counters::CounterRegistry;
use crate::authenticate::{Access, digest_of};
use crate::authorize::Rule;
use crate::forward::{Delivery, Destination};
use crate::limit::Limits;
use crate::policy::{Handler, Route};
use crate::route::{Conflict, Fields, Guard, HostPattern, Matcher, RouteTable};
use http::Method;
use std::collections::HashSet;
use std::sync::Arc;

/// The maximum number of distinct methods in a policy. About forty methods are registered.
const METHODS_MAX: usize = 100;
/// The maximum number of distinct `headers` in a policy. They are compared pairwise, and a review tries each of them.
const HEADERS_MAX: usize = 100;

/// The routes so far, and the entries of their table.
#[derive(Default)]
pub(super) struct RouteList {
    routes: Vec<Route>,
    entries: Vec<Entry>,
}

struct Entry {
    matcher: Matcher,
    /// The index of the route in the list.
    route: usize,
    /// The index of the `[[route]]` in the file. `None` for a route of the gateway itself.
    position: Option<usize>,
}

impl RouteList {
    /// Returns the routes so far.
    pub(super) fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Adds the route of the `[[route]]` at `position`.
    pub(super) fn add(&mut self, position: usize, route: Route) {
        let matchers = [route.matcher.clone()];
        self.push(route, matchers, Some(position));
    }

    /// Adds a route of the gateway itself, which covers the requests of each matcher.
    pub(super) fn add_own(&mut self, route: Route, matchers: impl IntoIterator<Item = Matcher>) {
        self.push(route, matchers, None);
    }

    fn push(&mut self, route: Route, matchers: impl IntoIterator<Item = Matcher>, position: Option<usize>) {
        let index = self.routes.len();
        self.entries.extend(matchers.into_iter().map(|matcher| Entry { matcher, route: index, position }));
        self.routes.push(Route { index, ..route });
    }

    /// Returns the hosts of the gateway's own endpoints: every host in the routes, and [`HostPattern::Any`]. With only
    /// `Any`, a catch-all route of a host would hide the endpoints.
    pub(super) fn hosts(&self) -> HashSet<HostPattern> {
        self.entries.iter().map(|entry| entry.matcher.host.clone()).chain([HostPattern::Any]).collect()
    }

    /// Checks the number of methods that the routes so far list.
    pub(super) fn check_methods(&self, faults: &mut Faults<'_>) {
        let methods: HashSet<&Method> =
            self.entries.iter().flat_map(|entry| listed(&entry.matcher)).collect();
        if methods.len() > METHODS_MAX {
            faults.fault(
                "too_many",
                "route",
                format!("{} different methods in the file", methods.len()),
                format!("use at most {METHODS_MAX}: every route for all methods is tested with each of them"),
            );
        }
    }

    /// Builds the table. It is `None` if two routes conflict.
    pub(super) fn build(self, faults: &mut Faults<'_>) -> (Vec<Route>, Option<RouteTable<usize>>) {
        let Self { routes, entries } = self;
        let sets: HashSet<&Fields> = entries.iter().map(|entry| &entry.matcher.fields).collect();
        if sets.len() > HEADERS_MAX {
            faults.fault(
                "too_many",
                "route",
                format!("{} different sets of headers in the file", sets.len()),
                format!("use at most {HEADERS_MAX}: each is compared with the others"),
            );
            return (routes, None);
        }
        let places: Vec<_> =
            entries.iter().map(|entry| (entry.position, &*routes[entry.route].name)).collect();
        let matchers = entries.iter().map(|entry| (entry.matcher.clone(), entry.route)).collect();
        let table = match RouteTable::build(matchers) {
            Ok(table) => {
                for entries in table.grouped() {
                    let own = entries.iter().any(|&entry| places[entry].0.is_none());
                    for index in entries.iter().filter(|_| own).filter_map(|&entry| places[entry].0) {
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
                conflicts.iter().for_each(|conflict| report(conflict, &places, faults));
                None
            }
        };
        (routes, table)
    }
}

/// Reports two entries that match the same requests. `places` has the position and the name of each entry's route.
fn report(conflict: &Conflict, places: &[(Option<usize>, &str)], faults: &mut Faults<'_>) {
    let (first, named) = places[conflict.first];
    let (one, other) = match (first, places[conflict.second].0) {
        (Some(one), Some(other)) => (one, other),
        (Some(index), None) | (None, Some(index)) => {
            return faults.fault(
                "same_route",
                &format!("route[{index}].path"),
                "matches an endpoint of the gateway",
                "use another path, or move the endpoint in [authority] paths or [signals]; the metadata of a \
                 [resource] cannot move",
            );
        }
        (None, None) => {
            return faults.fault(
                "same_route",
                "authority.paths",
                "two endpoints have the same path",
                "a separate path for each",
            );
        }
    };
    let there = faults.place_of(&format!("route[{one}]"));
    if conflict.by_fields {
        return faults.fault(
            "same_route",
            &format!("route[{other}].headers"),
            format!(
                "a request may have these headers and those of route \"{named}\", and neither route is more specific"
            ),
            format!(
                "let one of them require all headers of the other, or different values of one header (the other is at \
                 {there})"
            ),
        );
    }
    faults.fault(
        "same_route",
        &format!("route[{other}].path"),
        format!("matches the same host, path and method as route \"{named}\""),
        format!("remove one of them, or give them different methods (the other is at {there})"),
    );
}

/// Returns the matcher with each of these hosts.
pub(super) fn on_each<'h>(
    hosts: &'h HashSet<HostPattern>,
    matcher: &'h Matcher,
) -> impl Iterator<Item = Matcher> + 'h {
    hosts.iter().map(|host| Matcher { host: host.clone(), ..matcher.clone() })
}

/// Returns a public route of the gateway itself, without limits and requirements. The list of routes sets the index.
pub(super) fn own_route(
    name: String,
    matcher: Matcher,
    handler: Handler,
    counters: &CounterRegistry,
) -> Route {
    let name: Arc<str> = Arc::from(name);
    Route {
        counters: counters.of(&name),
        name,
        index: 0,
        matcher,
        limits: Limits::default(),
        credential_policy: Access::Public.into(),
        rule: Rule::default(),
        handler,
        login_page: false,
        csrf_field: None,
        shadow: None,
        cors: None,
        maintenance: None,
        compression: None,
    }
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
