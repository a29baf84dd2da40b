//! HTTP/2 from the client, HTTP/1.1 to the upstream.

use crate::encrypted;
use crate::kit::http2::{Frames, Verdict, block, exchange, frame, request};
use crate::kit::upstream::{After, Gate};
use crate::kit::{PATIENCE, Portcullis, Request, Upstream, token, values};
use bytes::Bytes;
use std::time::{Duration, Instant};

const ROUTES: &str = r#"
[[route]]
path     = "/open"
upstream = "app"
access   = "public"

[[route]]
path     = "/guarded"
upstream = "app"
roles    = ["clerk"]
"#;

#[test]
fn a_client_of_http_2_reaches_an_upstream_of_http_1() {
    let upstream = Upstream::start();
    let gateway = encrypted(&upstream, ROUTES);
    let bearer = format!("Bearer {}", token("ada").role("clerk"));
    let answers = exchange(
        gateway.https(),
        vec![
            request("GET", "/open?x=1").body(Bytes::new()).unwrap(),
            request("GET", "/guarded").body(Bytes::new()).unwrap(),
            request("POST", "/guarded").header("authorization", &bearer).body(Bytes::from("body")).unwrap(),
        ],
    );
    answers[0].is(200);
    answers[1].is_refusal(401, "missing_token");
    answers[2].is(200);
    assert_eq!(answers[2].text(), "upstream");
    let seen = upstream.requests();
    assert_eq!(seen.len(), 2);
    assert!(String::from_utf8_lossy(&seen[0].head).starts_with("GET /open?x=1 HTTP/1.1\r\n"));
    assert_eq!(seen[0].header("host"), Some("gateway.test"));
    assert_eq!(seen[0].header("x-forwarded-proto"), Some("https"));
    assert_eq!((&*seen[1].body, seen[1].header("x-auth-subject")), (&b"body"[..], Some("ada")));
    assert_eq!(gateway.access_line(&answers[0])["version"], "HTTP/2");
}

#[test]
fn no_byte_of_a_frame_is_taken_for_something_of_http_1() {
    let upstream = Upstream::start();
    let gateway = encrypted(&upstream, ROUTES);
    let requests = (0..256).map(|number| {
        let text: String =
            (0..=number % 64).map(|at| char::from(b'!' + ((number * 7 + at * 13) % 90) as u8)).collect();
        request("GET", "/open").header("x-text", text).body(Bytes::new()).unwrap()
    });
    for answer in exchange(gateway.https(), requests.collect()) {
        answer.is(200);
    }
    assert_eq!(upstream.requests().len(), 256);
}

#[test]
fn authority_and_host_agree_or_the_request_is_refused() {
    let upstream = Upstream::start();
    let gateway = encrypted(&upstream, ROUTES);
    let answers = exchange(
        gateway.https(),
        vec![
            request("GET", "/open").header("host", "evil.test").body(Bytes::new()).unwrap(),
            request("GET", "/open").header("host", "gateway.test").body(Bytes::new()).unwrap(),
        ],
    );
    answers[0].is_refusal(400, "bad_request");
    answers[1].is(200);
    assert_eq!(upstream.only_request().header("host"), Some("gateway.test"));
}

#[test]
fn cookies_that_came_in_pieces_go_on_as_one_field() {
    let upstream = Upstream::start();
    let gateway = encrypted(&upstream, ROUTES);
    let pieces = request("GET", "/open").header("cookie", "a=1").header("cookie", "b=2").body(Bytes::new());
    exchange(gateway.https(), vec![pieces.unwrap()])[0].is(200);
    // RFC 9113 section 8.2.3: the pieces of a cookie field are joined before they are forwarded over HTTP/1.1.
    assert_eq!(values(&upstream.only_request().headers, "cookie"), ["a=1; b=2"]);
}

#[test]
fn identity_is_as_safe_over_http_2() {
    let upstream = Upstream::start();
    let gateway = encrypted(&upstream, ROUTES);
    let forged = request("GET", "/open")
        .header("x-auth-subject", "f0rged")
        .header("x_auth_roles", "f0rged")
        .header("x-forwarded-for", "f0rged")
        .header("x-original-url", "/f0rged");
    exchange(gateway.https(), vec![forged.body(Bytes::new()).unwrap()])[0].is(200);
    assert!(!upstream.only_request().mentions("f0rged"));
}

#[test]
fn trailers_of_an_answer_pass() {
    let upstream = Upstream::with(|_, wire| {
        wire.read_body();
        wire.send(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\ngrpc-status: 0\r\n\r\n",
        );
        After::Keep
    });
    let gateway = encrypted(&upstream, ROUTES);
    let answers = exchange(gateway.https(), vec![request("GET", "/open").body(Bytes::new()).unwrap()]);
    assert_eq!(values(&answers[0].trailers, "grpc-status"), ["0"]);
}

