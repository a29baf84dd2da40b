//! Provides TLS 1.2 and 1.3 for connections from clients.

mod pair;

pub(crate) use pair::{Invalid, Part, Unusable, Validity, names_other};

use crate::clock::Now;
use crate::state_dir::place_once;
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio_rustls::TlsAcceptor;

/// The oldest TLS version that the gateway accepts from clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinVersion {
    /// TLS 1.2 (RFC 5246), only with AEAD cipher suites and ephemeral keys.
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

/// The paths of a certificate chain and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate chain in PEM. The server's certificate is first.
    pub(crate) certificate: PathBuf,
    /// The private key in PEM: PKCS#8, PKCS#1 or SEC1.
    pub(crate) key: PathBuf,
}

/// The certificate for clients. It can be replaced while the gateway serves. Clones are cheap and share one
/// certificate.
///
/// A client that resumes a session receives no certificate. It relies on the certificate of its full handshake.
#[derive(Clone, Debug)]
pub(crate) struct Certificates(Arc<Served>);

#[derive(Debug)]
struct Served {
    certified: ArcSwap<CertifiedKey>,
    files: Mutex<Files>,
}

impl Certificates {
    /// Reads a certificate and its key.
    ///
    /// # Errors
    /// Returns the faulty file and the remedy.
    pub(crate) fn open(files: Files) -> Result<Self, Unusable> {
        let certified = ArcSwap::from_pointee(pair::read(&files)?);
        Ok(Self(Arc::new(Served { certified, files: Mutex::new(files) })))
    }

