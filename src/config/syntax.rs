//! Explains why a text is not valid TOML, with a hint for the operator.
//!
//! The explanation is derived from the text around the parser's stop. It never contains a value, because the value may
//! be a secret.

use std::fmt;
use toml_edit::{ImDocument, Item, TableLike};

/// A syntax fault: the problem, the remedy, and the byte offset of the problem. The parser may have stopped at another
/// offset.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Syntax {
    pub(super) found: String,
    pub(super) hint: String,
    pub(super) offset: usize,
}

/// Explains the parser's message. `stopped` is the offset of the byte at which the parser stopped.
pub(super) fn explain(text: &str, stopped: usize, message: &str) -> Syntax {
    let stopped = stopped.min(text.len());
    if let Some(twice) = duplicate(text, stopped, message) {
        return twice;
    }
    let line = Line::around(text, stopped);
    if let Some(quote) = line.text.find(['\u{201c}', '\u{201d}', '\u{2018}', '\u{2019}', '\u{201e}']) {
        let hint = "use straight quotes: KEY = \"text\"";
        return syntax(line.start + quote, "a typographic quotation mark", hint);
    }
    match line.shape() {
        Shape::OpenText(at) => {
            return syntax(
                line.start + at,
                "text without a closing quote on its line",
                "close it: KEY = \"text\"",
            );
        }
        Shape::OpenHeader => {
            return syntax(
                line.start,
                "a table's header without its closing bracket",
                "write [table], or [[table]] for an element of a list",
            );
        }
        Shape::Header | Shape::Other => {}
    }
    if message.contains("escape") {
        let hint = "write \\\\ for a backslash, or put the text in single quotes, where it needs no escaping";
        return syntax(stopped, "a backslash that does not begin an escape sequence", hint);
    }
    if let Some(list) = open_list(text, stopped) {
        if let Some(bare) = bare_element(text, list, stopped) {
            return syntax(
                bare,
                "text without quotes in a list",
                "put each text in quotes: KEY = [\"text\", \"text\"]",
            );
        }
        let first = Line::around(text, list);
        return match Line::rest(text, stopped).chars().next() {
            Some(next) if begins_value(next) && !is_assignment(Line::rest(text, stopped)) => syntax(
                stopped,
                "two elements of a list without a comma between them",
                "write a comma after each element",
            ),
            _ => {
                let (_, number) = (first.start, text[..list].matches('\n').count() + 1);
                let hint = format!("close the list that begins on line {number} with ]");
                Syntax { found: "a list without its closing bracket".to_owned(), hint, offset: list }
            }
        };
    }
    if message.contains("inline table") {
        return syntax(
            stopped,
            "an inline table that is not complete",
            "write { KEY = VALUE, KEY = VALUE } on one line",
        );
    }
    if let Some((key, value)) = line.text.split_once('=') {
        return explain_value(&line, (key.trim(), value.trim()), stopped, message);
    }
    let trimmed = line.text.trim_start();
    if trimmed.starts_with("//") || trimmed.starts_with(';') || trimmed.starts_with("--") {
        return syntax(line.start, "another language's comment syntax", "a comment begins with #");
    }
    if trimmed.split_once(':').is_some_and(|(key, _)| !key.is_empty() && key.chars().all(is_bare)) {
        return syntax(line.start, "a key followed by a colon", "TOML writes KEY = VALUE");
    }
    if !trimmed.is_empty() && trimmed.trim_end().chars().all(|char| is_bare(char) || char == '.') {
        return syntax(
            line.start,
            "a name without a value",
            "write KEY = VALUE, or a header such as [server]",
        );
    }
    syntax(stopped, message, "write KEY = VALUE, [table] or [[table]], with text in quotes (TOML 1.0)")
}

fn syntax(offset: usize, found: &str, hint: &str) -> Syntax {
    Syntax { found: found.to_owned(), hint: hint.to_owned(), offset }
}

