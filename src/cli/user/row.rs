//! Converts a line of a file of accounts to an account: maps columns to fields, and checks the values.

use super::password::check_against_name;
use crate::authority::{UserName, check_hash, prepare_new_password};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// Maximum size of an id, a role or a scope, in bytes.
const WORD_BYTES_MAX: usize = 128;
/// Maximum number of roles, and of scopes, per account.
const WORDS_MAX: usize = 1000;

/// The fields of an account, each with the column names that it may have.
pub(super) const FIELDS: [(&str, &[&str]); 8] = [
    ("id", &["id"]),
    ("name", &["name", "username"]),
    ("password", &["password"]),
    ("password_hash", &["password_hash"]),
    ("roles", &["roles"]),
    ("scopes", &["scopes", "scope"]),
    ("disabled", &["disabled"]),
    ("active", &["active", "is_active"]),
];

/// The mapping of account fields to columns of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Columns {
    /// The columns of the fields that `--map` sets.
    mapped: BTreeMap<&'static str, String>,
    /// The columns that become attributes.
    attributes: Vec<String>,
}

impl Columns {
    /// Parses `--map FIELD=COLUMN` and `--attribute COLUMN`.
    pub(super) fn parse(maps: &[String], attributes: &[String]) -> Result<Self, String> {
        let mut columns = Self { mapped: BTreeMap::new(), attributes: attributes.to_vec() };
        for map in maps {
            let names = FIELDS.map(|(field, _)| field).join(", ");
            let (field, column) =
                map.split_once('=').filter(|(_, column)| !column.is_empty()).ok_or_else(|| {
                    format!("--map {map:?}: expected FIELD=COLUMN, where FIELD is one of {names}")
                })?;
            // "username" is accepted as a field too, because it is a common column name.
            let known = FIELDS.iter().find(|(known, aliases)| *known == field || aliases.contains(&field));
            let (field, _) =
                known.ok_or_else(|| format!("--map {map:?}: unknown field; expected one of {names}"))?;
            if columns.mapped.insert(field, column.to_owned()).is_some() {
                return Err(format!("--map {map:?}: {field} is mapped twice"));
            }
        }
        Ok(columns)
    }

    /// Returns the column of a field, or `None` if the file has no such column.
    pub(super) fn of<'c>(&'c self, field: &str, is_there: impl Fn(&str) -> bool) -> Option<&'c str> {
        if let Some(column) = self.mapped.get(field) {
            return Some(column.as_str()).filter(|column| is_there(column));
        }
        let (_, aliases) = FIELDS.iter().find(|(known, _)| *known == field)?;
        aliases.iter().copied().find(|alias| is_there(alias))
    }

    /// Rejects a header without a required column.
    pub(super) fn check(&self, header: &[&str]) -> Result<(), String> {
        let is_there = |column: &str| header.contains(&column);
        let wanted = self.mapped.values().chain(&self.attributes);
        if let Some(missing) = wanted.into_iter().find(|column| !is_there(column)) {
            return Err(format!("no column {missing:?}; the columns are {}", header.join(", ")));
        }
        if self.of("name", is_there).is_none() {
            return Err(format!(
                "no column \"name\" or \"username\"; the columns are {}: pass --map name=COLUMN",
                header.join(", ")
            ));
        }
        Ok(())
    }

    /// Returns the columns that the import does not use.
    pub(super) fn ignored<'h>(&self, header: &[&'h str]) -> Vec<&'h str> {
        let is_there = |column: &str| header.contains(&column);
        let used: Vec<&str> = FIELDS.iter().filter_map(|(field, _)| self.of(field, is_there)).collect();
        let is_used = |column: &&str| used.contains(column) || self.attributes.iter().any(|a| a == column);
        header.iter().copied().filter(|column| !is_used(column)).collect()
    }
}

/// The password in a line.
pub(super) enum ImportedPassword {
    /// No password. The account cannot log in.
    None,
    /// A plain password, which must be hashed.
    Plain(Zeroizing<String>),
    Hash(String),
}

