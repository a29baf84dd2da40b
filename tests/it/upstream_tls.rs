//! TLS to upstream servers: the gateway's certificate, the server's name, and pins.

use crate::PUBLIC;
use crate::admin::{metric, metrics};
use crate::kit::dir::Dir;
use crate::kit::pki::{Authority, Identity};
use crate::kit::portcullis::{command, completed, write_policy};
use crate::kit::{Answer, Connection, ISSUER, PATIENCE, Portcullis, Request, eventually};
use crate::reload::reload;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use std::convert::Infallible;
use std::fmt::{self, Display};
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A server for HTTP/1.1 and HTTP/2 over TLS. Its answers have the number of the connection, the name that the gateway
/// asked for, and the thumbprint of the gateway's certificate.
struct Server(u16);

impl Server {
    /// Starts a server. With `clients`, it requires a certificate of this authority.
    fn start(own: &Identity, clients: Option<&Authority>, alpn: &str) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(vec![own.certificate.clone()], own.private_key()).unwrap();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(true).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        std::thread::spawn(move || runtime.block_on(Self::serve(listener, Arc::new(config))));
        Self(port)
    }

    async fn serve(listener: std::net::TcpListener, config: Arc<rustls::ServerConfig>) {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(config);
        let count = Arc::new(AtomicUsize::new(0));
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, count) = (acceptor.clone(), count.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(socket).await else { return };
                let session = stream.get_ref().1;
                let shown =
                    session.peer_certificates().map_or("none".to_owned(), |shown| thumbprint(&shown[0]));
                let name = session.server_name().unwrap_or("none").to_owned();
                let is_http2 = session.alpn_protocol() == Some(b"h2");
                let number = count.fetch_add(1, Ordering::SeqCst);
                let text = format!("{number} {name} {shown}");
                let answer = service_fn(move |_| {
                    let body = Full::new(Bytes::from(text.clone()));
                    async move { Ok::<_, Infallible>(http::Response::new(body)) }
                });
                let io = TokioIo::new(stream);
                if is_http2 {
                    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(io, answer).await;
                } else {
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, answer).await;
                }
            });
        }
    }
}

impl Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://127.0.0.1:{}", self.0)
    }
}

fn thumbprint(certificate: &CertificateDer<'_>) -> String {
    let digest = aws_lc_rs_digest(certificate);
    crate::kit::forge::base64url(digest)
}

fn aws_lc_rs_digest(bytes: &[u8]) -> impl AsRef<[u8]> {
    ::aws_lc_rs::digest::digest(&::aws_lc_rs::digest::SHA256, bytes)
}

/// Returns a pin of the certificate's key, as `openssl x509 -pubkey` and `openssl dgst` make it.
fn pin(identity: &Identity) -> String {
    let parsed = rustls::server::ParsedCertificate::try_from(&identity.certificate).unwrap();
    format!("sha256/{}", BASE64_STANDARD.encode(aws_lc_rs_digest(&parsed.subject_public_key_info())))
}

fn policy(server: &dyn Display, upstream: &str) -> String {
    format!("{ISSUER}\n[upstream.app]\nservers = [\"{server}\"]\nca = \"ca.pem\"\n{upstream}\n{PUBLIC}")
}

const CERTIFICATE: &str =
    "tls = { certificate = \"own.pem\", key = \"own.key\", server_name = \"orders.test\" }";

fn starting(servers: &Authority, server: &dyn Display, upstream: &str) -> crate::kit::portcullis::Builder {
    Portcullis::with(&policy(server, upstream)).file("ca.pem", &servers.pem)
}

fn with_own(builder: crate::kit::portcullis::Builder, own: &Identity) -> Portcullis {
    let gateway = builder.file("own.pem", &own.pem).file("own.key", &own.key);
    let gateway = gateway.start();
    gateway.dir().set_mode("own.key", 0o600);
    gateway
}

