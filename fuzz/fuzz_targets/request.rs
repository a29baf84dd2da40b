//! A request reaches an upstream only through the route that also a lenient server would read in its path: one that
//! decodes twice, ignores case, parameters, empty and dot segments, and reads a backslash as a slash. The upstream's
//! request states the caller's identity and no other. A redirect leads to the host that the policy names.
//!
//! The first line is the request, such as `GET https://a/b`. The others are fields.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::clock::Now;
use portcullis::config::load_text;
use portcullis::explain::{Examiner, Responder};
use portcullis::keyring::MissingKey;
use portcullis::policy::{Policy, Question, compile};
use portcullis::route::path::canonical;
use serde_json::json;
use std::sync::LazyLock;

const POLICY: &str = r#"
[server]
trusted_proxies = ["192.0.2.0/24"]

[[issuer]]
issuer = "https://id.example.com/"
audience = ["orders"]
algorithms = ["HS256"]
secret = "k7Qz1k8Wv3Jq0ZpLmX2v5T9rY4uB6nHc"

[upstream.orders]
servers = ["http://127.0.0.1:9001"]

[[route]]
path = "/{*rest}"
upstream = "orders"
access = "optional"

[[route]]
path = "/admin/{*rest}"
upstream = "orders"
roles = ["admin"]

[[route]]
path = "/team/{id}/secret"
upstream = "orders"
roles = ["admin"]

[cors.app]
origins = ["https://app.example", "https://*.shop.example"]
headers = ["x-a"]
credentials = true

[[route]]
path = "/api/{*rest}"
upstream = "orders"
cors = "app"
strip_prefix = "/api"
add_prefix = "/v1"
set_request_headers = { "X-Env" = "prod" }

[[route]]
name = "new"
path = "/api/{*rest}"
headers = { "X-Kind" = "new" }
upstream = "orders"
rewrite_pattern = "/api/([^/]*)/(.*)"
rewrite_to = "/v2/{2}/{1}"

[[route]]
path = "/old/{id}"
redirect = "https://new.example/now/{id}"
access = "public"
"#;

static COMPILED: LazyLock<Policy> = LazyLock::new(|| {
    let file =
        load_text("gateway.toml", POLICY.to_owned(), ".".into(), Vec::new()).expect("a well-formed file");
    compile(&file, MissingKey::Ephemeral).expect("a sound policy").policy
});

/// Returns the segments of a path as a lenient server reads them.
fn segments(path: &str) -> Vec<String> {
    let mut bytes = path.as_bytes().to_vec();
    for _ in 0..2 {
        let (mut decoded, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            let digits = bytes.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
            let code =
                digits.filter(|_| bytes[at] == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
            decoded.push(code.unwrap_or(bytes[at]));
            at += if code.is_some() { 3 } else { 1 };
        }
        bytes = decoded;
    }
    let mut folders = Vec::new();
    for segment in String::from_utf8_lossy(&bytes).to_lowercase().split(['/', '\\']) {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => drop(folders.pop()),
            segment => folders.push(segment.to_owned()),
        }
    }
    folders
}

fn is_guarded(path: &str) -> bool {
    let read = segments(path);
    let read: Vec<&str> = read.iter().map(|segment| &**segment).collect();
    matches!(read[..], ["admin", ..] | ["team", _, "secret"])
}

fuzz_target!(|text: &str| {
    let mut lines = text.split('\n');
    let Ok(mut question) = Question::parse(lines.next().unwrap_or_default()) else { return };
    for line in lines.take(16) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        match question.clone().header(name, value) {
            Ok(longer) => question = longer,
            Err(_) => return,
        }
    }
    question = question.at(Now::at(1_800_000_000));
    let claims = json!({ "sub": "ada", "roles": ["clerk"] });
    let known = question.clone().claims(claims.as_object().cloned().expect("an object"));
    let examiner = Examiner::new(&COMPILED);
    for (question, subject) in [(question, None), (known, Some("ada"))] {
        let (verdict, sent) = examiner.verdict_and_request(&question);
        let Some(sent) = sent else { continue };
        assert!(verdict.reaches() || sent.responder == Responder::Redirect);
        if sent.responder == Responder::Preflight {
            continue;
        }
        if sent.responder == Responder::Redirect {
            assert!(sent.path.starts_with("https://new.example/now/"), "{}", sent.path);
            assert!(sent.path.bytes().all(|byte| byte.is_ascii_graphic()));
            continue;
        }
        assert_eq!(sent.responder, Responder::Upstream);
        let path = sent.path.split('?').next().unwrap_or_default();
        for path in [question.parts.uri.path(), path] {
            assert!(!is_guarded(path), "{path}");
        }
        assert!(matches!(canonical(path), Ok(same) if same == path), "{path}");
        if segments(question.parts.uri.path()).first().is_some_and(|first| first == "api") {
            let env: Vec<_> =
                sent.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("x-env")).collect();
            let is_stripped = path == "/v1" || path.starts_with("/v1/");
            assert!(!is_stripped || env.len() == 1 && env[0].1 == "prod");
            assert!(is_stripped || path.starts_with("/v2/") || path.starts_with("/api/"), "{path}");
        }
        let read = |name: &str| name.replace(|c: char| !c.is_ascii_alphanumeric(), "-").to_ascii_lowercase();
        let identity: Vec<_> =
            sent.headers.iter().filter(|(name, _)| read(name).starts_with("x-auth-")).collect();
        let subjects: Vec<_> = identity.iter().filter(|(name, _)| name == "x-auth-subject").collect();
        assert_eq!(subjects.first().map(|(_, value)| &**value), subject);
        assert!(identity.len() <= 3 && subjects.len() <= 1);
        for (name, value) in &sent.headers {
            assert!(!value.contains(['\r', '\n', '\0']) || value.starts_with('<'), "{name}");
        }
        let hosts = sent.headers.iter().filter(|(name, _)| read(name) == "host").count();
        assert!(hosts <= 1);
    }
});
