//! Replaces the certificate while the gateway runs. New connections get the new certificate. A faulty certificate is
//! not used.

use crate::kit::dir::Dir;
use crate::kit::tls::{Options, connect};
use crate::kit::{Connection, Portcullis, Request, Upstream, eventually};
use crate::reload::reload;
use crate::{PUBLIC, policy};
use rustls::pki_types::CertificateDer;
use rustls::version::{TLS12, TLS13};
use std::os::unix::fs::symlink;
use std::process::Command;

const TABLES: &str =
    "[server]\nhttps = \"127.0.0.1:0\"\n[tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n";

/// A certificate and its key.
struct Pair {
    der: CertificateDer<'static>,
    certificate: String,
    key: String,
}

impl Pair {
    /// Creates a certificate that expires at the beginning of a year.
    fn until(year: i32) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
        let certificate = parameters.self_signed(&key).unwrap();
        Self { der: certificate.der().clone(), certificate: certificate.pem(), key: key.serialize_pem() }
    }

    fn put(&self, dir: &Dir) {
        dir.replace("cert.pem", &self.certificate);
        dir.replace("key.pem", &self.key);
    }
}

fn started(pair: &Pair, upstream: &Upstream) -> Portcullis {
    Portcullis::with(&format!("{TABLES}{}", policy(upstream, PUBLIC)))
        .file("cert.pem", &pair.certificate)
        .file("key.pem", &pair.key)
        .start()
}

/// Returns the certificate that the gateway shows on a new connection.
#[track_caller]
fn shown(gateway: &Portcullis) -> CertificateDer<'static> {
    shown_with(gateway, &Options::default())
}

fn shown_with(gateway: &Portcullis, options: &Options) -> CertificateDer<'static> {
    let stream = connect(gateway.https(), options).expect("the handshake succeeds");
    stream.conn.peer_certificates().expect("a certificate")[0].clone().into_owned()
}

#[test]
fn a_new_certificate_is_shown_to_new_clients_and_an_open_connection_lives_on() {
    let upstream = Upstream::start();
    let (old, new) = (Pair::until(2046), Pair::until(2060));
    let gateway = started(&old, &upstream);
    assert_eq!(shown(&gateway), old.der);
    let mut open = Connection::tls(gateway.https());
    Request::get("/").over(&mut open).is(200);
    new.put(gateway.dir());
    eventually("the new one is shown, and nobody had to ask for it", || shown(&gateway) == new.der);
    for versions in [vec![&TLS12], vec![&TLS13]] {
        let options = Options { versions, ..Options::default() };
        assert_eq!(shown_with(&gateway, &options), new.der);
    }
    Request::get("/").over(&mut open).is(200);
    Request::get("/").over(&mut Connection::tls(gateway.https())).is(200);
    gateway.wait_log("the event is logged", |line| {
        line["message"] == "the certificate was replaced" && line["ends"] == "2060-01-01T00:00:00Z"
    });
    let metrics = Request::get("/metrics").to(gateway.admin()).text();
    assert!(metrics.contains("\nportcullis_certificate_expires_seconds 2840140800\n"), "{metrics}");
}

#[test]
fn a_reload_shows_a_new_certificate_at_once_and_refuses_a_bad_one() {
    let upstream = Upstream::start();
    let (old, new) = (Pair::until(2046), Pair::until(2047));
    let gateway = started(&old, &upstream);
    new.put(gateway.dir());
    let report = reload(&gateway).is(200).json();
    assert_eq!(shown(&gateway), new.der, "when the reload is answered it is in place: {report:#}");
    gateway.dir().replace("key.pem", &old.key);
    let answer = reload(&gateway);
    assert_eq!(answer.status, 422, "{answer:#?}");
    assert_eq!(answer.json()["diagnostics"][0]["id"], "bad_certificate");
    assert_eq!(shown(&gateway), new.der);
}

