//! Idle connections are parked: they release their buffers, and nobody else can tell.

use crate::kit::upstream::After;
use crate::kit::{Connection, Portcullis, Request, Upstream, eventually, token};
use crate::{PUBLIC, encrypted, policy, reload};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// All connections are on one core, so that they are parked in the order in which they became idle.
fn one_core(upstream: &Upstream, bounds: &str, routes: &str) -> Portcullis {
    let server = "[server]\nhttps = \"127.0.0.1:0\"\nworkers = 1";
    let bounds = format!("[server.bounds]\n{bounds}");
    Portcullis::with(&policy(upstream, &format!("{server}\n{bounds}\n{routes}"))).start()
}

fn parked(gateway: &Portcullis) -> u64 {
    gateway.metric("portcullis_connections_parked").expect("the gauge is there from the start")
}

#[track_caller]
fn wait_until_parked(gateway: &Portcullis, count: u64) {
    eventually("the idle connections are parked", || parked(gateway) == count);
}

/// Waits until the sweep has seen all older connections as idle. Returns a connection that is parked meanwhile.
#[track_caller]
fn after_parking(gateway: &Portcullis) -> Connection {
    let mut later = Connection::open(gateway.http());
    Request::get("/later").over(&mut later).is(200);
    eventually("a later connection is parked", || parked(gateway) > 0);
    later
}

/// Returns a connection that has served a request and is parked, alone.
#[track_caller]
fn one_parked(gateway: &Portcullis, open: fn(&Portcullis) -> Connection) -> Connection {
    let mut connection = open(gateway);
    Request::get("/").over(&mut connection).is(200);
    wait_until_parked(gateway, 1);
    connection
}

/// Waits until no connection is open.
#[track_caller]
fn wait_until_closed(gateway: &Portcullis) {
    eventually("all connections are closed", || gateway.metric("portcullis_connections_open") == Some(0));
}

/// Opens a connection in cleartext, and one over TLS.
const EACH: [fn(&Portcullis) -> Connection; 2] =
    [|gateway| Connection::open(gateway.http()), |gateway| Connection::tls(gateway.https())];

/// One connection in cleartext and one over TLS.
fn both(gateway: &Portcullis) -> [Connection; 2] {
    EACH.map(|open| open(gateway))
}

#[test]
fn parked_connections_are_counted_as_open_and_serve_the_next_request() {
    let upstream = Upstream::start();
    let gateway = one_core(&upstream, "", PUBLIC);
    let mut connections: Vec<_> = (0..5).flat_map(|_| both(&gateway)).collect();
    for round in 0..2 {
        for (number, connection) in connections.iter_mut().enumerate() {
            Request::post(&format!("/{round}/{number}"), "body").over(connection).is(200);
            assert_eq!(upstream.last_request().target, format!("/{round}/{number}"));
        }
        wait_until_parked(&gateway, 10);
        assert_eq!(gateway.metric("portcullis_connections_open"), Some(10));
    }
    assert_eq!(upstream.requests().len(), 20);
    drop(connections);
    wait_until_closed(&gateway);
    assert_eq!(parked(&gateway), 0);
}

#[test]
fn a_head_in_pieces_wakes_a_parked_connection() {
    let upstream = Upstream::start();
    let gateway = one_core(&upstream, "", PUBLIC);
    let mut connections = both(&gateway);
    for connection in &mut connections {
        Request::get("/").over(connection).is(200);
    }
    wait_until_parked(&gateway, 2);
    let pieces = ["G", "ET /pieces HT", "TP/1.1\r\nHost: gateway.test\r\nX-Piece: 1\r", "\n\r\n"];
    for (index, piece) in pieces.into_iter().enumerate() {
        for connection in &mut connections {
            connection.send(piece);
        }
        if index == 0 {
            wait_until_parked(&gateway, 0);
        }
    }
    for connection in &mut connections {
        connection.answer().is(200);
        assert_eq!(upstream.last_request().header("x-piece"), Some("1"));
    }
}

