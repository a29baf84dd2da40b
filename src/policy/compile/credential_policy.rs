//! Compiles the settings of a route for token sources and browsers.

use super::Faults;
use super::identity::is_reserved;
use crate::authenticate::{NamedHeader, Source, Sources};
use crate::authority::IssuerSettings;
use crate::config::file::{self, RouteSection};
use crate::config::values::TokenSource;
use http::{HeaderName, header};

/// Maximum length of the text before a token in a header, in bytes.
const PREFIX_MAX: usize = 64;

/// Compiles a list of token sources. `key` is the key of the list.
pub(super) fn sources(
    key: &str,
    list: &[TokenSource],
    settings: Option<&IssuerSettings>,
    api_key_header: Option<&HeaderName>,
    faults: &mut Faults<'_>,
) -> Sources {
    let mut sources = Sources { header: false, cookie: false, others: Box::new([]) };
    let mut others = Vec::new();
    if list.is_empty() {
        let hint = "use \"header\", \"cookie\" or both, or set access = \"public\" if no token is needed";
        faults.fault("bad_value", key, "an empty list: no token would ever be found", hint);
    }
    for (index, source) in list.iter().enumerate() {
        let key = format!("{key}[{index}]");
        let other = match source {
            TokenSource::Header => {
                sources.header = true;
                None
            }
            TokenSource::Cookie => {
                sources.cookie = true;
                if settings.is_none_or(|settings| settings.cookies.is_none()) {
                    let hint = "set [authority] cookies = true, or name the cookie of another program: { cookie = \"NAME\" }";
                    faults.fault("no_cookies", &key, "the local authority does not set cookies", hint);
                }
                None
            }
            TokenSource::ForeignCookie(name) => cookie(&key, name, settings, faults),
            TokenSource::WebSocket(name) => {
                if !is_token(name) {
                    let found = format!("\"{name}\" is not a valid subprotocol");
                    faults.fault("bad_value", &key, found, "use \"websocket\" or { websocket = \"bearer\" }");
                }
                Some(Source::WebSocket(name.as_str().into()))
            }
            TokenSource::ApiKey => {
                if api_key_header.is_none() {
                    let hint = "add an [api_keys] section, or remove \"api_key\"";
                    faults.fault("bad_value", &key, "the policy has no [api_keys]", hint);
                }
                api_key_header.map(|name| Source::ApiKey(name.clone()))
            }
            TokenSource::ClientCertificate => {
                if faults.loaded.file.client_certificates.is_empty() {
                    let hint = "add a [client_certificates.NAME], or remove \"client_certificate\"";
                    faults.fault("bad_value", &key, "the policy has no [client_certificates]", hint);
                }
                Some(Source::Certificate)
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
                Some(Source::Query(name.as_str().into()))
            }
            TokenSource::Named(name, prefix) => named(&key, name, prefix, faults),
        };
        if let Some(other) = other {
            if others.iter().any(|known| is_same_place(known, &other)) {
                let found = "this place is listed twice: every token in it would be ambiguous";
                faults.fault("bad_value", &key, found, "list each place once");
            }
            others.push(other);
        }
    }
    sources.others = others.into();
    sources
}

/// Whether every token of one source is also a token of the other source.
fn is_same_place(one: &Source, other: &Source) -> bool {
    match (one, other) {
        (Source::Header(one), Source::Header(other)) => {
            one.name == other.name
                && (one.name != header::AUTHORIZATION || one.prefix.eq_ignore_ascii_case(&other.prefix))
        }
        (Source::Header(named), Source::ApiKey(name)) | (Source::ApiKey(name), Source::Header(named)) => {
            named.name == *name
        }
        (one, other) => one == other,
    }
}

/// Compiles a cookie that another service sets.
fn cookie(
    key: &str,
    name: &str,
    settings: Option<&IssuerSettings>,
    faults: &mut Faults<'_>,
) -> Option<Source> {
    if !is_token(name) {
        let found = format!("\"{name}\" is not a valid cookie name");
        faults.fault("bad_value", key, found, "for example { cookie = \"CF_Authorization\" }");
        return None;
    }
    let ours = settings.and_then(|settings| settings.cookies.as_ref());
    if ours.is_some_and(|ours| ours.names.includes(name.as_bytes())) {
        let found = format!("\"{name}\" is a cookie of the local authority");
        faults.fault("bad_value", key, found, "use \"cookie\" for the authority's access token");
        return None;
    }
    Some(Source::Cookie(name.into()))
}

/// Compiles a header and the text before its token.
fn named(key: &str, name: &str, prefix: &str, faults: &mut Faults<'_>) -> Option<Source> {
    let parsed = name.parse::<HeaderName>().ok();
    let is_authorization = parsed == Some(header::AUTHORIZATION) && !prefix.is_empty();
    let is_free = |name: &HeaderName| !is_reserved(name) && *name != header::SEC_WEBSOCKET_PROTOCOL;
    let Some(parsed) = parsed.filter(|name| is_free(name) || is_authorization) else {
        let hint = match name.to_ascii_lowercase().as_str() {
            "authorization" => "use \"header\" for a bearer token, or name the scheme: prefix = \"JWT \"",
            "cookie" => "name the cookie: { cookie = \"CF_Authorization\" }",
            "sec-websocket-protocol" => "use \"websocket\"",
            _ => "use a dedicated header, such as { header = \"X-Api-Token\" }",
        };
        faults.fault("bad_header", key, format!("\"{name}\" already has another meaning"), hint);
        return None;
    };
    let is_bad = |byte: u8| !byte.is_ascii_graphic() && byte != b' ';
    let flaw = match prefix.as_bytes() {
        [] => None,
        _ if prefix.len() > PREFIX_MAX => Some("longer than 64 bytes"),
        [b' ', ..] => Some("begins with a space, which header fields do not have"),
        bytes if bytes.iter().copied().any(is_bad) => {
            Some("contains a character other than visible ASCII and space")
        }
        [.., last] if last.is_ascii_alphanumeric() => {
            Some("ends with a letter or digit, where a token could begin")
        }
        _ if is_authorization && !is_scheme(prefix) => Some("is not a scheme and one space"),
        _ if is_authorization && prefix.eq_ignore_ascii_case("bearer ") => Some("is what \"header\" reads"),
        _ => None,
    };
    if let Some(flaw) = flaw {
        let hint = "write the text up to the token, with its space: prefix = \"Token \"";
        faults.fault("bad_value", key, format!("the prefix {prefix:?} {flaw}"), hint);
        return None;
    }
    Some(Source::Header(NamedHeader { name: parsed, prefix: prefix.into() }))
}

/// Whether a prefix is an authentication scheme followed by one space (RFC 9110 section 11.4).
fn is_scheme(prefix: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    prefix.strip_suffix(' ').is_some_and(|scheme| !scheme.is_empty() && scheme.bytes().all(is_letter))
}

/// Whether text is a `token` (RFC 9110 section 5.6.2), as in a cookie name or a subprotocol.
fn is_token(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.len() <= 256 && text.bytes().all(is_letter)
}

/// Reports values of `login` and `csrf_field` that cannot work.
pub(super) fn check_login(
    key: &str,
    table: &RouteSection,
    sources: &Sources,
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
    if table.login.is_some() && !sources.cookie {
        // The route does not read cookies, so it would redirect the browser to the login page in a loop.
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
