//! WebSockets over HTTP/2 (RFC 8441), frame by frame.

use crate::gateway;
use crate::kit::account::AUTHORITY;
use crate::kit::forge::{issuer_without_leeway, now};
use crate::kit::http2::{Frames, Verdict, block, frame};
use crate::kit::upstream::{After, Gate};
use crate::kit::websocket::{close, masked, scripted, service, unmasked};
use crate::kit::{Portcullis, Upstream, eventually, token};
use serde_json::json;

const ROUTES: &str = r#"
[[route]]
name      = "socket"
path      = "/ws"
upstream  = "app"
websocket = true

[[route]]
name      = "open"
path      = "/open/{*rest}"
upstream  = "app"
access    = "public"
websocket = true

[[route]]
name      = "plain"
path      = "/plain"
upstream  = "app"
access    = "public"
"#;

/// Sends a handshake for this path with these fields too.
fn ask(frames: &mut Frames, stream: u32, path: &str, fields: &[(&str, &str)]) {
    let mut all = vec![
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", "gateway.test"),
        (":path", path),
        ("sec-websocket-version", "13"),
    ];
    all.extend(fields);
    frames.send(frame::HEADERS, frame::END_HEADERS, stream, &block(&all)).unwrap();
}

fn open(gateway: &Portcullis, path: &str, fields: &[(&str, &str)]) -> Frames {
    let mut frames = Frames::open(gateway.http());
    ask(&mut frames, 1, path, fields);
    assert_eq!(frames.verdict(1), Verdict::Status(200));
    frames
}

/// Returns the data of stream 1 until it has `count` bytes, or ends. Opens the windows for what it has read.
fn read(frames: &mut Frames, count: usize) -> (Vec<u8>, bool) {
    let mut data = Vec::new();
    while data.len() < count {
        let next = frames.next().expect("the connection stays open");
        match next.kind {
            frame::DATA if next.stream == 1 => {
                if !next.payload.is_empty() {
                    let length = (next.payload.len() as u32).to_be_bytes();
                    frames.send(frame::WINDOW_UPDATE, 0, 0, &length).unwrap();
                    frames.send(frame::WINDOW_UPDATE, 0, 1, &length).unwrap();
                }
                data.extend(next.payload);
                if next.flags & frame::END_STREAM != 0 {
                    return (data, true);
                }
            }
            frame::RST_STREAM => return (data, true),
            _ => {}
        }
    }
    (data, false)
}

#[test]
fn the_settings_offer_websockets_and_a_stream_becomes_one() {
    let service = service();
    let gateway = gateway(&service, ROUTES);
    let mut frames = Frames::open(gateway.http());
    let settings = frames.next().unwrap();
    assert_eq!((settings.kind, settings.flags), (frame::SETTINGS, 0));
    let enable_connect_protocol = [0, 8, 0, 0, 0, 1];
    assert!(settings.payload.chunks(6).any(|setting| setting == enable_connect_protocol), "{settings:?}");

    let bearer = format!("Bearer {}", token("ada"));
    ask(&mut frames, 1, "/ws", &[("authorization", &bearer), ("sec-websocket-protocol", "chat")]);
    assert_eq!(frames.verdict(1), Verdict::Status(200));
    for text in ["hello", "again"] {
        frames.send(frame::DATA, 0, 1, &masked(0x81, text.as_bytes())).unwrap();
        assert_eq!(read(&mut frames, 7), (unmasked(0x81, text.as_bytes()), false));
    }
    frames.send(frame::DATA, frame::END_STREAM, 1, &[]).unwrap();
    assert_eq!(read(&mut frames, 1), (Vec::new(), true));
    let line = gateway.wait_log("the end", |line| line["ended"] == "client");
    assert_eq!((&line["version"], &line["method"]), (&"HTTP/2".into(), &"GET".into()), "{line}");
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&22.into(), &14.into()), "{line}");
    let seen = service.only_request();
    assert_eq!((&*seen.method, seen.header("x-auth-subject")), ("GET", Some("ada")), "{seen:#?}");
    assert_eq!(seen.header("upgrade"), Some("websocket"));
    assert_eq!(seen.header("sec-websocket-protocol"), Some("chat"));
}

