//! Loads a policy: merges the file and the environment, then deserializes the result.

use super::file::File;
use super::layer::{self, Excess, Merging};
use super::place::{self, Places};
use super::stable_file::{self, Unreadable};
use super::units::ByteSize;
use super::{environment, syntax, typed};
use crate::diagnostic::{Diagnostic, Place, Severity};
use figment::value::Dict;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use toml_edit::ImDocument;

/// Maximum size of a policy file. Ten thousand routes with as many tests take a third of it.
const FILE_MAX: ByteSize = ByteSize::bytes(16 << 20);

/// A loaded policy, with the places of its values for diagnostics.
#[derive(Debug)]
pub struct Loaded {
    /// The values of the policy.
    pub file: File,
    /// The places of the values.
    pub places: Places,
    /// The folder that relative paths start from.
    pub base: PathBuf,
    /// The path of the policy file, if the policy comes from a file.
    pub(crate) path: Option<PathBuf>,
    /// The variable that overrides each key, by key.
    pub(super) overrides: BTreeMap<String, String>,
}

/// Loads a policy file. Environment variables of this process override its values.
///
/// # Errors
/// Returns all faults.
pub fn load(path: &Path) -> Result<Loaded, Vec<Diagnostic>> {
    match survey(path) {
        (Some(loaded), faults) if faults.is_empty() => Ok(loaded),
        (_, faults) => Err(faults),
    }
}

/// Loads the parts of a policy file without faults, and returns the faults of the other parts. The compiler can then
/// report its faults at the same time. A policy with faults must not be served.
pub fn survey(path: &Path) -> (Option<Loaded>, Vec<Diagnostic>) {
    let name = path.display().to_string();
    let text = match read(&name, path) {
        Ok(text) => text,
        Err(faults) => return (None, faults),
    };
    let base = path.parent().map(Path::to_owned).unwrap_or_default();
    let (variables, mut faults) = variables(std::env::vars_os());
    let (loaded, more) = survey_text(&name, text, base, variables);
    faults.extend(more);
    (loaded.map(|loaded| Loaded { path: Some(path.to_owned()), ..loaded }), faults)
}

/// Selects the variables with the gateway's prefix. A variable that is not UTF-8 is a fault: if it were ignored, the
/// operator's value would silently have no effect.
pub(super) fn variables(
    all: impl Iterator<Item = (OsString, OsString)>,
) -> (Vec<(String, String)>, Vec<Diagnostic>) {
    let (mut variables, mut faults) = (Vec::new(), Vec::new());
    for (name, value) in all {
        let shown = name.to_string_lossy().into_owned();
        if !shown.starts_with(environment::PREFIX) {
            continue;
        }
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => variables.push((name, value)),
            _ if environment::is_service_link(&shown) => {}
            _ => {
                faults.push(environment::fault(&shown, "not_utf8", "not UTF-8".to_owned(), "use UTF-8"));
            }
        }
    }
    (variables, faults)
}

fn of_file(name: &str, id: &'static str, found: String, hint: &str) -> Diagnostic {
    let place = Place::File(name.to_owned());
    Diagnostic {
        severity: Severity::Fault,
        id,
        place,
        key: String::new(),
        found,
        hint: hint.to_owned(),
        refers_to: None,
    }
}

/// Reads the text of a policy file.
fn read(name: &str, path: &Path) -> Result<String, Vec<Diagnostic>> {
    let bytes = stable_file::read(path, FILE_MAX)
        .map_err(|Unreadable { found, hint }| vec![of_file(name, "cannot_read", found, hint)])?;
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(&error.as_bytes()[..good]);
        let found = format!("not UTF-8 at byte {good}");
        let mut fault = of_file(name, "cannot_read", found, "save the file as UTF-8, as TOML requires");
        fault.place = place::at_offset(name, &text, good);
        vec![fault]
    })
}

/// Loads a policy from text. `variables` override values of the text.
///
/// # Errors
/// Returns all faults.
pub fn load_text(
    name: &str,
    text: String,
    base: PathBuf,
    variables: Vec<(String, String)>,
) -> Result<Loaded, Vec<Diagnostic>> {
    match survey_text(name, text, base, variables) {
        (Some(loaded), faults) if faults.is_empty() => Ok(loaded),
        (_, faults) => Err(faults),
    }
}

/// Loads the parts of a policy's text without faults, and returns the faults of the other parts; see [`survey`].
pub fn survey_text(
    name: &str,
    text: String,
    base: PathBuf,
    variables: Vec<(String, String)>,
) -> (Option<Loaded>, Vec<Diagnostic>) {
    let (document, value, environment) = match layered(name, text, variables) {
        Ok(layers) => layers,
        Err(faults) => return (None, faults),
    };
    let places = Places::new(name, document, environment.keys);
    let mut faults = environment.faults;
    let (file, more) = typed::typed(value, &places);
    faults.extend(more);
    faults.sort_by_key(|fault| fault.order());
    (file.map(|file| Loaded { file, places, base, path: None, overrides: environment.values }), faults)
}

/// Parses the text, and overrides its values with the environment's values.
fn layered(
    name: &str,
    text: String,
    variables: Vec<(String, String)>,
) -> Result<(ImDocument<String>, Dict, environment::Environment), Vec<Diagnostic>> {
    if let Some((offset, excess)) = layer::excess(&text) {
        return Err(vec![too_much(place::at_offset(name, &text, offset), excess)]);
    }
    // The fault repeats the parser's message, but not the file's line, which may contain a secret.
    let document = ImDocument::parse(text.clone()).map_err(|error| {
        let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
        let stopped = error.span().map_or(0, |span| span.start);
        let syntax = syntax::explain(&text, stopped, &message);
        let mut fault = of_file(name, "bad_toml", syntax.found, &syntax.hint);
        fault.place = place::at_offset(name, &text, syntax.offset);
        vec![fault]
    })?;
    let written = layer::of_table(document.as_table(), &text, 0).map_err(|excess| {
        let place = match excess {
            Excess::Name(_, Some(offset)) => place::at_offset(name, &text, offset),
            Excess::Name(_, None) | Excess::Depth | Excess::Values => Place::File(name.to_owned()),
        };
        vec![too_much(place, excess)]
    })?;
    let environment = environment::read(variables, &written);
    // Merging copies both layers, so an empty environment is not merged.
    let merged = match environment.layer.is_empty() {
        true => written,
        false => written.merge_over(environment.layer.clone()),
    };
    Ok((document, merged, environment))
}

fn too_much(place: Place, excess: Excess) -> Diagnostic {
    let (id, found, hint) = match excess {
        Excess::Depth => ("too_deep", "nested deeper than any key of a policy".to_owned(), String::new()),
        Excess::Values => (
            "too_large",
            format!("more than {} keys, tables and list elements", layer::VALUES_MAX),
            "use fewer routes with wider patterns, or several gateways".to_owned(),
        ),
        Excess::Name(bytes, _) => {
            ("long_key", format!("a key of {bytes} bytes"), format!("use at most {} bytes", layer::NAME_MAX))
        }
    };
    Diagnostic { severity: Severity::Fault, id, place, key: String::new(), found, hint, refers_to: None }
}