fn ask(gateway: &Portcullis) -> Answer {
    Request::get("/").to(gateway.http())
}

#[test]
fn a_server_that_requires_a_certificate_gets_the_gateways_over_both_versions() {
    let (servers, clients, strangers) = (Authority::new("s"), Authority::new("c"), Authority::new("x"));
    let own = clients.issue(&["gateway.test"]);
    for (alpn, protocol) in [("http/1.1", ""), ("h2", "protocol = \"http2\"\n")] {
        let server = Server::start(&servers.issue(&["orders.test"]), Some(&clients), alpn);
        let gateway = with_own(starting(&servers, &server, &format!("{protocol}{CERTIFICATE}")), &own);
        let shown = own.thumbprint();
        assert_eq!(ask(&gateway).is(200).text(), format!("0 orders.test {shown}"), "{alpn}");
        assert_eq!(ask(&gateway).is(200).text(), format!("0 orders.test {shown}"), "{alpn}: it is kept");

        let other = strangers.issue(&["gateway.test"]);
        let gateway = with_own(starting(&servers, &server, &format!("{protocol}{CERTIFICATE}")), &other);
        assert!(matches!(ask(&gateway).status, 502 | 503), "{alpn}: of an unknown authority");
        let none = format!("{protocol}tls = {{ server_name = \"orders.test\" }}");
        let gateway = starting(&servers, &server, &none).start();
        assert!(matches!(ask(&gateway).status, 502 | 503), "{alpn}: no certificate");
    }
}

#[test]
fn the_name_that_the_policy_gives_is_asked_for_and_verified() {
    let servers = Authority::new("servers");
    let server = Server::start(&servers.issue(&["orders.test"]), None, "http/1.1");
    let gateway = starting(&servers, &server, "tls = { server_name = \"orders.test\" }").start();
    assert_eq!(ask(&gateway).is(200).text(), "0 orders.test none");
    for tls in ["", "tls = { server_name = \"other.test\" }", "tls = { server_name = \"127.0.0.1\" }"] {
        let gateway = starting(&servers, &server, tls).start();
        ask(&gateway).is_refusal(503, "upstream_unavailable");
    }
}

/// An orderly end would make half a body look whole (findings/half-an-upload-in-gunicorn.sh).
#[test]
fn a_request_that_breaks_off_ends_without_close_notify() {
    let servers = Authority::new("servers");
    let own = servers.issue(&["orders.test"]);
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.certificate.clone()], own.private_key())
        .unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server(listener.local_addr().unwrap().port());
    let gateway = starting(&servers, &server, "tls = { server_name = \"orders.test\" }").start();
    let mut client = Connection::open(gateway.http());
    client.send("POST / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 10\r\n\r\nhalf ");
    let socket = listener.accept().unwrap().0;
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream =
        rustls::StreamOwned::new(rustls::ServerConnection::new(Arc::new(config)).unwrap(), socket);
    let mut seen = Vec::new();
    while !seen.ends_with(b"half ") {
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).expect("the part arrives");
        seen.extend(&bytes[..count]);
    }
    client.reset();
    let end = stream.read(&mut [0; 4096]).map_err(|error| error.kind());
    assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset));
}

