//! Splits fields whose value is a list (RFC 9110 section 5.6.1), and finds quickly which fields are absent.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Returns the members of all fields with this name, in order and without the white space around them. A repeated field
/// continues the list (RFC 9110 section 5.3). A member may be empty. A comma in a quoted string separates too.
pub(crate) fn members<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
    headers.get_all(name).iter().flat_map(members_of)
}

/// Returns the members of one field.
pub(crate) fn members_of(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// The names of a message's fields, as a Bloom filter. It answers most questions about rare fields without a look at the
/// names.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FieldNames(u64);

impl FieldNames {
    /// Returns the names of these fields.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut names = Self::default();
        headers.keys().for_each(|name| names.add(name.as_str()));
        names
    }

    /// Adds a name in lower case.
    #[inline]
    pub(crate) fn add(&mut self, name: &str) {
        self.0 |= bit_of(name);
    }

    /// Whether a field may have this name, in lower case. If not, no field has it.
    #[inline]
    pub(crate) const fn may_include(self, name: &str) -> bool {
        self.0 & bit_of(name) != 0
    }
}

/// Returns the bit of a name. The fields that ordinary requests have share no bit with the rare ones that stages ask for.
#[inline]
const fn bit_of(name: &str) -> u64 {
    match name.as_bytes() {
        [first, ..] => 1 << ((name.len() + 5 * *first as usize) % 64),
        [] => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::CONNECTION;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_name_that_is_there_is_never_taken_for_absent(names in proptest::collection::vec("[a-z][a-z0-9-]{0,30}", 0..20)) {
            let headers = names.iter().map(|name| (name.parse().unwrap(), HeaderValue::from_static("")));
            let found = FieldNames::of(&headers.collect());
            prop_assert!(names.iter().all(|name| found.may_include(name)));
        }
    }

    #[test]
    fn ordinary_requests_seem_to_have_no_rare_fields() {
        let mut ordinary = FieldNames::default();
        for name in
            ["host", "accept", "user-agent", "authorization", "cookie", "accept-encoding", "content-type"]
        {
            ordinary.add(name);
        }
        for name in ["connection", "upgrade", "sec-websocket-key", "sec-websocket-version", "traceparent"] {
            assert!(!ordinary.may_include(name), "{name}");
        }
    }

    #[test]
    fn a_repeated_field_continues_the_list_and_empty_members_stay() {
        let mut headers = HeaderMap::new();
        for value in ["a ,\tB", "", "c,,d"] {
            headers.append(CONNECTION, value.parse().unwrap());
        }
        headers.append("other", "e".parse().unwrap());
        let found: Vec<&[u8]> = members(&headers, &CONNECTION).collect();
        assert_eq!(found, [&b"a"[..], b"B", b"", b"c", b"", b"d"]);
    }
}
