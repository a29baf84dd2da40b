//! Reads a header field on which a decision depends.
//!
//! A decision must not use a field that the gateway and the upstream could read differently. A client can cause this in
//! three ways: it sends the field twice, sends it a second time under a name that some servers treat as equal, or names
//! it in `Connection` so that the gateway removes it.

use crate::field_list::members;
use http::header::CONNECTION;
use http::{HeaderMap, HeaderName};

/// A header field of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field<'h> {
    /// The request does not have the field.
    Absent,
    /// The value. The request has the field once.
    Once(&'h [u8]),
    /// The gateway and the upstream could read different values.
    Ambiguous,
}

impl<'h> Field<'h> {
    /// Reads a field. Treats all separators in names as equal, because a CGI-style upstream reads `X_Tenant` and
    /// `X.Tenant` as `X-Tenant`.
    pub(crate) fn read(headers: &'h HeaderMap, name: &HeaderName) -> Self {
        let is_twin = |known: &HeaderName| known != name && folds_to(known.as_str(), name.as_str());
        if headers.keys().any(is_twin) || is_named_by_connection(headers, name) {
            return Self::Ambiguous;
        }
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Self::Absent,
            (Some(value), None) => Self::Once(value.as_bytes()),
            (Some(_), Some(_)) => Self::Ambiguous,
        }
    }

    /// Returns the value if it is a single word (see [`is_word`]).
    pub(crate) fn word(self) -> Option<&'h str> {
        match self {
            Self::Once(value) if is_word(value) => std::str::from_utf8(value).ok(),
            Self::Absent | Self::Once(_) | Self::Ambiguous => None,
        }
    }
}

/// Whether a value is one word: visible ASCII without comma, semicolon or quote. A server that parses the field as a
/// list or with parameters (RFC 9110 section 5.6) reads the same word.
pub(crate) fn is_word(value: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b',' | b';' | b'"' | b'\'');
    !value.is_empty() && value.iter().all(is_plain)
}

/// Whether two names are equal if all separators are treated as equal.
fn folds_to(one: &str, other: &str) -> bool {
    let fold = |byte: u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' };
    one.len() == other.len() && one.bytes().zip(other.bytes()).all(|(one, other)| fold(one) == fold(other))
}

/// Whether `Connection` names the field. The gateway removes such a field (RFC 9110 section 7.6.1).
fn is_named_by_connection(headers: &HeaderMap, name: &HeaderName) -> bool {
    members(headers, &CONNECTION).any(|option| option.eq_ignore_ascii_case(name.as_str().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    const NAME: HeaderName = HeaderName::from_static("x-tenant");

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_field_that_two_readers_could_read_differently_has_no_value() {
        for (fields, word) in [
            (&[("x-tenant", "acme")][..], Some("acme")),
            (&[("X-Tenant", "acme"), ("x-other", "b")], Some("acme")),
            (&[("x-tenant", "acme"), ("connection", "keep-alive")], Some("acme")),
            (&[("x-tenant", "acme"), ("connection", "x-tenant-2")], Some("acme")),
            (&[], None),
            (&[("x-tenant", "acme"), ("x-tenant", "acme")], None),
            (&[("x-tenant", "acme"), ("x_tenant", "acme")], None),
            (&[("x_tenant", "acme")], None),
            (&[("x.tenant", "acme")], None),
            (&[("x-tenant", "acme"), ("connection", "close, X-Tenant")], None),
            (&[("x-tenant", "acme"), ("connection", "close"), ("connection", "x-tenant")], None),
            (&[("x-tenant", "")], None),
            (&[("x-tenant", "acme,other")], None),
            (&[("x-tenant", "acme other")], None),
            (&[("x-tenant", "acme;q=1")], None),
            (&[("x-tenant", "\"acme\"")], None),
        ] {
            assert_eq!(Field::read(&headers(fields), &NAME).word(), word, "{fields:?}");
        }
        assert_eq!(Field::read(&headers(&[]), &NAME), Field::Absent);
        assert_eq!(Field::read(&headers(&[("x_tenant", "a")]), &NAME), Field::Ambiguous, "never absent");
        let mut odd = HeaderMap::new();
        odd.insert(NAME, HeaderValue::from_bytes(b"acm\xe9").unwrap());
        assert_eq!(Field::read(&odd, &NAME).word(), None);
    }

    proptest! {
        #[test]
        fn a_word_is_the_only_value_that_any_reader_of_the_field_can_find(
            fields in proptest::collection::vec(("x[-_.]tenant|connection", "[ a-c,;\"-]{0,6}|x-tenant"), 0..5),
        ) {
            let fields: Vec<_> = fields.iter().map(|(name, value)| (&**name, value.trim())).collect();
            let headers = headers(&fields);
            if let Some(word) = Field::read(&headers, &NAME).word() {
                let values = fields.iter().filter(|(name, _)| folds_to(name, "x-tenant"));
                prop_assert_eq!(values.map(|(_, value)| *value).collect::<Vec<_>>(), [word]);
                let listed = fields.iter().filter(|(name, _)| *name == "connection").flat_map(|(_, value)| value.split(','));
                prop_assert!(listed.map(str::trim).all(|option| option != "x-tenant"));
            }
        }
    }
}
