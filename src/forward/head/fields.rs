//! Collects the header fields that the gateway adds to a request.

use crate::http1::write_field;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Receives the fields that the gateway adds to a request.
pub trait FieldSink {
    /// Adds a field, which replaces the client's field of this name.
    fn set(&mut self, name: &HeaderName, value: &HeaderValue);

    /// Adds a field beside the client's fields of this name.
    fn add(&mut self, name: &HeaderName, value: &HeaderValue);

    /// Adds the fields of these lines, which are in the form in which they are sent.
    fn set_lines(&mut self, lines: &[u8]);
}

/// Adds the fields to the client's.
impl FieldSink for HeaderMap {
    fn set(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.insert(name, value.clone());
    }

    fn add(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.append(name, value.clone());
    }

    fn set_lines(&mut self, lines: &[u8]) {
        for (name, value) in fields_of(lines) {
            let value = HeaderValue::from_bytes(value);
            self.insert(name, value.expect("a line was written from a field"));
        }
    }
}

/// Writes the fields in the form in which they are sent. An entry of a map costs three times as much.
#[derive(Debug)]
pub(in crate::forward) struct HeadWriter {
    /// The head so far.
    pub(in crate::forward) head: Vec<u8>,
    #[cfg(debug_assertions)]
    added: Vec<HeaderName>,
}

impl HeadWriter {
    /// Begins to write after these bytes.
    pub(in crate::forward) fn new(head: Vec<u8>) -> Self {
        Self {
            head,
            #[cfg(debug_assertions)]
            added: Vec::new(),
        }
    }

    /// Checks that no field of the gateway has this name. The policy refuses names of identity fields that equal each
    /// other or a name that the gateway sets, and the gateway's names are removed from the client's fields.
    pub(in crate::forward) fn assert_free(&self, _name: &HeaderName) {
        #[cfg(debug_assertions)]
        assert!(!self.added.contains(_name), "{_name} is added twice");
    }

    fn note(&mut self, _name: &HeaderName) {
        #[cfg(debug_assertions)]
        {
            self.assert_free(_name);
            self.added.push(_name.clone());
        }
    }
}

impl FieldSink for HeadWriter {
    fn set(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.note(name);
        write_field(&mut self.head, name.as_str(), value.as_bytes());
    }

    fn add(&mut self, name: &HeaderName, value: &HeaderValue) {
        write_field(&mut self.head, name.as_str(), value.as_bytes());
    }

    fn set_lines(&mut self, lines: &[u8]) {
        if cfg!(debug_assertions) {
            fields_of(lines).for_each(|(name, _)| self.note(&name));
        }
        self.head.extend_from_slice(lines);
    }
}

/// Returns the fields of lines that [`write_field`] wrote.
fn fields_of(lines: &[u8]) -> impl Iterator<Item = (HeaderName, &[u8])> {
    lines.split(|byte| *byte == b'\n').filter_map(|line| {
        let line = line.strip_suffix(b"\r")?;
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((HeaderName::from_bytes(&line[..colon]).ok()?, &line[colon + 2..]))
    })
}
