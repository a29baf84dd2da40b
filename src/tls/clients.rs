//! Asks clients for certificates, and verifies them with the authorities and the revocation lists of files.

use super::facts::{Facts, Names, next_update, version};
use crate::config::stable_file;
use crate::config::units::ByteSize;
use crate::pem;
use aws_lc_rs::digest::{Context, SHA256, digest};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Maximum size of a file with authorities or revoked certificates. Lists of large authorities have some megabytes.
const FILE_MAX: ByteSize = ByteSize::bytes(16 << 20);

/// Maximum number of certificates between a client's certificate and an authority of `ca`.
const INTERMEDIATES_MAX: usize = 8;

/// The remedy for a revocation list that rustls cannot use.
const UNUSABLE_LIST: &str = "use a list of version 2 (RFC 5280 section 5); OpenSSL writes one if its configuration has crl_extensions";

/// The clients that must have a certificate, and the authorities that sign it.
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
    /// The SHA-256 of all files.
    pub(crate) digest: [u8; 32],
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
        let mut all = Context::new(&SHA256);
        all.update(&bytes);
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&bytes) {
            let certificate = certificate.map_err(|error| fault("ca", ca, &pem::fault(&error), hint))?;
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
            all.update(&bytes);
            let read: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
            let read = read.map_err(|error| fault(&key, path, &pem::fault(&error), hint))?;
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
        let verifier = Arc::new(ShortChains(verifier));
        let digest = all.finish().as_ref().try_into().expect("a SHA-256 has 32 bytes");
        Ok(Self { rule, verifier, lists_end, digest })
    }
}

/// Rejects a chain with many certificates before it is verified. The search for a path to an authority tries each
/// certificate, so a client without a valid certificate could occupy a core.
#[derive(Debug)]
struct ShortChains(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for ShortChains {
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if intermediates.len() > INTERMEDIATES_MAX {
            return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        }
        let verified = self.0.verify_client_cert(end_entity, intermediates, now);
        verified.map_err(|error| explained(error, end_entity, intermediates))
    }

    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// A fault of a client's certificate for which the TLS library has no sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertificateFault(String);

impl fmt::Display for CertificateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CertificateFault {}

impl CertificateFault {
    /// Returns the fault in an error of a handshake, if it has one.
    pub(crate) fn of(error: &Error) -> Option<&Self> {
        match error {
            Error::InvalidCertificate(CertificateError::Other(other)) => other.0.downcast_ref(),
            _ => None,
        }
    }
}

/// Gives an error that has only the name of a variant a sentence.
#[cold]
fn explained(error: Error, own: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Error {
    let Error::InvalidCertificate(CertificateError::Other(other)) = &error else { return error };
    let fault = match &*format!("{:?}", other.0) {
        "UnsupportedCertVersion" => {
            let found =
                |certificate: &CertificateDer<'_>| version(certificate).filter(|version| *version != 3);
            let (whose, found) = match (found(own), intermediates.iter().find_map(found)) {
                (None, Some(found)) => ("an intermediate certificate of the client", found.to_string()),
                (found, _) => {
                    let found = found.map_or_else(|| "unknown".to_owned(), |found| found.to_string());
                    ("the client's certificate", found)
                }
            };
            format!(
                "{whose} has X.509 version {found}; expected version 3, which has the names and the key usage"
            )
        }
        "CaUsedAsEndEntity" => {
            "the client shows the certificate of an authority (CA:TRUE) in place of its own".to_owned()
        }
        "EndEntityUsedAsCa" => {
            "the client's certificate is signed by one that may not sign certificates (CA:FALSE)".to_owned()
        }
        "NameConstraintViolation" => {
            "the client's certificate has a name that its authority may not certify".to_owned()
        }
        "PathLenConstraintViolated" => {
            "the client's certificate has more intermediate authorities than its authority allows".to_owned()
        }
        name => format!("the client's certificate cannot be verified: {name}"),
    };
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(CertificateFault(fault)))))
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

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

    #[test]
    fn a_long_chain_is_refused_before_it_is_searched() {
        let folder = std::env::temp_dir().join(format!("portcullis-chains-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = folder.join("ca.pem");
        std::fs::write(&ca, parameters.self_signed(&key).unwrap().pem()).unwrap();
        let mut leaf = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let issuer = Issuer::new(parameters, key);
        let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap().der().clone();
        let rule = ClientRule { name: "a".into(), required: true, ca, crls: Vec::new() };
        let verifier = Verifier::open(Arc::new(rule)).unwrap().verifier;
        let verify =
            |count| verifier.verify_client_cert(&leaf, &vec![leaf.clone(); count], UnixTime::now()).is_ok();
        assert_eq!([0, 8, 9].map(verify), [true, true, false]);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
