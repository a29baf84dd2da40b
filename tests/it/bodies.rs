//! Bodies of requests and responses: streamed within limits of size and time, and never buffered as a whole.

use crate::kit::upstream::{After, Gate, Seen, Wire};
use crate::kit::{Connection, PATIENCE, Request, Upstream, eventually};
use crate::{PUBLIC, gateway};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
/// The maximum growth of the gateway's memory for a 64 MiB body. The body is streamed, so the growth is smaller than
/// the body.
const GROWTH: u64 = 16 * MIB as u64;
/// Exceeds the socket buffers between an upstream and a client. The kernel lets a buffer grow to 32 MiB and more.
const SLOW: usize = 256 * MIB;

fn bounded(bounds: &str) -> String {
    format!("[server.bounds]\n{bounds}\n{PUBLIC}")
}

#[test]
fn a_large_request_body_streams_through() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &bounded("body_size = \"100MiB\""));
    Request::get("/").to(gateway.http()).is(200);
    let before = gateway.peak_memory();
    let mut connection = Connection::open(gateway.http());
    connection.send(format!("POST / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: {}\r\n\r\n", 64 * MIB));
    let piece = vec![b'x'; MIB];
    for _ in 0..64 {
        connection.send(&piece);
    }
    connection.answer().is(200);
    let seen = upstream.last_request();
    assert_eq!(seen.body_bytes, 64 * MIB as u64);
    let growth = gateway.peak_memory().saturating_sub(before);
    assert!(growth < GROWTH, "it passes through, and is not gathered: {growth} bytes");
}

#[test]
fn a_large_answer_streams_through() {
    let upstream = Upstream::with(|_, wire| {
        wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 64 * MIB));
        let piece = vec![b'y'; MIB];
        for _ in 0..64 {
            wire.send(&piece);
        }
        After::Keep
    });
    let gateway = gateway(&upstream, PUBLIC);
    let mut connection = Connection::open(gateway.http());
    let before = gateway.peak_memory();
    connection.send(Request::get("/").bytes());
    let head = connection.read_head().unwrap();
    assert_eq!(head.header("content-length"), Some(&*(64 * MIB).to_string()));
    assert_eq!(connection.skip(64 * MIB), 64 * MIB);
    let growth = gateway.peak_memory().saturating_sub(before);
    assert!(growth < GROWTH, "it passes through, and is not gathered: {growth} bytes");
    Request::get("/").over(&mut Connection::open(gateway.http()));
}

#[test]
fn an_upstream_waits_for_a_client_that_reads_slowly() {
    let sent = Arc::new(AtomicU64::new(0));
    let counter = sent.clone();
    let upstream = Upstream::with(move |_, wire| {
        wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", SLOW));
        let piece = vec![b'y'; 64 * 1024];
        for _ in 0..SLOW / piece.len() {
            wire.send(&piece);
            counter.fetch_add(piece.len() as u64, Ordering::SeqCst);
        }
        After::Keep
    });
    let gateway = gateway(&upstream, PUBLIC);
    let mut connection = Connection::open(gateway.http());
    let before = gateway.peak_memory();
    connection.send(Request::get("/").bytes());
    // The client reads nothing, so the buffers fill and the upstream must pause.
    let mut last = (0, Instant::now());
    eventually("the upstream stands still", || {
        let now = sent.load(Ordering::SeqCst);
        if now != last.0 {
            last = (now, Instant::now());
        }
        now > 0 && last.1.elapsed() > Duration::from_millis(500)
    });
    let held = sent.load(Ordering::SeqCst);
    assert!(held < SLOW as u64 / 2, "back-pressure reaches the upstream: {held} bytes were taken");
    assert!(gateway.peak_memory().saturating_sub(before) < GROWTH);
    assert!(connection.read_head().is_some());
    assert_eq!(connection.skip(SLOW), SLOW);
}

#[test]
fn a_client_that_stops_reading_is_given_up_in_time() {
    let upstream = Upstream::with(|_, wire| {
        wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {SLOW}\r\n\r\n"));
        let piece = vec![b'y'; MIB];
        for _ in 0..SLOW / piece.len() {
            wire.send(&piece);
        }
        wire.peer_left();
        After::Close
    });
    let gateway = gateway(&upstream, &bounded("body_timeout = \"1s\""));
    let mut connection = Connection::open(gateway.http());
    connection.send(Request::get("/").bytes());
    upstream.wait_for_departure();
    let line = gateway.wait_log("the answer that was given up", |line| line["complete"] == false);
    assert!(line["bytes_out"].as_u64().is_some_and(|bytes| bytes < SLOW as u64), "{line}");
    drop(connection);
}

