//! Defines findings about a policy. A finding has a place, a problem and a remedy.
//!
//! The modules that load, compile and review a policy create findings. Commands print them, and the gateway logs them.

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;

/// The place of a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of a file.
    Line {
        /// The path of the file, as the operator wrote it.
        file: String,
        /// The line, counted from 1.
        line: usize,
        /// The column in characters, counted from 1.
        column: usize,
    },
    /// A whole file.
    File(String),
    /// The environment variable with this name.
    Environment(String),
}

impl Place {
    /// Returns the place without line and column.
    #[must_use]
    pub fn whole(&self) -> Self {
        match self {
            Self::Line { file, .. } | Self::File(file) => Self::File(file.clone()),
            Self::Environment(name) => Self::Environment(name.clone()),
        }
    }

    /// Returns the sort key of a place: whole files, then lines, then environment variables.
    pub const fn order(&self) -> (usize, usize) {
        match self {
            Self::File(_) => (0, 0),
            Self::Line { line, column, .. } => (*line, *column),
            Self::Environment(_) => (usize::MAX, 0),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { file, line, column } => write!(f, "{}:{line}:{column}", Plain(file)),
            Self::File(file) => write!(f, "{}", Plain(file)),
            Self::Environment(name) => write!(f, "environment variable {}", Plain(name)),
        }
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(None)?;
        match self {
            Self::Line { file, line, column } => {
                map.serialize_entry("file", file)?;
                map.serialize_entry("line", line)?;
                map.serialize_entry("column", column)?;
            }
            Self::File(file) => map.serialize_entry("file", file)?,
            Self::Environment(name) => map.serialize_entry("environment", name)?,
        }
        map.end()
    }
}

/// Maximum number of reported faults, and of reported warnings of each kind. Many faults in a large policy usually have
/// one cause.
pub const REPORTED_MAX: usize = 100;

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The policy cannot be served.
    Fault,
    /// The policy can be served, but an operator should look at the finding.
    Warning,
}

/// A finding about a policy. A finding never contains a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The severity.
    pub severity: Severity,
    /// The stable id of this kind of finding.
    pub id: &'static str,
    /// The place of the finding.
    pub place: Place,
    /// The key of the finding, such as `route[3].upstream`.
    pub key: String,
    /// The problem.
    pub found: String,
    /// The remedy. Empty if `found` implies it.
    pub hint: String,
    /// The name that the policy uses but does not define. It is not printed. It shows whether another fault causes this
    /// finding.
    pub refers_to: Option<String>,
}

impl Diagnostic {
    /// The id of a finding that states how many findings are omitted.
    pub const MORE: &str = "more_findings";

    /// Creates a finding that states how many findings are omitted.
    pub fn more(severity: Severity, file: Place, found: String) -> Self {
        let hint = "fix these first; the others are reported once fewer are left".to_owned();
        Self { severity, id: Self::MORE, place: file, key: String::new(), found, hint, refers_to: None }
    }

    /// Returns the link to the explanation in the documentation.
    pub fn docs(&self) -> String {
        format!("docs/findings.md#{}", self.id)
    }

    /// Returns the command that prints the explanation, for operators without the documentation.
    pub fn help(&self) -> String {
        format!("portcullis help {}", self.id)
    }

    /// Returns the first [`REPORTED_MAX`] faults and the first [`REPORTED_MAX`] warnings of each kind, and the number
    /// of omitted findings. Many warnings of one kind do not hide a warning of another kind.
    pub fn bounded(found: Vec<Self>) -> Vec<Self> {
        let (mut reported, mut faults, mut last) = (Vec::new(), 0, None);
        let mut warnings: BTreeMap<&str, usize> = BTreeMap::new();
        for one in found {
            let count = match one.severity {
                _ if one.id == Self::MORE => &mut 0,
                Severity::Fault => &mut faults,
                Severity::Warning => warnings.entry(one.id).or_default(),
            };
            *count += 1;
            match *count > REPORTED_MAX {
                true => last = Some(one.place),
                false => reported.push(one),
            }
        }
        let omitted = |count: usize| count.saturating_sub(REPORTED_MAX);
        let warnings: usize = warnings.into_values().map(omitted).sum();
        for (severity, more, what) in
            [(Severity::Fault, omitted(faults), "fault"), (Severity::Warning, warnings, "warning")]
        {
            if let (1.., Some(place)) = (more, &last) {
                let found = format!("{more} more {what}{}", if more == 1 { "" } else { "s" });
                reported.push(Self::more(severity, place.whole(), found));
            }
        }
        reported
    }

    /// Counts the findings of this severity, except those with the id `MORE`.
    pub fn count(found: &[Self], severity: Severity) -> usize {
        found.iter().filter(|one| one.severity == severity && one.id != Self::MORE).count()
    }

    /// Returns the sort key of a finding: by place, with the id `MORE` last.
    pub fn order(&self) -> (bool, usize, usize) {
        let (line, column) = self.place.order();
        (self.id == Self::MORE, line, column)
    }
}

impl Serialize for Diagnostic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Diagnostic", 8)?;
        object.serialize_field("severity", &self.severity)?;
        object.serialize_field("id", self.id)?;
        object.serialize_field("place", &self.place)?;
        object.serialize_field("key", &Clipped(&self.key))?;
        object.serialize_field("found", &Clipped(&self.found))?;
        object.serialize_field("hint", &Clipped(&self.hint))?;
        object.serialize_field("docs", &self.docs())?;
        object.serialize_field("help", &self.help())?;
        object.end()
    }
}

