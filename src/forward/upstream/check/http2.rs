//! Checks over HTTP/2: a GET, or the health protocol of gRPC (grpc/grpc, doc/health-checking.md).

use super::failure::{Failure, HEAD_MAX, USER_AGENT};
use crate::forward::faults::Http2Error;
use crate::forward::upstream::stream::Stream;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

/// Maximum length of the message in a gRPC answer, in bytes.
const MESSAGE_MAX: usize = 4096;
/// `SERVING` of `grpc.health.v1.HealthCheckResponse.ServingStatus`.
const SERVING: u64 = 1;

/// Sends a GET, and returns the status of its answer.
pub(super) async fn get(stream: Stream, host: &HeaderValue, path: &str) -> Result<u16, Failure> {
    let request = Request::get(target(&stream, host, path)?).header(header::ACCEPT, "*/*");
    exchange(stream, request, Bytes::new(), async |answer| Ok(answer.status().as_u16())).await
}

/// Calls `grpc.health.v1.Health/Check`. Fails unless the service is serving.
pub(super) async fn grpc(
    stream: Stream,
    host: &HeaderValue,
    service: &str,
    timeout: Duration,
) -> Result<(), Failure> {
    let request = Request::post(target(&stream, host, "/grpc.health.v1.Health/Check")?)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header("grpc-timeout", format!("{}m", timeout.as_millis().clamp(1, 99_999_999)));
    exchange(stream, request, message(service), read_health).await
}

fn target(stream: &Stream, host: &HeaderValue, path: &str) -> Result<String, Failure> {
    let scheme = if matches!(stream, Stream::Tls(_)) { "https" } else { "http" };
    Ok(format!("{scheme}://{}{path}", host.to_str().map_err(Failure::of)?))
}

/// Sends a request over a new connection, which ends with the result of `read`.
async fn exchange<T>(
    stream: Stream,
    request: http::request::Builder,
    body: Bytes,
    read: impl AsyncFnOnce(Response<h2::RecvStream>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    if let Stream::Tls(tls) = &stream
        && tls.get_ref().1.alpn_protocol() != Some(b"h2")
    {
        return Err(Failure::of("the server does not offer HTTP/2 (ALPN \"h2\")"));
    }
    let request = request.header(header::USER_AGENT, USER_AGENT).body(()).map_err(Failure::of)?;
    let mut builder = h2::client::Builder::new();
    builder.enable_push(false).max_header_list_size(HEAD_MAX.try_into().unwrap_or(u32::MAX));
    let (sender, connection) = builder.handshake::<_, Bytes>(stream).await.map_err(failure)?;
    let talk = async {
        let mut sender = sender.ready().await.map_err(failure)?;
        let (answer, mut upload) = sender.send_request(request, body.is_empty()).map_err(failure)?;
        if !body.is_empty() {
            upload.send_data(body, true).map_err(failure)?;
        }
        read(answer.await.map_err(failure)?).await
    };
    let (mut connection, mut talk) = (pin!(connection), pin!(talk));
    let mut is_open = true;
    poll_fn(|cx| {
        if is_open {
            is_open = connection.as_mut().poll(cx).is_pending();
        }
        match talk.as_mut().poll(cx) {
            // Without its connection, the exchange makes no progress.
            Poll::Pending if !is_open => Poll::Ready(Err(Failure::of("the connection was closed"))),
            result => result,
        }
    })
    .await
}

fn failure(error: h2::Error) -> Failure {
    Failure::of(Http2Error(&error))
}

async fn read_health(answer: Response<h2::RecvStream>) -> Result<(), Failure> {
    let (head, mut body) = answer.into_parts();
    if head.status != http::StatusCode::OK {
        return Err(Failure::of(format_args!("status {}", head.status.as_u16())));
    }
    let kind = head.headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if !kind.starts_with(b"application/grpc") {
        return Err(Failure::of("the answer is not gRPC"));
    }
    // An answer without a message has its status in its head.
    check_status(&head.headers)?;
    let mut bytes = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(failure)?;
        if bytes.len() + data.len() > MESSAGE_MAX {
            return Err(Failure::of(format_args!("a message of more than {MESSAGE_MAX} bytes")));
        }
        bytes.extend_from_slice(&data);
        body.flow_control().release_capacity(data.len()).map_err(failure)?;
    }
    let trailers = body.trailers().await.map_err(failure)?.unwrap_or(head.headers);
    if !trailers.contains_key("grpc-status") {
        return Err(Failure::of("the answer has no grpc-status"));
    }
    check_status(&trailers)?;
    match status(&bytes) {
        Some(SERVING) => Ok(()),
        Some(other) => Err(Failure::of(format_args!("the service is {}", Serving(other)))),
        None => Err(Failure::of("the answer is not a HealthCheckResponse")),
    }
}

