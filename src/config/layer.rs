//! Converts TOML to values that figment can merge, and bounds the size of the values before they are built.
//!
//! Both the values and their positions are parsed by toml_edit, so they cannot disagree.

use figment::value::{Dict, Map, Value};
use figment::{Error, Metadata, Profile, Provider};
use std::borrow::Cow;
use toml_edit::{Item, Key, TableLike, Value as Toml};

/// Maximum nesting of values, more than three times the depth of any policy. The parser does not bound the nesting of
/// dotted keys within brackets. Without this bound, recursion could overflow the stack.
pub(super) const DEPTH_MAX: usize = 24;

/// Maximum nesting of brackets. The parser bounds the parts of a key. Both bounds together limit the depth of the
/// parsed values.
const BRACKETS_MAX: usize = 16;

/// Maximum number of keys, tables and list elements in a file, enough for about eighty thousand routes. While the file
/// is read, each of them takes up to a kilobyte of memory.
pub(super) const VALUES_MAX: usize = 2_000_000;

/// The number of values that a dot counts as. The parser builds a table for each part of a dotted key.
const DOT: usize = 4;
/// The number of values that an opening bracket counts as. A bracket begins a list, a table or a header.
const BRACKET: usize = 2;

/// Maximum length of a name in bytes. Every fault in a table repeats the table's name, so a long name would multiply.
pub(super) const NAME_MAX: usize = 1024;

/// A bound that a text exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    /// The nesting of values or brackets.
    Depth,
    /// The number of values.
    Values,
    /// The length of a name. The fields are the length in bytes and, if known, the offset of the name.
    Name(usize, Option<usize>),
}

/// Returns the bound that a text exceeds, and the offset where the text exceeds it. This check must run before the text
/// is parsed.
pub(super) fn excess(text: &str) -> Option<(usize, Excess)> {
    let bytes = text.as_bytes();
    let (mut at, mut depth, mut values) = (0, 0_usize, 0_usize);
    while let Some(byte) = bytes.get(at) {
        // Each of these characters begins a value, a table or a part of a key. The weighted sum is an upper bound on
        // the number of values.
        values += match byte {
            b'=' | b',' => 1,
            b'[' | b'{' => BRACKET,
            b'.' => DOT,
            _ => 0,
        };
        if values > VALUES_MAX {
            return Some((at, Excess::Values));
        }
        match byte {
            b'[' | b'{' => {
                depth += 1;
                if depth > BRACKETS_MAX {
                    return Some((at, Excess::Depth));
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'#' => at += bytes[at..].iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len()),
            b'"' | b'\'' => at = end_of_string(bytes, at),
            _ => {}
        }
        at += 1;
    }
    None
}

/// Returns the offset of the last byte of the string that begins at `start`.
pub(super) fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let quote = bytes[start];
    let is_long = bytes[start..].starts_with(&[quote; 3]);
    let mut at = start + if is_long { 3 } else { 1 };
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' if quote == b'"' => at += 1,
            b'\n' if !is_long => return at,
            _ if *byte != quote => {}
            _ if !is_long => return at,
            _ if bytes[at..].starts_with(&[quote; 3]) => {
                // Up to two quotes may precede the three closing quotes.
                let run = bytes[at..].iter().take(5).take_while(|byte| **byte == quote).count();
                return at + run - 1;
            }
            _ => {}
        }
        at += 1;
    }
    at
}

/// A layer with a name, as a provider for figment.
struct Layer(&'static str, Dict);

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.0)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        Ok(Map::from([(Profile::Default, self.1.clone())]))
    }
}

/// Merges layers with figment.
pub(super) trait Merging {
    /// Merges two layers. Values of `above` override those of `self`.
    fn merge_over(self, above: Dict) -> Dict;
}

impl Merging for Dict {
    fn merge_over(self, above: Dict) -> Dict {
        let merged = figment::Figment::new().merge(Layer("below", self)).merge(Layer("above", above));
        let mut profiles = merged.data().unwrap_or_default();
        profiles.remove(&Profile::Default).unwrap_or_default()
    }
}

