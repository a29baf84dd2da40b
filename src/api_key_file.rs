//! Reads and writes the file of API keys in the state folder, `api-keys.json`. The file contains the SHA-256 of each
//! key, never the key itself. `portcullis apikey` changes the file, and running gateways apply the changes.
//!
//! The file is replaced atomically. Writers hold a lock, so two concurrent commands lose no key. Readers need no lock.

use crate::authenticate::{ApiKeyFacts, ApiKeys, Digest, digest_of, generate_api_key, hint_of};
use crate::config::stable_file;
use crate::config::units::ByteSize;
use crate::hex;
use crate::state_dir::{self, Lock, LockFault, replace};
use crate::timestamp::{parse_rfc3339, rfc3339};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

const FILE_MAX: ByteSize = ByteSize::bytes(16 << 20);
const KEYS_MAX: usize = 10_000;
/// Maximum length of a name, in bytes.
const NAME_MAX: usize = 64;
/// Maximum number of roles, and of scopes, per key.
const GRANTS_MAX: usize = 512;
/// Maximum time that a command waits for another command.
const PATIENCE: Duration = Duration::from_secs(10);

/// The file of API keys in a state folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeyFile {
    state: PathBuf,
}

/// The properties of a new key.
#[derive(Clone, Debug, Default)]
pub struct NewApiKey {
    /// The name.
    pub name: String,
    /// The roles.
    pub roles: Vec<String>,
    /// The scopes.
    pub scopes: Vec<String>,
    /// The other claims.
    pub claims: Map<String, Value>,
    /// The time at which the key expires, in seconds since 1970. `None` if the key does not expire.
    pub expires: Option<u64>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    keys: Vec<Row>,
}

/// A key in the file.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    hash: String,
    hint: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    roles: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    scopes: Vec<String>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    claims: Map<String, Value>,
    created: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
}

/// The version of the file format.
const VERSION: u32 = 1;

impl ApiKeyFile {
    /// Returns the file in this state folder.
    pub fn in_folder(state: &Path) -> Self {
        Self { state: state.to_owned() }
    }

    /// Returns the path of the file.
    pub fn path(&self) -> PathBuf {
        self.state.join("api-keys.json")
    }

    fn used_path(&self) -> PathBuf {
        self.state.join("api-keys-used.json")
    }

