//! Every wait ends. Tests each row of docs/waits.md, over HTTP/1.1 and HTTP/2.

use crate::kit::account::AUTHORITY;
use crate::kit::http2::{Frames, Verdict, block, frame};
use crate::kit::upstream::After;
use crate::kit::{Connection, PATIENCE, Portcullis, Request, Upstream, eventually};
use crate::{PUBLIC, gateway, policy};
use std::time::{Duration, Instant};

const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "gateway.test"), (":path", "/")];
const POST: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":authority", "gateway.test"), (":path", "/")];
const WHOLE: u8 = frame::END_STREAM | frame::END_HEADERS;
/// The time between two steps of a client that is slow on purpose.
const STEP: Duration = Duration::from_millis(200);
const MIB: usize = 1 << 20;

fn bounded(bounds: &str) -> String {
    format!("[server.bounds]\n{bounds}\n{PUBLIC}")
}

/// Starts an upstream that answers with this many bytes, and waits until the gateway closes the connection.
fn large(bytes: usize) -> Upstream {
    Upstream::with(move |_, wire| {
        wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n"));
        let piece = vec![b'y'; MIB.min(bytes)];
        for _ in 0..bytes / piece.len() {
            wire.send(&piece);
        }
        wire.peer_left();
        After::Close
    })
}

/// Calls `send` once per step until it returns false.
fn steadily(mut send: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while send() {
        assert!(Instant::now() < deadline, "the slow client is cut off");
        std::thread::sleep(STEP);
    }
}

fn timeouts(gateway: &Portcullis, of: &str, waited_for: &str) -> u64 {
    let sample = format!("portcullis_{of}_timeouts_total{{waited_for=\"{waited_for}\"}}");
    gateway.metric(&sample).expect("the counter is there from the start")
}

/// RFC 9113 sections 9.1 and 6.8.
#[test]
fn an_idle_connection_of_http_2_lives_as_long_as_one_of_http_1_and_ends_with_goodbye() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &bounded("header_timeout = \"1s\"\nidle_timeout = \"3s\""));
    // One connection has been used, and one has not. Both send control frames continuously.
    let mut used = Frames::open(gateway.http());
    used.send(frame::HEADERS, WHOLE, 1, &block(&GET)).unwrap();
    assert_eq!(used.verdict(1), Verdict::Status(200));
    let begun = Instant::now();
    let unused = Frames::open(gateway.http());
    let ends = [used, unused].map(|mut frames| {
        let mut writer = frames.writer();
        std::thread::spawn(move || {
            let pings = std::thread::spawn(move || {
                let mut number = 0_u64;
                while writer.send(frame::PING, 0, 0, &number.to_be_bytes()).is_ok() {
                    number += 1;
                    std::thread::sleep(STEP);
                }
            });
            let goodbye = std::iter::from_fn(|| frames.next()).find(|it| it.kind == frame::GOAWAY);
            let said = begun.elapsed();
            while frames.next().is_some() {}
            drop(frames);
            pings.join().unwrap();
            (goodbye.expect("it says goodbye first"), said)
        })
    });
    for end in ends {
        let (goodbye, said) = end.join().unwrap();
        assert_eq!(goodbye.payload[4..8], [0; 4], "NO_ERROR");
        assert!(said >= Duration::from_secs(3) && said < Duration::from_secs(8), "{said:?}");
    }
    eventually("both are counted as idle", || timeouts(&gateway, "connection", "idle") == 2);
    assert_eq!(timeouts(&gateway, "connection", "head"), 0);
}

/// RFC 9113 section 6.8: a request that crosses the gateway's GOAWAY is answered.
#[test]
fn a_request_that_crosses_the_goodbye_is_answered() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &bounded("idle_timeout = \"1s\""));
    let mut frames = Frames::open(gateway.http());
    while frames.next().expect("it says goodbye first").kind != frame::GOAWAY {}
    frames.send(frame::HEADERS, WHOLE, 1, &block(&GET)).unwrap();
    assert_eq!(frames.verdict(1), Verdict::Status(200));
}

