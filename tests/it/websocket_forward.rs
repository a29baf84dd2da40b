//! WebSockets that the gateway forwards (RFC 6455, RFC 8441): handshakes, answers to them, and bytes.

use crate::kit::account::AUTHORITY;
use crate::kit::client::Connection;
use crate::kit::upstream::After;
use crate::kit::websocket::{accepting, echoed, handshake, is_accepted, masked, opened, scripted, service};
use crate::kit::{Portcullis, Request, Upstream, token};
use crate::{gateway, policy};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::io::{Read, Write};
use std::net::TcpStream;

const ROUTES: &str = r#"
[[route]]
name      = "socket"
path      = "/ws/{*rest}"
upstream  = "app"
websocket = true
sources   = ["header", "websocket"]

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
"#;

#[test]
fn a_websocket_carries_messages_both_ways_and_has_one_line_at_its_end() {
    let service = service();
    let gateway = crate::encrypted(&service, ROUTES);
    for mut connection in [Connection::open(gateway.http()), Connection::tls(gateway.https())] {
        let request = handshake("/ws/chat").bearer(token("ada")).header("X-Auth-Subject", "eve");
        let answer = opened(&mut connection, &request);
        assert_eq!(answer.header("upgrade"), Some("websocket"));
        assert_eq!(answer.header("connection"), Some("Upgrade"));
        assert_eq!(echoed(&mut connection, "hello"), "hello");
        assert_eq!(echoed(&mut connection, "again"), "again");
        assert_eq!(gateway.metric("portcullis_websockets_open"), Some(1));
        connection.finish();
        connection.is_closed();
        let line = gateway.access_line(&answer);
        // Two frames of 5 characters: 6 bytes more from the client, 2 from the server.
        assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&22.into(), &14.into()), "{line}");
        assert_eq!((&line["status"], &line["route"]), (&101.into(), &"socket".into()), "{line}");
        assert_eq!((&line["ended"], &line["complete"]), (&"client".into(), &true.into()), "{line}");
        assert_eq!(line["subject"], "ada");
    }
    let seen = service.last_request();
    assert_eq!(seen.header("x-auth-subject"), Some("ada"), "{seen:#?}");
    assert_eq!(seen.header("authorization"), None);
    assert_eq!(gateway.metric("portcullis_websockets_open"), Some(0));
    let ended = "portcullis_streams_ended_total{kind=\"websocket\",reason=\"client\"}";
    assert_eq!(gateway.metric(ended), Some(2));
}

#[test]
fn only_a_permitted_handshake_reaches_a_service() {
    let service = service();
    let routes = ROUTES.replace("\"header\",", "\"header\", \"cookie\",");
    let gateway = gateway(&service, &format!("{routes}{AUTHORITY}cookies = true\n"));
    let in_session = |request: Request| {
        request.header("Cookie", &format!("__Host-portcullis={}", token("ada").role("clerk")))
    };
    let own = "http://gateway.test";
    handshake("/ws/a").to(gateway.http()).is_refusal(401, "missing_token");
    handshake("/plain").bearer(token("ada")).to(gateway.http()).is_refusal(400, "bad_request");
    for (origin, status) in
        [(Some("https://evil.test"), 403), (Some("null"), 403), (None, 403), (Some(own), 101)]
    {
        let mut request = in_session(handshake("/ws/a"));
        if let Some(origin) = origin {
            request = request.header("Origin", origin);
        }
        let answer = request.over(&mut Connection::open(gateway.http()));
        assert_eq!(answer.status, status, "{origin:?}: {answer:#?}");
    }
    assert_eq!(service.requests().len(), 1);
}

