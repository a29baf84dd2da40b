//! Raw bytes on a socket. The gateway refuses every ambiguous request, and continues to serve.

use crate::kit::client::send;
use crate::kit::http2::{Frames, Verdict, block, frame};
use crate::kit::{Answer, Connection, Portcullis, Request, Upstream, end_of_head, values};
use crate::{PUBLIC, gateway, policy};
use proptest::collection::vec;
use proptest::prelude::{any, prop_assert, prop_assert_eq};
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use std::time::Instant;

/// A policy with one public and one guarded path.
const ROUTES: &str = r#"
[[route]]
path     = "/"
upstream = "app"
access   = "public"

[[route]]
path     = "/open"
upstream = "app"
access   = "public"

[[route]]
path     = "/guarded"
upstream = "app"
"#;

/// A request after the tested bytes on the same connection. If the gateway reads it, the upstream receives it.
const NEXT: &str = "GET /open HTTP/1.1\r\nHost: gateway.test\r\nX-Smuggled: yes\r\n\r\n";

/// Sends bytes. Checks that the gateway refuses them with one of these statuses (0: no answer), closes the connection,
/// forwards nothing, and serves the next client.
#[track_caller]
fn refused(gateway: &Portcullis, upstream: &Upstream, name: &str, bytes: &[u8], statuses: &[u16]) {
    let before = upstream.requests().len();
    let mut connection = Connection::open(gateway.http());
    let _ = connection.try_send(bytes);
    let status = connection.try_answer("GET").map_or(0, |answer| answer.status);
    assert!(statuses.contains(&status), "{name}: {status}, not one of {statuses:?}");
    let rest = connection.rest();
    assert!(!contains(&rest, b"200 OK"), "{name}: {}", String::from_utf8_lossy(&rest));
    let seen = upstream.requests();
    assert_eq!(seen.len(), before, "{name}: {:#?}", &seen[before..]);
    Request::get("/").to(gateway.http()).is(200);
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

#[test]
fn framing_that_two_readers_could_take_differently_is_refused() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    let chunked = "Transfer-Encoding: chunked";
    for (name, fields, body) in [
        ("two lengths", "Content-Length: 1\r\nContent-Length: 2".into(), "xx"),
        ("two lengths in one field", "Content-Length: 1, 2".into(), "xx"),
        ("a signed length", "Content-Length: +1".into(), "x"),
        ("a negative length", "Content-Length: -1".into(), ""),
        ("a hexadecimal length", "Content-Length: 0x1".into(), "x"),
        ("a length with a space in it", "Content-Length: 1 2".into(), "xx"),
        ("an empty length", "Content-Length:".into(), ""),
        ("a length beyond 64 bits", "Content-Length: 18446744073709551617".into(), "x"),
        ("an unknown coding", "Transfer-Encoding: zip".into(), "0\r\n\r\n"),
        ("chunked not last", "Transfer-Encoding: chunked, gzip".into(), "0\r\n\r\n"),
        ("chunked twice", format!("{chunked}, chunked"), "0\r\n\r\n"),
        (
            "chunked in two fields, identity last",
            format!("{chunked}\r\nTransfer-Encoding: identity"),
            "0\r\n\r\n",
        ),
        ("chunked with something before it", "Transfer-Encoding: xchunked".into(), "0\r\n\r\n"),
        ("chunked in quotes", "Transfer-Encoding: \"chunked\"".into(), "0\r\n\r\n"),
        ("chunked behind a vertical tab", "Transfer-Encoding: \x0bchunked".into(), "0\r\n\r\n"),
        ("an empty coding", "Transfer-Encoding:".into(), "0\r\n\r\n"),
        ("a space before the colon", "Transfer-Encoding : chunked".into(), "0\r\n\r\n"),
        ("a tab before the colon", "Content-Length\t: 1".into(), "x"),
        ("a folded coding", "Transfer-Encoding:\r\n chunked".into(), "0\r\n\r\n"),
        ("a folded field", "X-Folded: a\r\n b".into(), ""),
        ("a field that begins with a space", " X-Odd: a".into(), ""),
        ("a field without a name", ": a".into(), ""),
        ("a field without a colon", "X-Odd".into(), ""),
        ("a name with a space", "X Odd: a".into(), ""),
        ("a bare CR in a value", "X-Odd: a\rTransfer-Encoding: chunked".into(), ""),
        ("a NUL in a value", "X-Odd: a\0b".into(), ""),
        ("a NUL in a name", "X\0Odd: a".into(), ""),
        ("a control byte in a value", "X-Odd: a\x01b".into(), ""),
    ] {
        let request = format!("POST /open HTTP/1.1\r\nHost: gateway.test\r\n{fields}\r\n\r\n{body}{NEXT}");
        refused(&gateway, &upstream, name, request.as_bytes(), &[400, 501]);
    }
    let old = format!("POST /open HTTP/1.0\r\nHost: gateway.test\r\n{chunked}\r\n\r\n0\r\n\r\n{NEXT}");
    refused(&gateway, &upstream, "chunked in HTTP/1.0", old.as_bytes(), &[400]);
}

