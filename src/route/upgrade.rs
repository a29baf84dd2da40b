//! Detects requests for a protocol upgrade, mainly WebSocket handshakes.
//!
//! Proxies remove some marks of a handshake from forward-auth requests. Traefik and nginx remove `Upgrade` and keep
//! `Sec-WebSocket-Key`. A single mark is therefore sufficient.

use crate::field_list::members;
use http::{HeaderMap, HeaderName, Method, header};

/// The header in which a browser states the mode of its request (W3C Fetch Metadata, section 2.2).
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Whether a request asks for another protocol. The marks are an `Upgrade` header, a mark of a WebSocket handshake, or
/// the method `CONNECT`. An HTTP/2 WebSocket handshake uses `CONNECT` (RFC 8441 section 4).
pub(crate) fn is_asked(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::CONNECT || headers.contains_key(header::UPGRADE) || is_websocket(headers)
}

/// Whether a request has a mark of a WebSocket handshake (RFC 6455 section 4.1).
///
/// `Upgrade` with another protocol is not a handshake. Java's `HttpClient` offers `h2c` in each first request over
/// cleartext, and a server may ignore the offer (RFC 9110 section 7.8).
pub(crate) fn is_websocket(headers: &HeaderMap) -> bool {
    // The length excludes nearly all names. This check runs for each header of each forwarded request.
    headers.keys().any(|name| match name.as_str().len() {
        7 => name == header::UPGRADE && offers_websocket(headers),
        14 => {
            *name == SEC_FETCH_MODE
                && headers.get_all(name).iter().any(|mode| is(mode.as_bytes(), b"websocket"))
        }
        17 => name == header::SEC_WEBSOCKET_KEY,
        21 => name == header::SEC_WEBSOCKET_VERSION,
        _ => false,
    })
}

/// Whether `Upgrade` lists the protocol `websocket`, with or without a version (RFC 9110 section 7.8).
fn offers_websocket(headers: &HeaderMap) -> bool {
    members(headers, &header::UPGRADE)
        .any(|protocol| is(protocol.split(|byte| *byte == b'/').next().unwrap_or_default(), b"websocket"))
}

fn is(written: &[u8], word: &[u8]) -> bool {
    written.trim_ascii().eq_ignore_ascii_case(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn each_mark_of_a_handshake_counts_by_itself() {
        for fields in [
            &[("upgrade", "websocket")][..],
            &[("upgrade", "WebSocket")],
            &[("upgrade", "h2c, websocket")],
            &[("upgrade", "h2c"), ("upgrade", "websocket/13")],
            &[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")],
            &[("sec-websocket-version", "13")],
            &[("sec-fetch-mode", "websocket")],
            &[("sec-fetch-mode", "cors"), ("sec-fetch-mode", "WebSocket")],
        ] {
            assert!(is_websocket(&headers(fields)), "{fields:?}");
            assert!(is_asked(&Method::GET, &headers(fields)), "{fields:?}");
        }
    }

    #[test]
    fn an_offer_of_another_protocol_is_an_upgrade_and_no_handshake() {
        for fields in [&[("upgrade", "h2c")][..], &[("upgrade", "TLS/1.0, websockets")], &[("upgrade", "")]] {
            assert!(!is_websocket(&headers(fields)), "{fields:?}");
            assert!(is_asked(&Method::GET, &headers(fields)), "{fields:?}");
        }
    }

    #[test]
    fn ordinary_requests_ask_for_none() {
        let fields = &[("sec-fetch-mode", "navigate"), ("connection", "upgrade"), ("accept", "websocket")];
        assert!(!is_websocket(&headers(fields)) && !is_asked(&Method::GET, &headers(fields)));
        assert!(is_asked(&Method::CONNECT, &headers(&[])), "RFC 8441 section 4");
    }
}
