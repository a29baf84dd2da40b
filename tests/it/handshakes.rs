//! TLS handshakes that fail, and bytes that are not HTTP: counted, logged and answered.

use crate::kit::tls::{Options, connect};
use crate::kit::{Connection, ISSUER, Portcullis, Request, eventually};
use rustls::version::TLS12;
use serde_json::Value;

fn gateway(tables: &str) -> Portcullis {
    Portcullis::with(&format!(
        "[server]\nhttps = \"127.0.0.1:0\"\n{tables}\n{ISSUER}\n[upstream.echo]\nbuiltin = \"echo\"\n\
         [[route]]\npath = \"/\"\nupstream = \"echo\"\naccess = \"public\"\n"
    ))
    .start()
}

fn failures(gateway: &Portcullis, reason: &str) -> u64 {
    gateway.metric(&format!("portcullis_tls_failures_total{{reason=\"{reason}\"}}")).expect("a known reason")
}

#[test]
fn a_handshake_that_fails_is_counted_by_reason_and_logged_once_in_a_while() {
    let gateway = gateway("[server.bounds]\nheader_timeout = \"1s\"\n[tls]\nmin_version = \"1.3\"\n");
    let send = |bytes: &[u8]| {
        let mut connection = Connection::open(gateway.https());
        connection.send(bytes);
        connection.rest();
    };
    for _ in 0..5 {
        send(b"\x99 is the type of no record of TLS");
    }
    send(&Request::get("/").bytes());
    send(b"\x16\x03\x01\x02\x00\x01\x00");
    assert!(connect(gateway.https(), &Options { versions: vec![&TLS12], ..Options::default() }).is_err());
    assert!(connect(gateway.https(), &Options { alpn: vec!["spdy/3"], ..Options::default() }).is_err());
    for (reason, count) in
        [("not_tls", 5), ("cleartext", 1), ("timeout", 1), ("incompatible", 1), ("no_protocol", 1)]
    {
        eventually(reason, || failures(&gateway, reason) == count);
        let is = |line: &Value| line["message"] == "TLS handshake failed" && line["reason"] == reason;
        let line = gateway.wait_log(reason, is);
        assert_eq!(line["client"], "127.0.0.1", "{line}");
        assert!(line["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{line}");
        assert_eq!(gateway.log().iter().filter(|line| is(line)).count(), 1, "{reason}: no flood of lines");
    }
}

/// RFC 7301 section 3.2: the gateway serves HTTP/1.0, so it also accepts that protocol in ALPN.
#[test]
fn a_client_that_offers_http_1_0_alone_is_served() {
    let gateway = gateway("");
    let stream = connect(gateway.https(), &Options { alpn: vec!["http/1.0"], ..Options::default() }).unwrap();
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.0"[..]));
    let mut connection = Connection::over(stream);
    connection.send("GET / HTTP/1.0\r\nHost: gateway.test\r\n\r\n");
    connection.answer().is(200);
}

/// RFC 9112 section 3.
#[test]
fn a_request_that_cannot_be_read_gets_a_problem_document_and_a_line_that_says_who_sent_it() {
    let gateway = gateway("");
    for (request, status, code, method, path) in [
        ("GET /a?filter={\"a\":\"b\"} HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad_request", "GET", "/a"),
        ("GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400, "bad_request", "GET", "/"),
        ("GET / HTTP/9.9\r\nHost: x\r\n\r\n", 400, "bad_request", "GET", "/"),
        ("\x01\x02\x03\r\n\r\n", 400, "bad_request", "", ""),
    ] {
        for encrypted in [false, true] {
            let mut connection = match encrypted {
                false => Connection::open(gateway.http()),
                true => Connection::tls(gateway.https()),
            };
            connection.send(request);
            let answer = connection.answer();
            answer.is_refusal(status, code);
            assert_eq!(answer.header("connection"), Some("close"));
            assert_eq!(answer.header("content-type"), Some("application/problem+json"));
            connection.is_closed();
            let line = gateway.access_line(&answer);
            assert_eq!((&line["method"], &line["path"]), (&method.into(), &path.into()), "{line}");
            assert_eq!(line["client"], "127.0.0.1");
            assert!(!line.to_string().contains("filter"), "never the query: {line}");
        }
    }
    let fields = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "x: y\r\n".repeat(200));
    let mut connection = Connection::open(gateway.http());
    connection.send(fields);
    connection.answer().is_refusal(431, "headers_too_large");
    // The same refusal follows a successful answer on the same connection.
    let mut connection = Connection::open(gateway.http());
    Request::get("/").over(&mut connection).is(200);
    connection.send("GET /\x01 HTTP/1.1\r\n\r\n");
    connection.answer().is_refusal(400, "bad_request");
}
