//! The certificate of `[tls] acme`, from a real ACME server (Pebble) that validates the domains for real.

use crate::kit::acme::{AcmeServer, EXTERNAL, Pebble};
use crate::kit::dir::Dir;
use crate::kit::portcullis::completed;
use crate::kit::tls::{Options, connect};
use crate::kit::{Connection, Portcullis, Request, Upstream, eventually};
use crate::reload::reload;
use crate::{PUBLIC, policy};
use rustls::pki_types::CertificateDer;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const SERVER: &str = "[server]\nhttps = \"127.0.0.1:0\"\n";

/// Returns a policy that orders a certificate.
pub(crate) fn ordering(server: &AcmeServer, upstream: &Upstream, domains: &[&str], more: &str) -> String {
    format!("{SERVER}{}{}", server.keys(domains, more), policy(upstream, PUBLIC))
}

/// Starts a gateway that orders a certificate, and lets the server's validations reach it.
pub(crate) fn started(server: &AcmeServer, policy: &str) -> Portcullis {
    let gateway = Portcullis::with(policy).start();
    server.validates(gateway.https(), Some(gateway.http()));
    gateway
}

/// Returns the certificate that clients of a host get.
#[track_caller]
pub(crate) fn shown(gateway: &Portcullis, name: &'static str) -> CertificateDer<'static> {
    let stream = connect(gateway.https(), &Options { name: Some(name), ..Options::default() });
    stream.unwrap().conn.peer_certificates().unwrap()[0].clone().into_owned()
}

/// Whether a client that trusts this root accepts the gateway as this host.
pub(crate) fn is_trusted(gateway: &Portcullis, name: &'static str, root: &Path) -> bool {
    let options = Options { name: Some(name), trust: Some(root.to_owned()), ..Options::default() };
    connect(gateway.https(), &options).is_ok()
}

#[track_caller]
pub(crate) fn wait_issued(gateway: &Portcullis) {
    gateway.wait_log("the certificate is issued", |line| {
        line["message"] == "the ACME server issued the certificate"
    });
}

pub(crate) fn verbose(gateway: &Portcullis) -> String {
    Request::get("/readyz?verbose").to(gateway.admin()).is(200).text()
}

/// Returns the files of the orders with their modes.
fn files(dir: &Dir) -> Vec<(PathBuf, u32)> {
    let folder = dir.path().join("state/acme");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    files.map(|file| (file.path(), file.metadata().unwrap().permissions().mode() & 0o777)).collect()
}

#[test]
fn domains_and_email_are_enough_and_clients_trust_the_certificate() {
    let (server, upstream) = (Pebble::default().start(), Upstream::start());
    // Nothing leads to the gateway yet, so that the order has to wait.
    let gateway = Portcullis::with(&ordering(&server, &upstream, &["api.example.com"], "")).start();
    let root = server.write_root(gateway.dir());
    assert!(!is_trusted(&gateway, "api.example.com", &root), "the self-signed one serves at once");
    Request::get("/").over(&mut Connection::tls(gateway.https())).is(200);
    let lines = verbose(&gateway);
    assert!(lines.contains("acme: api.example.com: no certificate was issued yet"), "{lines}");
    assert_eq!(gateway.metric("portcullis_acme_certificate_issued"), Some(0));

    server.validates(gateway.https(), None);
    wait_issued(&gateway);
    assert!(is_trusted(&gateway, "api.example.com", &root));
    Request::get("/").over(&mut Connection::tls(gateway.https())).is(200);
    let other = shown(&gateway, "other.example.com");
    assert_eq!(other, shown(&gateway, "api.example.com"), "other hosts get the same");

    let lines = verbose(&gateway);
    assert!(
        lines.contains("acme: api.example.com: the ordered certificate is in use; next order "),
        "{lines}"
    );
    for (sample, value) in [
        ("portcullis_acme_certificate_issued", 1),
        ("portcullis_acme_orders_total{outcome=\"issued\"}", 1),
        ("portcullis_acme_orders_total{outcome=\"failed\"}", 0),
        ("portcullis_acme_failures_in_a_row", 0),
    ] {
        assert_eq!(gateway.metric(sample), Some(value), "{sample}");
    }
    // Pebble validates from three places.
    assert!(gateway.metric("portcullis_acme_challenges_total") >= Some(1));
    for reason in ["closed", "no_protocol", "client_alert"] {
        let sample = format!("portcullis_tls_failures_total{{reason=\"{reason}\"}}");
        assert_eq!(gateway.metric(&sample), Some(0), "a validation is no failed client");
    }
    let files = files(gateway.dir());
    assert!(files.len() >= 4 && files.iter().all(|(_, mode)| *mode == 0o600), "{files:?}");

    // The account and the certificate have the only secrets.
    let secrets =
        files.iter().filter(|(path, _)| path.extension().is_some_and(|extension| extension != "lock"));
    let texts: Vec<String> = secrets.map(|(path, _)| std::fs::read_to_string(path).unwrap()).collect();
    let log = gateway.stop();
    assert!(log.contains("an account was created at the ACME server"), "{log}");
    for text in texts {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !"-_+/".contains(c));
        for secret in words.filter(|word| word.len() > 60) {
            assert!(!log.contains(secret), "the log has {secret}");
        }
    }
}

