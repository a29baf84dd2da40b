//! Finds the place of a key in a policy's text, and the known name that is most similar to a misspelt name.

use super::layer;
use crate::diagnostic::Place;
use std::ops::Range;
use toml_edit::{ImDocument, Item, TableLike, Value};

/// The places of the keys of a policy.
#[derive(Debug, Default)]
pub struct Places {
    file: String,
    document: Option<ImDocument<String>>,
    /// The offsets of the lines. They are computed once, because a large file may have a finding on every line.
    lines: Vec<usize>,
    /// Keys that the environment sets, each with the name of its variable.
    environment: Vec<(String, String)>,
}

impl Places {
    pub(super) fn new(file: &str, document: ImDocument<String>, environment: Vec<(String, String)>) -> Self {
        let lines = line_starts(document.raw());
        Self { file: file.to_owned(), document: Some(document), lines, environment }
    }

    /// Returns the root of the document.
    pub(super) fn root(&self) -> Option<Here<'_>> {
        self.document.as_ref().map(|document| Here::Table(document.as_table()))
    }

    /// Returns the name of the file and the line number of a byte.
    pub(super) fn line(&self, offset: usize) -> (&str, usize) {
        (&self.file, self.lines.partition_point(|start| *start <= offset))
    }

    /// Returns the place of a key such as `route[3].rate_limits[0]`. If the key is absent, returns the place of the
    /// nearest enclosing table.
    pub fn of(&self, key: &str) -> Place {
        let below = |long: &str, short: &str| {
            long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let variable = |fits: &dyn Fn(&str) -> bool| {
            self.environment.iter().find(|(known, _)| fits(known)).map(|(_, name)| name.clone())
        };
        if let Some(variable) = variable(&|known| below(key, known)) {
            return Place::Environment(variable);
        }
        let Some(document) = &self.document else { return self.whole() };
        let (nearest, is_there) = offset(document, key);
        match (nearest, variable(&|known| below(known, key))) {
            // The key is absent from the file, but the environment sets keys below it.
            (_, Some(variable)) if !is_there => Place::Environment(variable),
            (Some(offset), _) => at_line(&self.file, document.raw(), &self.lines, offset),
            (None, _) => self.whole(),
        }
    }

    /// Returns whether the file or the environment sets a key.
    pub fn is_given(&self, key: &str) -> bool {
        let in_file = self.document.as_ref().is_some_and(|document| offset(document, key).1);
        in_file || self.environment.iter().any(|(known, _)| known == key)
    }

    /// Returns the form of a table's header in the file. Returns `None` if the key is absent or has no header.
    pub(super) fn header(&self, key: &str) -> Option<Header> {
        let mut here = self.root()?;
        for name in key.split('.') {
            here = here.entry(name)?.0;
        }
        match here {
            Here::Item(Item::Table(_)) => Some(Header::Table),
            Here::Item(Item::ArrayOfTables(_)) => Some(Header::List),
            Here::Table(_) | Here::Item(_) | Here::Value(_) => None,
        }
    }

    /// Returns the place of the file as a whole.
    pub fn whole(&self) -> Place {
        Place::File(self.file.clone())
    }
}

/// The form of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// `[table]`
    Table,
    /// `[[table]]`
    List,
}

/// Returns the place of a byte in a text.
pub(super) fn at_offset(file: &str, text: &str, offset: usize) -> Place {
    at_line(file, text, &line_starts(text), offset)
}

fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(end, _)| end + 1)).collect()
}

fn at_line(file: &str, text: &str, lines: &[usize], offset: usize) -> Place {
    let line = lines.partition_point(|start| *start <= offset).max(1);
    let start = lines.get(line - 1).copied().unwrap_or_default();
    let before = text.get(start..offset).or_else(|| text.get(start..)).unwrap_or_default();
    Place::Line { file: file.to_owned(), line, column: before.chars().count() + 1 }
}

