//! Compressed answers: negotiation, streaming, and the answers that stay as they are.

use crate::admin::{metric, metrics};
use crate::gateway;
use crate::kit::client::Connection;
use crate::kit::upstream::{After, Gate};
use crate::kit::{Portcullis, Request, Upstream, eventually, token, values};
use async_compression::tokio::write::GzipDecoder;
use std::process::Command;
use tokio::io::AsyncWriteExt;

const ROUTES: &str = "
[[route]]
path = \"/public/{*rest}\"
upstream = \"app\"
access = \"public\"
compress = [\"zstd\", \"br\", \"gzip\"]

[[route]]
path = \"/plain/{*rest}\"
upstream = \"app\"
access = \"public\"

[[route]]
path = \"/guarded/{*rest}\"
upstream = \"app\"
compress = \"gzip\"
compress_with_credentials = true
";

fn text() -> String {
    (0..4000).map(|line| format!("<p>line {line} of a page, with <b>repeated</b> text</p>\n")).collect()
}

fn page() -> Upstream {
    Upstream::with(|seen, wire| {
        let fields = "content-type: text/html\r\netag: \"v1\"\r\naccept-ranges: bytes\r\n";
        match &*seen.target {
            target if target.ends_with("/304") => wire.answer("304 Not Modified", "etag: \"v1\"\r\n", ""),
            target if target.ends_with("/chunked") => {
                wire.send(format!("HTTP/1.1 200 OK\r\n{fields}transfer-encoding: chunked\r\n\r\n"));
                for piece in text().as_bytes().chunks(7000) {
                    wire.send(format!("{:x}\r\n", piece.len()));
                    wire.send(piece);
                    wire.send("\r\n");
                }
                wire.send("0\r\nx-checksum: 7\r\n\r\n");
            }
            target if target.ends_with("/cut") => {
                wire.send(format!("HTTP/1.1 200 OK\r\n{fields}content-length: 1000000\r\n\r\n"));
                wire.send(text());
                return After::Close;
            }
            _ if seen.method == "HEAD" => {
                wire.send(format!("HTTP/1.1 200 OK\r\n{fields}content-length: {}\r\n\r\n", text().len()));
            }
            _ => wire.answer("200 OK", fields, text()),
        }
        After::Keep
    })
}

#[test]
fn curl_reads_each_coding_and_the_answer_is_the_same() {
    let upstream = page();
    let gateway = gateway(&upstream, ROUTES);
    for coding in ["zstd", "br", "gzip"] {
        for path in ["page", "chunked"] {
            let url = format!("http://{}/public/{path}", gateway.http());
            let arguments = ["-sS", "--fail", "-D", "/dev/stderr", "--compressed", "-H"];
            let accept = format!("accept-encoding: {coding};q=0.5, identity;q=0.1");
            let run = Command::new("curl").args(arguments).args([&accept, &url]).output().unwrap();
            let head = String::from_utf8_lossy(&run.stderr).to_lowercase();
            assert!(run.status.success() && run.stdout == text().as_bytes(), "{coding} {path}: {head}");
            for field in [
                &*format!("content-encoding: {coding}\r\n"),
                "vary: accept-encoding\r\n",
                "etag: w/\"v1\"\r\n",
            ] {
                assert!(head.contains(field), "{field} {head}");
            }
            assert!(!head.contains("content-length") && !head.contains("accept-ranges"), "{head}");
        }
    }
    let counted = metrics(&gateway);
    assert_eq!(metric(&counted, "portcullis_compressed_answers_total", &["coding=\"br\""]), 2.0);
    let bytes = |name: &str| metric(&counted, name, &[]);
    assert_eq!(bytes("portcullis_compressed_bytes_in_total"), 6.0 * text().len() as f64);
    assert!(
        bytes("portcullis_compressed_bytes_out_total") * 5.0 < bytes("portcullis_compressed_bytes_in_total")
    );
    assert_eq!(bytes("portcullis_compressions_in_progress"), 0.0);
}

#[test]
fn answers_with_secrets_and_answers_that_nobody_asked_to_compress_stay_plain() {
    let upstream = page();
    let gateway = gateway(&upstream, ROUTES);
    let gzip = |path: &str| Request::get(path).header("Accept-Encoding", "gzip");
    let guarded = || gzip("/guarded/page").bearer(token("ada"));
    for (request, coding) in [
        (gzip("/public/page"), Some("gzip")),
        (Request::get("/public/page"), None),
        (gzip("/plain/page"), None),
        (gzip("/public/page").header("Cookie", "a=1"), None),
        (gzip("/public/page").header("Authorization", "Basic YTpi"), None),
        (gzip("/public/page").header("Cache-Control", "no-transform"), None),
        (guarded(), Some("gzip")),
        (guarded().header("Sec-Fetch-Site", "cross-site"), None),
    ] {
        let answer = request.to(gateway.http());
        answer.is(200);
        assert_eq!(answer.header("content-encoding"), coding, "{request:?}");
        let is_plain = answer.body == text().as_bytes();
        assert_eq!(is_plain, coding.is_none(), "{request:?}");
    }
    let head = Request::new("HEAD", "/public/page").header("Accept-Encoding", "gzip").to(gateway.http());
    assert_eq!(
        (head.header("content-encoding"), head.header("content-length")),
        (Some("gzip"), None),
        "{head:#?}"
    );
    let fresh = gzip("/public/304").to(gateway.http());
    assert_eq!((fresh.status, fresh.header("etag")), (304, Some("W/\"v1\"")), "{fresh:#?}");
    assert_eq!(values(&fresh.headers, "vary"), ["accept-encoding"]);
    let cut = gzip("/public/cut").to(gateway.http());
    assert!(!cut.complete, "a short answer does not look whole");
}

#[test]
fn a_pause_of_the_upstream_passes_on_the_bytes_that_came() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::with(move |_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n6\r\nfirst \r\n");
        held.wait();
        wire.send("5\r\nlast.\r\n0\r\n\r\n");
        After::Keep
    });
    let gateway = gateway(&upstream, ROUTES);
    let mut client = Connection::open(gateway.http());
    client.send(Request::get("/public/x").header("Accept-Encoding", "gzip").bytes());
    let head = client.read_head().expect("the head comes before the body");
    assert_eq!(head.header("content-encoding"), Some("gzip"), "{head:#?}");
    let mut decoder = GzipDecoder::new(Vec::new());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut chunk = |decoder: &mut GzipDecoder<Vec<u8>>| {
        let mut size = String::new();
        while !size.ends_with("\r\n") {
            size.push(char::from(client.take(1)[0]));
        }
        let size = usize::from_str_radix(size.trim(), 16).expect("the size of a chunk");
        let data = client.take(size + 2);
        runtime.block_on(async {
            decoder.write_all(&data[..size]).await.unwrap();
            decoder.flush().await.unwrap();
        });
        size
    };
    while decoder.get_ref() != b"first " {
        assert!(chunk(&mut decoder) > 0, "{:?}", decoder.get_ref());
    }
    gate.open();
    while chunk(&mut decoder) > 0 {}
    assert_eq!(decoder.get_ref(), b"first last.");
}