#[test]
fn half_a_pipelined_request_is_kept_while_the_connection_is_idle() {
    let upstream = Upstream::start();
    let gateway = one_core(&upstream, "", PUBLIC);
    for open in EACH {
        let mut connection = open(&gateway);
        let two = [Request::get("/one").bytes(), Request::post("/two", "the body").bytes()].concat();
        let (first, rest) = two.split_at(Request::get("/one").bytes().len() + 25);
        connection.send(first);
        connection.answer().is(200);
        let later = after_parking(&gateway);
        assert_eq!(parked(&gateway), 1, "only the later one: half a head is not idle");
        connection.send(rest);
        connection.answer().is(200);
        let request = upstream.last_request();
        assert_eq!((&*request.target, &request.body[..]), ("/two", &b"the body"[..]));
        wait_until_parked(&gateway, 2);
        drop((connection, later));
        wait_until_parked(&gateway, 0);
    }
}

#[test]
fn many_pipelined_requests_wake_a_parked_connection() {
    let upstream = Upstream::start();
    let gateway = one_core(&upstream, "", PUBLIC);
    for open in EACH {
        let mut connection = one_parked(&gateway, open);
        connection
            .send((0..20).flat_map(|number| Request::get(&format!("/{number}")).bytes()).collect::<Vec<_>>());
        for number in 0..20 {
            connection.answer().is(200);
            assert!(upstream.requests().iter().any(|request| request.target == format!("/{number}")));
        }
        drop(connection);
        wait_until_parked(&gateway, 0);
    }
}

/// The rest of a body that the gateway refused to read arrives when other connections are parked.
#[test]
fn the_rest_of_a_refused_body_is_no_request() {
    let upstream = Upstream::start();
    let routes = format!("[[route]]\npath = \"/guarded\"\nupstream = \"app\"\n{PUBLIC}");
    let gateway = one_core(&upstream, "", &routes);
    let smuggled = Request::get("/smuggled").bytes();
    let length = format!("Content-Length: {}\r\n\r\n12345", smuggled.len() + 5);
    let chunked = format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n12345", smuggled.len() + 5);
    for framing in [length, chunked] {
        for open in EACH {
            let mut connection = open(&gateway);
            connection.send(format!("POST /guarded HTTP/1.1\r\nHost: gateway.test\r\n{framing}"));
            connection.answer().is_refusal(401, "missing_token");
            let later = after_parking(&gateway);
            assert_eq!(parked(&gateway), 1, "a connection with an unread body is not idle");
            let _ = connection.try_send(&smuggled);
            let _ = connection.try_send(Request::get("/next").bytes());
            if let Some(answer) = connection.try_answer("GET") {
                answer.is(200);
                assert_eq!(upstream.last_request().target, "/next");
            }
            drop((connection, later));
            wait_until_closed(&gateway);
        }
    }
    assert!(upstream.requests().iter().all(|request| request.target != "/smuggled"));
}

/// The upstream answers before it has the body. The gateway continues to send the rest to it.
#[test]
fn the_rest_of_a_body_that_was_answered_early_is_no_request() {
    let upstream = Upstream::with(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly");
        wire.peer_left();
        After::Close
    });
    let gateway = one_core(&upstream, "", PUBLIC);
    let smuggled = Request::get("/smuggled").bytes();
    for open in EACH {
        let mut connection = open(&gateway);
        let length = smuggled.len() + 5;
        connection.send(format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n12345"));
        assert_eq!(connection.answer().is(200).text(), "early");
        let _ = connection.try_send(&smuggled);
        connection.is_closed();
    }
    assert!(upstream.requests().iter().all(|request| request.target != "/smuggled"));
}

#[test]
fn a_response_that_its_client_does_not_read_is_not_dropped() {
    const BYTES: usize = 16 << 20;
    let upstream = Upstream::with(|request, wire| {
        let body = if request.target == "/later" { vec![b'y'; 2] } else { vec![b'x'; BYTES] };
        wire.answer("200 OK", "", &body);
        After::Keep
    });
    let gateway = one_core(&upstream, "", PUBLIC);
    for open in EACH {
        let mut connection = open(&gateway);
        connection.send(Request::get("/large").bytes());
        let later = after_parking(&gateway);
        assert_eq!(parked(&gateway), 1, "a connection with unsent output is not idle");
        let answer = connection.answer();
        assert!(answer.is(200).body == vec![b'x'; BYTES]);
        wait_until_parked(&gateway, 2);
        drop((connection, later));
        wait_until_parked(&gateway, 0);
    }
}

#[test]
fn a_client_that_closes_its_half_closes_a_parked_connection() {
    let upstream = Upstream::start();
    let gateway = one_core(&upstream, "", PUBLIC);
    for open in EACH {
        let mut connection = one_parked(&gateway, open);
        connection.finish();
        connection.is_closed();
        wait_until_closed(&gateway);
    }
}

