//! Lists the routes of a policy with their requirements, in matching order.

use crate::authenticate::{Access, CredentialPolicy};
use crate::explain::describe::{duration, fields, places, split_by, streams, upstream_name};
use crate::forward::{Delivery, Destination};
use crate::policy::{Handler, Policy, Route};
use crate::route::HostPattern;
use serde::Serialize;
use std::time::Duration;

/// A summary of a route for operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct RouteSummary {
    /// The name of the route.
    pub name: String,
    /// The host pattern. `None` for all hosts.
    pub host: Option<String>,
    /// The path pattern.
    pub path: String,
    /// The methods. Empty if the route covers all methods.
    pub methods: Vec<String>,
    /// The required header fields, as name and value.
    pub headers: Vec<(String, String)>,
    /// `public`, `optional` or `authenticated`.
    pub access: &'static str,
    /// The requirements on the token, one for each check.
    pub asks: Vec<String>,
    /// The names of the rate limits, in the order of counting.
    pub limits: Vec<String>,
    /// The name of the upstream. `authority` or `gateway` if the gateway answers itself.
    pub upstream: String,
    /// The requests that are copied, and the upstream that gets the copies.
    pub copies: Option<String>,
    /// The path prefix that is removed before forwarding.
    pub strip_prefix: Option<String>,
    /// The path prefix that is added before forwarding.
    pub add_prefix: Option<String>,
    /// The template of the path that `rewrite_pattern` fills.
    pub rewrite_to: Option<String>,
    /// The `Host` that the upstream receives.
    pub rewrite_host: Option<String>,
    /// Whether the route forwards WebSockets.
    pub websocket: bool,
    /// `expiry` if WebSockets and long answers end with the caller's token, otherwise `open`. `None` if the gateway
    /// answers itself, or if the route reads no token.
    pub streams: Option<&'static str>,
    /// The content codings of answers, the preferred one first. `None` if answers are not compressed.
    pub compress: Option<String>,
    /// The name of the `[cors.NAME]`.
    pub cors: Option<String>,
    /// `enforce` or `shadow`.
    pub mode: &'static str,
    /// Whether the route refuses all requests for a while.
    pub maintenance: bool,
    /// Settings that only the output for programs contains.
    #[serde(flatten)]
    pub details: RouteDetails,
}

/// Settings of a route that do not fit into a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct RouteDetails {
    /// The way in which a request stays with one of the upstreams that share the requests.
    pub split_by: Option<String>,
    /// The longest wait for the head of an answer. `None` if no upstream gets the requests.
    pub timeout: Option<String>,
    /// The longest silence in the body of an answer.
    pub silence: Option<String>,
    /// The names of the caller's identity that the upstream receives. `None` for all of them.
    pub identity: Option<Vec<String>>,
    /// The changes to the fields of requests.
    pub request_fields: Option<String>,
    /// The trailers of requests that the upstream receives.
    pub request_trailers: Vec<String>,
    /// The changes to the fields of answers.
    pub answer_fields: Option<String>,
    /// The media types that are compressed, if they are not the usual ones.
    pub compress_types: Vec<String>,
    /// Whether the upstream gets the client's `Authorization`.
    pub pass_authorization: bool,
    /// Whether the upstream gets the caller's verified token in `Authorization`.
    pub forward_token: bool,
    /// The places where the route looks for a credential. Empty if it reads none.
    pub sources: Vec<String>,
    /// Whether a browser without a valid token is sent to the login page.
    pub login_page: bool,
    /// The field of forms that may have the CSRF token.
    pub csrf_field: Option<String>,
    /// The status of the redirect.
    pub redirect_status: Option<u16>,
    /// The time after which clients try again during maintenance.
    pub maintenance_wait: Option<String>,
}

/// Returns the routes, more specific routes first. The endpoints of the authority are last.
pub(crate) fn listing(policy: &Policy) -> Vec<RouteSummary> {
    let mut routes: Vec<&Route> = policy.routes.iter().collect();
    routes.sort_by(|one, other| {
        let key = |route: &Route| route.handler.is_own();
        key(one).cmp(&key(other)).then_with(|| one.matcher.order(&other.matcher))
    });
    routes.into_iter().map(|route| RouteSummary::of(policy, route)).collect()
}

