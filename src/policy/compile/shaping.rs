//! Compiles the changes that a route makes to requests and answers: path, host and header fields.

use super::Faults;
use super::identity::is_reserved;
use crate::authenticate::{IdentityHeaders, fold_eq};
use crate::config::file::{Access, File, RouteSection, SecurityHeaders, Streams};
use crate::config::is_secret_field;
use crate::forward::edits::{AnswerFields, Edits, Protection};
use crate::forward::pattern::{Pattern, PatternFault};
use crate::forward::rewrite::{PREFIX_BYTES_MAX, Rewrite};
use crate::forward::strip;
use crate::respond::redirect::Redirect;
use crate::route::host::Authority;
use crate::route::path::{canonical, has_parameters};
use http::{HeaderName, HeaderValue, StatusCode};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

/// The maximum number of fields in one table or list.
const FIELDS_MAX: usize = 50;
/// The maximum length of a value, in bytes.
const VALUE_BYTES_MAX: usize = 4096;
/// The longest wait of a maintenance, in seconds.
const WAIT_MAX: u64 = 7 * 24 * 60 * 60;

/// Compiles the changes to the path and the host.
pub(super) fn rewrite(key: &str, table: &RouteSection, faults: &mut Faults<'_>) -> Option<Box<Rewrite>> {
    let rewrite = Rewrite {
        strip: strip_prefix(key, table, faults),
        add: add_prefix(key, table, faults),
        pattern: pattern(key, table, faults),
        host: rewrite_host(key, table, faults),
    };
    let changes = rewrite.strip.is_some()
        || rewrite.add.is_some()
        || rewrite.pattern.is_some()
        || rewrite.host.is_some();
    changes.then(|| Box::new(rewrite))
}

fn strip_prefix(key: &str, table: &RouteSection, faults: &mut Faults<'_>) -> Option<Box<str>> {
    let prefix = table.strip_prefix.as_deref()?;
    // A prefix that contains a parameter or does not begin the path could not be removed from every request.
    let whole = prefix.trim_end_matches('/');
    let is_beginning =
        table.path.strip_prefix(whole).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if whole.is_empty() || prefix.contains(['{', '}']) || !is_beginning {
        faults.fault(
            "bad_prefix",
            &format!("{key}.strip_prefix"),
            format!("\"{prefix}\""),
            format!("use literal segments at the start of \"{}\"", table.path),
        );
        return None;
    }
    // The route's path may be written in another spelling than that of requests. A faulty path is reported there.
    canonical(whole).ok().map(|path| path.into())
}

fn add_prefix(key: &str, table: &RouteSection, faults: &mut Faults<'_>) -> Option<Box<str>> {
    let prefix = table.add_prefix.as_deref()?;
    let whole = prefix.trim_end_matches('/');
    let is_canonical = matches!(canonical(whole), Ok(Cow::Borrowed(_)));
    if whole.is_empty() || !is_canonical || has_parameters(whole) || whole.len() > PREFIX_BYTES_MAX {
        faults.fault(
            "bad_prefix",
            &format!("{key}.add_prefix"),
            format!("\"{prefix}\""),
            "use literal segments as a client would send them, such as \"/v2\"",
        );
        return None;
    }
    Some(whole.into())
}