/// Explains a fault in a line with a key and a value.
fn explain_value(line: &Line<'_>, (key, value): (&str, &str), stopped: usize, message: &str) -> Syntax {
    let value = value.split('#').next().unwrap_or_default().trim_end();
    let at = line.start + line.text.find('=').map_or(0, |equals| equals + 1);
    match value {
        "" => syntax(at, "a key without a value", "write KEY = VALUE, with \"\" for empty text"),
        "True" | "TRUE" | "yes" | "Yes" | "on" | "On" => {
            syntax(at, "a boolean in another spelling", "write true")
        }
        "False" | "FALSE" | "no" | "No" | "off" | "Off" => {
            syntax(at, "a boolean in another spelling", "write false")
        }
        _ if key.contains(' ') && !key.contains(['"', '\'']) => syntax(
            line.start,
            "a key with a space in it",
            "use only letters, digits, - and _, or put the key in quotes",
        ),
        _ if value.starts_with(|first: char| {
            first.is_alphabetic() || matches!(first, '/' | '$' | '.' | '*' | '<')
        }) =>
        {
            syntax(at, "text without quotes", "put text in quotes: KEY = \"text\"")
        }
        _ if value.starts_with(['"', '\'']) => syntax(
            stopped,
            "something after the text of a value",
            "write one KEY = VALUE per line; a quote within text is written \\\"; a comment begins with #",
        ),
        _ if value.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'_')) => {
            syntax(at, "a number that is too large", "use at most 18 digits")
        }
        _ if value.starts_with(|first: char| first.is_ascii_digit()) => syntax(
            at,
            "a value that is not a number",
            "put text such as an address or a duration in quotes: KEY = \"30s\"",
        ),
        _ => syntax(stopped, message, "write KEY = VALUE, with text in quotes (TOML 1.0)"),
    }
}

const fn is_bare(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '_' | '-')
}

const fn begins_value(char: char) -> bool {
    matches!(char, '"' | '\'' | '{' | '[' | '+' | '-') || char.is_ascii_digit() || matches!(char, 't' | 'f')
}

/// Returns whether a line looks like `key = …`.
fn is_assignment(line: &str) -> bool {
    line.trim_start().split_once('=').is_some_and(|(key, _)| {
        let key = key.trim_end();
        !key.is_empty() && key.chars().all(|char| is_bare(char) || char == '.')
    })
}

/// One line of a text.
struct Line<'t> {
    start: usize,
    text: &'t str,
}

/// The kind of construct on a line.
enum Shape {
    /// A string that begins at this byte of the line and does not end on it.
    OpenText(usize),
    /// `[table`
    OpenHeader,
    /// `[table]`
    Header,
    /// Anything else.
    Other,
}

