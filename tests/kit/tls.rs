//! TLS connections to the gateway.

use super::pki::Identity;
use super::{PATIENCE, end_of_head};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, ServerConfig, ServerConnection,
    SignatureScheme, StreamOwned, SupportedProtocolVersion,
};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A TLS stream of a client.
pub type Stream = StreamOwned<ClientConnection, TcpStream>;

/// The settings of a handshake.
#[derive(Clone, Debug)]
pub struct Options {
    /// The offered TLS versions.
    pub versions: Vec<&'static SupportedProtocolVersion>,
    /// The offered application protocols.
    pub alpn: Vec<&'static str>,
    /// The server name (SNI), or `None` to send none.
    pub name: Option<&'static str>,
    /// The PEM file of the certificate that the gateway must show, or `None` to accept any certificate.
    pub trust: Option<PathBuf>,
    /// The client's certificate.
    pub identity: Option<Identity>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            versions: vec![&rustls::version::TLS13, &rustls::version::TLS12],
            alpn: vec!["http/1.1"],
            name: Some("localhost"),
            trust: None,
            identity: None,
        }
    }
}

/// Builds the configuration of a client.
pub fn config(options: &Options) -> ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let key_provider = provider.key_provider;
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&options.versions)
        .expect("the provider speaks both versions");
    let builder = match &options.trust {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(path).expect("a certificate")).expect("a trust anchor");
            builder.with_root_certificates(roots)
        }
        None => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))),
    };
    let mut config = match &options.identity {
        Some(identity) => {
            let key = key_provider.load_private_key(identity.private_key()).expect("a key that rcgen wrote");
            // `with_client_auth_cert` refuses certificates that only the gateway should refuse.
            let shown = CertifiedKey::new(vec![identity.certificate.clone()], key);
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown)))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = options.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config.enable_sni = options.name.is_some();
    config
}

/// Returns a verifier that accepts every certificate.
pub fn anybody() -> Arc<dyn ServerCertVerifier> {
    Arc::new(Anybody(Arc::new(aws_lc_rs::default_provider())))
}

/// Connects and performs the handshake.
///
/// # Errors
/// When the gateway refuses the handshake, or the client refuses the gateway.
pub fn connect(address: SocketAddr, options: &Options) -> io::Result<Stream> {
    let name = match options.name {
        Some(name) => ServerName::try_from(name).map_err(io::Error::other)?,
        None => ServerName::from(address.ip()),
    };
    let connection = ClientConnection::new(Arc::new(config(options)), name).map_err(io::Error::other)?;
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let mut stream = StreamOwned::new(connection, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// An upstream with TLS that reads one request head per connection, and answers with the text `encrypted`.
#[derive(Debug)]
pub struct Server {
    port: u16,
    requests: Arc<AtomicUsize>,
}

impl Server {
    /// Starts a server with this certificate, on all addresses of `localhost`.
    pub fn start(certificate: &CertificateDer<'_>, key: &rcgen::KeyPair) -> Self {
        let answer = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 9\r\n\r\nencrypted";
        Self::answering(certificate, key, answer, true)
    }

    /// Starts a server that sends this answer, and ends the connection with or without `close_notify` (RFC 8446 section
    /// 6.1).
    pub fn answering(
        certificate: &CertificateDer<'_>,
        key: &rcgen::KeyPair,
        answer: &'static str,
        says_goodbye: bool,
    ) -> Self {
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key that rcgen wrote");
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone().into_owned()], key)
            .expect("the key is the certificate's");
        let (config, requests) = (Arc::new(config), Arc::new(AtomicUsize::new(0)));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let counter = requests.clone();
        std::thread::spawn(move || {
            // The thread ends with the process. It holds only its port.
            for socket in listener.incoming().flatten() {
                let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), socket);
                let _ = Self::answer(&mut stream, &counter, answer, says_goodbye);
            }
        });
        Self { port, requests }
    }

    fn answer(
        stream: &mut StreamOwned<ServerConnection, TcpStream>,
        counter: &AtomicUsize,
        answer: &str,
        says_goodbye: bool,
    ) -> io::Result<()> {
        let mut head = Vec::new();
        while end_of_head(&head).is_none() {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.extend(byte);
        }
        counter.fetch_add(1, Ordering::SeqCst);
        stream.write_all(answer.as_bytes())?;
        if says_goodbye {
            stream.conn.send_close_notify();
        }
        stream.flush()
    }

    /// Returns the server's port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the number of requests that the server has read.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// A verifier that accepts any certificate, but checks that the server has the certificate's key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