/// Compiles `rewrite_pattern` and `rewrite_to`.
fn pattern(key: &str, table: &RouteSection, faults: &mut Faults<'_>) -> Option<Pattern> {
    let (pattern_key, template_key) = (format!("{key}.rewrite_pattern"), format!("{key}.rewrite_to"));
    let (pattern, template) = match (&table.rewrite_pattern, &table.rewrite_to) {
        (Some(pattern), Some(template)) => (pattern, template),
        (Some(_), None) => {
            faults.fault("missing_key", &template_key, "nothing", "the new path, such as \"/v2/{1}\"");
            return None;
        }
        (None, Some(_)) => {
            let hint = "an expression for the whole path, such as '/shop/(.*)'";
            faults.fault("missing_key", &pattern_key, "nothing", hint);
            return None;
        }
        (None, None) => return None,
    };
    if table.strip_prefix.is_some() || table.add_prefix.is_some() {
        let hint = "write the prefixes into rewrite_pattern and rewrite_to";
        faults.fault("impossible_rule", &pattern_key, "set beside strip_prefix or add_prefix", hint);
    }
    let fault = match Pattern::parse(pattern, template) {
        Ok(pattern) => return Some(pattern),
        Err(fault) => fault,
    };
    let (at, text, hint) = match &fault {
        PatternFault::Pattern(_) => {
            (&pattern_key, pattern, "an expression for the whole path, such as '/shop/(.*)'")
        }
        PatternFault::Template(_) => (
            &template_key,
            template,
            "a path as a client would send it, with groups of the pattern: \"/v2/{1}\"",
        ),
    };
    faults.fault("bad_value", at, format!("\"{text}\": {fault}"), hint);
    None
}

fn rewrite_host(key: &str, table: &RouteSection, faults: &mut Faults<'_>) -> Option<HeaderValue> {
    let host = table.rewrite_host.as_deref()?;
    let parsed = Authority::parse(host).ok().and_then(|parsed| {
        let port = parsed.port.map_or_else(String::new, |port| format!(":{port}"));
        HeaderValue::try_from(format!("{}{port}", parsed.host)).ok()
    });
    if parsed.is_none() {
        let hint = "use a host, and a port if the service needs it: \"orders.internal\"";
        faults.fault("bad_host", &format!("{key}.rewrite_host"), format!("\"{host}\""), hint);
    }
    parsed
}

/// Compiles the redirect of a route. The keys of forwarding have no effect on it, so they are faults.
pub(super) fn redirect(
    key: &str,
    table: &RouteSection,
    template: &str,
    params: &[Box<str>],
    faults: &mut Faults<'_>,
) -> Option<Redirect> {
    refuse_forwarding(key, table, "redirect", faults);
    let changes = [
        ("files", !table.files.is_empty()),
        ("strip_prefix", table.strip_prefix.is_some()),
        ("add_prefix", table.add_prefix.is_some()),
        ("rewrite_pattern", table.rewrite_pattern.is_some()),
        ("compress", !table.compress.is_empty()),
        ("streams", table.streams != Streams::default()),
        ("security_headers", table.security_headers.is_some()),
        ("set_response_headers", !table.set_response_headers.is_empty()),
        ("add_response_headers", !table.add_response_headers.is_empty()),
        ("remove_response_headers", !table.remove_response_headers.is_empty()),
    ];
    refuse(key, "redirect", &changes, faults);
    let status = match table.redirect_status.unwrap_or(308) {
        code @ (301 | 302 | 303 | 307 | 308) => StatusCode::from_u16(code).ok()?,
        code => {
            let at = format!("{key}.redirect_status");
            faults.fault("bad_value", &at, code.to_string(), "301, 302, 303, 307 or 308");
            return None;
        }
    };
    Redirect::parse(template, status, table.access == Access::Public, params)
        .map_err(|why| {
            let hint = "for example \"https://new.example.com/docs/{*rest}\", with the parameters of `path`";
            faults.fault("bad_value", &format!("{key}.redirect"), format!("\"{template}\": {why}"), hint);
        })
        .ok()
}