    /// Reads the keys. If the file does not exist, there are no keys.
    ///
    /// # Errors
    /// Returns the fault of the file, for the operator.
    pub fn read(&self) -> Result<Vec<ApiKeyFacts>, String> {
        let path = self.path();
        let fault = |why: String| format!("{}: {why}", path.display());
        if std::fs::metadata(&path).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            return Ok(Vec::new());
        }
        let bytes = stable_file::read(&path, FILE_MAX).map_err(|why| fault(why.to_string()))?;
        parse(&bytes).map_err(fault)
    }

    /// Creates a key and returns it. The key itself is stored nowhere.
    ///
    /// # Errors
    /// Returns a sentence for the operator, for example if a key with this name exists.
    pub fn create(&self, new: NewApiKey, now: u64) -> Result<Zeroizing<String>, String> {
        let _lock = self.lock()?;
        let mut keys = self.read()?;
        if keys.iter().any(|known| *known.name == *new.name) {
            return Err(format!(
                "there is an API key {:?} already: revoke it, or use another name",
                new.name
            ));
        }
        let key = generate_api_key()?;
        let row = Row {
            name: new.name,
            hash: written_hash(&digest_of(&*key)),
            hint: hint_of(&key).to_owned(),
            roles: new.roles,
            scopes: new.scopes,
            claims: new.claims,
            created: rfc3339(now),
            expires: new.expires.map(rfc3339),
        };
        keys.push(facts(row)?);
        self.write(&keys)?;
        Ok(key)
    }

    /// Revokes a key. Returns false if there is no key with this name.
    ///
    /// # Errors
    /// Returns a sentence for the operator.
    pub fn revoke(&self, name: &str) -> Result<bool, String> {
        let _lock = self.lock()?;
        let mut keys = self.read()?;
        let before = keys.len();
        keys.retain(|known| *known.name != *name);
        if keys.len() == before {
            return Ok(false);
        }
        self.write(&keys)?;
        Ok(true)
    }

    fn write(&self, keys: &[ApiKeyFacts]) -> Result<(), String> {
        let content = Content { version: VERSION, keys: keys.iter().map(row).collect() };
        let text = serde_json::to_vec_pretty(&content).map_err(|error| error.to_string())?;
        // Parse the text before it replaces the file. A gateway cannot start with a file that it cannot parse.
        parse(&text)?;
        replace(&self.path(), &text)
    }

    /// Returns the time at which gateways last accepted each key, by the hash of the key.
    pub fn last_used(&self) -> BTreeMap<String, u64> {
        let read = stable_file::read(&self.used_path(), FILE_MAX).ok();
        let known: Option<BTreeMap<String, String>> =
            read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let known = known.unwrap_or_default().into_iter();
        known.filter_map(|(hash, used)| Some((hash, parse_rfc3339(&used)?))).collect()
    }

    /// Writes the time at which each key was last accepted, if a time has changed. Keeps later times from other
    /// gateways that share the folder.
    ///
    /// # Errors
    /// Returns a sentence for the operator.
    pub(crate) fn note_used(&self, keys: &ApiKeys) -> Result<(), String> {
        if keys.iter().all(|key| key.last_used().is_none()) {
            return Ok(());
        }
        let known = self.last_used();
        let mut used = BTreeMap::new();
        for key in keys.iter() {
            let hash = written_hash(&key.facts().digest);
            let time = key.last_used().max(known.get(&hash).copied());
            used.extend(time.map(|time| (hash, time)));
        }
        if used == known {
            return Ok(());
        }
        let written: BTreeMap<_, _> = used.into_iter().map(|(hash, time)| (hash, rfc3339(time))).collect();
        let text = serde_json::to_vec_pretty(&written).map_err(|error| error.to_string())?;
        replace(&self.used_path(), &text)
    }

    fn lock(&self) -> Result<Lock, String> {
        let path = self.state.join("api-keys.lock");
        state_dir::lock(&path, PATIENCE).map_err(|fault| match fault {
            LockFault::Held => "another command is changing the API keys: try again".to_owned(),
            LockFault::Io(error) => format!("{}: {error}", path.display()),
        })
    }
}

/// Returns the hash of a key as it is written in the file.
pub fn written_hash(digest: &Digest) -> String {
    format!("sha256:{}", hex::text(digest))
}

fn read_hash(text: &str) -> Option<Digest> {
    hex::read(&text.strip_prefix("sha256:")?.to_ascii_lowercase())
}

/// Parses the content of the file.
///
/// # Errors
/// Returns the fault of the file. One invalid key makes the whole file invalid, because the operator would not notice
/// an ignored key.
pub fn parse(bytes: &[u8]) -> Result<Vec<ApiKeyFacts>, String> {
    let content: Content = serde_json::from_slice(bytes).map_err(|error| format!("not API keys: {error}"))?;
    if content.version != VERSION {
        return Err(format!("version {}: this gateway reads version {VERSION}", content.version));
    }
    if content.keys.len() > KEYS_MAX {
        return Err(format!("{} keys: at most {KEYS_MAX} are possible", content.keys.len()));
    }
    let keys = content.keys.into_iter().map(facts).collect::<Result<Vec<_>, _>>()?;
    let (mut names, mut digests) = (HashSet::new(), HashSet::new());
    for key in &keys {
        if !names.insert(&key.name) {
            return Err(format!("two keys are named {:?}", key.name));
        }
        if !digests.insert(&key.digest) {
            return Err(format!("the key {:?} is listed twice, under different names", key.name));
        }
    }
    Ok(keys)
}

