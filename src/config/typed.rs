//! Types out of values: every fault at once, each told in the words of the file.
//!
//! What serde cannot read is noted and taken out, and what stood beside it read again. The value of a key is told only where the
//! key's own parser tells it: a secret in the wrong place must not reach a log.

use super::file::File;
use super::known;
use super::layer;
use super::place::{Header, Places, nearest};
use crate::diagnostic::{Diagnostic, Severity, TOLD_MAX};
use serde::Deserialize;
use serde_json::{Map, Value};
use serde_path_to_error::Segment;

/// So many elements of a list are read at a time while faults are looked for. One that has a fault is read again, and
/// the others of its piece with it: ten thousand routes are not read a hundred times for a hundred faults.
const PIECE: usize = 64;
/// What separates, in a message of our own types, what was found from what would be right.
pub(super) const WANT: &str = "; want ";

/// Reads the types out of a value: what can be read of it, and what is wrong with the rest. No file where there are too
/// many faults to go on.
pub(super) fn typed(mut value: Value, places: &Places) -> (Option<File>, Vec<Diagnostic>) {
    if let Ok(file) = File::deserialize(&value) {
        return (Some(file), Vec::new());
    }
    let mut reading = Reading { places, faults: Vec::new() };
    let mut file = None;
    // No table minds what stands beside it, so that the whole of sound pieces is sound, and is read once.
    if reading.clear_pieces(&mut value).is_some() {
        file = reading.clear(&mut value, 0);
    }
    (file, reading.faults)
}

/// The search for what cannot be read.
struct Reading<'p> {
    places: &'p Places,
    faults: Vec<Diagnostic>,
}

