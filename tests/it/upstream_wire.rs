//! Upstreams that send malformed bytes, or bytes at the wrong time. No other request may receive them.

use crate::admin::{metric, metrics};
use crate::kit::upstream::{After, Gate};
use crate::kit::{Connection, Portcullis, Request, Upstream, eventually};
use crate::{PUBLIC, gateway};

fn unasked(gateway: &Portcullis) -> f64 {
    metric(&metrics(gateway), "portcullis_upstream_unasked_bytes_total", &["upstream=\"app\""])
}

const POISON: &str = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\npoisoned";

/// RFC 9112 section 9.2: bytes after an answer belong to no request.
#[test]
fn bytes_after_an_answer_close_its_connection_and_are_counted() {
    for answer in ["content-length: 2\r\n\r\nok", "transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"] {
        let upstream = Upstream::answering(format!("HTTP/1.1 200 OK\r\n{answer}{POISON}"));
        let gateway = gateway(&upstream, PUBLIC);
        for number in 1..=3 {
            assert_eq!(Request::get("/").to(gateway.http()).is(200).text(), "ok");
            eventually("it is counted", || unasked(&gateway) == f64::from(number));
        }
        assert_eq!(upstream.connections(), 3, "no connection is used twice");
    }
}

#[test]
fn bytes_without_a_request_close_their_connection_and_are_counted() {
    let gate = Gate::new();
    let opened = gate.clone();
    let upstream = Upstream::with(move |_, wire| {
        wire.answer("200 OK", "", "ok");
        opened.wait();
        wire.send(POISON);
        After::Keep
    });
    let gateway = gateway(&upstream, PUBLIC);
    assert_eq!(Request::get("/").to(gateway.http()).is(200).text(), "ok");
    gate.open();
    // The gateway's sweep finds the bytes without a further request.
    eventually("it is counted", || unasked(&gateway) == 1.0);
    assert_eq!(Request::get("/").to(gateway.http()).is(200).text(), "ok");
    assert_eq!(upstream.connections(), 2);
}

/// RFC 9112 section 9.3.
#[test]
fn a_connection_that_its_server_does_not_clearly_keep_serves_one_request() {
    for answer in [
        "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nConnection: foo, Close\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ] {
        let upstream = Upstream::answering(answer);
        let gateway = gateway(&upstream, PUBLIC);
        for _ in 0..3 {
            assert_eq!(Request::get("/").to(gateway.http()).is(200).text(), "ok");
        }
        assert_eq!(upstream.connections(), 3, "{answer:?}");
        assert_eq!(unasked(&gateway), 0.0);
    }
}

/// RFC 9112 sections 2.2, 4, 5, 6.1 and RFC 9110 section 15.2. `http1::tests` has the complete table.
#[test]
fn a_head_with_two_readings_is_a_bad_gateway() {
    let interim = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(17);
    for answer in [
        "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        "HTTP/1.1 200 OK\r\nX-A: b\nContent-Length: 2\r\n\r\nok",
        "\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX-A: b\0\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 2, 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        &format!("{interim}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    ] {
        let upstream = Upstream::answering(answer);
        let gateway = gateway(&upstream, PUBLIC);
        let answered = Request::get("/").to(gateway.http());
        answered.is_refusal(502, "upstream_failed");
        let line = gateway.access_line(&answered);
        assert!(line["detail"].as_str().is_some_and(|detail| detail.contains("http://")), "{line}");
        // The gateway must not repeat the request after a malformed answer.
        assert_eq!(upstream.requests().len(), 1, "{answer:?}");
    }
}

