//! Reads a certificate chain and its key from files. Errors contain a remedy, often as a command.

use super::Files;
use super::facts::{Facts, OcspAnswer, version};
use crate::config::stable_file;
use crate::config::units::ByteSize;
use crate::pem;
use rustls::client::verify_server_name;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use std::fmt;
use std::path::Path;
use zeroize::Zeroizing;

/// Maximum size of a certificate or key file: 4 MiB, a thousand times the usual size.
const FILE_MAX: ByteSize = ByteSize::bytes(4 << 20);

/// One of the two files of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The certificate chain.
    Certificate,
    /// The private key.
    Key,
    /// The answer of the authority's OCSP responder.
    Ocsp,
}

/// The reason why a pair cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unusable {
    /// The faulty file.
    pub(crate) part: Part,
    /// The fault.
    pub(crate) found: String,
    /// The remedy.
    pub(crate) hint: String,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.found, self.hint)
    }
}

/// Returns the names in a certificate if none of them matches `name` (RFC 9525). Returns `None` if a name matches, or
/// if the certificate or `name` cannot be parsed.
pub(crate) fn names_other(certificate: &CertificateDer<'_>, name: &str) -> Option<Vec<String>> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let name = ServerName::try_from(name).ok()?;
    match verify_server_name(&parsed, &name) {
        Ok(()) => None,
        Err(rustls::Error::InvalidCertificate(rustls::CertificateError::NotValidForNameContext {
            presented,
            ..
        })) => {
            // rustls formats a name as `DnsName("a.example.com")`.
            let bare = |name: String| match (name.find('"'), name.rfind('"')) {
                (Some(start), Some(end)) if start < end => name[start + 1..end].to_owned(),
                _ => name
                    .split_once('(')
                    .map_or(name.clone(), |(_, rest)| rest.trim_end_matches(')').to_owned()),
            };
            Some(presented.into_iter().map(bare).collect())
        }
        Err(_) => Some(Vec::new()),
    }
}

/// Reads a certificate chain and its key.
///
/// # Errors
/// Returns the faulty file and the remedy.
pub(crate) fn read(files: &Files) -> Result<CertifiedKey, Unusable> {
    let certificates = chain(&files.certificate)?;
    let own = &certificates[0];
    let ocsp = files.ocsp.as_deref().map(|path| answer(path, own)).transpose()?;
    let fault = |found: &str, hint: String| Unusable {
        part: Part::Key,
        found: format!("{}: {found}", files.key.display()),
        hint,
    };
    let bytes = Zeroizing::new(bytes(Part::Key, &files.key)?);
    let key = match PrivateKeyDer::from_pem_slice(&bytes) {
        Ok(key) if !is_encrypted(&bytes) => key,
        Ok(_) | Err(_) => {
            let (found, hint) = no_key(&bytes, &files.key);
            return Err(fault(found, hint));
        }
    };
    let key = aws_lc_rs::default_provider().key_provider.load_private_key(key).map_err(|error| {
        fault(
            &format!("holds a key of a kind that is not supported ({error})"),
            "an RSA key of at least 2048 bits, or one of P-256, P-384 or Ed25519".to_owned(),
        )
    })?;
    let pair = CertifiedKey { ocsp, ..CertifiedKey::new(certificates, key) };
    let old = pair.cert.first().and_then(version).filter(|version| *version != 3);
    match pair.keys_match() {
        // If the public key cannot be derived, the pair is accepted, because a mismatch cannot be proven.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(pair),
        Err(rustls::Error::InconsistentKeys(_)) => {
            let later = (1..pair.cert.len()).find(|nth| {
                CertifiedKey::new(vec![pair.cert[*nth].clone()], pair.key.clone()).keys_match() == Ok(())
            });
            Err(match later {
                Some(nth) => Unusable {
                    part: Part::Certificate,
                    found: format!(
                        "{}: the server's own certificate is number {}, after those of its authorities",
                        files.certificate.display(),
                        nth + 1
                    ),
                    hint: "the server's own certificate first, then the one that signed it, and so on"
                        .to_owned(),
                },
                None => fault(
                    &format!("is not the key of the certificate in {}", files.certificate.display()),
                    format!(
                        "the key of this certificate: `openssl x509 -noout -pubkey -in {}` and `openssl pkey -pubout -in {}` print the same for a pair",
                        files.certificate.display(),
                        files.key.display()
                    ),
                ),
            })
        }
        Err(_) if old.is_some() => Err(Unusable {
            part: Part::Certificate,
            found: format!(
                "{}: the first certificate has X.509 version {}, and clients expect version 3, which has the names",
                files.certificate.display(),
                old.unwrap_or_default()
            ),
            hint: "a certificate with subjectAltName: openssl x509 -req needs -extfile for it, openssl req -x509 needs -addext"
                .to_owned(),
        }),
        Err(error) => Err(Unusable {
            part: Part::Certificate,
            found: format!("{}: the first certificate cannot be read ({error})", files.certificate.display()),
            hint: format!("openssl x509 -noout -text -in {}", files.certificate.display()),
        }),
    }
}

