//! Several certificates: each host gets its own, and a connection for one host carries no requests for another.

use crate::kit::pki::{Authority, Identity};
use crate::kit::portcullis::{Builder, Finished, command, write_policy};
use crate::kit::tls::{Options, connect};
use crate::kit::{Connection, Portcullis, Request, Upstream, eventually};
use crate::{PUBLIC, policy};
use rustls::pki_types::CertificateDer;
use std::sync::Arc;

const NAMED: &str = "
[[tls.certificates]]
certificate = \"a.pem\"
key         = \"a-key.pem\"

[[tls.certificates]]
certificate = \"b.pem\"
key         = \"b-key.pem\"
";
const DEFAULT: &str = "[tls]\ncertificate = \"default.pem\"\nkey = \"default-key.pem\"\n";

/// The certificates of the tests.
struct Certificates {
    default: Identity,
    a: Identity,
    b: Identity,
}

fn certificates() -> Certificates {
    let authority = Authority::new("servers");
    Certificates {
        default: authority.issue(&["gateway.test"]),
        a: authority.issue(&["a.test", "both.test", "*.wild.test"]),
        b: authority.issue(&["b.test"]),
    }
}

fn builder(certificates: &Certificates, upstream: &Upstream, tables: &str) -> Builder {
    let tables = format!("[server]\nhttps = \"127.0.0.1:0\"\n{tables}{}", policy(upstream, PUBLIC));
    let mut builder = Portcullis::with(&tables);
    for (name, identity) in
        [("default", &certificates.default), ("a", &certificates.a), ("b", &certificates.b)]
    {
        builder = builder
            .file(&format!("{name}.pem"), &identity.pem)
            .file(&format!("{name}-key.pem"), &identity.key);
    }
    builder
}

fn options(name: Option<&'static str>) -> Options {
    Options { name, ..Options::default() }
}

