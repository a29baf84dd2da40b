//! Proofs of identity for upstreams. The programs in docs/identity verify them in their own runtimes.

use crate::kit::account::{self, AUTHORITY, login};
use crate::kit::dir::Dir;
use crate::kit::forge::{self, Algorithm};
use crate::kit::portcullis::{command, write_policy};
use crate::kit::upstream::Seen;
use crate::kit::{Portcullis, Request, Upstream, token, values};
use aws_lc_rs::hmac;
use http::{HeaderMap, HeaderName};
use jsonwebtoken::jwk::JwkSet;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

#[path = "../../docs/identity/assertion.rs"]
mod documented;
#[path = "../../docs/identity/signature.rs"]
mod documented_signature;

const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef";

fn start(upstream: &Upstream, more: &str) -> Portcullis {
    let authority = AUTHORITY.replace("[authority]", "[authority]\nclaims = { tenant = \"tenant\" }");
    let gateway = Portcullis::with(&format!(
        "{authority}
[identity]
assertion = \"X-Auth-Assertion\"
signature = \"X-Auth-Signature\"
claims    = {{ \"X-Auth-Tenant\" = \"tenant\" }}
{more}
[upstream.orders]
servers         = [\"{upstream}\"]
identity_secret = \"{SECRET}\"

[[route]]
path         = \"/api/{{*rest}}\"
upstream     = \"orders\"
strip_prefix = \"/api\"

[[route]]
path     = \"/open\"
upstream = \"orders\"
access   = \"public\"
"
    ))
    .start();
    let name = "ada";
    let arguments = [
        "user",
        "add",
        name,
        "--password-stdin",
        "--role",
        "clerk",
        "--role",
        "auditör",
        "--attribute",
        "tenant=acme inc",
    ];
    let added = crate::kit::portcullis::command_with(gateway.dir(), &arguments, account::PASSWORD);
    assert_eq!(added.code, Some(0), "{added:?}");
    gateway
}

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/identity").join(name)
}

/// Returns a Python with the libraries that the programs need. The first call creates it.
fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join("identity-venv");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compat/venv.sh");
        let made = Command::new(script).arg(&environment).arg(docs("requirements.txt")).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        environment.join("bin/python")
    })
}

