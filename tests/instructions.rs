//! Each stage of the hot path takes as many instructions as recorded in `tests/instructions.txt`.
//!
//! The program runs itself under callgrind, once with few and once with many repetitions of a stage. The difference is the
//! cost of the repetitions alone. The counts are of this build without optimisation. They show that a stage grew, and
//! `benches/instructions.sh` shows the cost of a whole request in a release build.
//!
//! `cargo test --test instructions -- --record` records the counts.
#![allow(clippy::print_stdout, reason = "a program that prints figures")]
#![allow(clippy::unwrap_used, reason = "helpers of a test")]

#[path = "kit/measured.rs"]
mod measured;

use bytes::BytesMut;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Request};
use measured::{authorization, issuer};
use portcullis::authenticate::{Access, CredentialPolicy, Credentials, IdentityHeaders, TokenCache};
use portcullis::authorize::{Check, Rule};
use portcullis::clock::Now;
use portcullis::decision::decide;
use portcullis::forward::strip;
use portcullis::http1::{HeadReader, KnownHead};
use portcullis::limit::{By, Limit, LimitKey, Standing, admit};
use portcullis::peer::Scheme;
use portcullis::route::head::HeadBounds;
use portcullis::route::{
    Fields, Head, HostPattern, Matcher, Methods, Params, PathPattern, RouteTable, Slashes,
};
use std::hint::black_box;
use std::num::NonZeroU32;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/instructions.txt");
/// The repetitions of a stage in the two runs.
const FEW: u64 = 100;
const MANY: u64 = 1100;
/// The maximum difference from the record, in percent.
const TOLERANCE: u64 = 3;

/// The name of a stage, and the function that repeats it.
type Stage = (&'static str, fn(u64));

const STAGES: [Stage; 8] = [
    ("read-head", read_head),
    ("find-route", find_route),
    ("decide-known-token", decide_known),
    ("refuse-known-token", refuse_known),
    ("limit", limit),
    ("limit-fields", limit_fields),
    ("strip", strip_fields),
    ("read-answer", read_answer),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["--stage", name, times] => {
            let (_, stage) = STAGES.iter().find(|(known, _)| *known == name).expect("a stage");
            stage(times.parse().expect("a number"));
            ExitCode::SUCCESS
        }
        ["--record", ..] => record(),
        // `cargo test` passes the names of other tests to this program as well.
        [name, ..] if !name.starts_with('-') && !"instructions".contains(name) => ExitCode::SUCCESS,
        [.., "--list"] => ExitCode::SUCCESS,
        _ => compare(),
    }
}

/// The compiler and the instruction set, because the counts depend on both.
fn machine() -> String {
    let version = Command::new("rustc").arg("--version").output().expect("rustc");
    let version = String::from_utf8_lossy(&version.stdout);
    let version = version.split(' ').nth(1).expect("a version");
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let vectors = if cpu.contains(" avx2 ") { " with AVX2" } else { "" };
    format!("{version}, {}{vectors}", std::env::consts::ARCH)
}

/// Returns the instructions of one repetition of a stage.
fn count(name: &str) -> u64 {
    let run = |times: u64| -> u64 {
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new("valgrind");
        command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
        let output = command.arg(program).args(["--stage", name, &times.to_string()]).output();
        let text = String::from_utf8_lossy(&output.expect("valgrind is installed").stderr).into_owned();
        let collected = text.lines().find_map(|line| line.split("Collected : ").nth(1));
        collected.unwrap_or_else(|| panic!("{name}: {text}")).trim().parse().expect("a count")
    };
    (run(MANY) - run(FEW)) / (MANY - FEW)
}

fn record() -> ExitCode {
    let lines = STAGES.iter().map(|(name, _)| format!("{name} {}\n", count(name)));
    let text = format!("# {}\n{}", machine(), lines.collect::<String>());
    print!("{text}");
    std::fs::write(RECORD, text).expect("the record is written");
    ExitCode::SUCCESS
}

