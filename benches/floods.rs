//! The latencies of proxied requests, alone and beside floods of requests that the gateway refuses or works hard for.
//!
//! `cargo bench --bench floods [NAME...]` takes three minutes. It starts the release binary with one worker per core. It
//! sends requests at a fixed rate, and as many requests of a flood as the gateway answers. Latency is measured from the
//! time when a request was due, so a stall counts for all requests that it delays.
//!
//! The clients of the flood run only when the processor is idle (SCHED_IDLE). On another machine, they would not take it
//! from the gateway and from the clients whose latency is measured. Those clients have a high priority (nice -15) if the
//! benchmark runs as root, because a client on another machine does not wait for the gateway's processor.
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
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const PASSWORD: &str = "correct horse battery staple";
/// The number of clients of a flood, each with its own account.
const CLIENTS: usize = 16;
/// The account whose password is guessed. The throttle refuses each further login of it.
const GUESSED: &str = "guessed";
const ROUNDS: usize = 5;
/// The number of proxied requests per second, and the number of their connections.
const RATE: u64 = 1000;
const CONNECTIONS: u64 = 8;
const SECONDS: u64 = 4;

/// The issuer of the expired tokens, and its secret.
const ISSUER: &str = "https://id.example.com";
const SECRET: &str = "0123456789abcdef0123456789abcdef";

const POLICY: &str = r#"
[server]
https = ""
http  = "127.0.0.1:0"
plain = "serve"
admin = ""

[authority]
issuer      = "https://localhost:8443"
audience    = ["portcullis"]
rate_limits = []

[[issuer]]
issuer     = "https://id.example.com"
audience   = ["portcullis"]
algorithms = ["HS256"]
secret     = "0123456789abcdef0123456789abcdef"

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

/// Returns the binary to measure: that of this build, unless `PORTCULLIS` names another one.
fn binary() -> String {
    std::env::var("PORTCULLIS").unwrap_or_else(|_| env!("CARGO_BIN_EXE_portcullis").to_owned())
}

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
    add(&dir, GUESSED);
    let (gateway, address) = start(&dir);
    let token = login(address, "user0").expect("a login");
    drop(gateway);

    let asked: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    println!(
        "{RATE} requests a second over {CONNECTIONS} connections, {SECONDS} s a figure; {CLIENTS} clients flood; medians of {ROUNDS} rounds"
    );
    println!(
        "| flood | alone p50 | p99 | flooded p50 | p99 | answers of the flood/s | p99 ratio: median | least | most |"
    );
    for flood in floods(&token) {
        if !asked.is_empty() && !asked.iter().any(|name| name == flood.name) {
            continue;
        }
        // A gateway remembers failed logins. The throttle would refuse the logins of the flood after them.
        let (_gateway, address) = start(&dir);
        let mut rounds: Vec<Figures> = (0..ROUNDS).map(|_| round(address, &token, &flood)).collect();
        rounds.sort_by(|one, other| one.ratio.total_cmp(&other.ratio));
        let middle = |pick: fn(&Figures) -> Duration| {
            let mut all: Vec<Duration> = rounds.iter().map(pick).collect();
            all.sort_unstable();
            all[ROUNDS / 2]
        };
        println!(
            "| {} | {:?} | {:?} | {:?} | {:?} | {:.0} | {:.2} | {:.2} | {:.2} |",
            flood.name,
            middle(|one| one.quiet.0),
            middle(|one| one.quiet.1),
            middle(|one| one.flooded.0),
            middle(|one| one.flooded.1),
            rounds[ROUNDS / 2].answers,
            rounds[ROUNDS / 2].ratio,
            rounds[0].ratio,
            rounds[ROUNDS - 1].ratio,
        );
    }
    let _ = std::fs::remove_dir_all(&dir);
}

