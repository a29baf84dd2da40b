//! Reports unexpected interactions of routes, unused names and missing tests.

use super::Subject;
use crate::authenticate::{Access, Source};
use crate::config::file::Mode;
use crate::explain::describe::covers;
use crate::explain::matched_route;
use crate::policy::endpoint_limits::{lists, preset_names};
use crate::policy::{Faults, Route};
use crate::route::{HostPattern, Methods};
use std::collections::BTreeSet;

pub(super) fn lint(subject: &Subject<'_>, faults: &mut Faults<'_>) {
    below_guarded(subject, faults);
    open_by_default(subject, faults);
    open_streams(subject, faults);
    compressed_with_credentials(subject, faults);
    shadowed(subject, faults);
    unreachable(subject, faults);
    single(subject, faults);
    unused(subject, faults);
    untested(subject, faults);
}

/// Returns the key of a setting of a route. The index is the same in the file and in the policy.
fn key(route: &Route, name: &str) -> String {
    format!("route[{}].{name}", route.index)
}

fn is_of_file(route: &Route) -> bool {
    !route.handler.is_own()
}

/// Reports public routes below the path of a guarded route. Such a route is often a mistake.
fn below_guarded(subject: &Subject<'_>, faults: &mut Faults<'_>) {
    let policy = subject.policy;
    for (position, (_, index)) in policy.table.iter().enumerate() {
        let route = &policy.routes[*index];
        if route.credential_policy.access != Access::Public || !is_of_file(route) {
            continue;
        }
        let wider = policy.table.wider(position).into_iter().map(|index| &policy.routes[*index]);
        let guarded = wider
            .filter(|wider| wider.credential_policy.access == Access::Authenticated && is_of_file(wider));
        if let Some(guarded) = guarded.max_by_key(|wider| wider.matcher.path.to_string().len()) {
            faults.warn(
                "public_below_guarded",
                &key(route, "access"),
                format!(
                    "public, below {} (route \"{}\"), which requires a token",
                    covers(&guarded.matcher),
                    guarded.name
                ),
                "set access = \"authenticated\", or waive this with the reason why everyone may pass",
            );
        }
    }
}

/// Reports public catch-all routes on hosts with guarded routes. Every new path of such a host is public by default.
fn open_by_default(subject: &Subject<'_>, faults: &mut Faults<'_>) {
    let routes = || subject.policy.routes.iter().filter(|route| is_of_file(route));
    let guarded: Vec<&Route> =
        routes().filter(|route| route.credential_policy.access == Access::Authenticated).collect();
    let hosts: BTreeSet<String> = guarded.iter().map(|route| route.matcher.host.to_string()).collect();
    let is_everything = |route: &&Route| {
        let path = route.matcher.path.to_string();
        path.starts_with("/{*") && route.credential_policy.access == Access::Public
    };
    for route in routes().filter(is_everything) {
        let guards_too = match &route.matcher.host {
            HostPattern::Any => !guarded.is_empty(),
            // A guarded route for all hosts also counts. The catch-all of this host takes precedence over it.
            host @ (HostPattern::Below(_) | HostPattern::Exact(_)) => {
                hosts.contains(&host.to_string()) || hosts.contains(&HostPattern::Any.to_string())
            }
        };
        if guards_too {
            faults.warn(
                "open_by_default",
                &key(route, "path"),
                format!(
                    "{} is public: it allows every request that no other route matches",
                    covers(&route.matcher)
                ),
                "add routes for the paths that are meant to be public; all others are refused",
            );
        }
    }
}

/// Reports guarded routes whose WebSockets, long answers and long uploads outlive the token.
fn open_streams(subject: &Subject<'_>, faults: &mut Faults<'_>) {
    for route in subject.policy.routes.iter() {
        if route.handler.ends_with_token() == Some(false) && route.credential_policy.access != Access::Public
        {
            faults.warn(
                "open_streams",
                &key(route, "streams"),
                "\"open\": a revoked caller keeps an open WebSocket or answer",
                "remove it, or waive this with the reason why these streams may outlive their token",
            );
        }
    }
}