#[test]
fn an_answer_that_is_cut_looks_cut_over_http_2_as_well() {
    let upstream = Upstream::with(|_, wire| {
        wire.read_body();
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf ");
        After::Close
    });
    let gateway = encrypted(&upstream, ROUTES);
    let answers = exchange(gateway.https(), vec![request("GET", "/open").body(Bytes::new()).unwrap()]);
    assert!(!answers[0].complete, "{answers:#?}");
}

/// The fields of a good request.
const GOOD: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "gateway.test"), (":path", "/open")];

fn whole(frames: &mut Frames, stream: u32, fields: &[(&str, &str)]) -> Verdict {
    let flags = frame::END_STREAM | frame::END_HEADERS;
    let _ = frames.send(frame::HEADERS, flags, stream, &block(fields));
    frames.verdict(stream)
}

#[test]
fn fields_that_would_be_two_requests_in_http_1_are_refused() {
    let upstream = Upstream::start();
    let gateway = encrypted(&upstream, ROUTES);
    let with = |more: &[(&'static str, &'static str)]| [&GOOD[..], more].concat();
    let path = |path: &'static str| [GOOD[0], GOOD[1], GOOD[2], (":path", path)].to_vec();
    assert_eq!(whole(&mut Frames::open(gateway.http()), 1, &GOOD), Verdict::Status(200));
    for (name, fields) in [
        ("CR LF in a value", with(&[("x-odd", "a\r\nx-auth-subject: root")])),
        ("LF in a value", with(&[("x-odd", "a\nb")])),
        ("NUL in a value", with(&[("x-odd", "a\0b")])),
        ("CR LF in a name", with(&[("x-odd\r\nx", "a")])),
        ("a colon in a name", with(&[("x-odd: a", "b")])),
        ("an upper-case name", with(&[("X-Odd", "a")])),
        ("a space in a name", with(&[("x odd", "a")])),
        ("an empty name", with(&[("", "a")])),
        ("a transfer coding", with(&[("transfer-encoding", "chunked")])),
        ("a connection field", with(&[("connection", "x-auth-subject")])),
        ("CR LF in the path", path("/open HTTP/1.1\r\nx: y")),
        ("a space in the path", path("/open x")),
        ("no path", path("")),
        ("a path without a slash", path("open")),
        ("an encoded slash", path("/open%2f")),
        ("a climb", path("/../open")),
        ("two paths", with(&[(":path", "/guarded")])),
        ("two methods", with(&[(":method", "POST")])),
        ("two authorities", with(&[(":authority", "evil.test")])),
        ("an unknown pseudo-header", with(&[(":odd", "x")])),
        ("a pseudo-header of answers", with(&[(":status", "200")])),
        ("a pseudo-header after a field", [&[("x", "y")][..], &GOOD].concat()),
        ("no method", GOOD[1..].to_vec()),
        ("CONNECT", [(":method", "CONNECT"), (":authority", "gateway.test:80")].to_vec()),
        (
            "user information in the authority",
            with(&[])
                .into_iter()
                .map(|(name, value)| (name, if name == ":authority" { "root@gateway.test" } else { value }))
                .collect(),
        ),
    ] {
        let verdict = whole(&mut Frames::open(gateway.http()), 1, &fields);
        assert_ne!(verdict, Verdict::Status(200), "{name}");
        let seen = upstream.requests();
        assert_eq!(seen.len(), 1, "{name}: {:#?}", seen.last());
    }
    // The HTTP library drops a fragment silently. The gateway decides on the remaining target and forwards it.
    whole(&mut Frames::open(gateway.http()), 1, &path("/open#/../guarded"));
    assert!(upstream.requests().iter().all(|seen| seen.target == "/open"), "{:#?}", upstream.requests());
    Request::get("/open").to(gateway.http()).is(200);
}

#[test]
fn a_length_that_differs_from_the_data_is_never_taken_for_a_whole_request() {
    let upstream = Upstream::start();
    let gateway = encrypted(&upstream, ROUTES);
    for (length, data) in [("10", &b"short"[..]), ("2", &b"too long"[..]), ("0", &b"x"[..])] {
        let mut frames = Frames::open(gateway.http());
        let mut fields = GOOD.to_vec();
        fields[0] = (":method", "POST");
        fields.push(("content-length", length));
        let _ = frames.send(frame::HEADERS, frame::END_HEADERS, 1, &block(&fields));
        let _ = frames.send(frame::DATA, frame::END_STREAM, 1, data);
        assert_ne!(frames.verdict(1), Verdict::Status(200), "{length}");
        assert!(!upstream.requests().iter().any(|seen| seen.complete), "{:#?}", upstream.requests());
    }
    Request::get("/open").to(gateway.http()).is(200);
}

#[test]
fn a_stream_that_the_client_resets_takes_its_request_back() {
    let upstream = Upstream::with(|_, wire| {
        wire.read_body();
        wire.peer_left();
        After::Close
    });
    let gateway = encrypted(&upstream, ROUTES);
    let mut frames = Frames::open(gateway.http());
    frames.send(frame::HEADERS, frame::END_STREAM | frame::END_HEADERS, 1, &block(&GOOD)).unwrap();
    upstream.wait_for_requests(1);
    frames.send(frame::RST_STREAM, 0, 1, &8u32.to_be_bytes()).unwrap();
    upstream.wait_for_departure();
}

