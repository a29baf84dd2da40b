//! Generates the JSON Schema of gateway.toml for editors, from the types that read the file and from docs/reference.md.
//!
//! The schema covers keys and the forms of values. References and contradictions are checked only by `portcullis
//! check`. Unlike the gateway, the schema requires text to be in quotes.

use super::file::File;
use super::layer;
use super::network::{Cidr, Listen};
use super::secret::Secret;
use super::units::{ByteSize, Duration, Rate};
use super::values::{ClaimValues, Fresh, RoleLimit, TlsVersion, TokenSource};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The reference of all keys, written for operators.
const REFERENCE: &str = include_str!("../../docs/reference.md");

/// Returns the schema.
///
/// The schema uses draft 7, the newest draft that taplo fully supports. It does not use `$ref`, because draft 7 ignores
/// a description or default beside a `$ref`.
pub(crate) fn schema() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<File>().to_value();
    tidy(&mut schema);
    let described = Described::read(REFERENCE);
    described.annotate(&mut schema, "");
    schema["title"] = json!("gateway.toml");
    schema["description"] =
        json!("A policy of Portcullis. Every key has a default; docs/reference.md explains them.");
    schema
}

/// Adapts a JSON schema to TOML. Removes null, which TOML lacks. Replaces the formats `uint16` and `uint32` with a
/// maximum, and removes other formats. Replaces a `oneOf` of constants with an `enum`.
fn tidy(schema: &mut Value) {
    let Value::Object(object) = schema else { return };
    // The names in `properties` are keys of the policy. A key may have the name of a keyword, such as `format`.
    for (word, inner) in object.iter_mut() {
        match (word.as_str(), inner) {
            ("properties", Value::Object(properties)) => properties.values_mut().for_each(tidy),
            ("anyOf" | "oneOf", Value::Array(choices)) => choices.iter_mut().for_each(tidy),
            ("items" | "additionalProperties", inner) => tidy(inner),
            _ => {}
        }
    }
    if object.get("default").is_some_and(|default| default.is_null() || default.is_object()) {
        object.remove("default");
    }
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            object["type"] = only.clone();
        }
    }
    if let Some(Value::String(format)) = object.remove("format") {
        let most = match format.as_str() {
            "uint16" => Some(u64::from(u16::MAX)),
            "uint32" => Some(u64::from(u32::MAX)),
            _ => None,
        };
        object.extend(most.map(|most| ("maximum".to_owned(), most.into())));
    }
    without_null(object);
    words(object);
}

/// Replaces an `anyOf` of a schema and null with the schema.
fn without_null(object: &mut Map<String, Value>) {
    let Some(Value::Array(choices)) = object.get_mut("anyOf") else { return };
    choices.retain(|choice| choice.get("type") != Some(&json!("null")));
    if let [Value::Object(only)] = choices.as_slice() {
        let only = only.clone();
        object.remove("anyOf");
        for (name, value) in only {
            object.entry(name).or_insert(value);
        }
    }
}

/// Replaces a `oneOf` of constants with an `enum`, and moves the descriptions to taplo's extension.
fn words(object: &mut Map<String, Value>) {
    let Some(Value::Array(choices)) = object.get("oneOf") else { return };
    let word = |choice: &Value| Some((choice.get("const")?.clone(), choice.get("description")?.clone()));
    let Some(words) = choices.iter().map(word).collect::<Option<Vec<_>>>() else { return };
    let (words, meanings): (Vec<_>, Vec<_>) = words.into_iter().unzip();
    object.remove("oneOf");
    object.insert("type".to_owned(), json!("string"));
    object.insert("enum".to_owned(), words.into());
    object.insert("x-taplo".to_owned(), json!({ "docs": { "enumValues": meanings } }));
}

/// The descriptions of the reference.
struct Described<'r> {
    keys: BTreeMap<&'r str, Section<'r>>,
    /// The text of each table, by name.
    tables: BTreeMap<String, String>,
}

struct Section<'r> {
    /// The line that contains the type, the default and the example of the key.
    facts: &'r str,
    text: &'r str,
}

impl<'r> Described<'r> {
    fn read(reference: &'r str) -> Self {
        let mut described = Self { keys: BTreeMap::new(), tables: BTreeMap::new() };
        for section in reference.split("\n### `").skip(1) {
            let section = section.split("\n## ").next().unwrap_or(section);
            if let Some((name, rest)) = section.split_once('`') {
                let (facts, text) = rest.trim().split_once('\n').unwrap_or((rest.trim(), ""));
                described.keys.insert(name, Section { facts, text: text.trim() });
            }
        }
        for section in reference.split("\n## `[").skip(1) {
            let section = section.split("\n### ").next().unwrap_or(section);
            if let Some((name, rest)) = section.split_once("]`: ") {
                let name = name.trim_matches(['[', ']']).to_owned();
                let (title, text) = rest.trim().split_once('\n').unwrap_or((rest.trim(), ""));
                let mut chars = title.chars();
                let first = chars.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
                let text = format!("{first}{}.\n\n{}", chars.as_str(), text.trim());
                described.tables.insert(name, text.trim().to_owned());
            }
        }
        described
    }

