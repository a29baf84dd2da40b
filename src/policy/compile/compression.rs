//! Compiles `compress` of a route.

use super::Faults;
use crate::config::file::{Access, RouteSection};
use crate::respond::coding::{Coding, Compression};

/// The maximum number of media types.
const TYPES_MAX: usize = 50;

pub(super) fn compile(key: &str, table: &RouteSection, faults: &mut Faults<'_>) -> Option<Box<Compression>> {
    let at = format!("{key}.compress");
    if table.compress.is_empty() {
        for (name, is_set) in [
            ("compress_types", !table.compress_types.is_empty()),
            ("compress_with_credentials", table.compress_with_credentials),
        ] {
            if is_set {
                let hint = "compress = [\"zstd\", \"br\", \"gzip\"], or remove this";
                faults.fault("impossible_rule", &format!("{key}.{name}"), "set without compress", hint);
            }
        }
        return None;
    }
    let mut codings: Vec<Coding> = Vec::new();
    for (index, text) in table.compress.iter().enumerate() {
        match Coding::ALL.into_iter().find(|coding| coding.as_str() == text) {
            Some(coding) if !codings.contains(&coding) => codings.push(coding),
            Some(_) | None => {
                let hint = "\"zstd\", \"br\" and \"gzip\", each once, the preferred one first";
                faults.fault("bad_value", &format!("{at}[{index}]"), format!("\"{text}\""), hint);
            }
        }
    }
    let mut types: Vec<Box<str>> = Vec::new();
    for (index, text) in table.compress_types.iter().enumerate() {
        let at = format!("{key}.compress_types[{index}]");
        let is_token = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
        };
        let is_type = text.split_once('/').is_some_and(|(kind, name)| is_token(kind) && is_token(name));
        let lower = text.to_ascii_lowercase();
        // Each event has to arrive at once, and a call of gRPC has its own compression.
        let is_never = lower == "text/event-stream" || lower.starts_with("application/grpc");
        if is_type && !is_never && types.len() < TYPES_MAX {
            types.push(lower.into());
        } else {
            let hint = format!(
                "a media type without parameters, such as \"text/html\", at most {TYPES_MAX}; never event streams and gRPC"
            );
            faults.fault("bad_value", &at, format!("\"{text}\""), hint);
        }
    }
    if table.access != Access::Public && !table.compress_with_credentials {
        faults.fault(
            "compressed_secret",
            &at,
            "the answers to callers with credentials may hold secrets, which their compressed length can reveal",
            "remove it, or set compress_with_credentials = true if no answer has a secret beside text that another site can choose",
        );
    }
    let with_credentials = table.compress_with_credentials;
    Some(Box::new(Compression { codings: codings.into(), types: types.into(), with_credentials }))
}
