//! Writes the head of a request.

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

/// The announcement of the end of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestFraming {
    /// The request has no body. `Content-Length: 0` is written if the client announced a length.
    None,
    /// The body has this many bytes.
    Length(u64),
    /// The body is chunked.
    Chunked,
}

/// Begins the head of a request. The types guarantee that no argument contains a line break, here and below.
pub fn write_request_line(out: &mut Vec<u8>, method: &Method, target: &PathAndQuery) {
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_str().as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// Writes a field.
pub fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Writes the fields that `keeps` accepts, and the framing of the body. Framing fields are written from `framing` alone
/// and left out of `headers`, so that the head and the body cannot contradict each other (RFC 9112 section 6.3).
pub fn write_fields(
    out: &mut Vec<u8>,
    headers: &HeaderMap,
    framing: RequestFraming,
    mut keeps: impl FnMut(&HeaderName) -> bool,
) {
    let mut is_announced = false;
    for (name, value) in headers {
        match name.as_str().len() {
            14 if name == header::CONTENT_LENGTH => is_announced = true,
            17 if name == header::TRANSFER_ENCODING => {}
            _ if keeps(name) => write_field(out, name.as_str(), value.as_bytes()),
            _ => {}
        }
    }
    match framing {
        RequestFraming::None if is_announced => write_field(out, "content-length", b"0"),
        RequestFraming::None => {}
        RequestFraming::Length(length) => {
            write_field(out, "content-length", itoa::Buffer::new().format(length).as_bytes());
        }
        RequestFraming::Chunked => write_field(out, "transfer-encoding", b"chunked"),
    }
}

/// Writes the end of a chunked body, with these trailers (RFC 9112 section 7.1.2).
pub fn write_last_chunk(out: &mut Vec<u8>, trailers: &HeaderMap) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        write_field(out, name.as_str(), value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Completes a head with this `Host`, which must not be among its fields.
pub fn write_host(out: &mut Vec<u8>, host: &HeaderValue) {
    write_field(out, "host", host.as_bytes());
    out.extend_from_slice(b"\r\n");
}
