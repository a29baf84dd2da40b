//! Reframes an upstream's response for the client.
//!
//! Framing applies to one connection only. The gateway frames the response again for the client, and rejects a response
//! whose end is uncertain.
//!
//! | the upstream sends | the client gets | source |
//! | --- | --- | --- |
//! | `Transfer-Encoding: chunked` and `Content-Length` | the chunked body, without `Content-Length` | RFC 9112 6.3 |
//! | several equal `Content-Length` values | one `Content-Length` | RFC 9110 8.6 |
//! | several different `Content-Length` values, or a value that is not a number | 502 | RFC 9110 8.6 |
//! | `Content-Length` on 204 | no `Content-Length` | RFC 9110 8.6 |
//! | `Content-Length` on 304 or in a response to HEAD | the same if it is one number, otherwise none | RFC 9110 8.6 |
//! | a transfer coding other than `chunked` | 502: the client could not decode the body | RFC 9112 6.1 |
//! | white space between a field's name and its colon | the field without it (`connect::settings`) | RFC 9112 5.1 |
//! | 101 | 502: no upgrade was requested | RFC 9110 15.2.2 |
//! | 100, 102 to 199 | nothing: the HTTP library skips them and cannot send any | RFC 9110 15.2 |

use super::strip;
use crate::authenticate::CookieNames;
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use std::fmt;

/// The reason why a response cannot be forwarded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadResponse {
    /// An interim response arrived instead of the final response.
    Interim(StatusCode),
    /// The response has a transfer coding other than a single `chunked`.
    Codings(String),
    /// The `Content-Length` fields do not contain one number.
    Length(String),
}

impl fmt::Display for BadResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interim(StatusCode::SWITCHING_PROTOCOLS) => {
                f.write_str("the upstream switched protocols without being asked")
            }
            Self::Interim(status) => {
                write!(f, "the upstream's final response has an interim status: {status}")
            }
            Self::Codings(codings) => write!(
                f,
                "the upstream's answer has Transfer-Encoding: {codings}; only a single \"chunked\" can be passed on"
            ),
            Self::Length(lengths) => write!(f, "the upstream's answer has Content-Length: {lengths}"),
        }
    }
}

/// The result of reframing a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reframing {
    /// Whether the upstream's connection can be reused, because the end of the response is certain.
    pub(super) keep: bool,
    /// The number of removed `Set-Cookie` fields that named a cookie of the gateway.
    pub(super) cookies_removed: u64,
}