#[test]
fn a_client_waits_for_an_upstream_that_reads_slowly() {
    let gate = Gate::new();
    let opened = gate.clone();
    let upstream = Upstream::with(move |_, wire| {
        opened.wait();
        wire.read_body();
        wire.answer("200 OK", "", "late");
        After::Keep
    });
    let gateway = gateway(&upstream, &bounded("body_size = \"100MiB\"\nbody_timeout = \"60s\""));
    let before = gateway.peak_memory();
    let mut connection = Connection::open(gateway.http());
    connection.send(format!("POST / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: {}\r\n\r\n", 64 * MIB));
    connection.write_timeout(Duration::from_millis(500));
    let piece = vec![b'x'; 64 * 1024];
    // The last write may be partial, so this is a lower bound.
    let whole = (0..1024).take_while(|_| connection.try_send(&piece).is_ok()).count();
    assert!(whole < 1024, "back-pressure reaches the client");
    assert!(gateway.peak_memory().saturating_sub(before) < GROWTH);
    gate.open();
}

#[test]
fn a_body_with_a_length_over_the_bound_is_refused_before_the_upstream_hears_of_it() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &bounded("body_size = \"1KiB\""));
    Request::post("/", vec![b'x'; 1024]).to(gateway.http()).is(200);
    let mut connection = Connection::open(gateway.http());
    connection.send("POST / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 1025\r\n\r\n");
    connection.answer().is_refusal(413, "body_too_large");
    // The gateway must not read the rest of the body as a request.
    let _ = connection.try_send("GET /smuggled HTTP/1.1\r\nHost: gateway.test\r\n\r\n");
    assert!(connection.rest().is_empty(), "the connection is closed");
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn a_body_without_a_length_is_cut_off_at_the_bound() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &bounded("body_size = \"1KiB\""));
    let chunked = |size: usize| {
        let body = "x".repeat(size);
        let head = "POST / HTTP/1.1\r\nHost: gateway.test\r\nTransfer-Encoding: chunked\r\n\r\n";
        format!("{head}{size:x}\r\n{body}\r\n0\r\n\r\n")
    };
    crate::kit::client::send(gateway.http(), chunked(1024)).is(200);
    let mut connection = Connection::open(gateway.http());
    connection.send(chunked(1025));
    connection.answer().is_refusal(413, "body_too_large");
    connection.is_closed();
    let incomplete = upstream.requests().into_iter().skip(1).any(|seen| seen.complete);
    assert!(!incomplete, "the upstream never takes it for a whole request");
    Request::get("/").to(gateway.http()).is(200);
}

#[test]
fn a_body_that_stops_coming_is_refused_in_time() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &bounded("body_timeout = \"1s\""));
    let mut connection = Connection::open(gateway.http());
    connection.send("POST / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 10\r\n\r\nhalf ");
    connection.answer().is_refusal(408, "request_timeout");
    connection.is_closed();
    assert!(!upstream.requests().iter().any(|seen| seen.complete));
    Request::get("/").to(gateway.http()).is(200);
}

#[test]
fn a_body_that_breaks_off_is_never_taken_for_a_whole_one() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, PUBLIC);
    for framing in ["Content-Length: 10\r\n\r\nhalf ", "Transfer-Encoding: chunked\r\n\r\na\r\nhalf "] {
        let mut connection = Connection::open(gateway.http());
        connection.send(format!("POST / HTTP/1.1\r\nHost: gateway.test\r\n{framing}"));
        connection.finish();
        let answer = connection.try_answer("POST");
        assert!(answer.is_none_or(|answer| answer.status == 400), "{framing}");
    }
    assert!(!upstream.requests().iter().any(|seen| seen.complete));
    Request::get("/").to(gateway.http()).is(200);
}

/// Django and Flask on gunicorn take a part of a body for the whole one if its connection ends in order
/// (findings/half-an-upload-in-gunicorn.sh).
#[test]
fn a_request_that_breaks_off_ends_with_a_reset_at_the_upstream() {
    let (sender, ends) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let upstream = Upstream::with(move |_, wire| {
        sender.lock().unwrap().send(wire.is_reset()).unwrap();
        After::Close
    });
    let gateway = gateway(&upstream, &bounded("body_timeout = \"1s\""));
    let broken = |request: &str, end: fn(Connection)| {
        let before = upstream.requests().len();
        let mut connection = Connection::open(gateway.http());
        connection.send(format!("POST / HTTP/1.1\r\nHost: gateway.test\r\n{request}"));
        upstream.wait_for_requests(before + 1);
        end(connection);
        ends.recv_timeout(PATIENCE).expect("the connection ends")
    };
    let finish = |mut connection: Connection| {
        connection.finish();
        connection.rest();
    };
    let pause = |mut connection: Connection| drop(connection.rest());
    for (name, end) in [
        ("the client finishes", finish as fn(Connection)),
        ("the client leaves", Connection::reset),
        ("the client pauses", pause),
    ] {
        for part in ["Content-Length: 10\r\n\r\nhalf ", "Transfer-Encoding: chunked\r\n\r\na\r\nhalf "] {
            assert!(broken(part, end), "{name}: {part:?}");
        }
    }
    let whole = broken("Content-Length: 5\r\n\r\nwhole", Connection::reset);
    assert!(!whole, "a whole request whose client leaves ends in order");
}

