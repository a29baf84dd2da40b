//! Compares two policy files key by key.
//!
//! The output contains no secrets. A changed secret is reported only for an issuer, whose compiled keys can be
//! compared.

use crate::config::Loaded;
use crate::config::effective::Effective;
use crate::policy::Policy;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A changed setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct SettingChange {
    /// The key. Routes and issuers are identified by name, because their indexes may change.
    pub what: String,
    /// The old value as JSON. `None` if the key was not set.
    pub before: Option<String>,
    /// The new value as JSON. `None` if the key is not set.
    pub after: Option<String>,
}

/// A policy and its file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PolicyFile<'w> {
    /// The file.
    pub file: &'w Loaded,
    /// The compiled policy.
    pub policy: &'w Policy,
}

/// Returns the changed settings, ordered by key.
///
/// # Errors
///
/// Returns an error if a value cannot be serialized.
pub(crate) fn setting_changes(
    old: PolicyFile<'_>,
    new: PolicyFile<'_>,
) -> Result<Vec<SettingChange>, String> {
    let (before, after) = (keys(old.file)?, keys(new.file)?);
    let mut others = Vec::new();
    for table in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
        // A new or removed route or issuer is one change. The comparison of access shows its effects.
        let is_whole = table.starts_with("route ") || table.starts_with("issuer ");
        match (before.get(table), after.get(table)) {
            (Some(_), None) if is_whole => others.push(setting_change(table, Some("there"), None)),
            (None, Some(_)) if is_whole => others.push(setting_change(table, None, Some("there"))),
            (before, after) => {
                let none = BTreeMap::new();
                let (before, after) = (before.unwrap_or(&none), after.unwrap_or(&none));
                let keys = before.keys().chain(after.keys()).collect::<BTreeSet<_>>();
                let differ = keys.into_iter().filter(|key| before.get(*key) != after.get(*key));
                others.extend(differ.map(|key| {
                    let what = if table.is_empty() { key.clone() } else { format!("{table}: {key}") };
                    SettingChange { what, before: before.get(key).cloned(), after: after.get(key).cloned() }
                }));
            }
        }
    }
    let (before, after) = (masked_headers(old.file), masked_headers(new.file));
    for (key, value) in &after {
        if before.get(key).is_some_and(|known| known != value) {
            others.push(setting_change(key, Some("another value"), Some("this value")));
        }
    }
    for issuer in new.policy.trust.issuers().iter().filter(|issuer| !issuer.local) {
        let was = old.policy.trust.issuers().iter().find(|known| known.name == issuer.name);
        if was.is_some_and(|was| !was.keys.is_same(&issuer.keys)) {
            let what = format!("issuer {:?}: keys", issuer.name);
            others.push(setting_change(&what, Some("others"), Some("these")));
        }
    }
    Ok(others)
}

fn setting_change(what: &str, before: Option<&str>, after: Option<&str>) -> SettingChange {
    SettingChange {
        what: what.to_owned(),
        before: before.map(str::to_owned),
        after: after.map(str::to_owned),
    }
}

/// Returns the values of header fields that are masked in [`keys`], by their keys.
fn masked_headers(loaded: &Loaded) -> BTreeMap<String, &str> {
    let routes = loaded.file.route.iter().enumerate();
    let fields = routes.flat_map(|(index, route)| {
        route.masked_headers().map(move |(key, name, value)| {
            let (table, _) = named(loaded, &format!("route[{index}].{key}"));
            (format!("{table}: {key}.{name}"), value)
        })
    });
    fields.collect()
}

/// The values of keys, grouped by route or issuer. Other keys have an empty group name.
type Keys = BTreeMap<String, BTreeMap<String, String>>;

fn keys(loaded: &Loaded) -> Result<Keys, String> {
    let mut keys = Keys::new();
    for entry in Effective::of(loaded, false)?.entries {
        // Tests do not affect requests. The tables of a list are compared one by one.
        if !entry.key.starts_with("test[") && !matches!(&*entry.key, "test" | "issuer" | "route") {
            let (table, key) = named(loaded, &entry.key);
            keys.entry(table).or_default().insert(key, entry.value.to_string());
        }
    }
    Ok(keys)
}

