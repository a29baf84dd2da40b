//! The PROXY protocol: a load balancer announces the address of its client before TLS or HTTP begins.

use crate::kit::tls::{Options, config};
use crate::kit::{Connection, Portcullis, Request, Upstream, eventually};
use crate::{PUBLIC, policy};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn started(upstream: &Upstream, tables: &str) -> Portcullis {
    let server = "[server]\nhttps = \"127.0.0.1:0\"\nplain = \"serve\"\n";
    Portcullis::with(&format!("{server}{tables}\n{}", policy(upstream, PUBLIC))).start()
}

fn packed(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length, rest].concat()
}

fn v4(more: &[u8]) -> Vec<u8> {
    packed(0x21, 0x11, &[&[192, 0, 2, 7, 10, 0, 0, 1, 0, 1, 0, 2], more].concat())
}

fn failures(gateway: &Portcullis, reason: &str) -> Option<u64> {
    gateway.metric(&format!("portcullis_proxy_protocol_failures_total{{reason=\"{reason}\"}}"))
}

#[test]
fn the_announced_address_is_the_client_s_over_cleartext_and_tls() {
    let upstream = Upstream::start();
    let gateway = started(&upstream, "[server.proxy_protocol]\nfrom = \"127.0.0.0/8\"\n");
    let v6 = [&"2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap().octets()[..], &[0; 20]].concat();
    let facts = [&[0x02, 0, 4], &b"host"[..], &[0x20, 1, 0], &[b'x'; 256]].concat();
    for (header, client) in [
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 51234 443\r\n".to_vec(), "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 ::1 51234 443\r\n".to_vec(), "2001:db8::7"),
        // nginx writes its own address as the destination, whatever the family of the client's.
        (b"PROXY TCP6 2001:db8::7 127.0.0.1 51234 443\r\n".to_vec(), "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (v4(&[]), "192.0.2.7"),
        (v4(&facts), "192.0.2.7"),
        (packed(0x21, 0x21, &v6), "2001:db8::7"),
        (packed(0x20, 0x00, &[]), "127.0.0.1"),
        (packed(0x21, 0x00, &[]), "127.0.0.1"),
    ] {
        let mut connection = Connection::open(gateway.http());
        connection.send([&header, &Request::get("/").bytes()[..]].concat());
        connection.answer().is(200);
        let seen = upstream.last_request();
        assert_eq!(seen.header("x-forwarded-for"), Some(client), "{}", header.escape_ascii());

        let mut socket = TcpStream::connect(gateway.https()).unwrap();
        socket.write_all(&header).unwrap();
        let config = Arc::new(config(&Options::default()));
        let client_side = rustls::ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
        let mut stream = rustls::StreamOwned::new(client_side, socket);
        stream.conn.complete_io(&mut stream.sock).unwrap();
        let answer = Request::get("/").over(&mut Connection::over(stream));
        answer.is(200);
        assert_eq!(upstream.last_request().header("x-forwarded-for"), Some(client));
        assert_eq!(gateway.access_line(&answer)["client"], client);
    }
}

#[test]
fn a_connection_without_its_header_does_not_delay_the_end() {
    let upstream = Upstream::start();
    let mut gateway = started(&upstream, "[server.proxy_protocol]\nfrom = \"127.0.0.1\"\n");
    let mut silent = Connection::open(gateway.http());
    eventually("it is open", || gateway.metric("portcullis_connections_open") == Some(1));
    let begun = Instant::now();
    gateway.signal("TERM");
    silent.is_closed();
    assert_eq!(gateway.exit_code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

/// The header may arrive in any pieces.
#[test]
fn a_header_in_pieces_of_one_byte_is_read() {
    let upstream = Upstream::start();
    let gateway = started(&upstream, "[server.proxy_protocol]\nfrom = \"127.0.0.1\"\n");
    for header in [b"PROXY TCP4 192.0.2.7 10.0.0.1 51234 443\r\n".to_vec(), v4(b"\x01\0\0")] {
        let mut connection = Connection::open(gateway.http());
        for byte in header {
            connection.send([byte]);
        }
        Request::get("/").over(&mut connection).is(200);
        assert_eq!(upstream.last_request().header("x-forwarded-for"), Some("192.0.2.7"));
    }
}

#[test]
fn a_connection_without_a_good_header_is_closed_and_counted() {
    let upstream = Upstream::start();
    let tables = "[server.bounds]\nheader_timeout = \"1s\"\n[server.proxy_protocol]\nfrom = \"127.0.0.1\"\n";
    let gateway = started(&upstream, tables);
    for (bytes, reason) in [
        (Request::get("/").bytes(), "missing"),
        (b"\x16\x03\x01\x02\x00\x01\x00".to_vec(), "missing"),
        (b"PROXY TCP4 192.0.2.7\r\n".to_vec(), "malformed"),
        (packed(0x21, 0x11, &[0; 4]), "malformed"),
        (packed(0x21, 0x11, &[0; 5000]), "malformed"),
        (b"PROXY TCP4 192.".to_vec(), "timeout"),
    ] {
        for address in [gateway.http(), gateway.https()] {
            let before = failures(&gateway, reason).unwrap();
            let mut socket = TcpStream::connect(address).unwrap();
            let _ = socket.write_all(&bytes);
            let mut rest = Vec::new();
            let _ = socket.read_to_end(&mut rest);
            assert!(rest.is_empty(), "{reason}: {}", rest.escape_ascii());
            eventually(reason, || failures(&gateway, reason) == Some(before + 1));
        }
    }
    drop(TcpStream::connect(gateway.http()).unwrap());
    eventually("closed", || failures(&gateway, "closed") == Some(1));
    let line = gateway.wait_log("it is logged", |line| {
        line["message"] == "connection without an accepted PROXY header closed"
            && line["reason"] == "malformed"
    });
    assert_eq!(line["peer"], "127.0.0.1");
    upstream.saw_nothing();
}

#[test]
fn only_the_listed_load_balancers_are_served() {
    let upstream = Upstream::start();
    let gateway = started(&upstream, "[server.proxy_protocol]\nfrom = \"127.0.0.2\"\nhttps = false\n");
    let header = b"PROXY TCP4 192.0.2.7 10.0.0.1 51234 443\r\n";
    let mut socket = TcpStream::connect(gateway.http()).unwrap();
    let _ = socket.write_all(header);
    let _ = socket.read_to_end(&mut Vec::new());
    eventually("it is counted", || failures(&gateway, "untrusted") == Some(1));
    let mut connection = Connection::from("127.0.0.2".parse().unwrap(), gateway.http());
    connection.send([&header[..], &Request::get("/").bytes()].concat());
    connection.answer().is(200);
    // The other listener expects no header.
    Request::get("/").over(&mut Connection::tls(gateway.https())).is(200);
    assert_eq!(upstream.last_request().header("x-forwarded-for"), Some("127.0.0.1"));
}

/// The fields of a proxy count only if the announced address is that of a trusted proxy.
#[test]
fn a_load_balancer_is_not_a_trusted_proxy() {
    let upstream = Upstream::start();
    let tables = "trusted_proxies = \"127.0.0.1\"\n[server.proxy_protocol]\nfrom = \"127.0.0.1\"\n";
    let gateway = started(&upstream, tables);
    let forged = Request::get("/").header("x-forwarded-for", "198.51.100.9");
    for (client, forwarded) in [("192.0.2.7", "192.0.2.7"), ("127.0.0.1", "198.51.100.9, 127.0.0.1")] {
        let mut connection = Connection::open(gateway.http());
        connection.send(format!("PROXY TCP4 {client} 10.0.0.1 51234 443\r\n"));
        forged.over(&mut connection).is(200);
        assert_eq!(upstream.last_request().header("x-forwarded-for"), Some(forwarded));
    }
}