#[test]
fn a_draining_gateway_finishes_the_streams_that_are_open_and_says_goodbye() {
    let gate = Gate::new();
    let upstream = Upstream::held_by(&gate);
    let mut gateway = encrypted(&upstream, ROUTES);
    let mut frames = Frames::open(gateway.http());
    frames.send(frame::HEADERS, frame::END_STREAM | frame::END_HEADERS, 1, &block(&GOOD)).unwrap();
    upstream.wait_for_requests(1);
    gateway.signal("TERM");
    gate.open();
    assert_eq!(frames.verdict(1), Verdict::Status(200), "the open stream is answered");
    while frames.next().expect("goodbye before the end").kind != frame::GOAWAY {}
    assert_eq!(gateway.exit_code(), Some(0));
}

/// Sends frames until the gateway ends the connection, at most 20,000. Checks that the gateway's memory stays bounded
/// and that it serves other clients.
#[track_caller]
fn flooded(gateway: &Portcullis, name: &str, mut flood: impl FnMut(&mut Frames, u32) -> std::io::Result<()>) {
    let before = gateway.peak_memory();
    let mut frames = Frames::open(gateway.http());
    let mut cut = (0..20_000).any(|number| flood(&mut frames, number).is_err());
    let deadline = Instant::now() + PATIENCE;
    while !cut {
        cut = frames.next().is_none_or(|frame| frame.kind == frame::GOAWAY);
        assert!(Instant::now() < deadline, "{name}: the connection is ended");
    }
    let growth = gateway.peak_memory().saturating_sub(before);
    assert!(growth < 32 << 20, "{name}: {growth} bytes");
    Request::get("/open").to(gateway.http()).is(200);
}

#[test]
fn floods_of_frames_cost_bounded_memory_and_end_the_connection() {
    let upstream = Upstream::start();
    let gateway = encrypted(&upstream, ROUTES);
    Request::get("/open").to(gateway.http()).is(200);
    let head = block(&GOOD);
    flooded(&gateway, "rapid reset", |frames, number| {
        let stream = 2 * number + 1;
        frames.send(frame::HEADERS, frame::END_STREAM | frame::END_HEADERS, stream, &head)?;
        frames.send(frame::RST_STREAM, 0, stream, &8u32.to_be_bytes())
    });
    flooded(&gateway, "endless continuation", |frames, number| {
        if number == 0 {
            return frames.send(frame::HEADERS, frame::END_STREAM, 1, &head);
        }
        frames.send(frame::CONTINUATION, 0, 1, &block(&[("x-more", &"y".repeat(1000))]))
    });
    flooded(&gateway, "empty data", |frames, number| {
        if number == 0 {
            let post = block(&[(":method", "POST"), GOOD[1], GOOD[2], GOOD[3]]);
            return frames.send(frame::HEADERS, frame::END_HEADERS, 1, &post);
        }
        frames.send(frame::DATA, 0, 1, &[])
    });
}

#[test]
fn control_frames_of_a_client_that_reads_nothing_cost_bounded_memory() {
    let upstream = Upstream::start();
    let gateway = encrypted(&upstream, ROUTES);
    Request::get("/open").to(gateway.http()).is(200);
    let before = gateway.peak_memory();
    for (kind, payload) in [(frame::PING, &[7; 8][..]), (frame::SETTINGS, &[0, 3, 0, 0, 0, 9])] {
        let mut frames = Frames::open(gateway.http());
        // The gateway may stop reading or end the connection; either bounds its memory.
        frames.write_timeout(Duration::from_millis(500));
        let _ = (0..200_000).all(|_| frames.send(kind, 0, 0, payload).is_ok());
    }
    let growth = gateway.peak_memory().saturating_sub(before);
    assert!(growth < 32 << 20, "{growth} bytes");
    Request::get("/open").to(gateway.http()).is(200);
}

#[test]
fn a_header_list_that_is_too_large_is_refused() {
    let upstream = Upstream::start();
    let gateway = encrypted(&upstream, ROUTES);
    let large = "x".repeat(15 << 10);
    let fields = [&GOOD[..], &[("x-a", &*large), ("x-b", &large), ("x-c", &large), ("x-d", &large)]].concat();
    let block = block(&fields);
    let mut frames = Frames::open(gateway.http());
    let mut pieces = block.chunks(16_000).peekable();
    let mut kind = frame::HEADERS;
    let mut flags = frame::END_STREAM;
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            flags |= frame::END_HEADERS;
        }
        if frames.send(kind, flags, 1, piece).is_err() {
            break;
        }
        (kind, flags) = (frame::CONTINUATION, 0);
    }
    assert_ne!(frames.verdict(1), Verdict::Status(200));
    upstream.saw_nothing();
}
