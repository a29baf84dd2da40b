//! Reports weaknesses in the handling of tokens: trusted issuers, lifetimes and recipients.

use super::Subject;
use crate::config::file::{File, RouteSection, SameSite};
use crate::config::secret::Secret;
use crate::policy::Faults;
use crate::policy::endpoint_limits::{lists, preset_names, unlimited_login};
use std::net::IpAddr;
use std::time::Duration;

/// The maximum leeway that is not reported. Clocks that are synchronized by NTP differ by less than a second, so a
/// minute is more than enough.
const LEEWAY_MUCH: Duration = Duration::from_secs(60);
/// The maximum grace period that is not reported. Clients retry within seconds.
const GRACE_MUCH: Duration = Duration::from_secs(60);

/// Whether an `http://` URL refers to another machine. `rest` is the URL without its scheme.
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

/// Whether the URL of a store is a literal in the policy file and contains a password (RFC 3986 section 3.2.1).
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
    evadable(file, faults);
    several_issuers(file, faults);
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
    let origins = authority.origins.iter().enumerate().filter(|_| authority.cookies);
    for (index, origin) in origins {
        if origin.strip_prefix("http://").is_some_and(is_far) {
            faults.warn(
                "origin_in_cleartext",
                &format!("authority.origins[{index}]"),
                format!("\"{origin}\": an attacker on the network path to that page can act as its user"),
                "use the page's https origin",
            );
        }
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

/// Reports routes and headers that do not distinguish between several issuers. Roles and subjects of all issuers share
/// one namespace, unless the policy also checks or forwards the issuer.
fn several_issuers(file: &File, faults: &mut Faults<'_>) {
    let count = file.issuer.len() + usize::from(file.authority.is_some());
    if count < 2 {
        return;
    }
    let asks_for_names = |route: &RouteSection| {
        !route.roles.is_empty() || !route.all_roles.is_empty() || !route.scopes.is_empty()
    };
    let open = |route: &&RouteSection| asks_for_names(route) && !route.claims.contains_key("iss");
    let mut routes = file.route.iter().enumerate().filter(|(_, route)| open(route));
    if let Some((index, first)) = routes.next() {
        let more = routes.count();
        let name = if first.name.is_empty() { &first.path } else { &first.name };
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let list = if first.roles.is_empty() && first.all_roles.is_empty() { "scopes" } else { "roles" };
        faults.warn(
            "shared_roles",
            &format!(
                "route[{index}].{}",
                if first.roles.is_empty() && list == "roles" { "all_roles" } else { list }
            ),
            format!(
                "route \"{name}\"{more} requires {list}, which each of {count} issuers can grant to anyone"
            ),
            "add claims = { iss = \"…\" } to routes that only one issuer should grant access to",
        );
    }
    if file.identity.issuer.is_empty() && !file.identity.subject.is_empty() {
        faults.warn(
            "issuer_not_told",
            "identity.issuer",
            format!(
                "empty, with {count} issuers: services cannot distinguish equal subjects of different issuers"
            ),
            "set \"X-Auth-Issuer\", and use both headers in services",
        );
    }
}

/// Reports places where requests are limited only by a header. A client that sends a new value with each request is
/// never limited there.
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
        // The policy may redefine a default limit, so the redefined limit is checked too.
        for name in preset_names(file) {
            look(format!("rate_limit.{name}"), &[name.to_owned()]);
        }
    }
    for (index, route) in file.route.iter().enumerate() {
        look(format!("route[{index}].rate_limits"), &route.rate_limits);
    }
}
