//! The order to stop, while clients and load balancers do not know of it yet.

use crate::kit::http2::{Frames, Verdict, block, frame};
use crate::kit::upstream::{After, Gate};
use crate::kit::{Connection, PATIENCE, Portcullis, Request, Upstream, eventually};
use crate::{PUBLIC, gateway, policy};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "gateway.test"), (":path", "/")];
const WHOLE: u8 = frame::END_STREAM | frame::END_HEADERS;

/// Twenty connections send requests shortly after SIGTERM. nginx answers all of them in this case.
#[test]
fn requests_that_are_on_their_way_at_the_order_to_stop_are_answered() {
    let upstream = Upstream::start();
    let mut gateway =
        Portcullis::with(&format!("[server]\nhttps = \"127.0.0.1:0\"\n{}", policy(&upstream, PUBLIC)))
            .start();
    let mut connections: Vec<_> = (0..20)
        .map(|number| match number % 4 {
            0 => Connection::tls(gateway.https()),
            _ => Connection::open(gateway.http()),
        })
        .collect();
    // Ten of the connections have been used before, and are idle.
    for connection in connections.iter_mut().skip(10) {
        Request::get("/").over(connection).is(200);
    }
    eventually("all are accepted", || {
        gateway.metric("portcullis_connections_open").is_some_and(|open| open == 20)
    });
    gateway.signal("TERM");
    eventually("it drains", || Request::get("/readyz").to(gateway.admin()).status == 503);
    for connection in &mut connections {
        connection.send(Request::get("/").bytes());
    }
    for (number, connection) in connections.iter_mut().enumerate() {
        let answer = connection.try_answer("GET").unwrap_or_else(|| panic!("no answer on {number}"));
        assert_eq!(answer.is(200).header("connection"), Some("close"), "{number}");
        connection.is_closed();
    }
    assert_eq!(gateway.exit_code(), Some(0));
}

/// The kernel resets the connections in the queue of a socket that closes. A load balancer does not send their requests
/// again, because the connections were open.
#[test]
fn each_connection_that_was_open_before_the_socket_closed_is_answered() {
    let upstream = Upstream::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    for round in 0..6 {
        let policy = format!("[server]\nworkers = 2\n{}", policy(&upstream, PUBLIC));
        let mut gateway = Portcullis::with(&policy).start();
        let address = gateway.http();
        let clients: Vec<_> = (0..12).map(|_| std::thread::spawn(move || hammer(address))).collect();
        let requests = || gateway.metric("portcullis_connections_total").unwrap_or_default();
        eventually("there is load", || requests() > 200);
        gateway.signal("TERM");
        for client in clients {
            let lost = client.join().unwrap();
            assert_eq!(lost, None, "round {round}");
        }
        assert_eq!(gateway.exit_code(), Some(0));
    }
}

