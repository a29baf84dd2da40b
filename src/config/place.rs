//! From a key to where it stands in the text, and from a misspelt name to the one that was meant.

use crate::diagnostic::Place;
use toml_edit::{ImDocument, Item, TableLike, Value};

/// Where the keys of a policy stand.
#[derive(Debug, Default)]
pub struct Places {
    file: String,
    text: String,
    document: Option<ImDocument<String>>,
    /// Keys that the environment gave, with the variable of each.
    environment: Vec<(String, String)>,
}

impl Places {
    pub(super) fn new(file: &str, document: ImDocument<String>, environment: Vec<(String, String)>) -> Self {
        let text = document.raw().to_owned();
        Self { file: file.to_owned(), text, document: Some(document), environment }
    }

    /// The place of a key such as `route[3].rate_limits[0]`; where it is absent, of the nearest table around it that
    /// is there.
    pub fn of(&self, key: &str) -> Place {
        let from_environment = self.environment.iter().find(|(known, _)| {
            key.strip_prefix(known.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        });
        if let Some((_, variable)) = from_environment {
            return Place::Environment(variable.clone());
        }
        match self.document.as_ref().and_then(|document| offset(document, key)) {
            Some(offset) => at_offset(&self.file, &self.text, offset),
            None => Place::File(self.file.clone()),
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

/// One step of a key's path.
enum Step<'k> {
    Name(&'k str),
    Index(usize),
}

/// `route[3].rate_limits[0]` in steps. Names with dots in them cannot be told apart here and end the walk at their
/// table, which is near enough.
fn steps(key: &str) -> impl Iterator<Item = Step<'_>> {
    key.split('.').flat_map(|part| {
        let (name, indexes) = part.split_once('[').unwrap_or((part, ""));
        let indexes =
            indexes.split('[').filter_map(|i| i.trim_end_matches(']').parse().ok()).map(Step::Index);
        std::iter::once(Step::Name(name)).chain(indexes)
    })
}

fn offset(document: &ImDocument<String>, key: &str) -> Option<usize> {
    enum Here<'d> {
        Table(&'d dyn TableLike),
        Item(&'d Item),
        Value(&'d Value),
    }

    let mut here = Here::Table(document.as_table());
    let mut best = None;
    for step in steps(key) {
        here = match (&here, step) {
            (Here::Table(table), Step::Name(name)) => match table.get_key_value(name) {
                Some((key, item)) => {
                    best = key.span().or_else(|| item.span()).map(|span| span.start).or(best);
                    Here::Item(item)
                }
                None => break,
            },
            (Here::Item(item), Step::Name(name)) => match item.as_table_like() {
                Some(table) => match table.get_key_value(name) {
                    Some((key, item)) => {
                        best = key.span().or_else(|| item.span()).map(|span| span.start).or(best);
                        Here::Item(item)
                    }
                    None => break,
                },
                None => break,
            },
            (Here::Item(item), Step::Index(index)) => {
                if let Some(table) = item.as_array_of_tables().and_then(|tables| tables.get(index)) {
                    best = table.span().map(|span| span.start).or(best);
                    Here::Table(table)
                } else if let Some(value) = item.as_array().and_then(|array| array.get(index)) {
                    best = value.span().map(|span| span.start).or(best);
                    Here::Value(value)
                } else {
                    break;
                }
            }
            (Here::Value(value), Step::Name(name)) => match value.as_inline_table() {
                Some(table) => match table.get_key_value(name) {
                    Some((key, item)) => {
                        best = key.span().or_else(|| item.span()).map(|span| span.start).or(best);
                        Here::Item(item)
                    }
                    None => break,
                },
                None => break,
            },
            (Here::Value(value), Step::Index(index)) => {
                match value.as_array().and_then(|array| array.get(index)) {
                    Some(value) => {
                        best = value.span().map(|span| span.start).or(best);
                        Here::Value(value)
                    }
                    None => break,
                }
            }
            (Here::Table(_), Step::Index(_)) => break,
        };
    }
    best
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

    const TEXT: &str = "[server]\nhttps = \"x\"\n\n[upstream.a]\nservers = [\"p\", \"q\"]\n\n[[route]]\npath = \"/\"\n\n[[route]]\npath = \"/b\"\nclaims = { tenant = \"t\" }\n";

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