/// Reframes a response to a request with this method. Removes hop-by-hop fields, repeated or wrong lengths, and cookies
/// with the gateway's names.
pub(super) fn answer(
    parts: &mut Parts,
    method: &Method,
    ours: Option<&CookieNames>,
) -> Result<Reframing, BadResponse> {
    if parts.status.is_informational() {
        return Err(BadResponse::Interim(parts.status));
    }
    let headers = &mut parts.headers;
    let seen = RelevantFields::of(headers);
    let chunked = seen.coding;
    let without_content = parts.status == StatusCode::NO_CONTENT;
    let without_body = without_content || parts.status == StatusCode::NOT_MODIFIED || *method == Method::HEAD;
    let mut keep = true;
    if seen.length && (chunked || without_content) {
        // The length contradicts the framing, except for a length of 0 in a 204. If the server did send a body of that
        // length, the rest of the body would be read as the next response (RFC 9112 section 6.3). The connection is
        // therefore not reused.
        keep = headers.get(header::CONTENT_LENGTH).is_some_and(|length| !chunked && length == "0");
        headers.remove(header::CONTENT_LENGTH);
    }
    if chunked && !without_body {
        only_chunked(headers)?;
    }
    match if seen.length { one_length(headers) } else { Ok(None) } {
        Ok(None) => {}
        Ok(Some(length)) => {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        // A response without a body needs no length.
        Err(_) if without_body => {
            headers.remove(header::CONTENT_LENGTH);
        }
        Err(bad) => return Err(bad),
    }
    if seen.hop {
        strip::hop_by_hop(headers);
    } else if seen.connection {
        strip::connection(headers);
    }
    let cookies_removed =
        if seen.cookie { ours.map_or(0, |ours| strip::set_cookies(headers, ours)) } else { 0 };
    parts.version = Version::HTTP_11;
    Ok(Reframing { keep, cookies_removed })
}

/// Records which fields of a response need further work, in one pass over all names. An ordinary response has almost no
/// such field.
#[derive(Default)]
struct RelevantFields {
    length: bool,
    coding: bool,
    connection: bool,
    /// Whether the response has a hop-by-hop field.
    hop: bool,
    cookie: bool,
}

impl RelevantFields {
    fn of(headers: &HeaderMap) -> Self {
        let mut seen = Self::default();
        for name in headers.keys() {
            // The length alone excludes nearly all names.
            match name.as_str().len() {
                10 if *name == header::CONNECTION => seen.connection = true,
                10 if *name == header::SET_COOKIE => seen.cookie = true,
                14 if *name == header::CONTENT_LENGTH => seen.length = true,
                17 if *name == header::TRANSFER_ENCODING => (seen.coding, seen.hop) = (true, true),
                2 | 7 | 10 | 16 => seen.hop |= strip::is_hop_by_hop(name),
                _ => {}
            }
        }
        seen
    }
}

/// Rejects a transfer coding other than `chunked`. The HTTP library decodes only `chunked`, and `Transfer-Encoding` is
/// removed. The client could therefore not decode any other coding.
fn only_chunked(headers: &HeaderMap) -> Result<(), BadResponse> {
    let mut values = headers.get_all(header::TRANSFER_ENCODING).iter();
    let first = values.next().map_or(&b""[..], HeaderValue::as_bytes);
    if values.next().is_none() && first.trim_ascii().eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    Err(BadResponse::Codings(listed(headers, header::TRANSFER_ENCODING)))
}

/// Returns the length to write, or `None` if `Content-Length` is absent or already canonical.
fn one_length(headers: &HeaderMap) -> Result<Option<u64>, BadResponse> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = values.next() else { return Ok(None) };
    let only = values.next().is_none();
    if only && is_written_well(first.as_bytes()) {
        return Ok(None);
    }
    let mut length = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        for member in value.as_bytes().split(|byte| *byte == b',') {
            let member = digits(member.trim_ascii());
            if member.is_none() || (length.is_some() && length != member) {
                return Err(BadResponse::Length(listed(headers, header::CONTENT_LENGTH)));
            }
            length = member;
        }
    }
    Ok(length)
}

/// Returns whether the value is a canonical number: at most 18 digits, and no leading zero.
fn is_written_well(value: &[u8]) -> bool {
    matches!(value, [b'0'] | [b'1'..=b'9', ..]) && value.len() <= 18 && value.iter().all(u8::is_ascii_digit)
}

fn digits(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(value).ok()?.parse().ok()).flatten()
}

/// Returns all values of a field for the operator, cut to 100 characters.
fn listed(headers: &HeaderMap, name: HeaderName) -> String {
    let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let mut text = values.collect::<Vec<_>>().join(", ");
    text.truncate(text.char_indices().nth(100).map_or(text.len(), |(at, _)| at));
    text
}

