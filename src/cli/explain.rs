//! `portcullis explain`: shows how the policy would decide a request, and why.

use super::{BasicFormat, REFUSED, admin, compiled, marks, print_error, print_line};
use crate::clock::Now;
use crate::explain::{CrossOrigin, Explanation, explain};
use crate::keyring::MissingKey;
use crate::policy::Question;
use clap::Args;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Maximum length in bytes of a token that is read from a file or from standard input.
const TOKEN_MAX: u64 = 64 * 1024;

/// The arguments of `explain`.
#[derive(Debug, Args)]
pub(super) struct Request {
    /// The method; GET if only a URL is given.
    #[arg(value_name = "METHOD")]
    first: String,
    /// The URL, such as https://api.example.com/orders/7.
    #[arg(value_name = "URL")]
    second: Option<String>,
    /// The claims of the caller's token, as JSON, treated as verified.
    #[arg(long, value_name = "JSON", conflicts_with_all = ["token", "token_file"])]
    claims: Option<String>,
    /// The caller's token, which is verified. Other users of this machine can see it; prefer --token-file.
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<String>,
    /// A file with the caller's token; "-" for standard input.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// A header field of the request; may be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The client's address.
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// Ask the running gateway through its admin listener: it knows the policy in force and the revoked tokens.
    #[arg(long)]
    live: bool,
    /// The time of the request, in seconds since 1970; the current time if not given.
    #[arg(long, value_name = "SECONDS")]
    time: Option<u64>,
}

pub(super) fn run(path: &Path, format: BasicFormat, request: &Request) -> ExitCode {
    let question = match question(request) {
        Ok(question) => question,
        Err(why) => {
            print_error(&why);
            return ExitCode::from(super::USAGE);
        }
    };
    let explanation = if request.live {
        match live(path, request) {
            Ok(explanation) => explanation,
            Err(why) => {
                print_error(&why);
                return ExitCode::from(REFUSED);
            }
        }
    } else {
        match compiled(path, MissingKey::Ephemeral) {
            Ok(compiled) => {
                let unread = marks::load_signals(&compiled);
                let explanation = explain(&compiled.policy, &question);
                let has_token = request.token.is_some() || request.token_file.is_some();
                if let (Some(why), Some(_), true) = (unread, &explanation.caller, has_token) {
                    print_error(&format!("note: revocations are not known here: {why}"));
                }
                explanation
            }
            Err(faults) => {
                faults.iter().for_each(|fault| print_error(&fault.to_string()));
                return ExitCode::from(REFUSED);
            }
        }
    };
    match format {
        BasicFormat::Json => match serde_json::to_string_pretty(&explanation) {
            Ok(text) => print_line(&text),
            Err(error) => print_error(&error.to_string()),
        },
        BasicFormat::Text => print_line(explanation.to_string().trim_end()),
    }
    let reaches = explanation.shadow || explanation.outcome.passes();
    let is_denied = |known: &CrossOrigin| known.is_preflight && known.is_allowed == Some(false);
    if reaches && !explanation.cross_origin.as_ref().is_some_and(is_denied) {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(REFUSED)
    }
}

fn question(request: &Request) -> Result<Question, String> {
    let mut question = match &request.second {
        Some(url) => Question::new(&request.first, url)?,
        None => Question::new("GET", &request.first)?,
    };
    for field in &request.headers {
        let (name, value) =
            field.split_once(':').ok_or_else(|| format!("\"{field}\" is not a header: write NAME: VALUE"))?;
        question = question.header(name.trim(), value.trim())?;
    }
    if let Some(claims) = &request.claims {
        let claims: Map<String, Value> = serde_json::from_str(claims).map_err(|error| {
            format!(
                "--claims: {error}; expected an object such as '{{\"sub\":\"u1\",\"roles\":[\"clerk\"]}}'"
            )
        })?;
        question = question.claims(claims);
    }
    if let Some(token) = &request.token {
        question = question.token(token.clone());
    }
    // With --live, the file is read later, because standard input can be read only once.
    if let Some(file) = request.token_file.as_ref().filter(|_| !request.live) {
        question = question.token(token_in(file)?);
    }
    if let Some(client) = request.client {
        question = question.client(client);
    }
    if let Some(time) = request.time {
        question = question.at(Now::at(time));
    }
    Ok(question)
}

/// Sends the question to the running gateway. The caller has already parsed the question, so an invalid question gives
/// the same errors as without --live.
fn live(path: &Path, request: &Request) -> Result<Explanation, String> {
    let line = match &request.second {
        Some(url) => format!("{} {url}", request.first),
        None => request.first.clone(),
    };
    let fields = request.headers.iter().filter_map(|field| field.split_once(':'));
    let headers: BTreeMap<_, _> = fields.map(|(name, value)| (name.trim(), value.trim())).collect();
    let mut asked =
        json!({ "request": line, "headers": headers, "client": request.client, "time": request.time });
    if let Some(claims) = &request.claims {
        asked["claims"] = serde_json::from_str(claims).map_err(|error| format!("--claims: {error}"))?;
    }
    let token = match &request.token_file {
        Some(file) => Some(token_in(file)?),
        None => request.token.clone(),
    };
    if let Some(token) = token {
        asked["token"] = token.into();
    }
    let (status, answer) = admin::post(path, "/explain", &asked.to_string())?;
    if status != 200 {
        return Err(format!("the gateway answered {status}: {}", answer.trim()));
    }
    serde_json::from_str(&answer).map_err(|error| format!("the gateway's answer cannot be read: {error}"))
}

fn token_in(file: &Path) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("--token-file {}: {error}", file.display());
    let mut text = String::new();
    if file.as_os_str() == "-" {
        std::io::stdin().lock().take(TOKEN_MAX).read_to_string(&mut text).map_err(cannot)?;
    } else {
        std::fs::File::open(file)
            .map_err(cannot)?
            .take(TOKEN_MAX)
            .read_to_string(&mut text)
            .map_err(cannot)?;
    }
    Ok(text.trim().to_owned())
}