/// Fails if there is a `grpc-status` other than 0.
fn check_status(fields: &HeaderMap) -> Result<(), Failure> {
    match fields.get("grpc-status").map(HeaderValue::as_bytes) {
        None | Some(b"0") => Ok(()),
        Some(status) => {
            let status: String = String::from_utf8_lossy(status).chars().take(3).collect();
            Err(Failure::of(format_args!("grpc-status {status}")))
        }
    }
}

/// Writes a `HealthCheckRequest`, whose first field is the name of the service, in the framing of gRPC.
fn message(service: &str) -> Bytes {
    let mut request = BytesMut::new();
    if !service.is_empty() {
        request.put_u8(1 << 3 | 2);
        let mut length = service.len();
        while length >= 0x80 {
            request.put_u8(0x80 | length.to_le_bytes()[0]);
            length >>= 7;
        }
        request.put_u8(length.to_le_bytes()[0]);
        request.put_slice(service.as_bytes());
    }
    let mut message = BytesMut::new();
    message.put_u8(0);
    message.put_u32(u32::try_from(request.len()).unwrap_or(u32::MAX));
    message.put(request);
    message.freeze()
}

/// Reads the status, the first field of a `HealthCheckResponse`, from a message in the framing of gRPC. Returns `None`
/// for any other message.
fn status(bytes: &[u8]) -> Option<u64> {
    let (prefix, mut rest) = bytes.split_first_chunk::<5>()?;
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    if prefix[0] != 0 || usize::try_from(length) != Ok(rest.len()) {
        return None;
    }
    let mut status = 0;
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        match tag & 7 {
            0 => {
                let value = varint(&mut rest)?;
                if tag >> 3 == 1 {
                    status = value;
                }
            }
            1 => rest = rest.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
            }
            5 => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

/// Reads a variable-length integer of up to 64 bits.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, left) = rest.split_first()?;
        *rest = left;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// A `ServingStatus`, by its name.
struct Serving(u64);

impl fmt::Display for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("UNKNOWN"),
            SERVING => f.write_str("SERVING"),
            2 => f.write_str("NOT_SERVING"),
            3 => f.write_str("SERVICE_UNKNOWN"),
            other => write!(f, "in state {other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_have_the_bytes_of_protocol_buffers() {
        assert_eq!(&message("")[..], [0; 5]);
        assert_eq!(&message("a.B")[..], b"\0\0\0\0\x05\x0a\x03a.B");
        let long = "x".repeat(300);
        assert_eq!(message(&long)[..8], *b"\0\0\0\x01\x2f\x0a\xac\x02");
    }

    #[test]
    fn the_status_is_the_first_field_and_other_fields_are_skipped() {
        for (bytes, expected) in [
            (&b"\0\0\0\0\x02\x08\x01"[..], Some(1)),
            (b"\0\0\0\0\x00", Some(0)),
            (b"\0\0\0\0\x02\x08\x02", Some(2)),
            (b"\0\0\0\0\x06\x12\x02hi\x08\x01", Some(1)),
            (b"\0\0\0\0\x02\x10\x01", Some(0)),
            (b"\x01\0\0\0\x02\x08\x01", None),
            (b"\0\0\0\0\x03\x08\x01", None),
            (b"\0\0\0\0\x01\x08", None),
            (b"\0\0\0\0\x04\x12\x7fhi", None),
            (b"\0\0\0\0\x02\x0b\x01", None),
            (b"\0\0\0", None),
        ] {
            assert_eq!(status(bytes), expected, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn no_message_makes_the_reader_fail(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
            let _ = status(&[&[0][..], &length, &bytes].concat());
            let _ = status(&bytes);
        }
    }
}