/// Reports routes whose answers are compressed although a browser sends the caller's credential with every request.
fn compressed_with_credentials(subject: &Subject<'_>, faults: &mut Faults<'_>) {
    for route in subject.policy.routes.iter() {
        let Some(compression) = &route.compression else { continue };
        let sources = &route.credential_policy.sources;
        let by_itself = (sources.cookie && subject.policy.trust.cookies().is_some())
            || sources.takes_certificates()
            || sources.others.iter().any(|source| matches!(source, Source::Cookie(_)));
        let is_open = route.credential_policy.access != Access::Authenticated;
        if compression.with_credentials && (by_itself || is_open) {
            faults.warn(
                "compressed_with_credentials",
                &key(route, "compress_with_credentials"),
                "true, and browsers send credentials of this route by themselves",
                "remove it, or waive this with the reason why no answer has a secret beside text that a request can choose",
            );
        }
    }
}

/// Reports routes that reject methods of a path, although a wider route covers these methods.
fn shadowed(subject: &Subject<'_>, faults: &mut Faults<'_>) {
    let policy = subject.policy;
    let entries: Vec<_> = policy.table.iter().collect();
    let mut reported = BTreeSet::new();
    for (general, specific) in policy.table.shadowed() {
        let (general, specific) = (&policy.routes[*entries[general].1], &policy.routes[*entries[specific].1]);
        if !is_of_file(general) || !is_of_file(specific) || !reported.insert((general.index, specific.index))
        {
            continue;
        }
        // The matchers of all routes with this host and path. Other methods are rejected.
        let same = entries
            .iter()
            .map(|(matcher, _)| matcher)
            .filter(|matcher| specific.matcher.includes(matcher) && matcher.includes(&specific.matcher));
        let served = Methods::union(same.map(|matcher| &matcher.methods));
        let wanted = general.matcher.methods.iter();
        let refused: Vec<&str> =
            wanted.filter(|method| !served.contains(method)).map(http::Method::as_str).collect();
        if refused.is_empty() {
            continue;
        }
        faults.warn(
            "shadowed_route",
            &key(general, "path"),
            format!(
                "{} has routes of its own, such as \"{}\": {} {} refused there (405), and not handled by \"{}\"",
                covers(&specific.matcher),
                specific.name,
                refused.join(", "),
                if refused.len() == 1 { "is" } else { "are" },
                general.name
            ),
            "add a route for these methods to that path, if they should be allowed",
        );
    }
}

/// Reports routes that no request can reach.
fn unreachable(subject: &Subject<'_>, faults: &mut Faults<'_>) {
    let policy = subject.policy;
    let lost = policy.table.unreachable();
    if lost.is_empty() {
        return;
    }
    let entries: Vec<_> = policy.table.iter().collect();
    for (lost, winner) in lost {
        let (lost, winner) = (&policy.routes[*entries[lost].1], &policy.routes[*entries[winner].1]);
        if is_of_file(lost) {
            faults.warn(
                "unreachable_route",
                &key(lost, "path"),
                format!(
                    "no request reaches this route: more specific routes, such as \"{1}\" ({2}), match everything below {0}",
                    covers(&lost.matcher),
                    winner.name,
                    covers(&winner.matcher)
                ),
                "change the path, or remove the route",
            );
        }
    }
}

