//! Proofs of identity for upstreams: what the upstream got, checked by the programs of docs/identity in their own runtimes.

use crate::kit::account::{self, AUTHORITY, login};
use crate::kit::upstream::Seen;
use crate::kit::{Portcullis, Request, Upstream};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

#[path = "../../docs/identity/assertion.rs"]
mod documented;

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

/// A Python with the libraries that the programs need, made once.
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

/// What a program prints as JSON; why it refuses, where it does.
fn run(program: &Path, arguments: &[&str], input: &str) -> Result<Value, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .env("IDENTITY_SECRET", SECRET)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}; ./test installs it", program.display()));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    if output.status.success() {
        Ok(serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// The programs' verdicts on an assertion, by runtime.
fn verdicts(
    gateway: &Portcullis,
    assertion: &str,
    audience: &str,
) -> [(&'static str, Result<Value, String>); 3] {
    let url = format!("http://{}/.well-known/jwks.json", gateway.http());
    let issuer = "https://localhost:8443";
    let program = |name| docs(name).to_str().unwrap().to_owned();
    let keys = Request::get("/.well-known/jwks.json").to(gateway.http()).is(200).json();
    let keys = serde_json::from_value(keys).unwrap();
    [
        ("Python", run(python(), &[&program("assertion.py"), &url, issuer, audience], assertion)),
        ("Node", run(Path::new("node"), &[&program("assertion.mjs"), &url, issuer, audience], assertion)),
        ("Rust", documented::check(assertion, &keys, issuer, audience)),
    ]
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
    for (runtime, verdict) in verdicts(&gateway, assertion, "orders") {
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
        for (runtime, verdict) in verdicts(&gateway, assertion, audience) {
            assert!(verdict.is_err(), "{runtime} takes {audience} {assertion}");
        }
    }
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
    assert_ne!(ask(&gateway, &upstream, &token).header("x-auth-assertion"), seen.header("x-auth-assertion"));
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
    let lines: String =
        headers.iter().map(|(name, value)| format!("{name}: {}\n", value.as_str().unwrap())).collect();
    let shell = run(&docs("signature.sh"), &["GET", &seen.target], &lines);
    assert!(shell.is_ok(), "{shell:?}");

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
    ] {
        for (runtime, verdict) in check(&changed) {
            assert!(verdict.is_err(), "{runtime} takes {changed}");
        }
    }
}