impl RouteSummary {
    fn of(policy: &Policy, route: &Route) -> Self {
        let (upstream, rewrite) = match &route.handler {
            Handler::Forward(delivery) => (upstream_name(delivery), delivery.rewrite.as_deref()),
            Handler::Files(files) => (format!("files in {}", files.root.display()), files.rewrite.as_deref()),
            Handler::Answer(_) => ("authority".to_owned(), None),
            Handler::Redirect(redirect) => (format!("redirect to {redirect}"), None),
            Handler::Publish(_) | Handler::Receive(..) => ("gateway".to_owned(), None),
        };
        let delivery = match &route.handler {
            Handler::Forward(delivery) => Some(delivery),
            Handler::Answer(_)
            | Handler::Files(_)
            | Handler::Redirect(_)
            | Handler::Publish(_)
            | Handler::Receive(..) => None,
        };
        let reads_token = route.credential_policy.access != Access::Public;
        let text = |text: &str| text.to_owned();
        let limits = route.limits.by_address.iter().chain(&route.limits.by_caller);
        Self {
            name: route.name.to_string(),
            host: match &route.matcher.host {
                HostPattern::Any => None,
                HostPattern::Below(_) | HostPattern::Exact(_) => Some(route.matcher.host.to_string()),
            },
            path: route.matcher.path.to_string(),
            methods: match route.matcher.methods.is_any() {
                true => Vec::new(),
                false => route.matcher.methods.iter().map(ToString::to_string).collect(),
            },
            headers: fields(&route.matcher.fields),
            access: match route.credential_policy.access {
                Access::Public => "public",
                Access::Optional => "optional",
                Access::Authenticated => "authenticated",
            },
            asks: route.rule.checks().iter().map(ToString::to_string).collect(),
            limits: limits.map(|limit| limit.name().to_string()).collect(),
            upstream,
            copies: delivery.and_then(|delivery| delivery.mirror.as_ref()).map(ToString::to_string),
            strip_prefix: rewrite.and_then(|rewrite| rewrite.strip.as_deref()).map(text),
            add_prefix: rewrite.and_then(|rewrite| rewrite.add.as_deref()).map(text),
            rewrite_to: rewrite.and_then(|rewrite| rewrite.pattern.as_ref()).map(ToString::to_string),
            rewrite_host: rewrite
                .and_then(|rewrite| rewrite.host.as_ref())
                .map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned()),
            websocket: delivery.is_some_and(|delivery| delivery.websocket),
            streams: route.handler.ends_with_token().filter(|_| reads_token).map(streams),
            compress: route.compression.as_deref().map(ToString::to_string),
            cors: route.cors.as_ref().map(|cors| cors.name.to_string()),
            mode: if route.shadow.is_some() { "shadow" } else { "enforce" },
            maintenance: route.maintenance.is_some(),
            details: RouteDetails::of(policy, route, delivery),
        }
    }
}

