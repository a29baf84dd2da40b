//! From a key to where it stands in the text, and from a misspelt name to the one that was meant.

use super::layer;
use crate::diagnostic::Place;
use std::ops::Range;
use toml_edit::{ImDocument, Item, TableLike, Value};

/// Where the keys of a policy stand.
#[derive(Debug, Default)]
pub struct Places {
    file: String,
    text: String,
    document: Option<ImDocument<String>>,
    /// Keys that the environment gave, with the variable of each.
    environment: Vec<(String, String)>,
    /// Where lines begin.
    lines: Vec<usize>,
}

impl Places {
    pub(super) fn new(file: &str, document: ImDocument<String>, environment: Vec<(String, String)>) -> Self {
        let text = document.raw().to_owned();
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let lines = std::iter::once(0).chain(ends.map(|(end, _)| end + 1)).collect();
        Self { file: file.to_owned(), text, document: Some(document), environment, lines }
    }

    /// The whole document, to go through it step by step.
    pub(super) fn root(&self) -> Option<Here<'_>> {
        self.document.as_ref().map(|document| Here::Table(document.as_table()))
    }

    /// The line that a byte of the file is in.
    pub(super) fn line(&self, offset: usize) -> (&str, usize) {
        (&self.file, self.lines.partition_point(|start| *start <= offset))
    }

    /// The place of a key such as `route[3].rate_limits[0]`; where it is absent, of the nearest table around it that
    /// is there.
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
        let (nearest, is_there) = self.document.as_ref().map_or((None, false), |doc| offset(doc, key));
        match (nearest, variable(&|known| below(known, key))) {
            // A table that the environment alone has made.
            (_, Some(variable)) if !is_there => Place::Environment(variable),
            (Some(offset), _) => at_offset(&self.file, &self.text, offset),
            (None, _) => Place::File(self.file.clone()),
        }
    }
}

/// The place of a byte of a text.
pub(super) fn at_offset(file: &str, text: &str, offset: usize) -> Place {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    Place::Line {
        file: file.to_owned(),
        line: before.bytes().filter(|b| *b == b'\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    }
}

/// What a key's path has led to.
#[derive(Clone, Copy)]
pub(super) enum Here<'d> {
    Table(&'d dyn TableLike),
    Item(&'d Item),
    Value(&'d Value),
}

impl<'d> Here<'d> {
    /// What stands under a name, and where.
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

    /// What stands at a position, and where.
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

/// Where the key stands, or the nearest that is there on the way to it; and whether it is the key itself.
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

/// The key of a table that a path begins with, and the rest of the path. A name with a dot in it is found with its
/// quotes and without: the longest name that fits is meant.
fn named<'d, 'k>(table: &'d dyn TableLike, path: &'k str) -> Option<(&'d str, &'k str)> {
    let fits = |name: &'d str| {
        let quoted = layer::quoted(name);
        let rest = path.strip_prefix(&*quoted).or_else(|| path.strip_prefix(name))?;
        (rest.is_empty() || rest.starts_with(['.', '['])).then_some((name, rest))
    };
    // Most names are the path's next word.
    let word = path.find(['.', '[']).map_or(path, |end| &path[..end]);
    let longest = || table.iter().filter_map(|(name, _)| fits(name)).min_by_key(|(_, rest)| rest.len());
    match table.get_key_value(word) {
        Some((key, _)) if word.len() == path.len() => fits(key.get()),
        _ => longest(),
    }
}

/// The known name that is most like this one, unless none is much like it.
pub fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), *candidate))
        .min()
        // Two slips, or one in three letters of a long name.
        .filter(|(distance, candidate)| *distance <= 2.max(candidate.len() / 3))
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
    fn what_the_environment_gave_is_there() {
        assert_eq!(line("server.http"), "environment variable PORTCULLIS_SERVER__HTTP");
        assert_eq!(line("server.https"), "f:2:1");
    }

    #[test]
    fn the_nearest_name_is_near() {
        let known = ["https", "http", "trusted_proxies"];
        assert_eq!(nearest("htps", &known), Some("https"));
        assert_eq!(nearest("trusted_proxy", &known), Some("trusted_proxies"));
        assert_eq!(nearest("colour", &known), None);
    }
}
