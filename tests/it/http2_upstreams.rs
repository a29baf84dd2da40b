//! Upstreams that use HTTP/2, with and without faults.

use crate::kit::client::HOST;
use crate::kit::http2::{Frames, block, frame};
use crate::kit::portcullis::completed;
use crate::kit::{ISSUER, PATIENCE, Portcullis, Request, Upstream, eventually, token};
use crate::reload::reload;
use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Response};
use std::future::Future;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpStream;

pub(crate) type Call = (http::Request<RecvStream>, SendResponse<Bytes>);
pub(crate) type Handling = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An HTTP/2 server without TLS.
pub(crate) struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<http::request::Parts>>>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) fn seen(&self) -> Vec<http::request::Parts> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}", self.address)
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Starts a server whose script handles each request and knows the request's number. `after` sees each connection after
/// each of its requests, with their number.
pub(crate) fn serve_with(
    settings: h2::server::Builder,
    script: impl Fn(usize, Call) -> Handling + Send + Sync + 'static,
    after: impl Fn(usize, &mut Connection<TcpStream, Bytes>) + Send + Sync + Copy + 'static,
) -> Server {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let server = Server { address, seen: Arc::default(), connections: Arc::default() };
    let (seen, connections) = (server.seen.clone(), server.connections.clone());
    let script = Arc::new(script);
    std::thread::spawn(move || {
        runtime().block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (seen, script, settings) = (seen.clone(), script.clone(), settings.clone());
                tokio::spawn(async move {
                    let Ok(mut connection) = settings.handshake(stream).await else { return };
                    let mut own = 0;
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        let (parts, body) = request.into_parts();
                        let number = {
                            let mut seen = seen.lock().unwrap();
                            seen.push(parts.clone());
                            seen.len() - 1
                        };
                        tokio::spawn(script(number, (http::Request::from_parts(parts, body), respond)));
                        own += 1;
                        after(own, &mut connection);
                    }
                });
            }
        });
    });
    server
}

pub(crate) fn serve(script: impl Fn(usize, Call) -> Handling + Send + Sync + 'static) -> Server {
    serve_with(h2::server::Builder::new(), script, |_, _| {})
}

pub(crate) fn policy(server: &impl std::fmt::Display, upstream: &str, route: &str) -> String {
    format!(
        "{ISSUER}\n[upstream.app]\nservers = [\"{server}\"]\nprotocol = \"http2\"\n{upstream}\n\
         [[route]]\npath = \"/{{*rest}}\"\nupstream = \"app\"\n{route}"
    )
}

fn gateway(server: &Server) -> Portcullis {
    Portcullis::with(&policy(&server, "", PUBLIC)).start()
}

pub(crate) const PUBLIC: &str = "access = \"public\"\n";

/// Sends a request's body back, and then these trailers and those of the request.
fn echo((request, mut respond): Call, mut trailers: HeaderMap) -> Handling {
    Box::pin(async move {
        let mut body = request.into_body();
        let Ok(mut stream) = respond.send_response(Response::new(()), false) else { return };
        while let Some(Ok(data)) = body.data().await {
            let _ = body.flow_control().release_capacity(data.len());
            let _ = stream.send_data(data, false);
        }
        if let Ok(Some(sent)) = body.trailers().await {
            for (name, value) in &sent {
                trailers.append(format!("echo-{name}").parse::<http::HeaderName>().unwrap(), value.clone());
            }
        }
        let _ = stream.send_trailers(trailers);
    })
}

pub(crate) fn echo_plain(call: Call) -> Handling {
    echo(call, HeaderMap::new())
}

pub(crate) fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: http::response::Parts,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: HeaderMap,
    /// The code of the reset that ended the answer.
    pub(crate) reset: Option<Reason>,
}

