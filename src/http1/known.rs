//! Remembers the fields of the last answer of a connection. The answers of a server mostly have the same fields, and a
//! copy of a parsed field costs a fifth of parsing and allocating it again.

use http::{HeaderName, HeaderValue, header};

/// The maximum number of remembered fields.
const FIELDS_MAX: usize = 16;
/// The maximum size of a remembered field, in bytes.
const BYTES_MAX: usize = 128;

/// The fields of the last answer of a connection, in their order.
#[derive(Debug, Default)]
pub struct KnownFields(Vec<KnownField>);

#[derive(Debug)]
struct KnownField {
    /// The name as the server spelled it.
    spelling: Box<[u8]>,
    name: HeaderName,
    value: HeaderValue,
}

impl KnownFields {
    /// Returns the field at this position if the last answer had exactly the same field there.
    #[inline]
    pub(super) fn get(
        &self,
        position: usize,
        field: &httparse::Header<'_>,
    ) -> Option<(HeaderName, HeaderValue)> {
        let known = self.0.get(position)?;
        let is_same = *known.spelling == *field.name.as_bytes() && *known.value.as_bytes() == *field.value;
        is_same.then(|| (known.name.clone(), known.value.clone()))
    }

    /// Remembers the field at this position. A long field is not worth its memory. A cookie is not kept, because it is
    /// a secret of one caller.
    #[cold]
    pub(super) fn set(&mut self, position: usize, spelling: &str, name: &HeaderName, value: &HeaderValue) {
        let is_kept = spelling.len() + value.len() <= BYTES_MAX && *name != header::SET_COOKIE;
        if !is_kept || position >= FIELDS_MAX || position > self.0.len() {
            return;
        }
        let field =
            KnownField { spelling: spelling.as_bytes().into(), name: name.clone(), value: value.clone() };
        match self.0.get_mut(position) {
            Some(known) => *known = field,
            None => self.0.push(field),
        }
    }
}
