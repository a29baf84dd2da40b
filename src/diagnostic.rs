//! One finding about a policy: where it stands, what was found, and what helps.
//!
//! A leaf: the modules that read and compile a policy make findings; commands and logs show them.

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file, both counted from 1.
    Line {
        /// The file, as it was named.
        file: String,
        /// Line.
        line: usize,
        /// Column, in characters.
        column: usize,
    },
    /// In the file as a whole.
    File(String),
    /// In the environment variable of this name.
    Environment(String),
}

impl Place {
    /// The file, or the variable, as a whole.
    #[must_use]
    pub fn whole(&self) -> Self {
        match self {
            Self::Line { file, .. } | Self::File(file) => Self::File(file.clone()),
            Self::Environment(name) => Self::Environment(name.clone()),
        }
    }

    /// Where it comes when findings are told in order: the file from its top, then the environment.
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

/// More faults than this are not told one by one, nor more warnings where people read them: what is wrong with ten
/// thousand routes is most often one thing.
pub const REPORTED_MAX: usize = 100;

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The policy cannot be obeyed.
    Fault,
    /// It can, but an operator should look at this.
    Warning,
}

/// One finding. Never holds the value of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How grave it is.
    pub severity: Severity,
    /// A stable word for this kind of finding.
    pub id: &'static str,
    /// Where it stands.
    pub place: Place,
    /// The key that it is about, such as `route[3].upstream`.
    pub key: String,
    /// What was found.
    pub found: String,
    /// What was expected or what to do; may be empty where `found` says all.
    pub hint: String,
    /// The name that the policy refers to and does not define. Not shown: it tells whether another fault is the cause.
    pub refers_to: Option<String>,
}

impl Diagnostic {
    /// The word for a finding that there are more of them than are told.
    pub const MORE: &str = "more_findings";

    /// That there are more findings than are told: nobody reads thousands, and each takes time to tell.
    pub fn more(severity: Severity, file: Place, found: String) -> Self {
        let hint = "these first: the others are told when fewer are left".to_owned();
        Self { severity, id: Self::MORE, place: file, key: String::new(), found, hint, refers_to: None }
    }

    /// The paragraph of the documentation that explains it.
    pub fn docs(&self) -> String {
        format!("docs/findings.md#{}", self.id)
    }

    /// The command that prints this paragraph: the program holds it, and may be all that a machine has.
    pub fn help(&self) -> String {
        format!("portcullis help {}", self.id)
    }

    /// The first of these, so many faults and so many warnings of each kind, and how many more there are. Hundreds of one
    /// kind of warning do not hide the one of another.
    pub fn bounded(found: Vec<Self>) -> Vec<Self> {
        let (mut told, mut faults, mut last) = (Vec::new(), 0, None);
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
                false => told.push(one),
            }
        }
        let untold = |count: usize| count.saturating_sub(REPORTED_MAX);
        let warnings: usize = warnings.into_values().map(untold).sum();
        for (severity, more, what) in
            [(Severity::Fault, untold(faults), "fault"), (Severity::Warning, warnings, "warning")]
        {
            if let (1.., Some(place)) = (more, &last) {
                let found = format!("{more} more {what}{}", if more == 1 { "" } else { "s" });
                told.push(Self::more(severity, place.whole(), found));
            }
        }
        told
    }

    /// How many of these are told. That there are more is not one of them.
    pub fn count(found: &[Self], severity: Severity) -> usize {
        found.iter().filter(|one| one.severity == severity && one.id != Self::MORE).count()
    }

    /// Where it comes when findings are told in order: as its place does, and that there are more at the end.
    pub fn order(&self) -> (bool, usize, usize) {
        let (line, column) = self.place.order();
        (self.id == Self::MORE, line, column)
    }
}

impl Serialize for Diagnostic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut told = serializer.serialize_struct("Diagnostic", 8)?;
        told.serialize_field("severity", &self.severity)?;
        told.serialize_field("id", self.id)?;
        told.serialize_field("place", &self.place)?;
        told.serialize_field("key", &Clipped(&self.key))?;
        told.serialize_field("found", &Clipped(&self.found))?;
        told.serialize_field("hint", &Clipped(&self.hint))?;
        told.serialize_field("docs", &self.docs())?;
        told.serialize_field("help", &self.help())?;
        told.end()
    }
}

impl fmt::Display for Diagnostic {
    /// `gateway.toml:12:5: fault: server.htps: unknown key; help: did you mean "https"? [portcullis help unknown_key]`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { severity, id, place, key, found, hint, refers_to: _ } = self;
        let severity = match severity {
            // That there are more findings is not one itself.
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

/// Text of the file on one line of a log or a terminal: without control characters, and no longer than one reads.
struct Plain<'t>(&'t str);

/// Enough for a list of every known key.
const SHOWN_MAX: usize = 400;
/// Programs get more of it; what a file of megabytes has in one text is in the file.
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
            // Marks that turn the direction of writing make a line read as another.
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
    fn of_many_findings_the_first_are_told_and_how_many_more_there_are() {
        let of = |severity, count| vec![Diagnostic { severity, ..diagnostic("x") }; count];
        let said = |faults, warnings| {
            let found = [of(Severity::Fault, faults), of(Severity::Warning, warnings)].concat();
            let told = Diagnostic::bounded(found);
            let more: Vec<_> = told.iter().filter(|one| one.id == Diagnostic::MORE).collect();
            let count = |severity| Diagnostic::count(&told, severity);
            let more =
                more.into_iter().map(|one| (one.place.to_string(), one.found.clone())).collect::<Vec<_>>();
            (count(Severity::Fault), count(Severity::Warning), more)
        };
        let more = |text: &str| ("gateway.toml".to_owned(), text.to_owned());
        assert_eq!(said(100, 100), (100, 100, vec![]));
        assert_eq!(said(3, 101), (3, 100, vec![more("1 more warning")]));
        assert_eq!(said(150, 102), (100, 100, vec![more("50 more faults"), more("2 more warnings")]));
        // A kind of its own is told whatever there is of another.
        let other = Diagnostic { id: "long_leeway", severity: Severity::Warning, ..diagnostic("x") };
        let told = Diagnostic::bounded([of(Severity::Warning, 150), vec![other.clone()]].concat());
        assert_eq!((told.len(), &told[100]), (102, &other));
        // What is bounded already stays as it is.
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