#[test]
fn half_a_head_is_due_within_header_timeout_and_logged() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &bounded("header_timeout = \"1s\""));
    let begun = Instant::now();
    let mut connection = Connection::open(gateway.http());
    connection.send("GET /slow?token=x HTTP/1.1\r\nHost: gateway.test\r\n");
    let answer = connection.answer();
    answer.is_refusal(408, "request_timeout");
    assert!(begun.elapsed() >= Duration::from_secs(1), "never early");
    assert_eq!(answer.header("connection"), Some("close"));
    connection.is_closed();
    let line = gateway.access_line(&answer);
    assert_eq!((&line["method"], &line["path"]), (&"GET".into(), &"/slow".into()), "{line}");
    assert_eq!(
        (&line["reason"], &line["client"]),
        (&"request_timeout".into(), &"127.0.0.1".into()),
        "{line}"
    );

    // Over HTTP/2, an incomplete head blocks all streams, so it ends the connection even during an answer.
    let mut frames = Frames::open(gateway.http());
    frames.send(frame::HEADERS, frame::END_HEADERS, 1, &block(&POST)).unwrap();
    frames.send(frame::HEADERS, frame::END_STREAM, 3, &block(&GET)).unwrap();
    while frames.next().is_some() {}
    eventually("both are counted", || timeouts(&gateway, "connection", "head") == 2);
    let refused = |line: &serde_json::Value| line["reason"] == "request_timeout" && line["method"] == "";
    gateway.wait_log("the slow head over HTTP/2", refused);
}

/// Tests a large answer on a stream whose client opens its windows in this way.
fn stalled(windows: impl Fn(&mut Frames) -> bool + Send + 'static) {
    let upstream = large(MIB);
    let gateway = gateway(&upstream, &bounded("body_timeout = \"1s\""));
    // SETTINGS_INITIAL_WINDOW_SIZE 0 (RFC 9113 section 6.5.2).
    let mut frames = Frames::open_with(gateway.http(), &[0, 4, 0, 0, 0, 0]);
    let begun = Instant::now();
    frames.send(frame::HEADERS, WHOLE, 1, &block(&GET)).unwrap();
    let mut writer = frames.writer();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let opening = std::thread::spawn(move || {
        let step = |_| stopped.recv_timeout(STEP) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
        while step(()) && windows(&mut writer) {}
    });
    let reset = std::iter::from_fn(|| frames.next()).find(|it| it.kind == frame::RST_STREAM);
    let reset = reset.expect("the stream is reset, and not its connection");
    drop(stop);
    opening.join().unwrap();
    assert_eq!((reset.stream, &*reset.payload), (1, &8_u32.to_be_bytes()[..]), "CANCEL");
    assert!(begun.elapsed() >= Duration::from_secs(1), "never early");
    upstream.wait_for_departure();
    assert_eq!(timeouts(&gateway, "stream", "reader"), 1);
    assert_eq!(timeouts(&gateway, "connection", "reader"), 0);
    let line = gateway.wait_log("the answer", |line| line["complete"] == false);
    assert!(line["detail"].as_str().is_some_and(|detail| detail.contains("did not read")), "{line}");
    // The connection still works.
    frames.send(frame::HEADERS, WHOLE, 3, &block(&GET)).unwrap();
    assert_eq!(frames.verdict(3), Verdict::Status(200));
}

/// RFC 9113 section 10.5, CVE-2019-9511.
#[test]
fn a_stream_whose_client_opens_no_window_is_reset_although_pings_go_on() {
    stalled(|frames| frames.send(frame::PING, 0, 0, &[7; 8]).is_ok());
}

#[test]
fn a_stream_whose_client_opens_windows_of_one_byte_is_reset() {
    stalled(|frames| frames.send(frame::WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes()).is_ok());
}

#[test]
fn a_slow_reader_of_http_2_gets_its_answer_when_it_opens_windows() {
    let upstream = Upstream::with(|_, wire| {
        wire.answer("200 OK", "", vec![b'y'; 96 * 1024]);
        After::Keep
    });
    let gateway = gateway(&upstream, &bounded("body_timeout = \"1s\""));
    let mut frames = Frames::open_with(gateway.http(), &[0, 4, 0, 0, 0, 0]);
    frames.send(frame::HEADERS, WHOLE, 1, &block(&GET)).unwrap();
    // The client accepts 16 KiB every 400 ms, for longer than `body_timeout`.
    let mut writer = frames.writer();
    let opening = std::thread::spawn(move || {
        for _ in 0..6 {
            std::thread::sleep(2 * STEP);
            writer.send(frame::WINDOW_UPDATE, 0, 1, &(16 * 1024_u32).to_be_bytes()).unwrap();
            writer.send(frame::WINDOW_UPDATE, 0, 0, &(16 * 1024_u32).to_be_bytes()).unwrap();
        }
    });
    let mut bytes = 0;
    while bytes < 96 * 1024 {
        let next = frames.next().expect("the stream goes on");
        assert_ne!(next.kind, frame::RST_STREAM);
        bytes += if next.kind == frame::DATA { next.payload.len() } else { 0 };
    }
    opening.join().unwrap();
}

/// The client must not take the part that it reads later for the whole answer.
#[test]
fn an_answer_that_its_client_does_not_read_ends_with_a_reset() {
    let upstream = large(256 * MIB);
    let gateway = gateway(&upstream, &bounded("body_timeout = \"1s\""));
    let mut connection = Connection::open(gateway.http());
    connection.send(Request::get("/").bytes());
    eventually("it is counted", || timeouts(&gateway, "connection", "reader") == 1);
    assert!(connection.is_reset());
}

