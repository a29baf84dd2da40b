//! The claims of a token: their paths, their values and the comparison of values.

use crate::route::path::decoded_eq;
use serde_json::{Map, Number, Value};
use std::fmt;

/// The greatest accepted NumericDate, in seconds since 1970: the end of the year 9999.
pub(super) const DATE_MAX: f64 = 253_402_300_799.0;

/// The member of `events` that identifies a logout token (OpenID Connect Back-Channel Logout section 2.4).
pub(crate) const LOGOUT_EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// Parses a NumericDate (RFC 7519 section 2): a number of seconds between 1970 and the year 9999. A numeric string is
/// not accepted (CVE-2026-25537).
pub(crate) fn numeric_date(value: &Value) -> Option<f64> {
    value.as_f64().filter(|seconds| (0.0..=DATE_MAX).contains(seconds))
}

/// Returns whether an audience contains an accepted value (RFC 7519 section 4.1.3); `None` if `aud` is neither text nor
/// a non-empty list of text.
pub(crate) fn audience_matches<'c>(aud: &'c Value, is_accepted: impl Fn(&'c str) -> bool) -> Option<bool> {
    match aud {
        Value::String(audience) => Some(is_accepted(audience)),
        Value::Array(list) if !list.is_empty() && list.iter().all(Value::is_string) => {
            Some(list.iter().filter_map(Value::as_str).any(is_accepted))
        }
        Value::Array(_) | Value::Object(_) | Value::Number(_) | Value::Bool(_) | Value::Null => None,
    }
}

/// The index of a claim that a policy uses, both in the paths of `Trust` and in `Principal::claims`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClaimId(pub u16);

/// A path to a claim, for example `tenant`, `realm_access.roles` or `"https://example.com/roles"`.
///
/// Names are joined by dots. A name that contains a dot, a quote, a backslash or a blank is written in double quotes,
/// with `\"` for a quote and `\\` for a backslash.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClaimPath(Box<[Box<str>]>);

/// The maximum number of names in a path.
const NAMES_MAX: usize = 8;
/// The maximum length of a path in bytes.
const PATH_MAX: usize = 512;

impl ClaimPath {
    /// Parses a path.
    ///
    /// # Errors
    /// Returns a description of the mistake in the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > PATH_MAX {
            return Err(format!("longer than {PATH_MAX} bytes"));
        }
        let mut names: Vec<Box<str>> = Vec::new();
        let mut rest = text;
        loop {
            let (name, after) = match rest.strip_prefix('"') {
                Some(quoted) => unquote(quoted)?,
                None => {
                    let end = rest.find(['.', '"']).unwrap_or(rest.len());
                    (rest[..end].to_owned(), &rest[end..])
                }
            };
            // Without a blank or a backslash outside quotes, the displayed form of a path is never longer than its
            // input and can be parsed again.
            if !rest.starts_with('"') && name.contains([' ', '\\']) {
                return Err("a blank or a backslash outside quotes".to_owned());
            }
            if name.is_empty() {
                return Err("an empty name".to_owned());
            }
            if name.chars().any(char::is_control) {
                return Err("a control character".to_owned());
            }
            names.push(name.into());
            if names.len() > NAMES_MAX {
                return Err(format!("more than {NAMES_MAX} names"));
            }
            match after.strip_prefix('.') {
                Some(more) => rest = more,
                None if after.is_empty() => return Ok(Self(names.into())),
                None => return Err("a quote within a name".to_owned()),
            }
        }
    }

    /// Returns whether the path consists of this single name.
    pub fn is_name(&self, name: &str) -> bool {
        matches!(&*self.0, [only] if **only == *name)
    }

    /// Inserts a value at the path. Returns `false` if the claims already contain a value at the path, or a value other
    /// than an object at one of its parents.
    pub fn put(&self, claims: &mut Map<String, Value>, value: Value) -> bool {
        let Some((last, way)) = self.0.split_last() else { return false };
        let mut table = claims;
        for name in way {
            let next = table.entry(&**name).or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(next) = next else { return false };
            table = next;
        }
        let is_free = !table.contains_key(&**last);
        if is_free {
            table.insert(last.to_string(), value);
        }
        is_free
    }

    /// Returns the value at the path.
    pub fn find<'v>(&self, claims: &'v Map<String, Value>) -> Option<&'v Value> {
        let (first, rest) = self.0.split_first()?;
        rest.iter().try_fold(claims.get(&**first)?, |value, name| value.as_object()?.get(&**name))
    }
}