fn shown(gateway: &Portcullis, name: Option<&'static str>) -> Option<CertificateDer<'static>> {
    let stream = connect(gateway.https(), &options(name)).ok()?;
    stream.conn.peer_certificates().map(|chain| chain[0].clone().into_owned())
}

#[test]
fn each_host_gets_its_certificate_and_others_get_the_default() {
    let (upstream, certificates) = (Upstream::start(), certificates());
    let gateway = builder(&certificates, &upstream, &format!("{DEFAULT}{NAMED}")).start();
    let Certificates { default, a, b } = &certificates;
    for (name, identity) in [
        (Some("a.test"), a),
        (Some("A.TEST"), a),
        (Some("both.test"), a),
        (Some("x.wild.test"), a),
        (Some("b.test"), b),
        (Some("gateway.test"), default),
        (Some("y.x.wild.test"), default),
        (Some("wild.test"), default),
        (None, default),
    ] {
        assert_eq!(shown(&gateway, name).as_ref(), Some(&identity.certificate), "{name:?}");
    }
    let ends = |label: &str| gateway.metric(&format!("portcullis_certificate_expires_seconds{label}"));
    for label in ["", "{certificate=\"a.test\"}", "{certificate=\"b.test\"}"] {
        assert_eq!(ends(label), Some(2_398_377_600), "{label}");
    }
}

#[test]
fn without_a_default_a_client_that_asks_for_another_host_is_refused() {
    let (upstream, certificates) = (Upstream::start(), certificates());
    let gateway = builder(&certificates, &upstream, NAMED).start();
    assert!(shown(&gateway, Some("a.test")).is_some());
    assert!(shown(&gateway, Some("gateway.test")).is_none());
    assert!(shown(&gateway, None).is_none());
    eventually("both are counted", || {
        gateway.metric("portcullis_tls_failures_total{reason=\"unknown_host\"}") == Some(2)
    });
}

/// RFC 9110 section 15.5.20.
#[test]
fn a_connection_carries_requests_only_for_the_hosts_of_its_certificate() {
    let (upstream, certificates) = (Upstream::start(), certificates());
    let gateway = builder(&certificates, &upstream, &format!("{DEFAULT}{NAMED}")).start();
    for (name, host, status) in [
        (Some("a.test"), "a.test", 200),
        (Some("a.test"), "A.test:8443", 200),
        // The certificate is valid for both, so a client may use one connection (RFC 9113 section 9.1.1).
        (Some("a.test"), "both.test", 200),
        (Some("a.test"), "x.wild.test", 200),
        (Some("a.test"), "b.test", 421),
        (Some("b.test"), "a.test", 421),
        (Some("a.test"), "gateway.test", 421),
        // A client that asks for no host gets the default certificate, and cannot know better.
        (None, "a.test", 200),
    ] {
        let mut connection = Connection::over(connect(gateway.https(), &options(name)).unwrap());
        let answer = Request::get("/").host(host).over(&mut connection);
        assert_eq!(answer.status, status, "{name:?} {host}: {answer:#?}");
        if status == 421 {
            answer.is_refusal(421, "misdirected_request");
            let own = name.unwrap();
            Request::get("/").host(own).over(&mut connection).is(200);
        }
    }
    let asked: Vec<_> =
        upstream.requests().iter().map(|seen| seen.header("host").unwrap().to_owned()).collect();
    assert!(!asked.contains(&"gateway.test".to_owned()), "{asked:?}");
}

#[test]
fn a_host_s_new_certificate_is_shown_and_a_broken_one_of_another_host_does_not_matter() {
    let (upstream, certificates) = (Upstream::start(), certificates());
    let gateway = builder(&certificates, &upstream, &format!("{DEFAULT}{NAMED}")).start();
    let new = Authority::new("new").issue(&["b.test"]);
    gateway.dir().replace("a-key.pem", "nothing");
    gateway.dir().replace("b.pem", &new.pem);
    gateway.dir().replace("b-key.pem", &new.key);
    eventually("the new one is shown", || shown(&gateway, Some("b.test")).as_ref() == Some(&new.certificate));
    assert_eq!(shown(&gateway, Some("a.test")).as_ref(), Some(&certificates.a.certificate));
    gateway.wait_log("it is logged", |line| {
        line["message"] == "the certificate was replaced" && line["certificate"] == "b.test"
    });
}

/// RFC 6066 section 8.
#[test]
fn an_answer_about_revocation_is_sent_with_its_certificate() {
    let authority = Authority::new("servers");
    let (a, b) = (authority.issue(&["a.test"]), authority.issue(&["b.test"]));
    let upstream = Upstream::start();
    let tables = format!(
        "[server]\nhttps = \"127.0.0.1:0\"\n{}{}",
        NAMED.replace("b-key.pem\"\n", "b-key.pem\"\nocsp = \"b.ocsp\"\n"),
        policy(&upstream, PUBLIC)
    );
    let gateway = Portcullis::with(&tables)
        .file("a.pem", &a.pem)
        .file("a-key.pem", &a.key)
        .file("b.pem", &b.pem)
        .file("b-key.pem", &b.key)
        .file("b.ocsp", authority.vouch(&b))
        .start();
    let status = |name: &str| {
        let run = std::process::Command::new("openssl")
            .args(["s_client", "-status", "-servername", name, "-connect", &gateway.https().to_string()])
            .stdin(std::process::Stdio::null())
            .output()
            .expect("openssl is installed");
        String::from_utf8_lossy(&run.stdout).into_owned()
    };
    assert!(status("a.test").contains("OCSP response: no response sent"), "{}", status("a.test"));
    assert!(status("b.test").contains("Cert Status: good"), "{}", status("b.test"));
    let sample = "portcullis_ocsp_response_expiry_timestamp_seconds{certificate=\"b.test\"}";
    let before = gateway.metric(sample).unwrap();
    let now = crate::kit::forge::now().cast_unsigned();
    assert!((now + 6 * 86_400..now + 8 * 86_400).contains(&before), "{before}");
    // An answer about another certificate is not sent: the one before stays in use.
    gateway.dir().replace("b.ocsp", authority.vouch(&a));
    gateway.wait_log("it is logged", |line| {
        line["message"] == "the certificate was not replaced; the current one stays in use"
            && line["why"].as_str().is_some_and(|why| why.contains("another certificate"))
    });
    assert!(status("b.test").contains("Cert Status: good"));
}

fn checked(tables: &str) -> Finished {
    let certificates = certificates();
    let dir = crate::kit::dir::Dir::new();
    for (name, identity) in [("a", &certificates.a), ("b", &certificates.b)] {
        dir.write(&format!("{name}.pem"), &identity.pem);
        dir.write(&format!("{name}-key.pem"), &identity.key);
    }
    let policy = format!(
        "{tables}\n{}\n[upstream.echo]\nbuiltin = \"echo\"\n[[route]]\npath = \"/\"\nupstream = \"echo\"\n",
        crate::kit::ISSUER
    );
    write_policy(&dir, &policy);
    command(&dir, &["check"])
}

#[test]
fn certificates_that_do_not_fit_their_hosts_are_found() {
    let with = |more: &str| {
        NAMED.replace("key         = \"b-key.pem\"\n", &format!("key = \"b-key.pem\"\n{more}\n"))
    };
    let good = checked(NAMED);
    assert_eq!(good.code, Some(0), "{good:?}");
    assert_eq!(checked(&with("hosts = [\"B.test.\"]")).code, Some(0));
    for (tables, id, says) in [
        (with("hosts = [\"c.test\"]"), "certificate_host", "but the certificate is valid for b.test"),
        (with("hosts = [\"*.b.test\"]"), "certificate_host", "tls.certificates[1].hosts[0]"),
        (with("hosts = [\"127.0.0.1\"]"), "bad_host", "the address"),
        (with("hosts = [\"https://b.test\"]"), "bad_host", "the scheme"),
        (with("ocsp = \"a.pem\""), "bad_certificate", "is not a successful OCSP response"),
        (NAMED.replace("b.pem", "a.pem").replace("b-key", "a-key"), "same_host", "has another certificate"),
        (NAMED.replace("b-key.pem", "a-key.pem"), "bad_certificate", "is not the key of the certificate"),
        (NAMED.replace("certificate = \"b.pem\"\n", ""), "half_a_pair", "tls.certificates[1].key"),
        ("[tls]\nocsp = \"a.pem\"\n".to_owned(), "half_a_pair", "tls.ocsp"),
    ] {
        let run = checked(&tables);
        assert_eq!(run.code, Some(1), "{tables}\n{run:?}");
        assert!(
            run.text().contains(&format!("[portcullis help {id}]")) && run.text().contains(says),
            "{run:?}"
        );
    }
}

/// A session of one core is resumed on every core: all cores share the key of the tickets.
#[test]
fn a_session_is_resumed_on_every_core() {
    let (upstream, certificates) = (Upstream::start(), certificates());
    let gateway = builder(&certificates, &upstream, &format!("workers = 4\n{DEFAULT}{NAMED}")).start();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut config = crate::kit::tls::config(&Options { versions: vec![version], ..Options::default() });
        config.resumption = rustls::client::Resumption::in_memory_sessions(64);
        let config = Arc::new(config);
        // The kernel chooses a core for each connection, and nearly never one core for all.
        for count in 0..24 {
            let client = rustls::ClientConnection::new(config.clone(), "a.test".try_into().unwrap()).unwrap();
            let socket = std::net::TcpStream::connect(gateway.https()).unwrap();
            let mut stream = rustls::StreamOwned::new(client, socket);
            stream.conn.complete_io(&mut stream.sock).unwrap();
            let is_resumed = stream.conn.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
            assert_eq!(is_resumed, count > 0, "{version:?}: connection {count}");
            // The tickets of TLS 1.3 arrive with the first answer.
            Request::get("/").host("a.test").over(&mut Connection::over(stream)).is(200);
        }
    }
}