fn single(subject: &Subject<'_>, faults: &mut Faults<'_>) {
    let routes = || subject.policy.routes.iter().filter(|route| is_of_file(route));
    let all_by_file = subject.file.policy.mode == Mode::Shadow;
    if all_by_file {
        let (count, all) = (routes().filter(|route| route.shadow.is_some()).count(), routes().count());
        faults.warn(
            "shadow_mode",
            "policy.mode",
            format!("{count} of {all} routes in shadow mode: their refusals are not enforced"),
            "set mode = \"enforce\" once the log shows no refusals of legitimate requests",
        );
    }
    for route in routes() {
        if route.shadow.is_some() && !all_by_file {
            faults.warn(
                "shadow_mode",
                &key(route, "mode"),
                "in shadow mode: refusals are not enforced",
                "set mode = \"enforce\" once the log shows no refusals of legitimate requests",
            );
        }
        if route.credential_policy.access == Access::Optional && !route.rule.checks().is_empty() {
            faults.warn(
                "optional_with_rule",
                &key(route, "access"),
                "\"optional\" with a rule, roles, scopes or claims: no one passes without a token",
                "use \"authenticated\", which says so, or remove the rule",
            );
        }
    }
}

/// Reports unused upstreams and rate limits.
fn unused(subject: &Subject<'_>, faults: &mut Faults<'_>) {
    let file = subject.file;
    let upstreams: BTreeSet<&str> = file
        .route
        .iter()
        .flat_map(|route| {
            route.split.iter().map(|share| &share.upstream).chain([&route.upstream, &route.mirror])
        })
        .map(String::as_str)
        .collect();
    for name in file.upstream.keys().filter(|name| !upstreams.contains(name.as_str())) {
        let key = format!("upstream.{name}");
        faults.warn("unused", &key, "no route uses it", "add a [[route]] with this upstream, or remove it");
    }
    let of_routes = file.route.iter().flat_map(|route| &route.rate_limits);
    let of_authority = file.authority.iter().flat_map(lists).flat_map(|(_, names)| names);
    let of_signals = file.signals.values().flat_map(|table| &table.rate_limits).flatten();
    let named = of_routes.chain(of_authority).chain(of_signals).map(String::as_str);
    let limits: BTreeSet<&str> = named.chain(preset_names(file)).collect();
    for name in file.rate_limit.keys().filter(|name| !limits.contains(name.as_str())) {
        let key = format!("rate_limit.{name}");
        faults.warn("unused", &key, "no route uses it", "add it to the rate_limits of a route, or remove it");
    }
    let cors: BTreeSet<&str> = file.route.iter().filter_map(|route| route.cors.as_deref()).collect();
    for name in file.cors.keys().filter(|name| !cors.contains(name.as_str())) {
        let key = format!("cors.{name}");
        faults.warn("unused", &key, "no route uses it", "add it as `cors` to a route, or remove it");
    }
    let rules: BTreeSet<&str> = file.route.iter().flat_map(|route| &route.rule).map(String::as_str).collect();
    for name in file.rule.keys().filter(|name| !rules.contains(name.as_str())) {
        let key = format!("rule.{name}");
        faults.warn("unused", &key, "no route names it", "add it to the rule of a route, or remove it");
    }
}

/// Reports routes without tests. A change to such a route may go unnoticed.
fn untested(subject: &Subject<'_>, faults: &mut Faults<'_>) {
    let routes: Vec<&Route> = subject.policy.routes.iter().filter(|route| is_of_file(route)).collect();
    if subject.cases.is_empty() {
        let routes = if routes.len() == 1 {
            "its one route".to_owned()
        } else {
            format!("its {} routes", routes.len())
        };
        faults.warn(
            "no_test",
            "test",
            format!("no [[test]] covers {routes}"),
            "add a [[test]] for each route: one request that is allowed, and one that is refused",
        );
        return;
    }
    let tested: BTreeSet<usize> =
        subject.cases.iter().filter_map(|case| matched_route(subject.policy, &case.question)).collect();
    for route in routes.into_iter().filter(|route| !tested.contains(&route.index)) {
        faults.warn(
            "no_test",
            &key(route, "name"),
            format!("no [[test]] covers route \"{}\"", route.name),
            "add a [[test]] whose request it matches",
        );
    }
}
