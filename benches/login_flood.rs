//! The latencies of proxied requests, with and without a flood of logins.
//!
//! `cargo bench --bench login_flood` starts the release binary with one worker per core. It sends requests at a fixed
//! rate, and as many logins as the gateway answers. Latency is measured from the time when a request was due, so a
//! stall counts for all requests that it delays.
#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program that prints figures"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");
const PASSWORD: &str = "correct horse battery staple";
/// The number of concurrent logins, each for its own account.
const CLIENTS: usize = 16;
/// The number of proxied requests per second, and the number of their connections.
const RATE: u64 = 1000;
const CONNECTIONS: u64 = 8;
const SECONDS: u64 = 8;

const POLICY: &str = r#"
[server]
https = ""
http  = "127.0.0.1:0"
plain = "serve"
admin = ""

[authority]
issuer   = "https://localhost:8443"
audience = ["portcullis"]

[log]
format = "json"
access = "off"

[upstream.echo]
builtin = "echo"

[[route]]
path     = "/echo"
upstream = "echo"
roles    = ["clerk"]
"#;

struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    let dir = std::env::temp_dir().join(format!("portcullis-flood-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a folder");
    std::fs::write(dir.join("gateway.toml"), POLICY).expect("a policy");
    for client in 0..CLIENTS {
        add(&dir, &format!("user{client}"));
    }
    let (gateway, address) = start(&dir);
    let token = login(address, "user0").expect("a login");

    let rounds: Vec<(Vec<Duration>, Vec<Duration>, f64)> = (0..3)
        .map(|_| {
            let quiet = measure(address, &token);
            let (flooded, logins) = flooded(address, &token);
            (quiet, flooded, logins)
        })
        .collect();
    println!(
        "{RATE} requests a second over {CONNECTIONS} connections, {SECONDS} s a figure; {CLIENTS} clients log in at once"
    );
    println!("| round | quiet p50 | p99 | p99.9 | flooded p50 | p99 | p99.9 | logins/s | p99 ratio |");
    for (round, (quiet, flooded, logins)) in rounds.iter().enumerate() {
        let at = |latencies: &[Duration], share: f64| {
            let place = (latencies.len() as f64 * share) as usize;
            latencies[place.min(latencies.len() - 1)]
        };
        println!(
            "| {round} | {:?} | {:?} | {:?} | {:?} | {:?} | {:?} | {logins:.0} | {:.2} |",
            at(quiet, 0.5),
            at(quiet, 0.99),
            at(quiet, 0.999),
            at(flooded, 0.5),
            at(flooded, 0.99),
            at(flooded, 0.999),
            at(flooded, 0.99).as_secs_f64() / at(quiet, 0.99).as_secs_f64(),
        );
    }
    drop(gateway);
    let _ = std::fs::remove_dir_all(&dir);
}

fn add(dir: &Path, name: &str) {
    let mut child = Command::new(BINARY)
        .current_dir(dir)
        .args(["user", "add", name, "--role", "clerk", "--password-stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("the binary");
    child.stdin.take().expect("piped").write_all(format!("{PASSWORD}\n").as_bytes()).expect("written");
    assert!(child.wait().expect("an end").success());
}

fn start(dir: &Path) -> (Gateway, SocketAddr) {
    let mut child = Command::new(BINARY).current_dir(dir).stdout(Stdio::piped()).spawn().expect("the binary");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let ready =
        lines.find_map(|line| line.ok().filter(|line| line.contains("\"ready\""))).expect("it is ready");
    std::thread::spawn(move || lines.for_each(drop));
    let start = ready.find("\"http\":\"").expect("it says where") + 8;
    let address = ready[start..].split('"').next().expect("an address").parse().expect("an address");
    (Gateway(child), address)
}

/// Returns the latencies of all requests of a run, sorted.
fn measure(address: SocketAddr, token: &str) -> Vec<Duration> {
    let begin = Instant::now() + Duration::from_millis(50);
    let threads: Vec<_> = (0..CONNECTIONS)
        .map(|lane| {
            let request = format!("GET /echo HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n");
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect(address).expect("it listens");
                stream.set_nodelay(true).expect("a socket");
                let mut latencies = Vec::new();
                let step = Duration::from_micros(1_000_000 * CONNECTIONS / RATE);
                for number in 0..RATE * SECONDS / CONNECTIONS {
                    let offset = Duration::from_micros(1_000_000 * lane / RATE);
                    let due = begin + offset + step * u32::try_from(number).expect("few");
                    if let Some(wait) = due.checked_duration_since(Instant::now()) {
                        std::thread::sleep(wait);
                    }
                    stream.write_all(request.as_bytes()).expect("sent");
                    answer(&mut stream).expect("an answer");
                    latencies.push(due.elapsed());
                }
                latencies
            })
        })
        .collect();
    let mut all: Vec<Duration> =
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect();
    all.sort_unstable();
    all
}

/// Measures the latencies during a flood of logins. Also returns the number of logins per second.
fn flooded(address: SocketAddr, token: &str) -> (Vec<Duration>, f64) {
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (stop, count) = (stop.clone(), count.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if login(address, &format!("user{client}")).is_some() {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    let begin = Instant::now();
    let latencies = measure(address, token);
    let rate = count.load(Ordering::Relaxed) as f64 / begin.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().expect("no panic"));
    (latencies, rate)
}

fn login(address: SocketAddr, name: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    let body = format!("username={name}&password={}", PASSWORD.replace(' ', "+"));
    let head = "POST /auth/login HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-www-form-urlencoded";
    stream.write_all(format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).ok()?;
    let text = answer(&mut stream)?;
    let start = text.find("\"access_token\":\"")? + 16;
    text[start..].split('"').next().map(str::to_owned)
}

/// Reads one answer with a `Content-Length`.
fn answer(stream: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    let mut chunk = [0; 8192];
    loop {
        let count = stream.read(&mut chunk).ok().filter(|count| *count > 0)?;
        text.extend_from_slice(&chunk[..count]);
        let Some(end) = text.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&text[..end]).to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1)?.split("\r\n").next()?.parse::<usize>().ok()?;
        if text.len() >= end + 4 + length {
            return String::from_utf8(text).ok();
        }
    }
}
