//! `portcullis apikey`: creates, lists and revokes the API keys of programs. Running gateways apply changes in the
//! state folder within a second.

use super::{BasicFormat, Failure, exit_code, load, print_error, print_line};
use crate::api_key_file::{ApiKeyFile, NewApiKey, written_hash};
use crate::authenticate::ApiKeyFacts;
use crate::clock::Now;
use crate::keyring::MissingKey;
use crate::timestamp::rfc3339;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a key and print it. The key is shown only now: the gateway keeps its hash.
    Create(Create),
    /// List the keys: names, roles, scopes, expiry and last use.
    List,
    /// Revoke a key: running gateways refuse it within a second.
    Revoke {
        /// The key's name, as `apikey list` shows it.
        name: String,
    },
}

#[derive(Args, Debug)]
pub(super) struct Create {
    /// The name of the key: letters, digits, `-`, `_` and `.`. Services get it as the subject `apikey:NAME`.
    name: String,
    /// A role; may be repeated.
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// A scope; may be repeated.
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// Another claim; the value is JSON, or text if it is not valid JSON; may be repeated.
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = super::token::claim)]
    claims: Vec<(String, Value)>,
    /// The time that the key is valid, such as 90d or 12h.
    #[arg(long, value_name = "DURATION", value_parser = super::token::duration, default_value = "365d")]
    expires_in: Duration,
    /// Create a key that does not expire.
    #[arg(long, conflicts_with = "expires_in")]
    never_expires: bool,
}

pub(super) fn run(path: &Path, format: BasicFormat, command: Command) -> ExitCode {
    let result = match command {
        Command::Create(wanted) => create(path, format, wanted),
        Command::List => list(path, format),
        Command::Revoke { name } => revoke(path, format, &name),
    };
    exit_code(result)
}

fn file(path: &Path) -> Result<ApiKeyFile, Failure> {
    let compiled = load(path, MissingKey::Ephemeral).map_err(Failure::Printed)?;
    let file = compiled.policy.api_key_file.ok_or_else(|| {
        format!("{}: there is no [api_keys], so no API key is accepted: add [api_keys]", path.display())
    })?;
    Ok((*file).clone())
}

fn create(path: &Path, format: BasicFormat, wanted: Create) -> Result<(), Failure> {
    let now = Now::read().unix;
    let new = NewApiKey {
        name: wanted.name.clone(),
        roles: wanted.roles,
        scopes: wanted.scopes,
        claims: wanted.claims.into_iter().collect(),
        expires: (!wanted.never_expires).then(|| now.saturating_add(wanted.expires_in.as_secs())),
    };
    let expires = new.expires.map(rfc3339);
    let key = file(path)?.create(new, now)?;
    match format {
        BasicFormat::Json => {
            print_line(&json!({ "name": wanted.name, "key": *key, "expires": expires }).to_string());
        }
        BasicFormat::Text => {
            print_line(&key);
            let until = expires.map_or_else(|| "does not expire".to_owned(), |at| format!("expires at {at}"));
            print_error(&format!("the key {until}; it is shown only now"));
        }
    }
    Ok(())
}

fn revoke(path: &Path, format: BasicFormat, name: &str) -> Result<(), Failure> {
    if !file(path)?.revoke(name)? {
        return Err(Failure::Refused(format!("no API key is named {name:?}")));
    }
    match format {
        BasicFormat::Json => print_line(&json!({ "name": name, "revoked": true }).to_string()),
        BasicFormat::Text => {
            print_line(&format!("{name} is revoked: running gateways refuse it within a second"));
        }
    }
    Ok(())
}

fn list(path: &Path, format: BasicFormat) -> Result<(), Failure> {
    let file = file(path)?;
    let (mut keys, used) = (file.read()?, file.last_used());
    keys.sort_by(|one, other| one.name.cmp(&other.name));
    let used = |key: &ApiKeyFacts| used.get(&written_hash(&key.digest)).copied().map(rfc3339);
    let now = Now::read().unix;
    let is_expired = |key: &ApiKeyFacts| key.expires.is_some_and(|expires| expires <= now);
    match format {
        BasicFormat::Json => {
            let keys: Vec<Value> = keys
                .iter()
                .map(|key| {
                    json!({
                        "name": key.name,
                        "hint": key.hint,
                        "roles": key.roles,
                        "scopes": key.scopes,
                        "claims": key.claims,
                        "created": rfc3339(key.created),
                        "expires": key.expires.map(rfc3339),
                        "expired": is_expired(key),
                        "last_used": used(key),
                    })
                })
                .collect();
            print_line(&format!("{:#}", Value::from(keys)));
        }
        BasicFormat::Text if keys.is_empty() => {
            print_line("no API keys; portcullis apikey create creates one");
        }
        BasicFormat::Text => {
            keys.iter().for_each(|key| print_line(&as_text(key, used(key), is_expired(key))))
        }
    }
    Ok(())
}

fn as_text(key: &ApiKeyFacts, used: Option<String>, is_expired: bool) -> String {
    let names = |what: &str, names: &[Box<str>]| match names {
        [] => String::new(),
        names => format!("  {what} {}", names.join(", ")),
    };
    let expires = match key.expires.map(rfc3339) {
        None => "does not expire".to_owned(),
        Some(at) if is_expired => format!("expired at {at}"),
        Some(at) => format!("expires at {at}"),
    };
    let used = used.map_or_else(|| "not used yet".to_owned(), |at| format!("last used at {at}"));
    let (roles, scopes) = (names("roles", &key.roles), names("scopes", &key.scopes));
    format!("{}  {}…{roles}{scopes}  {expires}  {used}", key.name, key.hint)
}