#[test]
fn a_handshake_that_is_not_valid_reaches_no_service() {
    let service = service();
    let gateway = gateway(&service, ROUTES);
    let base = || Request::get("/open/a");
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    for (request, why) in [
        (base().header("Upgrade", "websocket"), "Connection: Upgrade"),
        (base().header("Connection", "Upgrade").header("Upgrade", "h2c, websocket"), "alone"),
        (base().header("Sec-WebSocket-Key", key), "alone"),
        (
            base()
                .header("Connection", "Upgrade")
                .header("Upgrade", "websocket")
                .header("Sec-WebSocket-Version", "8")
                .header("Sec-WebSocket-Key", key),
            "Version",
        ),
        (handshake("/open/a").header("Sec-WebSocket-Key", key), "Key"),
        (handshake("/open/a").header("Content-Length", "2"), "body"),
        (handshake("/open/a").header("Transfer-Encoding", "chunked"), "body"),
    ] {
        let answer = request.to(gateway.http());
        answer.is_refusal(400, "bad_request");
        let line = gateway.access_line(&answer);
        assert!(line["detail"].as_str().is_some_and(|it| it.contains(why)), "{why}: {line}");
    }
    let post = Request::new("POST", "/open/a").header("Content-Length", "0").header("Upgrade", "websocket");
    post.header("Connection", "Upgrade").to(gateway.http()).is_refusal(400, "bad_request");
    service.saw_nothing();
    // RFC 9110 section 7.8: an offer of another protocol is ignored.
    let offer = base().header("Connection", "Upgrade").header("Upgrade", "h2c");
    offer.to(gateway.http()).is(200);
    assert_eq!(service.only_request().header("upgrade"), None);
}

/// A service that accepts another handshake than the client's would speak to the client without its knowledge.
#[test]
fn an_answer_that_does_not_accept_the_handshake_is_refused() {
    for (name, answer) in [
        ("another key's accept", accepting("AAAAAAAAAAAAAAAAAAAAAA==", "")),
        ("no accept", "HTTP/1.1 101 A\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n".to_owned()),
        ("another protocol", "HTTP/1.1 101 A\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n".to_owned()),
        (
            "a subprotocol that nobody offered",
            accepting("dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol: chat\r\n"),
        ),
    ] {
        let service = Upstream::answering(answer);
        let gateway = gateway(&service, ROUTES);
        let answer = handshake("/open/a").to(gateway.http());
        assert!(answer.is_refusal(502, "upstream_failed").complete, "{name}");
    }
}

#[test]
fn an_answer_without_a_switch_passes_as_it_is() {
    let refused = "HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nContent-Length: 2\r\n\r\nno";
    let service = Upstream::answering(refused);
    let gateway = gateway(&service, ROUTES);
    let mut connection = Connection::open(gateway.http());
    for _ in 0..2 {
        let answer = handshake("/open/a").over(&mut connection);
        assert_eq!((answer.status, &*answer.text()), (426, "no"));
        assert_eq!(answer.header("sec-websocket-version"), Some("13"));
    }
}

#[test]
fn the_token_among_the_subprotocols_stays_here_and_the_client_gets_one_of_its_own() {
    let service = Upstream::with(|seen, wire| {
        let chosen = match seen.header("sec-websocket-protocol") {
            Some(offer) if offer.contains("graphql-ws") => "Sec-WebSocket-Protocol: graphql-ws\r\n",
            _ => "",
        };
        wire.send(accepting(seen.header("sec-websocket-key").unwrap(), chosen));
        After::Close
    });
    let gateway = gateway(&service, ROUTES);
    let token = token("ada").to_string();
    for (offers, passed, chosen) in [
        (format!("bearer, {token}"), None, "bearer"),
        (format!("bearer, {token}, graphql-ws"), Some("graphql-ws"), "graphql-ws"),
        (format!("soap, bearer, {token}"), Some("soap"), "bearer"),
    ] {
        let request = handshake("/ws/a").header("Sec-WebSocket-Protocol", &offers);
        let answer = opened(&mut Connection::open(gateway.http()), &request);
        assert_eq!(answer.header("sec-websocket-protocol"), Some(chosen), "{offers}");
        let seen = service.last_request();
        assert_eq!(seen.header("sec-websocket-protocol"), passed, "{seen:#?}");
        assert!(!seen.mentions(&token));
    }
    // Without an offer, the client gets none.
    let answer = opened(&mut Connection::open(gateway.http()), &handshake("/open/a"));
    assert_eq!(answer.header("sec-websocket-protocol"), None);
}

