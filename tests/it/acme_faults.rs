//! Failures at an ACME server, and the faults of `[tls] acme`.

use crate::acme::{is_trusted, ordering, shown, started, verbose, wait_issued};
use crate::kit::acme::{AcmeServer, Asked, Pebble, Verdict};
use crate::kit::dir::Dir;
use crate::kit::portcullis::{command, command_in, completed, write_policy};
use crate::kit::{Connection, Portcullis, Request, Upstream, eventually};
use crate::reload::reload;
use crate::{PUBLIC, policy};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[track_caller]
fn failed(gateway: &Portcullis) -> Value {
    gateway.wait_log("the order fails", |line| line["message"] == "the ACME server issued no certificate")
}

fn problem(kind: &str, detail: &str) -> String {
    format!(r#"{{"type":"urn:ietf:params:acme:error:{kind}","detail":"{detail}"}}"#)
}

const TEN_YEARS: u64 = 315_360_000;
const PROBLEM: &str = "content-type: application/problem+json\r\n";

#[test]
fn a_gateway_starts_without_the_directory_and_orders_once_it_is_back() {
    let (server, upstream) = (Pebble::default().start(), Upstream::start());
    server.answers(|_| Verdict::Close);
    let gateway = started(&server, &ordering(&server, &upstream, &["api.example.com"], ""));
    Request::get("/").over(&mut Connection::tls(gateway.https())).is(200);
    let line = failed(&gateway);
    assert_eq!((&line["in_use"], &line["failures"]), (&"no valid certificate".into(), &"1".into()), "{line}");
    let lines = verbose(&gateway);
    assert!(lines.contains("1 orders failed in a row, the last at 20"), "{lines}");
    assert_eq!(gateway.metric("portcullis_acme_failures_in_a_row"), Some(1));
    server.answers(|_| Verdict::Pass);
    // Changed keys end the wait.
    let changed = ordering(&server, &upstream, &["api.example.com"], "").replace("ops@", "admin@");
    gateway.dir().replace("gateway.toml", completed(&changed));
    reload(&gateway).is(200);
    wait_issued(&gateway);
    assert_eq!(gateway.metric("portcullis_acme_failures_in_a_row"), Some(0));
    assert!(!verbose(&gateway).contains("failed"));
}

#[test]
fn a_bad_nonce_is_replaced_by_a_good_one() {
    let (server, upstream) = (Pebble::default().start(), Upstream::start());
    let bad = AtomicBool::new(false);
    server.answers(move |asked| {
        if asked.path == "/order-plz" && !bad.swap(true, Ordering::Relaxed) {
            return Verdict::Instead(
                "400 Bad Request",
                PROBLEM.to_owned(),
                problem("badNonce", "used before"),
            );
        }
        Verdict::Pass
    });
    let gateway = started(&server, &ordering(&server, &upstream, &["api.example.com"], ""));
    wait_issued(&gateway);
    assert_eq!(server.orders(), 2);
    assert_eq!(gateway.metric("portcullis_acme_orders_total{outcome=\"failed\"}"), Some(0));
}

#[test]
fn a_rate_limit_is_respected_even_by_the_next_start() {
    let (server, upstream) = (Pebble::default().start(), Upstream::start());
    server.answers(|asked| match &*asked.path {
        "/order-plz" => Verdict::Instead(
            "429 Too Many Requests",
            format!("{PROBLEM}retry-after: 7200\r\n"),
            problem("rateLimited", "too many certificates for \\u001bexample.com"),
        ),
        _ => Verdict::Pass,
    });
    let policy = ordering(&server, &upstream, &["api.example.com"], "");
    let gateway = started(&server, &policy);
    let line = failed(&gateway);
    assert_eq!(line["type"], "urn:ietf:params:acme:error:rateLimited");
    assert_eq!(line["detail"], "too many certificates for \\u{1b}example.com", "escaped");
    let next = gateway.metric("portcullis_acme_next_order_timestamp_seconds").unwrap();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!((now + 7000..=now + 7200).contains(&next), "{next} at {now}");
    let dir = gateway.dir().clone();
    gateway.stop();
    let again = Portcullis::with(&policy).within(dir).start();
    eventually("it waits", || again.metric("portcullis_acme_next_order_timestamp_seconds") == Some(next));
    assert_eq!(server.orders(), 1);
}

#[test]
fn a_failed_validation_is_reported_with_its_domain_and_what_the_server_saw() {
    let (server, upstream) = (Pebble::default().start(), Upstream::start());
    let gateway =
        Portcullis::with(&ordering(&server, &upstream, &["a.example.com", "b.example.com"], "")).start();
    server.validates(crate::kit::port::reserve(), None);
    let line = failed(&gateway);
    let kind = line["type"].as_str().unwrap();
    assert!(kind.starts_with("urn:ietf:params:acme:error:"), "{line}");
    assert!(line["detail"].as_str().unwrap().contains(".example.com: "), "{line}");
    assert!(verbose(&gateway).contains(kind));
    Request::get("/").over(&mut Connection::tls(gateway.https())).is(200);
}

/// Orders again with another policy, although the wait after a failure is not over. The file of the attempts has the
/// wait that the server demands.
#[track_caller]
fn orders_again(gateway: &Portcullis, server: &AcmeServer, upstream: &Upstream) {
    server.answers(|_| Verdict::Pass);
    for file in std::fs::read_dir(gateway.dir().path().join("state/acme")).unwrap() {
        let path = file.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("attempts-") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let changed = ordering(server, upstream, &["api.example.com", "b.example.com"], "");
    gateway.dir().replace("gateway.toml", completed(&changed));
    reload(gateway).is(200);
    let root = server.write_root(gateway.dir());
    eventually("another certificate is shown", || is_trusted(gateway, "b.example.com", &root));
}

/// A long `Retry-After` is bounded before the library reads it.
#[test]
fn a_wait_without_end_that_the_server_asks_for_ends_no_later_order() {
    let (server, upstream) = (Pebble::default().start(), Upstream::start());
    server.answers(|asked| match asked.path.starts_with("/my-order/") {
        true => Verdict::Instead(
            "403 Forbidden",
            format!("{PROBLEM}retry-after: {}\r\n", TEN_YEARS),
            problem("unauthorized", "not now"),
        ),
        false => Verdict::Pass,
    });
    let gateway = started(&server, &ordering(&server, &upstream, &["api.example.com"], ""));
    let line = failed(&gateway);
    assert_eq!(line["detail"], "not now", "{line}");
    let next = gateway.metric("portcullis_acme_next_order_timestamp_seconds").unwrap();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!(next <= now + 7 * 86_400, "{next} at {now}");
    orders_again(&gateway, &server, &upstream);
}

/// The gateway refuses the directory before the library uses this URL.
#[test]
fn a_directory_that_names_no_url_ends_no_later_order() {
    for nonce in ["/nonce-plz", "ftp://ca.test/nonce"] {
        let (server, upstream) = (Pebble::default().start(), Upstream::start());
        server.answers(move |asked| match &*asked.path {
            "/dir" => Verdict::Changed(Box::new(move |body| {
                let mut directory: Value = serde_json::from_str(body).unwrap();
                directory["newNonce"] = nonce.into();
                directory.to_string()
            })),
            _ => Verdict::Pass,
        });
        let gateway = started(&server, &ordering(&server, &upstream, &["api.example.com"], ""));
        let line = failed(&gateway);
        assert_eq!(line["type"], "protocol", "{line}");
        assert!(line["detail"].as_str().unwrap().contains("newNonce"), "{line}");
        orders_again(&gateway, &server, &upstream);
    }
}

#[test]
fn renewal_information_with_a_wait_without_end_ends_no_later_order() {
    let (server, upstream) = (Pebble::default().start(), Upstream::start());
    server.answers(|asked: &Asked| match &*asked.path {
        "/dir" => Verdict::Changed(Box::new(|body| {
            let mut directory: Value = serde_json::from_str(body).unwrap();
            let order = directory["newOrder"].as_str().unwrap().replace("/order-plz", "/renewal-info");
            directory["renewalInfo"] = order.into();
            directory.to_string()
        })),
        path if path.starts_with("/renewal-info/") => Verdict::Instead(
            "200 OK",
            format!("content-type: application/json\r\nretry-after: {}\r\n", TEN_YEARS),
            r#"{"suggestedWindow":{"start":"2040-01-01T00:00:00Z","end":"2040-01-02T00:00:00Z"}}"#.to_owned(),
        ),
        _ => Verdict::Pass,
    });
    let gateway = started(&server, &ordering(&server, &upstream, &["api.example.com"], ""));
    wait_issued(&gateway);
    eventually("the window is asked for", || !server.asked("/renewal-info/").is_empty());
    gateway.wait_log("the window is known", |line| {
        line["message"] == "the ACME server suggests when to renew the certificate"
    });
    orders_again(&gateway, &server, &upstream);
}

/// The server may have validated a challenge before it answers that the challenge can be validated.
#[test]
fn a_validation_that_fails_at_once_is_reported_with_its_domain() {
    let (server, upstream) = (Pebble::default().start(), Upstream::start());
    server.answers(|asked| match asked.path.starts_with("/chalZ/") {
        true => Verdict::Changed(Box::new(|body| {
            let mut challenge: Value = serde_json::from_str(body).unwrap();
            challenge["status"] = "invalid".into();
            challenge["error"] = serde_json::from_str(&problem("connection", "no way")).unwrap();
            challenge.to_string()
        })),
        false => Verdict::Pass,
    });
    let gateway = started(&server, &ordering(&server, &upstream, &["api.example.com"], ""));
    let line = failed(&gateway);
    assert_eq!(line["type"], "urn:ietf:params:acme:error:connection", "{line}");
    assert_eq!(line["detail"], "api.example.com: no way", "{line}");
}

#[test]
fn an_order_that_expired_is_reported_and_a_later_one_succeeds() {
    let (server, upstream) = (Pebble::default().start(), Upstream::start());
    server.answers(|asked| match asked.path.starts_with("/my-order/") {
        true => Verdict::Changed(Box::new(|body| {
            let mut order: Value = serde_json::from_str(body).unwrap();
            order["status"] = "invalid".into();
            order.to_string()
        })),
        false => Verdict::Pass,
    });
    let gateway = started(&server, &ordering(&server, &upstream, &["api.example.com"], ""));
    let line = failed(&gateway);
    assert_eq!(line["detail"], "the server made the order invalid", "{line}");
    server.answers(|_| Verdict::Pass);
    let changed = ordering(&server, &upstream, &["api.example.com", "b.example.com"], "");
    gateway.dir().replace("gateway.toml", completed(&changed));
    reload(&gateway).is(200);
    wait_issued(&gateway);
}

#[test]
fn a_server_that_forgot_the_account_gets_a_new_one() {
    let (mut server, upstream) = (Pebble::default().start(), Upstream::start());
    let gateway = started(&server, &ordering(&server, &upstream, &["a.example.com"], ""));
    wait_issued(&gateway);
    let first = shown(&gateway, "a.example.com");
    server.restart();
    let changed = ordering(&server, &upstream, &["a.example.com", "b.example.com"], "");
    gateway.dir().replace("gateway.toml", completed(&changed));
    reload(&gateway).is(200);
    eventually("another certificate is shown", || shown(&gateway, "a.example.com") != first);
    assert_eq!(server.asked("/sign-me-up").len(), 2);
    assert!(is_trusted(&gateway, "b.example.com", &server.write_root(gateway.dir())));
}

#[test]
fn the_server_can_ask_for_an_early_renewal() {
    let (server, upstream) = (Pebble { lifetime: 80, ..Pebble::default() }.start(), Upstream::start());
    let count = AtomicUsize::new(0);
    // Pebble in Debian has no renewal information, so the front adds it (RFC 9773).
    server.answers(move |asked: &Asked| {
        if asked.path == "/dir" {
            return Verdict::Changed(Box::new(|body| {
                let mut directory: Value = serde_json::from_str(body).unwrap();
                let order = directory["newOrder"].as_str().unwrap().replace("/order-plz", "/renewal-info");
                directory["renewalInfo"] = order.into();
                directory.to_string()
            }));
        }
        if asked.path.starts_with("/renewal-info/") {
            // The first certificate has to be replaced: it was revoked, say.
            let year = if count.fetch_add(1, Ordering::Relaxed) == 0 { 2020 } else { 2040 };
            let window = format!(
                r#"{{"suggestedWindow":{{"start":"{year}-01-01T00:00:00Z","end":"{year}-01-02T00:00:00Z"}}}}"#
            );
            let fields = "content-type: application/json\r\nretry-after: 3600\r\n".to_owned();
            return Verdict::Instead("200 OK", fields, window);
        }
        if asked.path == "/order-plz" {
            let replaces = serde_json::from_str::<Value>(&asked.payload).unwrap()["replaces"].clone();
            return Verdict::Changed(Box::new(move |body| {
                let mut order: Value = serde_json::from_str(body).unwrap();
                if !replaces.is_null() {
                    order["replaces"] = replaces.clone();
                }
                order.to_string()
            }));
        }
        Verdict::Pass
    });
    let gateway = started(&server, &ordering(&server, &upstream, &["api.example.com"], ""));
    wait_issued(&gateway);
    let first = shown(&gateway, "api.example.com");
    // The certificate is renewed after a quarter of its lifetime, and not after two thirds.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(45);
    while shown(&gateway, "api.example.com") == first {
        assert!(std::time::Instant::now() < deadline, "no early renewal");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let orders = server.asked("/order-plz");
    let replaces =
        |at: usize| serde_json::from_str::<Value>(&orders[at].payload).unwrap()["replaces"].clone();
    let asked = server.asked("/renewal-info/");
    assert_eq!(replaces(0), Value::Null);
    assert_eq!(format!("/renewal-info/{}", replaces(1).as_str().unwrap()), asked[0].path);
    gateway.wait_log("the window is logged", |line| {
        line["message"] == "the ACME server suggests when to renew the certificate"
            && line["from"] == "2020-01-01T00:00:00Z"
    });
}

#[test]
fn check_names_each_fault_of_an_order() {
    let upstream = Upstream::start();
    let dir = Dir::new();
    let check = |server: &str, acme: &str, more: &str| {
        let text = format!("[server]\n{server}\n[tls.acme]\n{acme}\n{more}\n{}", policy(&upstream, PUBLIC));
        write_policy(&dir, &text);
        command(&dir, &["check", "--config", "gateway.toml"]).text()
    };
    let https = "https = \"127.0.0.1:8443\"";
    let good = check(https, "domains = [\"a.example.com\"]\nemail = \"a@b.test\"", "");
    assert!(!good.contains("acme"), "{good}");
    for (server, acme, more, id, key, says) in [
        (https, "domains = [\"*.example.com\"]", "", "acme_domain", "tls.acme.domains[0]", "wildcard"),
        (
            https,
            "domains = [\"a.test\", \"192.0.2.1\"]",
            "",
            "acme_domain",
            "tls.acme.domains[1]",
            "addresses",
        ),
        (https, "domains = [\"::1\"]", "", "acme_domain", "tls.acme.domains[0]", "addresses"),
        (https, "domains = [\"a b\"]", "", "acme_domain", "tls.acme.domains[0]", "not a domain"),
        (https, "domains = []", "", "missing_key", "tls.acme.domains", "no domain"),
        (https, "domains = [\"a.test\", \"A.test\"]", "", "same_host", "tls.acme.domains[1]", "twice"),
        ("", "domains = [\"a.test\"]", "", "acme_listener", "tls.acme", "https is off"),
        (
            "https = \"127.0.0.1:8443\"\nhttp = \"\"",
            "domains = [\"a.test\"]\nchallenge = \"http-01\"",
            "",
            "acme_listener",
            "tls.acme.challenge",
            "http is off",
        ),
        (
            https,
            "domains = [\"a.test\"]",
            "[tls]\ncertificate = \"c.pem\"\nkey = \"k.pem\"",
            "certificate_and_acme",
            "tls.acme",
            "has a certificate",
        ),
        (https, "domains = [\"a.test\"]\nemail = \"ops\"", "", "bad_value", "tls.acme.email", "email"),
        (
            https,
            "domains = [\"a.test\"]\ndirectory = \"http://ca.test/\"",
            "",
            "bad_value",
            "tls.acme.directory",
            "https",
        ),
        (
            https,
            "domains = [\"a.test\"]\nexternal_account_id = \"kid\"",
            "",
            "missing_key",
            "tls.acme.external_account_key",
            "no key",
        ),
        (
            https,
            "domains = [\"a.test\"]\nexternal_account_id = \"kid\"\nexternal_account_key = \"not/base64url!\"",
            "",
            "bad_value",
            "tls.acme.external_account_key",
            "base64url",
        ),
        (
            https,
            "domains = [\"a.test\"]\nprivate_networks = [\"0.0.0.0/0\"]",
            "",
            "bad_value",
            "tls.acme.private_networks[0]",
            "all addresses",
        ),
    ] {
        let found = check(server, acme, more);
        for part in [id, key, says] {
            assert!(found.contains(part), "{acme} {more}: {part}: {found}");
        }
        assert!(!found.contains("not/base64url!"), "{found}");
    }
    let shadowed = "[[route]]\nhost = \"b.test\"\npath = \"/b\"\nupstream = \"app\"\naccess = \"public\"\n";
    let found = check(https, "domains = [\"a.test\"]", &format!("{shadowed}[tls]\n"));
    assert!(found.contains("certificate_name") && found.contains("tls.acme.domains"), "{found}");
}

#[test]
fn config_show_masks_the_key_of_the_external_account() {
    let upstream = Upstream::start();
    let dir = Dir::new();
    let acme = "[server]\nhttps = \"127.0.0.1:0\"\n[tls.acme]\ndomains = [\"a.test\"]\nexternal_account_id = \"kid\"\nexternal_account_key = \"c2VjcmV0c2VjcmV0\"\n";
    write_policy(&dir, &format!("{acme}{}", policy(&upstream, PUBLIC)));
    let shown = command_in(&dir, &["config", "show", "--config", "gateway.toml"], &[]).text();
    assert!(shown.contains("external_account_key") && !shown.contains("c2VjcmV0c2VjcmV0"), "{shown}");
}
