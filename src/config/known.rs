//! Lists the keys of each table of a policy, and finds the best match for an unknown key.
//!
//! The names of keys are from the schema, which is generated from the types that read the file.

use super::place::nearest;
use super::schema::schema;
use serde_json::Value;
use std::sync::OnceLock;

/// Minimum length in bytes of an unknown key that is treated as a prefix. A shorter prefix would match too many keys.
const BEGINNING_MIN: usize = 3;
/// Maximum number of tables that a hint names.
const TABLES_SHOWN: usize = 4;

/// A table, with its header (such as `[server]`, `[[route]]` or `[upstream.NAME]`) and its keys.
#[derive(Debug)]
struct Table {
    header: String,
    keys: Vec<String>,
}

/// Returns all tables of a policy.
fn tables() -> &'static [Table] {
    static TABLES: OnceLock<Vec<Table>> = OnceLock::new();
    TABLES.get_or_init(|| {
        let mut tables = Vec::new();
        collect(&schema(), "", false, &mut tables);
        tables
    })
}

fn collect(schema: &Value, name: &str, is_list: bool, tables: &mut Vec<Table>) {
    if let Some(items) = schema.get("items").filter(|items| items.get("properties").is_some()) {
        return collect(items, name, true, tables);
    }
    if let Some(named) = schema.get("additionalProperties").filter(|named| named.get("properties").is_some())
    {
        return collect(named, &format!("{name}.NAME"), false, tables);
    }
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    let header = match (name, is_list) {
        ("", _) => "the top of the file".to_owned(),
        (name, true) => format!("[[{name}]]"),
        (name, false) => format!("[{name}]"),
    };
    tables.push(Table { header, keys: properties.keys().cloned().collect() });
    for (key, inner) in properties {
        let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
        collect(inner, &name, false, tables);
    }
}

/// Returns the hint for an unknown key. `siblings` are the known keys of the table that contains the unknown key.
pub(super) fn help(name: &str, siblings: &[&str]) -> String {
    let lower = name.to_ascii_lowercase();
    let is_near = |known: &&str| strsim::damerau_levenshtein(&lower, known) <= 1;
    let begins = |known: &&str| lower.len() >= BEGINNING_MIN && known.starts_with(&lower);
    let comparable = name.len() <= 64;
    let one = |found: Option<&&str>| found.map(|known| format!("did you mean \"{known}\"?"));
    // A known key that begins with the given name is preferred: `role` means `roles`, not `rule`.
    let near = siblings.iter().filter(|known| comparable && is_near(known));
    if let Some(help) = one(near.min_by_key(|known| !known.starts_with(&lower))) {
        return help;
    }
    let owners: Vec<&str> = tables()
        .iter()
        .filter(|table| table.keys.contains(&lower))
        .map(|table| table.header.as_str())
        .collect();
    let here = || one(siblings.iter().find(|known| comparable && begins(known)));
    if !owners.is_empty() {
        let near = here().map(|near| format!("{near} ")).unwrap_or_default();
        return near
            + &match owners.len() {
                ..=TABLES_SHOWN => format!("\"{lower}\" is a key of {}", owners.join(" and ")),
                _ => format!(
                    "\"{lower}\" is a key of other tables, such as {}",
                    owners[..TABLES_SHOWN].join(" and ")
                ),
            };
    }
    let like = || nearest(&lower, siblings).map(|known| format!("did you mean \"{known}\"?"));
    // Other products join the words of several keys: `jwks_uri`, `client_secret`.
    let joins = |known: &&&str| {
        let before = lower.strip_prefix(**known).is_some_and(|rest| rest.starts_with('_'));
        before || lower.strip_suffix(**known).is_some_and(|rest| rest.ends_with('_'))
    };
    let joined = || one(siblings.iter().filter(joins).max_by_key(|known| known.len()));
    if let Some(help) = here().or_else(like).or_else(joined) {
        return help;
    }
    let all: Vec<&str> = tables().iter().flat_map(|table| &table.keys).map(String::as_str).collect();
    let elsewhere = nearest(&lower, &all).and_then(|known| {
        let owner = tables().iter().find(|table| table.keys.iter().any(|key| key == known))?;
        Some(format!("did you mean \"{known}\" of {}? ", owner.header))
    });
    format!("{}known keys: {}", elsewhere.unwrap_or_default(), siblings.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_those_of_a_policy() {
        let headers: Vec<&str> = tables().iter().map(|table| table.header.as_str()).collect();
        for header in [
            "the top of the file",
            "[server]",
            "[server.bounds]",
            "[[route]]",
            "[upstream.NAME]",
            "[authority.client.NAME]",
        ] {
            assert!(headers.contains(&header), "{header}: {headers:?}");
        }
    }

    #[test]
    fn an_unknown_key_is_reported_with_the_key_that_it_resembles() {
        let issuer = ["issuer", "audience", "algorithms", "jwks", "secret", "public_key", "kid", "leeway"];
        let route = ["name", "path", "roles", "rate_limits", "access", "timeout"];
        let bounds = ["header_timeout", "headers", "body_size"];
        for (name, siblings, help) in [
            ("aud", &issuer[..], "did you mean \"audience\"?"),
            ("alg", &issuer, "did you mean \"algorithms\"?"),
            ("jwks_uri", &issuer, "did you mean \"jwks\"?"),
            ("client_secret", &issuer, "did you mean \"secret\"?"),
            ("acess", &route, "did you mean \"access\"?"),
            ("Access", &route, "did you mean \"access\"?"),
            ("trusted_proxies", &bounds, "\"trusted_proxies\" is a key of [server]"),
            ("cookies", &bounds, "\"cookies\" is a key of [authority]"),
            (
                "trustd_proxies",
                &bounds,
                "did you mean \"trusted_proxies\" of [server]? known keys: header_timeout",
            ),
            (
                "rate",
                &route,
                "did you mean \"rate_limits\"? \"rate\" is a key of [issuer.introspection] and [rate_limit.NAME]",
            ),
            ("colour", &bounds, "known keys: header_timeout, headers, body_size"),
        ] {
            let text = super::help(name, siblings);
            assert!(text.starts_with(help), "{name}: {text}");
        }
    }
}