#[test]
fn an_http_challenge_is_answered_before_the_redirect_and_other_tokens_are_redirected() {
    let (server, upstream) = (Pebble::default().start(), Upstream::start());
    let policy = ordering(&server, &upstream, &["api.example.com"], "challenge = \"http-01\"");
    let policy = policy.replace(SERVER, &format!("{SERVER}plain = \"redirect\"\n"));
    let gateway = Portcullis::with(&policy).start();
    // The answers are in place before the server is asked to validate.
    let challenges = gateway.dir().path().join("state/acme/challenges.json");
    let answers = || std::fs::read_to_string(&challenges).unwrap_or_default();
    eventually("the challenge is published", || answers().contains("token"));
    let answer = &serde_json::from_str::<serde_json::Value>(&answers()).unwrap()[0];
    let path = format!("/.well-known/acme-challenge/{}", answer["token"].as_str().unwrap());
    eventually("it is answered", || Request::get(&path).to(gateway.http()).status == 200);
    let found = Request::get(&path).to(gateway.http());
    assert_eq!(found.is(200).text(), answer["authorization"].as_str().unwrap());
    Request::get(&format!("{path}x")).to(gateway.http()).is(308);
    Request::get("/.well-known/acme-challenge/").to(gateway.http()).is(308);
    Request::post(&path, "").to(gateway.http()).is(308);
    // The route decides over TLS.
    Request::get(&path).over(&mut Connection::tls(gateway.https())).is(200);
    assert_eq!(upstream.requests().len(), 1);

    server.validates(gateway.https(), Some(gateway.http()));
    wait_issued(&gateway);
    assert!(is_trusted(&gateway, "api.example.com", &server.write_root(gateway.dir())));
    Request::get(&path).to(gateway.http()).is(308);
    assert!(gateway.metric("portcullis_acme_challenges_total") >= Some(3));
}

#[test]
fn a_restart_keeps_the_account_and_the_certificate() {
    let (server, upstream) = (Pebble::default().start(), Upstream::start());
    let policy = ordering(&server, &upstream, &["api.example.com"], "");
    let gateway = started(&server, &policy);
    wait_issued(&gateway);
    let (dir, first) = (gateway.dir().clone(), shown(&gateway, "api.example.com"));
    gateway.stop();
    let again = Portcullis::with(&policy).within(dir.clone()).start();
    assert_eq!(shown(&again, "api.example.com"), first, "it is shown at once");
    eventually("the next order is planned", || verbose(&again).contains("next order 20"));
    assert_eq!((server.orders(), server.asked("/sign-me-up").len()), (1, 1));
    again.stop();

    // Without its certificate, the gateway orders another one with the same account.
    std::fs::remove_file(dir.path().join("state/acme/certificate.pem")).unwrap();
    let again = Portcullis::with(&policy).within(dir).start();
    server.validates(again.https(), None);
    wait_issued(&again);
    assert_ne!(shown(&again, "api.example.com"), first);
    assert_eq!((server.orders(), server.asked("/sign-me-up").len()), (2, 1));
}

#[test]
fn a_certificate_is_renewed_at_two_thirds_of_its_lifetime_while_clients_stay() {
    let (server, upstream) = (Pebble { lifetime: 15, ..Pebble::default() }.start(), Upstream::start());
    let gateway = started(&server, &ordering(&server, &upstream, &["api.example.com"], ""));
    wait_issued(&gateway);
    let first = shown(&gateway, "api.example.com");
    let mut open = Connection::tls(gateway.https());
    Request::get("/").over(&mut open).is(200);
    eventually("another one is shown", || shown(&gateway, "api.example.com") != first);
    Request::get("/").over(&mut open).is(200);
    assert_eq!(gateway.metric("portcullis_acme_orders_total{outcome=\"issued\"}"), Some(2));
    assert_eq!(gateway.metric("portcullis_acme_failures_in_a_row"), Some(0));
}

