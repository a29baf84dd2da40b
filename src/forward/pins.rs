//! Verifies the certificates of servers whose names or keys the policy pins.

use crate::authenticate::digest_of;
use crate::tls::Facts;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::sync::Arc;

/// The names and keys of an upstream's servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pins {
    /// The certificate has one of these names. If empty, it has the name of the server.
    pub(crate) names: Box<[PinnedName]>,
    /// The SHA-256 digest of the certificate's public key (`SubjectPublicKeyInfo`) is one of these. If empty, any key
    /// is accepted.
    pub(crate) keys: Box<[[u8; 32]]>,
}

/// A name in certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PinnedName {
    /// A host name or an address.
    Host(ServerName<'static>),
    /// A URI, such as a SPIFFE ID. It is compared byte by byte.
    Uri(Box<str>),
}

/// Verifies the chain of a certificate as for any server, and then the pins.
#[derive(Debug)]
pub(crate) struct PinVerifier {
    inner: Arc<WebPkiServerVerifier>,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    pins: Pins,
}

impl PinVerifier {
    /// Creates a verifier that trusts these authorities.
    ///
    /// # Errors
    /// Returns the library's message.
    pub(crate) fn new(
        roots: Arc<RootCertStore>,
        provider: Arc<CryptoProvider>,
        pins: Pins,
    ) -> Result<Self, String> {
        let inner = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone()).build();
        Ok(Self { inner: inner.map_err(|error| error.to_string())?, roots, provider, pins })
    }

    fn check_name(&self, certificate: &CertificateDer<'_>, parsed: &ParsedCertificate<'_>) -> bool {
        let uris = Facts::of(certificate).map(|facts| facts.names.uris).unwrap_or_default();
        self.pins.names.iter().any(|name| match name {
            PinnedName::Host(host) => verify_server_name(parsed, host).is_ok(),
            PinnedName::Uri(uri) => uris.contains(uri),
        })
    }
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        if self.pins.names.is_empty() {
            self.inner.verify_server_cert(certificate, intermediates, name, ocsp, now)?;
        } else {
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
            if !self.check_name(certificate, &parsed) {
                return Err(Error::General("the certificate has none of the pinned_names".to_owned()));
            }
        }
        let key = digest_of(parsed.subject_public_key_info());
        if !self.pins.keys.is_empty() && !self.pins.keys.contains(&key) {
            let key = BASE64_STANDARD.encode(key);
            return Err(Error::General(format!(
                "the key of the certificate, {KEY_PREFIX}{key}, is not pinned"
            )));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// The prefix of pinned keys, as in RFC 7469 and in the settings of many clients.
const KEY_PREFIX: &str = "sha256/";

impl Pins {
    /// Whether every certificate with a valid chain and the server's name is accepted.
    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty() && self.keys.is_empty()
    }

    /// Reads a pinned key, `sha256/` and the digest in base64.
    pub(crate) fn key(text: &str) -> Option<[u8; 32]> {
        BASE64_STANDARD.decode(text.strip_prefix(KEY_PREFIX)?).ok()?.try_into().ok()
    }
}

impl PinnedName {
    /// Reads a pinned name: a host name, an address, or a URI.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text.split_once("://") {
            Some((scheme, rest)) => {
                let is_uri = !scheme.is_empty()
                    && !rest.is_empty()
                    && text.bytes().all(|byte| byte.is_ascii_graphic());
                is_uri.then(|| Self::Uri(text.into()))
            }
            None => ServerName::try_from(text.to_owned()).ok().map(Self::Host),
        }
    }
}
