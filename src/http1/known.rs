//! Remembers the head of the last answer of a connection. The answers of a server mostly have the same lines, and
//! comparing a line with a known one costs a fifth of parsing it and allocating its field.

use super::framing::FramingFields;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

/// The maximum number of remembered fields.
const FIELDS_MAX: usize = 16;
/// The maximum size of a remembered line, in bytes.
const BYTES_MAX: usize = 128;

/// The head of the last answer of a connection.
///
/// A head that is read with it means exactly what the parser reads: each line equals a line that the parser has
/// accepted, or differs from it only in a value without surrounding white space. Any other head goes to the parser.
#[derive(Debug, Default)]
pub struct KnownHead {
    /// The status line with its line break. Empty if no head is remembered.
    start: Vec<u8>,
    status: StatusCode,
    version: u8,
    lines: Vec<KnownLine>,
    /// The last head that consisted of these lines. Empty if a line may have changed since.
    whole: Vec<u8>,
    /// The framing that all lines announce. `None` after a line has changed.
    framing: Option<FramingFields>,
}

/// A field line.
#[derive(Debug)]
struct KnownLine {
    /// The line with its line break. The name is as the server spelled it.
    text: Vec<u8>,
    /// The position of the value in the line.
    value_at: usize,
    name: HeaderName,
    value: HeaderValue,
    /// Whether the field concerns only the two ends of the connection.
    is_framing: bool,
}

/// A head that was read without the parser.
#[derive(Debug)]
pub(super) struct ReadHead {
    pub(super) length: usize,
    pub(super) status: StatusCode,
    /// The minor version.
    pub(super) version: u8,
    pub(super) framing: FramingFields,
}

impl KnownHead {
    /// Reads a head whose lines are known. Returns `None` if the parser must read the head.
    pub(super) fn read(&mut self, bytes: &[u8], headers: &mut HeaderMap) -> Option<ReadHead> {
        let is_whole = !self.whole.is_empty() && bytes.starts_with(&self.whole);
        let length = if is_whole { self.whole.len() } else { self.read_lines(bytes)? };
        let framing = self.framing.unwrap_or_else(|| self.reframe());
        for KnownLine { name, value, is_framing, .. } in &self.lines {
            if !is_framing {
                headers.append(name.clone(), value.clone());
            }
        }
        Some(ReadHead { length, status: self.status, version: self.version, framing })
    }

    /// Compares a head with the known lines, one by one. Returns its length.
    fn read_lines(&mut self, bytes: &[u8]) -> Option<usize> {
        self.whole.clear();
        if self.start.is_empty() || !bytes.starts_with(&self.start) {
            return None;
        }
        let mut length = self.start.len();
        for line in &mut self.lines {
            let rest = &bytes[length..];
            if !rest.starts_with(&line.text) {
                self.framing = None;
                line.renew(rest)?;
            }
            length += line.text.len();
        }
        if !bytes[length..].starts_with(b"\r\n") {
            return None;
        }
        self.whole.extend_from_slice(&bytes[..length + 2]);
        Some(length + 2)
    }

    /// Returns the field at this position if the last answer had exactly the same field there.
    pub(super) fn get(
        &self,
        position: usize,
        field: &httparse::Header<'_>,
    ) -> Option<(HeaderName, HeaderValue)> {
        let known = self.lines.get(position)?;
        let is_same = known.text[..known.value_at].strip_suffix(b": ") == Some(field.name.as_bytes())
            && *known.value.as_bytes() == *field.value;
        is_same.then(|| (known.name.clone(), known.value.clone()))
    }