/// Sends a POST over a new HTTP/2 connection to the gateway.
pub(crate) fn call(
    address: SocketAddr,
    fields: &[(&'static str, &str)],
    body: &[u8],
    trailers: HeaderMap,
) -> Answer {
    let talk = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut request = http::Request::post(format!("http://{HOST}/pkg.Service/Method"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (response, mut upload) = client.send_request(request.body(()).unwrap(), false).unwrap();
        upload.send_data(Bytes::copy_from_slice(body), false).unwrap();
        upload.send_trailers(trailers).unwrap();
        let (head, mut body) = response.await.unwrap().into_parts();
        let mut answer = Answer { head, body: Vec::new(), trailers: HeaderMap::new(), reset: None };
        while let Some(data) = body.data().await {
            match data {
                Ok(data) => {
                    let _ = body.flow_control().release_capacity(data.len());
                    answer.body.extend_from_slice(&data);
                }
                Err(error) => {
                    answer.reset = error.reason();
                    return answer;
                }
            }
        }
        answer.trailers = body.trailers().await.unwrap().unwrap_or_default();
        answer
    };
    runtime().block_on(async { tokio::time::timeout(PATIENCE, talk).await.expect("an answer in time") })
}

const GRPC: [(&str, &str); 2] = [("content-type", "application/grpc"), ("te", "trailers")];

/// Answers as a gRPC service does, without an end.
fn begin_call((request, mut respond): Call) -> Handling {
    Box::pin(async move {
        let response = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut stream = respond.send_response(response, false).unwrap();
        let _ = stream.send_data(Bytes::from_static(b"begun"), false);
        let _held = (request, stream);
        std::future::pending::<()>().await;
    })
}

#[test]
fn the_head_is_the_same_as_over_http1_and_has_no_field_of_a_connection() {
    let server = serve(|_, call| echo_plain(call));
    let http1 = Upstream::start();
    let token = format!("Bearer {}", token("ada"));
    let sent = [
        GRPC[0],
        GRPC[1],
        ("authorization", &*token),
        ("x-auth-roles", "forged"),
        ("x-own", "1"),
        ("x-own", "2"),
        ("cookie", "a=b"),
        ("cookie", "c=d"),
    ];
    let gateway = Portcullis::with(&policy(&server, "", "")).start();
    let answer = call(gateway.http(), &sent, b"hello", HeaderMap::new());
    assert_eq!((answer.head.status.as_u16(), &*answer.body), (200, &b"hello"[..]));
    let seen = server.seen.lock().unwrap().remove(0);
    assert_eq!(seen.uri.to_string(), format!("http://{HOST}/pkg.Service/Method"));

    let policy = policy(&http1, "", "").replace("\"http2\"", "\"http1\"");
    let gateway = Portcullis::with(&policy).start();
    call(gateway.http(), &sent, b"hello", HeaderMap::new());
    let mut expected: Vec<_> = http1.only_request().headers;
    let changes = |name: &str| ["x-request-id", "traceparent"].contains(&name);
    expected.retain(|(name, _)| !["host", "transfer-encoding"].contains(&&**name) && !changes(name));
    expected.push(("te".to_owned(), "trailers".to_owned()));
    let mut found: Vec<_> = seen
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .filter(|(name, _)| !changes(name))
        .collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    assert!(found.contains(&("x-auth-subject".to_owned(), "ada".to_owned())));
}

#[test]
fn clients_of_http1_reach_http2_servers() {
    let server = serve(|_, call| echo_plain(call));
    let gateway = gateway(&server);
    for size in [0, 5, 100_000, 1 << 20] {
        let body: Vec<u8> = (0..=255).cycle().take(size).collect();
        let answer = Request::post("/x", &body).to(gateway.http());
        assert!(answer.complete && answer.is(200).body == body, "{size}");
        let seen = server.seen.lock().unwrap().pop().unwrap();
        assert_eq!(seen.headers["content-length"], *size.to_string());
    }
    assert_eq!(Request::get("/x?q=1").to(gateway.http()).is(200).text(), "");
    let seen = server.seen.lock().unwrap().pop().unwrap();
    assert_eq!(
        (seen.uri.path_and_query().unwrap().as_str(), seen.headers.get("content-length")),
        ("/x?q=1", None)
    );
    assert_eq!(server.connections.load(Ordering::SeqCst), 1, "the requests share a connection");
}

#[test]
fn answers_keep_their_lengths() {
    let server = serve(|number, (_, mut respond)| {
        Box::pin(async move {
            let (status, lengths, body): (u16, &[&str], &'static [u8]) = match number {
                0 => (200, &["5"], b"hello"),
                1 => (200, &["5"], b""),
                2 => (204, &[], b""),
                3 => (200, &["5", "5"], b"hello"),
                4 => (200, &["6"], b"hello"),
                _ => (304, &["7"], b""),
            };
            let mut response = Response::builder().status(status);
            for length in lengths {
                response = response.header("content-length", *length);
            }
            let response = response.body(()).unwrap();
            let mut stream = respond.send_response(response, body.is_empty()).unwrap();
            if !body.is_empty() {
                let _ = stream.send_data(Bytes::from_static(body), true);
            }
        })
    });
    let gateway = gateway(&server);
    let answer = Request::get("/x").to(gateway.http());
    assert_eq!((answer.status, &*answer.text(), answer.complete), (200, "hello", true));
    let answer = Request::new("HEAD", "/x").to(gateway.http());
    assert_eq!((answer.status, answer.header("content-length"), answer.complete), (200, Some("5"), true));
    let answer = Request::get("/x").to(gateway.http());
    assert_eq!((answer.status, answer.header("content-length"), answer.complete), (204, None, true));
    Request::get("/x").to(gateway.http()).is_refusal(502, "upstream_failed");
    let answer = Request::get("/x").to(gateway.http());
    assert!(!answer.complete || answer.status == 502, "{answer:?}");
    let answer = Request::get("/x").to(gateway.http());
    assert_eq!((answer.status, answer.complete), (304, true));
}

#[test]
fn trailers_pass_both_ways_without_identity() {
    let server = serve(|_, call| {
        let trailers =
            [("grpc-status", "0"), ("x-sum", "8"), ("set-cookie", "a=b"), ("x-auth-subject", "eve")];
        echo(call, map(&trailers))
    });
    let route = format!("{PUBLIC}request_trailers = [\"x-sum\"]\n");
    let gateway = Portcullis::with(&policy(&server, "", &route)).start();
    let sent = map(&[
        ("x-sum", "7"),
        ("x-other", "7"),
        ("x-auth-subject", "eve"),
        ("x_auth.roles", "admin"),
        ("authorization", "x"),
        ("cookie", "a=b"),
        ("x-forwarded-for", "1.2.3.4"),
    ]);
    let answer = call(gateway.http(), &GRPC, b"one", sent);
    assert_eq!(answer.trailers, map(&[("grpc-status", "0"), ("x-sum", "8"), ("echo-x-sum", "7")]));
}

/// The client of this test waits for the gateway, and not for its own deadline as a gRPC library would.
#[test]
fn the_gateway_ends_a_call_at_its_deadline() {
    let server = serve(|number, call| match number {
        0 => begin_call(call),
        _ => Box::pin(async move {
            let _held = call;
            std::future::pending::<()>().await;
        }),
    });
    let gateway = gateway(&server);
    let fields = [GRPC[0], GRPC[1], ("grpc-timeout", "300m")];
    let answer = call(gateway.http(), &fields, b"one", HeaderMap::new());
    assert_eq!(
        (&*answer.body, &answer.trailers["grpc-status"]),
        (&b"begun"[..], &HeaderValue::from_static("4"))
    );
    let answer = call(gateway.http(), &fields, b"one", HeaderMap::new());
    assert_eq!(answer.head.headers["grpc-status"], "4");
    assert_eq!(answer.head.headers["grpc-message"], "upstream_timeout");
    assert_eq!(server.seen.lock().unwrap()[1].headers["grpc-timeout"], "300m");
}

/// Otherwise a client could make the gateway open a connection for each of its calls.
#[test]
fn a_deadline_of_a_client_costs_no_connection() {
    let server = serve(|_, call| {
        Box::pin(async move {
            let _held = call;
            std::future::pending::<()>().await;
        })
    });
    let gateway = gateway(&server);
    for _ in 0..3 {
        let fields = [GRPC[0], GRPC[1], ("grpc-timeout", "50m")];
        let answer = call(gateway.http(), &fields, b"one", HeaderMap::new());
        assert_eq!(answer.head.headers["grpc-status"], "4");
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

/// The first request holds its stream. A server that is slow, but answers a PING, keeps its connection.
#[test]
fn a_connection_on_which_a_request_timed_out_stays_in_use_if_its_server_answers_a_ping() {
    let server = serve(|number, call| match number {
        0 => Box::pin(async move {
            let _held = call;
            std::future::pending::<()>().await;
        }),
        _ => echo_plain(call),
    });
    let gateway = Portcullis::with(&policy(&server, "timeout = \"300ms\"\n", PUBLIC)).start();
    Request::post("/x", "hello").to(gateway.http()).is_refusal(504, "upstream_timeout");
    for _ in 0..3 {
        Request::post("/x", "hello").to(gateway.http()).is(200);
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

/// The first connection is dead: its server sends its SETTINGS, and nothing after that.
#[test]
fn a_connection_whose_server_answers_no_ping_closes() {
    let server = serve(|_, call| echo_plain(call));
    let alive = server.address;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let front =
        Server { address: listener.local_addr().unwrap(), seen: Arc::default(), connections: Arc::default() };
    std::thread::spawn(move || {
        let (mut dead, _) = listener.accept().unwrap();
        dead.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).unwrap();
        while let Ok((client, _)) = listener.accept() {
            let server = std::net::TcpStream::connect(alive).unwrap();
            let pairs = [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)];
            for (mut from, mut to) in pairs {
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            }
        }
        drop(dead);
    });
    let gateway = Portcullis::with(&policy(&front, "timeout = \"300ms\"\n", PUBLIC)).start();
    Request::post("/x", "hello").to(gateway.http()).is_refusal(504, "upstream_timeout");
    eventually("a new connection is used", || Request::post("/x", "hello").to(gateway.http()).status == 200);
}

/// RFC 9110 section 6.4.1: these answers have no content. A client would take it for the beginning of another message.
#[test]
fn content_of_an_answer_that_has_none_does_not_reach_the_client() {
    let server = serve(|_, (request, mut respond)| {
        Box::pin(async move {
            let status = request.uri().path()[1..].parse().unwrap_or(200);
            let head = Response::builder().status(status).body(()).unwrap();
            if let Ok(mut stream) = respond.send_response(head, false) {
                let _ = stream.send_data(Bytes::from_static(b"HTTP/1.1 200 OK"), true);
            }
        })
    });
    let gateway = gateway(&server);
    for (method, path, status) in [("GET", "/204", 204), ("GET", "/304", 304), ("HEAD", "/200", 200)] {
        let mut frames = Frames::open(gateway.http());
        let head =
            [(":method", method), (":scheme", "http"), (":authority", "gateway.test"), (":path", path)];
        let flags = frame::END_HEADERS | frame::END_STREAM;
        frames.send(frame::HEADERS, flags, 1, &block(&head)).unwrap();
        loop {
            let next = frames.next().expect("the connection stays open");
            assert!(next.kind != frame::DATA || next.payload.is_empty(), "{method} {path}: {next:?}");
            if next.stream == 1 && next.flags & frame::END_STREAM != 0 {
                break;
            }
        }
        Request::new(method, path).to(gateway.http()).is(status);
    }
}

/// A server has not processed a stream that it refused (RFC 9113 section 8.7).
#[test]
fn a_refused_stream_is_sent_again_and_another_reset_is_not() {
    for (reason, size, count) in [
        (Reason::REFUSED_STREAM, 5, 2),
        (Reason::REFUSED_STREAM, 64 * 1024, 2),
        (Reason::REFUSED_STREAM, 64 * 1024 + 1, 1),
        (Reason::INTERNAL_ERROR, 5, 1),
        (Reason::NO_ERROR, 5, 1),
        (Reason::CANCEL, 5, 1),
    ] {
        let server = serve(move |number, (request, mut respond)| match number {
            0 => Box::pin(async move {
                let mut body = request.into_body();
                while let Some(Ok(data)) = body.data().await {
                    let _ = body.flow_control().release_capacity(data.len());
                }
                respond.send_reset(reason);
            }),
            _ => echo_plain((request, respond)),
        });
        let gateway = gateway(&server);
        let body = vec![b'x'; size];
        let answer = Request::post("/x", &body).to(gateway.http());
        assert_eq!(server.count(), count, "{reason:?}, {size} bytes: {answer:?}");
        match count {
            2 => assert!(answer.is(200).body == body),
            _ => drop(answer.is_refusal(502, "upstream_failed")),
        }
    }
}

#[test]
fn a_server_that_refuses_each_stream_is_asked_four_times() {
    let server =
        serve(|_, (_, mut respond)| Box::pin(async move { respond.send_reset(Reason::REFUSED_STREAM) }));
    let gateway = gateway(&server);
    Request::post("/x", "hello").to(gateway.http()).is_refusal(502, "upstream_failed");
    assert_eq!(server.count(), 4);
}

/// A server that is shutting down or overloaded refuses the repeated stream, too.
#[test]
fn a_refused_stream_is_sent_again_to_another_server() {
    let refusing =
        || serve(|_, (_, mut respond)| Box::pin(async move { respond.send_reset(Reason::REFUSED_STREAM) }));
    let (sick, worse, good) = (refusing(), refusing(), serve(|_, call| echo_plain(call)));
    let servers = format!("{sick}\", \"{worse}\", \"{good}");
    let gateway = Portcullis::with(&policy(&servers, "", PUBLIC)).start();
    for _ in 0..6 {
        assert_eq!(Request::post("/x", "hello").to(gateway.http()).is(200).text(), "hello");
    }
    assert_eq!([&sick, &worse, &good].map(Server::count), [2, 4, 6]);
    assert_eq!(gateway.metric("portcullis_upstream_retries_total{upstream=\"app\"}"), Some(6));

    let spent = "retry_percent = 0\nretry_floor = \"1/h\"";
    let gateway = Portcullis::with(&policy(&servers, spent, PUBLIC)).start();
    Request::post("/x", "hello").to(gateway.http()).is_refusal(502, "upstream_failed");
}

#[test]
fn a_server_that_replaces_its_connections_fails_no_request() {
    let server = serve_with(
        h2::server::Builder::new(),
        |_, call| echo_plain(call),
        |own, connection| {
            if own == 7 {
                connection.graceful_shutdown();
            }
        },
    );
    let gateway = gateway(&server);
    let address = gateway.http();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                for _ in 0..50 {
                    assert_eq!(Request::post("/x", "hello").to(address).is(200).text(), "hello");
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    assert_eq!(server.count(), 400, "no request came twice");
    assert!(server.connections.load(Ordering::SeqCst) >= 400 / 20);
}

/// Reads frames of a connection until `count` of them have this type.
pub(crate) fn read_frames(stream: &mut std::net::TcpStream, kind: u8, count: usize) {
    let mut left = count;
    while left > 0 {
        let mut head = [0; 9];
        stream.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        stream.read_exact(&mut vec![0; length]).unwrap();
        left -= usize::from(head[3] == kind);
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// GOAWAY names the last stream that the server has processed (RFC 9113 section 6.8). The server of this test has
/// processed the first of three POSTs, and answers it after GOAWAY.
#[test]
fn goaway_repeats_the_streams_that_it_excludes_and_no_other() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = requests.clone();
    let server = std::thread::spawn(move || {
        let mut held = Vec::new();
        for (goes_away, count) in [(true, 3), (false, 2)] {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.read_exact(&mut [0; 24]).unwrap();
            stream.write_all(&frame(4, 0, 0, &[])).unwrap();
            read_frames(&mut stream, 1, count);
            seen.lock().unwrap().push(count);
            if goes_away {
                stream.write_all(&frame(7, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0])).unwrap();
            }
            for number in 0..if goes_away { 1 } else { count } {
                let id = 1 + 2 * u32::try_from(number).unwrap();
                // HPACK's static entry 8 is `:status: 200`.
                stream.write_all(&frame(1, 5, id, &[0x88])).unwrap();
            }
            held.push(stream);
        }
        held
    });
    let gateway = Portcullis::with(&policy(&format!("http://{address}"), "", PUBLIC)).start();
    let http = gateway.http();
    let clients: Vec<_> =
        (0..3).map(|_| std::thread::spawn(move || Request::post("/x", "hello").to(http).status)).collect();
    let statuses: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    assert_eq!(statuses, [200, 200, 200]);
    assert_eq!(*requests.lock().unwrap(), [3, 2]);
    server.join().unwrap();
}

/// A server that closes the connection without GOAWAY may have processed the request.
#[test]
fn a_lost_connection_repeats_a_get_once_and_a_post_never() {
    for (method, count) in [("GET", 2), ("POST", 1)] {
        let server = serve_with(
            h2::server::Builder::new(),
            |_, call| {
                Box::pin(async move {
                    let _held = call;
                    std::future::pending::<()>().await;
                })
            },
            |_, connection| connection.abrupt_shutdown(Reason::NO_ERROR),
        );
        let gateway = gateway(&server);
        let answer = Request::new(method, "/x").to(gateway.http());
        answer.is_refusal(502, "upstream_failed");
        assert_eq!(server.count(), count, "{method}");
    }
}

/// The client must not take a part of an answer for the whole.
#[test]
fn an_answer_that_is_cut_off_does_not_look_whole() {
    for reason in [Reason::NO_ERROR, Reason::CANCEL, Reason::REFUSED_STREAM, Reason::INTERNAL_ERROR] {
        let server = serve(move |_, (request, mut respond)| {
            Box::pin(async move {
                let mut stream = respond.send_response(Response::new(()), false).unwrap();
                stream.send_data(Bytes::from_static(b"part"), false).unwrap();
                // The data is written before the reset drops it.
                tokio::time::sleep(Duration::from_millis(50)).await;
                drop(request);
                stream.send_reset(reason);
            })
        });
        let gateway = gateway(&server);
        let answer = Request::get("/x").to(gateway.http());
        assert!(!answer.complete, "{reason:?}: {answer:?}");
        let line = gateway.access_line(&answer);
        assert_eq!((&line["complete"], &line["level"]), (&false.into(), &"warn".into()), "{line}");
        let answer = call(gateway.http(), &[], b"", HeaderMap::new());
        assert_eq!(answer.reset, Some(Reason::INTERNAL_ERROR), "{reason:?}");
        assert_eq!(server.count(), 2, "{reason:?}");
    }
}

/// Some HTTP/1.1 clients do not compare the bytes with the length (findings/half-a-download-that-looks-whole.sh).
#[test]
fn an_answer_with_a_length_that_is_cut_off_ends_with_a_reset_over_http_1() {
    for length in [None, Some("10")] {
        let server = serve(move |_, (request, mut respond)| {
            Box::pin(async move {
                let mut response = Response::builder();
                if let Some(length) = length {
                    response = response.header("content-length", length);
                }
                let mut stream = respond.send_response(response.body(()).unwrap(), false).unwrap();
                stream.send_data(Bytes::from_static(b"part"), false).unwrap();
                // The data is written before the reset drops it.
                tokio::time::sleep(Duration::from_millis(50)).await;
                drop(request);
                stream.send_reset(Reason::INTERNAL_ERROR);
            })
        });
        let gateway = gateway(&server);
        let mut connection = crate::kit::Connection::open(gateway.http());
        connection.send(Request::get("/x").bytes());
        assert_eq!(connection.read_head().expect("the head comes").status, 200);
        assert_eq!(connection.is_reset(), length.is_some(), "{length:?}");
    }
}

/// The server asks the client to stop after a whole answer (RFC 9113 section 8.1).
#[test]
fn a_whole_answer_passes_although_its_server_stops_the_upload() {
    let server = serve(|_, (request, mut respond)| {
        Box::pin(async move {
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            stream.send_data(Bytes::from_static(b"enough"), true).unwrap();
            drop((request, stream));
        })
    });
    let gateway = gateway(&server);
    let answer = Request::post("/x", vec![b'x'; 4 << 20]).to(gateway.http());
    assert_eq!((answer.status, &*answer.text(), answer.complete), (200, "enough", true));
}

#[test]
fn a_server_that_allows_one_stream_gets_one_request_at_a_time() {
    let mut settings = h2::server::Builder::new();
    settings.max_concurrent_streams(1);
    let server = serve_with(settings, |_, call| echo_plain(call), |_, _| {});
    let gateway = Portcullis::with(&policy(&server, "connections = 1\n", PUBLIC)).start();
    let address = gateway.http();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                for _ in 0..10 {
                    assert_eq!(Request::post("/x", "hello").to(address).is(200).text(), "hello");
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
}

/// More requests than one connection has streams.
#[test]
fn requests_beyond_the_streams_of_a_connection_get_another_one() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let held = gate.clone();
    let server = serve(move |_, call| {
        let held = held.clone();
        Box::pin(async move {
            let _open = held.acquire().await;
            echo_plain(call).await;
        })
    });
    let policy = policy(&server, "", PUBLIC);
    let gateway = Portcullis::with(&policy).start();
    let address = gateway.http();
    let clients: Vec<_> = (0..150)
        .map(|_| std::thread::spawn(move || Request::post("/x", "hello").to(address).status))
        .collect();
    eventually("all requests arrive", || server.count() == 150);
    assert_eq!(server.connections.load(Ordering::SeqCst), 2);
    gate.close();
    assert!(clients.into_iter().all(|client| client.join().unwrap() == 200));
}

#[test]
fn a_slow_client_stops_no_other() {
    let server = serve(|_, (request, mut respond)| {
        Box::pin(async move {
            let size: usize = request.uri().path()[1..].parse().unwrap();
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            let _ = stream.send_data(Bytes::from(vec![b'x'; size]), true);
        })
    });
    let policy = policy(&server, "", PUBLIC);
    let gateway = Portcullis::with(&policy).start();
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut connection = crate::kit::Connection::open(gateway.http());
        connection.send(Request::get("/50000000").bytes());
        connection.read_head().unwrap();
        slow.push(connection);
    }
    for _ in 0..3 {
        assert_eq!(Request::get("/1000000").to(gateway.http()).is(200).body.len(), 1_000_000);
    }
    assert!(gateway.peak_memory() < 200 << 20, "{} bytes", gateway.peak_memory());
}

#[test]
fn an_http1_server_and_a_head_that_is_too_large_are_failures() {
    let http1 = Upstream::start();
    let policy = policy(&http1, "", PUBLIC);
    let gateway = Portcullis::with(&policy).start();
    Request::get("/x").to(gateway.http()).is_refusal(502, "upstream_failed");

    let server = serve(|_, (_, mut respond)| {
        Box::pin(async move {
            let mut response = Response::new(());
            for number in 0..200 {
                let name: http::HeaderName = format!("x-{number}").parse().unwrap();
                response.headers_mut().insert(name, HeaderValue::from_bytes(&[b'x'; 1000]).unwrap());
            }
            let _ = respond.send_response(response, true);
        })
    });
    let gateway = self::gateway(&server);
    Request::get("/x").to(gateway.http()).is_refusal(502, "upstream_failed");
    assert_eq!(server.count(), 1);
}

#[test]
fn a_reload_changes_the_protocol() {
    let server = serve(|_, call| echo_plain(call));
    let http2 = policy(&server, "", PUBLIC);
    let gateway = Portcullis::with(&http2.replace("\"http2\"", "\"http1\"")).start();
    Request::post("/x", "hello").to(gateway.http()).is_refusal(502, "upstream_failed");
    gateway.dir().replace("gateway.toml", completed(&http2));
    reload(&gateway).is(200);
    assert_eq!(Request::post("/x", "hello").to(gateway.http()).is(200).text(), "hello");
}
