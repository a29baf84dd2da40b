//! `portcullis key`: generates, rotates, revokes and lists the local authority's signing keys. Running gateways watch
//! the state folder and use the changed keys within a second.

use super::{BasicFormat, Failure, exit_code, load, print_error, print_line};
use crate::clock::Now;
use crate::keyring::{KeyInfo, Keyring, KeyringFault, MissingKey, RotationStart};
use crate::policy::Compiled;
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
    /// List the signing keys with their states, and the keys of every issuer.
    List,
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
        Command::List => list(path, format),
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
    let made = keyring(path, MissingKey::Ephemeral)?.is_ephemeral();
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
    let replaced_by = keyring(path, MissingKey::Ephemeral)?.revoke(id, Now::read())?;
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
    let (revoked, new) = keyring(path, MissingKey::Ephemeral)?.revoke_all(Now::read())?;
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

fn list(path: &Path, format: BasicFormat) -> Result<(), Failure> {
    let compiled = load(path, MissingKey::Ephemeral).map_err(Failure::Printed)?;
    // A key that was generated only to compile the policy is not one of the authority's keys.
    let keyring = compiled.policy.issuer_settings.as_ref().map(|authority| &authority.keyring);
    let listed = keyring.filter(|keyring| !keyring.is_ephemeral()).map(|keyring| keyring.list(Now::read()));
    let signing = listed.unwrap_or_default();
    let ours = compiled.policy.issuer_settings.as_ref().map(|authority| authority.issuer.as_str());
    match format {
        BasicFormat::Json => {
            let signing: Vec<_> = signing.iter().map(as_json).collect();
            let issuers: Vec<_> = others(&compiled, ours)
                .map(|(issuer, keys)| {
                    let keys: Vec<_> = keys
                        .iter()
                        .map(|(id, algorithm)| json!({ "kid": id, "algorithm": algorithm }))
                        .collect();
                    json!({ "issuer": issuer, "keys": keys })
                })
                .collect();
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
            for (issuer, keys) in others(&compiled, ours) {
                print_line(issuer);
                for (id, algorithm) in keys {
                    print_line(&format!("  {}  {algorithm}", id.unwrap_or("(without kid)")));
                }
            }
        }
    }
    Ok(())
}

/// Returns the ids and algorithms of the loaded keys, for each issuer except the local authority.
fn others<'c>(
    compiled: &'c Compiled,
    ours: Option<&str>,
) -> impl Iterator<Item = (&'c str, Vec<(Option<&'c str>, &'static str)>)> {
    let issuers = compiled.policy.trust.issuers().iter();
    issuers.filter(move |issuer| Some(&*issuer.name) != ours).map(|issuer| {
        let keys = issuer.keys.iter().map(|key| (key.id(), key.algorithm().as_str()));
        (&*issuer.name, keys.collect())
    })
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
