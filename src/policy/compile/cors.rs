//! Compiles `[cors.NAME]`: the answers to scripts of other origins.

use super::Faults;
use crate::config::file::{CorsSection, File, RouteSection};
use crate::respond::cors::{Cors, CorsParts, OriginPattern, Origins};
use crate::route::Methods;
use http::HeaderName;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// The maximum number of origins in a list. Each request with `Origin` is compared with all of them.
const ORIGINS_MAX: usize = 100;
/// Firefox caches no answer to a preflight for longer, and Chromium none for longer than two hours.
const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Compiles all tables. A faulty table is `None`.
pub(super) fn compile<'f>(file: &'f File, faults: &mut Faults<'_>) -> HashMap<&'f str, Option<Arc<Cors>>> {
    file.cors.iter().map(|(name, table)| (&**name, cors(name, table, faults).map(Arc::new))).collect()
}

/// Returns the table that a route names.
pub(super) fn chosen(
    key: &str,
    table: &RouteSection,
    known: &HashMap<&str, Option<Arc<Cors>>>,
    faults: &mut Faults<'_>,
) -> Option<Arc<Cors>> {
    let name = table.cors.as_deref()?;
    match known.get(name) {
        Some(cors) => cors.clone(),
        None => {
            faults.undefined(&format!("{key}.cors"), "cors", name, known.keys().copied());
            None
        }
    }
}

fn cors(name: &str, table: &CorsSection, faults: &mut Faults<'_>) -> Option<Cors> {
    let key = format!("cors.{name}");
    let origins = origins(&key, table, faults);
    let methods = if table.methods.is_empty() {
        Some(Methods::any())
    } else {
        let at = format!("{key}.methods");
        Methods::parse(&table.methods)
            .map_err(|fault| faults.fault("bad_method", &at, fault.found(), fault.remedy()))
            .ok()
    };
    let headers = names(&format!("{key}.headers"), &table.headers, faults);
    let expose = names(&format!("{key}.expose"), &table.expose, faults);
    let max_age = Duration::from(table.max_age);
    if max_age > MAX_AGE {
        faults.fault("bad_value", &format!("{key}.max_age"), "more than a day", "at most \"24h\"");
    }
    Cors::new(CorsParts {
        name,
        origins: origins?,
        methods: methods?,
        headers: headers?,
        expose: expose?,
        credentials: table.credentials,
        max_age: max_age.as_secs(),
        private_network: table.private_network,
    })
}

fn origins(key: &str, table: &CorsSection, faults: &mut Faults<'_>) -> Option<Origins> {
    let at = format!("{key}.origins");
    let example = "for example [\"https://app.example.com\", \"https://*.preview.example.com\"]";
    if table.origins.is_empty() {
        faults.fault("missing_key", &at, "no origin", example);
        return None;
    }
    if table.origins.len() > ORIGINS_MAX {
        let found = format!("{} origins", table.origins.len());
        faults.fault("too_many", &at, found, format!("use at most {ORIGINS_MAX}"));
        return None;
    }
    if table.origins.iter().any(|origin| origin == "*") {
        if table.origins.len() > 1 {
            faults.fault("bad_value", &at, "\"*\" beside other origins", "\"*\" alone, or no \"*\"");
            return None;
        }
        if table.credentials {
            // With both, every page on the web could act as each visitor.
            faults.fault(
                "bad_value",
                &format!("{key}.credentials"),
                "requests with cookies of every origin",
                "list the origins, or leave `credentials` out",
            );
            return None;
        }
        return Some(Origins::Any);
    }
    let mut list = Vec::new();
    for (index, text) in table.origins.iter().enumerate() {
        match OriginPattern::parse(text) {
            Some(origin) => list.push(origin),
            None => {
                let hint = match OriginPattern::corrected(text) {
                    Some(origin) => format!("write \"{origin}\", as a browser sends it in Origin"),
                    None => format!("scheme, host and port as a browser sends them in Origin, {example}"),
                };
                faults.fault("bad_value", &format!("{at}[{index}]"), format!("\"{text}\""), hint);
            }
        }
    }
    (list.len() == table.origins.len()).then(|| Origins::Listed(list.into()))
}

/// Parses names of header fields. `*` is refused: browsers do not apply it to `Authorization` nor to requests with
/// credentials.
fn names(key: &str, written: &[String], faults: &mut Faults<'_>) -> Option<Vec<HeaderName>> {
    let mut names = Vec::new();
    for (index, text) in written.iter().enumerate() {
        match text.parse::<HeaderName>() {
            Ok(name) if text != "*" => names.push(name),
            Ok(_) | Err(_) => {
                let found = format!("\"{text}\" is not a header name");
                faults.fault(
                    "bad_header",
                    &format!("{key}[{index}]"),
                    found,
                    "for example \"X-Api-Version\"",
                );
            }
        }
    }
    (names.len() == written.len()).then_some(names)
}