#[test]
fn a_reload_adds_a_domain_and_the_old_certificate_stays_until_the_new_one_is_there() {
    let (server, upstream) = (Pebble::default().start(), Upstream::start());
    let gateway = started(&server, &ordering(&server, &upstream, &["a.example.com"], ""));
    wait_issued(&gateway);
    let (root, first) = (server.write_root(gateway.dir()), shown(&gateway, "a.example.com"));
    let both = ordering(&server, &upstream, &["a.example.com", "b.example.com"], "");
    gateway.dir().replace("gateway.toml", completed(&both));
    reload(&gateway).is(200);
    assert_eq!(shown(&gateway, "a.example.com"), first);
    eventually("both are trusted", || is_trusted(&gateway, "b.example.com", &root));
    assert!(is_trusted(&gateway, "a.example.com", &root));

    // A domain that leaves the list does not cause an order.
    let only = ordering(&server, &upstream, &["b.example.com"], "");
    gateway.dir().replace("gateway.toml", completed(&only));
    reload(&gateway).is(200);
    eventually("it is planned", || {
        verbose(&gateway).contains("acme: b.example.com: the ordered certificate")
    });
    assert_eq!(server.orders(), 2);

    // Without the order, clients get the self-signed certificate again.
    gateway.dir().replace("gateway.toml", completed(&format!("{SERVER}{}", policy(&upstream, PUBLIC))));
    reload(&gateway).is(200);
    assert!(!is_trusted(&gateway, "b.example.com", &root));
    assert!(!verbose(&gateway).contains("acme:"));
}

#[test]
fn gateways_with_one_state_folder_order_once_and_answer_for_each_other() {
    let (server, upstream) = (Pebble::default().start(), Upstream::start());
    let policy = ordering(&server, &upstream, &["api.example.com"], "");
    let first = Portcullis::with(&policy).start();
    first.wait_log("the order begins", |line| {
        line["message"] == "ordering a certificate from the ACME server"
    });
    let second = Portcullis::with(&policy).within(first.dir().clone()).start();
    // The server's validation reaches the gateway that does not order.
    server.validates(second.https(), None);
    wait_issued(&first);
    let certificate = shown(&first, "api.example.com");
    eventually("both show it", || shown(&second, "api.example.com") == certificate);
    assert!(second.metric("portcullis_acme_challenges_total") >= Some(1));
    eventually("the other one has a plan", || verbose(&second).contains("the ordered certificate is in use"));
    assert_eq!(server.orders(), 1);
}

#[test]
fn an_account_can_be_bound_to_an_external_account() {
    let (server, upstream) = (Pebble { binding: true, ..Pebble::default() }.start(), Upstream::start());
    let (id, key) = EXTERNAL;
    let bound = format!("external_account_id = \"{id}\"\nexternal_account_key = \"env:ACME_KEY\"");
    let policy = ordering(&server, &upstream, &["api.example.com"], &bound);
    let gateway = Portcullis::with(&policy).env("ACME_KEY", key).start();
    server.validates(gateway.https(), None);
    wait_issued(&gateway);
    assert!(!gateway.stop().contains(key));

    let gateway = started(&server, &ordering(&server, &upstream, &["api.example.com"], ""));
    let line =
        gateway.wait_log("it is refused", |line| line["message"] == "the ACME server issued no certificate");
    assert_eq!(line["type"], "urn:ietf:params:acme:error:externalAccountRequired", "{line}");
}

#[test]
fn an_acme_protocol_without_a_challenge_is_refused_and_never_carries_http() {
    let (server, upstream) = (Pebble::default().start(), Upstream::start());
    let gateway = Portcullis::with(&ordering(&server, &upstream, &["api.example.com"], "")).start();
    let offered = |alpn: Vec<&'static str>, name| {
        connect(gateway.https(), &Options { alpn, name: Some(name), ..Options::default() })
    };
    gateway.wait_log("the order begins", |line| {
        line["message"] == "ordering a certificate from the ACME server"
    });
    offered(vec!["acme-tls/1"], "other.example.com").unwrap_err();
    let both = offered(vec!["acme-tls/1", "http/1.1"], "api.example.com").unwrap();
    assert_eq!(both.conn.alpn_protocol(), Some(&b"http/1.1"[..]), "a validation offers one protocol");
    // rustls refuses the certificate's critical extension, so OpenSSL plays the validator.
    let validate = || {
        let script = "printf 'GET / HTTP/1.1\r\nhost: api.example.com\r\n\r\n' | openssl s_client \
            -connect \"$0\" -servername api.example.com -alpn acme-tls/1 -ign_eof 2>&1";
        let run = Command::new("sh").args(["-c", script, &gateway.https().to_string()]).output().unwrap();
        String::from_utf8_lossy(&run.stdout).into_owned()
    };
    eventually("the challenge is answered", || validate().contains("ALPN protocol: acme-tls/1"));
    let seen = validate();
    assert!(!seen.contains("HTTP/1.1 ") && upstream.requests().is_empty(), "{seen}");
    assert_eq!(gateway.metric("portcullis_requests_in_progress"), Some(0));
    server.validates(gateway.https(), None);
    wait_issued(&gateway);
    offered(vec!["acme-tls/1"], "api.example.com").unwrap_err();
}
