//! `portcullis key`: generates, rotates, revokes and lists the local authority's signing keys. Running gateways apply
//! the changes within a second.

use super::{BasicFormat, Failure, admin, exit_code, load, print_error, print_line};
use crate::clock::Now;
use crate::control::key_report;
use crate::key_source::Origin;
use crate::keyring::{KeyInfo, Keyring, KeyringFault, MissingKey, RotationStart};
use clap::Subcommand;
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Generate the first signing key, unless there is one, and print its id.
    Generate,
    /// Generate a new key. The key is published for ten minutes before it signs; the previous key is accepted until its
    /// last token has expired.
    Rotate {
        /// Sign with the new key immediately, for example after a leak. Services that verify tokens themselves may
        /// refuse the first tokens until they fetch the key set again.
        #[arg(long)]
        now: bool,
    },
    /// Revoke a leaked key: its tokens are refused from now on. If it is the signing key, the next key signs
    /// immediately, or a new key if there is no next key.
    Revoke {
        /// The key's id, as `key list` shows it.
        #[arg(value_name = "KID", allow_hyphen_values = true, required_unless_present = "all")]
        id: Option<String>,
        /// Revoke all keys, including the next one, and sign with a new key. Use this if somebody has read the whole
        /// folder. Services may refuse the new key's tokens until they fetch the key set again.
        #[arg(long, conflicts_with = "id")]
        all: bool,
    },
    /// Encrypt the keys in the store with signing_keys_secret, after other_signing_keys_secret was exchanged with it.
    Reseal,
    /// List the signing keys with their states, and the keys of every issuer.
    List {
        /// Ask the running gateway, which knows when each issuer's keys were fetched, used, and will be fetched next.
        #[arg(long)]
        live: bool,
    },
}

impl From<KeyringFault> for Failure {
    fn from(fault: KeyringFault) -> Self {
        Self::Refused(fault.to_string())
    }
}

pub(super) fn run(path: &Path, format: BasicFormat, command: Command) -> ExitCode {
    let result = match command {
        Command::Generate => generate(path, format),
        Command::Rotate { now } => {
            rotate(path, format, if now { RotationStart::Immediate } else { RotationStart::AfterLead })
        }
        Command::Revoke { id: Some(id), .. } => revoke(path, format, &id),
        Command::Revoke { id: None, .. } => revoke_all(path, format),
        Command::Reseal => reseal(path, format),
        Command::List { live } => list(path, format, live),
    };
    exit_code(result)
}

fn keyring(path: &Path, missing_key: MissingKey) -> Result<Keyring, Failure> {
    let compiled = load(path, missing_key).map_err(Failure::Printed)?;
    let authority = compiled.policy.issuer_settings.ok_or_else(|| {
        format!(
            "{}: there is no [authority], so there are no signing keys: add [authority] with issuer and audience",
            path.display()
        )
    })?;
    Ok(authority.keyring.clone())
}

fn generate(path: &Path, format: BasicFormat) -> Result<(), Failure> {
    let made = keyring(path, MissingKey::Inspect)?.is_ephemeral();
    let keyring = keyring(path, MissingKey::Create)?;
    let key = keyring.signing(Now::read());
    match format {
        BasicFormat::Json => {
            let report = json!({ "kid": key.id(), "algorithm": key.algorithm().as_str(), "made": made });
            print_line(&report.to_string());
        }
        BasicFormat::Text => {
            print_line(key.id());
            if !made {
                print_error("this key existed already; portcullis key rotate generates another one");
            }
        }
    }
    Ok(())
}

fn rotate(path: &Path, format: BasicFormat, start: RotationStart) -> Result<(), Failure> {
    let rotated = keyring(path, MissingKey::Create)?.rotate(start, Now::read())?;
    let from = KeyInfo::time(rotated.signs_from);
    match format {
        BasicFormat::Json => {
            print_line(&json!({ "kid": rotated.id, "signs_from": from, "made": rotated.is_new }).to_string());
        }
        BasicFormat::Text => {
            print_line(&rotated.id);
            let made = if rotated.is_new { "generated" } else { "generated earlier" };
            print_error(&format!("{made}; it signs from {from}"));
        }
    }
    Ok(())
}

