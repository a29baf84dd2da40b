//! The digest of a policy, by which operators see whether all gateways of a fleet enforce the same policy.
//!
//! The digest covers each key whose value differs from its default, after the environment's overrides. A key that a
//! later version adds therefore changes no digest until a policy sets it. Settings of one machine are left out: see
//! [`OWN`]. Of a secret, the digest covers only whether it is set. Of a file with public keys, it covers the content and
//! not the path.

use super::Loaded;
use super::effective::{with_every_table, without_optional_tables};
use super::file::File;
use super::stable_file;
use super::units::ByteSize;
use crate::hex;
use aws_lc_rs::digest::{Context, SHA256, digest};
use serde_json::{Map, Value};
use std::fmt;
use std::path::Path;

/// Keys and tables that are left out: the settings of one machine, and those that decide no request.
const OWN: [&str; 21] = [
    "policy.version",
    "policy.tests",
    "policy.decisions",
    "policy.waive",
    "server.https",
    "server.http",
    "server.admin",
    "server.admin_hosts",
    "server.workers",
    "server.drain_delay",
    "server.drain",
    "server.reload",
    "tls.certificate",
    "tls.key",
    "tls.ocsp",
    "tls.certificates",
    "tls.acme",
    "authority.store",
    "upstream.NAME.tls.certificate",
    "upstream.NAME.tls.key",
    "route.waive",
];
/// Tables that are left out.
const OWN_TABLES: [&str; 3] = ["log", "state", "test"];
/// Keys of which only the presence is covered: secrets, and files that the gateway follows without a reload.
const PRESENCE: [&str; 18] = [
    // The content of public keys is added separately, because a key in the policy itself is masked.
    "issuer.public_key",
    "issuer.secret",
    "issuer.introspection.secret",
    "authority.secret",
    "authority.signing_keys_secret",
    "authority.other_signing_keys_secret",
    "authority.client.NAME.secret",
    "upstream.NAME.identity_secret",
    "signals.NAME.push_secret",
    "signals.NAME.poll_secret",
    "shared.password",
    "shared.sentinel_password",
    "shared.keys_secret",
    "shared.other_keys_secret",
    "dpop.nonce_secret",
    "dpop.previous_nonce_secret",
    "client_certificates.NAME.ca",
    "client_certificates.NAME.crl",
];
/// Keys that name a file whose content is covered in place of its path. A URL is covered as it is written.
const CONTENT: [&str; 6] =
    ["issuer.jwks", "issuer.ca", "shared.ca", "upstream.NAME.ca", "signals.NAME.jwks", "signals.NAME.ca"];
/// The placeholder for the name of a table, as in the reference.
const NAME: &str = "NAME";
/// Maximum size of a file whose content is covered. The compiler rejects larger files.
const FILE_MAX: ByteSize = ByteSize::bytes(16 << 20);

/// The digest of a policy: the first 128 bits of a SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyDigest([u8; 16]);

impl fmt::Display for PolicyDigest {
    /// Writes 32 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::text(&self.0))
    }
}

impl PolicyDigest {
    /// Returns the digest of a policy. Reads the files of `CONTENT` again.
    pub fn of(loaded: &Loaded) -> Self {
        let value = |file: &File| serde_json::to_value(file).expect("the names of all keys are text");
        let (written, defaults) = (value(&loaded.file), value(&with_every_table()));
        let plain = value(&without_optional_tables());
        let mut walk = Walk { loaded, hash: Context::new(&SHA256) };
        if let Some(kept) = walk.kept(&written, "", Some(&defaults), Some(&plain)) {
            walk.feed(&kept);
        }
        for key in loaded.file.issuer.iter().filter_map(|issuer| issuer.public_key.as_ref()) {
            walk.feed(&key.resolve(&loaded.base).map_or(Value::Null, |bytes| text_of(&bytes)));
        }
        let mut out = [0; 16];
        out.copy_from_slice(&walk.hash.finish().as_ref()[..16]);
        Self(out)
    }
}

