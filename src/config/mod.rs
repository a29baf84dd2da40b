//! What the operator wrote: built-in defaults, then gateway.toml, then the environment.
//!
//! All faults of a file are found in one reading: a key that cannot be read is noted, taken out, and the rest read
//! again.

pub mod file;
pub mod place;
pub mod units;

pub use place::Places;

use crate::diagnostic::{Diagnostic, Place, Severity};
use figment::Figment;
use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Value as Layered};
use file::File;
use serde_json::Value;
use serde_path_to_error::Segment;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use toml_edit::ImDocument;

/// What the environment's variables begin with.
const PREFIX: &str = "PORTCULLIS_";
/// What stands for a dot in a variable's name.
const NESTING: &str = "__";
/// The largest file that is read.
const FILE_MAX: u64 = 16 << 20;
/// After so many faults the rest is left for the next reading.
const FAULTS_MAX: usize = 100;

/// A file that was read, and what is needed to speak of it.
#[derive(Debug)]
pub struct Loaded {
    /// What it says.
    pub file: File,
    /// Where it says so.
    pub places: Places,
    /// The folder that paths in it are relative to.
    pub base: PathBuf,
}

/// Reads a policy file, with the environment of this process over it.
///
/// # Errors
/// All its faults.
pub fn load(path: &Path) -> Result<Loaded, Vec<Diagnostic>> {
    let name = path.display().to_string();
    let text = read(path).map_err(|(found, hint)| vec![of_file(&name, "cannot_read", found, hint)])?;
    let base = path.parent().map(Path::to_owned).unwrap_or_default();
    let environment = std::env::vars_os().filter_map(|(name, value)| Some((plain(name)?, plain(value)?)));
    load_text(&name, text, base, environment.collect())
}

fn plain(text: OsString) -> Option<String> {
    text.into_string().ok()
}

fn of_file(name: &str, id: &'static str, found: String, hint: &str) -> Diagnostic {
    let place = Place::File(name.to_owned());
    Diagnostic { severity: Severity::Fault, id, place, key: String::new(), found, hint: hint.to_owned() }
}

