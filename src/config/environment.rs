//! Reads environment variables that override keys of the file: `PORTCULLIS_SERVER__HTTPS` sets the key `server.https`.
//!
//! A variable that has the gateway's prefix but cannot be applied is a fault, because the operator relies on its value.
//! Only the variables that container platforms set for a service are ignored.

use super::layer::{self, Merging};
use crate::diagnostic::{Diagnostic, Place, Severity};
use figment::value::{Dict, Value};
use std::collections::{BTreeMap, HashSet};

/// The prefix of the names of all variables.
pub(super) const PREFIX: &str = "PORTCULLIS_";
/// The separator between the parts of a key in the name of a variable.
const NESTING: &str = "__";
/// Maximum number of parts of a key, twice the depth of the deepest key.
const PARTS_MAX: usize = 12;
/// Maximum number of variables. Each variable may cause a copy of a list as long as the file.
const VARIABLES_MAX: usize = 1000;
/// The top-level tables. A single underscore after one of these names is reported as a typo for two.
pub(super) const TABLES: &[&str] = &[
    "POLICY",
    "SERVER",
    "SIGNALS",
    "TLS",
    "CLIENT_CERTIFICATES",
    "ISSUER",
    "AUTHORITY",
    "API_KEYS",
    "STATE",
    "LOG",
    "UPSTREAM",
    "RATE_LIMIT",
    "RESOURCE",
    "CORS",
    "DPOP",
    "SHARED",
    "IDENTITY",
    "RULE",
    "ROUTE",
    "TEST",
];

/// The values that environment variables set.
#[derive(Debug, Default)]
pub(super) struct Environment {
    /// The values that variables set, nested in tables as in the file.
    pub(super) layer: Dict,
    /// The keys that variables set, each with the name of its variable.
    pub(super) keys: Vec<(String, String)>,
    /// The variable that last set each value, by the value's key. A list counts as one value, but each value of a table
    /// in the list counts separately.
    pub(super) values: BTreeMap<String, String>,
    /// The faults of variables that cannot be applied.
    pub(super) faults: Vec<Diagnostic>,
}

/// Reads the variables that override `file`. A variable to which a value of the file or of another variable refers as
/// `env:PORTCULLIS_…` contains a secret and sets no key.
pub(super) fn read(variables: Vec<(String, String)>, file: &Dict) -> Environment {
    let mut environment = Environment::default();
    let mut secrets = HashSet::new();
    file.values().for_each(|value| note_references(value, &mut secrets));
    for (_, value) in variables.iter().filter(|(name, _)| name.starts_with(PREFIX)) {
        if let Ok(value) = layer::of_variable(value) {
            note_references(&value, &mut secrets);
        }
    }
    let mut variables: Vec<_> = variables
        .into_iter()
        .filter(|(name, _)| name.strip_prefix(PREFIX).is_some_and(|rest| !rest.is_empty()))
        .filter(|(name, _)| !is_service_link(name) && !secrets.contains(&**name))
        .collect();
    if variables.is_empty() {
        return environment;
    }
    let mut layer = Value::from(Dict::new());
    let under = Value::from(file.clone());
    let mut seen = BTreeMap::<String, String>::new();
    // A table's variable sorts before the variables of the table's keys. The table therefore does not override its
    // keys.
    variables.sort();
    if variables.len() > VARIABLES_MAX {
        let found = format!("one of {} variables that begin with {PREFIX}", variables.len());
        let hint = format!("set at most {VARIABLES_MAX}, and write the rest in the file");
        let first = &variables[VARIABLES_MAX].0;
        environment.faults.push(fault(first, "too_many", found, &hint));
        variables.truncate(VARIABLES_MAX);
    }
    for (name, value) in variables {
        let rest = &name[PREFIX.len()..];
        if let Some(fault) = misspelt(&name, rest) {
            environment.faults.extend(fault);
            continue;
        }
        let parts: Vec<String> = rest.split(NESTING).map(str::to_ascii_lowercase).collect();
        let value = match layer::of_variable(&value) {
            Ok(value) => value,
            Err((found, hint)) => {
                environment.faults.push(fault(&name, "bad_value", found.to_owned(), hint));
                continue;
            }
        };
        match set(&mut layer, Some(&under), &parts, value.clone(), String::new()) {
            Ok(key) => match seen.insert(key.clone(), name.clone()) {
                None => {
                    note(&mut environment.values, &key, &value, &name);
                    environment.keys.push((key, name));
                }
                Some(other) => environment.faults.push(fault(
                    &name,
                    "duplicate_key",
                    format!("sets {key}, which {other} sets too"),
                    "unset one of the two variables",
                )),
            },
            Err((found, hint)) => environment.faults.push(fault(&name, "unknown_key", found, hint)),
        }
    }
    environment.faults = Diagnostic::bounded(environment.faults);
    // The most specific key is first. One variable may set a list, and another variable an element of the list.
    environment.keys.sort_by_key(|(key, _)| std::cmp::Reverse(key.len()));
    environment.layer = match layer {
        Value::Dict(_, layer) => layer,
        _ => Dict::new(),
    };
    environment
}