struct Walk<'l> {
    loaded: &'l Loaded,
    hash: Context,
}

impl Walk<'_> {
    /// Returns the covered part of a value, or `None` if the digest does not cover the value. `defaults` has every
    /// optional table, and `plain` has none.
    fn kept(
        &self,
        value: &Value,
        key: &str,
        defaults: Option<&Value>,
        plain: Option<&Value>,
    ) -> Option<Value> {
        if value.is_null() || OWN.contains(&key) || OWN_TABLES.contains(&key) {
            return None;
        }
        match value {
            Value::Object(table) if table.is_empty() && defaults == Some(value) => None,
            Value::Object(table) => {
                let mut kept = Map::new();
                let is_named = defaults.is_some_and(|defaults| defaults.get(NAME).is_some());
                for (name, value) in table {
                    let known = if is_named { NAME } else { name };
                    let key = if key.is_empty() { known.to_owned() } else { format!("{key}.{known}") };
                    let (defaults, plain) = (
                        defaults.and_then(|table| table.get(known)),
                        plain.and_then(|table| table.get(known)),
                    );
                    // A named table, such as an upstream, has an effect even if it sets nothing.
                    let empty = || is_named.then(|| Value::Object(Map::new()));
                    if let Some(value) = self.kept(value, &key, defaults, plain).or_else(empty) {
                        kept.insert(name.clone(), value);
                    }
                }
                // The presence of an optional table has an effect. Every policy has the others.
                let is_always_there = plain.is_some_and(Value::is_object);
                (!kept.is_empty() || !is_always_there).then_some(Value::Object(kept))
            }
            Value::Array(list) if is_list_of_tables(defaults) => {
                let first = |list: Option<&Value>| list.and_then(|list| list.get(0).cloned());
                let (defaults, plain) = (first(defaults), first(plain));
                let element = |value| {
                    let kept = self.kept(value, key, defaults.as_ref(), plain.as_ref());
                    kept.unwrap_or_else(|| Value::Object(Map::new()))
                };
                (!list.is_empty()).then(|| list.iter().map(element).collect())
            }
            value if defaults == Some(value) => None,
            _ if PRESENCE.contains(&key) => Some(Value::Bool(true)),
            Value::String(text) if CONTENT.contains(&key) && !text.contains("://") => {
                Some(content(&self.loaded.base.join(text)))
            }
            value => Some(value.clone()),
        }
    }

    /// Adds a value to the digest. Each text and list has its length, so that different values have different forms.
    fn feed(&mut self, value: &Value) {
        match value {
            Value::Null => self.hash.update(b"0"),
            Value::Bool(flag) => self.hash.update(if *flag { b"+" } else { b"-" }),
            Value::Number(number) => self.text('n', &number.to_string()),
            Value::String(text) => self.text('s', text),
            Value::Array(list) => {
                self.text('l', &list.len().to_string());
                list.iter().for_each(|value| self.feed(value));
            }
            Value::Object(table) => {
                self.text('t', &table.len().to_string());
                let mut entries: Vec<_> = table.iter().collect();
                entries.sort_by_key(|(name, _)| *name);
                for (name, value) in entries {
                    self.text('k', name);
                    self.feed(value);
                }
            }
        }
    }

    fn text(&mut self, kind: char, text: &str) {
        self.hash.update(format!("{kind}{}:{text}", text.len()).as_bytes());
    }
}

fn is_list_of_tables(defaults: Option<&Value>) -> bool {
    defaults.and_then(|list| list.get(0)).is_some_and(Value::is_object)
}

/// Returns the digest of a file's content. A file that has disappeared since the compiler read it counts as empty: its
/// return is a change of the policy.
fn content(path: &Path) -> Value {
    stable_file::read(path, FILE_MAX).map_or(Value::Null, |bytes| text_of(&bytes))
}

fn text_of(bytes: &[u8]) -> Value {
    Value::String(hex::text(digest(&SHA256, bytes).as_ref()))
}

#[cfg(test)]
mod tests;