#[test]
fn only_a_permitted_handshake_over_http_2_reaches_a_service() {
    let service = service();
    let gateway = gateway(&service, &format!("{ROUTES}{AUTHORITY}cookies = true\n"));
    let cookie = format!("__Host-portcullis={}", token("ada"));
    let evil = [("cookie", &*cookie), ("origin", "https://evil.test")];
    for (path, fields, status) in [
        ("/ws", &[][..], 401),
        ("/ws", &evil[..], 403),
        ("/ws", &evil[..1], 403),
        ("/plain", &[], 400),
        ("/open/a", &[("sec-websocket-version", "13")], 400),
        ("/nothing", &[], 404),
    ] {
        let mut frames = Frames::open(gateway.http());
        ask(&mut frames, 1, path, fields);
        assert_eq!(frames.verdict(1), Verdict::Status(status), "{path} {fields:?}");
    }
    service.saw_nothing();
}

#[test]
fn any_other_connect_is_refused() {
    let service = service();
    let gateway = gateway(&service, ROUTES);
    for fields in [
        &[(":method", "CONNECT"), (":authority", "gateway.test:443")][..],
        &[
            (":method", "CONNECT"),
            (":protocol", "connect-udp"),
            (":scheme", "http"),
            (":authority", "gateway.test"),
            (":path", "/open/a"),
        ],
    ] {
        let mut frames = Frames::open(gateway.http());
        frames.send(frame::HEADERS, frame::END_HEADERS, 1, &block(fields)).unwrap();
        assert!(matches!(frames.verdict(1), Verdict::Status(400..600) | Verdict::Reset), "{fields:?}");
    }
    service.saw_nothing();
}

/// RFC 8441 section 5: a 2xx opens the WebSocket, although the service has refused the upgrade.
#[test]
fn a_service_that_answers_the_handshake_with_200_opens_nothing() {
    for (answer, status) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 502),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", 404),
    ] {
        let service = Upstream::answering(answer);
        let gateway = gateway(&service, ROUTES);
        let mut frames = Frames::open(gateway.http());
        ask(&mut frames, 1, "/open/a", &[]);
        assert_eq!(frames.verdict(1), Verdict::Status(status));
    }
}

#[test]
fn a_stream_ends_with_its_token_and_its_connection_stays() {
    let service = service();
    let issuer = issuer_without_leeway();
    let policy = format!("{issuer}\n[upstream.app]\nservers = [\"{service}\"]\n{ROUTES}");
    let gateway = Portcullis::with(&policy).start();
    let bearer = format!("Bearer {}", token("ada").claim("exp", json!(now() + 3)));
    let mut frames = open(&gateway, "/ws", &[("authorization", &bearer)]);
    let expected = close(3000, "token_expired");
    assert_eq!(read(&mut frames, expected.len()).0, expected);
    frames.send(frame::DATA, 0, 1, &masked(0x88, &3000_u16.to_be_bytes())).unwrap();
    assert_eq!(read(&mut frames, 1), (Vec::new(), true));
    ask(&mut frames, 3, "/open/a", &[]);
    assert_eq!(frames.verdict(3), Verdict::Status(200));
}

#[test]
fn a_client_that_opens_no_window_stops_its_service() {
    let service = scripted(|_, wire| {
        wire.send(vec![0x82; 64 << 20]);
        wire.peer_left();
        After::Close
    });
    let gateway = gateway(&service, &format!("[server.bounds]\nbody_timeout = \"1s\"\n{ROUTES}"));
    let before = gateway.peak_memory();
    let _frames = open(&gateway, "/open/a", &[]);
    gateway.wait_log("the end", |line| line["ended"] == "reader");
    service.wait_for_departure();
    let grown = gateway.peak_memory().saturating_sub(before);
    // The peak contains pages of the program that the test is the first to use.
    assert!(grown < 24 << 20, "{grown} bytes more");
}

/// The HTTP library reports a reset (RFC 9113 section 5.4.2) like the end of the client's bytes. A client that resets has
/// room for another stream, while the service may keep its side open.
#[test]
fn a_reset_stream_ends_although_the_service_keeps_its_side_open() {
    let gate = Gate::new();
    let held = gate.clone();
    let service = scripted(move |_, wire| {
        wire.peer_left();
        held.wait();
        After::Close
    });
    let gateway = gateway(&service, &format!("[server.bounds]\nbody_timeout = \"1s\"\n{ROUTES}"));
    let mut frames = open(&gateway, "/open/a", &[]);
    frames.send(frame::RST_STREAM, 0, 1, &8_u32.to_be_bytes()).unwrap();
    gateway.wait_log("the end", |line| line["ended"] == "client");
    eventually("the upstream connection closes", || {
        gateway.metric("portcullis_upstream_connections_open{upstream=\"app\"}") == Some(0)
    });
    gate.open();
}