    /// Creates an acceptor with the certificate.
    ///
    /// # Errors
    /// Returns an error if the system's random number generator fails.
    pub(crate) fn acceptor(&self, min_version: MinVersion) -> Result<TlsAcceptor, String> {
        let versions: &[_] = match min_version {
            MinVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            MinVersion::Tls13 => &[&rustls::version::TLS13],
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .map_err(|error| error.to_string())?
            .with_no_client_auth()
            .with_cert_resolver(self.0.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec(), b"http/1.0".to_vec()];
        // Sessions are resumed by tickets instead of a session store. Resumption then works on every core without a
        // shared lock.
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(|error| error.to_string())?;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Returns the files of the certificate.
    pub(crate) fn files(&self) -> Files {
        self.0.files.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the certificate from `files` and uses these files from now on. Returns whether the certificate changed.
    ///
    /// # Errors
    /// Returns the errors of [`Certificates::open`]. Also returns an error if the new certificate is not valid now but
    /// the current one is, because clients would reject the new certificate. After an error, nothing has changed.
    pub(crate) fn follow(&self, files: Files) -> Result<bool, String> {
        let new = pair::read(&files).map_err(|why| why.to_string())?;
        let now = Now::read().unix;
        let invalid = new.cert.first().and_then(Validity::of).and_then(|validity| validity.fault(now));
        if let Some(invalid) = invalid.filter(|_| self.holds(now)) {
            return Err(format!(
                "{}: {invalid}, and the certificate in use is valid",
                files.certificate.display()
            ));
        }
        *self.0.files.lock().unwrap_or_else(PoisonError::into_inner) = files;
        let changed = self.0.certified.load().cert != new.cert;
        // The pair is replaced even if the certificate is the same, because the key file may have changed.
        self.0.certified.store(Arc::new(new));
        Ok(changed)
    }

    /// Returns the last second at which the certificate is valid, in seconds since 1970. Returns `None` if the
    /// certificate cannot be parsed.
    pub(crate) fn ends(&self) -> Option<u64> {
        self.validity().map(|validity| validity.ends)
    }

    /// Returns the validity of the certificate, or `None` if the certificate cannot be parsed.
    pub(crate) fn validity(&self) -> Option<Validity> {
        self.0.certified.load().cert.first().and_then(Validity::of)
    }

    /// Returns whether the certificate is valid at `now` (seconds since 1970).
    pub(crate) fn holds(&self, now: u64) -> bool {
        self.validity().is_some_and(|validity| validity.fault(now).is_none())
    }

    /// Returns the server's certificate, the first of the chain.
    pub(crate) fn own(&self) -> Option<CertificateDer<'static>> {
        self.0.certified.load().cert.first().cloned()
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.certified.load_full())
    }
}

/// Returns the files of the self-signed pair in the state folder. Creates the pair if it is missing.
///
/// # Errors
/// Returns a sentence for the operator.
pub(crate) fn self_signed(state: &Path) -> Result<Files, String> {
    let files = Files { certificate: state.join("certificate.pem"), key: state.join("certificate-key.pem") };
    if !files.key.exists() {
        if files.certificate.exists() {
            return Err(format!(
                "{} exists without {}: restore the missing file, or remove this one to create a new pair",
                files.certificate.display(),
                files.key.display()
            ));
        }
        let key = rcgen::KeyPair::generate().map_err(text)?;
        place_once(state, &files.key, key.serialize_pem().as_bytes())?;
    }
    if files.certificate.exists() {
        return Ok(files);
    }
    // The key is read back, because another starting process may have created it.
    let key = fs::read_to_string(&files.key).map_err(|error| format!("{}: {error}", files.key.display()))?;
    let key = rcgen::KeyPair::from_pem(&key).map_err(text)?;
    let mut parameters =
        rcgen::CertificateParams::new(["localhost", "127.0.0.1", "::1"].map(String::from)).map_err(text)?;
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "Portcullis, self-signed");
    // Clients never trust this certificate, so a short validity would not improve security. It would only break
    // development machines one day.
    parameters.not_before = rcgen::date_time_ymd(2026, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(2046, 1, 1);
    let certificate = parameters.self_signed(&key).map_err(text)?;
    place_once(state, &files.certificate, certificate.pem().as_bytes())?;
    Ok(files)
}

fn text(error: rcgen::Error) -> String {
    format!("cannot create a self-signed certificate: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates a pair in `folder` that expires at the start of `year`.
    fn pair(folder: &Path, name: &str, year: i32) -> Files {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec![format!("{name}.test")]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
        let certificate = parameters.self_signed(&key).unwrap();
        fs::create_dir_all(folder).unwrap();
        let files = Files {
            certificate: folder.join(format!("{name}.pem")),
            key: folder.join(format!("{name}-key.pem")),
        };
        fs::write(&files.certificate, certificate.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    #[test]
    fn what_does_not_go_together_leaves_the_certificate_that_was_shown() {
        let folder = std::env::temp_dir().join(format!("portcullis-certificates-{}", std::process::id()));
        let (old, new) = (pair(&folder, "old", 2046), pair(&folder, "new", 2060));
        let certificates = Certificates::open(old.clone()).unwrap();
        assert_eq!(certificates.ends(), Some(2_398_377_600), "a UTCTime");
        for (certificate, key, says) in [
            (&old.certificate, &new.key, "is not the key of the certificate in"),
            (&new.key, &new.key, "holds a private key and no certificate"),
            (&new.certificate, &new.certificate, "holds a certificate and no private key"),
            (&folder.join("absent"), &new.key, "No such file"),
            (&folder, &new.key, "not a file"),
        ] {
            let files = Files { certificate: certificate.clone(), key: key.clone() };
            let why = certificates.follow(files).expect_err(says);
            assert!(why.contains(says), "{why}");
            assert_eq!((certificates.ends(), certificates.files()), (Some(2_398_377_600), old.clone()));
        }
        assert_eq!(certificates.follow(old), Ok(false), "it is the same");
        assert_eq!(certificates.follow(new.clone()), Ok(true));
        assert_eq!(
            (certificates.ends(), certificates.files()),
            (Some(2_840_140_800), new),
            "a GeneralizedTime"
        );
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_certificate_that_does_not_hold_never_replaces_one_that_does() {
        let folder = std::env::temp_dir().join(format!("portcullis-expired-{}", std::process::id()));
        let (valid, expired) = (pair(&folder, "valid", 2046), pair(&folder, "expired", 2020));
        let certificates = Certificates::open(valid.clone()).unwrap();
        let why = certificates.follow(expired.clone()).unwrap_err();
        assert!(why.contains("expired.pem: expired on 2020-01-01T00:00:00Z"), "{why}");
        assert_eq!(certificates.files(), valid);
        // An expired certificate may be replaced by any certificate, even by an expired one.
        let certificates = Certificates::open(expired).unwrap();
        let other = pair(&folder, "other", 2021);
        assert_eq!(certificates.follow(other), Ok(true));
        assert_eq!(certificates.follow(valid), Ok(true));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn processes_that_start_together_agree_on_one_pair() {
        let state = std::env::temp_dir().join(format!("portcullis-pair-{}", std::process::id()));
        for _ in 0..20 {
            let _ = fs::remove_dir_all(&state);
            let together = std::sync::Barrier::new(8);
            std::thread::scope(|scope| {
                let make = || {
                    together.wait();
                    self_signed(&state).unwrap()
                };
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
                threads.into_iter().for_each(|thread| drop(thread.join().unwrap()));
            });
            // All later starts can use the remaining pair.
            let pair = Certificates::open(self_signed(&state).unwrap()).unwrap();
            assert_eq!(pair.ends(), Some(2_398_377_600), "1 January 2046");
            pair.acceptor(MinVersion::Tls12).map(|_| ()).unwrap();
        }
        assert_eq!(fs::read_dir(&state).unwrap().count(), 2, "nothing half made is left");
        fs::remove_file(state.join("certificate-key.pem")).unwrap();
        assert!(self_signed(&state).unwrap_err().contains("exists without"));
        fs::remove_dir_all(state).unwrap();
    }
}