#[test]
fn a_length_beside_chunks_gives_one_reading_and_the_last_request_of_its_connection() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    for fields in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 6",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        "Content-Length: 6\r\nTransfer-Encoding: CHUNKED",
    ] {
        let before = upstream.requests().len();
        let mut connection = Connection::open(gateway.http());
        let request = format!(
            "POST /open HTTP/1.1\r\nHost: gateway.test\r\n{fields}\r\n\r\n2\r\nab\r\n0\r\n\r\n{NEXT}"
        );
        connection.send(request);
        // RFC 9112 section 6.1: the gateway must refuse the request, or use the chunks, drop the length and close the
        // connection.
        let answer = connection.answer();
        assert!(matches!(answer.status, 200 | 400), "{fields}: {answer:?}");
        connection.is_closed();
        for seen in &upstream.requests()[before..] {
            assert_eq!(
                (&*seen.body, seen.header("content-length")),
                (&b"ab"[..], None),
                "{fields}: {seen:#?}"
            );
            assert!(!seen.mentions("smuggled"), "{fields}: {seen:#?}");
        }
    }
}

#[test]
fn a_line_that_ends_in_a_bare_line_feed_hides_no_request() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    for request in [
        "GET /open HTTP/1.1\nHost: gateway.test\n\n",
        "GET /open HTTP/1.1\r\nHost: gateway.test\r\nX-Odd: a\nX-Auth-Subject: f0rged\r\n\r\n",
        "GET /open HTTP/1.1\r\nHost: gateway.test\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    ] {
        // RFC 9112 section 2.2 permits a bare LF as the end of a line. The gateway must not forward a bare LF, because
        // another recipient may see two fields.
        let mut connection = Connection::open(gateway.http());
        connection.send(request);
        let answer = connection.try_answer("GET");
        assert!(answer.is_none_or(|answer| matches!(answer.status, 200 | 400)), "{request:?}");
        for seen in upstream.requests() {
            assert!(!seen.mentions("f0rged"), "{seen:#?}");
            let text = String::from_utf8_lossy(&seen.head).replace("\r\n", "");
            assert!(!text.contains(['\n', '\r']), "{text:?}");
        }
    }
    Request::get("/").to(gateway.http()).is(200);
}

