//! Asks clients for certificates, and verifies them with the authorities and the revocation lists of files.

use super::facts::{Facts, Names, next_update};
use crate::config::stable_file;
use crate::config::units::ByteSize;
use aws_lc_rs::digest::{SHA256, digest};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Maximum size of a file with authorities or revoked certificates. Lists of large authorities have some megabytes.
const FILE_MAX: ByteSize = ByteSize::bytes(16 << 20);

/// The remedy for a revocation list that rustls cannot use.
const UNUSABLE_LIST: &str = "use a list of version 2 with authorityKeyIdentifier (RFC 5280 section 5); OpenSSL writes one with crl_extensions";

/// Which clients must have a certificate, and who signs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRule {
    /// The name in the policy.
    pub name: Arc<str>,
    /// Whether clients without a certificate are refused.
    pub required: bool,
    /// The file with the authorities.
    pub ca: PathBuf,
    /// The files with the revocation lists of the authorities. If there are none, revocation is not checked.
    pub crls: Vec<PathBuf>,
}

/// The file of a rule that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadFile {
    /// The key of the file in the table of the rule.
    pub(crate) key: String,
    /// The fault.
    pub(crate) found: String,
    /// The remedy.
    pub(crate) hint: &'static str,
}

/// A rule, and the verifier that its files describe.
#[derive(Clone, Debug)]
pub(crate) struct Verifier {
    pub(crate) rule: Arc<ClientRule>,
    pub(crate) verifier: Arc<dyn ClientCertVerifier>,
    /// The earliest end of a revocation list, in seconds since 1970. Without an end, a list does not expire.
    pub(crate) lists_end: Option<u64>,
}

impl Verifier {
    /// Reads the files of a rule.
    ///
    /// # Errors
    /// Returns the faulty file.
    pub(crate) fn open(rule: Arc<ClientRule>) -> Result<Self, BadFile> {
        let fault = |key: &str, path: &Path, why: &str, hint| BadFile {
            key: key.to_owned(),
            found: format!("{}: {why}", path.display()),
            hint,
        };
        let (ca, hint) = (&rule.ca, "use a PEM file with the certificates of the clients' authorities");
        let bytes = stable_file::read(ca, FILE_MAX).map_err(|why| fault("ca", ca, &why.to_string(), hint))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&bytes) {
            let certificate = certificate.map_err(|error| fault("ca", ca, &error.to_string(), hint))?;
            roots.add(certificate).map_err(|error| fault("ca", ca, &error.to_string(), hint))?;
        }
        if roots.is_empty() {
            return Err(fault("ca", ca, "contains no certificate", hint));
        }
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = || WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
        let (mut lists, mut lists_end) = (Vec::new(), None);
        for (index, path) in rule.crls.iter().enumerate() {
            let key = format!("crl[{index}]");
            let hint = "use a PEM file with BEGIN X509 CRL";
            let bytes =
                stable_file::read(path, FILE_MAX).map_err(|why| fault(&key, path, &why.to_string(), hint))?;
            let read: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
            let read = read.map_err(|error| fault(&key, path, &error.to_string(), hint))?;
            if read.is_empty() {
                return Err(fault(&key, path, "contains no revocation list", hint));
            }
            // rustls reports an unusable list without its file, so each file is tried alone.
            if let Err(error) = builder().with_crls(read.iter().cloned()).build() {
                return Err(fault(&key, path, &error.to_string(), UNUSABLE_LIST));
            }
            let ends = read.iter().filter_map(|list| next_update(list));
            lists_end = lists_end.into_iter().chain(ends).min();
            lists.extend(read);
        }
        let mut builder = builder();
        if !lists.is_empty() {
            // A list that has expired may lack the newest revocations, so it refuses every certificate.
            builder = builder.with_crls(lists).enforce_revocation_expiration();
        }
        if !rule.required {
            builder = builder.allow_unauthenticated();
        }
        let verifier = builder.build().map_err(|error| fault("ca", ca, &error.to_string(), hint))?;
        Ok(Self { rule, verifier, lists_end })
    }
}

/// The verified certificate of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The name of the rule that asked for the certificate.
    pub rule: Arc<str>,
    /// The names in the certificate.
    pub names: Names,
    /// The SHA-256 of the certificate in DER (`x5t#S256`, RFC 8705 section 3.1).
    pub thumbprint: [u8; 32],
    /// The last second at which the certificate is valid, in seconds since 1970.
    pub ends: u64,
}

impl ClientCertificate {
    /// Reads a certificate that the rule's verifier has accepted. Returns `None` if it cannot be parsed.
    pub(crate) fn of(rule: &ClientRule, certificate: &CertificateDer<'_>) -> Option<Self> {
        let Facts { names, validity, .. } = Facts::of(certificate)?;
        let thumbprint = digest(&SHA256, certificate).as_ref().try_into().ok()?;
        Some(Self { rule: rule.name.clone(), names, thumbprint, ends: validity.ends })
    }
}