/// Records which values a variable sets. If the variable replaces a list, it is the origin of the whole list.
fn note(values: &mut BTreeMap<String, String>, key: &str, value: &Value, variable: &str) {
    match value {
        Value::Dict(_, table) => {
            for (name, value) in table {
                note(values, &layer::join(key, name), value, variable);
            }
        }
        Value::Array(_, list) => {
            values.retain(|known, _| !known.strip_prefix(key).is_some_and(|rest| rest.starts_with('[')));
            values.insert(key.to_owned(), variable.to_owned());
            for (index, value) in list.iter().enumerate() {
                if matches!(value, Value::Dict(..) | Value::Array(..)) {
                    note(values, &format!("{key}[{index}]"), value, variable);
                }
            }
        }
        _ => drop(values.insert(key.to_owned(), variable.to_owned())),
    }
}

/// Creates a fault about a variable.
pub(super) fn fault(variable: &str, id: &'static str, found: String, hint: &str) -> Diagnostic {
    Diagnostic {
        severity: Severity::Fault,
        id,
        place: Place::Environment(variable.to_owned()),
        key: String::new(),
        found,
        hint: hint.to_owned(),
        refers_to: None,
    }
}

/// Notes the variables to which a value, or a value in it, refers as `env:PORTCULLIS_…`. Comments and other text refer to
/// nothing: they would keep a variable from setting its key.
fn note_references(value: &Value, secrets: &mut HashSet<String>) {
    match value {
        Value::String(_, text) => {
            secrets
                .extend(text.strip_prefix("env:").filter(|name| name.starts_with(PREFIX)).map(str::to_owned));
        }
        Value::Dict(_, table) => table.values().for_each(|value| note_references(value, secrets)),
        Value::Array(_, list) => list.iter().for_each(|value| note_references(value, secrets)),
        _ => {}
    }
}

/// Returns whether a container platform set this variable. For a service named `portcullis`, Kubernetes and Docker
/// links set `PORTCULLIS_SERVICE_HOST`, `PORTCULLIS_PORT` and similar variables. They must not prevent the gateway from
/// starting.
pub(super) fn is_service_link(name: &str) -> bool {
    let port = |rest: &str| rest.is_empty() || rest.strip_prefix('_').is_some_and(starts_with_digit);
    let is_link = name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.split_once("_PORT").is_some_and(|(_, rest)| port(rest));
    // The variable of a key below a table always contains two underscores in a row. Service names rarely do.
    is_link && !name.contains("__")
}

fn starts_with_digit(text: &str) -> bool {
    text.bytes().next().is_some_and(|first| first.is_ascii_digit())
}