    /// Remembers the field at this position. A long field is not worth its memory. A cookie is not kept, because it is
    /// a secret of one caller.
    #[cold]
    pub(super) fn set(&mut self, position: usize, spelling: &str, name: &HeaderName, value: &HeaderValue) {
        self.framing = None;
        self.whole.clear();
        let is_kept = spelling.len() + value.len() <= BYTES_MAX && *name != header::SET_COOKIE;
        if !is_kept {
            self.lines.truncate(position);
        } else if position < FIELDS_MAX && position <= self.lines.len() {
            let text = [spelling.as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat();
            let value_at = spelling.len() + 2;
            let (name, value) = (name.clone(), value.clone());
            let line = KnownLine { text, value_at, name, value, is_framing: false };
            match self.lines.get_mut(position) {
                Some(known) => *known = line,
                None => self.lines.push(line),
            }
        }
    }

    /// Remembers a head of `count` fields, if [`KnownHead::set`] has remembered all of them.
    pub(super) fn complete(&mut self, head: &[u8], status: StatusCode, version: u8, count: usize) {
        self.lines.truncate(count);
        self.framing = None;
        self.whole.clear();
        self.start.clear();
        let end = head.iter().take(BYTES_MAX).position(|byte| *byte == b'\n');
        if let Some(end) = end.filter(|_| self.lines.len() == count) {
            self.start.extend_from_slice(&head[..=end]);
            (self.status, self.version) = (status, version);
        }
    }

    /// Reads the framing from all lines again.
    fn reframe(&mut self) -> FramingFields {
        let mut framing = FramingFields::default();
        for line in &mut self.lines {
            line.is_framing = !framing.add(line.name.as_str(), line.value.as_bytes());
        }
        self.framing = Some(framing);
        framing
    }
}

impl KnownLine {
    /// Takes over another value of the same field. Returns `None` if the parser must read the line.
    fn renew(&mut self, rest: &[u8]) -> Option<()> {
        let value = rest.strip_prefix(&self.text[..self.value_at])?;
        let end = value.iter().take(BYTES_MAX).position(|byte| matches!(byte, b'\r' | b'\n'))?;
        let (value, line_break) = value.split_at(end);
        let is_plain = value.trim_ascii().len() == end && end > 0 && line_break.starts_with(b"\r\n");
        self.value = is_plain.then(|| HeaderValue::from_bytes(value).ok()).flatten()?;
        self.text.truncate(self.value_at);
        self.text.extend_from_slice(value);
        self.text.extend_from_slice(b"\r\n");
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::HeadReader;
    use super::*;
    use bytes::BytesMut;
    use http::Method;

    /// Reads a head. Returns whether the lines of the last head sufficed.
    fn is_known(known: &mut KnownHead, head: &str) -> bool {
        let found = known.read(head.as_bytes(), &mut HeaderMap::new());
        let mut headers = HeaderMap::new();
        let read = HeadReader::new(&Method::GET).read(&mut BytesMut::from(head), &mut headers, known);
        read.expect("the head is valid").expect("the head is complete");
        found.is_some_and(|found| found.length == head.len())
    }

    #[test]
    fn a_head_is_known_if_only_values_differ_from_the_last_one() {
        let first = "HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 2\r\n\r\n";
        for (next, expected) in [
            (first, true),
            ("HTTP/1.1 200 OK\r\nX-A: c\r\nContent-Length: 12\r\n\r\n", true),
            ("HTTP/1.1 201 OK\r\nX-A: b\r\nContent-Length: 2\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\nX-B: b\r\nContent-Length: 2\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\nx-a: b\r\nContent-Length: 2\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\nX-A:b\r\nContent-Length: 2\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\nX-A: b \r\nContent-Length: 2\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 2\r\nX-B: c\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", false),
        ] {
            let mut known = KnownHead::default();
            assert!(!is_known(&mut known, first));
            assert_eq!(is_known(&mut known, next), expected, "{next}");
        }
    }

    #[test]
    fn a_repeated_head_means_the_same_whatever_came_between() {
        let head = |status: u16, value: &str| {
            format!("HTTP/1.1 {status} OK\r\nX-A: {value}\r\nContent-Length: 2\r\n\r\n")
        };
        let mut known = KnownHead::default();
        for (status, value) in [(200, "b"), (200, "c"), (201, "c"), (200, "b"), (200, "b ")] {
            for _ in 0..3 {
                let mut headers = HeaderMap::new();
                let mut bytes = BytesMut::from(&*head(status, value));
                let read = HeadReader::new(&Method::GET).read(&mut bytes, &mut headers, &mut known);
                assert_eq!(read.unwrap().unwrap().status, status);
                assert_eq!(headers.len(), 1);
                assert_eq!(headers["x-a"], value.trim_end());
                assert!(bytes.is_empty());
            }
        }
        assert!(known.whole.is_empty(), "the parser has read the last head");
    }

    #[test]
    fn a_head_with_a_cookie_is_not_kept() {
        let mut known = KnownHead::default();
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: a=SECRET\r\nX-A: b\r\n\r\n";
        for _ in 0..2 {
            assert!(!is_known(&mut known, head));
            assert!(!format!("{known:?}").contains("SECRET"));
        }
    }
}
