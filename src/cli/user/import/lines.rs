//! Reads the lines of a file of accounts, as columns and values. If a line cannot be parsed, only this line is faulty.
//! An I/O error ends the import.

use super::super::Failure;
use super::super::row::Columns;
use super::Input;
use serde_json::{Map, Value};
use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::rc::Rc;

/// Maximum size of a line, in bytes. Without this bound, a file without line breaks would be read into memory whole.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// Number of bytes that are passed to the CSV reader at once.
const PIECE_BYTES: u64 = 64 * 1024;

type CountedInput = BufReader<CountingReader<Box<dyn Read>>>;

/// The number of a line, and its values by column.
pub(super) type Line = (u64, Result<Map<String, Value>, String>);

pub(super) struct Lines {
    bytes: Rc<Cell<u64>>,
    of: LineReader,
    path: String,
}

enum LineReader {
    Csv { reader: Box<csv::Reader<LineEndings>>, header: Vec<String>, ignored: Vec<String> },
    Jsonl { source: CountedInput, number: u64 },
}

impl Lines {
    /// Opens a file. Also returns its size in bytes, or `None` if it is not a regular file.
    pub(super) fn open(path: &Path, input: Input, columns: &Columns) -> Result<(Self, Option<u64>), Failure> {
        let fault = |error: io::Error| format!("{}: {error}", path.display());
        let (source, size): (Box<dyn Read>, _) = if path == Path::new("-") {
            (Box::new(io::stdin()), None)
        } else {
            let file = File::open(path).map_err(fault)?;
            let size = file.metadata().map_err(fault)?;
            (Box::new(file), size.is_file().then_some(size.len()))
        };
        Ok((Self::of(source, path.display().to_string(), input, columns)?, size))
    }

    fn of(source: Box<dyn Read>, path: String, input: Input, columns: &Columns) -> Result<Self, String> {
        let bytes = Rc::new(Cell::new(0));
        let mut source = BufReader::new(CountingReader { source, bytes: Rc::clone(&bytes) });
        // Skip the byte order mark that spreadsheets write.
        let begin = source.fill_buf().map_err(|error| format!("{path}: {error}"))?;
        if begin.starts_with(b"\xef\xbb\xbf") {
            source.consume(3);
        }
        let of = match input {
            Input::Jsonl => LineReader::Jsonl { source, number: 0 },
            Input::Csv => LineReader::csv(source, columns).map_err(|why| format!("{path}: {why}"))?,
        };
        Ok(Self { bytes, of, path })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Returns the columns that the import does not use.
    pub(super) fn ignored(&self) -> &[String] {
        match &self.of {
            LineReader::Csv { ignored, .. } => ignored,
            LineReader::Jsonl { .. } => &[],
        }
    }

    /// Returns the next line that is not empty.
    pub(super) fn next_line(&mut self) -> Result<Option<Line>, Failure> {
        let next = match &mut self.of {
            LineReader::Csv { reader, header, .. } => next_record(reader, header),
            LineReader::Jsonl { source, number } => next_object(source, number),
        };
        next.map_err(|error| format!("{}: {error}", self.path).into())
    }
}

impl LineReader {
    fn csv(mut source: CountedInput, columns: &Columns) -> Result<Self, String> {
        // Spreadsheets separate columns by semicolons in countries with a decimal comma.
        let begin = source.fill_buf().map_err(|error| error.to_string())?;
        let first = begin.split(|b| *b == b'\n').next().unwrap_or_default();
        let delimiter = if first.contains(&b';') && !first.contains(&b',') { b';' } else { b',' };
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .flexible(true)
            .from_reader(LineEndings::of(source));
        let header = reader.headers().map_err(|error| format!("line 1: {error}"))?;
        let header: Vec<String> = header.iter().map(|name| name.trim().to_owned()).collect();
        let names: Vec<&str> = header.iter().map(String::as_str).collect();
        let twice = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name));
        if let Some((_, name)) = twice {
            return Err(format!("line 1: the column {name:?} appears twice"));
        }
        columns.check(&names).map_err(|why| format!("line 1: {why}"))?;
        let ignored = columns.ignored(&names).into_iter().filter(|name| *name != "attributes");
        let ignored = ignored.map(str::to_owned).collect();
        Ok(Self::Csv { reader: Box::new(reader), header, ignored })
    }
}

fn next_record(reader: &mut csv::Reader<LineEndings>, header: &[String]) -> io::Result<Option<Line>> {
    let mut record = csv::ByteRecord::new();
    if !reader.read_byte_record(&mut record).map_err(io::Error::other)? {
        return Ok(None);
    }
    // The number of the record's first line is the number of its last line minus the line breaks inside quotes. The
    // reader's start position is not used, because it may be before empty lines.
    let within = record.as_slice().iter().filter(|b| **b == b'\n').count() as u64;
    let number = reader.position().line().saturating_sub(1 + within);
    let values = || {
        if record.len() != header.len() {
            return Err(format!("{} values for {} columns", record.len(), header.len()));
        }
        let pairs = header.iter().zip(&record).map(|(name, value)| {
            let value = std::str::from_utf8(value).map_err(|_| format!("{name}: not UTF-8"))?;
            Ok((name.clone(), Value::from(value)))
        });
        pairs.collect()
    };
    Ok(Some((number, values())))
}