#[test]
fn chunks_that_two_readers_could_take_differently_are_refused() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    for (name, body) in [
        ("no size", "\r\nx\r\n0\r\n\r\n".to_owned()),
        ("no hexadecimal size", "z\r\nx\r\n0\r\n\r\n".into()),
        ("a signed size", "+1\r\nx\r\n0\r\n\r\n".into()),
        ("a prefixed size", "0x1\r\nx\r\n0\r\n\r\n".into()),
        ("a size beyond 64 bits", "10000000000000001\r\nx\r\n0\r\n\r\n".into()),
        ("a chunk longer than its size", "1\r\nxx\r\n0\r\n\r\n".into()),
        ("a size ended by a bare LF", "1\nx\r\n0\r\n\r\n".into()),
        ("a bare CR in an extension", "1;a\rb\r\nx\r\n0\r\n\r\n".into()),
        ("a bare LF in an extension", "1;a\nb\r\nx\r\n0\r\n\r\n".into()),
        ("a megabyte of extensions", format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(1 << 20))),
        ("a megabyte of trailers", format!("1\r\nx\r\n0\r\n{}\r\n", "x-a: b\r\n".repeat(1 << 17))),
    ] {
        let before = upstream.requests().len();
        let mut connection = Connection::open(gateway.http());
        let head = "POST /open HTTP/1.1\r\nHost: gateway.test\r\nTransfer-Encoding: chunked\r\n\r\n";
        let _ = connection.try_send(format!("{head}{body}{NEXT}"));
        let status = connection.try_answer("GET").map_or(0, |answer| answer.status);
        assert!(matches!(status, 0 | 400 | 413 | 431), "{name}: {status}");
        let rest = connection.rest();
        assert!(!contains(&rest, b"200 OK"), "{name}: {}", String::from_utf8_lossy(&rest));
        let seen = &upstream.requests()[before..];
        assert!(seen.iter().all(|seen| !seen.complete && !seen.mentions("smuggled")), "{name}: {seen:#?}");
        Request::get("/").to(gateway.http()).is(200);
    }
}

#[test]
fn a_host_is_needed_once_and_must_be_the_one_of_the_target() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    for (name, target, hosts) in [
        ("none", "/open", ""),
        ("two", "/open", "Host: gateway.test\r\nHost: evil.test\r\n"),
        ("the same twice", "/open", "Host: gateway.test\r\nHost: gateway.test\r\n"),
        ("empty", "/open", "Host:\r\n"),
        ("two in one", "/open", "Host: gateway.test, evil.test\r\n"),
        ("with a path", "/open", "Host: gateway.test/guarded\r\n"),
        ("with user information", "/open", "Host: evil@gateway.test\r\n"),
        ("with a space", "/open", "Host: gateway.test evil\r\n"),
        ("with a bad port", "/open", "Host: gateway.test:80x\r\n"),
        ("with a port too large", "/open", "Host: gateway.test:65536\r\n"),
        ("with a percent sign", "/open", "Host: gateway%2etest\r\n"),
        ("with a query", "/open", "Host: gateway.test?x\r\n"),
        ("with open brackets", "/open", "Host: [::1\r\n"),
        ("other than the target's", "http://evil.test/open", "Host: gateway.test\r\n"),
        ("other port than the target's", "http://gateway.test:81/open", "Host: gateway.test:82\r\n"),
        ("missing beside a target's", "http://gateway.test/open", ""),
        ("user information in the target", "http://a@gateway.test/open", "Host: gateway.test\r\n"),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\n{hosts}\r\n{NEXT}");
        refused(&gateway, &upstream, name, request.as_bytes(), &[400]);
    }
    let before = upstream.requests().len();
    let absolute = "GET http://gateway.test/open?x HTTP/1.1\r\nHost: gateway.test\r\n\r\n";
    send(gateway.http(), absolute).is(200);
    let seen = upstream.requests().remove(before);
    assert_eq!((&*seen.target, seen.header("host")), ("/open?x", Some("gateway.test")));
}

#[test]
fn an_empty_path_before_a_query_reaches_no_upstream() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    let whole = "GET http://gateway.test?x=1 HTTP/1.1\r\nHost: gateway.test\r\n\r\n";
    send(gateway.http(), whole).is(200);
    assert_eq!(upstream.last_request().target, "/?x=1");
    let before = upstream.requests().len();
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "gateway.test"), (":path", "?x=1")];
    let mut frames = Frames::open(gateway.http());
    let flags = frame::END_STREAM | frame::END_HEADERS;
    let _ = frames.send(frame::HEADERS, flags, 1, &block(&fields));
    assert_eq!(frames.verdict(1), Verdict::Status(400));
    assert_eq!(upstream.requests().len(), before);
}

