//! Deserializes the merged layers into a [`File`], and reports all faults at once, in TOML's terms.
//!
//! A faulty value is reported and removed, and the rest is deserialized again. Only an error of the key's parser may
//! contain the value. Other messages omit the value, because it may be a secret under a wrong key.

use super::file::File;
use super::known;
use super::layer;
use super::place::{Header, Places, nearest};
use crate::diagnostic::{Diagnostic, REPORTED_MAX, Severity};
use figment::Error;
use figment::error::{Actual, Kind};
use figment::value::{Dict, Value};
use serde::Deserialize;

/// Number of list elements that are deserialized together. After a fault, only the chunk with the fault is deserialized
/// again. A hundred faults among ten thousand routes therefore do not cause a hundred passes over the whole file.
const CHUNK: usize = 64;

/// Deserializes the file without its faulty parts, and returns the faults. Returns no file if there are too many
/// faults.
pub(super) fn typed(layers: Dict, places: &Places) -> (Option<File>, Vec<Diagnostic>) {
    let mut value = Value::from(layers);
    if let Ok(file) = File::deserialize(&value) {
        return (Some(file), Vec::new());
    }
    let mut search = FaultSearch { places, faults: Vec::new() };
    let mut file = None;
    // Sections do not depend on one another, so one final pass over the clean chunks is enough.
    if search.clean_in_chunks(&mut value).is_some() {
        file = search.clean(&mut value, 0);
    }
    (file, search.faults)
}

/// The search for values that cannot be deserialized. The methods return `None` if there are too many such values.
struct FaultSearch<'p> {
    places: &'p Places,
    faults: Vec<Diagnostic>,
}

impl FaultSearch<'_> {
    /// Removes every faulty value of a file, chunk by chunk.
    fn clean_in_chunks(&mut self, value: &mut Value) -> Option<()> {
        let Value::Dict(_, file) = value else { return Some(()) };
        for (key, section) in std::mem::take(file) {
            if let Some(clean) = self.clean_section(&key, section)? {
                file.insert(key, clean);
            }
        }
        Some(())
    }

    /// Removes the faulty values of a top-level key. Returns `Some(None)` if the key itself is faulty.
    fn clean_section(&mut self, key: &str, section: Value) -> Option<Option<Value>> {
        match section {
            Value::Array(_, elements) if !elements.is_empty() => {
                let (mut clean, mut start) = (Vec::new(), 0);
                let mut rest = elements.into_iter();
                while rest.len() > 0 {
                    let chunk: Vec<Value> = rest.by_ref().take(CHUNK).collect();
                    let count = chunk.len();
                    let Some(Value::Array(_, chunk)) = self.clean_chunk(key, chunk.into(), start)? else {
                        return Some(None);
                    };
                    clean.extend(chunk);
                    start += count;
                }
                Some(Some(clean.into()))
            }
            Value::Dict(_, entries) if !entries.is_empty() => {
                let mut clean = Dict::new();
                let mut rest = entries.into_iter();
                while rest.len() > 0 {
                    let chunk: Dict = rest.by_ref().take(CHUNK).collect();
                    let Some(Value::Dict(_, chunk)) = self.clean_chunk(key, chunk.into(), 0)? else {
                        return Some(None);
                    };
                    clean.extend(chunk);
                }
                Some(Some(clean.into()))
            }
            other => self.clean_chunk(key, other, 0),
        }
    }

    fn clean_chunk(&mut self, key: &str, chunk: Value, start: usize) -> Option<Option<Value>> {
        let mut file = Value::from(Dict::from([(key.to_owned(), chunk)]));
        self.clean(&mut file, start)?;
        let Value::Dict(_, mut file) = file else { return Some(None) };
        Some(file.remove(key))
    }

    /// Removes every faulty value of a file or chunk. `start` is the position of the chunk's first element in the
    /// file's list.
    fn clean(&mut self, chunk: &mut Value, start: usize) -> Option<File> {
        let mut removed = RemovedElements::default();
        loop {
            let error = match File::deserialize(&*chunk) {
                Ok(file) => return Some(file),
                Err(error) => error,
            };
            if self.faults.len() == REPORTED_MAX {
                let found = format!("more than {REPORTED_MAX} faults");
                self.faults.push(Diagnostic::more(Severity::Fault, self.places.whole(), found));
                return None;
            }
            let path = steps(chunk, &error.path);
            let mut original = removed.original(&path);
            if let Some(Step::Index(index)) = original.get_mut(1) {
                *index += start;
            }
            let key = key_of(&original);
            let place = self.places.of(&key);
            let Description { id, found, hint } =
                self.wrong_header(&key, &error.kind).unwrap_or_else(|| describe(error, &path));
            self.faults.push(Diagnostic {
                severity: Severity::Fault,
                id,
                place,
                key,
                found,
                hint,
                refers_to: None,
            });
            if !remove(chunk, &path) {
                return None;
            }
            removed.note(&path);
        }
    }

    /// Describes a header in the wrong form, such as `[route]` for `[[route]]`.
    fn wrong_header(&self, key: &str, kind: &Kind) -> Option<Description> {
        let Kind::InvalidType(_, expected) = kind else { return None };
        let (found, hint) = match (self.places.header(key)?, expectation(expected)) {
            (Header::Table, "a list") => {
                (format!("[{key}] is one table"), format!("write [[{key}]]: it is a list of tables"))
            }
            (Header::List, "a table") => {
                (format!("[[{key}]] is a list of tables"), format!("write [{key}]: there can be only one"))
            }
            _ => return None,
        };
        Some(Description { id: "bad_type", found, hint })
    }
}

