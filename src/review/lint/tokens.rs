//! Reports weaknesses in the handling of tokens.

use super::Subject;
use crate::config::file::{File, RouteSection, SameSite};
use crate::config::requirements::Requirements;
use crate::config::secret::Secret;
use crate::config::values::{RoleLimit, TokenSource};
use crate::policy::Faults;
use crate::policy::endpoint_limits::{lists, preset_names, signal_lists, unlimited_login};
use std::net::IpAddr;
use std::time::Duration;

/// The maximum leeway without a warning. Clocks that use NTP differ by less than a second.
const LEEWAY_MUCH: Duration = Duration::from_secs(60);
/// The longest grace period that causes no warning. Clients retry within seconds.
const GRACE_MUCH: Duration = Duration::from_secs(60);

/// Whether an `http://` URL names another machine. `rest` is the URL without its scheme.
fn is_far(rest: &str) -> bool {
    let host = rest.split('/').next().unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(host, port)| match port.parse::<u16>() {
        Ok(_) => host,
        Err(_) => rest,
    });
    let own = host == "localhost" || host.ends_with(".localhost");
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    !own && !bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether the policy file contains the store's URL with a password (RFC 3986 section 3.2.1).
fn holds_password(store: &Secret) -> bool {
    let Secret::Literal(text) = store else { return false };
    let Some((_, rest)) = text.split_once("://") else { return false };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let in_query = rest.contains("?password=") || rest.contains("&password=");
    in_query || authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
}

pub(super) fn lint(subject: &Subject<'_>, faults: &mut Faults<'_>) {
    let file = subject.file;
    for (index, issuer) in file.issuer.iter().enumerate() {
        if issuer.issuer.strip_prefix("http://").is_some_and(is_far) {
            faults.warn(
                "issuer_in_cleartext",
                &format!("issuer[{index}].issuer"),
                format!("\"{}\": an attacker on the network path can answer in its place", issuer.issuer),
                "use an https issuer (RFC 8414 section 2)",
            );
        }
        if Duration::from(issuer.leeway) > LEEWAY_MUCH {
            faults.warn(
                "long_leeway",
                &format!("issuer[{index}].leeway"),
                format!("{}: tokens are accepted for that long after they expire", issuer.leeway),
                "use \"30s\", and synchronize the clocks",
            );
        }
    }
    if file.identity.forward_token {
        faults.warn(
            "token_forwarded",
            "identity.forward_token",
            "true: every upstream receives a token that it can use to call all the others",
            "use false, and give an upstream that calls others its own token",
        );
    }
    for (index, route) in file.route.iter().enumerate().filter(|(_, route)| route.forward_token == Some(true))
    {
        faults.warn(
            "token_forwarded",
            &format!("route[{index}].forward_token"),
            format!("true: {} receives a token that it can use to call the other upstreams", route.upstream),
            "remove it, or waive this with the reason why the upstream may act as its callers",
        );
    }
    evadable(file, faults);
    foreign_origins(file, faults);
    cors_origins(file, faults);
    several_issuers(file, faults);
    exclusions(file, faults);
    let Some(authority) = &file.authority else { return };
    if Duration::from(authority.refresh_grace) > GRACE_MUCH {
        faults.warn(
            "long_grace",
            "authority.refresh_grace",
            format!(
                "{}: a stolen refresh token works beside the real one, unnoticed, for that long",
                authority.refresh_grace
            ),
            "\"10s\"",
        );
    }
    if let Some(key) = unlimited_login(authority) {
        faults.warn(
            "login_unlimited",
            &key,
            "only the throttle on each account limits login attempts from one address",
            "remove it for the default of 120/m, or add a [rate_limit.NAME] by \"client_ip\"",
        );
    }
    if authority.cookies {
        origins_in_cleartext("authority.origins", &authority.origins, faults);
    }
    if authority.store.as_ref().is_some_and(holds_password) {
        faults.warn(
            "secret_in_plain_text",
            "authority.store",
            "the password is written in the policy file (not shown)",
            "use \"env:NAME\" for a variable that holds the whole URL",
        );
    }
    if authority.cookies && authority.same_site == SameSite::Lax {
        faults.warn(
            "lax_cookies",
            "authority.same_site",
            "\"lax\": a link on another site sends the session's cookies",
            "use \"strict\"; a route with login = \"page\" returns to its page after the login",
        );
    }
}