#[test]
fn targets_that_are_no_path_are_refused() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    for target in [
        "open",
        "*",
        "gateway.test:80",
        "ftp://gateway.test/open",
        "http:///open",
        "//gateway.test/open",
        "/open#fragment",
        "#",
        "/op\x01en",
        "/op\x7fen",
        "/op en",
        "/op\"en<>",
        "/caf\u{e9}",
        "\\open",
    ] {
        let mut request = b"GET ".to_vec();
        // The target is sent as Latin-1 bytes, which readers interpret differently.
        request.extend(target.chars().map(|c| u8::try_from(u32::from(c)).unwrap()));
        request.extend(b" HTTP/1.1\r\nHost: gateway.test\r\n\r\n");
        refused(&gateway, &upstream, target, &request, &[400, 404]);
    }
    let connect = b"CONNECT gateway.test:443 HTTP/1.1\r\nHost: gateway.test:443\r\n\r\n";
    refused(&gateway, &upstream, "CONNECT", connect, &[400, 404, 405, 501]);
    let options = send(gateway.http(), "OPTIONS * HTTP/1.1\r\nHost: gateway.test\r\n\r\n");
    assert!(matches!(options.status, 400 | 404 | 405), "{options:#?}");
}

#[test]
fn request_lines_that_are_none_are_refused() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    for (name, line) in [
        ("HTTP/0.9", "GET /open"),
        ("no version", "GET /open \r\nHost: gateway.test"),
        ("HTTP/1.2", "GET /open HTTP/1.2\r\nHost: gateway.test"),
        ("HTTP/2.0", "GET /open HTTP/2.0\r\nHost: gateway.test"),
        ("lower case", "GET /open http/1.1\r\nHost: gateway.test"),
        ("a tab", "GET\t/open\tHTTP/1.1\r\nHost: gateway.test"),
        ("a space in front", " GET /open HTTP/1.1\r\nHost: gateway.test"),
        ("a method of odd bytes", "G@T()/ /open HTTP/1.1\r\nHost: gateway.test"),
        ("no method", "/open HTTP/1.1\r\nHost: gateway.test"),
    ] {
        refused(&gateway, &upstream, name, format!("{line}\r\n\r\n").as_bytes(), &[0, 400, 404, 405, 505]);
    }
}

#[test]
fn garbage_ends_the_connection_and_nothing_else() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    for (name, bytes) in [
        ("zeros", vec![0; 4096]),
        ("all bytes", (0..=255).cycle().take(4096).collect()),
        ("a TLS ClientHello", [&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01][..], &[0; 600]].concat()),
        ("an SSH banner", b"SSH-2.0-OpenSSH_9.6\r\n\r\n".to_vec()),
        (
            "an HTTP/2 preface and garbage",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        ),
        (
            "a PROXY header",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\nHost: gateway.test\r\n\r\n".to_vec(),
        ),
    ] {
        let mut connection = Connection::open(gateway.http());
        let _ = connection.try_send(bytes);
        connection.finish();
        let answer = connection.rest();
        assert!(!contains(&answer, b"200 OK"), "{name}");
        Request::get("/").to(gateway.http()).is(200);
    }
    assert!(upstream.requests().iter().all(|seen| seen.target == "/"));
}

