//! Uploads to HTTP/2 upstreams: expectations, resets, windows that never open, GOAWAY, and floods of frames.

use crate::http2_upstreams::{
    Call, Handling, PUBLIC, Server, echo_plain, policy, read_frames, serve, serve_with,
};
use crate::http2_upstreams::{call, frame};
use crate::kit::client::Connection;
use crate::kit::{PATIENCE, Portcullis, Request, eventually};
use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, Response};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn gateway(server: &impl std::fmt::Display) -> Portcullis {
    Portcullis::with(&policy(server, "", PUBLIC)).start()
}

/// Begins an upload over HTTP/1.1, with this `Expect` or none.
fn begin(gateway: &Portcullis, path: &str, length: usize, more: &str) -> Connection {
    let mut connection = Connection::open(gateway.http());
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: {length}\r\n{more}\r\n");
    connection.send(head);
    connection
}

/// Sends a request's body back once it is whole.
async fn echo_whole(request: http::Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let (mut body, mut whole) = (request.into_body(), Vec::new());
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        whole.extend_from_slice(&data);
    }
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    stream.send_data(whole.into(), true).unwrap();
}

const EXPECT: &str = "Expect: 100-continue\r\n";

#[test]
fn an_expectation_passes_to_the_server_and_its_100_to_the_client() {
    // The server for `/silent` does not ask. It gets the body after a second, as over HTTP/1.1.
    let server = serve(|_, (request, mut respond)| {
        Box::pin(async move {
            if request.uri().path() == "/asks" {
                let interim = Response::builder().status(100).body(()).unwrap();
                respond.send_informational(interim).unwrap();
            }
            echo_whole(request, respond).await;
        })
    });
    let gateway = gateway(&server);
    for path in ["/asks", "/silent"] {
        let mut connection = begin(&gateway, path, 4, EXPECT);
        assert_eq!(connection.read_head().unwrap().status, 100, "{path}");
        connection.send("body");
        assert_eq!(connection.answer().is(200).text(), "body", "{path}");
        assert_eq!(server.seen().last().unwrap().headers["expect"], "100-continue", "{path}");
        // The client's connection is used again, without an expectation.
        connection.send(Request::post("/asks", "more").bytes());
        assert_eq!(connection.answer().is(200).text(), "more", "{path}");
        assert_eq!(server.seen().last().unwrap().headers.get("expect"), None, "{path}");
    }
    // The HTTP library sends no interim answer over HTTP/2, so the gateway does not pass such a client's expectation.
    let answer = call(gateway.http(), &[("expect", "100-continue")], b"body", HeaderMap::new());
    assert_eq!(answer.body, b"body");
    assert_eq!(server.seen().last().unwrap().headers.get("expect"), None);
}

/// RFC 9110 section 15.2, as over HTTP/1.1 (`bodies.rs`).
#[test]
fn a_client_gets_a_100_that_arrives_together_with_the_answer() {
    let bytes = Arc::new(AtomicUsize::new(0));
    let taken = bytes.clone();
    let server = serve(move |_, (request, mut respond)| {
        let taken = taken.clone();
        Box::pin(async move {
            // Both frames are in one write.
            respond.send_informational(Response::builder().status(100).body(()).unwrap()).unwrap();
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            stream.send_data(Bytes::from_static(b"body"), true).unwrap();
            let mut body = request.into_body();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                taken.fetch_add(data.len(), Ordering::SeqCst);
            }
        })
    });
    let gateway = gateway(&server);
    for number in 1..=3 {
        let mut connection = begin(&gateway, "/x", 4, EXPECT);
        assert_eq!(connection.read_head().unwrap().status, 100);
        assert_eq!(connection.answer().is(200).text(), "body");
        connection.send("sent");
        eventually("the server has the body", || bytes.load(Ordering::SeqCst) == 4 * number);
    }
}