fn revoke(path: &Path, format: BasicFormat, id: &str) -> Result<(), Failure> {
    let replaced_by = keyring(path, MissingKey::Inspect)?.revoke(id, Now::read())?;
    match format {
        BasicFormat::Json => print_line(&json!({ "kid": id, "replaced_by": replaced_by }).to_string()),
        BasicFormat::Text => {
            print_line(&format!("{id} is revoked: running gateways refuse its tokens within a second"));
            if let Some(new) = replaced_by {
                print_line(&format!("{new} signs in its place"));
            }
        }
    }
    Ok(())
}

fn revoke_all(path: &Path, format: BasicFormat) -> Result<(), Failure> {
    let (revoked, new) = keyring(path, MissingKey::Inspect)?.revoke_all(Now::read())?;
    match format {
        BasicFormat::Json => print_line(&json!({ "revoked": revoked, "replaced_by": new }).to_string()),
        BasicFormat::Text => {
            for id in revoked {
                print_line(&format!("{id} is revoked: running gateways refuse its tokens within a second"));
            }
            print_line(&format!("{new} signs in their place"));
        }
    }
    Ok(())
}

fn reseal(path: &Path, format: BasicFormat) -> Result<(), Failure> {
    let done = keyring(path, MissingKey::Inspect)?.reseal()?;
    match format {
        BasicFormat::Json => print_line(&json!({ "encrypted": done }).to_string()),
        BasicFormat::Text if done.is_empty() => print_line("all keys are encrypted with signing_keys_secret"),
        BasicFormat::Text => {
            done.iter().for_each(|id| print_line(&format!("{id} is encrypted with signing_keys_secret")));
        }
    }
    Ok(())
}

fn list(path: &Path, format: BasicFormat, live: bool) -> Result<(), Failure> {
    let compiled = load(path, MissingKey::Inspect).map_err(Failure::Printed)?;
    // An ephemeral key exists only to compile the policy. It is not a key of the authority.
    let keyring = compiled.policy.issuer_settings.as_ref().map(|authority| &authority.keyring);
    let listed = keyring.filter(|keyring| !keyring.is_ephemeral()).map(|keyring| keyring.list(Now::read()));
    let signing = listed.unwrap_or_default();
    let ours = compiled.policy.issuer_settings.as_ref().map(|authority| authority.issuer.as_str());
    let mut issuers = match live {
        true => issuers_of_gateway(path)?,
        false => key_report::all(&compiled.policy).collect(),
    };
    issuers.retain(|issuer| ours.is_none() || issuer["issuer"].as_str() != ours);
    match format {
        BasicFormat::Json => {
            let signing: Vec<_> = signing.iter().map(as_json).collect();
            print_line(&format!(
                "{:#}",
                json!({ "authority": ours, "signing": signing, "issuers": issuers })
            ));
        }
        BasicFormat::Text => {
            if let Some(ours) = ours {
                print_line(&format!("{ours} (the local authority)"));
                if signing.is_empty() {
                    print_line("  no key yet: the first start or portcullis key generate generates one");
                }
            }
            signing.iter().for_each(|key| print_line(&as_text(key)));
            issuers.iter().for_each(|issuer| print_issuer(issuer, live));
        }
    }
    Ok(())
}

/// Asks the running gateway for the keys of its issuers.
fn issuers_of_gateway(path: &Path) -> Result<Vec<Value>, Failure> {
    let (status, answer) = admin::get(path, "/keys")?;
    if status != 200 {
        return Err(format!("the gateway answered {status}: {}", answer.trim()).into());
    }
    let mut answer: Value = serde_json::from_str(&answer)
        .map_err(|error| format!("the gateway's answer cannot be read: {error}"))?;
    match answer["issuers"].take() {
        Value::Array(issuers) => Ok(issuers),
        _ => Err("the gateway's answer has no list of issuers".to_owned().into()),
    }
}

