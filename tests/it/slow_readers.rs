//! A client that does not read keeps a bounded part of its answer in the gateway's memory, and receives all of it later.

use crate::kit::client::Connection;
use crate::kit::dir::Dir;
use crate::kit::upstream::After;
use crate::kit::{Portcullis, Upstream, eventually};
use crate::policy;
use std::rc::Rc;
use std::sync::LazyLock;

/// More than the buffers of the kernel take for a client that does not read.
const LENGTH: usize = 12 << 20;
const READERS: usize = 24;
/// The peak of a debug build for each reader. The block of memory of the last read lives until the client's socket is full. Huge
/// pages would hide the difference, so the tests disable them.
const EACH_MAX: u64 = 176 << 10;

const ROUTES: &str = "
[[route]]
path     = \"/{*rest}\"
upstream = \"app\"
access   = \"public\"

[[route]]
path         = \"/files/{*rest}\"
files        = \"site\"
strip_prefix = \"/files\"
access       = \"public\"

[[route]]
path     = \"/compressed\"
upstream = \"app\"
access   = \"public\"
compress = \"gzip\"
";

static CONTENT: LazyLock<Vec<u8>> =
    LazyLock::new(|| (0..LENGTH as u32 / 4).flat_map(u32::to_be_bytes).collect());

fn started() -> (Upstream, Portcullis) {
    let upstream = Upstream::with(|seen, wire| {
        if seen.target == "/small" {
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nsmall");
            return After::Keep;
        }
        if seen.target == "/chunked" {
            wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
            for chunk in CONTENT.chunks(100_000) {
                wire.send(format!("{:x}\r\n", chunk.len()));
                wire.send(chunk);
                wire.send("\r\n");
            }
            wire.send("0\r\n\r\n");
            return After::Keep;
        }
        wire.send(format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {LENGTH}\r\n\r\n"));
        wire.send(&*CONTENT);
        After::Keep
    });
    let text = policy(&upstream, &format!("[server]\nhttps = \"127.0.0.1:0\"\nworkers = 1\n{ROUTES}"));
    let dir = Rc::new(Dir::new());
    std::fs::create_dir(dir.path().join("site")).unwrap();
    dir.write("site/large", &*CONTENT);
    let gateway = Portcullis::with(&text).within(dir).env("MIMALLOC_ALLOW_THP", "0").start();
    (upstream, gateway)
}

/// Asks for answers, and reads nothing.
fn ask(connection: Connection, paths: &[&str]) -> Connection {
    let mut connection = connection;
    for path in paths {
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: gateway.test\r\n\r\n"));
    }
    connection
}

/// Returns the gateway's peak memory once it no longer grows.
fn settled(gateway: &Portcullis) -> u64 {
    let (mut peak, mut unchanged) = (0, 0);
    eventually("the memory no longer grows", || {
        let now = gateway.peak_memory();
        unchanged = if now == peak { unchanged + 1 } else { 0 };
        peak = now;
        unchanged == 100
    });
    peak
}

/// Checks the memory of readers, and that one of them receives the whole answer.
#[track_caller]
fn check(gateway: &Portcullis, open: impl Fn() -> Connection, path: &str) {
    assert!(ask(open(), &[path]).answer().body == *CONTENT, "{path}: the answer arrives as it is");
    let before = settled(gateway);
    let mut readers: Vec<_> = (0..READERS).map(|_| ask(open(), &[path])).collect();
    let each = settled(gateway).saturating_sub(before) / READERS as u64;
    assert!(each < EACH_MAX, "{path}: {} KiB for each reader", each >> 10);
    let answer = readers[READERS / 2].answer();
    assert!(answer.complete && answer.body == *CONTENT, "{path}: the answer arrives as it is, later");
}

#[test]
fn a_client_that_does_not_read_keeps_little_of_an_answer_over_tls() {
    let (_upstream, gateway) = started();
    check(&gateway, || Connection::tls(gateway.https()), "/large");
}

#[test]
fn a_client_that_does_not_read_keeps_little_of_an_answer_in_chunks_over_tls() {
    let (_upstream, gateway) = started();
    check(&gateway, || Connection::tls(gateway.https()), "/chunked");
}

#[test]
fn all_answers_arrive_once_the_client_reads() {
    let (_upstream, gateway) = started();
    let paths = ["/large", "/small", "/files/large", "/chunked", "/small", "/large"];
    let open: [&dyn Fn() -> Connection; 2] =
        [&|| Connection::open(gateway.http()), &|| Connection::tls(gateway.https())];
    for open in open {
        let mut reader = ask(open(), &paths);
        for path in paths {
            settled(&gateway);
            let answer = reader.answer();
            let whole = if path == "/small" { b"small".to_vec() } else { CONTENT.clone() };
            assert!(answer.complete && answer.body == whole, "{path}: {} bytes", answer.body.len());
        }
        let mut old = open();
        old.send("GET /chunked HTTP/1.0\r\nHost: gateway.test\r\n\r\n");
        settled(&gateway);
        let answer = old.answer();
        assert!(answer.complete && answer.body == *CONTENT, "until the connection closes");
        let mut compressed = open();
        compressed.send("GET /compressed HTTP/1.1\r\nHost: gateway.test\r\nAccept-Encoding: gzip\r\n\r\n");
        settled(&gateway);
        let answer = compressed.answer();
        assert_eq!((answer.complete, answer.header("content-encoding")), (true, Some("gzip")));
    }
}