/// A valid line. Fields that are not in the line are `None`.
pub(super) struct Row {
    pub(super) name: UserName,
    pub(super) id: Option<String>,
    pub(super) secret: ImportedPassword,
    pub(super) roles: Option<Vec<String>>,
    pub(super) scopes: Option<Vec<String>>,
    pub(super) attributes: Map<String, Value>,
    pub(super) disabled: Option<bool>,
}

impl Row {
    /// Checks a line. `line` contains the values by column name: text from CSV, or any JSON type.
    pub(super) fn read(columns: &Columns, mut line: Map<String, Value>) -> Result<Self, String> {
        let take = |field: &str| {
            let column = columns.of(field, |column| line.contains_key(column))?.to_owned();
            line.get(&column).cloned().filter(|value| !value.is_null())
        };
        let name = text("name", take("name"))?.ok_or("no name")?;
        let name = UserName::parse(&name).map_err(|fault| format!("name: {fault}"))?;
        let id = match take("id") {
            Some(Value::Number(number)) => Some(number.to_string()),
            value => text("id", value)?,
        };
        if let Some(id) = &id {
            check_id(id)?;
        }
        let secret = imported_password(
            &name,
            text("password", take("password"))?,
            text("hash", take("password_hash"))?,
        )?;
        let roles = list("roles", take("roles"))?;
        check_roles(roles.as_deref().unwrap_or_default())?;
        let scopes = list("scopes", take("scopes"))?;
        check_scopes(scopes.as_deref().unwrap_or_default())?;
        let disabled = match (boolean("disabled", take("disabled"))?, boolean("active", take("active"))?) {
            (Some(disabled), None) => Some(disabled),
            (None, Some(active)) => Some(!active),
            (None, None) => None,
            (Some(_), Some(_)) => return Err("has both disabled and active; keep one".to_owned()),
        };
        let mut attributes = match line.remove("attributes") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(attributes)) => attributes,
            // In CSV, the attributes are text.
            Some(Value::String(text)) if text.is_empty() => Map::new(),
            Some(Value::String(text)) => {
                serde_json::from_str(&text).map_err(|_| "attributes: expected a JSON object")?
            }
            Some(_) => return Err("attributes: expected a JSON object".to_owned()),
        };
        for column in &columns.attributes {
            if let Some(value) = line.get(column).filter(|value| !value.is_null()) {
                attributes.insert(column.clone(), value.clone());
            }
        }
        Ok(Self { name, id, secret, roles, scopes, attributes, disabled })
    }
}

fn imported_password(
    name: &UserName,
    password: Option<String>,
    hash: Option<String>,
) -> Result<ImportedPassword, String> {
    match (password.map(Zeroizing::new), hash) {
        (None, None) => Ok(ImportedPassword::None),
        (Some(_), Some(_)) => Err("has both a password and a password hash; keep one".to_owned()),
        (None, Some(hash)) => {
            check_hash(&hash).map_err(|fault| fault.to_string())?;
            Ok(ImportedPassword::Hash(hash))
        }
        (Some(password), None) => {
            // Reject a hash in the password column. If a column of hashes had the wrong name, the hashes would be
            // imported as plain passwords.
            if check_hash(&password).is_ok() {
                return Err("the password is a hash: name its column password_hash, or pass \
                            --map password_hash=password"
                    .to_owned());
            }
            let password = prepare_new_password(&password).map_err(|fault| fault.to_string())?;
            check_against_name(&password, name.as_str())?;
            Ok(ImportedPassword::Plain(password))
        }
    }
}

/// Reads text. An empty cell counts as missing.
fn text(what: &str, value: Option<Value>) -> Result<Option<String>, String> {
    match value {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
        Some(_) => Err(format!("{what}: expected text")),
    }
}