#[test]
fn heads_that_are_too_large_are_refused_with_431() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    let head = |fields: &str| format!("GET /open HTTP/1.1\r\nHost: gateway.test\r\n{fields}\r\n");
    let too_large: [(&str, String); 4] = [
        ("one field of 40 KiB", head(&format!("X-Large: {}\r\n", "x".repeat(40 << 10)))),
        ("one field of 1 MiB", head(&format!("X-Large: {}\r\n", "x".repeat(1 << 20)))),
        ("101 fields", head(&"X-Many: 1\r\n".repeat(100))),
        ("10,000 fields", head(&"a:1\r\n".repeat(10_000))),
    ];
    for (name, request) in too_large {
        refused(&gateway, &upstream, name, request.as_bytes(), &[431]);
    }
    let long = format!("GET /open?{} HTTP/1.1\r\nHost: gateway.test\r\n\r\n", "x".repeat(80 << 10));
    refused(&gateway, &upstream, "a target of 80 KiB", long.as_bytes(), &[400, 414, 431]);
    let before = upstream.requests().len();
    send(gateway.http(), head(&"X-Many: 1\r\n".repeat(99))).is(200);
    send(gateway.http(), head(&format!("X-Large: {}\r\n", "x".repeat(30 << 10)))).is(200);
    assert_eq!(upstream.requests().len(), before + 2, "what is within the bounds passes");
}

#[test]
fn bounds_on_heads_are_the_policys() {
    let upstream = Upstream::start();
    let gateway =
        gateway(&upstream, &format!("[server.bounds]\nheader_size = \"1KiB\"\nheaders = 5\n{ROUTES}"));
    let head = |fields: &str| format!("GET /open HTTP/1.1\r\nHost: gateway.test\r\n{fields}\r\n");
    send(gateway.http(), head(&"X-Many: 1\r\n".repeat(4))).is(200);
    send(gateway.http(), head(&"X-Many: 1\r\n".repeat(5))).is_refusal(431, "headers_too_large");
    send(gateway.http(), head(&format!("X-Large: {}\r\n", "x".repeat(900)))).is(200);
    send(gateway.http(), head(&format!("X-Large: {}\r\n", "x".repeat(1100))))
        .is_refusal(431, "headers_too_large");
    assert_eq!(upstream.requests().len(), 2);
}

#[test]
fn heads_that_come_too_slowly_are_given_up_and_others_are_served_meanwhile() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &format!("[server.bounds]\nheader_timeout = \"1s\"\n{ROUTES}"));
    let begun = Instant::now();
    let mut slow: Vec<_> = (0..100)
        .map(|number| {
            let mut connection = Connection::open(gateway.http());
            // Every other connection begins a head. The rest send no byte.
            if number % 2 == 0 {
                connection.send("GET /open HTTP/1.1\r\nHost: gate");
            }
            connection
        })
        .collect();
    Request::get("/").to(gateway.http()).is(200);
    for (number, connection) in slow.iter_mut().enumerate() {
        let answer = String::from_utf8(connection.rest()).unwrap();
        if number % 2 == 0 {
            assert!(answer.starts_with("HTTP/1.1 408 "), "{answer:?}");
        } else {
            assert_eq!(answer, "");
        }
    }
    assert!(begun.elapsed().as_secs() < 10, "all were given up: {:?}", begun.elapsed());
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn bytes_that_trickle_do_not_buy_time() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &format!("[server.bounds]\nheader_timeout = \"1s\"\n{ROUTES}"));
    let mut connection = Connection::open(gateway.http());
    connection.send("GET /open HTTP/1.1\r\nHost: gateway.test\r\n");
    let begun = Instant::now();
    let mut sent = 0;
    while connection.try_send("X-Slow: 1\r\n").is_ok() {
        sent += 1;
        assert!(begun.elapsed().as_secs() < 10, "{sent} fields, and the gateway still waits");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    upstream.saw_nothing();
}

#[test]
fn idle_connections_are_closed_in_time() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &format!("[server.bounds]\nidle_timeout = \"1s\"\n{ROUTES}"));
    let mut connection = Connection::open(gateway.http());
    Request::get("/").over(&mut connection).is(200);
    Request::get("/").over(&mut connection).is(200);
    connection.is_closed();
}

