//! The header fields that a route requires, such as `X-Api-Version: 2`.
//!
//! A client chooses its header fields, so they select a route but prove nothing.

use super::field::is_word;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::fmt;

/// Required header fields, sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fields(Box<[(HeaderName, HeaderValue)]>);

/// The overlap of the requests of two sets of fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overlap {
    /// No request matches both sets, or one set is more specific.
    Clear,
    /// A request can match both sets, and neither set is more specific.
    Ambiguous,
}

impl Fields {
    /// Creates a set of fields.
    ///
    /// # Errors
    ///
    /// Returns the name of a field that occurs twice or whose value is not a single word.
    pub fn new(mut fields: Vec<(HeaderName, HeaderValue)>) -> Result<Self, HeaderName> {
        fields.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
        let is_repeated = |pair: &&[(HeaderName, HeaderValue)]| pair[0].0 == pair[1].0;
        if let Some(pair) = fields.windows(2).find(is_repeated) {
            return Err(pair[0].0.clone());
        }
        match fields.iter().find(|(_, value)| !is_word(value.as_bytes())) {
            Some((name, _)) => Err(name.clone()),
            None => Ok(Self(fields.into())),
        }
    }

    /// Whether no field is required.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the number of fields.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns the fields.
    pub fn iter(&self) -> impl Iterator<Item = &(HeaderName, HeaderValue)> {
        self.0.iter()
    }

    /// Adds the fields to the headers of a sample request.
    pub(crate) fn set(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.0 {
            headers.insert(name.clone(), value.clone());
        }
    }

    /// Whether `has` is true for each field.
    pub(super) fn are_met(&self, has: impl Fn(&HeaderName, &HeaderValue) -> bool) -> bool {
        self.0.iter().all(|(name, value)| has(name, value))
    }

    /// Compares two different sets.
    pub(super) fn overlap(&self, other: &Self) -> Overlap {
        let value = |fields: &Self, name: &HeaderName| {
            fields.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        };
        let is_apart = self.0.iter().any(|(name, own)| value(other, name).is_some_and(|value| value != *own));
        let is_within =
            |one: &Self, other: &Self| one.are_met(|name, own| value(other, name).as_ref() == Some(own));
        if is_apart || is_within(self, other) || is_within(other, self) {
            Overlap::Clear
        } else {
            Overlap::Ambiguous
        }
    }
}

impl fmt::Display for Fields {
    /// Formats the fields for operators: `x-api-version: 2 and x-beta: 1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (name, value)) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { " and " };
            write!(f, "{separator}{name}: {}", String::from_utf8_lossy(value.as_bytes()))?;
        }
        Ok(())
    }
}

/// Whether a lenient server may read `value` as `wanted`. Such a server may ignore case, split a list, remove quotes,
/// or drop parameters.
pub(super) fn may_mean(value: &[u8], wanted: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|element| {
        let bare = element.split(|byte| *byte == b';').next().unwrap_or_default();
        let is_around = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'"';
        let start = bare.iter().position(|byte| !is_around(byte)).unwrap_or(bare.len());
        let end = bare.iter().rposition(|byte| !is_around(byte)).map_or(start, |last| last + 1);
        bare[start..end].eq_ignore_ascii_case(wanted)
    })
}