/// Reports origins whose pages an attacker on the network can replace.
fn origins_in_cleartext(key: &str, origins: &[String], faults: &mut Faults<'_>) {
    for (index, origin) in origins.iter().enumerate() {
        if origin.strip_prefix("http://").is_some_and(is_far) {
            faults.warn(
                "origin_in_cleartext",
                &format!("{key}[{index}]"),
                format!("\"{origin}\": an attacker on the network path to that page can act as its user"),
                "use the page's https origin",
            );
        }
    }
}

/// Reports origins of a `[cors.NAME]` that an attacker can take over, and answers that every page may read.
fn cors_origins(file: &File, faults: &mut Faults<'_>) {
    for (name, table) in &file.cors {
        let key = format!("cors.{name}.origins");
        origins_in_cleartext(&key, &table.origins, faults);
        for (index, origin) in table.origins.iter().enumerate() {
            let found = match &**origin {
                "*" if table.private_network => {
                    "every page on the internet can read answers of a private network"
                }
                origin if origin.contains('*') && table.credentials => {
                    "one forgotten host below that name can read every visitor's data"
                }
                _ => continue,
            };
            faults.warn(
                "wide_cors",
                &format!("{key}[{index}]"),
                format!("\"{origin}\": {found}"),
                "list the origins that need it",
            );
        }
    }
}

/// Reports origins for cookies of other programs that are risky, or that no route has a use for.
fn foreign_origins(file: &File, faults: &mut Faults<'_>) {
    let origins = &file.policy.origins;
    origins_in_cleartext("policy.origins", origins, faults);
    let lists = file.route.iter().filter_map(|route| route.sources.as_deref());
    let mut sources = lists.chain(file.policy.sources.as_deref()).flatten();
    if !origins.is_empty() && !sources.any(|source| matches!(source, TokenSource::ForeignCookie(_))) {
        faults.warn(
            "unused",
            "policy.origins",
            "set, but no route takes a token from the cookie of another program",
            "add { cookie = \"NAME\" } to sources, use [authority] origins for its own cookies, or remove this",
        );
    }
}

/// Reports routes and headers that do not distinguish several issuers. Two issuers may use the same role or subject for
/// different people.
fn several_issuers(file: &File, faults: &mut Faults<'_>) {
    let count = file.issuer.len() + usize::from(file.authority.is_some());
    if count < 2 {
        return;
    }
    // A rule is reported only once, even if many routes use it.
    let of_rules = file.rule.iter().map(|(name, rule)| (format!("rule.{name}"), name, rule.requirements()));
    let of_routes = file.route.iter().enumerate().map(|(index, route)| {
        let name = if route.name.is_empty() { &route.path } else { &route.name };
        (format!("route[{index}]"), name, route.requirements())
    });
    // Issuers grant nothing to callers with a certificate or an API key.
    let reads_tokens = |route: &RouteSection| {
        let sources = route.sources.as_deref().or(file.policy.sources.as_deref());
        let is_token =
            |source: &TokenSource| !matches!(source, TokenSource::ClientCertificate | TokenSource::ApiKey);
        sources.is_none_or(|sources| sources.iter().any(is_token))
    };
    let separates = |key: &str| {
        file.route
            .iter()
            .enumerate()
            .filter(|(_, route)| reads_tokens(route))
            .filter(|(index, route)| {
                key == format!("route[{index}]")
                    || key
                        .strip_prefix("rule.")
                        .is_some_and(|rule| route.rule.iter().any(|name| name == rule))
            })
            .all(|(_, route)| {
                file.requirements_of(route)
                    .any(|one| !one.issuers.is_empty() || one.claims.contains_key("iss"))
            })
    };
    let granted = |requirements: &Requirements<'_>| {
        let lists = requirements.lists().into_iter();
        lists
            .filter(|(name, list)| !matches!(*name, "not_roles" | "issuers") && !list.is_empty())
            .map(|(name, _)| name)
            .next()
    };
    let mut open = of_rules.chain(of_routes).filter_map(|(key, name, requirements)| {
        let list = granted(&requirements)?;
        (!separates(&key)).then_some((key, name, list))
    });
    if let Some((key, name, list)) = open.next() {
        let more = open.count();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let what = if key.starts_with("rule.") { "rule" } else { "route" };
        let kind = if list.contains("scopes") { "scopes" } else { "roles" };
        faults.warn(
            "shared_roles",
            &format!("{key}.{list}"),
            format!(
                "{what} \"{name}\"{more} requires {kind}, which each of {count} issuers can grant to anyone"
            ),
            "set issuers = [\"…\"] on routes that only one issuer should grant access to",
        );
    }
    if file.identity.issuer.is_empty() && !file.identity.subject.is_empty() {
        faults.warn(
            "issuer_not_forwarded",
            "identity.issuer",
            format!(
                "empty, with {count} issuers: services cannot distinguish equal subjects of different issuers"
            ),
            "set \"X-Auth-Issuer\", and use both headers in services",
        );
    }
}