/// Converts a table of the document with this `text`. Returns an error if nesting is too deep or a name is too long.
pub(super) fn of_table(table: &dyn TableLike, text: &str, depth: usize) -> Result<Dict, Excess> {
    if depth > DEPTH_MAX {
        return Err(Excess::Depth);
    }
    let mut dict = Dict::new();
    for (name, item) in table.iter() {
        if name.len() > NAME_MAX {
            return Err(Excess::Name(name.len(), table.key(name).and_then(Key::span).map(|span| span.start)));
        }
        let value = match item {
            Item::None => continue,
            Item::Value(value) => of_value(value, text, depth + 1)?,
            Item::Table(table) => Value::from(of_table(table, text, depth + 1)?),
            Item::ArrayOfTables(tables) => {
                let tables = tables.iter().map(|table| of_table(table, text, depth + 1).map(Value::from));
                Value::from(tables.collect::<Result<Vec<_>, _>>()?)
            }
        };
        dict.insert(name.to_owned(), value);
    }
    Ok(dict)
}

fn of_value(value: &Toml, text: &str, depth: usize) -> Result<Value, Excess> {
    if depth > DEPTH_MAX {
        return Err(Excess::Depth);
    }
    Ok(match value {
        Toml::String(string) => Value::from(string.value().as_str()),
        Toml::Integer(integer) => Value::from(*integer.value()),
        Toml::Boolean(boolean) => Value::from(*boolean.value()),
        // No key has a fraction or a date as its value. An unquoted version such as `1.2` is read as text, in its
        // written form.
        Toml::Float(_) | Toml::Datetime(_) => {
            let written = value.span().and_then(|span| text.get(span)).unwrap_or_default();
            Value::from(written)
        }
        Toml::Array(array) => {
            let values = array.iter().map(|value| of_value(value, text, depth + 1));
            Value::from(values.collect::<Result<Vec<_>, _>>()?)
        }
        Toml::InlineTable(table) => Value::from(of_table(table, text, depth + 1)?),
    })
}

/// Parses the value of an environment variable. Lists, tables and quoted text are TOML. Digits are a number only if the
/// number formats to the same text: `007` is text.
///
/// # Errors
/// Returns the problem and its correction if the text begins with `[` or a quote, and is neither a list, an address nor a
/// quoted text. A rule would take `[suspended]` for one role, which nobody has. The error omits the text, because it may be
/// a secret.
pub(super) fn of_variable(text: &str) -> Result<Value, (&'static str, &'static str)> {
    if text.starts_with(['[', '{', '"', '\'']) {
        let document = format!("v={text}");
        let parsed = toml_edit::ImDocument::parse(document.as_str()).ok();
        // The text must be exactly one value. A second line must not add another key.
        let only = parsed.as_ref().filter(|document| document.len() == 1);
        let value = only.and_then(|document| document.get("v")?.as_value());
        if let Some(value) = value.and_then(|value| of_value(value, &document, 0).ok()) {
            return Ok(value);
        }
        if text.starts_with('[') && !begins_with_address(text) {
            return Err((
                "a list that is not a TOML value",
                "write [\"a\", \"b\"], with each text in quotes",
            ));
        }
        if text.starts_with(['"', '\'']) {
            let hint = "write text without quotes, or with one quote at each end; a list is [\"a\", \"b\"]";
            return Err(("a text in quotes that is not a TOML value", hint));
        }
    }
    Ok(match text.parse::<i64>() {
        Ok(number) if number.to_string() == text => Value::from(number),
        _ => match text {
            "true" => Value::from(true),
            "false" => Value::from(false),
            _ => Value::from(text),
        },
    })
}

/// Returns whether a text begins with an IPv6 address in brackets, as in `[::1]:8443`.
fn begins_with_address(text: &str) -> bool {
    let address = text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(address, _)| address);
    address.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok())
}

/// Returns a name as it appears in the path of a key. A name that is not a bare key is quoted.
pub(super) fn quoted(name: &str) -> Cow<'_, str> {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if !name.is_empty() && name.bytes().all(is_bare) {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(format!("{name:?}"))
    }
}