/// The client keeps reading an HTTP/1.1 answer, but below the minimum rate.
#[test]
fn a_reader_of_http_1_below_the_least_rate_is_given_up() {
    let upstream = large(256 * MIB);
    let gateway = gateway(&upstream, &bounded("body_timeout = \"1s\"\nmin_rate = \"1GiB\""));
    let mut connection = Connection::open(gateway.http());
    connection.send(Request::get("/").bytes());
    let mut bytes = 0;
    steadily(|| {
        let read = connection.skip(8 * MIB);
        bytes += read;
        read >= 8 * MIB
    });
    assert!(bytes < 256 * MIB, "it was cut: {bytes}");
    upstream.wait_for_departure();
    eventually("it is counted", || timeouts(&gateway, "connection", "reader") == 1);
}

/// CWE-400.
#[test]
fn a_body_that_trickles_in_is_refused_and_one_above_the_least_rate_is_not() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &bounded("body_timeout = \"1s\"\nmin_rate = \"1KiB\""));
    let head = "POST / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 20480\r\n\r\n";

    let mut trickle = Connection::open(gateway.http());
    let begun = Instant::now();
    trickle.send(head);
    steadily(|| trickle.try_send("x").is_ok() && begun.elapsed() < Duration::from_secs(3));
    let answer = trickle.try_answer("POST").expect("a refusal reaches a client that is still sending");
    answer.is_refusal(408, "request_timeout");
    let line = gateway.access_line(&answer);
    assert!(line["detail"].as_str().is_some_and(|detail| detail.contains("arrived too slowly")), "{line}");

    let mut frames = Frames::open(gateway.http());
    frames.send(frame::HEADERS, frame::END_HEADERS, 1, &block(&POST)).unwrap();
    let begun = Instant::now();
    steadily(|| frames.send(frame::DATA, 0, 1, b"x").is_ok() && begun.elapsed() < Duration::from_secs(3));
    assert_eq!(frames.verdict(1), Verdict::Status(408));

    // The client sends 10 KiB per second, for longer than `body_timeout`.
    let mut slow = Connection::open(gateway.http());
    slow.send(head);
    for _ in 0..10 {
        std::thread::sleep(STEP);
        slow.send([b'x'; 2048]);
    }
    slow.answer().is(200);
}

/// A body that the gateway buffers has a deadline even without a minimum rate.
#[test]
fn a_gathered_body_has_one_deadline_however_steadily_it_comes() {
    let bounds = "[server.bounds]\nbody_timeout = \"1s\"\nmin_rate = \"0B\"\n";
    let upstream = Upstream::start();
    let form =
        "[[route]]\npath = \"/form\"\nupstream = \"app\"\nsources = [\"cookie\"]\ncsrf_field = \"t\"\n";
    let policy = policy(&upstream, &format!("{bounds}{AUTHORITY}cookies = true\n{form}"));
    let gateway = Portcullis::with(&policy).start();
    let fields = "Host: gateway.test\r\nContent-Type: application/x-www-form-urlencoded\r\n\
                  Cookie: __Host-portcullis=x\r\nContent-Length: 60000\r\n\r\n";
    for path in ["/auth/login", "/form"] {
        let mut connection = Connection::open(gateway.http());
        connection.send(format!("POST {path} HTTP/1.1\r\n{fields}"));
        let begun = Instant::now();
        steadily(|| connection.try_send("x").is_ok() && begun.elapsed() < Duration::from_secs(3));
        let answer = connection.try_answer("POST").expect("a refusal");
        answer.is_refusal(408, "request_timeout");
    }
    let login = [POST[0], POST[1], POST[2], (":path", "/auth/login"), ("content-type", "application/json")];
    let mut frames = Frames::open(gateway.http());
    frames.send(frame::HEADERS, frame::END_HEADERS, 1, &block(&login)).unwrap();
    let begun = Instant::now();
    steadily(|| frames.send(frame::DATA, 0, 1, b" ").is_ok() && begun.elapsed() < Duration::from_secs(3));
    assert_eq!(frames.verdict(1), Verdict::Status(408));
}

