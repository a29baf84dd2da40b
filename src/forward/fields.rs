//! Collects the header fields that the gateway adds to a request.

use crate::http1::write_field;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Receives the fields that the gateway adds to a request.
pub trait FieldSink {
    /// Returns the client's fields that are left.
    fn client(&mut self) -> &mut HeaderMap;

    /// Adds a field, which replaces the client's field of this name.
    fn set(&mut self, name: &HeaderName, value: &HeaderValue);
}

/// Adds the fields to the client's.
impl FieldSink for HeaderMap {
    fn client(&mut self) -> &mut HeaderMap {
        self
    }

    fn set(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.insert(name, value.clone());
    }
}

/// Writes the fields in the form in which they are sent. An entry of a map costs three times as much.
#[derive(Debug)]
pub(super) struct HeadWriter {
    /// The head so far.
    pub(super) head: Vec<u8>,
    /// The client's fields, which are written at the end of the head.
    pub(super) client: HeaderMap,
    #[cfg(debug_assertions)]
    added: Vec<HeaderName>,
}

impl HeadWriter {
    /// Begins to write after these bytes.
    pub(super) fn new(head: Vec<u8>, client: HeaderMap) -> Self {
        Self {
            head,
            client,
            #[cfg(debug_assertions)]
            added: Vec::new(),
        }
    }
}

impl FieldSink for HeadWriter {
    fn client(&mut self) -> &mut HeaderMap {
        &mut self.client
    }

    fn set(&mut self, name: &HeaderName, value: &HeaderValue) {
        // The policy refuses names of identity fields that equal each other or a name that the gateway sets.
        #[cfg(debug_assertions)]
        {
            assert!(!self.added.contains(name), "{name} is added twice");
            self.added.push(name.clone());
        }
        self.client.remove(name);
        write_field(&mut self.head, name.as_str(), value.as_bytes());
    }
}