impl RouteDetails {
    fn of(policy: &Policy, route: &Route, delivery: Option<&Delivery>) -> Self {
        let text = |text: &dyn ToString| text.to_string();
        let upstream = delivery.and_then(|delivery| match &delivery.destination {
            Destination::Upstream(upstream) => Some((delivery, &**upstream)),
            Destination::Echo => None,
        });
        let CredentialPolicy { access, sources } = &route.credential_policy;
        let types = route.compression.as_deref().map(|compression| &*compression.types);
        let trailers = delivery.and_then(|delivery| delivery.request_trailers.as_deref());
        Self {
            split_by: delivery
                .and_then(|delivery| delivery.split.as_deref())
                .map(|split| split_by(split, policy.trust.claims())),
            timeout: upstream.map(|(delivery, upstream)| duration(delivery.answer_timeout(upstream))),
            silence: upstream.map(|(delivery, upstream)| duration(delivery.answer_silence(upstream))),
            identity: delivery
                .and_then(|delivery| delivery.audience.choice.as_ref())
                .map(|choice| choice.headers.iter().map(ToString::to_string).collect()),
            request_fields: delivery
                .and_then(|delivery| delivery.request_fields.as_deref())
                .map(|edits| text(edits)),
            request_trailers: trailers.unwrap_or_default().iter().map(ToString::to_string).collect(),
            answer_fields: route.answer_fields().map(|fields| text(fields)),
            compress_types: types.unwrap_or_default().iter().map(ToString::to_string).collect(),
            pass_authorization: delivery.is_some_and(|delivery| delivery.pass_authorization),
            forward_token: delivery.is_some_and(|delivery| delivery.forward_token),
            sources: if *access == Access::Public { Vec::new() } else { places(sources) },
            login_page: route.login_page,
            csrf_field: route.csrf_field.as_deref().map(str::to_owned),
            redirect_status: route.handler.redirect_status().map(|status| status.as_u16()),
            maintenance_wait: route.maintenance.map(|seconds| duration(Duration::from_secs(seconds.into()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::table_keys;
    use crate::review::sample::tests::policy;
    use std::collections::BTreeSet;

    /// Keys whose effect no listing shows.
    const OMITTED: [(&str, &str); 1] = [("waive", "it accepts findings of `check`")];

    #[test]
    fn a_listing_for_programs_shows_every_key_of_a_route() {
        let listed = |route: &str| {
            let compiled = table_keys::compiled(format!("{}[[route]]\n{route}\n", table_keys::TABLES));
            serde_json::to_value(listing(&compiled.policy)).unwrap()
        };
        let mut tested: BTreeSet<&str> = OMITTED.iter().map(|(key, _)| *key).collect();
        for row in table_keys::SHOWN {
            let (key, without, ..) = row;
            assert_ne!(listed(without), listed(&table_keys::with(row)), "{key}");
            tested.insert(key);
        }
        assert_eq!(table_keys::documented("route"), tested);
    }

    #[test]
    fn routes_are_listed_in_the_order_in_which_they_are_considered() {
        let mut names = 0..;
        let mut route = |path: &str, rest: &str| {
            let name = names.next().unwrap();
            format!("[[route]]\nname = \"r{name}\"\npath = \"{path}\"\nupstream = \"echo\"\n{rest}\n")
        };
        let text = [
            "[authority]\nissuer = \"https://localhost:8443\"\naudience = [\"p\"]\n[rate_limit.slow]\nby = \"subject\"\nrate = \"1/s\"\n[rate_limit.each]\nby = \"client_ip\"\nrate = \"1/s\"\n".to_owned(),
            route("/{*rest}", "access = \"public\""),
            route("/a/{id}", "methods = [\"GET\", \"PURGE\"]\nroles = [\"x\"]\nscopes = [\"s\"]\nrate_limits = [\"slow\", \"each\"]\nmode = \"shadow\"\nstrip_prefix = \"/a\"\nstreams = \"open\""),
            route("/a/b", "access = \"optional\""),
            route("/{*rest}", "host = \"*.example.com\""),
            route("/{*rest}", "host = \"*.eu.example.com\""),
            route("/z", "host = \"api.example.com\""),
        ];
        let upgraded = "path = \"/z\"\nupstream = \"app\"\nwebsocket = true\ncompress = [\"br\", \"gzip\"]\ncompress_with_credentials = true";
        let text = text.concat().replace("path = \"/z\"\nupstream = \"echo\"", upgraded)
            + "[upstream.app]\nservers = [\"http://127.0.0.1:9\"]\n";
        let listed = listing(&policy(&text));
        let places: Vec<_> = listed
            .iter()
            .map(|listed| format!("{}{}", listed.host.as_deref().unwrap_or(""), listed.path))
            .collect();
        assert_eq!(
            places[..6],
            [
                "api.example.com/z",
                "*.eu.example.com/{*rest}",
                "*.example.com/{*rest}",
                "/a/b",
                "/a/{id}",
                "/{*rest}"
            ]
        );
        assert!(
            places.len() > 6 && listed[6..].iter().all(|listed| listed.upstream == "authority"),
            "{places:?}"
        );
        let order = &listed[4];
        assert_eq!(order.methods, ["GET", "HEAD", "PURGE"]);
        assert_eq!(order.asks, ["any role of x", "all scopes of s"]);
        assert_eq!(order.limits, ["each", "slow"], "as they are charged");
        assert_eq!(
            (order.mode, order.access, order.strip_prefix.as_deref()),
            ("shadow", "authenticated", Some("/a"))
        );
        assert_eq!((listed[0].websocket, listed[0].streams), (true, Some("expiry")));
        assert_eq!(listed[0].compress.as_deref(), Some("br gzip, also with credentials"));
        assert_eq!((order.websocket, order.streams, listed[5].streams), (false, Some("open"), None));
        assert_eq!((listed[3].access, listed[5].access, listed[5].mode), ("optional", "public", "enforce"));
    }
}
