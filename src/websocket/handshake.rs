//! Reads the handshake of a client and checks the answer of the upstream.

use crate::denial::HandshakeFault;
use crate::field_list::{members, members_of};
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};

/// The constant of RFC 6455 section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const UPGRADE: HeaderValue = HeaderValue::from_static("Upgrade");

/// A client's valid handshake.
#[derive(Debug)]
pub struct Handshake {
    /// `Sec-WebSocket-Key`. Over HTTP/2, whose handshakes have none, the gateway creates it.
    key: HeaderValue,
    is_http2: bool,
    /// The subprotocol that preceded the token. The gateway removed both, and answers with this subprotocol if the
    /// upstream selects none.
    own_protocol: Option<HeaderValue>,
    /// The values of `Sec-WebSocket-Protocol` that the upstream gets.
    offers: Vec<HeaderValue>,
}

/// Turns a handshake over HTTP/2 (RFC 8441 section 4) into the same handshake over HTTP/1.1: a GET with `Upgrade`.
/// All checks then apply to both. Leaves any other extended CONNECT as it is.
///
/// HTTP/2 forbids `Upgrade` and `Connection` (RFC 9113 section 8.2.2), so no client can send them itself.
pub fn from_http2(parts: &mut Parts, protocol: &str) {
    if protocol == "websocket" {
        parts.method = Method::GET;
        parts.headers.insert(header::UPGRADE, WEBSOCKET);
        parts.headers.insert(header::CONNECTION, UPGRADE);
        parts.headers.remove(header::SEC_WEBSOCKET_KEY);
    }
}

impl Handshake {
    /// Reads a handshake (RFC 6455 section 4.2.1). `own_protocol` is the client's subprotocol that precedes a token.
    ///
    /// # Errors
    /// Returns the first reason why the handshake is invalid.
    pub fn read(
        method: &Method,
        version: Version,
        headers: &HeaderMap,
        own_protocol: Option<&str>,
    ) -> Result<Self, HandshakeFault> {
        let is_http2 = version == Version::HTTP_2;
        if *method != Method::GET || (version != Version::HTTP_11 && !is_http2) {
            return Err(HandshakeFault::Method);
        }
        let is_asked = only(headers, &header::UPGRADE)
            .is_some_and(|upgrade| upgrade.as_bytes().trim_ascii().eq_ignore_ascii_case(b"websocket"));
        if !is_asked || !has_option(headers, b"upgrade") {
            return Err(HandshakeFault::Upgrade);
        }
        if only(headers, &header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            return Err(HandshakeFault::Version);
        }
        let key = match is_http2 {
            true => new_key(),
            false => only(headers, &header::SEC_WEBSOCKET_KEY).filter(|key| is_key(key)).cloned(),
        };
        let key = key.ok_or(HandshakeFault::Key)?;
        let own_protocol = own_protocol.and_then(|protocol| HeaderValue::from_str(protocol).ok());
        Ok(Self { key, is_http2, own_protocol, offers: Vec::new() })
    }

    /// Returns the fields of the handshake that the gateway removes from every request, and its key.
    pub fn fields(&self) -> [(HeaderName, HeaderValue); 3] {
        [
            (header::UPGRADE, WEBSOCKET),
            (header::CONNECTION, UPGRADE),
            (header::SEC_WEBSOCKET_KEY, self.key.clone()),
        ]
    }

    /// Records the subprotocols that the upstream gets.
    pub fn offer(&mut self, headers: &HeaderMap) {
        self.offers = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().cloned().collect();
    }

    /// Returns whether the handshake came over HTTP/2.
    pub fn is_http2(&self) -> bool {
        self.is_http2
    }

    /// Adds the fields of an answer with 101 to an answer with 2xx over HTTP/2, which has none of them (RFC 8441 section
    /// 5). All checks then apply to both.
    pub fn accept_http2(&self, headers: &mut HeaderMap) {
        headers.insert(header::UPGRADE, WEBSOCKET);
        headers.insert(header::CONNECTION, UPGRADE);
        if let Ok(accept) = HeaderValue::try_from(self.accept()) {
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        }
    }

    /// Checks the fields of an answer with 101 (RFC 6455 section 4.1).
    ///
    /// # Errors
    /// Returns the first reason why the answer does not accept this handshake.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), &'static str> {
        let upgrade = only(headers, &header::UPGRADE);
        if upgrade.is_none_or(|upgrade| !upgrade.as_bytes().eq_ignore_ascii_case(b"websocket")) {
            return Err("its Upgrade is not websocket");
        }
        if !has_option(headers, b"upgrade") {
            return Err("its Connection lacks Upgrade");
        }
        if only(headers, &header::SEC_WEBSOCKET_ACCEPT).is_none_or(|accept| *accept != *self.accept()) {
            return Err("its Sec-WebSocket-Accept does not match the key");
        }
        let mut protocols = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
        let (chosen, more) = (protocols.next(), protocols.next());
        let offers = || self.offers.iter().flat_map(members_of);
        if more.is_some() || chosen.is_some_and(|chosen| !offers().any(|offer| offer == chosen.as_bytes())) {
            return Err("its Sec-WebSocket-Protocol is not one of those offered");
        }
        // The client checks the extensions, whose parameters concern only the two ends.
        Ok(())
    }

    /// Completes the fields of an accepted answer for the client.
    pub fn complete(&self, headers: &mut HeaderMap) {
        if let Some(protocol) = &self.own_protocol
            && !headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL)
        {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol.clone());
        }
        if self.is_http2 {
            headers.remove(header::SEC_WEBSOCKET_ACCEPT);
        } else {
            headers.insert(header::UPGRADE, WEBSOCKET);
            headers.insert(header::CONNECTION, UPGRADE);
        }
    }

    /// Returns the `Sec-WebSocket-Accept` of an answer that accepts this handshake.
    fn accept(&self) -> String {
        let text = [self.key.as_bytes(), GUID].concat();
        STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &text))
    }
}