#[test]
fn extensions_pass_in_both_directions() {
    let service = Upstream::with(|seen, wire| {
        let fields = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n";
        wire.send(accepting(seen.header("sec-websocket-key").unwrap(), fields));
        After::Close
    });
    let gateway = gateway(&service, ROUTES);
    let offer = "permessage-deflate; client_max_window_bits, x-other";
    let request = handshake("/open/a").header("Sec-WebSocket-Extensions", offer);
    let answer = opened(&mut Connection::open(gateway.http()), &request);
    assert_eq!(
        answer.header("sec-websocket-extensions"),
        Some("permessage-deflate; server_no_context_takeover")
    );
    assert_eq!(service.last_request().header("sec-websocket-extensions"), Some(offer));
}

/// Echoes as many bytes as the path says, in pieces of random sizes, and then closes.
fn byte_echo() -> Upstream {
    scripted(|seen, wire| {
        let mut left: usize = seen.target.rsplit('/').next().unwrap().parse().unwrap();
        let mut size = 1;
        while left > 0 {
            size = (size * 31 + 7) % 5000;
            let Ok(bytes) = wire.take(size.clamp(1, left)) else { return After::Close };
            left -= bytes.len();
            wire.send(bytes);
        }
        After::Close
    })
}

/// Opens a WebSocket and returns its socket.
fn raw(gateway: &Portcullis, target: &str) -> TcpStream {
    let mut socket = TcpStream::connect(gateway.http()).unwrap();
    socket.set_read_timeout(Some(crate::kit::PATIENCE)).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.write_all(&handshake(target).bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    socket
}

#[test]
fn every_byte_passes_unchanged_however_it_is_cut() {
    let service = byte_echo();
    let gateway = gateway(&service, ROUTES);
    let cases = ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() };
    let strategy = (
        prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..70_000)), 1..5),
        prop::collection::vec(1_usize..9000, 1..20),
    );
    let run = TestRunner::new(cases).run(&strategy, |(frames, cuts)| {
        let sent: Vec<u8> = frames.iter().flat_map(|(first, payload)| masked(*first, payload)).collect();
        let mut socket = raw(&gateway, &format!("/open/{}", sent.len()));
        let mut writer = socket.try_clone().unwrap();
        let expected = sent.clone();
        let writing = std::thread::spawn(move || {
            let (mut rest, mut cuts) = (&sent[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                writer.write_all(piece).unwrap();
                rest = after;
            }
        });
        let mut received = Vec::new();
        socket.read_to_end(&mut received).unwrap();
        writing.join().unwrap();
        prop_assert!(received == expected, "{} bytes of {}", received.len(), expected.len());
        Ok(())
    });
    run.unwrap();
}

#[test]
fn a_service_that_does_not_read_stops_its_client_and_not_the_gateway() {
    let gate = crate::kit::upstream::Gate::new();
    let closed = gate.clone();
    const SIZE: usize = 64 << 20;
    let service = scripted(move |_, wire| {
        closed.wait();
        let mut read = 0;
        while read < SIZE {
            match wire.take(1 << 20) {
                Ok(bytes) => read += bytes.len(),
                Err(_) => return After::Close,
            }
        }
        wire.send(masked(0x82, b"all"));
        After::Close
    });
    let gateway = gateway(&service, ROUTES);
    let mut socket = raw(&gateway, "/open/slow");
    let before = gateway.peak_memory();
    let mut writer = socket.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        let piece = vec![0; 1 << 20];
        (0..SIZE >> 20).for_each(|_| writer.write_all(&piece).unwrap());
    });
    crate::kit::eventually("the client has to wait", || {
        gateway.metric("portcullis_websockets_open") == Some(1) && !writing.is_finished()
    });
    gate.open();
    writing.join().unwrap();
    let mut received = Vec::new();
    socket.read_to_end(&mut received).unwrap();
    assert_eq!(received, masked(0x82, b"all"));
    let grown = gateway.peak_memory().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes more");
}