fn bytes(part: Part, path: &Path) -> Result<Vec<u8>, Unusable> {
    stable_file::read(path, FILE_MAX).map_err(|why| Unusable {
        part,
        found: format!("{}: {why}", path.display()),
        hint: match part {
            Part::Certificate | Part::Key => "a PEM file that the gateway's user can read".to_owned(),
            Part::Ocsp => "a file in DER that the gateway's user can read".to_owned(),
        },
    })
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let bytes = Zeroizing::new(bytes(Part::Certificate, path)?);
    let fault = |found: &str, hint: String| Unusable {
        part: Part::Certificate,
        found: format!("{}: {found}", path.display()),
        hint,
    };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => {
            let (found, hint) = no_certificate(&bytes, path);
            Err(fault(found, hint))
        }
        Err(error) => Err(fault(
            &format!("cannot be read as PEM: {}", pem::fault(&error)),
            "whole blocks from BEGIN CERTIFICATE to END CERTIFICATE".to_owned(),
        )),
    }
}

/// Reads an answer of an OCSP responder about this certificate (RFC 6960 section 4.2.1).
fn answer(path: &Path, own: &CertificateDer<'_>) -> Result<Vec<u8>, Unusable> {
    let bytes = bytes(Part::Ocsp, path)?;
    let fault = |found: &str| Unusable {
        part: Part::Ocsp,
        found: format!("{}: {found}", path.display()),
        hint: "the file that `openssl ocsp -respout FILE` writes for this certificate".to_owned(),
    };
    let facts = Facts::of(own);
    match OcspAnswer::of(&bytes) {
        None => Err(fault("is not a successful OCSP response about one certificate, in DER")),
        Some(answer) if facts.is_some_and(|facts| facts.serial != answer.serial) => {
            Err(fault("is an OCSP response about another certificate"))
        }
        Some(_) => Ok(bytes),
    }
}

fn holds(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|window| window == word.as_bytes())
}

/// Returns whether the bytes look like DER. DER begins with a sequence. Its length is in the long form, as in
/// certificates and most keys, or in the short form and equal to the number of remaining bytes.
fn is_der(bytes: &[u8]) -> bool {
    matches!(bytes, [0x30, 0x81..=0x83, ..])
        || matches!(bytes, [0x30, len, rest @ ..] if rest.len() == usize::from(*len))
}

fn is_encrypted(bytes: &[u8]) -> bool {
    holds(bytes, "BEGIN ENCRYPTED PRIVATE KEY") || holds(bytes, "Proc-Type: 4,ENCRYPTED")
}

/// Describes a file without a certificate, and the remedy.
fn no_certificate(bytes: &[u8], path: &Path) -> (&'static str, String) {
    let path = path.display();
    match () {
        () if bytes.is_empty() => ("is empty", "a PEM file of the certificate chain".to_owned()),
        () if holds(bytes, "PRIVATE KEY-----") => (
            "holds a private key and no certificate",
            "the certificate's file here, and the key's in `key`".to_owned(),
        ),
        () if holds(bytes, "BEGIN CERTIFICATE REQUEST") || holds(bytes, "BEGIN NEW CERTIFICATE REQUEST") => {
            ("holds a certificate request", "the certificate that the authority issued for it".to_owned())
        }
        () if holds(bytes, "BEGIN PUBLIC KEY") => ("holds a public key", "the certificate's file".to_owned()),
        () if holds(bytes, "BEGIN PKCS7") => (
            "holds PKCS #7",
            format!("PEM certificates: openssl pkcs7 -print_certs -in {path} -out {path}.pem"),
        ),
        () if is_der(bytes) => {
            ("is DER, not PEM", format!("PEM: openssl x509 -inform der -in {path} -out {path}.pem"))
        }
        () => ("holds no certificate", "a PEM file with BEGIN CERTIFICATE".to_owned()),
    }
}

/// Describes a file without a usable key, and the remedy.
fn no_key(bytes: &[u8], path: &Path) -> (&'static str, String) {
    let path = path.display();
    match () {
        () if bytes.is_empty() => ("is empty", "a PEM file of the private key".to_owned()),
        () if is_encrypted(bytes) => (
            "is encrypted, and the gateway cannot ask for its passphrase",
            format!("a key without passphrase, with mode 600: openssl pkey -in {path} -out {path}.plain"),
        ),
        () if holds(bytes, "BEGIN OPENSSH PRIVATE KEY") => {
            ("is in OpenSSH's own format", format!("PKCS #8: ssh-keygen -p -m PKCS8 -f {path}, on a copy"))
        }
        () if holds(bytes, "BEGIN CERTIFICATE") => (
            "holds a certificate and no private key",
            "the key's file here, and the certificate's in `certificate`".to_owned(),
        ),
        () if holds(bytes, "BEGIN PUBLIC KEY") => ("holds a public key", "the private key's file".to_owned()),
        () if is_der(bytes) => {
            ("is DER, not PEM", format!("PEM: openssl pkey -inform der -in {path} -out {path}.pem"))
        }
        () => ("holds no private key in PEM", "a PEM file of the private key".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_without_the_host_is_reported_with_its_names() {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = ["a.example.com", "*.b.example.com", "127.0.0.1"].map(str::to_owned);
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        for name in ["a.example.com", "A.EXAMPLE.COM", "x.b.example.com", "127.0.0.1"] {
            assert_eq!(names_other(certificate.der(), name), None, "{name}");
        }
        for name in ["example.com", "b.example.com", "y.x.b.example.com", "127.0.0.2"] {
            let reported = names_other(certificate.der(), name).unwrap_or_else(|| panic!("{name}"));
            assert!(reported.iter().any(|name| name == "a.example.com"), "{name}: {reported:?}");
        }
    }
}