#[test]
fn more_connections_than_the_bound_are_turned_away_until_one_leaves() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &format!("[server.bounds]\nconnections = 3\n{ROUTES}"));
    let mut kept: Vec<_> = (0..3).map(|_| Connection::open(gateway.http())).collect();
    for connection in &mut kept {
        Request::get("/").over(connection).is(200);
    }
    let mut refused = Connection::open(gateway.http());
    let _ = refused.try_send(Request::get("/").bytes());
    assert!(refused.try_answer("GET").is_none_or(|answer| answer.status == 503));
    assert_eq!(upstream.requests().len(), 3);
    kept.pop();
    crate::kit::eventually("a place is free again", || {
        let mut connection = Connection::open(gateway.http());
        connection.try_send(Request::get("/").bytes()).is_ok()
            && connection.try_answer("GET").is_some_and(|answer| answer.status == 200)
    });
}

#[test]
fn pipelined_requests_are_answered_in_order_and_each_by_its_own_verdict() {
    let upstream = Upstream::with(|seen, wire| {
        wire.read_body();
        wire.answer("200 OK", "", seen.header("x-number").unwrap_or_default());
        crate::kit::upstream::After::Keep
    });
    let gateway = gateway(&upstream, ROUTES);
    let mut connection = Connection::open(gateway.http());
    let request = |path: &str, number: &str| Request::get(path).header("X-Number", number).bytes();
    let mut bytes = Vec::new();
    for number in 0..10 {
        let path = if number % 3 == 2 { "/guarded" } else { "/open" };
        bytes.extend(request(path, &number.to_string()));
    }
    connection.send(bytes);
    for number in 0..10 {
        let answer: Answer = connection.answer();
        if number % 3 == 2 {
            answer.is_refusal(401, "missing_token");
        } else {
            assert_eq!(answer.is(200).text(), number.to_string());
        }
    }
    assert!(upstream.requests().iter().all(|seen| seen.target == "/open"));
}

#[test]
fn a_client_of_http_1_0_is_served_and_its_connection_closed() {
    let upstream =
        Upstream::answering("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    let gateway = gateway(&upstream, ROUTES);
    let mut connection = Connection::open(gateway.http());
    connection.send("GET /open HTTP/1.0\r\nHost: gateway.test\r\n\r\n");
    let answer = connection.answer();
    assert_eq!(answer.is(200).text(), "ok");
    assert_eq!(answer.header("transfer-encoding"), None, "HTTP/1.0 knows no chunks: {answer:#?}");
    connection.is_closed();
    let seen = upstream.only_request();
    assert!(String::from_utf8_lossy(&seen.head).starts_with("GET /open HTTP/1.1\r\n"));
    send(gateway.http(), "GET /open HTTP/1.0\r\n\r\n").is(200);
    let host = upstream.to_string().replace("http://", "");
    assert_eq!(upstream.last_request().header("host"), Some(&*host), "HTTP/1.1 asks for one");
}

#[test]
fn a_connection_is_kept_as_long_as_the_client_wants() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, PUBLIC);
    let mut connection = Connection::open(gateway.http());
    for _ in 0..3 {
        Request::get("/").over(&mut connection).is(200);
    }
    Request::get("/").header("Connection", "close").over(&mut connection).is(200);
    connection.is_closed();
}