#[test]
fn the_last_request_of_a_client_that_closed_its_half_is_answered() {
    let upstream = Upstream::start();
    let gateway = one_core(&upstream, "", PUBLIC);
    for open in EACH {
        let mut connection = one_parked(&gateway, open);
        connection.send(Request::get("/last").bytes());
        eventually("the request is forwarded", || upstream.last_request().target == "/last");
        connection.answer().is(200);
        connection.finish();
        connection.is_closed();
        wait_until_closed(&gateway);
    }
}

#[test]
fn the_deadlines_hold_while_connections_are_parked() {
    let upstream = Upstream::start();
    let gateway = one_core(&upstream, "header_timeout = \"2s\"\nidle_timeout = \"3s\"", PUBLIC);
    let timeouts = |waited_for: &str| {
        gateway.metric(&format!("portcullis_connection_timeouts_total{{waited_for=\"{waited_for}\"}}"))
    };
    // The third one completes its TLS handshake and sends no request.
    let [mut plain, mut encrypted] = both(&gateway);
    let mut unused = Connection::tls(gateway.https());
    let begun = Instant::now();
    for connection in [&mut plain, &mut encrypted] {
        Request::get("/").over(connection).is(200);
    }
    wait_until_parked(&gateway, 3);
    unused.is_closed();
    assert!(begun.elapsed() >= Duration::from_secs(1) && timeouts("idle") == Some(1));
    for connection in [&mut plain, &mut encrypted] {
        connection.is_closed();
    }
    assert!(begun.elapsed() >= Duration::from_secs(3), "never early");
    eventually("they are counted", || timeouts("idle") == Some(3));
    assert_eq!((parked(&gateway), gateway.metric("portcullis_connections_open")), (0, Some(0)));

    for open in EACH {
        let mut connection = one_parked(&gateway, open);
        let begun = Instant::now();
        connection.send("GET / HTTP/1.1\r\n");
        connection.answer().is_refusal(408, "request_timeout");
        assert!(begun.elapsed() >= Duration::from_secs(2), "never early");
        connection.is_closed();
    }
    eventually("they are counted", || timeouts("head") == Some(2));

    // The half of a request that was sent together with the request before it has the same deadline.
    let mut connection = Connection::open(gateway.http());
    connection.send([Request::get("/").bytes(), b"GET /half HTTP/1.1\r\n".to_vec()].concat());
    connection.answer().is(200);
    connection.answer().is_refusal(408, "request_timeout");
    connection.is_closed();
}

#[test]
fn a_drain_closes_parked_connections_and_serves_a_request_in_transit() {
    let upstream = Upstream::start();
    let mut gateway = one_core(&upstream, "", PUBLIC);
    let mut idle = both(&gateway);
    let mut used = both(&gateway);
    for connection in idle.iter_mut().chain(&mut used) {
        Request::get("/").over(connection).is(200);
    }
    wait_until_parked(&gateway, 4);
    let begun = Instant::now();
    gateway.signal("TERM");
    // A request that precedes the signal gets an answer that does not announce the close.
    eventually("the core drains", || TcpStream::connect(gateway.http()).is_err());
    for connection in &mut used {
        connection.send(Request::get("/in-transit").bytes());
        assert_eq!(connection.answer().is(200).header("connection"), Some("close"));
        connection.is_closed();
    }
    for connection in &mut idle {
        connection.is_closed();
    }
    assert_eq!(gateway.exit_code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn a_parked_connection_is_served_by_the_policy_in_force() {
    let upstream = Upstream::start();
    let gateway = encrypted(&upstream, PUBLIC);
    let mut connections = both(&gateway);
    for connection in &mut connections {
        Request::get("/").over(connection).is(200);
    }
    wait_until_parked(&gateway, 2);
    let guarded = PUBLIC.replace("access   = \"public\"\n", "");
    let server = "[server]\nhttps = \"127.0.0.1:0\"\n";
    crate::kit::portcullis::write_policy(gateway.dir(), &policy(&upstream, &format!("{server}{guarded}")));
    reload::reload(&gateway).is(200);
    assert_eq!(parked(&gateway), 2, "a reload wakes nobody");
    for connection in &mut connections {
        Request::get("/").over(connection).is_refusal(401, "missing_token");
        Request::get("/").bearer(token("ada")).over(connection).is(200);
    }
}