/// A node of the document.
#[derive(Clone, Copy)]
pub(super) enum Here<'d> {
    Table(&'d dyn TableLike),
    Item(&'d Item),
    Value(&'d Value),
}

impl<'d> Here<'d> {
    /// Returns the child with this name, and the span of its key.
    pub(super) fn entry(&self, name: &str) -> Option<(Self, Option<Range<usize>>)> {
        let (key, item) = self.table()?.get_key_value(name)?;
        Some((Self::Item(item), key.span().or_else(|| item.span())))
    }

    fn table(&self) -> Option<&'d dyn TableLike> {
        match self {
            Self::Table(table) => Some(*table),
            Self::Item(item) => item.as_table_like(),
            Self::Value(value) => value.as_inline_table().map(|table| table as &dyn TableLike),
        }
    }

    /// Returns the element at this position, with its span.
    pub(super) fn element(&self, index: usize) -> Option<(Self, Option<Range<usize>>)> {
        let array = match self {
            Self::Table(_) => None,
            Self::Item(Item::ArrayOfTables(tables)) => {
                return tables.get(index).map(|table| (Self::Table(table), table.span()));
            }
            Self::Item(item) => item.as_array(),
            Self::Value(value) => value.as_array(),
        };
        array?.get(index).map(|value| (Self::Value(value), value.span()))
    }
}

/// Returns the offset of a key, and whether the key exists. The offset of an absent key is the offset of its nearest
/// ancestor.
fn offset(document: &ImDocument<String>, key: &str) -> (Option<usize>, bool) {
    let mut here = Here::Table(document.as_table());
    let (mut rest, mut best) = (key, None);
    while !rest.is_empty() {
        let span;
        if let Some((index, behind)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            let Some((element, at)) = index.parse().ok().and_then(|index| here.element(index)) else { break };
            (here, span, rest) = (element, at, behind);
        } else {
            let path = rest.strip_prefix('.').unwrap_or(rest);
            let Some((name, behind)) = here.table().and_then(|table| named(table, path)) else { break };
            let Some((entry, at)) = here.entry(name) else { break };
            (here, span, rest) = (entry, at, behind);
        }
        best = span.map(|span| span.start).or(best);
    }
    (best, rest.is_empty())
}

/// Splits a path into a key of this table and the rest, at the longest matching name. A name that contains a dot
/// matches with or without quotes.
fn named<'d, 'k>(table: &'d dyn TableLike, path: &'k str) -> Option<(&'d str, &'k str)> {
    let fits = |name: &'d str| {
        let quoted = layer::quoted(name);
        let rest = path.strip_prefix(&*quoted).or_else(|| path.strip_prefix(name))?;
        (rest.is_empty() || rest.starts_with(['.', '['])).then_some((name, rest))
    };
    // A quoted name is compared with every name of the table.
    if path.starts_with('"') {
        return table.iter().filter_map(|(name, _)| fits(name)).min_by_key(|(_, rest)| rest.len());
    }
    let ends = path.match_indices(['.', '[']).map(|(end, _)| end).chain([path.len()]);
    let names = ends.filter_map(|end| table.get_key_value(&path[..end]));
    names.filter_map(|(key, _)| fits(key.get())).min_by_key(|(_, rest)| rest.len())
}

/// Maximum length of compared names in bytes. The time for a comparison is proportional to the product of the lengths.
const COMPARED_BYTES_MAX: usize = 64;
/// Maximum number of names with which a name is compared.
const COMPARED_MAX: usize = 1000;

