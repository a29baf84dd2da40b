//! `portcullis healthcheck`: a readiness probe for containers without a shell or curl.

use super::{BasicFormat, REFUSED, admin, print_error, print_line};
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;

pub(super) fn run(path: &Path, format: BasicFormat) -> ExitCode {
    let verdict = match admin::get(path, "/readyz") {
        Ok((200, _)) => Ok(()),
        Ok((status, body)) => {
            let first = body.lines().next().unwrap_or_default();
            Err(format!("not ready: {status} {}", first.escape_debug()))
        }
        Err(why) => Err(why),
    };
    match format {
        BasicFormat::Json => {
            print_line(&json!({ "ready": verdict.is_ok(), "detail": verdict.as_ref().err() }).to_string());
        }
        BasicFormat::Text => match &verdict {
            Ok(()) => print_line("ready"),
            Err(why) => print_error(why),
        },
    }
    if verdict.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) }
}