/// Runs a program. Returns the JSON that it prints, or its error output if it fails.
fn run(program: &Path, arguments: &[&str], input: &str) -> Result<Value, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .env("IDENTITY_SECRET", SECRET)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}; ./test installs it", program.display()));
    // A program that fails early may have ended before this write.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    if output.status.success() {
        Ok(serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// An issuer of assertions: the address of its keys, its keys, and its name.
struct Authority {
    keys_at: String,
    keys: JwkSet,
    name: &'static str,
}

impl Authority {
    fn of(gateway: &Portcullis) -> Self {
        let keys = Request::get("/.well-known/jwks.json").to(gateway.http()).is(200).json();
        let keys_at = format!("http://{}/.well-known/jwks.json", gateway.http());
        Self { keys_at, keys: serde_json::from_value(keys).unwrap(), name: "https://localhost:8443" }
    }

    /// Returns each program's verdict on an assertion, by runtime.
    fn verdicts(
        &self,
        assertion: &str,
        audience: &str,
        request: Option<(&str, &str)>,
    ) -> [(&'static str, Result<Value, String>); 3] {
        let checked = |runtime: &Path, script| {
            let script = docs(script);
            let mut arguments = vec![script.to_str().unwrap(), &self.keys_at, self.name, audience];
            arguments.extend(request.iter().flat_map(|(method, target)| [method, target]));
            run(runtime, &arguments, assertion)
        };
        [
            ("Python", checked(python(), "assertion.py")),
            ("Node", checked(Path::new("node"), "assertion.mjs")),
            ("Rust", documented::check(assertion, &self.keys, self.name, audience, request)),
        ]
    }
}

fn ask(gateway: &Portcullis, upstream: &Upstream, token: &str) -> Seen {
    Request::get("/api/orders/7?x=%2F").bearer(token).to(gateway.http()).is(200);
    upstream.last_request()
}

#[test]
fn an_assertion_is_checked_in_python_node_and_rust() {
    let upstream = Upstream::start();
    let gateway = start(&upstream, "");
    let token = login(gateway.http(), "ada").access;
    let seen = ask(&gateway, &upstream, &token);
    let assertion = seen.header("x-auth-assertion").unwrap();
    for (runtime, verdict) in Authority::of(&gateway).verdicts(assertion, "orders", None) {
        let claims = verdict.unwrap_or_else(|why| panic!("{runtime}: {why}"));
        assert_eq!((&claims["sub"], &claims["aud"]), (&json!("ada"), &json!("orders")), "{runtime}");
        assert_eq!((&claims["roles"], &claims["tenant"]), (&json!(["clerk", "auditör"]), &json!("acme inc")));
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 60);
    }
    let again = ask(&gateway, &upstream, &token);
    assert_eq!(again.header("x-auth-assertion"), Some(assertion), "it is given again while it is young");

    let (head, signature) = assertion.rsplit_once('.').unwrap();
    let flipped = if signature.starts_with('A') { "B" } else { "A" };
    let forged = format!("{head}.{flipped}{}", &signature[1..]);
    for (assertion, audience) in [(assertion, "stock"), (&*forged, "orders"), (&*token, "orders")] {
        for (runtime, verdict) in Authority::of(&gateway).verdicts(assertion, audience, None) {
            assert!(verdict.is_err(), "{runtime} takes {audience} {assertion}");
        }
    }
}

#[test]
fn each_program_refuses_what_is_no_assertion_though_its_key_signed_it() {
    let keys = forge::jwks();
    let body = keys.to_string();
    let served = Upstream::answering(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ));
    let authority = Authority {
        keys_at: format!("{served}/jwks.json"),
        keys: serde_json::from_value(keys).unwrap(),
        name: "https://id.test/",
    };
    let good = || token("ada").member("typ", json!("assertion+jwt"));
    let by = |algorithm| good().algorithm(algorithm);
    let forged = {
        let (message, other) = (good().sign(), token("eve").sign());
        format!("{}.{}", message.rsplit_once('.').unwrap().0, other.rsplit_once('.').unwrap().1)
    };
    let unsigned = good().member("alg", json!("none")).sign();
    let cases = [
        ("good", good().sign(), true),
        ("good, by EdDSA", by(Algorithm::EdDsa).sign(), true),
        ("an access token", token("ada").sign(), false),
        ("of no type", good().member("typ", Value::Null).sign(), false),
        ("expired", good().claim("exp", json!(forge::now() - 60)).sign(), false),
        ("that never expires", good().without("exp").sign(), false),
        ("another's", good().claim("iss", json!("https://evil.test/")).sign(), false),
        ("for another", good().claim("aud", json!("stock")).sign(), false),
        ("for nobody", good().without("aud").sign(), false),
        ("by no key", good().member("kid", Value::Null).sign(), false),
        ("by another key", good().member("kid", json!("eddsa")).sign(), false),
        ("by an algorithm that is none of ours", by(Algorithm::Rs256).sign(), false),
        ("by a secret", by(Algorithm::Hs256).member("kid", json!("es256")).sign(), false),
        ("with another's signature", forged, false),
        ("without a signature", unsigned.rsplit_once('.').unwrap().0.to_owned() + ".", false),
    ];
    python();
    std::thread::scope(|scope| {
        for (name, assertion, accepted) in &cases {
            let authority = &authority;
            scope.spawn(move || {
                for (runtime, verdict) in authority.verdicts(assertion, "orders", None) {
                    assert_eq!(verdict.is_ok(), *accepted, "{runtime}: {name}: {verdict:?}");
                }
            });
        }
    });
}