impl Reading<'_> {
    /// Takes out what cannot be read of a file, list by list and table by table, some elements at a time.
    fn clear_pieces(&mut self, value: &mut Value) -> Option<()> {
        let Value::Object(file) = value else { return Some(()) };
        let keys: Vec<String> = file.keys().cloned().collect();
        for key in keys {
            let Some(whole) = file.remove(&key) else { continue };
            if let Some(sound) = self.sound(&key, whole)? {
                file.insert(key, sound);
            }
        }
        Some(())
    }

    /// What can be read under a key of the file; `None` within for a key that is at fault itself.
    fn sound(&mut self, key: &str, whole: Value) -> Option<Option<Value>> {
        let piece = |value: Value| Value::Object([(key.to_owned(), value)].into_iter().collect());
        let (mut list, mut table) = (Vec::new(), Map::new());
        match whole {
            Value::Array(elements) if !elements.is_empty() => {
                let (mut start, mut rest) = (0, elements.into_iter());
                while rest.len() > 0 {
                    let some: Vec<Value> = rest.by_ref().take(PIECE).collect();
                    let count = some.len();
                    let mut piece = piece(Value::Array(some));
                    self.clear(&mut piece, start)?;
                    let Value::Array(sound) = piece[key].take() else { return Some(None) };
                    list.extend(sound);
                    start += count;
                }
                Some(Some(Value::Array(list)))
            }
            Value::Object(entries) if !entries.is_empty() => {
                let mut rest = entries.into_iter();
                while rest.len() > 0 {
                    let mut piece = piece(Value::Object(rest.by_ref().take(PIECE).collect()));
                    self.clear(&mut piece, 0)?;
                    let Value::Object(sound) = piece[key].take() else { return Some(None) };
                    table.extend(sound);
                }
                Some(Some(Value::Object(table)))
            }
            other => {
                let mut piece = piece(other);
                self.clear(&mut piece, 0)?;
                Some(piece.get_mut(key).map(Value::take))
            }
        }
    }

    /// The message for a table whose header has the other form: `[route]` for `[[route]]`.
    fn header(&self, key: &str, expected: &str) -> Option<(String, String)> {
        match (self.places.header(key)?, expected) {
            (Header::Table, "a list") => {
                Some((format!("[{key}] is one table"), format!("write [[{key}]]: each is one of a list")))
            }
            (Header::List, "a table") => {
                Some((format!("[[{key}]] is a list of tables"), format!("write [{key}]: there is one")))
            }
            (Header::Table | Header::List, _) => None,
        }
    }

    /// Takes out what cannot be read of a file, or of a piece of one: then the list in it begins with this element.
    fn clear(&mut self, piece: &mut Value, start: usize) -> Option<File> {
        let mut gone = Gone::default();
        loop {
            let error = match serde_path_to_error::deserialize::<_, File>(&*piece) {
                Ok(file) => return Some(file),
                Err(error) => error,
            };
            if self.faults.len() == TOLD_MAX {
                let found = format!("more faults than these {TOLD_MAX}");
                self.faults.push(Diagnostic::more(Severity::Fault, self.places.whole(), found));
                return None;
            }
            let path: Vec<Step> = error.path().iter().filter_map(step).collect();
            let (mut written, culprit, said) = describe(&error.inner().to_string(), path, &gone);
            if let Some(Step::Index(index)) = written.get_mut(1) {
                *index += start;
            }
            let key = key_of(&written);
            let (place, Said { id, mut found, mut hint }) = (self.places.of(&key), said);
            if let Some((seen, meant)) = self.header(&key, &hint) {
                (found, hint) = (seen, meant);
            }
            self.faults.push(Diagnostic { severity: Severity::Fault, id, place, key, found, hint });
            if !take_out(piece, &culprit) {
                return None;
            }
            gone.note(&culprit);
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

/// Elements that were taken out of lists: their successors have moved up since the file was written.
#[derive(Default)]
struct Gone(Vec<(Vec<Step>, usize)>);

impl Gone {
    /// A path of now in terms of the file.
    fn written(&self, path: &[Step]) -> Vec<Step> {
        let mut written = Vec::with_capacity(path.len());
        for step in path {
            let step = match step {
                Step::Name(name) => Step::Name(name.clone()),
                Step::Index(now) => {
                    let mut before: Vec<usize> =
                        self.0.iter().filter(|(list, _)| *list == written).map(|(_, index)| *index).collect();
                    before.sort_unstable();
                    Step::Index(before.iter().fold(*now, |index, gone| index + usize::from(*gone <= index)))
                }
            };
            written.push(step);
        }
        written
    }

    fn note(&mut self, path: &[Step]) {
        if let Some((Step::Index(index), list)) = self.written(path).split_last() {
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

/// What is said of a fault.
struct Said {
    id: &'static str,
    found: String,
    hint: String,
}

/// A fault out of serde's words for it: its path in the file, that of what has to be taken out, and what is said of it.
fn describe(message: &str, mut path: Vec<Step>, gone: &Gone) -> (Vec<Step>, Vec<Step>, Said) {
    let (id, found, hint);
    if let Some((name, siblings)) = names_in(message, "unknown field `", &path) {
        if path.last() != Some(&Step::Name(name.clone())) {
            path.push(Step::Name(name.clone()));
        }
        id = "unknown_key";
        found = "unknown key".to_owned();
        hint = known::help(&name, &siblings);
    } else if let Some((name, known)) = names_in(message, "unknown variant `", &[]) {
        id = "bad_value";
        found = format!("{name:?}");
        hint = match nearest(&name, &known) {
            Some(near) if known.len() > 1 => format!("\"{near}\"; known are {}", known.join(", ")),
            Some(near) => format!("\"{near}\""),
            None => format!("one of {}", known.join(", ")),
        };
    } else if let Some((what, want)) = message.rsplit_once(WANT) {
        id = "bad_value";
        (found, hint) = (what.to_owned(), want.to_owned());
    } else if let Some((what, want)) = message.rsplit_once(", expected ") {
        id = "bad_type";
        (found, hint) = (unexpected(what, &path), expected(want));
    } else {
        id = "bad_value";
        (found, hint) = (message.to_owned(), String::new());
    }
    (gone.written(&path), path, Said { id, found, hint })
}

/// The name that serde did not know, and those that it would have: "unknown field `x`, expected one of `a`, `b`". The
/// name may hold what it likes, backticks too; the known names are ours.
fn names_in<'m>(message: &'m str, before: &str, path: &[Step]) -> Option<(String, Vec<&'m str>)> {
    let rest = message.strip_prefix(before)?;
    let (name, known) =
        rest.rsplit_once("`, expected ").or_else(|| rest.rsplit_once("`, there are no fields"))?;
    let name = match path.last() {
        // The path ends at the unknown key itself: its name, unharmed.
        Some(Step::Name(last)) if last == name => last.clone(),
        _ => name.to_owned(),
    };
    Some((name, known.split('`').skip(1).step_by(2).collect()))
}

/// What serde found, in the words of TOML; text is not repeated, nor anything under a key that may hold a secret.
fn unexpected(what: &str, path: &[Step]) -> String {
    let what = what.trim_start_matches("invalid type: ").trim_start_matches("invalid value: ");
    let is_secret = path.iter().any(|step| match step {
        Step::Name(name) => {
            ["secret", "key", "password", "token"].iter().any(|word| name.to_ascii_lowercase().contains(word))
        }
        Step::Index(_) => false,
    });
    let (kind, value) = what.split_once(' ').unwrap_or((what, ""));
    let scalar = |kind: &str| {
        let value = if is_secret { "(not shown)" } else { value.trim_matches('`') };
        format!("{kind} {value}")
    };
    match kind {
        "string" => "text".to_owned(),
        "integer" => scalar("the number"),
        "boolean" => scalar("the boolean"),
        "map" => "a table".to_owned(),
        "sequence" => "a list".to_owned(),
        _ => "a value of another kind".to_owned(),
    }
}

/// What serde wanted, in the words of TOML.
fn expected(want: &str) -> String {
    match want {
        "usize" | "u64" | "u32" | "u16" => "a whole number, such as 100".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a string" => "text in quotes".to_owned(),
        "a map" => "a table".to_owned(),
        "a sequence" => "a list".to_owned(),
        _ if want.starts_with("enum ") || want.contains("variant") => "text in quotes".to_owned(),
        _ if want.starts_with("struct ") => "a table".to_owned(),
        _ => want.to_owned(),
    }
}

/// Takes a value out, so that the rest can be read.
fn take_out(value: &mut Value, path: &[Step]) -> bool {
    let Some((last, way)) = path.split_last() else { return false };
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
    match (last, here) {
        (Step::Name(name), Value::Object(table)) => table.remove(name).is_some(),
        (Step::Index(index), Value::Array(list)) if *index < list.len() => {
            list.remove(*index);
            true
        }
        _ => false,
    }
}
