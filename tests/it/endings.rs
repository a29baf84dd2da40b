//! The end of an answer: no data is cut off, and no connection stays open forever.

use crate::kit::http2::{Frames, Verdict, block, frame};
use crate::kit::upstream::{After, Gate};
use crate::kit::{Connection, Portcullis, Request, Upstream, eventually};
use crate::{PUBLIC, gateway, policy};
use std::time::{Duration, Instant};

const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "gateway.test"), (":path", "/")];
const WHOLE: u8 = frame::END_STREAM | frame::END_HEADERS;
/// SETTINGS_INITIAL_WINDOW_SIZE 0 (RFC 9113 section 6.5.2).
const NO_WINDOW: [u8; 6] = [0, 4, 0, 0, 0, 0];

/// Opens a connection, reads the head of the answer, and has no window for the body yet.
fn without_window(gateway: &Portcullis) -> Frames {
    let mut frames = Frames::open_with(gateway.http(), &NO_WINDOW);
    frames.send(frame::HEADERS, WHOLE, 1, &block(&GET)).unwrap();
    assert_eq!(frames.verdict(1), Verdict::Status(200));
    frames
}

/// Opens the window, and returns the body.
fn body(frames: &mut Frames) -> Vec<u8> {
    frames.send(frame::WINDOW_UPDATE, 0, 1, &100_u32.to_be_bytes()).unwrap();
    let data = std::iter::from_fn(|| frames.next()).find(|it| it.kind == frame::DATA);
    data.expect("the connection closed before the body came").payload
}

fn greeting() -> Upstream {
    Upstream::with(|_, wire| {
        wire.answer("200 OK", "", "hello");
        After::Keep
    })
}

/// docs/waits.md: a client has `body_timeout` to open its window, whatever `idle_timeout` is.
#[test]
fn a_connection_whose_client_has_not_taken_its_answer_is_not_idle() {
    let upstream = greeting();
    let gateway = gateway(&upstream, &format!("[server.bounds]\nidle_timeout = \"1s\"\n{PUBLIC}"));
    let mut frames = without_window(&gateway);
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(body(&mut frames), b"hello");
}

/// `complete` in the log is true exactly when the client's connection has accepted the whole answer.
#[test]
fn an_answer_whose_client_opens_no_window_is_not_complete() {
    let upstream = greeting();
    let bounds = "[server.bounds]\nbody_timeout = \"1s\"\nidle_timeout = \"1s\"";
    let gateway = gateway(&upstream, &format!("{bounds}\n{PUBLIC}"));
    let mut frames = without_window(&gateway);
    let reset = std::iter::from_fn(|| frames.next()).find(|it| it.kind == frame::RST_STREAM);
    let reset = reset.expect("the stream is given up before the connection is idle");
    assert_eq!((reset.stream, &reset.payload[..]), (1, &8_u32.to_be_bytes()[..]), "CANCEL");
    let line = gateway.wait_log("the request", |line| line["path"] == "/");
    assert_eq!(line["complete"], false, "{line}");
}

/// docs/waits.md: an answer in progress may continue for as long as `drain` allows.
#[test]
fn an_answer_that_waits_for_its_window_is_not_cut_by_the_order_to_stop() {
    let upstream = greeting();
    let mut gateway = Portcullis::with(&policy(&upstream, PUBLIC)).start();
    let mut frames = without_window(&gateway);
    gateway.signal("TERM");
    eventually("it drains", || Request::get("/readyz").to(gateway.admin()).status == 503);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(body(&mut frames), b"hello");
    drop(frames);
    assert_eq!(gateway.exit_code(), Some(0));
}

/// A server that answers, but neither reads the rest of the request nor closes the connection, must not occupy one of
/// the upstream's `connections` forever.
#[test]
fn a_connection_on_which_a_server_reads_nothing_more_is_closed() {
    let over = Gate::new();
    let held = over.clone();
    let upstream = Upstream::with(move |seen, wire| {
        wire.answer("200 OK", "", "");
        if seen.method == "POST" {
            held.wait();
            return After::Close;
        }
        After::Keep
    });
    let bounded = format!(
        "[server.bounds]\nbody_size = \"64MiB\"\n{}\n[upstream.app]\nservers = [\"{upstream}\"]\nconnections = 1\ntimeout = \"1s\"\n{PUBLIC}",
        crate::kit::ISSUER
    );
    let gateway = Portcullis::with(&bounded).start();
    let begun = Instant::now();
    let mut connection = Connection::open(gateway.http());
    connection.send(format!("POST / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: {}\r\n\r\n", 64 << 20));
    // The body exceeds the buffers between the client and the server.
    let sender = std::thread::spawn(move || {
        connection.write_timeout(Duration::from_secs(2));
        let _ = connection.try_send(vec![b'x'; 32 << 20]);
    });
    sender.join().unwrap();
    Request::get("/").to(gateway.http()).is_refusal(503, "overloaded");
    let is_free = || Request::get("/").to(gateway.http()).status == 200;
    while !is_free() {
        assert!(begun.elapsed() < Duration::from_secs(25), "its place is not given back");
    }
    over.open();
}