/// Reads a list of words: a JSON list, or text with commas or semicolons between the words. An empty cell is an empty
/// list.
fn list(what: &str, value: Option<Value>) -> Result<Option<Vec<String>>, String> {
    let is_list = || format!("{what}: expected a list of texts");
    let value = match value {
        Some(Value::String(text)) if text.trim_start().starts_with('[') => {
            Some(serde_json::from_str(&text).map_err(|_| is_list())?)
        }
        value => value,
    };
    match value {
        None => Ok(None),
        Some(Value::String(text)) => {
            let words = text.split([',', ';']).map(str::trim).filter(|word| !word.is_empty());
            Ok(Some(words.map(str::to_owned).collect()))
        }
        Some(Value::Array(values)) => {
            let word = |value| if let Value::String(word) = value { Some(word) } else { None };
            values.into_iter().map(word).collect::<Option<_>>().map(Some).ok_or_else(is_list)
        }
        Some(_) => Err(is_list()),
    }
}

/// Reads a boolean as databases export it.
fn boolean(what: &str, value: Option<Value>) -> Result<Option<bool>, String> {
    let fault = || format!("{what}: expected true or false");
    match value {
        None => Ok(None),
        Some(Value::Bool(truth)) => Ok(Some(truth)),
        Some(Value::Number(number)) => match number.as_u64() {
            Some(0) => Ok(Some(false)),
            Some(1) => Ok(Some(true)),
            _ => Err(fault()),
        },
        Some(Value::String(text)) => match text.to_ascii_lowercase().as_str() {
            "" => Ok(None),
            "1" | "true" | "t" | "yes" | "y" => Ok(Some(true)),
            "0" | "false" | "f" | "no" | "n" => Ok(Some(false)),
            _ => Err(fault()),
        },
        Some(_) => Err(fault()),
    }
}

/// Rejects an id that is not safe in `sub`, in logs or in header fields.
pub(super) fn check_id(id: &str) -> Result<(), String> {
    check_word("id", id)
}

/// Rejects invalid roles. Services receive roles joined by commas, so they would read a role with a comma as two roles.
pub(super) fn check_roles(roles: &[String]) -> Result<(), String> {
    for role in roles {
        check_word("role", role)?;
        if role.contains([',', ';']) {
            return Err(format!("role {role:?}: a role cannot contain a comma or a semicolon"));
        }
    }
    check_list("roles", roles)
}

/// Rejects scopes that RFC 6749 section 3.3 does not allow.
pub(super) fn check_scopes(scopes: &[String]) -> Result<(), String> {
    for scope in scopes {
        check_word("scope", scope)?;
        if !scope.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\') {
            return Err(format!(
                "scope {scope:?}: a scope consists of visible ASCII without quotes and backslashes"
            ));
        }
    }
    check_list("scopes", scopes)
}

fn check_word(what: &str, word: &str) -> Result<(), String> {
    if word.is_empty() {
        return Err(format!("an empty {what}"));
    }
    if word.len() > WORD_BYTES_MAX {
        return Err(format!("{what}: {} bytes; the maximum is {WORD_BYTES_MAX}", word.len()));
    }
    match word.chars().find(|c| c.is_control() || c.is_whitespace()) {
        Some(c) => {
            Err(format!("{what} {word:?}: contains U+{:04X}, a space or control character", u32::from(c)))
        }
        None => Ok(()),
    }
}