/// Opens one connection after the other, with a request each, until the gateway refuses one. Returns the error of the
/// first request without an answer.
fn hammer(address: SocketAddr) -> Option<String> {
    loop {
        let mut stream = match TcpStream::connect(address) {
            Ok(stream) => stream,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return None,
            Err(error) => return Some(format!("connect: {error}")),
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = [0; 12];
        let exchanged =
            stream.write_all(&Request::get("/").bytes()).and_then(|()| stream.read_exact(&mut answer));
        match exchanged {
            Ok(()) if answer == *b"HTTP/1.1 200" => {}
            Ok(()) => return Some(format!("answer: {}", answer.escape_ascii())),
            Err(error) => return Some(format!("exchange: {error}")),
        }
    }
}

/// The next request may be in transit when the answer ends, because its head announced no `close`.
#[test]
fn a_connection_whose_answer_began_before_the_order_to_stop_serves_another_request() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::with(move |seen, wire| {
        if seen.target == "/second" {
            wire.answer("200 OK", "", "second");
            return After::Keep;
        }
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nfir");
        held.wait();
        wire.send("st!");
        After::Keep
    });
    let mut gateway = gateway(&upstream, PUBLIC);
    let mut connection = Connection::open(gateway.http());
    connection.send(Request::get("/first").bytes());
    let head = connection.read_head().expect("the head arrives before the order to stop");
    assert_eq!(head.header("connection"), None);
    assert_eq!(connection.take(3), b"fir");
    gateway.signal("TERM");
    eventually("it drains", || Request::get("/readyz").to(gateway.admin()).status == 503);
    let address = gateway.http();
    eventually("the socket is closed", || {
        TcpStream::connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    connection.send(Request::get("/second").bytes());
    gate.open();
    assert_eq!(connection.take(3), b"st!");
    let answer = connection.answer();
    assert_eq!(answer.is(200).text(), "second");
    assert_eq!(answer.header("connection"), Some("close"));
    connection.is_closed();
    assert_eq!(gateway.exit_code(), Some(0));
}

/// A reset could destroy an answer that the client has received and not yet read.
#[test]
fn a_frame_that_arrives_after_the_end_of_an_http_2_connection_does_not_reset_it() {
    let upstream = Upstream::start();
    let mut gateway = gateway(&upstream, PUBLIC);
    let mut frames = Frames::open(gateway.http());
    frames.send(frame::HEADERS, WHOLE, 1, &block(&GET)).unwrap();
    assert_eq!(frames.verdict(1), Verdict::Status(200));
    let mut writer = frames.writer();
    gateway.signal("TERM");
    while let Some(received) = frames.next() {
        // The gateway waits for the answer to its PING before it sends the last GOAWAY.
        if received.kind == frame::PING && received.flags & frame::ACK == 0 {
            writer.send(frame::PING, frame::ACK, 0, &received.payload).unwrap();
        }
    }
    for _ in 0..3 {
        // The kernel would report the reset that the previous frame caused.
        writer
            .send(frame::WINDOW_UPDATE, 0, 0, &1000_u32.to_be_bytes())
            .expect("the connection is not reset");
    }
    drop((frames, writer));
    assert_eq!(gateway.exit_code(), Some(0));
}

/// A server whose answer to `/held` waits for the gate.
fn holding(gate: &Gate) -> Upstream {
    let gate = gate.clone();
    Upstream::with(move |seen, wire| {
        if seen.target == "/held" {
            gate.wait();
        }
        wire.answer("200 OK", "", "whole");
        After::Keep
    })
}

/// Sends a GET without a body.
fn ask(frames: &mut Frames, stream: u32, path: &str) {
    let mut head = GET;
    head[3].1 = path;
    frames.send(frame::HEADERS, WHOLE, stream, &block(&head)).unwrap();
}

/// Waits until the gateway stops: its cores have the order.
fn stop_begins(gateway: &Portcullis) {
    gateway.signal("TERM");
    let address = gateway.http();
    eventually("the socket is closed", || TcpStream::connect(address).is_err());
}

/// httpx 0.28 and undici 7 fail the requests in progress when they receive GOAWAY, although it includes them.
#[test]
fn goodbye_over_http_2_follows_the_answers_in_progress() {
    let gate = Gate::new();
    let upstream = holding(&gate);
    let mut gateway = gateway(&upstream, PUBLIC);
    let mut frames = Frames::open(gateway.http());
    ask(&mut frames, 1, "/first");
    assert_eq!(frames.verdict(1), Verdict::Status(200));
    ask(&mut frames, 3, "/held");
    eventually("the request is in progress", || upstream.requests().len() == 2);
    stop_begins(&gateway);
    gate.open();
    assert_eq!(frames.verdict(3), Verdict::Status(200), "no goodbye before the last answer");
    let mut before = std::iter::from_fn(|| frames.next()).take_while(|it| it.kind != frame::GOAWAY);
    let is_whole = before.any(|it| it.stream == 3 && it.flags & frame::END_STREAM != 0);
    assert!(is_whole, "no goodbye before the end of the last answer");
    drop(frames);
    assert_eq!(gateway.exit_code(), Some(0));
}

#[test]
fn a_client_of_http_2_that_never_pauses_gets_goodbye_with_a_later_request() {
    let gate = Gate::new();
    let upstream = holding(&gate);
    let mut gateway = gateway(&upstream, PUBLIC);
    let mut frames = Frames::open(gateway.http());
    ask(&mut frames, 1, "/held");
    eventually("the request is in progress", || upstream.requests().len() == 1);
    let begun = Instant::now();
    stop_begins(&gateway);
    let mut stream = 1;
    loop {
        stream += 2;
        ask(&mut frames, stream, "/");
        if frames.verdict(stream) == Verdict::Goodbye {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "no goodbye");
    }
    assert!(begun.elapsed() >= Duration::from_millis(1700), "{:?}", begun.elapsed());
    // All requests until then are answered.
    gate.open();
    let mut answered = Vec::new();
    while answered.len() < 2 {
        let next = frames.next().expect("the answers follow");
        if next.kind == frame::HEADERS {
            answered.push(next.stream);
        }
    }
    answered.sort_unstable();
    assert_eq!(answered, [1, stream]);
    drop(frames);
    assert_eq!(gateway.exit_code(), Some(0));
}

/// RFC 9113 section 6.8: a server sends GOAWAY before it closes.
#[test]
fn goodbye_over_http_2_comes_before_the_end_of_the_drain() {
    let gate = Gate::new();
    let upstream = holding(&gate);
    let policy = format!("[server]\ndrain = \"1s\"\n{}", policy(&upstream, PUBLIC));
    let mut gateway = Portcullis::with(&policy).start();
    let mut frames = Frames::open(gateway.http());
    ask(&mut frames, 1, "/held");
    eventually("the request is in progress", || upstream.requests().len() == 1);
    gateway.signal("TERM");
    assert_eq!(frames.verdict(1), Verdict::Goodbye);
    assert!(std::iter::from_fn(|| frames.next()).all(|it| it.kind != frame::HEADERS));
    gate.open();
    assert_eq!(gateway.exit_code(), Some(0));
}

/// RFC 9112 section 9.6, RFC 9113 section 6.8.
#[test]
fn between_not_ready_and_closed_everything_is_served() {
    let upstream = Upstream::start();
    let policy = format!("[server]\ndrain_delay = \"6s\"\n{}", policy(&upstream, PUBLIC));
    let mut gateway = Portcullis::with(&policy).start();
    let mut idle = Connection::open(gateway.http());
    Request::get("/").over(&mut idle).is(200);
    let mut frames = Frames::open(gateway.http());
    frames.send(frame::HEADERS, WHOLE, 1, &block(&GET)).unwrap();
    assert_eq!(frames.verdict(1), Verdict::Status(200));
    let begun = Instant::now();
    gateway.signal("TERM");
    eventually("it is not ready", || Request::get("/readyz").to(gateway.admin()).status == 503);
    assert!(begun.elapsed() < Duration::from_secs(4), "at once: {:?}", begun.elapsed());
    // All of these are served: a connection that was already open, a new connection, and an HTTP/2 connection.
    for connection in [&mut idle, &mut Connection::open(gateway.http())] {
        eventually("answers say that they are the last", || {
            // The order reaches the cores a moment after it reaches the admin listener.
            let mut fresh = Connection::open(gateway.http());
            Request::get("/").over(&mut fresh).is(200).header("connection") == Some("close")
        });
        assert_eq!(Request::get("/").over(connection).is(200).header("connection"), Some("close"));
        connection.is_closed();
    }
    frames.send(frame::HEADERS, WHOLE, 3, &block(&GET)).unwrap();
    assert_eq!(frames.verdict(3), Verdict::Status(200), "no goodbye yet");
    assert!(begun.elapsed() < Duration::from_secs(6), "the machine is too slow for this test");
    while frames.next().expect("goodbye before the end").kind != frame::GOAWAY {}
    assert!(begun.elapsed() >= Duration::from_secs(6), "{:?}", begun.elapsed());
    let address = gateway.http();
    eventually("new connections are refused", || TcpStream::connect(address).is_err());
    assert_eq!(gateway.exit_code(), Some(0));
}

#[test]
fn a_second_signal_ends_the_delay_too() {
    let upstream = Upstream::start();
    let policy = format!("[server]\ndrain_delay = \"10m\"\n{}", policy(&upstream, PUBLIC));
    let mut gateway = Portcullis::with(&policy).start();
    gateway.signal("TERM");
    eventually("it is not ready", || Request::get("/readyz").to(gateway.admin()).status == 503);
    Request::get("/").to(gateway.http()).is(200);
    gateway.signal("TERM");
    assert_eq!(gateway.exit_code(), Some(143));
}

#[test]
fn a_client_of_http_2_that_ignores_the_goodbye_does_not_hold_up_the_end() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, PUBLIC);
    let mut frames = Frames::open(gateway.http());
    frames.send(frame::HEADERS, WHOLE, 1, &block(&GET)).unwrap();
    assert_eq!(frames.verdict(1), Verdict::Status(200));
    let begun = Instant::now();
    gateway.stop();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