const IMPATIENT: &str = "
[upstream.quick]
servers = [\"SERVER\"]
timeout = \"TIMEOUT\"

[[route]]
path     = \"/\"
upstream = \"quick\"
access   = \"public\"
";

fn impatient(upstream: &Upstream, timeout: &str) -> Portcullis {
    let tables = IMPATIENT.replace("SERVER", &upstream.to_string()).replace("TIMEOUT", timeout);
    Portcullis::with(&policy(upstream, &tables)).start()
}

/// RFC 9110 section 15.6.5: a 504 blames the upstream, so an upload's duration does not count.
#[test]
fn an_upload_that_makes_progress_is_not_cut_by_the_time_for_the_answer() {
    let upstream = Upstream::start();
    for timeout in ["1s", "2s"] {
        let gateway = impatient(&upstream, timeout);
        let mut connection = Connection::open(gateway.http());
        connection.send("POST / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 16384\r\n\r\n");
        let mut frames = Frames::open(gateway.http());
        frames.send(frame::HEADERS, frame::END_HEADERS, 1, &block(&POST)).unwrap();
        for piece in 0..16 {
            std::thread::sleep(STEP);
            connection.send([b'x'; 1024]);
            let flags = if piece == 15 { frame::END_STREAM } else { 0 };
            frames.send(frame::DATA, flags, 1, &[b'x'; 1024]).unwrap();
        }
        connection.answer().is(200);
        assert_eq!(frames.verdict(1), Verdict::Status(200));
    }
}

/// An upstream may answer early, and wait for the rest of the request before it continues the answer.
#[test]
fn an_answer_that_began_early_waits_for_the_upload_as_well() {
    let upstream = Upstream::with(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n");
        wire.read_body();
        wire.send("late");
        After::Keep
    });
    let gateway = impatient(&upstream, "1s");
    let mut connection = Connection::open(gateway.http());
    connection.send("POST / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 10240\r\n\r\n");
    for _ in 0..10 {
        std::thread::sleep(STEP);
        connection.send([b'x'; 1024]);
    }
    assert_eq!(connection.answer().is(200).text(), "late");
}

/// A coarse clock measures the deadline of an answer. The deadline may pass late, but not early.
#[test]
fn the_time_for_an_answer_is_never_cut_short() {
    let upstream = Upstream::with(|_, wire| {
        wire.read_body();
        wire.peer_left();
        After::Close
    });
    let gateway = impatient(&upstream, "2s");
    let asking = (0..8).map(|number| {
        let address = gateway.http();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(number * 40));
            let begun = Instant::now();
            Request::post("/", "body").to(address).is_refusal(504, "upstream_timeout");
            begun.elapsed()
        })
    });
    for asking in asking.collect::<Vec<_>>() {
        let took = asking.join().unwrap();
        assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(6), "{took:?}");
    }
}

#[test]
fn an_upstream_that_reads_no_more_of_a_request_is_given_up() {
    let upstream = Upstream::with(|_, wire| {
        std::thread::sleep(PATIENCE / 2);
        wire.peer_left();
        After::Close
    });
    let gateway = impatient(&upstream, "2s");
    let mut connection = Connection::open(gateway.http());
    connection.send(format!("POST / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: {}\r\n\r\n", 15 * MIB));
    connection.write_timeout(Duration::from_millis(100));
    let piece = vec![b'x'; MIB];
    let sent = (0..15).take_while(|_| connection.try_send(&piece).is_ok()).count();
    let answer = connection.answer();
    answer.is_refusal(504, "upstream_timeout");
    assert!(sent < 15 || answer.header("connection").is_none(), "it was still sending: {sent}");
}

/// A crash does not write keys and tokens from memory to disk.
#[test]
fn a_crash_writes_no_memory_to_disk() {
    let gateway = gateway(&Upstream::start(), PUBLIC);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", gateway.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
}

/// The limit on connections reserves files for the admin listener and for upstreams.
#[test]
fn connections_leave_files_for_the_admin_listener_and_upstreams() {
    let upstream = Upstream::start();
    let files = ["sh", "-c", "ulimit -n 300 && exec \"$@\"", "sh"];
    let gateway = Portcullis::with(&policy(&upstream, PUBLIC)).wrapped(&files).start();
    let mut open: Vec<_> = (0..150).map(|_| Connection::open(gateway.http())).collect();
    eventually("no more are taken", || {
        gateway.metric("portcullis_connections_refused_total").is_some_and(|refused| refused > 0)
    });
    assert_eq!(gateway.metric("portcullis_connections_open"), Some(75), "(300 - 150) / 2");
    Request::get("/readyz").to(gateway.admin()).is(200);
    Request::get("/").over(&mut open[0]).is(200);
    assert_eq!(upstream.connections(), 1);
    let adjusted = gateway.wait_log("the bound", |line| line["connections"] == 75);
    assert_eq!(adjusted["level"], "info", "nobody chose another number");

    let chosen = format!("[server.bounds]\nconnections = 5000\n{}", policy(&upstream, PUBLIC));
    let gateway = Portcullis::with(&chosen).wrapped(&files).start();
    assert_eq!(gateway.wait_log("the bound", |line| line["asked"] == 5000)["level"], "warn");
}