/// One step of the path from the file to a value in it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Name(String),
    Index(usize),
}

/// Converts a path from figment to steps. Figment writes the position in a list as text.
fn steps(value: &Value, path: &[String]) -> Vec<Step> {
    let mut here = Some(value);
    let step = |segment: &String| {
        let (step, next) = match (here, segment.parse()) {
            (Some(Value::Array(_, list)), Ok(index)) => (Step::Index(index), list.get(index)),
            (Some(Value::Dict(_, table)), _) => (Step::Name(segment.clone()), table.get(segment)),
            _ => (Step::Name(segment.clone()), None),
        };
        here = next;
        step
    };
    path.iter().map(step).collect()
}

/// Elements that were removed from lists, each with its original position. A removal moves later elements to lower
/// positions.
#[derive(Default)]
struct RemovedElements(Vec<(Vec<Step>, usize)>);

impl RemovedElements {
    /// Returns the path that the value at this path had before any removal.
    fn original(&self, path: &[Step]) -> Vec<Step> {
        let mut original = Vec::with_capacity(path.len());
        for step in path {
            let step = match step {
                Step::Name(name) => Step::Name(name.clone()),
                Step::Index(now) => {
                    let in_list = self.0.iter().filter(|(list, _)| *list == original);
                    let mut removed: Vec<usize> = in_list.map(|(_, index)| *index).collect();
                    removed.sort_unstable();
                    Step::Index(removed.iter().fold(*now, |index, gone| index + usize::from(*gone <= index)))
                }
            };
            original.push(step);
        }
        original
    }

    fn note(&mut self, path: &[Step]) {
        if let Some((Step::Index(index), list)) = self.original(path).split_last() {
            self.0.push((list.to_vec(), *index));
        }
    }
}

fn key_of(path: &[Step]) -> String {
    path.iter().fold(String::new(), |key, step| match step {
        Step::Name(name) => layer::join(&key, name),
        Step::Index(index) => format!("{key}[{index}]"),
    })
}

/// Removes the value at a path. Returns whether the path had a value.
fn remove(value: &mut Value, path: &[Step]) -> bool {
    let Some((last, parents)) = path.split_last() else { return false };
    let mut here = value;
    for step in parents {
        let next = match (step, here) {
            (Step::Name(name), Value::Dict(_, table)) => table.get_mut(name),
            (Step::Index(index), Value::Array(_, list)) => list.get_mut(*index),
            _ => None,
        };
        let Some(next) = next else { return false };
        here = next;
    }
    match (last, here) {
        (Step::Name(name), Value::Dict(_, table)) => table.remove(name).is_some(),
        (Step::Index(index), Value::Array(_, list)) if *index < list.len() => {
            list.remove(*index);
            true
        }
        _ => false,
    }
}

/// The description of a fault.
struct Description {
    id: &'static str,
    found: String,
    hint: String,
}

/// Describes why a value cannot be deserialized.
fn describe(error: Error, path: &[Step]) -> Description {
    let (id, found, hint) = match error.kind {
        Kind::UnknownField(name, siblings) => {
            ("unknown_key", "unknown key".to_owned(), known::help(&name, siblings))
        }
        Kind::UnknownVariant(name, known) => {
            let hint = match nearest(&name, known) {
                Some(near) if known.len() > 1 => {
                    format!("did you mean \"{near}\"? known values: {}", known.join(", "))
                }
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("known values: {}", known.join(", ")),
            };
            ("bad_value", format!("unknown value {name:?}"), hint)
        }
        // The key's own parser returned this `ValueError`.
        Kind::InvalidValue(Actual::Other(found), expected) => {
            ("bad_value", found, format!("write {expected}"))
        }
        Kind::InvalidType(actual, expected) | Kind::InvalidValue(actual, expected) => {
            let found = format!("expected {}, found {}", expectation(&expected), in_toml(&actual, path));
            ("bad_type", found, String::new())
        }
        other => ("bad_value", other.to_string(), String::new()),
    };
    Description { id, found, hint }
}

/// Describes the value in TOML's terms. The description contains neither text nor a value that may be secret.
fn in_toml(actual: &Actual, path: &[Step]) -> String {
    let is_secret = path.iter().any(|step| match step {
        Step::Name(name) => {
            ["secret", "key", "password", "token"].iter().any(|word| name.to_ascii_lowercase().contains(word))
        }
        Step::Index(_) => false,
    });
    let scalar = |kind: &str, value: &dyn std::fmt::Display| match is_secret {
        true => format!("{kind} (not shown)"),
        false => format!("{kind} {value}"),
    };
    match actual {
        Actual::Str(_) => "text".to_owned(),
        Actual::Unsigned(number) => scalar("the number", number),
        Actual::Signed(number) => scalar("the number", number),
        Actual::Bool(flag) => scalar("the boolean", flag),
        Actual::Map => "a table".to_owned(),
        Actual::Seq => "a list".to_owned(),
        _ => "a value of another type".to_owned(),
    }
}

/// Translates an expectation of serde into TOML's terms. This crate's own readers already use these terms.
fn expectation(expected: &str) -> &str {
    match expected {
        "usize" | "u64" | "u32" | "u16" => "a whole number",
        "a boolean" => "true or false",
        "a string" => "text in quotes",
        "a map" => "a table",
        "a sequence" => "a list",
        _ if expected.starts_with("struct ") => "a table",
        _ => expected,
    }
}
