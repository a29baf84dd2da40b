//! Logs and answers requests that have no record, because they are not valid HTTP/1.1 or their head did not arrive in
//! time.

use super::access_log::{self, Line};
use crate::clock::Now;
use crate::denial::Denial;
use crate::forward::X_REQUEST_ID;
use crate::peer::Connection;
use crate::peer::Peer;
use crate::respond::{self, Format};
use crate::worker::Worker;
use crate::worker_settings::AccessLog;
use http::{HeaderValue, Method, header};

/// Counts and logs the refusal of an unreadable request, and returns the HTTP/1.1 response.
pub(crate) fn refuse(worker: &Worker, connection: &Connection, denial: Denial, detail: &str) -> Box<[u8]> {
    let id = worker.request_ids().next().header();
    worker.counters().unrouted.record(&denial);
    if worker.settings().access != AccessLog::Off {
        let Peer { address, scheme } = connection.peer;
        let now = Now::read();
        let read = connection.head_start();
        let (method, path) = request_line(&read);
        let line = Line {
            unix: now.unix,
            subsec_nanos: now.subsec_nanos,
            level: access_log::level(Some(&denial), false),
            request_id: id.as_bytes(),
            trace_id: None,
            client: address,
            scheme,
            version: "",
            method,
            host: b"",
            path,
            route: None,
            status: denial.status().as_u16(),
            code: Some(denial.code()),
            shadow: None,
            detail: Some(detail),
            subject: None,
            issuer: None,
            upstream: None,
            bytes_in: 0,
            bytes_out: 0,
            ended: None,
            micros: 0,
            upstream_micros: None,
            complete: false,
            verdict_for: None,
        };
        worker.log_line(|lines| line.write(worker.settings().style, lines));
    }
    answer(&denial, &id)
}

/// Returns the method and the path (without query) of a possible request line. Each is empty if it cannot be
/// determined.
fn request_line(read: &[u8]) -> (&[u8], &[u8]) {
    let line = read.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let method = words.next().unwrap_or_default();
    let is_method = (1..=32).contains(&method.len()) && method.iter().all(u8::is_ascii_uppercase);
    let (true, Some(target)) = (is_method, words.next()) else { return (b"", b"") };
    let path = target.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
    (method, path)
}

/// Returns a problem document with a response head. The response closes the connection, because the next bytes must not
/// be read as another request.
fn answer(denial: &Denial, id: &HeaderValue) -> Box<[u8]> {
    let mut response = respond::refuse(denial, Format::Json, id, &Method::GET);
    let length = HeaderValue::from(response.body().len());
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, id.clone());
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers.insert(header::CONTENT_LENGTH, length);
    let status = response.status();
    let mut bytes =
        format!("HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or_default())
            .into_bytes();
    for (name, value) in response.headers() {
        bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    bytes.extend(b"\r\n");
    bytes.extend_from_slice(response.body());
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::denial::Malformed;

    #[test]
    fn an_unreadable_request_shows_its_method_and_path_but_no_query() {
        for (read, known) in [
            (&b"GET /a?token=x\"y HTTP/1.1\r\nHost: h\r\n"[..], (&b"GET"[..], &b"/a"[..])),
            (b"POST /a\"b HTTP/1.1\r\n", (b"POST", b"/a\"b")),
            (b"GET", (b"", b"")),
            (b"\x16\x03\x01\x02", (b"", b"")),
            (b"get /", (b"", b"")),
            (b"\r\nGET /", (b"", b"")),
            (b"", (b"", b"")),
        ] {
            assert_eq!(request_line(read), known, "{}", String::from_utf8_lossy(read));
        }
    }

    #[test]
    fn the_answer_is_one_answer_of_http_1() {
        let id = HeaderValue::from_static("abc");
        let answer = answer(&Denial::BadRequest(Malformed::Target), &id);
        let text = String::from_utf8(answer.into()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
        assert!(head.contains("x-request-id: abc") && head.contains("connection: close"), "{head}");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        assert!(body.contains("bad_request"), "{body}");
    }
}