fn compare() -> ExitCode {
    let record = std::fs::read_to_string(RECORD).expect("a record");
    let (first, lines) = record.split_once('\n').expect("a first line");
    let recorded = first.trim_start_matches("# ");
    if recorded != machine() {
        println!("not compared: this is {}, and the recorded counts are of {recorded}", machine());
        return ExitCode::SUCCESS;
    }
    let mut failed = lines.lines().count() != STAGES.len();
    for (name, _) in STAGES {
        let known = lines.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let known: u64 = known.and_then(|known| known.parse().ok()).unwrap_or_default();
        let found = count(name);
        println!("{name}: {found} instructions, {known} recorded");
        failed |= found.abs_diff(known) * 100 > known * TOLERANCE;
    }
    if failed {
        println!(
            "A count differs from tests/instructions.txt by more than {TOLERANCE} %. If the change is wanted, record \
             the counts with `cargo test --test instructions -- --record`, and give the reason in the commit."
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// A browser's request with a token that is valid for an hour.
fn request(now: Now) -> Request<()> {
    let claims = serde_json::json!({ "roles": ["clerk", "admin"], "scope": "orders:read" });
    Request::get("/orders/20471/lines?page=2")
        .header("host", "api.example.com")
        .header("accept", "application/json")
        .header("accept-language", "en")
        .header("user-agent", "client/1.0")
        .header("x-forwarded-for", "192.0.2.7")
        .header(AUTHORIZATION, authorization(now, claims))
        .body(())
        .unwrap()
}

fn bounds() -> HeadBounds {
    HeadBounds { header_bytes: 16 << 10, header_count: 100 }
}

fn read_head(times: u64) {
    let (parts, ()) = request(Now::read()).into_parts();
    for _ in 0..times {
        assert!(Head::read(black_box(&parts), bounds(), Slashes::Strict).is_ok());
    }
}

fn find_route(times: u64) {
    let (parts, ()) = request(Now::read()).into_parts();
    let head = Head::read(&parts, bounds(), Slashes::Strict).unwrap();
    let paths = ["/", "/orders", "/orders/{id}", "/orders/{id}/lines", "/stock/{*rest}"];
    let entries = paths.into_iter().enumerate().map(|(nth, path)| {
        let path = PathPattern::parse(path).unwrap();
        (Matcher { host: HostPattern::Any, path, methods: Methods::any(), fields: Fields::default() }, nth)
    });
    let table = RouteTable::build(entries.collect()).unwrap();
    for _ in 0..times {
        assert_eq!(table.find(black_box(&head)).map(|found| *found.entry).ok(), Some(3));
    }
}

fn decide_known(times: u64) {
    decide_role("clerk", times, true);
}

fn refuse_known(times: u64) {
    decide_role("root", times, false);
}

fn decide_role(role: &str, times: u64, expected: bool) {
    let (trust, now) = (measured::trust(issuer(), &[]), Now::read());
    let (parts, ()) = request(now).into_parts();
    let head = Head::read(&parts, bounds(), Slashes::Strict).unwrap();
    let rule = Rule::new(vec![
        Check::Roles(Box::new([role.into()])),
        Check::Scopes { all: Box::new(["orders:read".into()]), challenge: Arc::from("orders:read") },
    ]);
    let shown = Credentials::new(&head, Scheme::Https);
    let credential_policy = CredentialPolicy::from(Access::Authenticated);
    let mut tokens = TokenCache::new(16);
    for _ in 0..times {
        let decision = decide(
            &credential_policy,
            &rule,
            &trust,
            black_box(&shown),
            &Params::default(),
            now,
            &mut tokens,
        );
        assert_eq!(decision.is_ok(), expected);
    }
}

fn limits() -> [Arc<Limit>; 1] {
    let much = NonZeroU32::MAX;
    [Arc::new(Limit::new("callers".into(), By::ClientIp, much, Duration::from_secs(1), much))]
}

fn limit(times: u64) {
    let (limits, headers) = (limits(), HeaderMap::new());
    let address = std::net::Ipv4Addr::LOCALHOST.into();
    let key = LimitKey { address, headers: &headers, route: "orders", principal: None };
    for _ in 0..times {
        let mut standing = Standing::default();
        assert!(admit(black_box(&limits), &key, &mut standing).is_ok());
    }
}

fn limit_fields(times: u64) {
    let (limits, headers) = (limits(), HeaderMap::new());
    let address = std::net::Ipv4Addr::LOCALHOST.into();
    let key = LimitKey { address, headers: &headers, route: "orders", principal: None };
    let mut standing = Standing::default();
    assert!(admit(&limits, &key, &mut standing).is_ok());
    let mut answer = HeaderMap::new();
    for _ in 0..times {
        black_box(&standing).write(&mut answer, 0);
    }
}

fn strip_fields(times: u64) {
    let (parts, ()) = request(Now::read()).into_parts();
    let identity = IdentityHeaders::default();
    let filter = strip::Filter { identity: &identity, pass: &[], authorization: false, proof: false };
    let kept = |name| filter.verdict(name) == strip::Verdict::Keep;
    for _ in 0..times {
        assert_eq!(black_box(&parts.headers).keys().filter(|name| kept(name)).count(), 4);
    }
}

fn read_answer(times: u64) {
    let answer = b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Sun, 29 Nov 2026 12:00:00 GMT\r\n\
                   Content-Type: application/json\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\n";
    let mut known = KnownHead::default();
    let (mut buffer, mut headers) = (BytesMut::new(), HeaderMap::new());
    for _ in 0..times {
        headers.clear();
        buffer.extend_from_slice(black_box(answer));
        let head = HeadReader::new(&Method::GET).read(&mut buffer, &mut headers, &mut known);
        assert!(head.is_ok_and(|head| head.is_some()));
    }
}