impl<'t> Line<'t> {
    fn around(text: &'t str, at: usize) -> Self {
        // The byte of a line break belongs to the line that it ends.
        let start = text.as_bytes()[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let len =
            text.as_bytes()[start..].iter().position(|byte| *byte == b'\n').unwrap_or(text.len() - start);
        let line = text.get(start..start + len).unwrap_or_default();
        Self { start, text: line.strip_suffix('\r').unwrap_or(line) }
    }

    /// Returns the first line with content at or after a byte.
    fn rest(text: &'t str, at: usize) -> &'t str {
        text.get(at..).and_then(|rest| rest.trim_start().lines().next()).unwrap_or_default()
    }

    fn shape(&self) -> Shape {
        let bytes = self.text.as_bytes();
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            match byte {
                b'#' => break,
                // Multi-line strings are not inspected.
                b'"' | b'\'' if bytes[at..].starts_with(&[*byte; 3]) => return Shape::Other,
                b'"' | b'\'' => {
                    let start = at;
                    loop {
                        at += 1;
                        match bytes.get(at) {
                            None => return Shape::OpenText(start),
                            Some(b'\\') if *byte == b'"' => at += 1,
                            Some(end) if end == byte => break,
                            Some(_) => {}
                        }
                    }
                }
                _ => {}
            }
            at += 1;
        }
        let trimmed = self.text.split('#').next().unwrap_or_default().trim();
        match trimmed.strip_prefix('[') {
            Some(_) if is_assignment(trimmed) || trimmed.contains(['"', ',']) => Shape::Other,
            Some(rest) => {
                let double = rest.starts_with('[');
                let closed = if double { rest.ends_with("]]") } else { rest.ends_with(']') };
                if closed { Shape::Header } else { Shape::OpenHeader }
            }
            None => Shape::Other,
        }
    }
}

/// Returns the offset of the opening bracket of the list that is open at this byte. Returns `None` if the innermost
/// open bracket opens a table, or if no bracket is open.
fn open_list(text: &str, at: usize) -> Option<usize> {
    let before = &text.as_bytes()[..at];
    let mut open = Vec::new();
    let mut index = 0;
    while let Some(byte) = before.get(index) {
        match byte {
            b'#' => {
                index +=
                    before[index..].iter().position(|byte| *byte == b'\n').unwrap_or(before.len() - index)
            }
            b'"' | b'\'' => index = super::layer::end_of_string(before, index),
            b'[' | b'{' => open.push((*byte, index)),
            b']' | b'}' => drop(open.pop()),
            _ => {}
        }
        index += 1;
    }
    match open.last() {
        Some((b'[', start)) => Some(*start),
        Some(_) | None => None,
    }
}

/// Returns the offset of the list's element at which the parser stopped, if it is text without quotes, such as `GET` or
/// `10.0.0.0/8`.
fn bare_element(text: &str, list: usize, stopped: usize) -> Option<usize> {
    let stop = text.get(stopped..)?.chars().next()?;
    if stop.is_whitespace() || matches!(stop, '"' | '\'' | '{' | '}' | '[' | ']' | ',' | '=' | '#') {
        return None;
    }
    let inside = text.get(list + 1..stopped)?;
    let ends = |c: char| c.is_whitespace() || matches!(c, ',' | '[' | '"' | '\'' | '}' | ']');
    let begin = inside.char_indices().rev().find(|(_, c)| ends(*c)).map_or(0, |(at, c)| at + c.len_utf8());
    let before = inside[..begin].trim_end();
    let is_first = before.is_empty() || before.ends_with(',');
    let begin = list + 1 + begin;
    (is_first && !is_assignment(Line::rest(text, begin))).then_some(begin)
}

/// Explains a duplicate key, and names the line of its first occurrence.
fn duplicate(text: &str, stopped: usize, message: &str) -> Option<Syntax> {
    let (_, rest) = message.split_once("duplicate key `")?;
    let (name, rest) = rest.split_once('`')?;
    let table = rest.split_once('`').and_then(|(_, table)| table.strip_suffix('`')).unwrap_or_default();
    let line = Line::around(text, stopped);
    let first = first_place(&text[..line.start], table, name);
    let found = match first {
        Some(first) => {
            let number = text[..first].matches('\n').count() + 1;
            format!("\"{}\" appears a second time; the first is on line {number}", Shortened(name))
        }
        None => format!("\"{}\" appears a second time", Shortened(name)),
    };
    let is_element = |line: &Line<'_>| line.text.trim_start().starts_with("[[");
    let first = first.map(|first| Line::around(text, first));
    let hint = match line.shape() {
        Shape::Header if first.is_some_and(|first| is_element(&first)) && !is_element(&line) => {
            format!("write [[{}]] for another element of the list", Shortened(name))
        }
        Shape::Header => "write one header for the table, with all its keys below it".to_owned(),
        Shape::OpenText(_) | Shape::OpenHeader | Shape::Other => "keep one of the two".to_owned(),
    };
    Some(Syntax { found, hint, offset: stopped })
}

/// Returns the offset of the first occurrence of a key. `before` is the text before the second occurrence.
fn first_place(before: &str, table: &str, name: &str) -> Option<usize> {
    let document = ImDocument::parse(before).ok()?;
    let mut here: &dyn TableLike = document.as_table();
    for step in table.split('.').filter(|step| !step.is_empty()) {
        here = match here.get(step)? {
            // A header below a list of tables refers to the last element of the list.
            Item::ArrayOfTables(list) => list.get(list.len().checked_sub(1)?)?,
            item => item.as_table_like()?,
        };
    }
    let (key, item) = here.get_key_value(name.trim_matches(['"', '\'']))?;
    let span =
        item.as_table().and_then(toml_edit::Table::span).or_else(|| key.span()).or_else(|| item.span());
    span.map(|span| span.start)
}

/// A name that is shortened to 100 characters for a message.
struct Shortened<'n>(&'n str);

