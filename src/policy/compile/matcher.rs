//! Compiles the part of a route that selects its requests: host, path, methods and header fields.

use super::Faults;
use super::identity::is_reserved;
use crate::authenticate::IdentityHeaders;
use crate::config::file::RouteSection;
use crate::forward::strip;
use crate::route::field::is_word;
use crate::route::{Fields, HostPattern, Matcher, Methods, PathPattern};
use http::{HeaderName, HeaderValue};
use std::collections::BTreeMap;

/// Compiles the matcher of a route.
pub(super) fn matcher(
    key: &str,
    table: &RouteSection,
    identity: &IdentityHeaders,
    faults: &mut Faults<'_>,
) -> Option<Matcher> {
    let path = if table.path.is_empty() {
        faults.fault("missing_key", &format!("{key}.path"), "nothing", "path = \"/orders/{id}\"");
        None
    } else {
        PathPattern::parse(&table.path)
            .map_err(|fault| faults.fault("bad_path", &format!("{key}.path"), fault.found(), fault.remedy()))
            .ok()
    };
    let host = match table.host.as_str() {
        "" => Some(HostPattern::Any),
        text => HostPattern::parse(text)
            .map_err(|fault| faults.fault("bad_host", &format!("{key}.host"), fault.found(), fault.remedy()))
            .ok(),
    };
    let methods = if table.methods.is_empty() {
        Some(Methods::any())
    } else {
        Methods::parse(&table.methods)
            .map_err(|fault| {
                faults.fault("bad_method", &format!("{key}.methods"), fault.found(), fault.remedy())
            })
            .ok()
    };
    let fields = fields(key, &table.headers, identity, faults);
    Some(Matcher { host: host?, path: path?, methods: methods?, fields: fields? })
}

/// Compiles the header fields that a route or a share of its requests requires.
pub(super) fn fields(
    key: &str,
    table: &BTreeMap<String, String>,
    identity: &IdentityHeaders,
    faults: &mut Faults<'_>,
) -> Option<Fields> {
    let mut fields = Vec::new();
    for (name, value) in table {
        let at = format!("{key}.headers.{name}");
        let Ok(parsed) = name.parse::<HeaderName>() else {
            let hint = "for example { \"X-Api-Version\" = \"2\" }";
            faults.fault("bad_header", &at, format!("\"{name}\" is not a header name"), hint);
            return None;
        };
        if is_reserved(&parsed) || !strip::passes(&parsed, identity) {
            let hint = "use a header that the upstream reads, such as \"X-Api-Version\"";
            let found =
                format!("the gateway removes or rewrites \"{name}\", so the upstream would not see it");
            faults.fault("bad_header", &at, found, hint);
            return None;
        }
        match HeaderValue::from_str(value) {
            Ok(value) if is_word(value.as_bytes()) => fields.push((parsed, value)),
            Ok(_) | Err(_) => {
                let hint = "one word of visible ASCII without commas, semicolons, quotes and backslashes";
                faults.fault("bad_value", &at, format!("\"{value}\""), hint);
                return None;
            }
        }
    }
    Fields::new(fields)
        .map_err(|name| {
            let found = format!("\"{name}\" is listed twice");
            faults.fault("same_header", &format!("{key}.headers"), found, "use each header once");
        })
        .ok()
}