#[test]
fn the_body_of_a_refused_request_is_never_read_as_a_request() {
    let upstream = Upstream::start();
    let gateway = gateway(
        &upstream,
        "[[route]]\npath = \"/guarded\"\nupstream = \"app\"\n[[route]]\npath = \"/smuggled\"\nupstream = \"app\"\naccess = \"public\"\n",
    );
    let inner = "GET /smuggled HTTP/1.1\r\nHost: gateway.test\r\n\r\n";
    for body in [
        format!("Content-Length: {}\r\n\r\n{inner}", inner.len()),
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len()),
    ] {
        let mut connection = Connection::open(gateway.http());
        connection.send(format!("POST /guarded HTTP/1.1\r\nHost: gateway.test\r\n{body}"));
        connection.answer().is_refusal(401, "missing_token");
        // The gateway either closes the connection, or reads the rest of the body and then the next request.
        if connection.try_send(Request::get("/guarded").bytes()).is_ok()
            && let Some(answer) = connection.try_answer("GET")
        {
            answer.is_refusal(401, "missing_token");
        }
    }
    upstream.saw_nothing();
}

#[test]
fn trailers_that_no_route_lists_are_dropped_and_those_of_an_answer_pass() {
    let upstream = Upstream::with(|_, wire| {
        wire.read_body();
        wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-checksum\r\n\r\n");
        wire.send("2\r\nok\r\n0\r\nx-checksum: abc\r\n\r\n");
        After::Keep
    });
    let gateway = gateway(&upstream, PUBLIC);
    let answer = crate::kit::client::send(
        gateway.http(),
        "POST / HTTP/1.1\r\nHost: gateway.test\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\
         Trailer: X-Auth-Subject, X-Other\r\n\r\n2\r\nhi\r\n0\r\nX-Auth-Subject: f0rged\r\nX-Other: f0rged\r\n\r\n",
    );
    answer.is(200);
    let seen = upstream.only_request();
    assert_eq!(seen.body, b"hi");
    assert!(seen.complete && seen.trailers.is_empty() && !seen.mentions("f0rged"), "{seen:#?}");
    assert_eq!(seen.header("trailer"), None);
    // Whether HTTP/1.1 trailers reach the client depends on its TE field. Trailers never become header fields.
    assert_eq!(answer.header("x-checksum"), None);
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it_before_its_body() {
    let asks = |_: &Seen, wire: &mut Wire| {
        wire.send("HTTP/1.1 100 Continue\r\n\r\n");
        assert!(wire.read_body());
        wire.answer("200 OK", "", "asked");
        After::Keep
    };
    // The second upstream does not ask. It gets the body after a second, as RFC 9110 10.1.1 recommends.
    for upstream in [Upstream::with(asks), Upstream::start()] {
        let gateway = gateway(&upstream, PUBLIC);
        for expectation in ["100-continue", "100-Continue"] {
            let mut connection = Connection::open(gateway.http());
            connection.send(format!(
                "POST / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 4\r\nExpect: {expectation}\r\n\r\n"
            ));
            assert_eq!(connection.read_head().unwrap().status, 100);
            connection.send("body");
            connection.answer().is(200);
            let seen = upstream.last_request();
            assert_eq!((&seen.body[..], seen.header("expect")), (&b"body"[..], Some("100-continue")));
        }
    }
}

/// RFC 9110 section 15.2: a proxy forwards interim answers to a request that asked for them, although this server has
/// answered already. The server waits for the body after the answer.
#[test]
fn a_client_gets_a_100_that_arrives_together_with_the_answer() {
    let upstream = Upstream::with(|_, wire| {
        wire.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody");
        if wire.read_body() { After::Keep } else { After::Close }
    });
    let gateway = gateway(&upstream, PUBLIC);
    for number in 1..=3 {
        let mut connection = Connection::open(gateway.http());
        connection.send(
            "POST / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n",
        );
        assert_eq!(connection.read_head().unwrap().status, 100);
        assert_eq!(connection.answer().is(200).text(), "body");
        connection.send("sent");
        eventually("the upstream has the body", || {
            let all = upstream.requests();
            all.len() == number && all.iter().all(|seen| seen.complete && seen.body == b"sent")
        });
    }
}

#[test]
fn an_upstream_that_refuses_an_expectation_gets_no_body_and_the_client_is_not_asked_for_it() {
    let (ended, bytes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (closed, taken) = (ended.clone(), bytes.clone());
    let upstream = Upstream::with(move |_, wire| {
        wire.answer("413 Content Too Large", "", "no");
        taken.fetch_add(wire.take(1).map_or(0, |byte| byte.len()), Ordering::SeqCst);
        closed.fetch_add(1, Ordering::SeqCst);
        After::Close
    });
    let gateway = gateway(&upstream, PUBLIC);
    for (number, framing) in ["Content-Length: 4", "Transfer-Encoding: chunked"].into_iter().enumerate() {
        let mut connection = Connection::open(gateway.http());
        connection.send(format!(
            "POST / HTTP/1.1\r\nHost: gateway.test\r\n{framing}\r\nExpect: 100-continue\r\n\r\n"
        ));
        let answer = connection.answer();
        assert_eq!(answer.is(413).text(), "no");
        assert!(answer.interim.is_empty(), "{answer:#?}");
        connection.is_closed();
        eventually("the upstream connection closes", || ended.load(Ordering::SeqCst) == number + 1);
        assert_eq!(bytes.load(Ordering::SeqCst), 0);
    }
}

/// RFC 9110 section 10.1.1: a client must not send an expectation without content. A server might wait for content that
/// never comes.
#[test]
fn an_expectation_of_a_request_without_content_is_not_forwarded() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, PUBLIC);
    for (method, framing, body) in [
        ("GET", "", ""),
        ("DELETE", "", ""),
        ("POST", "Content-Length: 0\r\n", ""),
        // The gateway forwards these methods without a body of unknown length.
        ("GET", "Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("GET", "Transfer-Encoding: chunked\r\n", "2\r\nhi\r\n0\r\n\r\n"),
        ("HEAD", "Transfer-Encoding: chunked\r\n", "2\r\nhi\r\n0\r\n\r\n"),
    ] {
        let mut connection = Connection::open(gateway.http());
        connection.send(format!(
            "{method} / HTTP/1.1\r\nHost: gateway.test\r\n{framing}Expect: 100-continue\r\n\r\n{body}"
        ));
        let answer = connection.try_answer(method).expect("an answer");
        assert_eq!(answer.status, 200, "{method} {framing}");
        let seen = upstream.last_request();
        assert_eq!((&*seen.method, seen.header("expect")), (method, None), "{framing}");
        // The connection to the upstream is used again.
        assert_eq!(upstream.connections(), 1, "{method} {framing}");
    }
}

#[test]
fn a_client_that_is_refused_is_not_asked_for_its_body() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, "[[route]]\npath = \"/\"\nupstream = \"app\"\n");
    let mut connection = Connection::open(gateway.http());
    connection
        .send("POST / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    let answer = connection.answer();
    answer.is_refusal(401, "missing_token");
    assert!(answer.interim.is_empty(), "{answer:#?}");
    upstream.saw_nothing();
}