/// Refuses the keys of forwarding on a route that forwards nothing because of the key `other`.
pub(super) fn refuse_forwarding(key: &str, table: &RouteSection, other: &str, faults: &mut Faults<'_>) {
    let forwards = [
        ("upstream", !table.upstream.is_empty()),
        ("split", !table.split.is_empty()),
        ("mirror", !table.mirror.is_empty()),
        ("rewrite_host", table.rewrite_host.is_some()),
        ("websocket", table.websocket),
        ("pass_authorization", table.pass_authorization),
        ("forward_token", table.forward_token.is_some()),
        ("timeout", table.timeout.is_some()),
        ("silence", table.silence.is_some()),
        ("identity", table.identity.is_some()),
        ("set_request_headers", !table.set_request_headers.is_empty()),
        ("add_request_headers", !table.add_request_headers.is_empty()),
        ("remove_request_headers", !table.remove_request_headers.is_empty()),
        ("request_trailers", !table.request_trailers.is_empty()),
    ];
    refuse(key, other, &forwards, faults);
}

fn refuse(key: &str, other: &str, keys: &[(&str, bool)], faults: &mut Faults<'_>) {
    for (name, _) in keys.iter().filter(|(_, is_set)| *is_set) {
        let found = format!("{name} on a route with `{other}`, which forwards nothing");
        faults.fault("impossible_rule", &format!("{key}.{name}"), found, "remove one of the two keys");
    }
}

/// Compiles the maintenance of a route.
pub(super) fn maintenance(key: &str, table: &RouteSection, faults: &mut Faults<'_>) -> Option<u32> {
    let wait = Duration::from(table.maintenance?).as_secs();
    if !(1..=WAIT_MAX).contains(&wait) {
        let at = format!("{key}.maintenance");
        faults.fault("bad_value", &at, format!("{wait} seconds"), "from \"1s\" to \"7d\"");
    }
    u32::try_from(wait).ok()
}

/// The direction of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Request,
    Response,
}

/// Compiles the changes to the fields of requests.
pub(super) fn request_fields(
    key: &str,
    table: &RouteSection,
    identity: &IdentityHeaders,
    faults: &mut Faults<'_>,
) -> Option<Box<Edits>> {
    let tables = (&table.set_request_headers, &table.add_request_headers, &table.remove_request_headers);
    edits(key, Direction::Request, tables, identity, faults).map(Box::new)
}

/// Compiles the changes to the fields of the upstream's answers.
pub(super) fn answer_fields(
    key: &str,
    table: &RouteSection,
    file: &File,
    identity: &IdentityHeaders,
    faults: &mut Faults<'_>,
) -> Option<Box<AnswerFields>> {
    let tables = (&table.set_response_headers, &table.add_response_headers, &table.remove_response_headers);
    let edits = edits(key, Direction::Response, tables, identity, faults);
    let protection = match table.security_headers.unwrap_or(file.policy.security_headers) {
        SecurityHeaders::Off => Protection::Off,
        SecurityHeaders::Add => Protection::Missing,
        SecurityHeaders::Force => Protection::Forced,
    };
    let changes = edits.is_some() || protection != Protection::Off;
    changes.then(|| Box::new(AnswerFields { edits: edits.unwrap_or_default(), protection }))
}

/// Returns `None` if there are no changes.
fn edits(
    key: &str,
    direction: Direction,
    (set, add, remove): (&BTreeMap<String, String>, &BTreeMap<String, String>, &Vec<String>),
    identity: &IdentityHeaders,
    faults: &mut Faults<'_>,
) -> Option<Edits> {
    if set.is_empty() && add.is_empty() && remove.is_empty() {
        return None;
    }
    let end = match direction {
        Direction::Request => "request_headers",
        Direction::Response => "response_headers",
    };
    for (verb, count) in [("set", set.len()), ("add", add.len()), ("remove", remove.len())] {
        if count > FIELDS_MAX {
            let hint = format!("use at most {FIELDS_MAX}");
            faults.fault("too_many", &format!("{key}.{verb}_{end}"), format!("{count} fields"), hint);
        }
    }
    let mut removed = Vec::new();
    for (index, text) in remove.iter().enumerate() {
        let at = format!("{key}.remove_{end}[{index}]");
        removed.extend(name(&at, text, direction, true, identity, faults));
    }
    let mut fields = |verb: &str, table: &BTreeMap<String, String>| {
        let mut fields = Vec::new();
        for (text, value) in table {
            let at = format!("{key}.{verb}_{end}.{text}");
            let name = name(&at, text, direction, false, identity, faults);
            let value = field_value(&at, text, value, faults);
            fields.extend(name.zip(value));
        }
        fields
    };
    let (set, added) = (fields("set", set), fields("add", add));
    // Two spellings of one name would make two fields, of which an upstream may read either.
    let names: Vec<&HeaderName> = set.iter().map(|(name, _)| name).collect();
    for (position, name) in names.iter().enumerate() {
        let mut others = added.iter().map(|(name, _)| name).chain(names[..position].iter().copied());
        if let Some(other) = others.find(|other| fold_eq(other.as_str(), name.as_str())) {
            let found = format!("\"{name}\" and \"{other}\" are set or added");
            faults.fault("same_header", &format!("{key}.set_{end}"), found, "use each name once");
        }
    }
    removed.extend(set.iter().map(|(name, _)| name.clone()));
    Some(Edits { removed: removed.into(), set: set.into(), added: added.into() })
}