/// Appends a name to the path of a key.
pub(super) fn join(key: &str, name: &str) -> String {
    let name = quoted(name);
    if key.is_empty() { name.into_owned() } else { format!("{key}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use toml_edit::ImDocument;

    #[test]
    fn brackets_are_counted_outside_of_text_and_comments() {
        let deep = "[".repeat(BRACKETS_MAX + 1);
        for text in [
            format!("a = \"{deep}\""),
            format!("a = '{deep}'"),
            format!("a = \"\\\"{deep}\""),
            format!("a = \"\"\"\n\"{deep}\"\"\"\""),
            format!("a = \'\'\'\n{deep}\'\'\'"),
            format!("# {deep}\na = 1"),
            "a = [[1]]\n".repeat(100),
        ] {
            assert_eq!(excess(&text), None, "{text}");
        }
        for text in [
            format!("a = {deep}"),
            format!("# \"\na = {deep}"),
            format!("a = \"\\\\\" {deep}"),
            format!("a = \"\"\"x\"\"\"\"\"{deep}"),
            format!("a = \"\"\"x\"\"\"\"{deep}"),
            format!("a = 'x\\' {deep}"),
            format!("a = \"\n{deep}"),
        ] {
            assert!(matches!(excess(&text), Some((_, Excess::Depth))), "{text}");
        }
    }

    #[test]
    fn the_values_of_a_file_are_counted_before_it_is_parsed() {
        // Tests the maximum number of values, and one value more. Characters in text and comments do not count.
        for (one, count, more) in [
            ("k=1\n", VALUES_MAX, "k=1"),
            ("[t]\n", VALUES_MAX / BRACKET, "k=1"),
            ("[[t]]\n", VALUES_MAX / BRACKET / 2, "#=\nk=1"),
            ("{},", VALUES_MAX / (BRACKET + 1), "{},"),
            ("\"=,[{.\"=1\n", VALUES_MAX, "k=1"),
            ("a.b\n", VALUES_MAX / DOT, "a=b"),
        ] {
            let text = one.repeat(count);
            assert_eq!(excess(&text), None, "{one}");
            let too_much = excess(&(text + more));
            assert!(matches!(too_much, Some((_, Excess::Values))), "{one}: {too_much:?}");
        }
    }

    #[test]
    fn a_long_name_is_refused_wherever_it_stands() {
        for (len, is_refused) in [(NAME_MAX, false), (NAME_MAX + 1, true)] {
            let name = "n".repeat(len);
            for text in [
                format!("{name} = 1"),
                format!("[{name}]"),
                format!("[a.{name}.b]"),
                format!("a = [{{ \"{name}\" = 1 }}]"),
                format!("a.{name} = 1"),
            ] {
                let document = ImDocument::parse(text.as_str()).unwrap();
                let excess = of_table(document.as_table(), &text, 0).err();
                assert_eq!(matches!(excess, Some(Excess::Name(_, Some(_)))), is_refused, "{excess:?}");
            }
        }
    }

    #[test]
    fn the_deepest_that_the_parser_takes_is_refused_and_not_followed() {
        // Combines the maximum number of brackets with the maximum number of dotted parts that the parser accepts.
        let key = ["k"; 79].join(".");
        let deep = format!("{}1{}", format!("{{ {key} = ").repeat(BRACKETS_MAX), " }".repeat(BRACKETS_MAX));
        let text = format!("[{key}]\n{key} = {deep}\n");
        assert_eq!(excess(&text), None);
        let document = ImDocument::parse(text.as_str()).expect("the parser takes this");
        assert!(of_table(document.as_table(), &text, 0) == Err(Excess::Depth));
        // Tests each kind of nesting alone.
        for text in [
            format!("[{key}]\n"),
            format!("{key} = 1\n"),
            format!("[[{key}]]\n"),
            format!("a = [{{ {key} = 1 }}]\n"),
        ] {
            let document = ImDocument::parse(text.as_str()).expect("the parser takes this");
            assert!(of_table(document.as_table(), &text, 0) == Err(Excess::Depth), "{text}");
        }
        let text = format!("[{}]\n", ["k"; DEPTH_MAX].join("."));
        let document = ImDocument::parse(text.as_str()).expect("the parser takes this");
        assert!(of_table(document.as_table(), &text, 0).is_ok(), "the deepest that is followed");
    }

    #[test]
    fn a_variable_is_a_number_only_where_nothing_is_lost() {
        for (text, value) in [
            ("7", Value::from(7_i64)),
            ("-7", Value::from(-7_i64)),
            ("007", Value::from("007")),
            ("+7", Value::from("+7")),
            ("1.50", Value::from("1.50")),
            (" 7 ", Value::from(" 7 ")),
            ("true", Value::from(true)),
            ("True", Value::from("True")),
            ("", Value::from("")),
            ("[::1]:8443", Value::from("[::1]:8443")),
            ("[\"a\", 1]", Value::from(vec![Value::from("a"), Value::from(1_i64)])),
            ("\"7\"", Value::from("7")),
            ("{tenant}", Value::from("{tenant}")),
        ] {
            assert_eq!(of_variable(text), Ok(value), "{text:?}");
        }
        for text in
            ["[1]\nv2 = 3", "[suspended]", "[\"a\"", "[]]", "[10.0.0.0/8]", "\"a\", \"b\"", "\"a", "'a"]
        {
            assert!(of_variable(text).is_err(), "{text:?}");
        }
    }
}
