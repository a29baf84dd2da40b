//! A minimal implementation of WebSockets (RFC 6455): a server that echoes, and the handshake and frames of a client.
//! Each message is text of at most 125 bytes in one frame.

use super::client::{Connection, Request};
use super::upstream::{After, Seen, Upstream, Wire};
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The key of RFC 6455 section 1.3, and its `Sec-WebSocket-Accept`.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// The first byte of a text frame that is a complete message.
const TEXT: u8 = 0x81;

/// Starts a service that accepts handshakes with 101, echoes frames, and answers all other requests with 200.
pub fn service() -> Upstream {
    Upstream::with(|seen, wire| {
        let is_handshake = seen.header("upgrade").is_some_and(|it| it.eq_ignore_ascii_case("websocket"))
            && seen.header("connection").is_some_and(|it| it.to_lowercase().contains("upgrade"));
        match seen.header("sec-websocket-key").filter(|_| is_handshake) {
            Some(key) => {
                let accept = accept(key);
                wire.send(format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Accept: {accept}\r\n\r\n"
                ));
                while let Some(text) = read_masked(wire) {
                    wire.send([&[TEXT, text.len() as u8], &text[..]].concat());
                }
                After::Close
            }
            None => {
                if !wire.read_body() {
                    return After::Close;
                }
                wire.answer("200 OK", "content-type: text/plain\r\n", "no WebSocket");
                After::Keep
            }
        }
    })
}

/// Starts a service that accepts handshakes, and then serves the wire with `script`. Other requests get 200.
pub fn scripted(script: impl Fn(&Seen, &mut Wire) -> After + Send + Sync + 'static) -> Upstream {
    Upstream::with(move |seen, wire| match seen.header("sec-websocket-key") {
        Some(key) => {
            wire.send(accepting(key, ""));
            script(seen, wire)
        }
        None => {
            wire.answer("200 OK", "content-type: text/plain\r\n", "no WebSocket");
            After::Keep
        }
    })
}

/// Returns the head of an answer that accepts a handshake, with these fields too.
pub fn accepting(key: &str, fields: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n{fields}\r\n",
        accept(key)
    )
}

/// Returns a frame of a client with this first byte.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = head(first, 0x80, payload.len());
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Returns a frame of a server with this first byte.
pub fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    [head(first, 0, payload.len()), payload.to_vec()].concat()
}

fn head(first: u8, mask: u8, length: usize) -> Vec<u8> {
    match length {
        0..126 => vec![first, mask | length as u8],
        126..65536 => [&[first, mask | 126][..], &(length as u16).to_be_bytes()].concat(),
        _ => [&[first, mask | 127][..], &(length as u64).to_be_bytes()].concat(),
    }
}

/// Returns a server's close frame with this code and reason.
pub fn close(code: u16, reason: &str) -> Vec<u8> {
    unmasked(0x88, &[&code.to_be_bytes()[..], reason.as_bytes()].concat())
}

/// Opens a WebSocket over this connection.
#[track_caller]
pub fn opened(connection: &mut Connection, request: &Request) -> super::Answer {
    let answer = request.over(connection);
    assert!(is_accepted(&answer), "{request:?}: {answer:#?}");
    answer
}

fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

fn read_masked(wire: &mut Wire) -> Option<Vec<u8>> {
    let head = wire.take(2).ok()?;
    if head[0] != TEXT || head[1] & 0x80 == 0 {
        return None;
    }
    let mask = wire.take(4).ok()?;
    let text = wire.take(usize::from(head[1] & 0x7f)).ok()?;
    Some(text.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect())
}

/// Begins a handshake request for this target.
pub fn handshake(target: &str) -> Request {
    Request::get(target)
        .header("Connection", "keep-alive, Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", KEY)
}

/// Whether an answer accepts [`handshake`] with the right `Sec-WebSocket-Accept`.
pub fn is_accepted(answer: &super::Answer) -> bool {
    answer.status == 101 && answer.header("sec-websocket-accept") == Some(ACCEPT)
}

/// Sends text over an open WebSocket and returns the text that comes back.
#[track_caller]
pub fn echoed(connection: &mut Connection, text: &str) -> String {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let masked = text.bytes().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    let mut frame = vec![TEXT, 0x80 | text.len() as u8];
    frame.extend(mask);
    frame.extend(masked);
    connection.send(frame);
    let head = connection.take(2);
    assert_eq!(head.first(), Some(&TEXT), "one frame of text: {head:?}");
    String::from_utf8(connection.take(usize::from(head[1]))).unwrap()
}
