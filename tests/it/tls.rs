//! TLS: versions, protocols, and certificates, whether generated or provided.

use crate::kit::tls::{Options, connect};
use crate::kit::{Connection, ISSUER, Portcullis, Request};
use rustls::ProtocolVersion;
use rustls::version::{TLS12, TLS13};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

fn echo(tables: &str) -> String {
    format!(
        "[server]\nhttps = \"127.0.0.1:0\"\n{tables}\n{ISSUER}\n[upstream.echo]\nbuiltin = \"echo\"\n\
         [[route]]\npath = \"/\"\nupstream = \"echo\"\naccess = \"public\"\n"
    )
}

/// Returns the files in a folder and its subfolders that contain this text.
fn files_with(dir: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if std::fs::read_to_string(&path).is_ok_and(|content| content.contains(text)) {
            found.push(path);
        }
    }
    found
}

#[test]
fn both_versions_are_spoken_and_protocols_are_chosen_by_name() {
    let gateway = Portcullis::with(&echo("")).start();
    for (offered, version) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        for (alpn, chosen) in [
            (vec!["h2", "http/1.1"], Some(&b"h2"[..])),
            (vec!["http/1.1"], Some(b"http/1.1")),
            (vec!["http/1.1", "h2"], Some(b"h2")),
            (vec![], None),
        ] {
            let options = Options { versions: vec![offered], alpn: alpn.clone(), ..Options::default() };
            let stream = connect(gateway.https(), &options).unwrap();
            assert_eq!(stream.conn.protocol_version(), Some(version));
            assert_eq!(stream.conn.alpn_protocol(), chosen, "{alpn:?}");
            if chosen != Some(b"h2") {
                Request::get("/").over(&mut Connection::over(stream)).is(200);
            }
        }
    }
    let odd = Options { alpn: vec!["spdy/3"], ..Options::default() };
    let refused = connect(gateway.https(), &odd);
    assert!(refused.is_err(), "no protocol in common (RFC 7301 section 3.2)");
    Request::get("/").over(&mut Connection::tls(gateway.https())).is(200);
}

#[test]
fn the_policy_may_ask_for_the_newer_version() {
    let gateway = Portcullis::with(&echo("[tls]\nmin_version = \"1.3\"\n")).start();
    let with = |version| connect(gateway.https(), &Options { versions: vec![version], ..Options::default() });
    assert!(with(&TLS12).is_err());
    assert!(with(&TLS13).is_ok());
}

#[test]
fn a_first_start_makes_a_certificate_that_only_its_owner_can_read_and_keeps_it() {
    let gateway = Portcullis::with(&echo("")).start();
    let dir = gateway.dir().clone();
    let state = dir.path().join("state");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    let keys = files_with(&state, "PRIVATE KEY");
    assert_eq!(keys.len(), 1, "{keys:?}");
    assert_eq!(mode(&keys[0]), 0o600);
    let certificates = files_with(&state, "BEGIN CERTIFICATE");
    assert_eq!(certificates.len(), 1, "{certificates:?}");
    let made = std::fs::read(&certificates[0]).unwrap();
    for name in [Some("localhost"), None] {
        let trusting = Options { trust: Some(certificates[0].clone()), name, ..Options::default() };
        connect(gateway.https(), &trusting).expect("the certificate is for localhost and its addresses");
    }
    let other =
        Options { trust: Some(certificates[0].clone()), name: Some("evil.test"), ..Options::default() };
    assert!(connect(gateway.https(), &other).is_err(), "and for no other name");
    gateway.stop();
    let gateway = Portcullis::with(&echo("")).within(dir).start();
    assert_eq!(std::fs::read(&certificates[0]).unwrap(), made, "a restart keeps it");
    let trusting = Options { trust: Some(certificates[0].clone()), ..Options::default() };
    connect(gateway.https(), &trusting).unwrap();
}

