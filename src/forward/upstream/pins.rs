//! Verifies the certificates of servers whose names or keys the policy pins.

use crate::authenticate::digest_of;
use crate::tls::{Facts, Names};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};
use std::fmt;
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

    fn check_name(
        &self,
        certificate: &CertificateDer<'_>,
        parsed: &ParsedCertificate<'_>,
    ) -> Result<(), PinFault> {
        let names = Facts::of(certificate).map(|facts| facts.names).unwrap_or_default();
        let is_pinned = self.pins.names.iter().any(|name| match name {
            PinnedName::Host(host) => verify_server_name(parsed, host).is_ok(),
            PinnedName::Uri(uri) => names.uris.contains(uri),
        });
        if is_pinned { Ok(()) } else { Err(PinFault::Names(listed(&names))) }
    }
}

/// A certificate with a valid chain that the pins exclude.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::forward) enum PinFault {
    /// The certificate has none of the pinned names. The value lists the names that it has.
    Names(String),
    /// The digest of the key is not pinned.
    Key([u8; 32]),
}

impl From<PinFault> for Error {
    fn from(fault: PinFault) -> Self {
        CertificateError::Other(OtherError(Arc::new(fault))).into()
    }
}

impl fmt::Display for PinFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Names(names) if names.is_empty() => {
                f.write_str("the certificate has none of the pinned_names: it has no alternative names")
            }
            Self::Names(names) => {
                write!(f, "the certificate has none of the pinned_names: its names are {names}")
            }
            Self::Key(key) => {
                let key = BASE64_STANDARD.encode(key);
                write!(f, "the key of the certificate, {KEY_PREFIX}{key}, is not pinned")
            }
        }
    }
}

impl std::error::Error for PinFault {}

/// Lists the alternative names of a certificate that pins are compared with. A server cannot make the list long.
fn listed(names: &Names) -> String {
    const NAMES_MAX: usize = 10;
    const LENGTH_MAX: usize = 100;
    let texts = names.dns.iter().chain(&names.uris).map(ToString::to_string);
    let all = texts.chain(names.addresses.iter().map(ToString::to_string));
    let mut shown: Vec<String> =
        all.take(NAMES_MAX + 1).map(|name| name.chars().take(LENGTH_MAX).collect()).collect();
    if let Some(last) = shown.get_mut(NAMES_MAX) {
        "and more".clone_into(last);
    }
    shown.join(", ")
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
            self.check_name(certificate, &parsed)?;
        }
        let key = digest_of(parsed.subject_public_key_info());
        if !self.pins.keys.is_empty() && !self.pins.keys.contains(&key) {
            return Err(PinFault::Key(key).into());
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