/// Returns a key of 16 random bytes, or `None` if the system provides no random numbers.
fn new_key() -> Option<HeaderValue> {
    let mut nonce = [0; 16];
    aws_lc_rs::rand::fill(&mut nonce).ok()?;
    HeaderValue::try_from(STANDARD.encode(nonce)).ok()
}

/// Returns whether a key is 16 bytes in base64.
fn is_key(key: &HeaderValue) -> bool {
    STANDARD.decode(key.as_bytes()).is_ok_and(|nonce| nonce.len() == 16)
}

/// Returns the value of a field that occurs once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Returns whether `Connection` has this option.
fn has_option(headers: &HeaderMap, option: &[u8]) -> bool {
    members(headers, &header::CONNECTION).any(|found| found.eq_ignore_ascii_case(option))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Fields = Vec<(&'static str, &'static str)>;

    /// The handshake of RFC 6455 section 1.3, and the answer to it.
    fn asked() -> Fields {
        vec![
            ("upgrade", "websocket"),
            ("connection", "keep-alive, Upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", "chat, superchat"),
        ]
    }

    fn answered() -> Fields {
        vec![
            ("upgrade", "WebSocket"),
            ("connection", "upgrade"),
            ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
            ("sec-websocket-protocol", "chat"),
        ]
    }

    fn map(fields: &Fields) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    /// Replaces a field, or removes it if `value` is empty.
    fn with(mut fields: Fields, name: &'static str, value: &'static str) -> HeaderMap {
        fields.retain(|(known, _)| *known != name);
        if !value.is_empty() {
            fields.push((name, value));
        }
        map(&fields)
    }

    fn read(headers: &HeaderMap) -> Result<Handshake, HandshakeFault> {
        let mut handshake = Handshake::read(&Method::GET, Version::HTTP_11, headers, None)?;
        handshake.offer(headers);
        Ok(handshake)
    }

    #[test]
    fn a_handshake_with_another_value_in_one_field_is_refused() {
        assert!(read(&map(&asked())).is_ok());
        for (name, value, fault) in [
            ("upgrade", "", HandshakeFault::Upgrade),
            ("upgrade", "h2c, websocket", HandshakeFault::Upgrade),
            ("upgrade", "websocket/13", HandshakeFault::Upgrade),
            ("connection", "keep-alive", HandshakeFault::Upgrade),
            ("connection", "close, x-upgrade", HandshakeFault::Upgrade),
            ("sec-websocket-version", "", HandshakeFault::Version),
            ("sec-websocket-version", "8", HandshakeFault::Version),
            ("sec-websocket-key", "", HandshakeFault::Key),
            ("sec-websocket-key", "dGhlIHNhbXBsZQ==", HandshakeFault::Key),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ", HandshakeFault::Key),
        ] {
            assert_eq!(read(&with(asked(), name, value)).err(), Some(fault), "{name}: {value}");
        }
        for name in ["upgrade", "sec-websocket-version", "sec-websocket-key"] {
            let mut headers = map(&asked());
            headers.append(name, headers[name].clone());
            assert!(read(&headers).is_err(), "{name} twice");
        }
        for (method, version) in [(Method::POST, Version::HTTP_11), (Method::GET, Version::HTTP_10)] {
            let read = Handshake::read(&method, version, &map(&asked()), None);
            assert_eq!(read.err(), Some(HandshakeFault::Method));
        }
    }

    #[test]
    fn an_answer_with_another_value_in_one_field_is_refused() {
        let handshake = read(&map(&asked())).unwrap();
        assert_eq!(handshake.check(&map(&answered())), Ok(()));
        assert_eq!(handshake.check(&with(answered(), "sec-websocket-protocol", "")), Ok(()));
        for (name, value) in [
            ("upgrade", ""),
            ("upgrade", "h2c"),
            ("connection", "close"),
            ("sec-websocket-accept", ""),
            ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOp="),
            ("sec-websocket-protocol", "Chat"),
            ("sec-websocket-protocol", "chat, superchat"),
        ] {
            assert!(handshake.check(&with(answered(), name, value)).is_err(), "{name}: {value}");
        }
    }

    #[test]
    fn a_handshake_over_http_2_has_a_key_of_the_gateways() {
        let (mut parts, ()) = http::Request::builder()
            .method(Method::CONNECT)
            .version(Version::HTTP_2)
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .body(())
            .unwrap()
            .into_parts();
        from_http2(&mut parts, "connect-udp");
        assert_eq!(parts.method, Method::CONNECT);
        from_http2(&mut parts, "websocket");
        let handshake =
            Handshake::read(&parts.method, parts.version, &parts.headers, Some("bearer")).unwrap();
        let [_, _, (_, key)] = handshake.fields();
        assert!(is_key(&key) && key != "dGhlIHNhbXBsZSBub25jZQ==");
        let mut answer = with(answered(), "sec-websocket-protocol", "");
        handshake.complete(&mut answer);
        assert_eq!(answer["sec-websocket-protocol"], "bearer");
        assert!(!answer.contains_key("sec-websocket-accept"));
    }
}