#[test]
fn a_server_has_one_of_the_pinned_names_and_keys() {
    let (servers, others) = (Authority::new("servers"), Authority::new("others"));
    let own = servers.issue(&["orders.test", "spiffe://test/orders"]);
    let server = Server::start(&own, None, "http/1.1");
    let (right, wrong) = (pin(&own), pin(&servers.issue(&["orders.test"])));
    for (believed, trusted, tls) in [
        (true, &servers, "pinned_names = \"orders.test\"".to_owned()),
        (true, &servers, "pinned_names = [\"a.test\", \"spiffe://test/orders\"]".to_owned()),
        (false, &servers, "pinned_names = [\"a.test\", \"spiffe://test/orders/1\"]".to_owned()),
        (false, &servers, "pinned_names = [\"127.0.0.1\"]".to_owned()),
        (false, &others, "pinned_names = \"orders.test\"".to_owned()),
        (true, &servers, format!("server_name = \"orders.test\", pinned_keys = [\"{wrong}\", \"{right}\"]")),
        (false, &servers, format!("server_name = \"orders.test\", pinned_keys = [\"{wrong}\"]")),
        (false, &servers, format!("pinned_keys = [\"{right}\"]")),
        (false, &others, format!("server_name = \"orders.test\", pinned_keys = [\"{right}\"]")),
        (true, &servers, format!("pinned_names = \"orders.test\", pinned_keys = [\"{right}\"]")),
        (false, &servers, format!("pinned_names = \"orders.test\", pinned_keys = [\"{wrong}\"]")),
    ] {
        let gateway = starting(trusted, &server, &format!("tls = {{ {tls} }}")).start();
        let answer = ask(&gateway);
        assert_eq!(answer.status, if believed { 200 } else { 503 }, "{tls}: {answer:#?}");
        if tls.ends_with(&format!("[\"{wrong}\"]")) {
            let line = gateway.wait_log("the key", |line| line["message"] == "an upstream server is down");
            let error = line["error"].as_str().unwrap();
            assert!(error.contains(&format!("{right}, is not pinned")), "{error}");
        }
    }
}

/// Returns the error of a server whose certificate is refused.
fn error_of(gateway: &Portcullis) -> String {
    ask(gateway).is_refusal(503, "upstream_unavailable");
    let line = gateway.wait_log("the error", |line| line["message"] == "an upstream server is down");
    line["error"].as_str().unwrap().to_owned()
}

#[test]
fn a_refused_certificate_is_described_with_its_names() {
    let servers = Authority::new("servers");
    let pinned = "tls = { pinned_names = \"a.test\" }";
    let names = ["orders.test", "spiffe://test/orders", "127.0.0.1"];
    let server = Server::start(&servers.issue(&names), None, "http/1.1");
    let error = error_of(&starting(&servers, &server, pinned).start());
    let listed = "none of the pinned_names: its names are orders.test, spiffe://test/orders, 127.0.0.1";
    assert!(error.ends_with(listed), "{error}");
    let many: Vec<String> = (0..200).map(|n| format!("{n}.{}.test", "x".repeat(60))).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let server = Server::start(&servers.issue(&many), None, "http/1.1");
    let error = error_of(&starting(&servers, &server, pinned).start());
    assert!(error.ends_with(", and more") && error.len() < 1500, "{error}");
    // An authority shows its own certificate.
    for tls in ["", pinned, "tls = { pinned_names = \"ca.test\" }"] {
        let authority = servers.issue_authority(&["ca.test", "127.0.0.1"]);
        let server = Server::start(&authority, None, "http/1.1");
        let error = error_of(&starting(&servers, &server, tls).start());
        assert!(error.contains("the certificate of an authority (CA:TRUE)"), "{tls}: {error}");
    }
}

#[test]
fn a_connection_of_one_certificate_is_not_used_with_another_after_a_reload() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let [first, second] = [(); 2].map(|()| clients.issue(&["gateway.test"]));
    for (alpn, protocol) in [("http/1.1", ""), ("h2", "protocol = \"http2\"\n")] {
        let server = Server::start(&servers.issue(&["orders.test"]), Some(&clients), alpn);
        let upstream = format!("{protocol}{CERTIFICATE}");
        let gateway = with_own(starting(&servers, &server, &upstream), &first);
        let kept = ask(&gateway).is(200).text();
        assert!(kept.ends_with(&first.thumbprint()), "{kept}");
        reload(&gateway).is(200);
        assert_eq!(ask(&gateway).is(200).text(), kept, "{alpn}: nothing changed");
        gateway.dir().write("own.pem", &second.pem);
        reload(&gateway);
        assert_eq!(ask(&gateway).is(200).text(), kept, "{alpn}: half a pair is refused");
        gateway.dir().write("own.key", &second.key);
        reload(&gateway).is(200);
        let now = ask(&gateway).is(200).text();
        assert!(now.ends_with(&second.thumbprint()), "{alpn}: {now}");
        gateway.dir().write(
            "gateway.toml",
            completed(&policy(&server, &format!("{protocol}tls = {{ pinned_names = \"other.test\" }}"))),
        );
        reload(&gateway).is(200);
        assert!(matches!(ask(&gateway).status, 502 | 503), "{alpn}: no certificate, and another name");
    }
}