fn next_object(source: &mut CountedInput, number: &mut u64) -> io::Result<Option<Line>> {
    loop {
        let mut line = Vec::new();
        if source.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        *number += 1;
        if line.len() as u64 == LINE_BYTES_MAX && !line.ends_with(b"\n") {
            skip_line(source)?;
            return Ok(Some((*number, Err(format!("more than {LINE_BYTES_MAX} bytes")))));
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let object = match serde_json::from_slice(&line) {
            Ok(Value::Object(object)) => Ok(object),
            Ok(_) => Err("not a JSON object".to_owned()),
            // The error message of serde is not shown, because it may quote a password.
            Err(error) => Err(format!("not valid JSON at column {}", error.column())),
        };
        return Ok(Some((*number, object)));
    }
}

fn skip_line(source: &mut CountedInput) -> io::Result<()> {
    loop {
        let buffer = source.fill_buf()?;
        let end = buffer.iter().position(|b| *b == b'\n');
        let count = end.map_or(buffer.len(), |end| end + 1);
        let done = end.is_some() || count == 0;
        source.consume(count);
        if done {
            return Ok(());
        }
    }
}

/// Converts line endings to `\n`, and ends the last line too. The number of line endings is then the number of lines.
struct LineEndings {
    source: CountedInput,
    line: Vec<u8>,
    at: usize,
}

impl LineEndings {
    fn of(source: CountedInput) -> Self {
        Self { source, line: Vec::new(), at: 0 }
    }

    fn refill(&mut self) -> io::Result<()> {
        let is_whole = self.line.is_empty() || self.line.ends_with(b"\n");
        self.line.clear();
        self.at = 0;
        self.source.by_ref().take(PIECE_BYTES).read_until(b'\n', &mut self.line)?;
        if self.line.is_empty() && !is_whole {
            self.line.push(b'\n');
        } else if self.line.ends_with(b"\r\n") {
            self.line.truncate(self.line.len() - 2);
            self.line.push(b'\n');
        }
        Ok(())
    }
}

impl Read for LineEndings {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.line.len() {
            self.refill()?;
        }
        let count = (&self.line[self.at..]).read(buffer)?;
        self.at += count;
        Ok(count)
    }
}

/// A reader that counts its bytes.
struct CountingReader<R> {
    source: R,
    bytes: Rc<Cell<u64>>,
}

impl<R: Read> Read for CountingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.bytes.set(self.bytes.get() + count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads all lines. Returns the number of each line, and its content or error as text.
    fn read(input: Input, text: &[u8]) -> Vec<(u64, String)> {
        let source: Box<dyn Read> = Box::new(io::Cursor::new(text.to_vec()));
        let lines = Lines::of(source, "a file".to_owned(), input, &Columns::default());
        let mut lines = lines.unwrap_or_else(|why| panic!("{why}"));
        let mut all = Vec::new();
        while let Ok(Some((number, line))) = lines.next_line() {
            all.push((number, line.map_or_else(|why| why, |line| Value::Object(line).to_string())));
        }
        assert_eq!(lines.bytes(), text.len() as u64);
        all
    }

    fn owned(lines: &[(u64, &str)]) -> Vec<(u64, String)> {
        lines.iter().map(|(number, line)| (*number, (*line).to_owned())).collect()
    }

    #[test]
    fn a_record_has_the_number_of_the_line_where_it_begins() {
        let text = "\u{feff}name,roles\r\nada,\"a\nb\"\r\n\r\nbob,c\r\ncarol\r\n";
        let wanted = owned(&[
            (2, "{\"name\":\"ada\",\"roles\":\"a\\nb\"}"),
            (5, "{\"name\":\"bob\",\"roles\":\"c\"}"),
            (6, "1 values for 2 columns"),
        ]);
        assert_eq!(read(Input::Csv, text.as_bytes()), wanted);
    }

    #[test]
    fn semicolons_separate_where_the_header_has_no_comma() {
        let wanted = owned(&[(2, "{\"name\":\"ada\",\"roles\":\"a,b\"}")]);
        assert_eq!(read(Input::Csv, b"name;roles\nada;a,b\n"), wanted);
        let wanted = owned(&[(2, "{\"name\":\"ada\",\"roles\":\"a;b\"}")]);
        assert_eq!(read(Input::Csv, b"name,roles\nada,a;b"), wanted);
    }

    #[test]
    fn a_value_that_is_not_utf_8_is_a_fault_of_its_line_alone() {
        let wanted = owned(&[(2, "name: not UTF-8"), (3, "{\"name\":\"bob\"}")]);
        assert_eq!(read(Input::Csv, b"name\n\xff\nbob\n"), wanted);
    }

    #[test]
    fn a_line_of_json_that_is_too_long_is_passed_over_and_not_kept() {
        let long = format!("{{\"name\":\"{}\"}}\n", "a".repeat(3 << 20));
        let text = format!("{{\"name\":\"ada\"}}\n{long}\n{{\"name\":\"bob\"}}");
        let wanted =
            owned(&[(1, "{\"name\":\"ada\"}"), (2, "more than 1048576 bytes"), (4, "{\"name\":\"bob\"}")]);
        assert_eq!(read(Input::Jsonl, text.as_bytes()), wanted);
    }

    #[test]
    fn text_that_is_no_json_is_not_shown() {
        let lines = read(Input::Jsonl, b"{\"password\":\"secret\nsecret\n\"secret\"\n");
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|(_, why)| !why.contains("secret")), "{lines:?}");
    }
}