/// Returns text that compresses to about a half.
fn noise(length: usize) -> String {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{:016x}", state)
    };
    std::iter::repeat_with(&mut next).take(length / 16).collect()
}

/// Starts answers that do not end, and waits until the gateway has read 512 KiB of each.
fn unending(coding: &str, count: usize, check: impl FnOnce(&Portcullis)) -> u64 {
    const LENGTH: usize = 512 * 1024;
    let gate = Gate::new();
    let (held, noise) = (gate.clone(), noise(LENGTH));
    let upstream = Upstream::with(move |_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n");
        wire.send(format!("{LENGTH:x}\r\n{noise}\r\n"));
        held.wait();
        wire.send("0\r\n\r\n");
        After::Close
    });
    let gateway = gateway(&upstream, &format!("[server]\nworkers = 1\n{ROUTES}"));
    let mut clients = Vec::new();
    let mut before = 0;
    for number in 0..=count {
        // The first client brings everything into memory that all clients share.
        if number == 1 {
            before = gateway.peak_memory();
        }
        let mut client = Connection::open(gateway.http());
        client.send(Request::get("/public/x").header("Accept-Encoding", coding).bytes());
        client.read_head().expect("the head comes before the end");
        clients.push(client);
    }
    let grown = gateway.peak_memory().saturating_sub(before);
    check(&gateway);
    gate.open();
    grown
}

#[test]
fn encoders_take_as_much_memory_as_documented() {
    const COUNT: usize = 20;
    let read = |gateway: &Portcullis| {
        let bytes = || metric(&metrics(gateway), "portcullis_compressed_bytes_in_total", &[]);
        eventually("all is compressed", || bytes() >= ((COUNT + 1) * 512 * 1024) as f64);
    };
    for (coding, documented) in [("zstd", 2.0), ("br", 4.0), ("gzip", 0.5)] {
        let grown = unending(coding, COUNT, read) as f64 / COUNT as f64 / f64::from(1 << 20);
        println!("{coding}: {grown:.2} MiB");
        // A connection and its buffers take some more.
        assert!(grown < documented + 1.0, "{coding}: {grown} MiB");
    }
}

#[test]
fn the_memory_of_encoders_is_bounded() {
    let skipped = |gateway: &Portcullis| {
        let value = |name: &str| metric(&metrics(gateway), name, &[]);
        // 128 MiB are enough for 32 encoders of 4 MiB.
        let found =
            ["portcullis_compressions_in_progress", "portcullis_compressions_skipped_total"].map(value);
        assert_eq!(found, [32.0, 5.0]);
    };
    unending("br", 36, skipped);
}
