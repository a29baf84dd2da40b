//! `portcullis healthcheck`: for containers, which then need no shell and no curl.

use super::{Format, REFUSED, admin, complain, say};
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;

pub(super) fn run(path: &Path, format: Format) -> ExitCode {
    let verdict = match admin::get(path, "/readyz") {
        Ok((200, _)) => Ok(()),
        Ok((status, body)) => {
            let first = body.lines().next().unwrap_or_default();
            Err(format!("not ready: {status} {}", first.escape_debug()))
        }
        Err(why) => Err(why),
    };
    match format {
        Format::Json => {
            say(&json!({ "ready": verdict.is_ok(), "detail": verdict.as_ref().err() }).to_string());
        }
        Format::Text => match &verdict {
            Ok(()) => say("ready"),
            Err(why) => complain(why),
        },
    }
    if verdict.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) }
}