/// RFC 9112 section 7.1. The answer has begun, so the gateway can only truncate it.
#[test]
fn a_chunk_with_two_readings_cuts_the_answer() {
    for chunks in
        ["2 \r\nok\r\n0\r\n\r\n", "2\nok\r\n0\r\n\r\n", "+2\r\nok\r\n0\r\n\r\n", "2\r\noks\r\n0\r\n\r\n"]
    {
        let upstream =
            Upstream::answering(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"));
        let gateway = gateway(&upstream, PUBLIC);
        let answer = Request::get("/").to(gateway.http());
        assert_eq!((answer.status, answer.complete), (200, false), "{chunks:?}: {answer:#?}");
        let labels = ["reason=\"invalid\""];
        eventually("it is counted", || {
            metric(&metrics(&gateway), "portcullis_upstream_broken_answers_total", &labels) == 1.0
        });
    }
}

/// The server refuses an upload after its head, and closes the connection while the client still sends.
#[test]
fn an_answer_arrives_although_the_server_no_longer_takes_the_request() {
    let upstream = Upstream::with(|_, wire| {
        wire.answer("413 Content Too Large", "connection: close\r\n", "too large");
        After::Close
    });
    let gateway = gateway(&upstream, &format!("[server.bounds]\nbody_size = \"64MiB\"\n{PUBLIC}"));
    for _ in 0..10 {
        let mut connection = Connection::open(gateway.http());
        connection.send("POST / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 33554432\r\n\r\n");
        let piece = vec![b'x'; 1 << 20];
        let _ = (0..32).take_while(|_| connection.try_send(&piece).is_ok()).count();
        // The gateway continues to read after its answer, so that the client can read the answer.
        assert_eq!(connection.answer().is(413).text(), "too large");
    }
    assert_eq!(upstream.requests().len(), 10, "an upload is never repeated");
}

/// After an incomplete request, the connection to the upstream is not reused.
#[test]
fn a_connection_that_was_answered_early_serves_no_other_request() {
    let gate = Gate::new();
    let opened = gate.clone();
    let upstream = Upstream::with(move |seen, wire| {
        if seen.method == "POST" {
            wire.answer("200 OK", "", "early");
            opened.wait();
            assert!(wire.read_body());
            return After::Keep;
        }
        wire.answer("200 OK", "", "other");
        After::Keep
    });
    let gateway = gateway(&upstream, PUBLIC);
    let mut connection = Connection::open(gateway.http());
    connection.send("POST / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 10\r\n\r\nhalf ");
    assert_eq!(connection.answer().is(200).text(), "early");
    assert_eq!(Request::get("/").to(gateway.http()).is(200).text(), "other");
    gate.open();
    connection.send("later");
    eventually("the upload goes on", || {
        upstream.requests().iter().any(|seen| seen.method == "POST" && seen.body == b"half later")
    });
    assert_eq!(Request::get("/").to(gateway.http()).is(200).text(), "other");
    assert_eq!(upstream.connections(), 2);
}

/// A server that ignores the chunks of a GET would read them as another request.
#[test]
fn a_get_with_a_body_of_unknown_length_is_forwarded_without_it() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, PUBLIC);
    let inner = "GET /smuggled HTTP/1.1\r\nHost: gateway.test\r\n\r\n";
    let chunked = |method: &str| {
        let head = format!("{method} / HTTP/1.1\r\nHost: gateway.test\r\nTransfer-Encoding: chunked\r\n\r\n");
        format!("{head}{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len())
    };
    crate::kit::client::send(gateway.http(), chunked("GET")).is(200);
    let seen = upstream.last_request();
    assert_eq!((seen.header("transfer-encoding"), seen.header("content-length")), (None, None));
    crate::kit::client::send(gateway.http(), chunked("POST")).is(200);
    assert_eq!(upstream.last_request().body, inner.as_bytes());
    let with_length = "GET / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 2\r\n\r\nhi";
    crate::kit::client::send(gateway.http(), with_length).is(200);
    assert_eq!(upstream.last_request().body, b"hi");
    assert!(upstream.requests().iter().all(|seen| seen.target == "/"));
}

/// An HTTP/1.0 client may omit `Host`, but the request to the upstream must have it (RFC 9112 section 3.2).
#[test]
fn a_request_without_a_host_gets_that_of_its_server() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, PUBLIC);
    crate::kit::client::send(gateway.http(), "GET / HTTP/1.0\r\n\r\n").is(200);
    let authority = upstream.to_string();
    assert_eq!(upstream.last_request().header("host"), authority.strip_prefix("http://"));
}
