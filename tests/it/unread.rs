//! A client gets a refusal even while it is still sending its body.

use crate::encrypted;
use crate::kit::http2::{Frames, Verdict, block, exchange, frame, request};
use crate::kit::packages::installed;
use crate::kit::{Connection, Request, Upstream, token};
use bytes::Bytes;
use std::net::SocketAddr;
use std::process::Command;

const MIB: usize = 1 << 20;
const ROUTES: &str = r#"
[rate_limit.once]
rate = "1/h"
by   = "client_ip"

[[route]]
path     = "/open"
upstream = "app"
access   = "public"

[[route]]
path     = "/guarded"
upstream = "app"
roles    = ["clerk"]

[[route]]
path        = "/limited"
upstream    = "app"
access      = "public"
rate_limits = ["once"]
"#;

/// RFC 9113 section 8.1, RFC 9112 section 9.6.
#[test]
fn curl_sees_every_refusal_whatever_it_sends() {
    let upstream = Upstream::start();
    let gateway = encrypted(&upstream, ROUTES);
    let clerk = |role: &str| format!("Authorization: Bearer {}", token("ada").role(role));
    let file = |bytes: usize| {
        let name = format!("body-{bytes}");
        gateway.dir().write(&name, vec![b'x'; bytes]);
        format!("@{}", gateway.dir().path().join(name).display())
    };
    Request::get("/limited").to(gateway.http()).is(200);
    for version in ["--http1.1", "--http2"] {
        for (path, bytes, header, status) in [
            ("/guarded", 60_000, String::new(), "401"),
            ("/guarded", 300_000, String::new(), "401"),
            ("/guarded", 3 * MIB, String::new(), "401"),
            ("/guarded", 3 * MIB, clerk("guest"), "403"),
            ("/nothing", 300_000, String::new(), "404"),
            ("/limited", 300_000, String::new(), "429"),
            ("/open", 17 * MIB, String::new(), "413"),
            ("/open", 70 * MIB, String::new(), "413"),
            ("/guarded", 3 * MIB, clerk("clerk"), "200"),
        ] {
            let body = file(bytes);
            for round in 0..2 {
                let url = format!("https://localhost:{}{path}", gateway.https().port());
                let run = Command::new("curl")
                    .args([
                        "-sk",
                        version,
                        "--max-time",
                        "20",
                        "-o",
                        "/dev/null",
                        "-w",
                        "%{http_code} %{exitcode}",
                    ])
                    .args(["-H", "Content-Type: text/plain", "-H", &header, "--data-binary", &body, &url])
                    .output()
                    .expect("curl is installed");
                let said = String::from_utf8_lossy(&run.stdout).into_owned();
                assert_eq!(said, format!("{status} 0"), "{version} {path} {bytes}, round {round}");
            }
        }
    }
}

/// A reset by the server is not counted as the client's fault.
#[test]
fn two_hundred_refused_posts_fit_on_one_connection() {
    let upstream = Upstream::start();
    let gateway = encrypted(&upstream, ROUTES);
    let post = |_| request("POST", "/guarded").body(Bytes::from(vec![b'x'; 60_000])).unwrap();
    let answers = exchange(gateway.https(), (0..200).map(post).collect());
    assert_eq!(answers.len(), 200);
    for answer in answers {
        answer.is_refusal(401, "missing_token");
    }
    assert_eq!(gateway.metric("portcullis_connections_total"), Some(1));
}

/// RFC 9113 section 8.1: once the announced length has arrived, the stream is not reset.
#[test]
fn a_stream_whose_body_is_whole_is_not_reset_before_its_end() {
    let upstream = Upstream::start();
    let gateway = encrypted(&upstream, ROUTES);
    for path in ["/open", "/guarded"] {
        let mut frames = Frames::open(gateway.http());
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "gateway.test"),
            (":path", path),
            ("content-length", "5"),
        ];
        frames.send(frame::HEADERS, frame::END_HEADERS, 1, &block(&fields)).unwrap();
        frames.send(frame::DATA, 0, 1, b"hello").unwrap();
        let mut ended = false;
        while !ended {
            let next = frames.next().expect("an answer");
            assert_ne!(next.kind, frame::RST_STREAM, "{path}");
            ended = next.stream == 1 && next.kind == frame::DATA && next.flags & frame::END_STREAM != 0;
        }
        frames.send(frame::DATA, frame::END_STREAM, 1, b"").unwrap();
        // The answer to the PING follows all frames that the gateway sent about the stream.
        frames.send(frame::PING, 0, 0, &[9; 8]).unwrap();
        loop {
            let next = frames.next().expect("the connection goes on");
            assert!(![frame::RST_STREAM, frame::GOAWAY].contains(&next.kind), "{path}: {next:?}");
            if next.kind == frame::PING && next.payload == [9; 8] {
                break;
            }
        }
        let get = [("x-none", "")];
        let mut again = fields[..4].to_vec();
        again[0] = (":method", "GET");
        again.extend(get);
        frames.send(frame::HEADERS, frame::END_STREAM | frame::END_HEADERS, 3, &block(&again)).unwrap();
        let verdict = frames.verdict(3);
        assert!(matches!(verdict, Verdict::Status(_)), "{path}: {verdict:?}");
    }
}