#[test]
fn an_assertion_is_no_access_token_and_no_client_can_bring_one() {
    let upstream = Upstream::start();
    let gateway = start(&upstream, "");
    let token = login(gateway.http(), "ada").access;
    let seen = ask(&gateway, &upstream, &token);
    let assertion = seen.header("x-auth-assertion").unwrap();
    Request::get("/api/x").bearer(assertion).to(gateway.http()).is_refusal(401, "wrong_type");
    for name in ["X-Auth-Assertion", "x_auth_assertion", "X-Auth-Signature", "X.Auth.Signature"] {
        Request::get("/open").header(name, assertion).to(gateway.http()).is(200);
        let seen = upstream.last_request();
        assert!(!seen.mentions(assertion), "{name}: {seen:?}");
    }
    Request::get("/api/x").bearer(&token).header("X-Auth-Assertion", "theirs").to(gateway.http()).is(200);
    assert!(!upstream.last_request().mentions("theirs"));
}

#[test]
fn an_assertion_that_is_bound_names_its_request() {
    let upstream = Upstream::start();
    let gateway = start(&upstream, "assertion_binds = true\n");
    let token = login(gateway.http(), "ada").access;
    let seen = ask(&gateway, &upstream, &token);
    let claims = account::claims(seen.header("x-auth-assertion").unwrap());
    assert_eq!((&claims["htm"], &claims["htu"]), (&json!("GET"), &json!("/orders/7?x=%2F")));
    let assertion = seen.header("x-auth-assertion").unwrap();
    for (method, target, good) in [
        ("GET", "/orders/7?x=%2F", true),
        ("POST", "/orders/7?x=%2F", false),
        ("GET", "/orders/8?x=%2F", false),
    ] {
        for (runtime, verdict) in
            Authority::of(&gateway).verdicts(assertion, "orders", Some((method, target)))
        {
            assert_eq!(verdict.is_ok(), good, "{runtime}: {method} {target}: {verdict:?}");
        }
    }
    assert_ne!(ask(&gateway, &upstream, &token).header("x-auth-assertion"), seen.header("x-auth-assertion"));
}

