//! Compiles the settings of a route for credentials: the sources of tokens, and the settings for browsers.

use super::Faults;
use super::trust::is_reserved;
use crate::authenticate::Sources;
use crate::authority::IssuerSettings;
use crate::config::file::{self, RouteSection};
use crate::config::values::TokenSource;
use http::HeaderName;

/// Compiles `sources`, the places where a route looks for tokens.
pub(super) fn sources(
    key: &str,
    table: &RouteSection,
    settings: Option<&IssuerSettings>,
    faults: &mut Faults<'_>,
) -> Sources {
    let Some(list) = &table.sources else { return Sources::default() };
    let mut sources = Sources { header: false, cookie: false, named: Box::new([]), query: None };
    let mut named = Vec::new();
    if list.is_empty() {
        let hint = "use \"header\", \"cookie\" or both, or set access = \"public\" if no token is needed";
        faults.fault(
            "bad_value",
            &format!("{key}.sources"),
            "an empty list: no token would ever be found",
            hint,
        );
    }
    for (index, source) in list.iter().enumerate() {
        let key = format!("{key}.sources[{index}]");
        match source {
            TokenSource::Header => sources.header = true,
            TokenSource::Cookie => {
                sources.cookie = true;
                if settings.is_none_or(|settings| settings.cookies.is_none()) {
                    let hint = "set [authority] cookies = true, or remove \"cookie\"";
                    faults.fault("no_cookies", &key, "the local authority does not set cookies", hint);
                }
            }
            TokenSource::Query(name) => {
                let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
                if name.is_empty() || !name.bytes().all(plain) {
                    let hint = "use letters, digits, '_' and '-'";
                    faults.fault(
                        "bad_value",
                        &key,
                        format!("\"{name}\" is not a valid query field name"),
                        hint,
                    );
                }
                faults.warn(
                    "token_in_query",
                    &key,
                    "tokens in the query are stored by proxies, browser histories and logs (RFC 6750 section 5.3)",
                    "use \"header\", and a separate route for clients that cannot send one",
                );
                sources.query = Some(name.as_str().into());
            }
            TokenSource::Named(name) => match name.parse::<HeaderName>() {
                Ok(name) if !is_reserved(&name) => named.push(name),
                Ok(_) | Err(_) => {
                    let hint = "use a dedicated header, such as { header = \"X-Api-Token\" }";
                    faults.fault("bad_header", &key, format!("\"{name}\" already has another meaning"), hint);
                }
            },
        }
    }
    sources.named = named.into();
    sources
}

/// Reports values of `login` and `csrf_field` that cannot work.
pub(super) fn check_login(
    key: &str,
    table: &RouteSection,
    settings: Option<&IssuerSettings>,
    faults: &mut Faults<'_>,
) {
    let cookies = settings.is_some_and(|settings| settings.cookies.is_some());
    if table.login.is_some() && !cookies {
        let hint = "set [authority] cookies = true: a browser keeps its tokens in cookies";
        faults.fault(
            "no_cookies",
            &format!("{key}.login"),
            "a login page needs cookies, which are off",
            hint,
        );
    }
    if table.login.is_some() && table.access != file::Access::Authenticated {
        let hint = "set access = \"authenticated\", or remove login";
        faults.fault(
            "impossible_rule",
            &format!("{key}.login"),
            "a login page on a route that does not require a login",
            hint,
        );
    }
    if table.login.is_some()
        && table.sources.as_ref().is_some_and(|list| !list.contains(&TokenSource::Cookie))
    {
        // After the login, the route would not find the token in the cookie, and would redirect the browser to the
        // login page in a loop.
        let hint = "add \"cookie\" to sources, or remove login";
        faults.fault(
            "impossible_rule",
            &format!("{key}.login"),
            "a login page on a route that does not read cookies",
            hint,
        );
    }
    if let Some(field) = &table.csrf_field {
        let key = format!("{key}.csrf_field");
        if field.is_empty() || field.len() > 64 {
            faults.fault("bad_value", &key, "not a valid field name", "a name such as \"csrf_token\"");
        }
        if !cookies {
            let hint = "set [authority] cookies = true, or remove csrf_field";
            faults.fault("no_cookies", &key, "a CSRF token has no effect without cookies", hint);
        }
    }
}