#[test]
fn a_server_that_refuses_an_expectation_gets_no_body_and_the_client_is_not_asked_for_it() {
    let (ends, bytes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (ended, taken) = (ends.clone(), bytes.clone());
    let server = serve(move |_, (request, mut respond)| {
        let (ended, taken) = (ended.clone(), taken.clone());
        Box::pin(async move {
            let mut body = request.into_body();
            let head = Response::builder().status(413).body(()).unwrap();
            let mut stream = respond.send_response(head, false).unwrap();
            stream.send_data(Bytes::from_static(b"no"), true).unwrap();
            while let Some(Ok(data)) = body.data().await {
                taken.fetch_add(data.len(), Ordering::SeqCst);
            }
            ended.fetch_add(1, Ordering::SeqCst);
        })
    });
    let gateway = gateway(&server);
    for number in 1..=2 {
        let mut connection = begin(&gateway, "/x", 4, EXPECT);
        let answer = connection.answer();
        assert_eq!(answer.is(413).text(), "no");
        assert!(answer.interim.is_empty(), "{answer:#?}");
        connection.is_closed();
        eventually("the server sees the end", || ends.load(Ordering::SeqCst) == number);
        assert_eq!(bytes.load(Ordering::SeqCst), 0);
    }
    assert!(server.seen().iter().all(|seen| seen.headers["expect"] == "100-continue"));
}

/// A server that refused the stream has not processed the request, so its body is still to come.
#[test]
fn an_expectation_is_repeated_at_a_server_that_takes_it() {
    let server = serve(|number, (request, mut respond)| match number {
        0 => Box::pin(async move { respond.send_reset(Reason::REFUSED_STREAM) }),
        _ => Box::pin(async move {
            respond.send_informational(Response::builder().status(100).body(()).unwrap()).unwrap();
            echo_whole(request, respond).await;
        }),
    });
    let gateway = gateway(&server);
    let mut connection = begin(&gateway, "/x", 4, EXPECT);
    assert_eq!(connection.read_head().unwrap().status, 100);
    connection.send("body");
    assert_eq!(connection.answer().is(200).text(), "body");
    assert!(server.seen().iter().all(|seen| seen.headers["expect"] == "100-continue"));
    assert_eq!(server.count(), 2);
}

/// Reads `count` bytes of a request's body.
async fn read(body: &mut h2::RecvStream, count: usize) {
    let mut left = count;
    while left > 0 {
        let Some(Ok(data)) = body.data().await else { return };
        let _ = body.flow_control().release_capacity(data.len());
        left = left.saturating_sub(data.len());
    }
}

#[test]
fn a_reset_during_an_upload_is_a_failure_and_the_upload_is_not_repeated() {
    for reason in [Reason::NO_ERROR, Reason::CANCEL, Reason::REFUSED_STREAM, Reason::INTERNAL_ERROR] {
        for (begins_answer, count) in [(false, 0), (false, 200_000), (true, 0), (true, 200_000)] {
            let server = serve(move |_, (request, mut respond)| {
                Box::pin(async move {
                    let mut body = request.into_body();
                    read(&mut body, count).await;
                    if begins_answer {
                        let mut stream = respond.send_response(Response::new(()), false).unwrap();
                        stream.send_data(Bytes::from_static(b"part"), false).unwrap();
                        read(&mut body, 100_000).await;
                        stream.send_reset(reason);
                    } else {
                        respond.send_reset(reason);
                    }
                })
            });
            let gateway = gateway(&server);
            let mut connection = begin(&gateway, "/x", 1 << 20, "");
            let _ = connection.try_send(vec![b'x'; 1 << 20]);
            let answer = connection.try_answer("POST").expect("an answer");
            let what = format!("{reason:?}, {begins_answer}, {count}: {answer:#?}");
            match answer.status {
                200 => assert!(begins_answer && !answer.complete, "{what}"),
                502 => assert_eq!(answer.code(), "upstream_failed", "{what}"),
                _ => panic!("{what}"),
            }
            assert_eq!(server.count(), 1, "{what}");
        }
    }
}

#[test]
fn a_window_that_never_opens_costs_bounded_time_and_memory() {
    let mut settings = h2::server::Builder::new();
    settings.initial_window_size(0);
    let server = serve_with(
        settings,
        |_, (request, mut respond)| {
            Box::pin(async move {
                if request.uri().path() == "/early" {
                    let mut stream = respond.send_response(Response::new(()), false).unwrap();
                    stream.send_data(Bytes::from_static(b"early"), true).unwrap();
                }
                let _held = (request, respond);
                std::future::pending::<()>().await;
            })
        },
        |_, _| {},
    );
    let gateway = Portcullis::with(&policy(&server, "timeout = \"1s\"\n", PUBLIC)).start();
    assert_eq!(Request::post("/early", "hello").to(gateway.http()).is(200).text(), "early");
    let before = gateway.peak_memory();
    let address = gateway.http();
    let clients: Vec<_> = (0..30)
        .map(|_| {
            std::thread::spawn(move || {
                let mut connection = Connection::open(address);
                let _ = connection.try_send(Request::post("/x", vec![b'x'; 4 << 20]).bytes());
                connection.try_answer("POST").map_or(0, |answer| answer.status)
            })
        })
        .collect();
    for client in clients {
        let status = client.join().unwrap();
        // The client may not be able to read the answer, because the gateway closes while it still sends.
        assert!([504, 0].contains(&status), "{status}");
    }
    let growth = gateway.peak_memory().saturating_sub(before);
    assert!(growth < 32 << 20, "{growth} bytes");
    assert_eq!(Request::post("/early", "hello").to(gateway.http()).is(200).text(), "early");
}

/// GOAWAY includes the stream, so its upload goes on (RFC 9113 section 6.8).
#[test]
fn an_upload_goes_on_after_a_goaway_that_includes_it() {
    let server = serve_with(
        h2::server::Builder::new(),
        |_, call| echo_plain(call),
        |_, connection| connection.graceful_shutdown(),
    );
    let gateway = gateway(&server);
    let body: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    for number in 1..=3 {
        assert!(Request::post("/x", &body).to(gateway.http()).is(200).body == body);
        assert_eq!(server.count(), number);
    }
}

/// Starts a server that reads the head of one request for each script, and then follows the script.
fn scripted(scripts: Vec<fn(&mut TcpStream)>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let seen = requests.clone();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for script in scripts {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            stream.read_exact(&mut [0; 24]).unwrap();
            stream.write_all(&frame(4, 0, 0, &[])).unwrap();
            read_frames(&mut stream, 1, 1);
            seen.fetch_add(1, Ordering::SeqCst);
            script(&mut stream);
            open.push(stream);
        }
        // Connections beyond the scripts are accepted and get nothing.
        while let Ok((stream, _)) = listener.accept() {
            open.push(stream);
        }
    });
    (address, requests)
}

