//! An accepted WebSocket handshake asks for a WebSocket of version 13 and nothing else. An accepted answer belongs to
//! the handshake, and selects a subprotocol that was offered.
//!
//! The lines before an empty line are the fields of the request, those after it the fields of the answer. In the answer,
//! `$` stands for the right `Sec-WebSocket-Accept`.
#![no_main]

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use libfuzzer_sys::fuzz_target;
use portcullis::websocket::Handshake;

fn fields<'l>(lines: impl Iterator<Item = &'l [u8]>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.take(16) {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
        }
    }
    headers
}

fn list(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values =
        headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    values
        .flat_map(|value| value.split(',').map(|item| item.trim_ascii().to_owned()).collect::<Vec<_>>())
        .collect()
}

fuzz_target!(|data: &[u8]| {
    let mut lines = data.split(|byte| *byte == b'\n');
    let asked = fields(lines.by_ref().take_while(|line| !line.is_empty()));
    let mut answer = fields(lines);
    for method in [Method::POST, Method::HEAD, Method::CONNECT] {
        assert!(Handshake::read(&method, Version::HTTP_11, &asked, None).is_err());
    }
    assert!(Handshake::read(&Method::GET, Version::HTTP_10, &asked, None).is_err());
    let Ok(mut handshake) = Handshake::read(&Method::GET, Version::HTTP_11, &asked, None) else { return };
    assert_eq!(list(&asked, "upgrade").len(), 1);
    assert!(asked["upgrade"].as_bytes().trim_ascii().eq_ignore_ascii_case(b"websocket"));
    assert!(list(&asked, "connection").iter().any(|option| option.eq_ignore_ascii_case("upgrade")));
    assert_eq!(asked.get_all("sec-websocket-version").iter().collect::<Vec<_>>(), ["13"]);
    let key = asked["sec-websocket-key"].as_bytes();
    assert_eq!(STANDARD.decode(key).expect("base64").len(), 16);
    handshake.offer(&asked);
    let accept = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat());
    let accept = STANDARD.encode(accept);
    if answer.get("sec-websocket-accept").is_some_and(|value| value == "$") {
        answer.insert("sec-websocket-accept", HeaderValue::try_from(&accept).expect("base64"));
    }
    if handshake.check(&answer).is_ok() {
        assert_eq!(answer.get_all("sec-websocket-accept").iter().collect::<Vec<_>>(), [&*accept]);
        assert!(answer["upgrade"].as_bytes().eq_ignore_ascii_case(b"websocket"));
        let chosen: Vec<_> = answer.get_all("sec-websocket-protocol").iter().collect();
        let offers = list(&asked, "sec-websocket-protocol");
        assert!(chosen.len() <= 1);
        for chosen in chosen {
            assert!(offers.iter().any(|offer| *offer == String::from_utf8_lossy(chosen.as_bytes())));
        }
    }
});