fn add(dir: &Path, name: &str) {
    let mut child = Command::new(binary())
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
    let mut child =
        Command::new(binary()).current_dir(dir).stdout(Stdio::piped()).spawn().expect("the binary");
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
                // Of this thread alone. Without the right to do so, the latencies include waits for the processor.
                let _ = rustix::process::setpriority_process(None, -15);
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

/// A kind of request that clients send as fast as the gateway answers.
struct Flood {
    name: &'static str,
    /// Builds the request of a client.
    request: Box<dyn Fn(usize) -> String + Sync>,
    /// The start of each answer's status line.
    status: &'static str,
}

fn floods(token: &str) -> [Flood; 4] {
    let (message, signature) = token.rsplit_once('.').expect("a JWS");
    // Another valid encoding: the middle of a signature has no unused bits.
    let middle = signature.len() / 2;
    let other = if signature.as_bytes()[middle] == b'A' { "B" } else { "A" };
    let forged = format!("{message}.{}{other}{}", &signature[..middle], &signature[middle + 1..]);
    let get = |token: &str| format!("GET /echo HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n");
    let (forged, expired) = (get(&forged), get(&expired()));
    [
        Flood { name: "forged", request: Box::new(move |_| forged.clone()), status: "HTTP/1.1 401" },
        Flood { name: "expired", request: Box::new(move |_| expired.clone()), status: "HTTP/1.1 401" },
        Flood {
            name: "throttled",
            // The throttle refuses an account after a few wrong passwords, without hashing.
            request: Box::new(|_| login_request(GUESSED, "wrong")),
            status: "HTTP/1.1 4",
        },
        Flood {
            name: "logins",
            request: Box::new(|client| login_request(&format!("user{client}"), PASSWORD)),
            status: "HTTP/1.1 200",
        },
    ]
}

/// Returns an expired token of the policy's other issuer.
fn expired() -> String {
    let claims = serde_json::json!({
        "iss": ISSUER, "aud": "portcullis", "sub": "ada", "iat": 1_700_000_000, "exp": 1_700_000_300,
    });
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("a token")
}

/// Lets the calling thread run only when nothing else wants the processor. A low priority is not enough: a thread of the
/// gateway that has had its share then waits for a whole slice of such a client.
fn run_when_idle() {
    // PID/task/THREAD.
    let own = std::fs::read_link("/proc/thread-self").expect("procfs");
    let thread = own.file_name().expect("a number");
    let done = Command::new("chrt").args(["--idle", "--pid", "0"]).arg(thread).status();
    let done = done.expect("chrt (util-linux)");
    assert!(done.success(), "chrt --idle");
}

/// The figures of one round.
struct Figures {
    /// The median and the 99th percentile.
    quiet: (Duration, Duration),
    flooded: (Duration, Duration),
    ratio: f64,
    /// The answers that the flood got per second.
    answers: f64,
}

fn round(address: SocketAddr, token: &str, flood: &Flood) -> Figures {
    let quiet = percentiles(&measure(address, token));
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let (flooded, answers) = std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (stop, count) = (&stop, &count);
            scope.spawn(move || {
                run_when_idle();
                let request = (flood.request)(client);
                let mut stream = None;
                while !stop.load(Ordering::Relaxed) {
                    let found = exchange(&mut stream, address, &request);
                    if let Some(text) = found {
                        assert!(text.starts_with(flood.status), "{text}");
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let begin = Instant::now();
        let latencies = measure(address, token);
        let answers = count.load(Ordering::Relaxed) as f64 / begin.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        (percentiles(&latencies), answers)
    });
    Figures { quiet, flooded, ratio: flooded.1.as_secs_f64() / quiet.1.as_secs_f64(), answers }
}

fn percentiles(sorted: &[Duration]) -> (Duration, Duration) {
    (sorted[sorted.len() / 2], sorted[sorted.len() * 99 / 100])
}

/// Sends a request over a kept connection, or a new one. Returns `None` if the gateway has closed the connection.
fn exchange(kept: &mut Option<TcpStream>, address: SocketAddr, request: &str) -> Option<String> {
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => TcpStream::connect(address).ok()?,
    };
    stream.write_all(request.as_bytes()).ok()?;
    let text = answer(&mut stream)?;
    *kept = Some(stream);
    Some(text)
}

fn login_request(name: &str, password: &str) -> String {
    let body = format!("username={name}&password={}", password.replace(' ', "+"));
    let head = "POST /auth/login HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-www-form-urlencoded";
    format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn login(address: SocketAddr, name: &str) -> Option<String> {
    let text = exchange(&mut None, address, &login_request(name, PASSWORD))?;
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