#[test]
fn each_end_may_close_its_side_first() {
    // The service sends after the client's end, and the client after the service's.
    let service = scripted(|seen, wire| {
        if seen.target == "/open/last" {
            assert!(wire.take(1).is_err(), "the client has closed its side");
            wire.send("the last words");
        }
        After::Close
    });
    let gateway = gateway(&service, ROUTES);
    let mut connection = Connection::open(gateway.http());
    opened(&mut connection, &handshake("/open/last"));
    connection.finish();
    assert_eq!(connection.rest(), b"the last words");
    let mut connection = Connection::open(gateway.http());
    let answer = opened(&mut connection, &handshake("/open/first"));
    connection.is_closed();
    drop(connection);
    assert_eq!(gateway.access_line(&answer)["ended"], "server");
}

#[test]
fn bytes_beside_the_handshake_belong_to_the_websocket() {
    // The service sends its first frame with its answer, and the client its first frame with its request.
    let service = Upstream::with(|seen, wire| {
        let head = accepting(seen.header("sec-websocket-key").unwrap(), "");
        wire.send([head.as_bytes(), b"greeting"].concat());
        if let Ok(bytes) = wire.take(7) {
            wire.send(bytes);
        }
        After::Close
    });
    let gateway = gateway(&service, ROUTES);
    let mut connection = Connection::open(gateway.http());
    connection.send([&handshake("/open/a").bytes()[..], b"request"].concat());
    let answer = connection.read_head().unwrap();
    assert!(is_accepted(&answer));
    assert_eq!(connection.rest(), b"greetingrequest");
}

#[test]
fn a_route_that_cannot_forward_websockets_does_not_load() {
    let dir = crate::kit::dir::Dir::new();
    let upstream = Upstream::start();
    for (route, part) in [
        ("path = \"/a\"\nupstream = \"app\"\nmethods = [\"POST\"]", "GET"),
        ("path = \"/a\"\nupstream = \"echo\"\n\n[upstream.echo]\nbuiltin = \"echo\"\n", "echo"),
    ] {
        let route = route.replacen("\nupstream", "\nwebsocket = true\nupstream", 1);
        crate::kit::portcullis::write_policy(&dir, &policy(&upstream, &format!("[[route]]\n{route}\n")));
        let checked = crate::kit::portcullis::command(&dir, &["check", "--config", "gateway.toml"]);
        assert_eq!(checked.code, Some(1), "{checked:?}");
        assert!(checked.text().contains("websocket") && checked.text().contains(part), "{checked:?}");
    }
}

#[test]
fn a_test_of_the_policy_sees_the_handshake_that_the_upstream_gets() {
    let dir = crate::kit::dir::Dir::new();
    let tests = r#"
[[test]]
name    = "a handshake"
request = "GET http://gateway.test/open/chat"
headers = { Upgrade = "websocket", Connection = "Upgrade", Sec-WebSocket-Version = "13", Sec-WebSocket-Key = "dGhlIHNhbXBsZSBub25jZQ==" }
expect  = { allow = true, route = "open", headers = { Upgrade = "websocket", Connection = "Upgrade" } }
"#;
    crate::kit::portcullis::write_policy(&dir, &policy(&Upstream::start(), &format!("{ROUTES}{tests}")));
    let checked = crate::kit::portcullis::command(&dir, &["check", "--config", "gateway.toml"]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
}

/// The sockets' buffers are empty, and the gateway keeps none of its own.
#[test]
fn an_idle_websocket_holds_little_memory() {
    let service = service();
    let gateway = gateway(&service, ROUTES);
    let open = |count: usize| -> Vec<Connection> {
        let request = handshake("/ws/a").bearer(token("ada"));
        (0..count)
            .map(|_| {
                let mut connection = Connection::open(gateway.http());
                opened(&mut connection, &request);
                assert_eq!(echoed(&mut connection, "hello"), "hello");
                connection
            })
            .collect()
    };
    let _warm = open(100);
    let before = gateway.peak_memory();
    let idle = open(600);
    let each = gateway.peak_memory().saturating_sub(before) / idle.len() as u64;
    println!("{each} bytes for each WebSocket");
    assert!(each < 6 * 1024, "{each} bytes");
}
