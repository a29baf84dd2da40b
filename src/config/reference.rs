//! Tests that docs/reference.md describes every key of the file, with the actual default and a valid example.

use super::effective::with_every_table;
use super::file::File;
use super::load_text;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;

const REFERENCE: &str = include_str!("../../docs/reference.md");
/// A key that no table contains and that is not similar to any known key.
const PROBE: &str = "zzzzzzzzzzzzzzzzzzzz";

/// The name of a key in the reference, and a file with the placeholder `@` in the key's place.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    name: String,
    key: String,
    around: String,
}

fn load(text: &str) -> Result<File, Vec<String>> {
    let loaded = load_text("gateway.toml", text.to_owned(), PathBuf::new(), Vec::new());
    loaded.map(|loaded| loaded.file).map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

/// Returns the keys that are known at the placeholder of `around`. The keys are read from the hint for an unknown key.
/// Returns no keys if the placeholder is not in a table.
fn known(around: &str) -> Vec<String> {
    let text = around.replace('@', &format!("{PROBE} = 1"));
    let faults = load_text("gateway.toml", text, PathBuf::new(), Vec::new()).err().unwrap_or_default();
    let unknown = faults.iter().find(|fault| fault.id == "unknown_key" && fault.key.ends_with(PROBE));
    let keys = unknown.and_then(|fault| fault.hint.strip_prefix("known keys: "));
    keys.into_iter().flat_map(|keys| keys.split(", ")).map(str::to_owned).collect()
}

/// Collects every key of the table at the placeholder, and of all tables below it.
fn keys(around: &str, name: &str, found: &mut BTreeSet<Key>) {
    for key in known(around) {
        let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
        let shapes = [
            (format!("{key} = {{ @ }}"), name.clone()),
            (format!("{key} = [{{ @ }}]"), name.clone()),
            (format!("{key} = {{ NAME = {{ @ }} }}"), format!("{name}.NAME")),
        ];
        let shapes = shapes.map(|(shape, name)| (around.replace('@', &shape), name));
        match shapes.iter().find(|(inner, _)| !known(inner).is_empty()) {
            Some((inner, name)) => keys(inner, name, found),
            None => drop(found.insert(Key { name, key, around: around.to_owned() })),
        }
    }
}

fn all_keys() -> BTreeSet<Key> {
    let mut found = BTreeSet::new();
    keys("@", "", &mut found);
    assert!(found.len() > 60, "the tables list their keys: {found:#?}");
    found
}

/// Returns the headings of the reference, each with the line of facts below it.
fn described() -> Vec<(&'static str, &'static str)> {
    let sections = REFERENCE.split("\n### `").skip(1);
    sections
        .map(|section| {
            let (name, rest) = section.split_once('`').expect("a heading names one key");
            (name, rest.trim_start().lines().next().expect("a line of facts"))
        })
        .collect()
}

/// Returns the text in backticks after this word in a line of facts.
fn fact<'f>(facts: &'f str, word: &str) -> Option<&'f str> {
    facts.split(" · ").find_map(|fact| fact.strip_prefix(word)?.strip_prefix(" `")?.strip_suffix('`'))
}

#[test]
fn the_reference_names_every_key_and_no_other() {
    let known: BTreeSet<String> = all_keys().into_iter().map(|key| key.name).collect();
    let described: Vec<&str> = described().into_iter().map(|(name, _)| name).collect();
    let unique: BTreeSet<String> = described.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(described.len(), unique.len(), "a key is described twice");
    assert_eq!(known, unique);
}

#[test]
fn the_defaults_of_the_reference_are_the_defaults() {
    for Key { name, key, around } in all_keys() {
        let (_, facts) = *described().iter().find(|(known, _)| *known == name).expect("described");
        let absent = load(&around.replace('@', "")).expect("every key has a default");
        match fact(facts, "default") {
            Some(default) => {
                let written = load(&around.replace('@', &format!("{key} = {default}")));
                assert_eq!(written.as_ref(), Ok(&absent), "{name} = {default}");
            }
            None => assert!(facts.contains(" · no default · "), "{name}: {facts}"),
        }
    }
}

/// Tables without a place in the list of defaults would look changed in `config show`, and new keys in them would change
/// the digests of policies.
#[test]
fn the_list_of_defaults_has_every_table() {
    let defaults = serde_json::to_value(with_every_table()).unwrap();
    for Key { name, .. } in all_keys() {
        let Some((table, _)) = name.rsplit_once('.') else { continue };
        let found = table.split('.').try_fold(&defaults, |table, part| {
            let inner = table.get(part)?;
            Some(if inner.is_array() { &inner[0] } else { inner })
        });
        assert!(found.is_some_and(Value::is_object), "{table}");
    }
}

#[test]
fn the_examples_of_the_reference_are_read_and_change_something() {
    for Key { name, key, around } in all_keys() {
        let (_, facts) = *described().iter().find(|(known, _)| *known == name).expect("described");
        let example = fact(facts, "example").unwrap_or_else(|| panic!("{name} has an example"));
        let written = load(&around.replace('@', &format!("{key} = {example}")));
        let absent = load(&around.replace('@', ""));
        assert!(written.is_ok(), "{name} = {example}: {written:?}");
        assert_ne!(written, absent, "{name} = {example}");
    }
}

/// Collects the names of the keys whose values are words.
fn enumerations(schema: &Value, name: &str, found: &mut BTreeSet<String>) {
    if schema.get("enum").is_some() && schema.get("type") == Some(&"string".into()) {
        found.insert(name.to_owned());
    }
    for (key, inner) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        enumerations(inner, &if name.is_empty() { key.clone() } else { format!("{name}.{key}") }, found);
    }
    for (word, name) in [("items", name.to_owned()), ("additionalProperties", format!("{name}.NAME"))] {
        if let Some(inner) = schema.get(word) {
            enumerations(inner, &name, found);
        }
    }
}

#[test]
fn a_word_is_not_read_from_its_position() {
    let mut words = BTreeSet::new();
    enumerations(&super::schema::schema(), "", &mut words);
    assert!(words.contains("route.mode") && words.len() > 10, "{words:?}");
    for Key { name, key, around } in all_keys().into_iter().filter(|key| words.contains(&key.name)) {
        for value in ["0", "1", "true", "{}", "[]"] {
            let read = load(&around.replace('@', &format!("{key} = {value}")));
            assert!(read.is_err(), "{name} = {value}");
        }
    }
}

#[test]
fn the_shipped_policy_is_read() {
    let shipped = include_str!("../../gateway.toml");
    let file = load(shipped).expect("gateway.toml has no fault");
    let policy = shipped.split("[[test]]").next().unwrap_or_default();
    assert!(policy.lines().count() < 130, "it is to be read in one go");
    assert!(file.server.https.addresses()[0].ip().is_loopback());
}