/// Reports excluded roles that a token may omit although its subject has the role.
fn exclusions(file: &File, faults: &mut Faults<'_>) {
    for (index, route) in file.route.iter().enumerate() {
        let all: Vec<_> = file.requirements_of(route).collect();
        let requires_more = all.iter().any(|one| {
            let lists = [one.roles, one.all_roles, one.scopes, one.any_scopes];
            lists.iter().any(|list| !list.is_empty()) || !one.claims.is_empty()
        });
        if all.iter().any(|one| !one.not_roles.is_empty()) && !requires_more {
            let key = if route.not_roles.is_empty() { "rule" } else { "not_roles" };
            faults.warn(
                "only_excludes",
                &format!("route[{index}].{key}"),
                "the rule only excludes roles: a token without any role passes",
                "require a role, a scope or a claim that the intended callers have",
            );
        }
    }
    let Some(RoleLimit::AtMost(most)) = file.authority.as_ref().map(|authority| authority.role_limit) else {
        return;
    };
    let excluding = file.requirements().find(|(_, one)| !one.not_roles.is_empty());
    if let Some((table, _)) = excluding {
        faults.warn(
            "excluded_role_omitted",
            &format!("{table}.not_roles"),
            format!("a token of the local authority has at most {most} roles, so an excluded one may be missing from it"),
            "set [authority] role_limit = \"all\", or put the excluded role first in each account",
        );
    }
}

/// Reports requests that are limited only by a header. A client that changes the header in each request is not limited.
fn evadable(file: &File, faults: &mut Faults<'_>) {
    let mut look = |key: String, names: &[String]| {
        let by: Vec<&str> =
            names.iter().filter_map(|name| file.rate_limit.get(name)).map(|limit| &*limit.by).collect();
        if !by.is_empty() && by.iter().all(|by| by.starts_with("header:")) {
            faults.warn(
                "evadable_limit",
                &key,
                "limited only by a header that the client controls: a new value starts a new count",
                "add a limit by \"client_ip\" or \"subject\"",
            );
        }
    };
    if let Some(authority) = &file.authority {
        for (key, names) in lists(authority) {
            look(key, names);
        }
    }
    for (key, names) in signal_lists(file) {
        look(key, names);
    }
    // The policy may redefine a default limit.
    for name in preset_names(file) {
        look(format!("rate_limit.{name}"), &[name.to_owned()]);
    }
    for (index, route) in file.route.iter().enumerate() {
        look(format!("route[{index}].rate_limits"), &route.rate_limits);
    }
}