/// GOAWAY excludes the stream, so the server has processed nothing of it.
fn goaway(stream: &mut TcpStream) {
    let _ = stream.write_all(&frame(7, 0, 0, &[0; 8]));
}

/// Answers the first stream with 200.
fn answer(stream: &mut TcpStream) {
    let _ = stream.write_all(&frame(1, 5, 1, &[0x88]));
}

#[test]
fn an_upload_that_a_goaway_excludes_is_repeated_only_while_the_gateway_has_all_of_it() {
    // The client has sent the head and a part of the body.
    let (address, requests) = scripted(vec![goaway, answer]);
    let gateway = gateway(&format!("http://{address}"));
    let mut connection = begin(&gateway, "/x", 10, "");
    connection.send("begun");
    eventually("the request is repeated", || requests.load(Ordering::SeqCst) == 2);
    connection.send("ended");
    connection.answer().is(200);

    // A megabyte is more than the gateway keeps. The server reads it before GOAWAY.
    let (address, requests) = scripted(vec![
        |stream| {
            let window = 0x7fff_0000_u32.to_be_bytes();
            let _ = stream.write_all(&frame(8, 0, 0, &window));
            let _ = stream.write_all(&frame(8, 0, 1, &window));
            read_frames(stream, 0, 20);
            goaway(stream);
        },
        answer,
    ]);
    let gateway = self::gateway(&format!("http://{address}"));
    let mut connection = begin(&gateway, "/x", 2 << 20, "");
    let _ = connection.try_send(vec![b'x'; 1 << 20]);
    connection.try_answer("POST").expect("an answer").is_refusal(502, "upstream_failed");
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

/// Writes frames until the gateway closes the connection, at most 100,000.
fn flood(stream: &mut TcpStream, frame: &[u8]) {
    let all = frame.repeat(100);
    let _ = (0..1000).all(|_| stream.write_all(&all).is_ok());
}

#[test]
fn floods_from_a_server_are_failures_that_cost_bounded_memory() {
    type Flood = fn(&mut TcpStream);
    let floods: [(&str, Flood); 5] = [
        // `:status: 103` as a literal with the name of HPACK's static entry 8.
        ("interim answers", |stream| flood(stream, &frame(1, 4, 1, &[8, 3, b'1', b'0', b'3']))),
        ("interim answers that continue", |stream| flood(stream, &frame(1, 4, 1, &[8, 3, b'1', b'0', b'0']))),
        ("CONTINUATION", |stream| {
            let _ = stream.write_all(&frame(1, 0, 1, &[0x88]));
            let field = [&[0, 1, b'x', 125][..], &[b'y'; 125]].concat();
            flood(stream, &frame(9, 0, 1, &field.repeat(100)));
        }),
        ("empty CONTINUATION", |stream| {
            let _ = stream.write_all(&frame(1, 0, 1, &[0x88]));
            flood(stream, &frame(9, 0, 1, &[]));
        }),
        ("pushed streams", |stream| flood(stream, &frame(5, 4, 1, &[0, 0, 0, 2, 0x82]))),
    ];
    for (name, script) in floods {
        for more in ["", EXPECT] {
            let (address, requests) = scripted(vec![script]);
            let gateway =
                Portcullis::with(&policy(&format!("http://{address}"), "timeout = \"5s\"\n", PUBLIC)).start();
            let before = gateway.peak_memory();
            let mut connection = begin(&gateway, "/x", 4, more);
            if more.is_empty() {
                connection.send("body");
            }
            let answer = connection.try_answer("POST").expect("an answer");
            answer.is_refusal(502, "upstream_failed");
            let growth = gateway.peak_memory().saturating_sub(before);
            assert!(growth < 32 << 20, "{name}: {growth} bytes");
            assert_eq!(requests.load(Ordering::SeqCst), 1, "{name}");
        }
    }
}

/// A body that its client cuts must not look whole.
#[test]
fn a_client_that_leaves_during_its_upload_resets_the_stream() {
    let (cuts, wholes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (cut, whole) = (cuts.clone(), wholes.clone());
    let script = move |_: usize, (request, respond): Call| -> Handling {
        let (cut, whole) = (cut.clone(), whole.clone());
        Box::pin(async move {
            let _held = respond;
            let mut body = request.into_body();
            while let Some(data) = body.data().await {
                let Ok(data) = data else {
                    cut.fetch_add(1, Ordering::SeqCst);
                    return;
                };
                let _ = body.flow_control().release_capacity(data.len());
            }
            whole.fetch_add(1, Ordering::SeqCst);
        })
    };
    let server: Server = serve(script);
    let gateway = gateway(&server);
    let mut connection = begin(&gateway, "/x", 1000, "");
    connection.send("half");
    eventually("the request arrives", || server.count() == 1);
    drop(connection);
    eventually("the stream is reset", || cuts.load(Ordering::SeqCst) == 1);
    let mut chunked = Connection::open(gateway.http());
    chunked.send("POST /x HTTP/1.1\r\nHost: gateway.test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
    eventually("the request arrives", || server.count() == 2);
    drop(chunked);
    eventually("the stream is reset", || cuts.load(Ordering::SeqCst) == 2);
    assert_eq!(wholes.load(Ordering::SeqCst), 0);
}
