//! The identity headers of one principal, rendered.

use crate::http1::write_field;
use http::{HeaderName, HeaderValue};
use std::ops::Deref;

/// The identity headers of a principal.
#[derive(Clone, Debug, Default)]
pub struct IdentityFields {
    fields: Box<[(HeaderName, HeaderValue)]>,
    /// The same fields, in the form in which they are sent.
    lines: Box<[u8]>,
}

impl IdentityFields {
    /// Renders the fields.
    pub fn new(fields: Vec<(HeaderName, HeaderValue)>) -> Self {
        let mut lines = Vec::new();
        for (name, value) in &fields {
            write_field(&mut lines, name.as_str(), value.as_bytes());
        }
        Self { fields: fields.into(), lines: lines.into() }
    }

    /// Returns the fields in the form in which they are sent.
    pub fn lines(&self) -> &[u8] {
        &self.lines
    }
}

impl Deref for IdentityFields {
    type Target = [(HeaderName, HeaderValue)];

    fn deref(&self) -> &Self::Target {
        &self.fields
    }
}