/// Prints the keys of one issuer. If they are fetched, also prints the state of the source. Does the same for the
/// endpoint that is asked about tokens, but only a running gateway (`is_live`) asks.
fn print_issuer(issuer: &Value, is_live: bool) {
    let text = |value: &Value| value.as_str().map(printable);
    let signals = text(&issuer["signals"]).map(|name| format!("[signals.{name}]"));
    print_line(&text(&issuer["issuer"]).or(signals).unwrap_or_default());
    for key in issuer["keys"].as_array().into_iter().flatten() {
        let id = text(&key["kid"]).unwrap_or_else(|| "(without kid)".to_owned());
        let mut line = format!("  {id}  {}", text(&key["algorithm"]).unwrap_or_default());
        for (name, label) in [("first_seen", "first seen"), ("last_used", "last used")] {
            if let Some(at) = text(&key[name]) {
                line.push_str(&format!("  {label} {at}"));
            }
        }
        print_line(&line);
    }
    print_introspection(&issuer["introspection"], is_live);
    let source = &issuer["source"];
    let Some(url) = text(&source["url"]) else { return };
    let origins = [("from_disk", Origin::Disk), ("from_gateway", Origin::Gateway)];
    let origin = origins.into_iter().find(|(member, _)| source[*member] == true);
    let origin = origin.map_or("", |(_, origin)| origin.note());
    let fetched =
        text(&source["fetched"]).map_or("not fetched yet".to_owned(), |at| format!("fetched {at}{origin}"));
    let expires = text(&source["expires"]).map(|at| format!(", used until {at}")).unwrap_or_default();
    let next = text(&source["next_fetch"]).map(|at| format!(", next fetch {at}")).unwrap_or_default();
    print_line(&format!("  {url}: {fetched}{expires}{next}"));
    if let (Some(at), Some(why)) = (text(&source["last_error"]["at"]), text(&source["last_error"]["why"])) {
        print_line(&format!("  the last fetch failed at {at}: {why}"));
    }
    for why in source["not_used"].as_array().into_iter().flatten().filter_map(text) {
        print_line(&format!("  {why}"));
    }
}

fn print_introspection(asked: &Value, is_live: bool) {
    let Some(endpoint) = asked["endpoint"].as_str().map(printable) else { return };
    let what = if asked["always"] == true { "every token" } else { "tokens without a verifiable signature" };
    let count = |name: &str| asked[name].as_u64().unwrap_or_default();
    let (active, inactive, open) = (count("active"), count("inactive"), count("open"));
    let known = match is_live {
        true => format!(": {active} active and {inactive} inactive tokens known, {open} questions open"),
        false => String::new(),
    };
    print_line(&format!("  {endpoint}: asked about {what}{known}"));
    let error = &asked["last_error"];
    if let (Some(at), Some(why)) = (error["at"].as_str(), error["why"].as_str()) {
        print_line(&format!("  the last question failed at {at}: {}", printable(why)));
    }
}

/// Replaces the control characters in text from an issuer, because a terminal would obey them.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn as_json(key: &KeyInfo) -> Value {
    json!({
        "kid": key.id,
        "algorithm": key.algorithm.as_str(),
        "state": key.state.as_str(),
        "signs_from": key.signs_from.map(KeyInfo::time),
        "accepted_until": key.accepted_until.map(KeyInfo::time),
    })
}

fn as_text(key: &KeyInfo) -> String {
    let from = key.signs_from.map_or_else(|| "the beginning".to_owned(), KeyInfo::time);
    let until = key.accepted_until.map(|until| format!(", accepted until {}", KeyInfo::time(until)));
    let (id, algorithm, state) = (&key.id, key.algorithm, key.state.as_str());
    format!("  {id}  {algorithm}  {state:<8}  signs from {from}{}", until.unwrap_or_default())
}