#[test]
fn answers_without_a_body_have_none() {
    for (status, fields) in [("204 No Content", ""), ("304 Not Modified", "etag: \"x\"\r\n")] {
        let upstream = Upstream::answering(format!("HTTP/1.1 {status}\r\n{fields}\r\n"));
        let gateway = gateway(&upstream, PUBLIC);
        let mut connection = Connection::open(gateway.http());
        for _ in 0..2 {
            let answer = Request::get("/").over(&mut connection);
            assert!(status.starts_with(&answer.status.to_string()));
            assert!(answer.header("transfer-encoding").is_none(), "{answer:#?}");
            assert!(matches!(answer.header("content-length"), None | Some("0")), "{answer:#?}");
        }
    }
}

#[test]
fn the_answer_to_a_head_request_has_its_length_and_no_body() {
    let upstream = Upstream::with(|seen, wire| {
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n");
        if seen.method != "HEAD" {
            wire.send("upstream");
        }
        After::Keep
    });
    let gateway = gateway(&upstream, PUBLIC);
    let mut connection = Connection::open(gateway.http());
    for _ in 0..2 {
        let answer = Request::new("HEAD", "/").over(&mut connection);
        assert_eq!((answer.status, answer.header("content-length")), (200, Some("8")));
        let answer = Request::get("/").over(&mut connection);
        assert_eq!(answer.text(), "upstream");
    }
    // A refusal of a HEAD request has no body.
    let answer = Request::new("HEAD", "//").over(&mut connection);
    assert_eq!((answer.status, answer.body.len()), (400, 0));
    connection.is_closed();
}
