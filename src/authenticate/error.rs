//! The refusal of a credential, with the facts that the operator needs: the value found and the value expected.
//!
//! The client never sees these facts. Text from a token is quoted, escaped and truncated. A log line therefore stays
//! one line, and a flood of forged tokens costs only a few short strings. The facts never include a token, a signature
//! or a secret.

use super::pending::Pending;
use crate::denial::Denial;
use serde_json::{Map, Value};
use std::fmt::{self, Write};

/// A refusal with its explanation for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialError {
    /// The refusal as the client sees it.
    pub denial: Denial,
    /// The value found and the value expected; `None` if the denial alone says enough.
    pub detail: Option<Box<str>>,
    /// The fact that a wait may bring, if any.
    pub pending: Option<Box<Pending>>,
}

impl CredentialError {
    pub(super) fn because(denial: Denial, detail: impl Into<Box<str>>) -> Self {
        Self { denial, detail: Some(detail.into()), pending: None }
    }

    /// Returns this refusal with the fact that a wait may bring.
    pub(super) fn until(self, pending: Pending) -> Self {
        Self { pending: Some(Box::new(pending)), ..self }
    }

    /// Returns the explanation for the operator: the detail of this refusal, otherwise the general explanation of its
    /// denial.
    pub fn words(&self) -> Option<&str> {
        self.detail.as_deref().or_else(|| self.denial.finer())
    }
}

impl From<Denial> for CredentialError {
    fn from(denial: Denial) -> Self {
        Self { denial, detail: None, pending: None }
    }
}

/// The maximum number of characters that are shown from one string in a token.
const SHOWN_MAX: usize = 64;
/// The maximum number of elements that are shown from a list.
const LISTED_MAX: usize = 5;

/// Displays text of a token in single quotes, escaped and truncated to `SHOWN_MAX` characters.
pub(super) struct Quoted<'t>(pub(super) &'t str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Most texts need no escape, and each forged token of a flood causes such a text.
        let is_plain = |byte| matches!(byte, b' '..=b'~') && byte != b'\'' && byte != b'\\';
        if self.0.len() <= SHOWN_MAX && self.0.bytes().all(is_plain) {
            return write!(f, "'{}'", self.0);
        }
        f.write_char('\'')?;
        let mut characters = self.0.chars();
        for c in characters.by_ref().take(SHOWN_MAX) {
            match c {
                '"' => f.write_char(c)?,
                c => write!(f, "{}", c.escape_debug())?,
            }
        }
        f.write_str(if characters.next().is_some() { "…'" } else { "'" })
    }
}

/// Displays the first `LISTED_MAX` elements of a list and the number of omitted elements.
pub(super) struct Listed<I>(pub(super) I);

impl<T: fmt::Display, I: Iterator<Item = T> + Clone> fmt::Display for Listed<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut count = 0;
        for item in self.0.clone() {
            if count < LISTED_MAX {
                write!(f, "{}{item}", if count == 0 { "" } else { ", " })?;
            }
            count += 1;
        }
        match count {
            0 => f.write_str("none"),
            1..=LISTED_MAX => Ok(()),
            more => write!(f, " and {} more", more - LISTED_MAX),
        }
    }
}

/// Displays the first `LISTED_MAX` texts in quotes.
pub(super) fn quoted<'t>(texts: impl Iterator<Item = &'t str> + Clone) -> impl fmt::Display {
    Listed(texts.map(Quoted))
}

/// Displays a claim's value: text and lists of text in quotes, lists also in brackets, numbers and booleans unchanged,
/// anything else by its type.
pub(super) struct ClaimText<'v>(pub(super) Option<&'v Value>);

impl fmt::Display for ClaimText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("missing"),
            Some(Value::Null) => f.write_str("null"),
            Some(Value::Bool(flag)) => write!(f, "{flag}"),
            Some(Value::Number(number)) => write!(f, "{number}"),
            Some(Value::String(text)) if text.is_empty() => f.write_str("empty"),
            Some(Value::String(text)) => write!(f, "{}", Quoted(text)),
            Some(Value::Array(list)) if list.iter().all(Value::is_string) && !list.is_empty() => {
                write!(f, "[{}]", quoted(list.iter().filter_map(Value::as_str)))
            }
            Some(Value::Array(list)) if list.is_empty() => f.write_str("an empty list"),
            Some(Value::Array(_)) => f.write_str("a list that is not all text"),
            Some(Value::Object(_)) => f.write_str("an object"),
        }
    }
}

/// Lists which of these claims a token has. Issuers use different claims for the same fact, so the list shows the
/// operator where the fact may be.
pub(super) fn beside(claims: &Map<String, Value>, names: &[&str]) -> String {
    let there: Vec<&str> = names.iter().copied().filter(|name| claims.contains_key(*name)).collect();
    match &there[..] {
        [] => String::new(),
        [one] => format!("; {one} is there"),
        several => format!("; {} are there", several.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_claim_is_shown_by_its_value_or_its_type() {
        for (value, shown) in [
            (json!("a"), "'a'"),
            (json!("a'b\n\u{202e}"), "'a\\'b\\n\\u{202e}'"),
            (json!(""), "empty"),
            (json!(7.5), "7.5"),
            (json!(["a", "b"]), "['a', 'b']"),
            (json!(["a"]), "['a']"),
            (json!(["a", 7]), "a list that is not all text"),
            (json!([]), "an empty list"),
            (json!({"admin": {}}), "an object"),
            (json!(null), "null"),
        ] {
            assert_eq!(ClaimText(Some(&value)).to_string(), shown);
        }
        assert_eq!(ClaimText(None).to_string(), "missing");
        let many: Vec<String> = (0..9).map(|n| n.to_string()).collect();
        let listed = quoted(many.iter().map(String::as_str)).to_string();
        assert_eq!(listed, "'0', '1', '2', '3', '4' and 4 more");
    }

    proptest! {
        #[test]
        fn a_quoted_text_is_escaped_and_bounded(text in "[ -~]{0,80}|[a-z'\"\\\\\\n\u{202e}é]{0,80}") {
            let escaped = |c: char| if c == '"' { c.to_string() } else { c.escape_debug().to_string() };
            let shown: String = text.chars().take(SHOWN_MAX).map(escaped).collect();
            let end = if text.chars().count() > SHOWN_MAX { "…" } else { "" };
            prop_assert_eq!(Quoted(&text).to_string(), format!("'{shown}{end}'"));
        }

        #[test]
        fn no_text_of_a_token_is_shown_at_length_or_with_control_characters(
            texts in proptest::collection::vec("\\PC{0,80}|[\\x00-\\x1f\\u{202e}\\u{9b}]{0,80}", 0..10)
        ) {
            let shown = quoted(texts.iter().map(String::as_str)).to_string();
            prop_assert!(!shown.chars().any(char::is_control));
            prop_assert!(shown.chars().count() <= (LISTED_MAX * (SHOWN_MAX * 10 + 5)) + 20);
        }
    }
}