/// Parses a quoted name from the text after its opening quote. Returns the name and the text after its closing quote.
fn unquote(quoted: &str) -> Result<(String, &str), String> {
    let mut name = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Ok((name, &quoted[at + 1..])),
            '\\' => match characters.next() {
                Some((_, c @ ('"' | '\\'))) => name.push(c),
                Some(_) | None => return Err("a backslash that escapes nothing".to_owned()),
            },
            c => name.push(c),
        }
    }
    Err("a quote that is not closed".to_owned())
}

impl fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, name) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str(".")?;
            }
            if name.contains(['.', '"', '\\', ' ']) {
                write!(f, "\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))?;
            } else {
                f.write_str(name)?;
            }
        }
        Ok(())
    }
}

/// The value of a claim that a policy uses.
#[derive(Clone, Debug, PartialEq)]
pub enum ClaimValue {
    /// A JSON string.
    Text(Box<str>),
    /// A JSON number.
    Number(Number),
    /// A JSON boolean.
    Bool(bool),
    /// A JSON array.
    List(Box<[Self]>),
    /// A JSON object or null, which equals no literal.
    Other,
}

impl From<&Value> for ClaimValue {
    fn from(value: &Value) -> Self {
        match value {
            Value::String(text) => Self::Text(text.as_str().into()),
            Value::Number(number) => Self::Number(number.clone()),
            Value::Bool(flag) => Self::Bool(*flag),
            Value::Array(values) => Self::List(values.iter().map(Self::from).collect()),
            Value::Object(_) | Value::Null => Self::Other,
        }
    }
}