/// RFC 9112 sections 9.3 and 9.6.
#[test]
fn over_http_1_a_small_rest_is_read_and_before_a_larger_one_the_answer_says_close() {
    let upstream = Upstream::start();
    let gateway = encrypted(&upstream, ROUTES);
    let head = |length: usize, more: &str| {
        format!("POST /guarded HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: {length}\r\n{more}\r\n")
    };
    let plain: fn(SocketAddr) -> Connection = Connection::open;
    for (open, address) in [(plain, gateway.http()), (Connection::tls, gateway.https())] {
        let mut connection = open(address);
        for _ in 0..3 {
            // A `#` in the body is not read as a fragment of the next request's target.
            connection.send(head(1000, ""));
            let answer = connection.answer();
            assert_eq!(answer.is_refusal(401, "missing_token").header("connection"), None);
            connection.send([b'#'; 500]);
            connection.send([b'#'; 500]);
            Request::get("/open").over(&mut connection).is(200);
        }
        let mut connection = open(address);
        connection.send(head(3 * MIB, ""));
        let answer = connection.answer();
        assert_eq!(answer.is_refusal(401, "missing_token").header("connection"), Some("close"));
        // The gateway reads the rest of the body, because a reset could destroy an answer that the client has not read.
        for _ in 0..3 {
            connection.try_send(vec![b'x'; MIB]).expect("the gateway reads on");
        }
        connection.is_closed();
    }
    // Reading a body that waits for `100 Continue` would request that body.
    let mut connection = Connection::open(gateway.http());
    connection.send(head(5, "Expect: 100-continue\r\n"));
    let answer = connection.answer();
    assert_eq!(answer.is_refusal(401, "missing_token").header("connection"), Some("close"));
    assert!(answer.interim.is_empty(), "{answer:#?}");
    connection.is_closed();
}

#[test]
fn a_body_that_grows_too_large_is_named_and_not_the_upstream() {
    let upstream = Upstream::start();
    let gateway = encrypted(&upstream, ROUTES);
    let mut connection = Connection::open(gateway.http());
    connection.send("POST /open HTTP/1.1\r\nHost: gateway.test\r\nTransfer-Encoding: chunked\r\n\r\n");
    let piece = [format!("{MIB:x}\r\n").into_bytes(), vec![b'x'; MIB], b"\r\n".to_vec()].concat();
    for _ in 0..17 {
        connection.try_send(&piece).expect("the gateway reads on");
    }
    let answer = connection.answer();
    assert_eq!(answer.is_refusal(413, "body_too_large").header("connection"), Some("close"));
    let line = gateway.access_line(&answer);
    assert_eq!(
        line["detail"], "the body has more bytes than body_size in [server.bounds], which is 16777216",
        "{line}"
    );
    Request::get("/open").to(gateway.http()).is(200);
}

/// Runs each client library in its own process, and records how it reports a refusal of every size.
#[test]
fn client_libraries_see_every_refusal() {
    let upstream = Upstream::start();
    let gateway = encrypted(&upstream, ROUTES);
    let (scripts, folder) = installed("clients");
    let url = format!("https://localhost:{}", gateway.https().port());
    for (name, command) in [
        (
            "httpx",
            vec![
                folder.join("venv/bin/python").display().to_string(),
                scripts.join("refused.py").display().to_string(),
            ],
        ),
        ("node", vec!["node".to_owned(), folder.join("refused.mjs").display().to_string()]),
        ("java", vec!["java".to_owned(), scripts.join("Refused.java").display().to_string()]),
    ] {
        let run = Command::new(&command[0]).args(&command[1..]).arg(&url).output().expect(name);
        let said = String::from_utf8_lossy(&run.stdout).into_owned();
        assert!(run.status.success(), "{name}\n{said}\n{}", String::from_utf8_lossy(&run.stderr));
        assert!(said.lines().count() >= 4, "{name} said what it did: {said}");
        assert!(said.lines().all(|line| line.ends_with(" ok")), "{name}\n{said}");
    }
}