/// Splits a key into its group and the rest: `route[3].upstream` into `route "orders"` and `upstream`.
fn named(loaded: &Loaded, key: &str) -> (String, String) {
    let numbered = |table: &str| {
        let (index, rest) = key.strip_prefix(table)?.strip_prefix('[')?.split_once("].")?;
        Some((index.parse::<usize>().ok()?, rest.to_owned()))
    };
    if let Some((index, rest)) = numbered("route")
        && let Some(route) = loaded.file.route.get(index)
    {
        let name = if route.name.is_empty() { &route.path } else { &route.name };
        return (format!("route {name:?}"), rest);
    }
    if let Some((index, rest)) = numbered("issuer")
        && let Some(issuer) = loaded.file.issuer.get(index)
    {
        return (format!("issuer {:?}", issuer.issuer), rest);
    }
    (String::new(), key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyring::MissingKey;

    const BASE: &str = r#"
        [[issuer]]
        issuer = "https://id.example.com/"
        audience = ["a"]
        algorithms = ["HS256"]
        secret = "0123456789abcdef0123456789abcdef"
        [rate_limit.login]
        rate = "10/m"
        [upstream.echo]
        builtin = "echo"
        [[route]]
        name = "a"
        path = "/a"
        upstream = "echo"
    "#;

    /// Returns the differences, one on each line.
    fn between(old: &str, new: &str) -> Vec<String> {
        let read = |text: &str| {
            let loaded = crate::config::load_text("gateway.toml", text.to_owned(), ".".into(), Vec::new());
            let loaded = loaded.unwrap();
            let policy = crate::policy::compile(&loaded, MissingKey::Ephemeral).unwrap().policy;
            (loaded, policy)
        };
        let (old, new) = (read(old), read(new));
        let written = |(file, policy)| PolicyFile { file, policy };
        let others = setting_changes(written((&old.0, &old.1)), written((&new.0, &new.1))).unwrap();
        let text = |other: SettingChange| {
            let side = |side: Option<String>| side.unwrap_or_else(|| "-".to_owned());
            format!("{} | {} | {}", other.what, side(other.before), side(other.after))
        };
        others.into_iter().map(text).collect()
    }

    #[test]
    fn each_key_with_a_different_value_is_reported() {
        let edit = |from: &str, to: &str| between(BASE, &BASE.replace(from, to));
        assert_eq!(edit("\"10/m\"", "\"20/m\""), ["rate_limit.login.rate | \"10/m\" | \"20/m\""]);
        assert_eq!(edit("rate =", "burst = 3\nrate ="), ["rate_limit.login.burst | - | 3"]);
        assert_eq!(
            edit("path = \"/a\"", "path = \"/a\"\nroles = [\"x\"]"),
            ["route \"a\": roles | - | [\"x\"]"]
        );
        assert_eq!(
            edit("[[route]]", "[identity]\nsubject = \"Remote-User\"\n[[route]]"),
            ["identity.subject | - | \"Remote-User\""]
        );
        assert!(edit("x", "x").is_empty());
    }

    #[test]
    fn a_route_is_known_by_its_name_wherever_it_stands() {
        let more = "[[route]]\nname = \"b\"\npath = \"/b\"\nupstream = \"echo\"\n[[route]]\nname = \"a\"";
        let found = between(BASE, &BASE.replace("[[route]]\n        name = \"a\"", more));
        assert_eq!(found, ["route \"b\" | - | there"]);
        let tested = format!(
            "{BASE}\n[[test]]\nname = \"t\"\nrequest = \"GET https://h/a\"\nexpect = {{ allow = false }}"
        );
        assert_eq!(between(BASE, &tested), [] as [&str; 0], "a test is no part of what is obeyed");
    }

    /// Lists of tables, by their dotted names.
    const LISTS: [&str; 4] = ["issuer", "route", "route.split", "tls.certificates"];

    /// Returns a file in which the table of a key has this entry only.
    fn file(key: &str, entry: &str) -> String {
        let (table, _) = key.rsplit_once('.').unwrap();
        let names: Vec<&str> = table.split('.').collect();
        let inner = (1..names.len()).rev().fold(format!("{{ {entry} }}"), |inner, depth| {
            let inner =
                if LISTS.contains(&&*names[..=depth].join(".")) { format!("[{inner}]") } else { inner };
            format!("{{ {} = {inner} }}", names[depth])
        });
        let inner = if LISTS.contains(&names[0]) { format!("[{inner}]") } else { inner };
        format!("{} = {inner}\n", names[0])
    }

    #[test]
    fn every_key_that_changes_is_reported() {
        let mut count = 0;
        for section in crate::explain::table_keys::REFERENCE.split("\n### `").skip(1) {
            let (key, text) = section.split_once('`').unwrap();
            if key.starts_with("test.") {
                continue;
            }
            let example = text.split("example `").nth(1).and_then(|rest| rest.split("`\n").next()).unwrap();
            let (_, name) = key.rsplit_once('.').unwrap();
            let read = |text: String| {
                let loaded = crate::config::load_text("gateway.toml", text.clone(), ".".into(), Vec::new());
                keys(&loaded.unwrap_or_else(|faults| panic!("{text}: {faults:#?}"))).unwrap()
            };
            let (without, with) = (read(file(key, "")), read(file(key, &format!("{name} = {example}"))));
            assert_ne!(without, with, "{key} = {example}");
            count += 1;
        }
        assert!(count > 250, "{count}");
    }

    #[test]
    fn a_changed_secret_is_reported_without_the_secret() {
        let found = between(BASE, &BASE.replace("0123456789abcdef0", "x123456789abcdef0"));
        assert_eq!(found, ["issuer \"https://id.example.com/\": keys | others | these"]);
    }
}
