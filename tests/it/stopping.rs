//! The order to stop, while clients and load balancers do not know of it yet.

use crate::kit::http2::{Frames, Verdict, block, frame};
use crate::kit::{Connection, Portcullis, Request, Upstream, eventually};
use crate::{PUBLIC, gateway, policy};
use std::net::TcpStream;
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

/// RFC 9112 section 9.6, RFC 9113 section 6.8.
#[test]
fn between_not_ready_and_closed_everything_is_served() {
    let upstream = Upstream::start();
    let policy = format!("[server]\ndrain_delay = \"2s\"\n{}", policy(&upstream, PUBLIC));
    let mut gateway = Portcullis::with(&policy).start();
    let mut idle = Connection::open(gateway.http());
    Request::get("/").over(&mut idle).is(200);
    let mut frames = Frames::open(gateway.http());
    frames.send(frame::HEADERS, WHOLE, 1, &block(&GET)).unwrap();
    assert_eq!(frames.verdict(1), Verdict::Status(200));
    let begun = Instant::now();
    gateway.signal("TERM");
    eventually("it is not ready", || Request::get("/readyz").to(gateway.admin()).status == 503);
    assert!(begun.elapsed() < Duration::from_secs(1), "at once: {:?}", begun.elapsed());
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
    assert!(begun.elapsed() < Duration::from_secs(2), "the machine is too slow for this test");
    while frames.next().expect("goodbye before the end").kind != frame::GOAWAY {}
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
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
