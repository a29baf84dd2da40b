//! The head of an HTTP/2 request, with the same fields as over HTTP/1.1, and what it says about a gRPC call.

use crate::field_list::members;
use crate::forward::head::outgoing::OutgoingHead;
use crate::forward::upstream::server::Server;
use crate::http1::RequestFraming;
use crate::websocket::Handshake;
use h2::ext::Protocol;
use http::uri::{Authority, Scheme, Uri};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version, header};
use std::time::Duration;

/// The head of a request, for each server that is tried.
pub(super) struct RequestHead {
    outgoing: OutgoingHead,
    /// The host that the client named.
    authority: Option<Authority>,
    is_websocket: bool,
}

impl RequestHead {
    /// Turns `Host` into the authority (RFC 9113 section 8.3.1).
    pub(super) fn new(
        mut outgoing: OutgoingHead,
        authority: Option<&HeaderValue>,
        framing: RequestFraming,
        accepts_trailers: bool,
    ) -> Self {
        let headers = &mut outgoing.headers;
        headers.remove(header::HOST);
        // The stream frames the body. The length remains as a statement that the server can check.
        headers.remove(header::TRANSFER_ENCODING);
        let was_announced = headers.remove(header::CONTENT_LENGTH).is_some();
        let length = match framing {
            RequestFraming::Length(length) => Some(length),
            RequestFraming::None if was_announced => Some(0),
            RequestFraming::None | RequestFraming::Chunked => None,
        };
        if let Some(length) = length {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        if accepts_trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        let authority = authority.and_then(|name| Authority::try_from(name.as_bytes()).ok());
        Self { outgoing, authority, is_websocket: false }
    }

    /// Adds a field of the gateway.
    pub(super) fn add(&mut self, name: HeaderName, value: HeaderValue) {
        self.outgoing.headers.insert(name, value);
    }

    /// Turns the request into the handshake of a WebSocket (RFC 8441 section 4). Its key is one of HTTP/1.1 only.
    pub(super) fn turn_to(&mut self, handshake: &mut Handshake) {
        handshake.offer(&self.outgoing.headers);
        self.outgoing.headers.remove(header::SEC_WEBSOCKET_KEY);
        self.is_websocket = true;
    }

    pub(super) fn is_websocket(&self) -> bool {
        self.is_websocket
    }

    pub(super) fn method(&self) -> &Method {
        &self.outgoing.method
    }

    /// Returns the request for this server. The server's own name replaces a host that the client did not name.
    pub(super) fn request(&self, server: &Server) -> Request<()> {
        let own = || server.authority().and_then(|name| Authority::try_from(name.as_bytes()).ok());
        let mut uri = http::uri::Parts::default();
        uri.authority = self.authority.clone().or_else(own);
        if uri.authority.is_some() {
            uri.scheme = Some(if server.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP });
        }
        uri.path_and_query = Some(self.outgoing.path.clone());
        let mut request = Request::new(());
        *request.method_mut() = self.outgoing.method.clone();
        *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.outgoing.headers.clone();
        if self.is_websocket {
            *request.method_mut() = Method::CONNECT;
            request.extensions_mut().insert(Protocol::from_static("websocket"));
        }
        request
    }
}

/// Returns whether the client accepts trailers. gRPC servers require the field.
pub(super) fn accepts_trailers(headers: &HeaderMap) -> bool {
    members(headers, &header::TE).any(|coding| {
        let name = coding.split(|byte| *byte == b';').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(b"trailers")
    })
}

/// Returns whether a message is part of a gRPC call. gRPC-Web is not, because its trailers are in the body.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let Some((kind, rest)) = kind.split_at_checked(b"application/grpc".len()) else { return false };
    kind.eq_ignore_ascii_case(b"application/grpc") && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

/// Returns the time that a gRPC call may take: at most eight digits and a unit. An invalid value is no bound.
pub(super) fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    if !is_grpc(headers) {
        return None;
    }
    let (digits, unit) = headers.get("grpc-timeout")?.as_bytes().split_last_chunk::<1>()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0, |count, digit| 10 * count + u64::from(digit - b'0'));
    match unit {
        b"H" => Some(Duration::from_secs(count * 3600)),
        b"M" => Some(Duration::from_secs(count * 60)),
        b"S" => Some(Duration::from_secs(count)),
        b"m" => Some(Duration::from_millis(count)),
        b"u" => Some(Duration::from_micros(count)),
        b"n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeout(kind: &'static str, value: &'static str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert("grpc-timeout", HeaderValue::from_static(value));
        grpc_timeout(&headers)
    }

    #[test]
    fn a_grpc_timeout_has_up_to_eight_digits_and_a_unit() {
        for (value, nanos) in [
            ("1H", 3_600_000_000_000),
            ("2M", 120_000_000_000),
            ("3S", 3_000_000_000),
            ("40m", 40_000_000),
            ("5u", 5_000),
            ("6n", 6),
            ("00000007n", 7),
        ] {
            let found = timeout("application/grpc+proto", value);
            assert_eq!(found, Some(Duration::from_nanos(nanos)), "{value}");
        }
        assert_eq!(timeout("application/grpc", "99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for value in ["", "1", "S", "1s", "-1S", "+1S", "123456789S", "1.5S", " 1S", "1SS"] {
            assert_eq!(timeout("application/grpc", value), None, "{value}");
        }
    }

    #[test]
    fn only_grpc_has_grpc_timeouts() {
        for kind in ["application/grpc", "Application/gRPC", "application/grpc;v=1", "application/grpc+json"]
        {
            assert!(timeout(kind, "1S").is_some(), "{kind}");
        }
        for kind in ["", "application/json", "application/grpc-web", "application/grpcx", "text/grpc"] {
            assert_eq!(timeout(kind, "1S"), None, "{kind}");
        }
    }

    #[test]
    fn te_may_list_trailers_beside_other_codings() {
        for (value, expected) in [
            ("trailers", true),
            ("gzip, Trailers", true),
            ("trailers;q=0.5", true),
            ("gzip", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::TE, HeaderValue::from_static(value));
            assert_eq!(accepts_trailers(&headers), expected, "{value}");
        }
    }
}
