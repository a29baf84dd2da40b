//! Tests the client with servers that send prepared bytes.

use super::*;
use crate::config::network::Cidr;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use rustls::RootCertStore;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const BOUNDS: Bounds = Bounds { time: Duration::from_secs(20), body: 1000 };

fn client(networks: &[&str], roots: RootCertStore) -> Client {
    let networks: Vec<Cidr> = networks.iter().map(|text| text.parse().unwrap()).collect();
    let networks = Networks::new(networks);
    Client::new(Settings { roots: Arc::new(roots), networks, allows_http: true, idle: 2 }).unwrap()
}

fn local() -> Client {
    client(&["127.0.0.0/8", "::1"], RootCertStore::empty())
}

/// Reads one request with its body.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Some(text);
            }
        }
        if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}

/// Starts a server that handles each connection with `serve` and counts the connections.
async fn server<F>(serve: impl Fn(tokio::net::TcpStream) -> F + 'static) -> (SocketAddr, Arc<AtomicUsize>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::task::spawn_local(serve(stream));
        }
    });
    (address, count)
}

/// Starts a server that answers every request with these bytes.
async fn answers(bytes: &'static [u8]) -> (SocketAddr, Arc<AtomicUsize>) {
    server(move |mut stream| async move {
        while read_request(&mut stream).await.is_some() {
            if stream.write_all(bytes).await.is_err() {
                return;
            }
        }
    })
    .await
}

fn run(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build_local(tokio::runtime::LocalOptions::default());
    runtime.unwrap().block_on(test);
}

async fn get(client: &Client, address: SocketAddr, bounds: Bounds) -> Result<Answer, Error> {
    let url = Url::parse(&format!("http://{address}/jwks")).unwrap();
    client.get(&url, HeaderMap::new(), bounds).await
}