/// Returns the identity that the documented Rust function reports.
fn proven_in_rust(
    method: &str,
    target: &str,
    headers: &[(String, String)],
) -> Option<std::collections::BTreeMap<String, String>> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    let now = forge::now().unsigned_abs();
    let proven = documented_signature::identity((method, target), &map, SECRET.as_bytes(), now)?;
    Some(proven.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// Returns the signature that the gateway makes at this time.
fn signed_at(seen: &Seen, made: i64) -> String {
    let names = seen.header("x-auth-signature").unwrap().split(';').nth(2).unwrap().to_owned();
    let mut text = format!("v1\n{made}\n{}\n{}\n", seen.method, seen.target);
    for name in names.strip_prefix("h=").unwrap().split(',') {
        text.push_str(&format!("{name}:{}\n", seen.header(name).unwrap()));
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    format!("v1;t={made};{names};s={}", forge::base64url(hmac::sign(&key, text.as_bytes())))
}

#[test]
fn a_verdict_contains_the_proofs_of_the_forwarded_request() {
    let upstream = Upstream::start();
    let gateway = start(&upstream, "assertion_binds = true\n[server]\ntrusted_proxies = [\"127.0.0.1\"]\n");
    let token = login(gateway.http(), "ada").access;
    let question = |target: &str| {
        Request::get("/auth/verify")
            .header("X-Forwarded-Method", "GET")
            .header("X-Forwarded-Proto", "http")
            .header("X-Forwarded-Host", "shop.test")
            .header("X-Forwarded-Uri", target)
            .header("X-Auth-Assertion", "theirs")
            .bearer(&token)
            .to(gateway.http())
    };
    let target = "/api/orders/7?x=%2F";
    let answer = question(target);
    let assertion = answer.is(200).header("x-auth-assertion").unwrap();
    for (runtime, verdict) in Authority::of(&gateway).verdicts(assertion, "orders", Some(("GET", target))) {
        assert_eq!(verdict.unwrap_or_else(|why| panic!("{runtime}: {why}"))["sub"], "ada");
    }
    let proven = proven_in_rust("GET", target, &answer.headers).expect("a signature");
    assert_eq!(proven["x-auth-roles"], "clerk,audit%C3%B6r");
    assert_eq!(proven_in_rust("GET", "/orders/7?x=%2F", &answer.headers), None);
    let public = question("/open");
    for name in ["x-auth-assertion", "x-auth-signature", "x-auth-subject"] {
        assert!(values(&public.is(200).headers, name).is_empty(), "{name}: {public:?}");
    }
    upstream.saw_nothing();
}

#[test]
fn a_proof_that_would_prove_nothing_does_not_load() {
    let other = "[upstream.stock]\nbuiltin = \"echo\"\n";
    let secret = |secret: &str| format!("identity_secret = \"{secret}\"\n");
    let keyed = secret(SECRET);
    let (assertion, signature) = ("assertion = \"X-A\"\n", "signature = \"X-S\"\n");
    for (authority, identity, orders, more, code, said) in [
        (AUTHORITY, &*format!("{assertion}{signature}"), &*keyed, String::new(), 0, None),
        ("", assertion, "", String::new(), 1, Some("no_key")),
        (
            &format!("{AUTHORITY}algorithm = \"HS256\"\nsecret = \"{SECRET}\"\n"),
            assertion,
            "",
            String::new(),
            1,
            Some("no_key"),
        ),
        (
            &format!("{AUTHORITY}algorithm = \"RS256\"\n"),
            assertion,
            "",
            String::new(),
            0,
            Some("slow_signature"),
        ),
        (AUTHORITY, signature, "", String::new(), 1, Some("no_key")),
        (AUTHORITY, signature, &secret(&SECRET[..31]), String::new(), 1, Some("weak_secret")),
        (AUTHORITY, signature, &keyed, format!("{other}{keyed}"), 0, Some("same_secret")),
        (AUTHORITY, "", &keyed, String::new(), 0, Some("unused")),
        (AUTHORITY, "assertion_binds = true\n", "", String::new(), 0, Some("unused")),
    ] {
        let dir = Dir::new();
        let route = "[[route]]\npath = \"/x\"\nupstream = \"orders\"\naccess = \"public\"\n";
        // Every upstream gets a route, so that `check` does not report an unused upstream.
        let also = if more.is_empty() {
            String::new()
        } else {
            route.replace("/x", "/y").replace("orders", "stock")
        };
        let orders = format!("[upstream.orders]\nbuiltin = \"echo\"\n{orders}");
        write_policy(&dir, &format!("{authority}[identity]\n{identity}{orders}{more}{route}{also}"));
        let check = command(&dir, &["check", "--format", "json"]);
        assert_eq!(check.code, Some(code), "{identity}{orders}: {check:?}");
        for id in ["no_key", "slow_signature", "weak_secret", "same_secret", "unused"] {
            assert_eq!(check.text().contains(id), said == Some(id), "{id}: {identity}{orders}: {check:?}");
        }
    }
}

#[test]
fn a_signature_is_checked_with_no_library() {
    let upstream = Upstream::start();
    let gateway = start(&upstream, "");
    let seen = ask(&gateway, &upstream, &login(gateway.http(), "ada").access);
    assert_eq!(seen.target, "/orders/7?x=%2F");
    let headers: serde_json::Map<String, Value> =
        seen.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), json!(value))).collect();
    let request = json!({ "method": "GET", "target": seen.target, "headers": headers });
    let check = |request: &Value| {
        [("Python", python(), "signature.py"), ("Node", Path::new("node"), "signature.mjs")].map(
            |(runtime, program, script)| {
                (runtime, run(program, &[docs(script).to_str().unwrap()], &request.to_string()))
            },
        )
    };
    for (runtime, verdict) in check(&request) {
        let proven = verdict.unwrap_or_else(|why| panic!("{runtime}: {why}"));
        assert_eq!(
            (&proven["x-auth-subject"], &proven["x-auth-roles"]),
            (&json!("ada"), &json!("clerk,audit%C3%B6r"))
        );
        assert_eq!(proven["x-auth-tenant"], "acme inc");
    }
    let in_shell = |method: &str, target: &str, headers: &[(String, String)]| {
        let lines: String =
            headers.iter().map(|(name, value)| format!("{}: {value}\n", name.to_ascii_lowercase())).collect();
        run(&docs("signature.sh"), &[method, target], &lines).is_ok()
    };
    let in_rust = |method: &str, target: &str, headers: &[(String, String)]| {
        proven_in_rust(method, target, headers).is_some_and(|proven| proven["x-auth-subject"] == "ada")
    };
    for (method, target, name, value, good) in [
        ("GET", "/orders/7?x=%2F", "", "", true),
        ("GET", "/orders/7?x=%2F", "x-other", "changed", true),
        ("POST", "/orders/7?x=%2F", "", "", false),
        ("GET", "/orders/7", "", "", false),
        ("GET", "/orders/7?x=%2F", "x-auth-subject", "root", false),
        ("GET", "/orders/7?x=%2F", "x-auth-signature", "v1", false),
        ("GET", "/orders/7?x=%2F", "x-auth-signature", "v1;t=a[$(exit)];h=x-auth-subject;s=", false),
    ] {
        let mut headers = seen.headers.clone();
        if !name.is_empty() {
            headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
            headers.push((name.to_owned(), value.to_owned()));
        }
        assert_eq!(in_shell(method, target, &headers), good, "shell: {method} {target} {name}: {value}");
        assert_eq!(in_rust(method, target, &headers), good, "Rust: {method} {target} {name}: {value}");
    }
    // A replayed request with a second subject is rejected, because a service may read either subject.
    let another = [("X-Auth-Subject".to_owned(), "root".to_owned())];
    for twice in [[&seen.headers[..], &another].concat(), [&another, &seen.headers[..]].concat()] {
        assert!(!in_shell("GET", &seen.target, &twice), "shell: {twice:?}");
        assert!(!in_rust("GET", &seen.target, &twice), "Rust: {twice:?}");
    }
    // A valid signature expires.
    for (seconds, good) in [(0, true), (-30, true), (30, true), (-90, false), (90, false)] {
        let signature = signed_at(&seen, forge::now() + seconds);
        let mut headers = seen.headers.clone();
        headers.retain(|(name, _)| !name.eq_ignore_ascii_case("x-auth-signature"));
        headers.push(("x-auth-signature".to_owned(), signature.clone()));
        assert_eq!(in_shell("GET", &seen.target, &headers), good, "shell: {seconds}");
        assert_eq!(in_rust("GET", &seen.target, &headers), good, "Rust: {seconds}");
        let mut changed = request.clone();
        changed["headers"]["x-auth-signature"] = json!(signature);
        for (runtime, verdict) in check(&changed) {
            assert_eq!(verdict.is_ok(), good, "{runtime}: {seconds}: {verdict:?}");
        }
    }

    let change = |pointer: &str, value: &str| {
        let mut changed = request.clone();
        *changed.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = json!(value);
        changed
    };
    let old = headers["x-auth-signature"].as_str().unwrap().replacen("t=1", "t=0", 1);
    for changed in [
        change("/method", "POST"),
        change("/target", "/orders/8?x=%2F"),
        change("/headers/x-auth-subject", "root"),
        change("/headers/x-auth-roles", "admin"),
        change("/headers/x-auth-signature", &old),
        change("/headers/x-auth-signature", "v1;t=1;h=x-auth-subject;s="),
        change("/headers/x-auth-signature", &format!("v1;t={};h=x-auth-subject;s=\u{e9}", "9".repeat(5000))),
    ] {
        for (runtime, verdict) in check(&changed) {
            // The program rejects the input and does not crash.
            assert_eq!(verdict.expect_err(runtime).trim(), "not proven", "{runtime}: {changed}");
        }
    }
}