#[test]
fn checks_show_the_same_certificate_as_requests() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let server = Server::start(&servers.issue(&["orders.test"]), Some(&clients), "http/1.1");
    let health = "[upstream.app.health]\npath = \"/\"\ninterval = \"100ms\"";
    let gateway = with_own(
        starting(&servers, &server, &format!("{CERTIFICATE}\n{health}")),
        &clients.issue(&["gateway.test"]),
    );
    let checked = |gateway: &Portcullis, outcome: &str| {
        let outcome = format!("outcome=\"{outcome}\"");
        metric(&metrics(gateway), "portcullis_upstream_checks_total", &[&outcome]) > 0.5
    };
    eventually("a check passes", || checked(&gateway, "passed"));
    assert!(!checked(&gateway, "failed"));
    let bare = format!("tls = {{ server_name = \"orders.test\" }}\n{health}");
    let gateway = starting(&servers, &server, &bare).start();
    eventually("a check fails", || checked(&gateway, "failed"));
}

#[test]
fn mistakes_in_tls_settings_are_named() {
    let (dir, authority) = (Dir::new(), Authority::new("any"));
    let own = authority.issue(&["gateway.test"]);
    let old = authority.issue_until(&["gateway.test"], 2020);
    for (name, content) in [
        ("ca.pem", &authority.pem),
        ("own.pem", &own.pem),
        ("own.key", &own.key),
        ("old.pem", &old.pem),
        ("old.key", &old.key),
    ] {
        dir.write(name, content);
        dir.set_mode(name, 0o600);
    }
    let check = |server: &dyn Display, tls: &str| {
        write_policy(&dir, &policy(server, &format!("tls = {{ {tls} }}")));
        dir.write("ca.pem", &authority.pem);
        command(&dir, &["check", "--config", "gateway.toml"]).text()
    };
    for (tls, finding, key) in [
        ("certificate = \"own.pem\"", "half_a_pair", ".certificate"),
        ("key = \"own.key\"", "half_a_pair", ".key"),
        ("certificate = \"own.pem\", key = \"old.key\"", "bad_certificate", ".key"),
        ("certificate = \"own.key\", key = \"own.key\"", "bad_certificate", ".certificate"),
        ("certificate = \"old.pem\", key = \"old.key\"", "certificate_expired", ".certificate"),
        ("server_name = \"a b\"", "bad_value", ".server_name"),
        ("server_name = \"a.test:443\"", "bad_value", ".server_name"),
        ("pinned_names = [\"a.test\", \"a b\"]", "bad_value", ".pinned_names[1]"),
        ("pinned_names = \"spiffe://a b\"", "bad_value", ".pinned_names[0]"),
        ("pinned_keys = \"sha256/AAAA\"", "bad_value", ".pinned_keys[0]"),
        ("pinned_keys = \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"", "bad_value", ".pinned_keys[0]"),
        ("pinned_nam = \"a\"", "unknown_key", ".pinned_nam"),
    ] {
        let text = check(&"https://a.test", tls);
        assert!(text.contains(finding) && text.contains(&format!("upstream.app.tls{key}")), "{tls}: {text}");
    }
    let text = check(&"http://127.0.0.1:9", "pinned_names = \"a.test\"");
    assert!(text.contains("bad_upstream") && text.contains("does not use TLS"), "{text}");
}
