//! Proofs of identity for upstreams: what the upstream got, checked by the programs of docs/identity in their own runtimes.

use crate::kit::account::{self, AUTHORITY, login};
use crate::kit::dir::Dir;
use crate::kit::portcullis::{command, write_policy};
use crate::kit::upstream::Seen;
use crate::kit::{Portcullis, Request, Upstream, values};
use http::{HeaderMap, HeaderName};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::SystemTime;

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
    // A program that refuses early may have ended before it is written to.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
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
    request: Option<(&str, &str)>,
) -> [(&'static str, Result<Value, String>); 3] {
    let url = format!("http://{}/.well-known/jwks.json", gateway.http());
    let issuer = "https://localhost:8443";
    let program = |name| docs(name).to_str().unwrap().to_owned();
    let keys = Request::get("/.well-known/jwks.json").to(gateway.http()).is(200).json();
    let keys = serde_json::from_value(keys).unwrap();
    let checked = |runtime: &Path, script| {
        let script = program(script);
        let mut arguments = vec![&*script, &*url, issuer, audience];
        arguments.extend(request.iter().flat_map(|(method, target)| [method, target]));
        run(runtime, &arguments, assertion)
    };
    [
        ("Python", checked(python(), "assertion.py")),
        ("Node", checked(Path::new("node"), "assertion.mjs")),
        ("Rust", documented::check(assertion, &keys, issuer, audience, request)),
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
    for (runtime, verdict) in verdicts(&gateway, assertion, "orders", None) {
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
        for (runtime, verdict) in verdicts(&gateway, assertion, audience, None) {
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
    let assertion = seen.header("x-auth-assertion").unwrap();
    for (method, target, good) in [
        ("GET", "/orders/7?x=%2F", true),
        ("POST", "/orders/7?x=%2F", false),
        ("GET", "/orders/8?x=%2F", false),
    ] {
        for (runtime, verdict) in verdicts(&gateway, assertion, "orders", Some((method, target))) {
            assert_eq!(verdict.is_ok(), good, "{runtime}: {method} {target}: {verdict:?}");
        }
    }
    assert_ne!(ask(&gateway, &upstream, &token).header("x-auth-assertion"), seen.header("x-auth-assertion"));
}

/// What the documented function for Rust finds proven.
fn proven_in_rust(
    method: &str,
    target: &str,
    headers: &[(String, String)],
) -> Option<std::collections::BTreeMap<String, String>> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let proven = documented_signature::identity((method, target), &map, SECRET.as_bytes(), now)?;
    Some(proven.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

#[test]
fn who_asks_for_a_verdict_gets_the_proofs_of_the_request_that_it_will_forward() {
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
    for (runtime, verdict) in verdicts(&gateway, assertion, "orders", Some(("GET", target))) {
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
        let orders = format!("[upstream.orders]\nbuiltin = \"echo\"\n{orders}");
        write_policy(&dir, &format!("{authority}[identity]\n{identity}{orders}{more}{route}"));
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
    // Whoever sends it again cannot put another name beside the proven one.
    let twice = [&seen.headers[..], &[("X-Auth-Subject".to_owned(), "root".to_owned())]].concat();
    assert!(!in_shell("GET", &seen.target, &twice) && !in_rust("GET", &seen.target, &twice));

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
            assert!(verdict.is_err(), "{runtime} takes {changed}");
        }
    }
}
