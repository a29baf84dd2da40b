//! WebSockets to an upstream that uses HTTP/2 (RFC 8441).

use crate::http2_upstreams::{Call, Handling, Server, serve_with};
use crate::kit::client::Connection;
use crate::kit::forge::{issuer_without_leeway, now};
use crate::kit::http2::{Frames, Verdict, block, frame};
use crate::kit::websocket::{close, handshake, masked, opened};
use crate::kit::{Portcullis, Request, eventually, token};
use bytes::Bytes;
use h2::ext::Protocol;
use http::{Method, Response};
use serde_json::json;

/// Answers a handshake, and sends the bytes of the WebSocket back. The path decides about the answer.
fn echo((request, mut respond): Call) -> Handling {
    Box::pin(async move {
        let is_websocket =
            request.extensions().get::<Protocol>().is_some_and(|protocol| protocol.as_str() == "websocket");
        let response = match request.uri().path() {
            "/refused" => Response::builder().status(403),
            "/other" => Response::builder().header("sec-websocket-protocol", "other"),
            _ => Response::builder().header("sec-websocket-protocol", "chat"),
        };
        let response = response.body(()).unwrap();
        let mut body = request.into_body();
        if !is_websocket || response.status() != 200 {
            let mut stream = respond.send_response(response, false).unwrap();
            stream.send_data(Bytes::from_static(b"plain"), true).unwrap();
            return;
        }
        let mut stream = respond.send_response(response, false).unwrap();
        while let Some(Ok(mut data)) = body.data().await {
            let _ = body.flow_control().release_capacity(data.len());
            while !data.is_empty() {
                stream.reserve_capacity(data.len());
                if stream.capacity() == 0 {
                    let Some(Ok(_)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else {
                        return;
                    };
                }
                let part = data.split_to(stream.capacity().min(data.len()));
                let _ = stream.send_data(part, false);
            }
        }
        let _ = stream.send_data(Bytes::new(), true);
    })
}

fn service(announces: bool) -> Server {
    let mut settings = h2::server::Builder::new();
    if announces {
        settings.enable_connect_protocol();
    }
    serve_with(settings, |_, call| echo(call), |_, _| {})
}

fn gateway(service: &Server) -> Portcullis {
    let issuer = issuer_without_leeway();
    Portcullis::with(&format!(
        "{issuer}\n[upstream.app]\nservers = [\"{service}\"]\nprotocol = \"http2\"\n\
         [[route]]\npath = \"/{{*rest}}\"\nupstream = \"app\"\nwebsocket = true\n"
    ))
    .start()
}

fn ask(path: &str) -> Request {
    handshake(path).bearer(token("ada")).header("Sec-WebSocket-Protocol", "chat")
}

#[test]
fn a_websocket_of_http_1_reaches_a_service_over_http_2() {
    let service = service(true);
    let gateway = gateway(&service);
    let mut connection = Connection::open(gateway.http());
    let answer = opened(&mut connection, &ask("/room?a=b"));
    assert_eq!(answer.header("sec-websocket-protocol"), Some("chat"));
    assert_eq!(answer.header("content-length"), None);
    // More than the windows of the stream, in pieces of odd sizes.
    let sent: Vec<u8> = (0..40).flat_map(|number| masked(0x82, &vec![number; 7919])).collect();
    let mut writer = sent.chunks(1777);
    let mut received = Vec::new();
    while received.len() < sent.len() {
        for piece in writer.by_ref().take(20) {
            connection.send(piece);
        }
        let next = (sent.len() - received.len()).min(20 * 1777);
        received.extend(connection.take(next));
    }
    assert!(received == sent, "the bytes are unchanged");
    connection.finish();
    connection.is_closed();
    let line = gateway.access_line(&answer);
    assert_eq!((&line["ended"], &line["bytes_in"]), (&json!("client"), &json!(sent.len())), "{line}");
    assert_eq!(line["bytes_out"], json!(sent.len()), "{line}");
    let seen = service.seen();
    let seen = &seen[0];
    assert_eq!((&seen.method, seen.uri.path()), (&Method::CONNECT, "/room"));
    assert_eq!(seen.uri.query(), Some("a=b"));
    assert_eq!(seen.headers["x-auth-subject"], "ada");
    assert_eq!(
        (&seen.headers["sec-websocket-version"], seen.headers.get("sec-websocket-key")),
        (&"13".parse().unwrap(), None)
    );
    // The connection carries further requests.
    let answer = Request::get("/plain").bearer(token("ada")).to(gateway.http());
    assert_eq!(answer.is(200).text(), "plain");
    eventually("one connection is open", || {
        gateway.metric("portcullis_upstream_connections_open{upstream=\"app\"}") == Some(1)
    });
    assert_eq!(gateway.metric("portcullis_websockets_open"), Some(0));
}

#[test]
fn a_websocket_may_use_http_2_at_both_ends() {
    let service = service(true);
    let gateway = gateway(&service);
    let mut frames = Frames::open(gateway.http());
    let bearer = format!("Bearer {}", token("ada"));
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", "gateway.test"),
        (":path", "/room"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat"),
        ("authorization", &bearer),
    ];
    frames.send(frame::HEADERS, frame::END_HEADERS, 1, &block(&fields)).unwrap();
    assert_eq!(frames.verdict(1), Verdict::Status(200));
    let message = masked(0x81, b"hello");
    frames.send(frame::DATA, 0, 1, &message).unwrap();
    let data = std::iter::from_fn(|| frames.next()).find(|it| it.kind == frame::DATA);
    assert_eq!(data.expect("the message comes back").payload, message);
}

#[test]
fn a_service_may_refuse_a_handshake_and_must_choose_an_offered_subprotocol() {
    let service = service(true);
    let gateway = gateway(&service);
    let answer = ask("/refused").to(gateway.http());
    assert_eq!(answer.is(403).text(), "plain");
    let answer = ask("/other").to(gateway.http());
    let line = gateway.access_line(answer.is_refusal(502, "upstream_failed"));
    assert!(line["detail"].as_str().unwrap().contains("Sec-WebSocket-Protocol"), "{line}");
}

#[test]
fn a_service_that_does_not_announce_websockets_gets_none() {
    let service = service(false);
    let gateway = gateway(&service);
    for _ in 0..2 {
        let answer = ask("/room").to(gateway.http());
        let line = gateway.access_line(answer.is_refusal(502, "upstream_failed"));
        assert!(line["detail"].as_str().unwrap().contains("ENABLE_CONNECT_PROTOCOL"), "{line}");
        Request::get("/plain").bearer(token("ada")).to(gateway.http()).is(200);
    }
    assert!(service.seen().iter().all(|seen| seen.method == Method::GET));
}

#[test]
fn a_websocket_over_http_2_ends_with_its_token() {
    let service = service(true);
    let gateway = gateway(&service);
    let mut connection = Connection::open(gateway.http());
    let short = token("ada").claim("exp", json!(now() + 3)).to_string();
    let ask = handshake("/room").bearer(short).header("Sec-WebSocket-Protocol", "chat");
    let answer = opened(&mut connection, &ask);
    let expected = close(3000, "token_expired");
    assert_eq!(connection.take(expected.len()), expected);
    connection.send(masked(0x88, &3000_u16.to_be_bytes()));
    connection.is_closed();
    assert_eq!(gateway.access_line(&answer)["ended"], "token_expired");
}