impl ClaimValue {
    /// Returns the value as JSON; null for `Other`.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Text(text) => (**text).into(),
            Self::Number(number) => Value::Number(number.clone()),
            Self::Bool(flag) => Value::Bool(*flag),
            Self::List(values) => values.iter().map(Self::to_json).collect(),
            Self::Other => Value::Null,
        }
    }

    /// Returns whether the claim equals the literal in value and type (`"7"` is not 7), or is a list that contains such
    /// a value.
    pub fn matches(&self, literal: &Self) -> bool {
        match self {
            Self::List(values) => values.iter().any(|value| value.is(literal)),
            Self::Text(_) | Self::Number(_) | Self::Bool(_) | Self::Other => self.is(literal),
        }
    }

    /// Returns the approximate memory of the value in bytes.
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Text(text) => text.len(),
                Self::List(values) => values.iter().map(Self::bytes).sum(),
                Self::Number(_) | Self::Bool(_) | Self::Other => 0,
            }
    }

    fn is(&self, literal: &Self) -> bool {
        match (self, literal) {
            (Self::Text(one), Self::Text(other)) => one == other,
            (Self::Number(one), Self::Number(other)) => one == other,
            (Self::Bool(one), Self::Bool(other)) => one == other,
            (Self::Text(_) | Self::Number(_) | Self::Bool(_) | Self::List(_) | Self::Other, _) => false,
        }
    }

    /// Returns whether the claim equals the decoded segment of a canonical path. A whole number is compared in decimal
    /// digits. A list matches if it contains a matching text or number. Does not allocate.
    pub fn matches_segment(&self, segment: &str) -> bool {
        self.matches_by(segment, &|text| decoded_eq(segment, text))
    }

    /// Returns whether the claim equals a text of the request: text is compared unchanged, and a whole number in
    /// decimal digits. A list matches if it contains a matching text or number. Does not allocate.
    pub fn matches_text(&self, text: &str) -> bool {
        self.matches_by(text, &|claim| claim == text)
    }

    /// Returns whether the claim is text that `is_text` accepts, or a whole number whose decimal digits are `written`,
    /// or a list that contains such a text or number.
    fn matches_by(&self, written: &str, is_text: &impl Fn(&str) -> bool) -> bool {
        match self {
            Self::Text(text) => is_text(text),
            Self::Number(number) => {
                let mut digits = itoa::Buffer::new();
                match (number.as_u64(), number.as_i64()) {
                    (Some(number), _) => written == digits.format(number),
                    (None, Some(number)) => written == digits.format(number),
                    (None, None) => false,
                }
            }
            Self::List(values) => values
                .iter()
                .any(|value| !matches!(value, Self::List(_)) && value.matches_by(written, is_text)),
            Self::Bool(_) | Self::Other => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn find(path: &str, claims: &Value) -> Option<Value> {
        ClaimPath::parse(path).unwrap().find(claims.as_object().unwrap()).cloned()
    }

    #[test]
    fn paths_lead_through_objects_and_quotes_keep_dots() {
        let claims = json!({"a": {"b.c": {"d": 1}, "b": 2}, "https://x.example/roles": ["r"], "a.b": 3});
        assert_eq!(find("a.b", &claims), Some(json!(2)));
        assert_eq!(find("\"a.b\"", &claims), Some(json!(3)));
        assert_eq!(find("a.\"b.c\".d", &claims), Some(json!(1)));
        assert_eq!(find("\"https://x.example/roles\"", &claims), Some(json!(["r"])));
        assert_eq!(find("a.b.c", &claims), None);
        assert_eq!(find("none", &claims), None);
    }

    #[test]
    fn invalid_paths_are_refused() {
        let long = "a.".repeat(NAMES_MAX) + "a";
        for text in [
            "", ".", "a.", ".a", "a..b", "\"", "\"a", "\"\"", "a\"b\"", "\"a\"b", "\"a\\x\"", "a\nb", "a b",
            "a\\b", &long,
        ] {
            assert!(ClaimPath::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn claims_are_compared_whole_and_by_type() {
        let value = |json: Value| ClaimValue::from(&json);
        for (claim, literal, equal) in [
            (json!("acme"), json!("acme"), true),
            (json!("acme"), json!("acme2"), false),
            (json!("acme2"), json!("acme"), false),
            (json!("ACME"), json!("acme"), false),
            (json!(7), json!(7), true),
            (json!("7"), json!(7), false),
            (json!(7), json!("7"), false),
            (json!(true), json!(true), true),
            (json!("true"), json!(true), false),
            (json!(["a", "acme"]), json!("acme"), true),
            (json!(["a", ["acme"]]), json!("acme"), false),
            (json!([]), json!("acme"), false),
            (json!({"acme": 1}), json!("acme"), false),
            (json!(null), json!(null), false),
        ] {
            assert_eq!(value(claim.clone()).matches(&value(literal.clone())), equal, "{claim} {literal}");
        }
    }

    #[test]
    fn a_path_parameter_is_compared_decoded() {
        let value = |json: Value| ClaimValue::from(&json);
        for (claim, segment, equal) in [
            (json!("acme"), "acme", true),
            (json!("a b"), "a%20b", true),
            (json!("a%20b"), "a%20b", false),
            (json!("a%20b"), "a%2520b", true),
            (json!("é"), "%C3%A9", true),
            (json!("acme"), "acm", false),
            (json!("acme"), "acmee", false),
            (json!(7), "7", true),
            (json!(-7), "-7", true),
            (json!(7), "07", false),
            (json!(7.0), "7", false),
            (json!(["x", "acme"]), "acme", true),
            (json!(true), "true", false),
            (json!("a"), "%", false),
            (json!("a"), "%6", false),
        ] {
            assert_eq!(value(claim.clone()).matches_segment(segment), equal, "{claim} {segment}");
        }
    }

    proptest! {
        #[test]
        fn a_path_that_is_written_is_read_again(names in proptest::collection::vec("[^\\x00-\\x1f\\x7f-\\x9f]{1,8}", 1..5)) {
            let path = ClaimPath(names.iter().map(|name| name.as_str().into()).collect());
            prop_assert_eq!(ClaimPath::parse(&path.to_string()), Ok(path));
        }

        #[test]
        fn a_path_that_is_read_is_written_no_longer_than_it_was(text in "[ab .\"\\\\é]{0,40}") {
            if let Ok(path) = ClaimPath::parse(&text) {
                prop_assert!(path.to_string().len() <= text.len(), "{}", path);
                prop_assert_eq!(ClaimPath::parse(&path.to_string()), Ok(path));
            }
        }

        #[test]
        fn an_inserted_entry_is_found(one in "[ab](\\.[ab]){0,2}", other in "[ab](\\.[ab]){0,2}") {
            let (one, other) = (ClaimPath::parse(&one).unwrap(), ClaimPath::parse(&other).unwrap());
            let mut claims = Map::new();
            prop_assert!(one.put(&mut claims, json!(1)));
            let is_put = other.put(&mut claims, json!(2));
            prop_assert_eq!(one.find(&claims), Some(&json!(1)), "what was there stays");
            prop_assert_eq!(other.find(&claims) == Some(&json!(2)), is_put);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".*") {
            let _ = ClaimPath::parse(&text);
        }
    }
}
