//! Each test reproduces a bug that was found in black-box testing. If a single commit fixed the bug, the test names it.

use crate::kit::client::send;
use crate::kit::{Connection, Request, Upstream};
use crate::{PUBLIC, gateway};

/// Fixed in 8deb36c.
#[test]
fn a_refusal_was_lost_when_the_client_had_sent_more_in_the_same_packet() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &format!("[server.bounds]\nbody_size = \"1KiB\"\n{PUBLIC}"));
    let body = "x".repeat(2048);
    let large = format!("POST / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 2048\r\n\r\n{body}");
    send(gateway.http(), large).is_refusal(413, "body_too_large");
    let next = "GET / HTTP/1.1\r\nHost: gateway.test\r\n\r\n";
    send(gateway.http(), format!("GET / HTTP/1.1\r\n\r\n{next}")).is_refusal(400, "bad_request");
    assert_eq!(send(gateway.http(), format!("GET / HTTP/1.1\r\nX Odd: 1\r\n\r\n{next}")).status, 400);
    upstream.saw_nothing();
}

/// Fixed in 8deb36c.
#[test]
fn a_refusal_was_overtaken_by_a_reset_when_the_client_was_still_sending() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &format!("[server.bounds]\nbody_size = \"1KiB\"\n{PUBLIC}"));
    for _ in 0..20 {
        let mut connection = Connection::open(gateway.http());
        connection.send("POST / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 2097152\r\n\r\n");
        // Many clients stop at the first failed write, and do not read the answer.
        for _ in 0..32 {
            connection.send(vec![b'x'; 64 * 1024]);
        }
        connection.answer().is_refusal(413, "body_too_large");
    }
    upstream.saw_nothing();
}

#[test]
fn a_body_larger_than_a_socket_holds_did_not_deadlock_with_an_early_answer() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, "[[route]]\npath = \"/\"\nupstream = \"app\"\n");
    let mut connection = Connection::open(gateway.http());
    connection.send("POST / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 2097152\r\n\r\n");
    for _ in 0..32 {
        let _ = connection.try_send(vec![b'x'; 64 * 1024]);
    }
    connection.answer().is_refusal(401, "missing_token");
    upstream.saw_nothing();
    Request::get("/").to(gateway.http()).is_refusal(401, "missing_token");
}