#[test]
fn a_broken_certificate_leaves_the_old_one_and_is_logged_without_its_key() {
    let upstream = Upstream::start();
    let (old, other) = (Pair::until(2046), Pair::until(2047));
    let gateway = started(&old, &upstream);
    let half = &other.certificate[..other.certificate.len() / 2];
    let broken: [(&str, &str, &str); 5] = [
        ("a key of another certificate", &old.certificate, &other.key),
        ("a half-written certificate", half, &other.key),
        ("an empty certificate", "", &other.key),
        ("no key", &other.certificate, "nothing"),
        ("a key where a certificate should be", &other.key, &other.key),
    ];
    for (count, (what, certificate, key)) in (1..).zip(broken) {
        gateway.dir().replace("cert.pem", certificate);
        gateway.dir().replace("key.pem", key);
        eventually(what, || {
            let refused = |line: &&serde_json::Value| {
                line["message"] == "the certificate was not replaced; the current one stays in use"
            };
            gateway.log().iter().filter(refused).count() >= count
        });
        assert_eq!(shown(&gateway), old.der, "{what}");
        Request::get("/").over(&mut Connection::tls(gateway.https())).is(200);
    }
    other.put(gateway.dir());
    eventually("the mended one is taken", || shown(&gateway) == other.der);
    assert!(!gateway.stop().contains("PRIVATE"));
}

#[test]
fn a_certificate_that_could_not_be_opened_is_shown_once_it_can() {
    let upstream = Upstream::start();
    let (old, new) = (Pair::until(2046), Pair::until(2047));
    let gateway = started(&old, &upstream);
    assert_eq!(shown(&gateway), old.der);
    let limit = |files: &str| {
        let pid = gateway.pid().to_string();
        let status = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={files}:")]).status();
        assert!(status.expect("prlimit is part of Debian's util-linux").success(), "prlimit {files}");
    };
    let refused = "the certificate was not replaced; the current one stays in use";
    limit("3");
    new.put(gateway.dir());
    gateway.wait_log("the fault", |line| {
        line["message"] == refused && line["why"].as_str().unwrap().contains("Too many open files")
    });
    // The files do not change any more.
    limit("1024");
    eventually("the new certificate is shown", || shown(&gateway) == new.der);
    let count = gateway.log().iter().filter(|line| line["message"] == refused).count();
    assert_eq!(count, 1, "repetitions with the same fault are not logged");
}

#[test]
fn a_certificate_behind_links_that_are_turned_is_followed() {
    let upstream = Upstream::start();
    let (old, new) = (Pair::until(2046), Pair::until(2047));
    let gateway = started(&old, &upstream);
    let path = gateway.dir().path();
    for (version, pair) in [("..v1", &old), ("..v2", &new)] {
        std::fs::create_dir(path.join(version)).unwrap();
        gateway.dir().write(&format!("{version}/cert.pem"), &pair.certificate);
        gateway.dir().write(&format!("{version}/key.pem"), &pair.key);
    }
    let turn = |to: &str, link: &str| {
        symlink(to, path.join("link")).unwrap();
        std::fs::rename(path.join("link"), path.join(link)).unwrap();
    };
    turn("..v1", "..data");
    turn("..data/cert.pem", "cert.pem");
    turn("..data/key.pem", "key.pem");
    assert_eq!(shown(&gateway), old.der);
    turn("..v2", "..data");
    eventually("both files change at once", || shown(&gateway) == new.der);
    let refused = gateway.log_text().contains("the certificate was not replaced");
    assert!(!refused, "there is no moment at which they do not go together");
}

#[test]
fn a_certificate_that_has_expired_or_soon_expires_is_logged_once() {
    let upstream = Upstream::start();
    let gateway = started(&Pair::until(2020), &upstream);
    let ended = |line: &serde_json::Value| line["message"] == "the certificate has expired";
    let line = gateway.wait_log("it has ended", ended);
    assert_eq!((&line["level"], &line["ends"]), (&"error".into(), &"2020-01-01T00:00:00Z".into()));
    // The gateway continues to poll, so it finds the next certificate.
    let new = Pair::until(2046);
    new.put(gateway.dir());
    eventually("the new one is shown", || shown(&gateway) == new.der);
    assert_eq!(gateway.log().into_iter().filter(ended).count(), 1);
}
