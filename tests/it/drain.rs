//! The drain: requests in progress finish, and no new requests begin.

use crate::kit::upstream::{After, Gate};
use crate::kit::{Connection, Portcullis, Request, Upstream, eventually};
use crate::{PUBLIC, gateway, policy};
use std::net::TcpStream;
use std::time::{Duration, Instant};

#[test]
fn a_request_in_flight_is_finished_and_then_the_gateway_ends_well() {
    for signal in ["TERM", "INT"] {
        let gate = Gate::new();
        let upstream = Upstream::held_by(&gate);
        let mut gateway = gateway(&upstream, PUBLIC);
        let mut connection = Connection::open(gateway.http());
        connection.send(Request::get("/").bytes());
        upstream.wait_for_requests(1);
        gateway.signal(signal);
        let address = gateway.http();
        eventually("new connections are refused", || TcpStream::connect(address).is_err());
        gate.open();
        let answer = connection.answer();
        assert_eq!(answer.is(200).text(), "late");
        connection.is_closed();
        assert_eq!(gateway.exit_code(), Some(0), "{signal}");
        assert!(
            gateway.log_text().contains(answer.header("x-request-id").unwrap()),
            "its access line was written"
        );
    }
}

#[test]
fn idle_connections_do_not_hold_up_the_end() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, PUBLIC);
    let mut idle: Vec<_> = (0..5).map(|_| Connection::open(gateway.http())).collect();
    for connection in idle.iter_mut().skip(1) {
        Request::get("/").over(connection).is(200);
    }
    let begun = Instant::now();
    gateway.stop();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    for connection in &mut idle {
        connection.is_closed();
    }
}

#[test]
fn a_request_that_outlasts_the_drain_is_cut_off() {
    let gate = Gate::new();
    let upstream = Upstream::held_by(&gate);
    let gateway =
        Portcullis::with(&format!("[server]\ndrain = \"1s\"\n{}", policy(&upstream, PUBLIC))).start();
    let mut connection = Connection::open(gateway.http());
    connection.send(Request::get("/").bytes());
    upstream.wait_for_requests(1);
    let begun = Instant::now();
    gateway.stop();
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(8), "{took:?}");
    assert!(connection.try_answer("GET").is_none());
    gate.open();
}

/// The client must not take the beginning of an answer for the whole one (findings/half-a-download-that-looks-whole.sh).
#[test]
fn an_answer_that_outlasts_the_drain_ends_with_a_reset() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::with(move |_, wire| {
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf ");
        held.wait();
        After::Close
    });
    let gateway =
        Portcullis::with(&format!("[server]\ndrain = \"1s\"\n{}", policy(&upstream, PUBLIC))).start();
    let mut connection = Connection::open(gateway.http());
    connection.send(Request::get("/").bytes());
    assert_eq!(connection.read_head().expect("the head comes").status, 200);
    gateway.stop();
    assert!(connection.is_reset());
    gate.open();
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let gate = Gate::new();
    let upstream = Upstream::held_by(&gate);
    let policy = format!("[server]\ndrain = \"10m\"\n{}", policy(&upstream, PUBLIC));
    let mut gateway = Portcullis::with(&policy).start();
    let mut connection = Connection::open(gateway.http());
    connection.send(Request::get("/").bytes());
    upstream.wait_for_requests(1);
    gateway.signal("TERM");
    eventually("it drains", || Request::get("/readyz").to(gateway.admin()).status == 503);
    gateway.signal("TERM");
    gateway.exit_code();
    assert!(connection.try_answer("GET").is_none());
    gate.open();
}