#[test]
fn a_given_certificate_is_shown() {
    let key = rcgen::KeyPair::generate().unwrap();
    let parameters = rcgen::CertificateParams::new(["given.test".to_owned()]).unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    let gateway = Portcullis::with(&echo("[tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n"))
        .file("cert.pem", certificate.pem())
        .file("key.pem", key.serialize_pem())
        .start();
    let trusting = Options {
        trust: Some(gateway.dir().path().join("cert.pem")),
        name: Some("given.test"),
        ..Options::default()
    };
    let stream = connect(gateway.https(), &trusting).unwrap();
    assert_eq!(stream.conn.peer_certificates().unwrap()[0], *certificate.der());
    assert!(files_with(gateway.dir().path(), "PRIVATE KEY").len() == 1, "none was made beside it");
}

#[test]
fn a_key_that_is_not_the_certificates_does_not_start() {
    let (one, other) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
    let parameters = rcgen::CertificateParams::new(["given.test".to_owned()]).unwrap();
    let dir = crate::kit::dir::Dir::new();
    dir.write("cert.pem", parameters.self_signed(&one).unwrap().pem());
    dir.write("key.pem", other.serialize_pem());
    let policy = echo("[tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n");
    crate::kit::portcullis::write_policy(&dir, &policy);
    let run = crate::kit::portcullis::command(&dir, &["run"]);
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.text().contains("key"), "{run:?}");
    assert!(!run.text().contains("PRIVATE"), "{run:?}");
}

#[test]
fn a_client_that_names_no_host_is_served() {
    let gateway = Portcullis::with(&echo("")).start();
    let stream = connect(gateway.https(), &Options { name: None, ..Options::default() }).unwrap();
    Request::get("/").over(&mut Connection::over(stream)).is(200);
}

#[test]
fn cleartext_on_the_encrypted_port_gets_an_explanation_or_is_cut_and_never_served() {
    let gateway = Portcullis::with(&echo("")).start();
    let mut connection = Connection::open(gateway.https());
    connection.send(Request::get("/").bytes());
    let answer = connection.rest();
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 400 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    Request::get("/").over(&mut Connection::tls(gateway.https())).is(200);
}

#[test]
fn a_handshake_that_does_not_come_to_an_end_is_given_up() {
    let gateway = Portcullis::with(&echo("[server.bounds]\nheader_timeout = \"1s\"\n")).start();
    let mut silent = Connection::open(gateway.https());
    let mut begun = Connection::open(gateway.https());
    begun.send([0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00]);
    Request::get("/").over(&mut Connection::tls(gateway.https())).is(200);
    silent.rest();
    begun.rest();
}

#[test]
fn a_handshake_in_pieces_of_one_byte_works() {
    use std::io::{Read, Write};
    let gateway = Portcullis::with(&echo("")).start();
    let config = std::sync::Arc::new(crate::kit::tls::config(&Options::default()));
    let mut client = rustls::ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
    let mut socket = std::net::TcpStream::connect(gateway.https()).unwrap();
    socket.set_nodelay(true).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    for byte in hello {
        socket.write_all(&[byte]).unwrap();
    }
    socket.set_read_timeout(Some(crate::kit::PATIENCE)).unwrap();
    let mut first = [0; 1];
    socket.read_exact(&mut first).unwrap();
    assert_eq!(first, [0x16], "a handshake record comes back");
}

#[test]
fn only_encrypted_answers_ask_for_encryption() {
    let hsts = "strict-transport-security";
    let gateway = Portcullis::with(&echo("")).start();
    let encrypted = Request::get("/").over(&mut Connection::tls(gateway.https()));
    assert!(encrypted.header(hsts).is_some_and(|value| value.contains("max-age=31536000")), "{encrypted:#?}");
    let refusal = Request::get("/nothing").over(&mut Connection::tls(gateway.https()));
    assert!(refusal.is_refusal(404, "no_route").header(hsts).is_some(), "refusals as well");
    assert_eq!(Request::get("/").to(gateway.http()).header(hsts), None);
    let off = Portcullis::with(&echo("[tls]\nhsts = \"\"\n")).start();
    assert_eq!(Request::get("/").over(&mut Connection::tls(off.https())).header(hsts), None);
}
