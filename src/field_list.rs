//! Splits fields whose value is a list (RFC 9110 section 5.6.1).

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

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::CONNECTION;

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