#[test]
fn an_answer_is_returned_whole_and_its_connection_used_again() {
    run(async {
        let (address, count) =
            answers(b"HTTP/1.1 200 OK\r\nETag: \"a\"\r\nContent-Length: 2\r\n\r\n{}").await;
        let client = local();
        for _ in 0..3 {
            let answer = get(&client, address, BOUNDS).await.unwrap().ok().unwrap();
            assert_eq!(
                (&answer.body[..], &answer.headers[header::ETAG]),
                (&b"{}"[..], &HeaderValue::from_static("\"a\""))
            );
        }
        assert_eq!(count.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_request_whose_kept_connection_ends_is_sent_over_a_new_one() {
    run(async {
        let (address, connections) = server(|mut stream| async move {
            read_request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            read_request(&mut stream).await;
        })
        .await;
        let client = local();
        for number in 1..=3 {
            assert_eq!(get(&client, address, BOUNDS).await.unwrap().body, "ok");
            assert_eq!(connections.load(Ordering::Relaxed), number);
        }
    });
}

#[test]
fn a_request_whose_new_connection_ends_is_sent_once() {
    run(async {
        let (address, connections) = server(|mut stream| async move {
            read_request(&mut stream).await;
        })
        .await;
        assert!(matches!(get(&local(), address, BOUNDS).await, Err(Error::Protocol(_))));
        assert_eq!(connections.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_post_carries_its_body_and_its_credential() {
    run(async {
        let (address, _) = server(|mut stream| async move {
            let request = read_request(&mut stream).await.unwrap().to_lowercase();
            let is_complete = request.starts_with("post /introspect http/1.1\r\n")
                && request.contains("\r\nauthorization: basic dtpw\r\n")
                && request.contains("\r\nuser-agent: portcullis/")
                && request.ends_with("\r\n\r\ntoken=a");
            let status = if is_complete { "200 OK" } else { "400 Bad Request" };
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        let url = Url::parse(&format!("http://{address}/introspect")).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Basic dTpw"));
        let answer = local().post(&url, headers, Bytes::from_static(b"token=a"), BOUNDS).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
    });
}

#[test]
fn an_address_that_is_not_allowed_is_never_connected_to() {
    run(async {
        let (address, count) = answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
        let public = client(&[], RootCertStore::empty());
        assert_eq!(get(&public, address, BOUNDS).await.unwrap_err(), Error::Address(address.ip()));
        // If the URL contains a name, the address that the name resolves to is checked.
        let url = Url::parse(&format!("http://localhost:{}/jwks", address.port())).unwrap();
        let refused = public.get(&url, HeaderMap::new(), BOUNDS).await.unwrap_err();
        assert!(matches!(refused, Error::Address(address) if address.is_loopback()), "{refused:?}");
        let other = client(&["10.0.0.0/8"], RootCertStore::empty());
        assert!(matches!(get(&other, address, BOUNDS).await, Err(Error::Address(_))));
        assert_eq!(count.load(Ordering::Relaxed), 0);
        assert!(get(&local(), address, BOUNDS).await.is_ok());
    });
}

#[test]
fn a_redirect_is_an_answer_and_not_followed() {
    run(async {
        let (other, others) = answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
        let text =
            format!("HTTP/1.1 302 Found\r\nLocation: http://{other}/a?secret\r\nContent-Length: 0\r\n\r\n");
        let (address, _) = answers(text.leak().as_bytes()).await;
        let answer = get(&local(), address, BOUNDS).await.unwrap();
        assert_eq!(
            answer.clone().ok().unwrap_err(),
            Error::Redirect(StatusCode::FOUND, format!("'http://{other}/a'"))
        );
        assert_eq!(others.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn an_answer_beyond_a_bound_ends_the_exchange() {
    run(async {
        let body = "a".repeat(1001);
        for text in [
            format!("HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n{body}"),
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n{body}\r\n0\r\n\r\n"),
            format!("HTTP/1.1 200 OK\r\n\r\n{body}"),
        ] {
            let (address, _) = answers(text.leak().as_bytes()).await;
            assert_eq!(get(&local(), address, BOUNDS).await.unwrap_err(), Error::TooLarge(1000));
        }
        let head = format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "a".repeat(64 * 1024));
        let fields = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", "X: a\r\n".repeat(200));
        for text in [head, fields] {
            let (address, _) = answers(text.leak().as_bytes()).await;
            assert!(matches!(get(&local(), address, BOUNDS).await, Err(Error::Protocol(_))));
        }
    });
}

#[test]
fn an_answer_that_never_ends_is_given_up_at_the_bound() {
    run(async {
        let (drips, _) = server(|mut stream| async move {
            let _ = read_request(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n").await;
            while stream.write_all(b"a").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        let (silent, _) =
            server(|mut stream| async move { while read_request(&mut stream).await.is_some() {} }).await;
        let bounds = Bounds { time: Duration::from_millis(300), ..BOUNDS };
        for address in [drips, silent] {
            let started = Instant::now();
            assert_eq!(get(&local(), address, bounds).await.unwrap_err(), Error::Timeout(bounds.time));
            assert!(started.elapsed() < Duration::from_secs(5));
        }
    });
}

#[test]
fn an_incomplete_or_encoded_answer_is_an_error() {
    run(async {
        let (address, _) =
            answers(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}").await;
        assert_eq!(get(&local(), address, BOUNDS).await.unwrap_err(), Error::Encoded);
        for text in ["not HTTP\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{}", ""] {
            let (address, _) = server(move |mut stream| async move {
                let _ = read_request(&mut stream).await;
                let _ = stream.write_all(text.as_bytes()).await;
            })
            .await;
            assert!(matches!(get(&local(), address, BOUNDS).await, Err(Error::Protocol(_))), "{text}");
        }
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert!(matches!(get(&local(), closed, BOUNDS).await, Err(Error::Connect(_))));
    });
}

/// Starts a TLS server with a certificate for `name`. Returns its address and the authority that signed the
/// certificate.
async fn tls_server(name: &str, kind: rcgen::IsCa) -> (SocketAddr, RootCertStore) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    parameters.is_ca = kind;
    let certificate = parameters.self_signed(&key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (address, _) = server(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            if read_request(&mut stream).await.is_some() {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
                let _ = stream.shutdown().await;
            }
        }
    })
    .await;
    (address, roots)
}

#[test]
fn only_a_server_with_a_certificate_for_its_name_by_a_known_authority_is_spoken_to() {
    run(async {
        let (address, roots) = tls_server("localhost", rcgen::IsCa::NoCa).await;
        let of = |host: &str| Url::parse(&format!("https://{host}:{}/jwks", address.port())).unwrap();
        let networks = ["127.0.0.0/8", "::1"];
        let trusting = client(&networks, roots);
        assert!(trusting.get(&of("localhost"), HeaderMap::new(), BOUNDS).await.is_ok());
        for (client, host) in
            [(&trusting, "127.0.0.1"), (&client(&networks, RootCertStore::empty()), "localhost")]
        {
            let refused = client.get(&of(host), HeaderMap::new(), BOUNDS).await;
            assert!(matches!(refused, Err(Error::Tls(_))), "{refused:?}");
        }
    });
}

/// `openssl req -x509` makes such a certificate, and OpenSSL accepts it as the server's.
#[test]
fn the_certificate_of_an_authority_is_refused_with_its_remedy() {
    run(async {
        let kind = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let (address, roots) = tls_server("localhost", kind).await;
        let url = Url::parse(&format!("https://localhost:{}/jwks", address.port())).unwrap();
        let refused = client(&["127.0.0.0/8", "::1"], roots).get(&url, HeaderMap::new(), BOUNDS).await;
        let Err(Error::Tls(why)) = refused else { panic!("{refused:?}") };
        assert!(why.contains("(CA:TRUE)") && why.ends_with("basicConstraints=critical,CA:FALSE"), "{why}");
    });
}

#[test]
fn cleartext_is_sent_only_where_it_is_allowed() {
    run(async {
        let (address, count) = answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
        let networks = Networks::new(vec!["127.0.0.0/8".parse().unwrap()]);
        let roots = Arc::new(RootCertStore::empty());
        let client = Client::new(Settings { roots, networks, allows_http: false, idle: 0 }).unwrap();
        assert_eq!(get(&client, address, BOUNDS).await.unwrap_err(), Error::Cleartext);
        assert_eq!(count.load(Ordering::Relaxed), 0);
    });
}
