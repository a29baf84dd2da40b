//! Writes a table as aligned text, CSV or Markdown. No text can break out of its cell.

use std::fmt::Write;

#[derive(Debug)]
pub(super) struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Creates an empty table.
    pub(super) fn of<S: Into<String>>(header: impl IntoIterator<Item = S>) -> Self {
        Self { header: header.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Appends a row. It must have one cell per column.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    fn lines(&self) -> impl Iterator<Item = &Vec<String>> {
        std::iter::once(&self.header).chain(&self.rows)
    }

    /// Writes aligned columns, with `-` for an empty cell.
    pub(super) fn text(&self) -> String {
        let shown: Vec<Vec<String>> =
            self.lines().map(|cells| cells.iter().map(|cell| or_dash(plain(cell))).collect()).collect();
        let width = |column: usize| {
            shown
                .iter()
                .filter_map(|cells| cells.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.header.len()).map(width).collect();
        let mut text = String::new();
        for cells in &shown {
            let mut line = String::new();
            for (cell, width) in cells.iter().zip(&widths) {
                // Writing to a string cannot fail.
                let _ = write!(line, "{cell:width$}  ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// Writes CSV (RFC 4180). A cell that a spreadsheet would read as a formula gets a leading apostrophe, because a
    /// role may be named `=HYPERLINK(...)`.
    pub(super) fn csv(&self) -> String {
        let mut writer = csv::Writer::from_writer(Vec::new());
        for cells in self.lines() {
            let cells =
                cells.iter().map(|cell| if is_formula(cell) { format!("'{cell}") } else { cell.clone() });
            // The writer writes to memory and all rows have the same length, so writing cannot fail.
            let _ = writer.write_record(cells);
        }
        writer.into_inner().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Writes a table in GitHub's Markdown.
    pub(super) fn markdown(&self) -> String {
        let mut text = String::new();
        for (position, cells) in self.lines().enumerate() {
            let cells: Vec<_> = cells.iter().map(|cell| escaped(&plain(cell))).collect();
            let _ = writeln!(text, "| {} |", cells.join(" | "));
            if position == 0 {
                let _ = writeln!(text, "|{}", " --- |".repeat(cells.len()));
            }
        }
        text
    }
}

fn is_formula(cell: &str) -> bool {
    cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n'])
}

fn or_dash(cell: String) -> String {
    if cell.is_empty() { "-".to_owned() } else { cell }
}

/// Escapes control characters and characters that change the text direction. The text then stays on one line.
fn plain(cell: &str) -> String {
    let mut text = String::with_capacity(cell.len());
    for char in cell.chars() {
        let turns =
            matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if char.is_control() || turns {
            text.extend(char.escape_unicode());
        } else {
            text.push(char);
        }
    }
    text
}

/// Escapes text for Markdown. Any ASCII punctuation may follow a backslash (CommonMark section 2.4).
fn escaped(cell: &str) -> String {
    let mut text = String::with_capacity(cell.len());
    for char in cell.chars() {
        if matches!(char, '\\' | '|' | '`' | '*' | '_' | '<' | '>' | '[' | ']' | '&' | '~' | '#' | '!') {
            text.push('\\');
        }
        text.push(char);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(cells: &[&str]) -> Table {
        let mut table = Table::of(cells.iter().map(|_| "column"));
        table.row(cells.iter().map(|cell| (*cell).to_owned()));
        table
    }

    #[test]
    fn columns_of_text_are_aligned_and_empty_cells_are_seen() {
        let mut table = Table::of(["a", "long"]);
        table.row(["wide \u{e9}".to_owned(), String::new()]);
        table.row(["x\n".to_owned(), "y".to_owned()]);
        assert_eq!(table.text(), "a       long\nwide \u{e9}  -\nx\\u{a}  y\n");
    }

    #[test]
    fn no_cell_of_a_spreadsheet_is_a_formula() {
        for cell in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "=\"a\",b"] {
            let csv = table(&[cell, "x"]).csv();
            let line = csv.lines().skip(1).collect::<Vec<_>>().join("\n");
            assert!(line.trim_start_matches('"').starts_with('\''), "{cell}: {line}");
        }
        assert_eq!(table(&["yes", "a,\"b\""]).csv(), "column,column\nyes,\"a,\"\"b\"\"\"\n");
    }

    #[test]
    fn no_cell_of_a_document_ends_before_its_end() {
        assert_eq!(
            table(&["a|b", "<b>*x*</b>\n", "{id}"]).markdown(),
            "| column | column | column |\n| --- | --- | --- |\n| a\\|b | \\<b\\>\\*x\\*\\</b\\>\\\\u{a} | {id} |\n"
        );
    }

    proptest! {
        #[test]
        fn a_table_always_has_its_columns_and_rows(cells in proptest::collection::vec("\\PC{0,12}|[|,\"\\\\\n\r\t=]{0,6}", 2..5)) {
            let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
            let table = table(&cells);
            let text = table.csv();
            let mut reader = csv::Reader::from_reader(text.as_bytes());
            let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
            prop_assert_eq!(rows.len(), 1);
            for (read, cell) in rows[0].iter().zip(&cells) {
                prop_assert_eq!(read.strip_prefix('\'').filter(|_| is_formula(cell)).unwrap_or(read), *cell);
            }
            prop_assert_eq!(table.text().lines().count(), 2);
            let markdown = table.markdown();
            prop_assert_eq!(markdown.lines().count(), 3);
            let last = markdown.lines().last().unwrap().replace("\\\\", "").replace("\\|", "");
            prop_assert_eq!(last.matches('|').count(), cells.len() + 1);
        }
    }
}
