//! gRPC calls through the gateway, with grpcio as client and as service.

use crate::kit::dir::Dir;
use crate::kit::forge::{issuer_without_leeway, now};
use crate::kit::lines::Lines;
use crate::kit::pki::Authority;
use crate::kit::{Portcullis, Request, eventually, tls, token};
use serde_json::json;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Returns the command that runs a script of `tests/grpc`.
pub fn script(name: &str) -> Command {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join("grpc-venv");
    let mut make = Command::new(tests.join("compat/venv.sh"));
    let made = make.arg(&environment).arg(tests.join("grpc/requirements.txt")).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut command = Command::new(environment.join("bin/python"));
    command.arg(tests.join("grpc").join(name));
    // A reset that the service expects is noise in the log of a test.
    command.env("GRPC_VERBOSITY", "NONE").env_remove("http_proxy").env_remove("https_proxy");
    command
}

/// A running script, which is killed when it is dropped.
pub(crate) struct Running {
    child: Child,
    lines: Lines,
}

impl Running {
    /// Starts a script.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = Lines::of(child.stdout.take().unwrap());
        Self { child, lines }
    }

    pub(crate) fn service(arguments: &[&Path]) -> (Self, u16) {
        let mut command = script("service.py");
        command.args(arguments);
        let service = Self::start(command);
        let port = service.line().parse().expect("a port");
        (service, port)
    }

    /// Starts a client that makes these calls through the gateway.
    fn client(gateway: &Portcullis, token: &str, checks: &[&str]) -> Self {
        let mut command = script("client.py");
        command.args([&gateway.http().to_string(), token]).args(checks);
        Self::start(command)
    }

    /// Returns the next line of its output.
    #[track_caller]
    pub fn line(&self) -> String {
        self.lines.next_line()
    }

    /// Writes a line to its standard input.
    pub fn tell(&mut self, command: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{command}").unwrap();
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Reads its output to the end.
    fn rest(mut self) -> Vec<String> {
        let lines: Vec<_> =
            std::iter::from_fn(|| Some(self.line()).filter(|line| !line.is_empty())).collect();
        assert!(self.child.wait().unwrap().success(), "{lines:?}");
        lines
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn policy(server: &str, more: &str) -> String {
    let issuer = issuer_without_leeway();
    format!(
        "{issuer}\n[upstream.app]\nservers = [\"{server}\"]\nprotocol = \"http2\"\n{more}\n
[[route]]
path     = \"/test.Calls/{{method}}\"
upstream = \"app\"

[[route]]
path     = \"/test.Calls/Admin\"
upstream = \"app\"
roles    = [\"admin\"]
"
    )
}

fn gateway(port: u16) -> Portcullis {
    Portcullis::with(&policy(&format!("http://127.0.0.1:{port}"), "")).start()
}

fn all_ok(lines: &[String], count: usize) {
    assert!(lines.len() == count && lines.iter().all(|line| line.ends_with(" ok")), "{lines:#?}");
}

#[test]
fn all_four_kinds_of_call_pass_with_metadata_statuses_and_refusals() {
    let (_service, port) = Running::service(&[]);
    let gateway = gateway(port);
    let client =
        Running::client(&gateway, &token("ada").to_string(), &["kinds", "talk", "statuses", "refused"]);
    all_ok(&client.rest(), 5 + 7 + 17 + 2);
}

#[test]
fn a_service_over_tls_is_verified_and_must_offer_http2() {
    let authority = Authority::new("services");
    let identity = authority.issue(&["localhost"]);
    let dir = Dir::new();
    dir.write("service.pem", &identity.pem);
    dir.write("service.key", &identity.key);
    let (_service, port) =
        Running::service(&[&dir.path().join("service.pem"), &dir.path().join("service.key")]);
    let policy = policy(&format!("https://localhost:{port}"), "ca = \"ca.pem\"");
    let trusting = Portcullis::with(&policy).file("ca.pem", &authority.pem).start();
    let client = Running::client(&trusting, &token("ada").to_string(), &["kinds", "talk"]);
    all_ok(&client.rest(), 5 + 7);
    let stranger = Authority::new("strangers");
    let distrusting = Portcullis::with(&policy).file("ca.pem", &stranger.pem).start();
    let client = Running::client(&distrusting, &token("ada").to_string(), &["finish"]);
    assert_eq!(client.line(), "");
    let line = distrusting.wait_log("a refusal", |line| line["reason"] == "upstream_unavailable");
    assert!(
        line["detail"].as_str().unwrap().ends_with("TLS: invalid peer certificate: UnknownIssuer"),
        "{line}"
    );
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let http1 = tls::Server::start(certificate.der(), &key);
    let policy = self::policy(&format!("https://localhost:{}", http1.port()), "ca = \"ca.pem\"");
    let gateway = Portcullis::with(&policy).file("ca.pem", certificate.pem()).start();
    let answer = Request::post("/test.Calls/Unary", "").bearer(token("ada")).to(gateway.http());
    let line = gateway.access_line(answer.is_refusal(503, "upstream_unavailable"));
    assert!(line["detail"].as_str().unwrap().contains("ALPN"), "{line}");
}

#[test]
fn deadlines_and_cancelled_calls_end_at_the_service() {
    let (service, port) = Running::service(&[]);
    let gateway = gateway(port);
    let client = Running::client(&gateway, &token("ada").to_string(), &["deadline", "cancel"]);
    all_ok(&client.rest(), 4);
    let mut ended: Vec<_> = (0..3).map(|_| service.line()).collect();
    ended.sort();
    assert_eq!(ended, ["ended cancelled", "ended silent", "ended speaks"]);
}

#[test]
fn a_call_ends_with_its_token_and_the_client_gets_a_status() {
    let (service, port) = Running::service(&[]);
    let gateway = gateway(port);
    let token = token("ada").claim("exp", json!(now() + 3)).to_string();
    let client = Running::client(&gateway, &token, &["hold"]);
    assert_eq!(client.rest(), ["begun", "hold UNAUTHENTICATED token_expired"]);
    assert_eq!(service.line(), "ended held");
    let line = gateway.wait_log("the call", |line| line["ended"] == "token_expired");
    assert_eq!(line["complete"], false, "{line}");
}

#[test]
fn a_service_that_stops_finishes_its_calls_and_one_that_dies_fails_them() {
    let (mut service, port) = Running::service(&[]);
    let gateway = gateway(port);
    let token = token("ada").to_string();
    let client = Running::client(&gateway, &token, &["finish"]);
    assert_eq!(client.line(), "begun");
    service.tell("stop");
    assert_eq!(service.line(), "stopping");
    assert_eq!(client.rest(), ["finish finished OK"]);

    let (mut service, port) = Running::service(&[]);
    let gateway = self::gateway(port);
    let client = Running::client(&gateway, &token, &["hold"]);
    assert_eq!(client.line(), "begun");
    service.kill();
    assert_eq!(client.rest(), ["hold UNAVAILABLE upstream_failed"]);
    let client = Running::client(&gateway, &token, &["hold"]);
    drop(client);
}

#[test]
fn calls_of_many_threads_share_one_connection_of_a_core() {
    let (_service, port) = Running::service(&[]);
    let gateway = gateway(port);
    let client = Running::client(&gateway, &token("ada").to_string(), &["many"]);
    all_ok(&client.rest(), 1);
    eventually("one connection is open", || {
        gateway.metric("portcullis_upstream_connections_open{upstream=\"app\"}") == Some(1)
    });
}