/// Returns the most similar known name; `None` if no known name is similar.
pub fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    // Two edits are allowed, or one edit per three bytes of a long name.
    let slips = |candidate: &str| 2.max(candidate.len() / 3);
    let comparable = |candidate: &&'k str| {
        // A character has at most four bytes in UTF-8.
        let apart = name.len().abs_diff(candidate.len());
        name.len().max(candidate.len()) <= COMPARED_BYTES_MAX && apart <= 4 * slips(candidate)
    };
    let compared = known.iter().copied().filter(comparable).take(COMPARED_MAX);
    compared
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= slips(candidate))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[server]\nhttps = \"x\"\n\n[upstream.a]\nservers = [\"p\", \"q\"]\n\n[[route]]\npath = \"/\"\n\n[[route]]\npath = \"/b\"\nclaims = { tenant = \"t\", \"a.b\" = 1, a = { b = 2 } }\n";

    fn line(key: &str) -> String {
        let environment = vec![("server.http".to_owned(), "PORTCULLIS_SERVER__HTTP".to_owned())];
        let places = Places::new("f", ImDocument::parse(TEXT.to_owned()).unwrap(), environment);
        places.of(key).to_string()
    }

    #[test]
    fn keys_are_found_where_they_stand() {
        assert_eq!(line("server.https"), "f:2:1");
        assert_eq!(line("upstream.a.servers[1]"), "f:5:17");
        assert_eq!(line("route[1].path"), "f:11:1");
        assert_eq!(line("route[1].claims.tenant"), "f:12:12");
        assert_eq!(line("route[1].claims.\"a.b\""), "f:12:26");
        assert_eq!(line("route[1].claims.a.b"), "f:12:26", "the name, not the way");
        assert_eq!(line("route[1].claims.a"), "f:12:37");
    }

    #[test]
    fn an_absent_key_is_at_the_table_that_lacks_it() {
        assert_eq!(line("server.admin"), "f:1:2");
        assert_eq!(line("route[0].upstream"), "f:7:1");
        assert_eq!(line("authority"), "f");
    }

    #[test]
    fn a_key_from_the_environment_has_its_variable_as_place() {
        assert_eq!(line("server.http"), "environment variable PORTCULLIS_SERVER__HTTP");
        assert_eq!(line("server.https"), "f:2:1");
    }

    #[test]
    fn a_name_may_look_like_a_way_through_other_tables() {
        let text = "[a]\n\"b.c\" = 1\nb = { c = 2, \"d[0]\" = 3 }\n'\"q' = 4\n\"\" = 5\n";
        let places = Places::new("f", ImDocument::parse(text.to_owned()).unwrap(), Vec::new());
        for (key, place) in [
            ("a.b.c", "f:2:1"),
            ("a.\"b.c\"", "f:2:1"),
            ("a.b.d[0]", "f:3:14"),
            ("a.b.d[1]", "f:3:1"),
            ("a.\"q", "f:4:1"),
            ("a.\"\\\"q\"", "f:4:1"),
            ("a.\"\"", "f:5:1"),
            ("a.bc", "f:1:2"),
        ] {
            assert_eq!(places.of(key).to_string(), place, "{key}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_place_is_always_the_number_of_lines_and_characters_before_it(text in "([a\u{fc}\r\n]|\n){0,40}", at in 0..80_usize) {
            let offset = at.min(text.len());
            let Place::Line { line, column, .. } = at_offset("f", &text, offset) else { panic!("a line") };
            let before = text.get(..offset);
            proptest::prop_assert!(line <= text.split('\n').count());
            if let Some(before) = before {
                proptest::prop_assert_eq!(line, before.split('\n').count());
                proptest::prop_assert_eq!(column, before.split('\n').next_back().unwrap().chars().count() + 1);
            }
        }
    }

    #[test]
    fn names_are_compared_in_bounded_time() {
        let long = "n".repeat(1 << 20);
        let many: Vec<String> = (0..100_000).map(|index| format!("name-number-{index:06}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).chain([&*long]).collect();
        assert_eq!(nearest(&long, &many), None);
        assert_eq!(nearest("name-numbr-000007", &many), Some("name-number-000007"));
    }

    #[test]
    fn the_nearest_name_is_near() {
        let known = ["https", "http", "trusted_proxies"];
        assert_eq!(nearest("htps", &known), Some("https"));
        assert_eq!(nearest("trusted_proxy", &known), Some("trusted_proxies"));
        assert_eq!(nearest("colour", &known), None);
    }
}
