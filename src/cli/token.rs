//! `portcullis token`: mints tokens for tests, and inspects tokens.

use super::{BasicFormat, Failure, REFUSED, exit_code, load, marks, print_error, print_line};
use crate::authenticate::{CredentialError, verify};
use crate::authority::{AccessClaims, mint, record_long_token};
use crate::clock::Now;
use crate::keyring::MissingKey;
use crate::store::Store;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Mint an access token with the local authority's key ([authority] in the policy).
    Mint(Mint),
    /// Print a token's parts, and whether the policy would accept it.
    Inspect {
        /// The token; "-" reads it from standard input, so that it does not appear in process lists.
        token: String,
    },
}

#[derive(Args, Debug)]
pub(super) struct Mint {
    /// The subject of the token (`sub`).
    #[arg(long, default_value = "dev", value_name = "SUBJECT")]
    sub: String,
    /// A role; may be repeated.
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// A scope; may be repeated.
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// Another claim; the value is JSON, or text if it is not valid JSON; may be repeated.
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = claim)]
    claims: Vec<(String, Value)>,
    /// Mark the token as issued by a login with a password just now.
    #[arg(long)]
    fresh: bool,
    /// The lifetime, such as 30s, 15m or 1h; the policy's `access_expires` if not given.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    expires_in: Option<Duration>,
}

pub(super) fn claim(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE, such as tenant=acme")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok((name.to_owned(), value))
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<crate::config::units::Duration>().map(Into::into).map_err(|error| error.to_string())
}

pub(super) fn run(path: &Path, format: BasicFormat, command: Command) -> ExitCode {
    let result = match command {
        Command::Mint(wanted) => make(path, format, wanted),
        Command::Inspect { token } => inspect(path, format, &token),
    };
    exit_code(result)
}

fn make(path: &Path, format: BasicFormat, wanted: Mint) -> Result<(), Failure> {
    let compiled = load(path, MissingKey::Create).map_err(Failure::Printed)?;
    let settings = compiled.policy.issuer_settings.ok_or_else(|| {
        Failure::Refused(format!(
            "{}: there is no [authority], so there is no key to sign with: add [authority] with issuer and audience",
            path.display()
        ))
    })?;
    if settings.client_id.as_ref() == Some(&wanted.sub) {
        let sub = &wanted.sub;
        let why = format!("--sub {sub}: is [authority] client_id, so the token would be that of a service");
        return Err(Failure::Refused(why));
    }
    let now = Now::read();
    let expires_in = wanted.expires_in.unwrap_or(settings.access_expires);
    if expires_in > settings.access_expires {
        print_error(
            "note: longer than [authority] access_expires: the token expires with its signing key; use it for tests and load only",
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Refused(format!("cannot start: {error}")))?;
    let generation = runtime.block_on(async {
        // The compiled policy contains the whole path of the store, so the base is empty.
        let store = Store::open(&settings.store.0, Path::new("")).await.map_err(|error| error.to_string());
        record_long_token(&store?, &wanted.sub, expires_in, now).await
    });
    let generation = generation.map_err(|why| Failure::Refused(format!("[authority] store: {why}")))?;
    let claims = AccessClaims {
        issuer: settings.issuer.clone(),
        audience: settings.audience.clone(),
        subject: wanted.sub,
        roles: wanted.roles,
        scopes: wanted.scopes,
        expires_in,
        session: None,
        generation,
        fresh: wanted.fresh,
        authenticated: wanted.fresh.then_some(now.unix),
        csrf: None,
        client: settings.client_id.clone(),
        key: None,
        compat: settings.compat,
        extra: wanted.claims.into_iter().collect::<Map<_, _>>(),
    };
    let token = mint(&settings.keyring, claims, now).map_err(Failure::Refused)?;
    match format {
        BasicFormat::Text => print_line(&token),
        BasicFormat::Json => {
            print_line(&json!({ "access_token": token, "token_type": "Bearer" }).to_string())
        }
    }
    Ok(())
}

fn inspect(path: &Path, format: BasicFormat, token: &str) -> Result<(), Failure> {
    let mut read = String::new();
    let token = if token == "-" {
        std::io::stdin()
            .take(64 * 1024)
            .read_to_string(&mut read)
            .map_err(|error| Failure::Refused(format!("standard input: {error}")))?;
        read.trim()
    } else {
        token
    };
    let compiled = load(path, MissingKey::Ephemeral).map_err(Failure::Printed)?;
    let unread = marks::load(&compiled).err();
    let trust = &compiled.policy.trust;
    let verdict = verify(token, trust, Now::read());
    let verdict =
        verdict.and_then(|principal| Ok(trust.revoked().admit_any(&principal).map(|()| principal)?));
    let mut parts = token.split('.').map(part);
    let (header, claims) = (parts.next().flatten(), parts.next().flatten());
    match format {
        BasicFormat::Json => {
            let report = json!({
                "header": header,
                "claims": claims,
                "accepted": verdict.is_ok(),
                "code": verdict.as_ref().err().map(|refused| refused.denial.code()),
                "detail": verdict.as_ref().err().map(|refused| refused.denial.detail()),
                "reason": verdict.as_ref().err().and_then(CredentialError::words),
                "revocations_unread": unread,
            });
            print_line(&format!("{report:#}"));
        }
        BasicFormat::Text => {
            let shown = |value: &Option<Value>| {
                value.as_ref().map_or_else(|| "cannot be read".to_owned(), |value| format!("{value:#}"))
            };
            print_line(&format!("header: {}", shown(&header)));
            print_line(&format!("claims: {}", shown(&claims)));
            match &verdict {
                Ok(principal) => {
                    print_line(&format!("accepted: issued by {} for {}", principal.issuer, principal.subject))
                }
                Err(refused) => {
                    print_line(&format!("refused: {}: {}", refused.denial.code(), refused.denial.detail()));
                    if let Some(words) = refused.words() {
                        print_line(&format!("because: {words}"));
                    }
                }
            }
        }
    }
    if let Some(why) = unread {
        print_error(&format!("note: the token may be revoked, because revocations cannot be read: {why}"));
    }
    match verdict {
        Ok(_) => Ok(()),
        Err(_) => Err(Failure::Printed(ExitCode::from(REFUSED))),
    }
}

/// Decodes one part of a token as JSON for display, without verifying it. JSON escapes control characters, so the
/// output is safe for a terminal.
fn part(text: &str) -> Option<Value> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    serde_json::from_slice(&bytes).ok()
}