fn check_list(what: &str, words: &[String]) -> Result<(), String> {
    if words.len() > WORDS_MAX {
        return Err(format!("{} {what}; the maximum is {WORDS_MAX}", words.len()));
    }
    let twice = words.iter().enumerate().find(|(at, word)| words[..*at].contains(word));
    twice.map_or(Ok(()), |(_, word)| Err(format!("{what}: {word:?} appears twice")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const HASH: &str = "pbkdf2:sha1:1000$QeyySzfZhVhEOZWv$330d9a969e2adcf7e0e378f92ec45c174cabe1fa";

    fn read(columns: &Columns, line: Value) -> Result<Row, String> {
        let Value::Object(line) = line else { panic!("an object") };
        Row::read(columns, line)
    }

    fn fault(line: Value) -> String {
        read(&Columns::default(), line).err().expect("a faulty line")
    }

    #[test]
    fn the_columns_of_a_flask_application_are_understood() {
        let columns = Columns::parse(&["username=email".to_owned()], &["tenant".to_owned()]).unwrap();
        let row = read(
            &columns,
            json!({ "id": "17", "email": "Alice@Example.com", "password_hash": HASH, "roles": "admin; editor",
                    "active": "1", "tenant": "acme", "fs_uniquifier": "x" }),
        );
        let row = row.unwrap_or_else(|fault| panic!("{fault}"));
        assert_eq!(row.name.as_str(), "alice@example.com");
        assert_eq!(row.id.as_deref(), Some("17"));
        assert!(matches!(row.secret, ImportedPassword::Hash(_)));
        assert_eq!(row.roles, Some(vec!["admin".to_owned(), "editor".to_owned()]));
        assert_eq!(row.disabled, Some(false));
        assert_eq!(Value::Object(row.attributes), json!({ "tenant": "acme" }));
    }

    #[test]
    fn json_keeps_types_and_null_is_nothing() {
        let row = read(
            &Columns::default(),
            json!({ "id": 17, "name": "bob", "roles": ["a", "b"], "disabled": true, "password": null,
                    "attributes": { "level": 3 } }),
        );
        let row = row.unwrap_or_else(|fault| panic!("{fault}"));
        assert_eq!(row.id.as_deref(), Some("17"));
        assert!(matches!(row.secret, ImportedPassword::None));
        assert_eq!(row.roles, Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(row.disabled, Some(true));
        assert_eq!(Value::Object(row.attributes), json!({ "level": 3 }));
        assert_eq!(read(&Columns::default(), json!({ "name": "bob" })).map(|row| row.roles), Ok(None));
    }

    #[test]
    fn every_fault_says_what_is_wrong() {
        for (line, says) in [
            (json!({}), "no name"),
            (json!({ "name": "" }), "no name"),
            (json!({ "name": 3 }), "name: expected text"),
            (json!({ "name": "a b" }), "name: U+0020"),
            (json!({ "name": "a", "id": "a b" }), "id \"a b\": contains U+0020"),
            (json!({ "name": "a", "password": "short" }), "5 characters"),
            (json!({ "name": "margarethe", "password": "Margarethe" }), "is the user name"),
            (json!({ "name": "a", "password": HASH }), "password_hash"),
            (json!({ "name": "a", "password_hash": "hunter22" }), "unknown kind"),
            (json!({ "name": "a", "password": "long enough", "password_hash": HASH }), "both"),
            (json!({ "name": "a", "roles": [1] }), "roles: expected a list of texts"),
            (json!({ "name": "a", "roles": ["a,b"] }), "cannot contain a comma"),
            (json!({ "name": "a", "roles": "x,x" }), "twice"),
            (json!({ "name": "a", "scopes": ["\u{e4}"] }), "visible ASCII"),
            (json!({ "name": "a", "disabled": "maybe" }), "disabled: expected true or false"),
            (json!({ "name": "a", "disabled": true, "active": true }), "both disabled and active"),
            (json!({ "name": "a", "attributes": [1] }), "attributes: expected a JSON object"),
        ] {
            let why = fault(line.clone());
            assert!(why.contains(says), "{line}: {why}");
            assert!(!why.contains(HASH), "{why}");
        }
    }

    #[test]
    fn missing_columns_and_maps_without_effect_are_reported() {
        let parse = |maps: &[&str]| {
            let maps: Vec<String> = maps.iter().map(ToString::to_string).collect();
            Columns::parse(&maps, &[])
        };
        for bad in [&["name"][..], &["name="], &["nom=email"], &["name=a", "username=b"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        let columns = parse(&["name=email"]).unwrap();
        assert!(columns.check(&["id", "email"]).is_ok());
        assert!(columns.check(&["id", "name"]).is_err());
        assert!(Columns::default().check(&["id", "email"]).unwrap_err().contains("--map name=COLUMN"));
        assert_eq!(columns.ignored(&["id", "email", "created_on"]), ["created_on"]);
    }
}