/// Returns `None` if the variable may set a key, `Some(None)` if the gateway ignores the variable, and otherwise the
/// fault.
fn misspelt(name: &str, rest: &str) -> Option<Option<Diagnostic>> {
    let parts = rest.split(NESTING).count();
    if rest.split(NESTING).any(str::is_empty) || parts > PARTS_MAX {
        let found = if parts > PARTS_MAX { "more parts than any key has" } else { "a part without a name" };
        return Some(Some(fault(
            name,
            "unknown_key",
            found.to_owned(),
            "join the names of tables and key with two underscores, as in PORTCULLIS_SERVER__HTTPS",
        )));
    }
    if parts > 1 || TABLES.iter().any(|table| rest.eq_ignore_ascii_case(table)) {
        return None;
    }
    let upper = rest.to_ascii_uppercase();
    let meant = TABLES.iter().find_map(|table| {
        let key = upper.strip_prefix(table)?.strip_prefix('_')?;
        Some(format!("{PREFIX}{table}{NESTING}{key}"))
    });
    Some(meant.map(|meant| {
        let found = "one underscore between table and key, not two".to_owned();
        fault(name, "unknown_key", found, &format!("if a key of the policy is meant, write {meant}"))
    }))
}

/// Sets a key of the layer, and returns the key as the file spells it.
///
/// A list in a layer replaces the whole list of the file. To set one element, this function copies the file's list to
/// the layer and changes the element there.
fn set(
    layer: &mut Value,
    under: Option<&Value>,
    parts: &[String],
    value: Value,
    key: String,
) -> Result<String, (String, &'static str)> {
    let Some((part, rest)) = parts.split_first() else {
        *layer = match (std::mem::replace(layer, false.into()), value) {
            (Value::Dict(_, below), Value::Dict(_, above)) => Value::from(below.merge_over(above)),
            (_, value) => value,
        };
        return Ok(key);
    };
    if let (Some(Value::Array(..)), false) = (under, matches!(layer, Value::Array(..))) {
        *layer = under.cloned().unwrap_or_else(|| layer.clone());
    }
    match layer {
        Value::Array(_, list) => {
            let below = match under {
                Some(Value::Array(_, below)) => below.as_slice(),
                _ => &[],
            };
            let index = part.parse::<usize>().ok().filter(|index| *index < list.len());
            let Some(index) = index else {
                let found = format!("{key} is a list of {}: it has no element {part:?}", list.len());
                return Err((found, "give a position, counted from 0, or the whole list as a TOML value"));
            };
            set(&mut list[index], below.get(index), rest, value, format!("{key}[{index}]"))
        }
        Value::Dict(_, table) => {
            let below = match under {
                Some(Value::Dict(_, below)) => Some(below),
                _ => None,
            };
            let name = spelled(part, table, below);
            let key = layer::join(&key, &name);
            let under = below.and_then(|below| below.get(&name));
            let entry = table.entry(name).or_insert_with(|| Value::from(Dict::new()));
            set(entry, under, rest, value, key)
        }
        _ => Err((format!("{key} is not a table"), "set the variable of the key itself, or unset this one")),
    }
}

/// Returns the name of a key as the file spells it: `MY_SERVICE` matches `my-service`. If several names match, `part`
/// is returned unchanged.
fn spelled(part: &str, layer: &Dict, file: Option<&Dict>) -> String {
    let names = || layer.keys().chain(file.into_iter().flat_map(Dict::keys));
    if names().any(|name| name == part) {
        return part.to_owned();
    }
    let folded = |byte: u8| if byte == b'-' { b'_' } else { byte.to_ascii_lowercase() };
    let is_alike = |name: &&String| name.bytes().map(folded).eq(part.bytes().map(|b| b.to_ascii_lowercase()));
    let mut alike: Vec<&String> = names().filter(is_alike).collect();
    alike.dedup();
    match alike.as_slice() {
        [only] => (*only).clone(),
        [first, .., last] if first == last => (*first).clone(),
        _ => part.to_owned(),
    }
}
