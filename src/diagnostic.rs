//! One fault of a policy: where it stands, what was found, what would be right.
//!
//! A leaf: whoever reads or compiles a policy makes them; commands and logs show them.

use serde::{Serialize, Serializer};
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

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::File(file) => f.write_str(file),
            Self::Environment(name) => write!(f, "environment variable {name}"),
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
    /// What would be right; may be empty where `found` says all.
    pub hint: String,
}

impl fmt::Display for Diagnostic {
    /// `gateway.toml:12:5: server.htps: unknown key; the nearest is "https"`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { severity, place, key, found, hint, .. } = self;
        write!(f, "{place}: ")?;
        if *severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if !key.is_empty() {
            write!(f, "{key}: ")?;
        }
        f.write_str(found)?;
        if !hint.is_empty() {
            write!(f, "; right would be: {hint}")?;
        }
        Ok(())
    }
}