impl fmt::Display for Shortened<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(100) {
            Some((end, _)) => write!(f, "{}…", &self.0[..end]),
            None => f.write_str(self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::load_text;
    use crate::diagnostic::Place;

    #[test]
    fn each_mistake_is_reported_with_its_line_and_a_correction() {
        let mut wrong = Vec::new();
        for (text, line, found, hint) in [
            ("[server]\nhttps = \n", 2, "a key without a value", "KEY = VALUE"),
            ("[server]\nhttps = \"127.0.0.1:1\nhttp = \"\"\n", 2, "without a closing quote", "close it"),
            ("[server]\nhttps = '127.0.0.1:1\nhttp = \"\"\n", 2, "without a closing quote", "close it"),
            ("[server]\nplain = redirect\n", 2, "text without quotes", "in quotes"),
            ("[server]\ndrain = 30s\n", 2, "not a number", "\"30s\""),
            ("[server]\nhttps = 127.0.0.1:8443\n", 2, "not a number", "in quotes"),
            ("[identity]\nforward_token = True\n", 2, "a boolean", "true"),
            ("[identity]\nforward_token = no\n", 2, "a boolean", "false"),
            ("[[route]]\nmethods = [\"GET\" \"PUT\"]\n", 2, "without a comma", "a comma"),
            ("[[route]]\nmethods = [\n  \"GET\"\n  \"PUT\"\n]\n", 4, "without a comma", "a comma"),
            (
                "[[route]]\nmethods = [\"GET\"\npath = \"/\"\n",
                2,
                "without its closing bracket",
                "begins on line 2 with ]",
            ),
            ("[[route]]\nmethods = [\"GET\"", 2, "without its closing bracket", "line 2 with ]"),
            ("[server\nhttps = \"\"\n", 1, "without its closing bracket", "[table]"),
            ("[[route]\npath = \"/\"\n", 1, "without its closing bracket", "[[table]]"),
            ("[server]\nhttps: \"\"\n", 2, "colon", "KEY = VALUE"),
            ("[server]\n// a comment\n", 2, "comment", "#"),
            ("[server]\nhttps\n", 2, "a name without a value", "KEY = VALUE"),
            ("[server]\nhttps = \u{201c}x\u{201d}\n", 2, "typographic", "straight quotes"),
            ("[state]\ndir = \"C:\\data\"\n", 2, "backslash", "single quotes"),
            ("[state]\ndir = \"a\" \"b\"\n", 2, "after the text", "#"),
            ("[state]\ndir = \"a\" // why\n", 2, "after the text", "#"),
            ("[state]\nthe dir = \"a\"\n", 2, "a key with a space", "quotes"),
            (
                "[state]\ndir = \"a\"\n[log]\n[state]\ndir = \"b\"\n",
                4,
                "\"state\" appears a second time; the first is on line 1",
                "one header",
            ),
            (
                "[[route]]\npath = \"/\"\n[route]\npath = \"/a\"\n",
                3,
                "\"route\" appears a second time; the first is on line 1",
                "write [[route]]",
            ),
            ("[[route]]\nroles = [clerk]\n", 2, "text without quotes in a list", "in quotes"),
            ("[[route]]\nroles = [\"a\", clerk]\n", 2, "text without quotes in a list", "in quotes"),
            (
                "[[route]]\nroles = [\n  \"a\",\n  true_ish,\n]\n",
                4,
                "text without quotes in a list",
                "in quotes",
            ),
            ("[server]\ntrusted_proxies = [10.0.0.0/8]\n", 2, "text without quotes in a list", "in quotes"),
            (
                "[[route]]\nmethods = [\"GET\",\npath = \"/\"\n",
                2,
                "without its closing bracket",
                "line 2 with ]",
            ),
            (
                "[state]\ndir = \"a\"\ndir = \"b\"\n",
                3,
                "\"dir\" appears a second time; the first is on line 2",
                "keep one",
            ),
            (
                "[[route]]\npath = \"/\"\n[[route]]\nname = \"x\"\npath = \"/a\"\npath = \"/b\"\n",
                6,
                "\"path\" appears a second time; the first is on line 5",
                "keep one",
            ),
            (
                "[upstream.a]\nbuiltin = \"echo\"\n[upstream.b]\n[upstream.a]\n",
                4,
                "\"a\" appears a second time; the first is on line 1",
                "one header",
            ),
            ("[policy]\nwaive = { a = \"x\", a = \"y\" }\n", 2, "\"a\" appears a second time", "keep one"),
            ("[policy]\nwaive = { a = \"x\",\n b = \"y\" }\n", 2, "inline table", "on one line"),
            ("[server]\nworkers = 99999999999999999999\n", 2, "too large", "digits"),
        ] {
            let faults = load_text("f", text.to_owned(), "".into(), Vec::new()).expect_err(text);
            let fault = &faults[0];
            let at = match &fault.place {
                Place::Line { line, .. } => *line,
                _ => 0,
            };
            if (faults.len(), fault.id, at) != (1, "bad_toml", line)
                || !fault.found.contains(found)
                || !fault.hint.contains(hint)
            {
                wrong.push(format!("{text:?}: want {line} {found:?} {hint:?}, got {fault}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