fn facts(row: Row) -> Result<ApiKeyFacts, String> {
    let name = row.name;
    let fault = |why: &str| format!("API key {name:?}: {why}");
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(is_plain) {
        return Err(fault("a name has 1 to 64 letters, digits, '-', '_' and '.'"));
    }
    let digest =
        read_hash(&row.hash).ok_or_else(|| fault("the hash is not sha256: and 64 hexadecimal digits"))?;
    for (what, names) in [("roles", &row.roles), ("scopes", &row.scopes)] {
        if names.len() > GRANTS_MAX {
            return Err(fault(&format!("more than {GRANTS_MAX} {what}")));
        }
        let is_bad = |name: &String| name.is_empty() || name.chars().any(|c| c.is_control());
        if names.iter().any(is_bad)
            || what == "scopes" && names.iter().any(|name| name.contains(char::is_whitespace))
        {
            return Err(fault(&format!("{what} contain an empty name or white space")));
        }
    }
    if let Some(reserved) = ["iss", "sub"].iter().find(|claim| row.claims.contains_key(**claim)) {
        return Err(fault(&format!("the claim {reserved} is set by the gateway")));
    }
    let time = |text: &str| {
        parse_rfc3339(text).ok_or_else(|| fault("a time is not of the form 2026-01-31T23:59:59Z"))
    };
    Ok(ApiKeyFacts {
        digest,
        hint: row.hint.into(),
        roles: row.roles.into_iter().map(Into::into).collect(),
        scopes: row.scopes.into_iter().map(Into::into).collect(),
        claims: row.claims,
        created: time(&row.created)?,
        expires: row.expires.as_deref().map(time).transpose()?,
        name: name.into(),
    })
}

fn row(key: &ApiKeyFacts) -> Row {
    let texts = |names: &[Box<str>]| names.iter().map(|name| name.to_string()).collect();
    Row {
        name: key.name.to_string(),
        hash: written_hash(&key.digest),
        hint: key.hint.to_string(),
        roles: texts(&key.roles),
        scopes: texts(&key.scopes),
        claims: key.claims.clone(),
        created: rfc3339(key.created),
        expires: key.expires.map(rfc3339),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(rows: &str) -> Result<Vec<ApiKeyFacts>, String> {
        parse(format!(r#"{{"version":1,"keys":[{rows}]}}"#).as_bytes())
    }

    fn row_of(name: &str, digit: char, more: &str) -> String {
        let hash: String = std::iter::repeat_n(digit, 64).collect();
        format!(
            r#"{{"name":"{name}","hash":"sha256:{hash}","hint":"pck_","created":"2026-01-31T23:59:59Z"{more}}}"#
        )
    }

    #[test]
    fn a_file_with_a_mistake_has_no_keys_and_the_mistake_is_named() {
        let good = row_of(
            "a",
            '0',
            r#","roles":["r"],"scopes":["s"],"claims":{"t":1},"expires":"2027-01-01T00:00:00Z""#,
        );
        assert_eq!(file(&good).map(|keys| keys.len()), Ok(1));
        assert_eq!(file("").map(|keys| keys.len()), Ok(0));
        for (rows, found) in [
            (row_of("", '0', ""), "a name has"),
            (row_of("a b", '0', ""), "a name has"),
            (row_of("a", 'g', ""), "the hash"),
            (row_of("a", '0', r#","roles":[""]"#), "roles contain"),
            (row_of("a", '0', r#","scopes":["a b"]"#), "scopes contain"),
            (row_of("a", '0', r#","claims":{"sub":"root"}"#), "the claim sub"),
            (row_of("a", '0', r#","expires":"soon""#), "a time"),
            (row_of("a", '0', r#","admin":true"#), "unknown field"),
            (format!("{},{}", row_of("a", '0', ""), row_of("a", '1', "")), "two keys are named"),
            (format!("{},{}", row_of("a", '0', ""), row_of("b", '0', "")), "listed twice"),
        ] {
            let why = file(&rows).unwrap_err();
            assert!(why.contains(found), "{rows}: {why}");
        }
        assert!(parse(br#"{"version":2,"keys":[]}"#).unwrap_err().contains("version 2"));
    }

    proptest! {
        #[test]
        fn a_written_value_parses_to_the_same_value(
            name in "[A-Za-z0-9._-]{1,64}",
            digest: [u8; 32],
            roles in proptest::collection::vec("\\PC{1,8}", 0..4),
            created in 0..253_402_300_799_u64,
            expires in proptest::option::of(0..253_402_300_799_u64),
        ) {
            let key = ApiKeyFacts {
                name: name.into(),
                digest,
                hint: "pck_abcd".into(),
                roles: roles.into_iter().map(Into::into).collect(),
                scopes: Box::new([]),
                claims: Map::new(),
                created,
                expires,
            };
            let content = Content { version: VERSION, keys: vec![row(&key)] };
            prop_assert_eq!(parse(&serde_json::to_vec(&content).unwrap()), Ok(vec![key]));
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(0_u8.., 0..80)) {
            let _ = parse(&bytes);
        }
    }
}
