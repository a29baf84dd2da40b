//! A client that does not read keeps a bounded part of its answer in the gateway's memory, and gets all of it later.

use crate::kit::upstream::After;
use crate::kit::{PATIENCE, Portcullis, Upstream, eventually};
use crate::policy;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// More than the buffers of the kernel take for a client that does not read.
const LENGTH: usize = 12 << 20;
const READERS: usize = 24;
/// The goal is 64 KiB (`benches/memory.py`). The rest is for pages that the allocator keeps.
const EACH_MAX: u64 = 112 << 10;

const ROUTES: &str = "
[[route]]
path     = \"/large\"
upstream = \"app\"
access   = \"public\"
";

fn content() -> Vec<u8> {
    (0..LENGTH as u32 / 4).flat_map(u32::to_be_bytes).collect()
}

fn started() -> (Upstream, Portcullis) {
    let upstream = Upstream::with(|_, wire| {
        wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n"));
        wire.send(content());
        After::Close
    });
    let text = policy(&upstream, &format!("[server]\nworkers = 1\n{ROUTES}"));
    let gateway = Portcullis::with(&text).start();
    (upstream, gateway)
}

/// Asks for an answer, and reads its first byte.
fn begin(address: SocketAddr, path: &str) -> TcpStream {
    let mut reader = TcpStream::connect(address).unwrap();
    reader.set_read_timeout(Some(PATIENCE)).unwrap();
    reader.write_all(format!("GET {path} HTTP/1.1\r\nHost: gateway.test\r\n\r\n").as_bytes()).unwrap();
    reader.read_exact(&mut [0]).unwrap();
    reader
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

#[track_caller]
fn check(what: &str, gateway: &Portcullis, before: u64) {
    let each = settled(gateway).saturating_sub(before) / READERS as u64;
    assert!(each < EACH_MAX, "{what}: {} KiB for each reader", each >> 10);
}

#[test]
fn a_client_that_does_not_read_keeps_little_of_an_upstreams_answer() {
    let (_upstream, gateway) = started();
    drop(begin(gateway.http(), "/large"));
    let before = settled(&gateway);
    let mut readers: Vec<_> = (0..READERS).map(|_| begin(gateway.http(), "/large")).collect();
    check("an upstream's answer", &gateway, before);
    whole(&mut readers[READERS / 2]);
}

/// Reads the rest of an answer.
fn whole(reader: &mut TcpStream) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        reader.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let mut body = vec![0; LENGTH];
    reader.read_exact(&mut body).unwrap();
    assert!(body == content(), "the answer arrives as it is");
}