fn read(path: &Path) -> Result<String, (String, &'static str)> {
    let cannot =
        |error: std::io::Error| (error.to_string(), "a file that can be read; --config FILE names another");
    // Looked at before it is opened: opening a FIFO would wait for its writer.
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err(("not a file".to_owned(), "a file; --config FILE names another"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(cannot)?.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(("larger than 16MiB".to_owned(), "a smaller file"));
    }
    String::from_utf8(bytes).map_err(|error| {
        (
            format!("not UTF-8 at byte {}", error.utf8_error().valid_up_to()),
            "a text file in UTF-8, as TOML is",
        )
    })
}

/// Reads a policy from text, with the variables of an environment over it.
///
/// # Errors
/// All its faults.
pub fn load_text(
    name: &str,
    text: String,
    base: PathBuf,
    environment: Vec<(String, String)>,
) -> Result<Loaded, Vec<Diagnostic>> {
    let document = ImDocument::parse(text.clone()).map_err(|error| {
        let mut fault = of_file(name, "bad_toml", one_line(error.message()), "TOML 1.0");
        if let Some(span) = error.span() {
            fault.place = place::at_offset(name, &text, span.start);
        }
        vec![fault]
    })?;
    let (layer, overridden) = environment_layer(environment);
    let merged = Figment::from(Toml::string(document.raw())).merge(Serialized::globals(layer));
    let value: Value = merged
        .extract()
        .map_err(|error| vec![of_file(name, "bad_toml", one_line(&error.to_string()), "TOML 1.0")])?;
    let places = Places::new(name, document, overridden);
    let file = typed(value, &places)?;
    Ok(Loaded { file, places, base })
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The environment's variables as a layer of the policy: `PORTCULLIS_SERVER__HTTPS` is `server.https`. A variable
/// without a nested name is not ours: container platforms make `PORTCULLIS_PORT` and the like out of a service's name.
fn environment_layer(environment: Vec<(String, String)>) -> (Dict, Vec<(String, String)>) {
    let mut layer = Figment::new();
    let mut overridden = Vec::new();
    for (name, text) in environment {
        let Some(key) = name.strip_prefix(PREFIX).filter(|key| key.contains(NESTING)) else { continue };
        let key = key.to_lowercase().replace(NESTING, ".");
        // Numbers, booleans and lists are read as in TOML; whatever is none of them is text. This cannot fail.
        let value: Layered = text.parse().unwrap_or_else(|never: std::convert::Infallible| match never {});
        layer = layer.merge((key.clone(), value));
        overridden.push((key, name));
    }
    (layer.extract().unwrap_or_default(), overridden)
}

/// Reads the types out of a value, noting and taking out each key that cannot be read.
fn typed(mut value: Value, places: &Places) -> Result<File, Vec<Diagnostic>> {
    let mut faults = Vec::new();
    loop {
        let error = match serde_path_to_error::deserialize::<_, File>(value.clone()) {
            Ok(file) if faults.is_empty() => return Ok(file),
            Ok(_) => return Err(faults),
            Err(error) => error,
        };
        let path: Vec<Step> = error.path().iter().filter_map(step).collect();
        let (fault, culprit) = describe(&error.inner().to_string(), path, places);
        faults.push(fault);
        if faults.len() >= FAULTS_MAX || !take_out(&mut value, &culprit) {
            return Err(faults);
        }
    }
}

/// One step from the file to a value in it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Name(String),
    Index(usize),
}

fn step(segment: &Segment) -> Option<Step> {
    match segment {
        Segment::Map { key } => Some(Step::Name(key.clone())),
        Segment::Seq { index } => Some(Step::Index(*index)),
        Segment::Enum { .. } | Segment::Unknown => None,
    }
}

fn written(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Name(name) if text.is_empty() => text.push_str(name),
            Step::Name(name) => text.extend([".", name]),
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// A fault out of serde's words for it, and the path of what has to be taken out.
fn describe(message: &str, mut path: Vec<Step>, places: &Places) -> (Diagnostic, Vec<Step>) {
    let (id, found, hint);
    if let Some((name, known)) = names_in(message, "unknown field `") {
        if path.last() != Some(&Step::Name(name.to_owned())) {
            path.push(Step::Name(name.to_owned()));
        }
        id = "unknown_key";
        found = "unknown key".to_owned();
        hint = match place::nearest(name, &known) {
            Some(near) => format!("\"{near}\", the nearest known key"),
            None => format!("one of {}", known.join(", ")),
        };
    } else if let Some((name, known)) = names_in(message, "unknown variant `") {
        id = "bad_value";
        found = format!("\"{name}\"");
        hint = match place::nearest(name, &known) {
            Some(near) => format!("\"{near}\"; known are {}", known.join(", ")),
            None => format!("one of {}", known.join(", ")),
        };
    } else if let Some((what, want)) = message.split_once("; want ") {
        id = "bad_value";
        (found, hint) = (what.to_owned(), want.to_owned());
    } else if let Some((what, want)) = message.split_once(", expected ") {
        id = "bad_type";
        found = what.trim_start_matches("invalid type: ").trim_start_matches("invalid value: ").to_owned();
        hint = want.to_owned();
    } else {
        id = "bad_value";
        (found, hint) = (one_line(message), String::new());
    }
    let key = written(&path);
    let place = places.of(&key);
    (Diagnostic { severity: Severity::Fault, id, place, key, found, hint }, path)
}

/// The name that serde did not know, and those that it would have: "… `x`, expected one of `a`, `b`".
fn names_in<'m>(message: &'m str, before: &str) -> Option<(&'m str, Vec<&'m str>)> {
    let (name, rest) = message.split_once(before)?.1.split_once("`, ")?;
    Some((name, rest.split('`').skip(1).step_by(2).collect()))
}

/// Takes a value out, so that the rest can be read. An element of a list takes its list with it: the others would
/// change their places, by which faults are told.
fn take_out(value: &mut Value, path: &[Step]) -> bool {
    let end = path.iter().rposition(|step| matches!(step, Step::Name(_)));
    let Some((Step::Name(last), way)) = end.and_then(|end| path[..=end].split_last()) else { return false };
    let mut here = value;
    for step in way {
        let next = match (step, here) {
            (Step::Name(name), Value::Object(table)) => table.get_mut(name),
            (Step::Index(index), Value::Array(list)) => list.get_mut(*index),
            _ => None,
        };
        let Some(next) = next else { return false };
        here = next;
    }
    here.as_object_mut().is_some_and(|table| table.remove(last).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, environment: &[(&str, &str)]) -> Result<Loaded, Vec<String>> {
        let environment = environment.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        load_text("gateway.toml", text.to_owned(), PathBuf::new(), environment)
            .map_err(|faults| faults.iter().map(ToString::to_string).collect())
    }

    fn faults(text: &str, environment: &[(&str, &str)]) -> Vec<String> {
        read(text, environment).expect_err("the text has faults")
    }

    #[test]
    fn an_empty_file_is_all_defaults() {
        let file = read("", &[]).unwrap().file;
        assert_eq!(file.server.https.addresses()[0].port(), 8443);
        assert_eq!(file.server.bounds.headers, 100);
        assert!(file.route.is_empty());
    }

    #[test]
    fn all_faults_are_told_at_once_each_with_its_place_and_its_remedy() {
        let text = "[server]\nhtps = \"127.0.0.1:1\"\ndrain = \"30\"\nplain = \"redirct\"\n\n[[route]]\npath = \"/\"\n\n[[route]]\nacess = \"public\"\nroles = { a = 1 }\n";
        let found = faults(text, &[]);
        for expected in [
            "gateway.toml:2:1: server.htps: unknown key; right would be: \"https\"",
            "gateway.toml:3:1: server.drain: \"30\": a number without a unit; right would be: a whole number and a unit",
            "gateway.toml:4:1: server.plain: \"redirct\"; right would be: \"redirect\"",
            "gateway.toml:10:1: route[1].acess: unknown key; right would be: \"access\"",
            "gateway.toml:11:1: route[1].roles: map; right would be: text or a list of texts",
        ] {
            assert!(found.iter().any(|fault| fault.starts_with(expected)), "{expected}\n{found:#?}");
        }
        assert_eq!(found.len(), 5, "{found:#?}");
    }

    #[test]
    fn the_environment_lies_over_the_file() {
        let file = read(
            "[server]\nworkers = 1\n",
            &[
                ("PORTCULLIS_SERVER__WORKERS", "3"),
                ("PORTCULLIS_SERVER__BOUNDS__STREAMS", "7"),
                ("PORTCULLIS_SERVER__TRUSTED_PROXIES", "[\"10.0.0.0/8\"]"),
                ("PORTCULLIS_AUTHORITY__ISSUER", "12345"),
                ("PORTCULLIS_PORT", "tcp://10.0.0.1:80"),
                ("OTHER_SERVER__WORKERS", "9"),
            ],
        );
        let file = file.unwrap().file;
        assert_eq!((file.server.workers, file.server.bounds.streams), (3, 7));
        assert_eq!(file.server.trusted_proxies.len(), 1);
        assert_eq!(file.authority.unwrap().issuer, "12345", "digits are text where text is wanted");
    }

    #[test]
    fn a_variable_that_names_nothing_is_a_fault_of_its_own() {
        let found = faults("", &[("PORTCULLIS_SERVER__HTPS", "x")]);
        assert!(
            found[0].starts_with("environment variable PORTCULLIS_SERVER__HTPS: server.htps: unknown key"),
            "{found:?}"
        );
    }

    #[test]
    fn a_text_that_is_no_toml_is_told_by_line() {
        let found = faults("[server]\nhttps = \n", &[]);
        assert!(found[0].starts_with("gateway.toml:2:"), "{found:?}");
        assert_eq!(faults("a = 1\na = 2\n", &[]).len(), 1);
    }

    #[test]
    fn a_secret_is_not_told() {
        for text in ["[authority]\nsecret = [\"hush\"]\n", "[[issuer]]\nsecret = { hush = 1 }\n"] {
            assert!(!faults(text, &[])[0].contains("hush"), "{text}");
        }
    }

    #[test]
    fn what_is_no_file_of_text_is_refused() {
        let dir = std::env::temp_dir().join(format!("portcullis-config-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("latin1"), b"# caf\xe9\n").unwrap();
        for (path, what) in [("none", "No such file"), (".", "not a file"), ("latin1", "not UTF-8 at byte 5")]
        {
            let found = load(&dir.join(path)).unwrap_err();
            assert!(found[0].to_string().contains(what), "{path}: {found:?}");
        }
        assert!(load(Path::new("/dev/null")).is_err(), "a device could be without end");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn deep_nesting_is_refused_and_not_followed() {
        let deep = format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(read(&deep, &[]).is_err());
    }
}