/// Compiles the name of a field that a route may remove from answers.
pub(super) fn answer_name(
    at: &str,
    text: &str,
    identity: &IdentityHeaders,
    faults: &mut Faults<'_>,
) -> Option<HeaderName> {
    name(at, text, Direction::Response, true, identity, faults)
}

fn name(
    at: &str,
    text: &str,
    direction: Direction,
    is_removal: bool,
    identity: &IdentityHeaders,
    faults: &mut Faults<'_>,
) -> Option<HeaderName> {
    let Ok(name) = text.parse::<HeaderName>() else {
        let found = format!("\"{text}\" is not a header name");
        faults.fault("bad_header", at, found, "for example \"X-Api-Version\"");
        return None;
    };
    // Removing a cookie is safe. The gateway has already taken its own from the field.
    let is_cookie = is_removal && matches!(name.as_str(), "cookie" | "set-cookie");
    let is_ours = is_decided_by_gateway(&name, identity)
        || match direction {
            Direction::Request => name.as_str() == "tracestate",
            Direction::Response => is_our_answer(name.as_str()),
        };
    if is_ours && !is_cookie {
        let (found, hint) = match name.as_str() {
            "strict-transport-security" => ("is set by [tls] hsts", "use [tls] hsts"),
            field if field.starts_with("access-control-") => ("is set by [cors.NAME]", "use [cors.NAME]"),
            _ => ("is one that the gateway decides about", "use a name of your service, such as \"X-Env\""),
        };
        faults.fault("bad_header", at, format!("\"{text}\" {found}"), hint);
        return None;
    }
    Some(name)
}

/// Whether the gateway decides about a field of requests.
pub(super) fn is_decided_by_gateway(name: &HeaderName, identity: &IdentityHeaders) -> bool {
    is_reserved(name) || !strip::passes(name, identity) || name.as_str().starts_with("sec-websocket-")
}

/// Whether the gateway itself writes or checks a field of answers.
fn is_our_answer(name: &str) -> bool {
    name.starts_with("access-control-")
        || name.starts_with("ratelimit")
        || matches!(
            name,
            "set-cookie" | "strict-transport-security" | "www-authenticate" | "dpop-nonce" | "date"
        )
}

fn field_value(at: &str, name: &str, text: &str, faults: &mut Faults<'_>) -> Option<HeaderValue> {
    let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && text.trim() == text;
    let value = HeaderValue::from_str(text).ok().filter(|_| is_plain && text.len() <= VALUE_BYTES_MAX);
    if value.is_none() {
        let hint = format!("visible ASCII and inner spaces, at most {VALUE_BYTES_MAX} bytes");
        let found = match is_secret_field(name, text) {
            true => "(not shown)".to_owned(),
            false => format!("\"{text}\""),
        };
        faults.fault("bad_value", at, found, hint);
    }
    value
}
