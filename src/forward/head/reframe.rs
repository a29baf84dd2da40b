//! Removes the fields of an upstream's response that must not reach the client. `http1` has already removed the framing
//! fields, and the client's connection frames the response anew.

use super::strip;
use crate::authenticate::CookieNames;
use http::{HeaderMap, header};

/// Removes the fields that apply to the upstream's connection, and the cookies with the gateway's names. Returns the
/// number of removed cookies.
pub(in crate::forward) fn answer(headers: &mut HeaderMap, ours: Option<&CookieNames>) -> u64 {
    let seen = RelevantFields::of(headers);
    if seen.hop {
        strip::hop_by_hop(headers);
    } else if seen.connection {
        strip::connection(headers);
    }
    if seen.cookie { ours.map_or(0, |ours| strip::set_cookies(headers, ours)) } else { 0 }
}

/// Records which fields of a response need further work, in one pass over all names. An ordinary response has almost no
/// such field.
#[derive(Default)]
struct RelevantFields {
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
                2 | 7 | 10 | 16 => seen.hop |= strip::is_hop_by_hop(name),
                _ => {}
            }
        }
        seen
    }
}

/// Removes the fields that trailers must not contain (RFC 9110 section 6.5.1). The gateway has already used the head to
/// decide about framing, routing and content. Also removes cookies, because the gateway checks cookies only in the
/// head.
pub(in crate::forward) fn trailers(trailers: &mut HeaderMap) {
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
    use http::{HeaderName, HeaderValue};

    fn left(fields: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        answer(&mut headers, None);
        headers.keys().map(|name| name.as_str().to_owned()).collect()
    }

    /// The quick check of the names finds every field that the full removal removes.
    #[test]
    fn fields_of_one_connection_do_not_pass_whatever_stands_beside_them() {
        for name in ["te", "trailer", "upgrade", "keep-alive", "proxy-connection", "connection"] {
            assert_eq!(left(&[(name, "x-gone"), ("x-stays", "1")]), ["x-stays"]);
        }
        let fields = [("connection", "close, x-gone"), ("x-gone", "1"), ("x-stays", "3")];
        assert_eq!(left(&fields), ["x-stays"]);
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
}