/// Removes the fields that trailers must not contain (RFC 9110 section 6.5.1). The gateway has already used the head to
/// decide about framing, routing and content. Also removes cookies, because the gateway checks cookies only in the
/// head.
pub(super) fn trailers(trailers: &mut HeaderMap) {
    strip::hop_by_hop(trailers);
    for name in [
        header::CONTENT_LENGTH,
        header::CONTENT_ENCODING,
        header::CONTENT_TYPE,
        header::CONTENT_RANGE,
        header::SET_COOKIE,
        header::LOCATION,
        header::CACHE_CONTROL,
        header::EXPIRES,
        header::VARY,
        header::WWW_AUTHENTICATE,
    ] {
        trailers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Response;
    use proptest::prelude::*;

    fn parts(status: u16, fields: &[(&str, &str)]) -> Parts {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        response.body(()).unwrap().into_parts().0
    }

    fn lengths(parts: &Parts) -> Vec<&str> {
        parts.headers.get_all(header::CONTENT_LENGTH).iter().map(|value| value.to_str().unwrap()).collect()
    }

    const TE: &str = "transfer-encoding";
    const CL: &str = "content-length";

    /// Checks each row of the table in this module: the resulting length and whether the connection is reused, or the
    /// error.
    #[test]
    fn every_framing_is_either_made_plain_or_refused() {
        type Fields = &'static [(&'static str, &'static str)];
        type Good = (&'static str, u16, &'static str, Fields, Option<&'static str>, bool);
        let good: [Good; 24] = [
            ("one length", 200, "GET", &[(CL, "5")], Some("5"), true),
            ("no length", 200, "GET", &[], None, true),
            ("zero", 200, "GET", &[(CL, "0")], Some("0"), true),
            ("chunked", 200, "GET", &[(TE, "chunked")], None, true),
            ("chunked in capitals", 200, "GET", &[(TE, "Chunked")], None, true),
            ("RFC 9112 6.3: chunked beside a length", 200, "GET", &[(TE, "chunked"), (CL, "2")], None, false),
            ("the same with zero", 200, "GET", &[(TE, "chunked"), (CL, "0")], None, false),
            ("RFC 9110 8.6: the same length twice", 200, "GET", &[(CL, "2"), (CL, "2")], Some("2"), true),
            ("RFC 9110 8.6: a list of one length", 200, "GET", &[(CL, "5, 5")], Some("5"), true),
            ("a list without white space", 200, "GET", &[(CL, "5,5,5")], Some("5"), true),
            ("leading zeros", 200, "GET", &[(CL, "005")], Some("5"), true),
            ("RFC 9110 8.6: 204 with a length", 204, "GET", &[(CL, "5")], None, false),
            ("204 with a length of zero", 204, "GET", &[(CL, "0")], None, true),
            ("204 with a length, for HEAD", 204, "HEAD", &[(CL, "0")], None, true),
            ("204 with a coding", 204, "GET", &[(TE, "chunked")], None, true),
            ("RFC 9110 8.6: 304 with a length", 304, "GET", &[(CL, "500")], Some("500"), true),
            ("304 with two lengths", 304, "GET", &[(CL, "5"), (CL, "6")], None, true),
            ("RFC 9110 8.6: HEAD with a length", 200, "HEAD", &[(CL, "500")], Some("500"), true),
            ("HEAD with a list of one length", 200, "HEAD", &[(CL, "5, 5")], Some("5"), true),
            ("HEAD with two lengths", 200, "HEAD", &[(CL, "5, 6")], None, true),
            ("HEAD with a coding", 200, "HEAD", &[(TE, "gzip, chunked")], None, true),
            ("HEAD with a coding and a length", 200, "HEAD", &[(TE, "chunked"), (CL, "7")], None, false),
            ("205 as it is framed", 205, "GET", &[(CL, "0")], Some("0"), true),
            ("an odd status", 999, "GET", &[(CL, "3")], Some("3"), true),
        ];
        for (name, status, method, fields, length, keep) in good {
            let mut parts = parts(status, fields);
            let reframed = answer(&mut parts, &method.parse().unwrap(), None);
            assert_eq!(reframed, Ok(Reframing { keep, cookies_removed: 0 }), "{name}");
            assert_eq!(lengths(&parts), length.into_iter().collect::<Vec<_>>(), "{name}");
            assert!(!parts.headers.contains_key(TE), "{name}");
            assert_eq!(parts.version, Version::HTTP_11);
        }
        let bad: [(&str, u16, Fields, &str); 12] = [
            ("unequal lengths", 200, &[(CL, "2"), (CL, "3")], "Content-Length: 2, 3"),
            ("a list of unequal lengths", 200, &[(CL, "2, 3")], "Content-Length: 2, 3"),
            ("a sign", 200, &[(CL, "+5")], "Content-Length: +5"),
            ("no number", 200, &[(CL, "5 5")], "Content-Length: 5 5"),
            ("an empty member", 200, &[(CL, "5,")], "Content-Length: 5,"),
            ("beyond 64 bits", 200, &[(CL, "99999999999999999999")], "Content-Length"),
            ("RFC 9112 6.1: a coding before chunked", 200, &[(TE, "gzip, chunked")], "gzip, chunked"),
            ("the same in two fields", 200, &[(TE, "gzip"), (TE, "chunked")], "gzip, chunked"),
            ("RFC 9112 6.1: chunked twice", 200, &[(TE, "chunked"), (TE, "chunked")], "chunked, chunked"),
            ("a coding without chunked", 200, &[(TE, "gzip")], "Transfer-Encoding: gzip"),
            ("identity", 200, &[(TE, "identity"), (CL, "5")], "identity"),
            ("switched", 101, &[], "switched protocols without being asked"),
        ];
        for (name, status, fields, detail) in bad {
            let found = answer(&mut parts(status, fields), &Method::GET, None).unwrap_err().to_string();
            assert!(found.contains(detail), "{name}: {found}");
        }
        assert!(answer(&mut parts(103, &[]), &Method::GET, None).is_err());
    }

    /// The pass over the names finds every field that the full removal would remove.
    #[test]
    fn fields_of_one_connection_do_not_pass_whatever_stands_beside_them() {
        for name in
            ["te", "trailer", "upgrade", "keep-alive", "proxy-connection", "connection", "transfer-encoding"]
        {
            let value = if name == "transfer-encoding" { "chunked" } else { "x-gone" };
            let mut parts = parts(200, &[(name, value), ("x-stays", "1")]);
            answer(&mut parts, &Method::GET, None).unwrap();
            let left: Vec<_> = parts.headers.keys().map(HeaderName::as_str).collect();
            assert_eq!(left, ["x-stays"]);
        }
        let mut parts =
            parts(200, &[("connection", "close, x-gone"), ("x-gone", "1"), ("content-length", "3")]);
        answer(&mut parts, &Method::GET, None).unwrap();
        assert_eq!(parts.headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["content-length"]);
    }

    #[test]
    fn what_the_operator_reads_of_a_bad_field_is_bounded() {
        let long = "é".repeat(300);
        let mut parts = parts(200, &[]);
        parts.headers.insert(TE, HeaderValue::from_bytes(long.as_bytes()).unwrap());
        let detail = answer(&mut parts, &Method::GET, None).unwrap_err().to_string();
        assert!(detail.len() < 400, "{detail}");
    }

    #[test]
    fn trailers_frame_nothing_and_set_nothing() {
        let mut fields = HeaderMap::new();
        for name in
            ["content-length", "transfer-encoding", "set-cookie", "connection", "x-checksum", "grpc-status"]
        {
            fields.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        trailers(&mut fields);
        let mut left: Vec<_> = fields.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["grpc-status", "x-checksum"]);
    }

    proptest! {
        /// With any combination of framing fields, the client gets at most one length and no transfer coding.
        #[test]
        fn the_client_never_gets_two_framings(
            status in proptest::sample::select(vec![200_u16, 204, 205, 206, 304, 404, 500]),
            head in any::<bool>(),
            lengths_sent in proptest::collection::vec("[0-9 ,+x]{0,6}", 0..4),
            codings in proptest::collection::vec(
                proptest::sample::select(vec!["chunked", "gzip", "identity", "gzip, chunked", "", "chunked, chunked"]),
                0..3,
            ),
        ) {
            let mut parts = parts(status, &[]);
            for length in &lengths_sent {
                parts.headers.append(header::CONTENT_LENGTH, length.parse().unwrap());
            }
            for coding in &codings {
                parts.headers.append(header::TRANSFER_ENCODING, coding.parse().unwrap());
            }
            let method = if head { Method::HEAD } else { Method::GET };
            if answer(&mut parts, &method, None).is_ok() {
                prop_assert!(!parts.headers.contains_key(header::TRANSFER_ENCODING));
                let left = lengths(&parts);
                prop_assert!(left.len() <= 1);
                if let Some(length) = left.first() {
                    prop_assert_eq!(length.parse::<u64>().unwrap().to_string(), *length);
                    prop_assert!(status != 204 && codings.is_empty());
                }
            }
        }
    }
}