impl fmt::Display for Diagnostic {
    /// Formats the finding on one line, such as
    /// `gateway.toml:12:5: fault: server.htps: unknown key; help: did you mean "https"? [portcullis help unknown_key]`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { severity, id, place, key, found, hint, refers_to: _ } = self;
        let severity = match severity {
            // This finding states how many findings are omitted. It has no severity.
            _ if *id == Self::MORE => "",
            Severity::Fault => "fault: ",
            Severity::Warning => "warning: ",
        };
        write!(f, "{place}: {severity}")?;
        if !key.is_empty() {
            write!(f, "{}: ", Plain(key))?;
        }
        write!(f, "{}", Plain(found))?;
        if !hint.is_empty() {
            write!(f, "; help: {}", Plain(hint))?;
        }
        write!(f, " [{}]", self.help())
    }
}

/// Formats text from the policy for one line of a log or a terminal. Escapes control characters and shortens long text.
struct Plain<'t>(&'t str);

/// Maximum length of displayed text, in characters. A list of all keys of a table fits.
const SHOWN_MAX: usize = 400;
/// Maximum length of text in JSON, in characters.
const SERIALIZED_MAX: usize = 4096;

struct Clipped<'t>(&'t str);

impl Serialize for Clipped<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.char_indices().nth(SERIALIZED_MAX) {
            Some((end, _)) => serializer.collect_str(&format_args!("{}…", &self.0[..end])),
            None => serializer.serialize_str(self.0),
        }
    }
}

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for (position, char) in self.0.chars().enumerate() {
            if position == SHOWN_MAX {
                return f.write_str("…");
            }
            // Characters that change the text direction could make a line look like other text.
            if char.is_control()
                || matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            {
                write!(f, "{}", char.escape_unicode())?;
            } else {
                f.write_char(char)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnostic(found: &str) -> Diagnostic {
        Diagnostic {
            severity: Severity::Fault,
            id: "unknown_key",
            place: Place::Line { file: "gateway.toml".to_owned(), line: 12, column: 5 },
            key: "server.htps".to_owned(),
            found: found.to_owned(),
            hint: "\"https\"".to_owned(),
            refers_to: None,
        }
    }

    #[test]
    fn a_finding_is_one_line_whatever_the_file_holds() {
        assert_eq!(
            diagnostic("unknown key").to_string(),
            "gateway.toml:12:5: fault: server.htps: unknown key; help: \"https\" [portcullis help unknown_key]"
        );
        let hostile = diagnostic("\u{1b}[31m\ngateway.toml: good\u{202e}").to_string();
        assert!(!hostile.contains(['\u{1b}', '\n', '\u{202e}']), "{hostile}");
        assert!(diagnostic(&"x".repeat(100_000)).to_string().len() < 1000);
    }

    #[test]
    fn a_finding_for_programs_is_bounded_too() {
        let json = serde_json::to_string(&diagnostic(&"\u{fc}".repeat(1_000_000))).unwrap();
        assert!(json.len() < 10_000, "{}", json.len());
        let whole = "\u{fc}".repeat(SERIALIZED_MAX);
        assert_eq!(serde_json::to_value(diagnostic(&whole)).unwrap()["found"], whole);
    }

    #[test]
    fn of_many_findings_the_first_are_listed_and_the_others_counted() {
        let of = |severity, count| vec![Diagnostic { severity, ..diagnostic("x") }; count];
        let said = |faults, warnings| {
            let found = [of(Severity::Fault, faults), of(Severity::Warning, warnings)].concat();
            let found = Diagnostic::bounded(found);
            let more: Vec<_> = found.iter().filter(|one| one.id == Diagnostic::MORE).collect();
            let count = |severity| Diagnostic::count(&found, severity);
            let more =
                more.into_iter().map(|one| (one.place.to_string(), one.found.clone())).collect::<Vec<_>>();
            (count(Severity::Fault), count(Severity::Warning), more)
        };
        let more = |text: &str| ("gateway.toml".to_owned(), text.to_owned());
        assert_eq!(said(100, 100), (100, 100, vec![]));
        assert_eq!(said(3, 101), (3, 100, vec![more("1 more warning")]));
        assert_eq!(said(150, 102), (100, 100, vec![more("50 more faults"), more("2 more warnings")]));
        // A warning of another kind is reported, however many warnings of the first kind there are.
        let other = Diagnostic { id: "long_leeway", severity: Severity::Warning, ..diagnostic("x") };
        let found = Diagnostic::bounded([of(Severity::Warning, 150), vec![other.clone()]].concat());
        assert_eq!((found.len(), &found[100]), (102, &other));
        // Bounding the result again does not change it.
        let once = Diagnostic::bounded(of(Severity::Fault, 150));
        assert_eq!(Diagnostic::bounded(once.clone()), once);
    }

    #[test]
    fn that_there_is_more_comes_last_and_is_not_counted() {
        let more = Diagnostic::more(Severity::Fault, Place::File("f".to_owned()), "2 more faults".to_owned());
        let mut found = [more.clone(), diagnostic("unknown key")];
        found.sort_by_key(Diagnostic::order);
        assert_eq!(found[1], more);
        assert_eq!(Diagnostic::count(&found, Severity::Fault), 1);
    }

    #[test]
    fn a_finding_for_programs_has_its_place_in_parts() {
        let json = serde_json::to_value(diagnostic("unknown key")).unwrap();
        assert_eq!(json["place"]["line"], 12);
        assert_eq!((&json["severity"], &json["id"]), (&"fault".into(), &"unknown_key".into()));
    }
}
