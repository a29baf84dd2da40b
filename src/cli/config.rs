//! `portcullis config`: prints the effective policy or its digest, the differences between two policies, or the schema.

use super::{BasicFormat, REFUSED, print_error, print_line};
use crate::config::effective::Effective;
use crate::config::schema::schema;
use crate::config::{self, Loaded, PolicyDigest};
use clap::Subcommand;
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print every key with its value and origin. Secrets are masked.
    Show {
        /// Print only values that differ from the defaults.
        #[arg(long)]
        changed: bool,
    },
    /// Print the digest of the policy, which all gateways of a fleet show once they enforce this policy.
    Digest,
    /// Compare two policies: who gains or loses access, and which recent decisions would change.
    Diff(super::diff::Compared),
    /// Print the JSON Schema of the policy file, for completion and validation in editors.
    Schema,
}

pub(super) fn run(path: &Path, format: BasicFormat, command: Command) -> ExitCode {
    let done = match command {
        Command::Diff(compared) => return super::diff::run(format, &compared),
        Command::Show { changed } => loaded(path).and_then(|loaded| show(&loaded, format, changed)),
        Command::Digest => loaded(path).map(|loaded| {
            let digest = PolicyDigest::of(&loaded).to_string();
            match format {
                BasicFormat::Text => print_line(&digest),
                BasicFormat::Json => print_line(&json!({ "digest": digest }).to_string()),
            }
        }),
        Command::Schema => {
            print_line(&format!("{:#}", schema()));
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(faults) => {
            faults.iter().for_each(|fault| print_error(fault));
            ExitCode::from(REFUSED)
        }
    }
}

/// Loads a policy without compiling it. An operator who searches for a fault must see the effective values even if the
/// policy does not compile.
fn loaded(path: &Path) -> Result<Loaded, Vec<String>> {
    config::load(path).map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

fn show(loaded: &Loaded, format: BasicFormat, changed: bool) -> Result<(), Vec<String>> {
    let effective = Effective::of(loaded, !changed).map_err(|why| vec![why])?;
    match format {
        BasicFormat::Text => print_line(effective.to_string().trim_end()),
        BasicFormat::Json => print_line(&format!("{:#}", json!({ "keys": effective.entries }))),
    }
    Ok(())
}