    /// Adds descriptions and examples to the schema of a table and to everything in the table.
    fn annotate(&self, schema: &mut Value, name: &str) {
        let Value::Object(object) = schema else { return };
        let table = self.tables.get(name).or_else(|| self.tables.get(&format!("{name}.NAME")));
        if let Some(text) = table {
            object.insert("description".to_owned(), json!(text));
        }
        if let Some(Section { facts, text }) = self.keys.get(name) {
            object.insert("description".to_owned(), json!(text));
            if facts.contains(" · no default · ") {
                object.remove("default");
            }
            let example =
                facts.split(" · ").find_map(|fact| fact.strip_prefix("example `")?.strip_suffix('`'));
            let example = example.and_then(|text| serde_json::to_value(layer::of_variable(text).ok()?).ok());
            object.extend(example.map(|example| ("examples".to_owned(), json!([example]))));
            return;
        }
        if let Some(Value::Object(properties)) = object.get_mut("properties") {
            for (key, property) in properties {
                self.annotate(property, &if name.is_empty() { key.clone() } else { format!("{name}.{key}") });
            }
        }
        if let Some(items) = object.get_mut("items") {
            self.annotate(items, name);
        }
        let description = object.get("description").cloned();
        if let Some(named @ Value::Object(_)) = object.get_mut("additionalProperties") {
            // A table without a description inherits the enclosing table's description.
            if let Some(description) = description {
                named["description"] = description;
            }
            self.annotate(named, &format!("{name}.NAME"));
        }
    }
}

macro_rules! written_as {
    ($($type:ty: $schema:expr;)*) => {$(
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    )*};
}

// Each pattern accepts everything that the type's parser accepts. Operators see the patterns in editors. To stay
// readable, patterns do not bound numbers or check the structure of IPv6 addresses.
written_as! {
    Duration: json_schema!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$" });
    ByteSize: json_schema!({ "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB)$" });
    Rate: json_schema!({ "type": "string", "pattern": "^0*[1-9][0-9]*/[smhd]$" });
    Cidr: json_schema!({ "type": "string", "pattern": network() });
    Listen: json_schema!({
        "type": ["string", "array"],
        "pattern": address(),
        "items": { "type": "string", "pattern": address() },
    });
    Secret: json_schema!({ "type": "string", "pattern": SECRET });
    TlsVersion: json_schema!({ "type": "string", "enum": ["1.2", "1.3"] });
    RoleLimit: json_schema!({
        "type": ["integer", "string"],
        "minimum": 1,
        "pattern": r"^(all|\+?0*[1-9][0-9]*)$",
    });
    Fresh: json_schema!({
        "type": ["boolean", "string"],
        "pattern": "^(true|false|[0-9]+(ms|s|m|h|d))$",
    });
    ClaimValues: json_schema!({
        "type": ["string", "integer", "boolean", "array"],
        "items": { "type": ["string", "integer", "boolean"] },
    });
    TokenSource: json_schema!({
        "anyOf": [
            { "enum": ["header", "cookie", "query", "websocket", "api_key", "client_certificate"] },
            named("header", Some("prefix")),
            named("cookie", None),
            named("websocket", None),
            named("query", None),
        ],
    });
}

/// The pattern of a secret: `env:NAME`, `file:PATH`, or a literal that does not look like a reference in another
/// system's syntax.
const SECRET: &str = concat!(
    r"^(env:[A-Za-z0-9_.-]+|file:[\s\S]+|(?!",
    r"\s*([Ee][Nn][Vv]([Ii][Rr][Oo][Nn][Mm][Ee][Nn][Tt])?|[Ff][Ii][Ll][Ee]|[Pp][Aa][Tt][Hh])\s*:",
    r"|\s*\$[{(]*[A-Z0-9_]+[)}]*\s*$",
    r")[\s\S]+)$"
);

/// The pattern of one of the four numbers of an IPv4 address.
const OCTET: &str = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
/// The pattern of an IPv6 address. It checks only the characters and that there are at least two colons.
const V6: &str = "[0-9A-Fa-f]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*";

fn network() -> String {
    let v4 = format!(r"{OCTET}(\.{OCTET}){{3}}(/0*(3[0-2]|[12]?[0-9]))?");
    let v6 = format!("{V6}(/0*(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?");
    format!("^({v4}|{v6})$")
}

/// Returns the pattern of an address with a port, or of empty text.
fn address() -> String {
    let v6 = format!(r"\[{V6}(%[0-9]+)?\]");
    let port = "0*(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5]?[0-9]{1,4})";
    format!(r"^(({OCTET}(\.{OCTET}){{3}}|{v6}):{port})?$")
}

/// Returns the schema of a table with the required key `name` and, if given, the optional key `beside`.
fn named(name: &str, beside: Option<&str>) -> Value {
    let keys = std::iter::once(name).chain(beside);
    let properties: Map<String, Value> =
        keys.map(|key| (key.to_owned(), json!({ "type": "string" }))).collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": [name],
        "additionalProperties": false,
    })
}

#[cfg(test)]
mod tests;
