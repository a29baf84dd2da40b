//! `portcullis config diff OLD NEW`: shows who gains or loses access, and which recent decisions would change.

use super::{BasicFormat, REFUSED, USAGE, admin, print_error, print_line};
use crate::config::{self, Loaded};
use crate::diagnostic::Diagnostic;
use crate::keyring::MissingKey;
use crate::policy::{self, Policy};
use crate::review::diff::{Difference, difference};
use crate::review::replay::{Replay, replay};
use crate::review::settings_diff::{PolicyFile, setting_changes};
use clap::Args;
use serde_json::json;
use std::io::Read;
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Maximum size of the decisions, in bytes.
const DECISIONS_MAX: u64 = 256 * 1024 * 1024;
/// The path of recent decisions at the admin listener.
const DECISIONS: &str = "/decisions";

/// The arguments of `config diff`.
#[derive(Debug, Args)]
pub(super) struct Compared {
    /// The current policy. Relative paths in it start at its folder.
    old: PathBuf,
    /// The proposed policy.
    new: PathBuf,
    /// Recent decisions to replay on both policies: a file, "-" for standard input, or the URL of an admin listener's
    /// /decisions.
    #[arg(long, value_name = "FILE|URL", conflicts_with = "live")]
    decisions: Option<String>,
    /// Replay the recent decisions of the running gateway, at the admin address that OLD names.
    #[arg(long)]
    live: bool,
    /// Exit with code 1 if anything would change.
    #[arg(long)]
    exit_code: bool,
}

pub(super) fn run(format: BasicFormat, compared: &Compared) -> ExitCode {
    if compared.decisions.as_ref().is_some_and(|from| from.starts_with("https://")) {
        print_error("--decisions: the admin listener speaks plain HTTP; use http://ADDRESS:PORT/decisions");
        return ExitCode::from(USAGE);
    }
    let (old, new) = match (read(&compared.old), read(&compared.new)) {
        (Ok(old), Ok(new)) => (old, new),
        (old, new) => {
            let faults = [old.err(), new.err()];
            faults.iter().flatten().flatten().for_each(|fault| print_error(&fault.to_string()));
            return ExitCode::from(REFUSED);
        }
    };
    let replayed = match decisions(compared, &old.0) {
        Ok(lines) => lines.map(|lines| replay(&old.1, &new.1, &lines)),
        Err(why) => {
            print_error(&why);
            return ExitCode::from(REFUSED);
        }
    };
    let mut difference = difference(&old.1, &new.1);
    match setting_changes(
        PolicyFile { file: &old.0, policy: &old.1 },
        PolicyFile { file: &new.0, policy: &new.1 },
    ) {
        Ok(others) => difference.others = others,
        Err(why) => {
            print_error(&why);
            return ExitCode::from(REFUSED);
        }
    }
    print(format, &difference, replayed.as_ref());
    let changes = !difference.is_empty() || replayed.is_some_and(|replayed| replayed.would_change > 0);
    if changes && compared.exit_code { ExitCode::from(REFUSED) } else { ExitCode::SUCCESS }
}

fn print(format: BasicFormat, difference: &Difference, replayed: Option<&Replay>) {
    match format {
        BasicFormat::Json => {
            let report =
                json!({ "changes": !difference.is_empty(), "difference": difference, "decisions": replayed });
            print_line(&format!("{report:#}"));
        }
        BasicFormat::Text => {
            print_line(difference.to_string().trim_end());
            if let Some(replayed) = replayed {
                print_line(replayed.to_string().trim_end());
            }
        }
    }
}

fn read(path: &Path) -> Result<(Loaded, Policy), Vec<Diagnostic>> {
    let loaded = config::load(path)?;
    let compiled = policy::compile(&loaded, MissingKey::Ephemeral)?;
    Ok((loaded, compiled.policy))
}

/// Returns the decisions to replay, or `None` if no replay was requested.
fn decisions(compared: &Compared, old: &Loaded) -> Result<Option<String>, String> {
    let answered = |answer: Result<(u16, String), String>| match answer? {
        (200, lines) => Ok(lines),
        (status, why) => Err(format!("cannot fetch decisions: {status} {}", why.trim().escape_debug())),
    };
    match &compared.decisions {
        None if !compared.live => Ok(None),
        None => {
            let address = admin::address(&old.file.server)?;
            answered(admin::get_at(address, DECISIONS)).map(Some)
        }
        Some(from) => match from.strip_prefix("http://") {
            Some(rest) => {
                let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                let path = if path.len() <= 1 { DECISIONS } else { path };
                let cannot = |error: std::io::Error| format!("{authority}: {error}");
                let address = authority.to_socket_addrs().map_err(cannot)?.next();
                let address = address.ok_or_else(|| format!("{authority}: no address"))?;
                answered(admin::get_at(address, path)).map(Some)
            }
            None => read_decisions(Path::new(from)).map(Some).map_err(|error| format!("{from}: {error}")),
        },
    }
}

/// Reads decisions from a file or from standard input.
fn read_decisions(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    if file.as_os_str() == "-" {
        std::io::stdin().lock().take(DECISIONS_MAX).read_to_string(&mut text)?;
    } else {
        std::fs::File::open(file)?.take(DECISIONS_MAX).read_to_string(&mut text)?;
    }
    Ok(text)
}