#[test]
fn a_cleartext_port_that_redirects_serves_nothing_itself() {
    let upstream = Upstream::start();
    let gateway = Portcullis::with(&format!(
        "[server]\nplain = \"redirect\"\nhttps = \"127.0.0.1:0\"\n{}",
        policy(&upstream, PUBLIC)
    ))
    .start();
    let port = gateway.https().port();
    let answer = Request::get("/a/./b?x=1").host("gateway.test:80").to(gateway.http());
    assert_eq!(answer.status, 308);
    assert_eq!(answer.header("location"), Some(&*format!("https://gateway.test:{port}/a/b?x=1")));
    assert_eq!(answer.header("strict-transport-security"), None, "not over cleartext (RFC 6797 section 7.2)");
    for request in
        ["GET /\\evil.test HTTP/1.1\r\nHost: gateway.test\r\n\r\n", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"]
    {
        assert_eq!(send(gateway.http(), request).status, 400, "{request:?}");
    }
    let double = send(gateway.http(), "GET //evil.test/ HTTP/1.1\r\nHost: gateway.test\r\n\r\n");
    assert_eq!(double.header("location"), None, "{double:#?}");
    upstream.saw_nothing();
}

#[test]
fn a_refusal_that_the_library_below_makes_is_as_short_as_ours_and_logged() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    let mut connection = Connection::open(gateway.http());
    connection.send("GET /open HTTP/1.1\r\nHost: gateway.test\r\nX Odd: 1\r\n\r\n");
    let bytes = connection.rest();
    assert!(end_of_head(&bytes).is_some() && bytes.starts_with(b"HTTP/1.1 400 "));
    gateway.wait_log("a request that could not be read", |line| line["status"] == 400);
}

/// For any sequence of pieces, every forwarded request is well-formed, has one framing, and has no forged identity.
#[test]
fn no_patchwork_of_bytes_becomes_a_request_with_two_readings() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, ROUTES);
    let pieces = vec(select(PIECES.to_vec()), 1..14);
    let mut runner = TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    let result = runner.run(&(pieces, any::<bool>(), any::<bool>()), |(pieces, begins_well, ends_well)| {
        let before = upstream.requests().len();
        let mut bytes =
            if begins_well { "POST /open HTTP/1.1\r\nHost: gateway.test\r\n" } else { "" }.to_owned();
        bytes.extend(pieces);
        bytes.push_str(if ends_well { "\r\n\r\n" } else { "" });
        let mut connection = Connection::open(gateway.http());
        let _ = connection.try_send(&bytes);
        connection.finish();
        connection.rest();
        for seen in &upstream.requests()[before..] {
            let lines = String::from_utf8_lossy(&seen.head).replace("\r\n", "");
            let count = |name: &str| values(&seen.headers, name).len();
            prop_assert!(!lines.contains(['\r', '\n', '\0']), "{seen:#?}");
            prop_assert!(seen.target == "/open" || seen.target == "/", "{seen:#?}");
            prop_assert_eq!(count("host"), 1, "{:#?}", seen);
            prop_assert!(count("content-length") + count("transfer-encoding") <= 1, "{seen:#?}");
            let folded = |name: &str| name.to_lowercase().replace(|c: char| !c.is_alphanumeric(), "-");
            let forged = seen.headers.iter().any(|(name, _)| folded(name).starts_with("x-auth-"));
            prop_assert!(!forged && seen.trailers.is_empty(), "{seen:#?}");
        }
        Ok(())
    });
    result.unwrap_or_else(|fault| panic!("{fault}"));
    Request::get("/").to(gateway.http()).is(200);
    assert!(upstream.requests().len() > 10, "some of them were requests");
}

/// Pieces of valid requests, and pieces that break them.
const PIECES: [&str; 26] = [
    "GET /open HTTP/1.1\r\n",
    "GET /guarded HTTP/1.1\r\n",
    "POST / HTTP/1.0\r\n",
    "Host: gateway.test\r\n",
    "Host: evil.test\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "content-length : 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "transfer_encoding: chunked\r\n",
    "X-Auth-Subject: f0rged\r\n",
    "X_Auth_Subject: f0rged\r\n",
    "X-Odd: a\nX-Auth-Subject: f0rged\r\n",
    "X-Odd: a\r\n X-Auth-Subject: f0rged\r\n",
    "Connection: X-Request-Id\r\n",
    "X-Odd: \0\r\n",
    "hello",
    "5\r\nhello\r\n",
    "0\r\n\r\n",
    "0\r\nX-Auth-Subject: f0rged\r\n\r\n",
    "\r\n",
    "\n",
    "\r",
    " ",
    ":",
];
