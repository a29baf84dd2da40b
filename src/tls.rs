//! TLS 1.2 and 1.3 towards clients.

use crate::config::source;
use crate::config::units::ByteSize;
use crate::state::place_once;
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio_rustls::TlsAcceptor;
use yasna::Tag;
use yasna::tags::TAG_UTCTIME;
use zeroize::Zeroizing;

/// The oldest version of TLS that a client may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinVersion {
    /// RFC 5246, with AEAD cipher suites and ephemeral keys only.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// Where the certificate chain and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// PEM, the server's own certificate first.
    pub certificate: PathBuf,
    /// PEM: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// The largest file of a chain or a key that is read: a thousand times what is usual.
const FILE_MAX: ByteSize = ByteSize::bytes(4 << 20);

/// The certificate that clients are shown, which may be replaced while it is. Cheap to clone; all clones are one.
///
/// A client that resumes an earlier session is shown none: it goes on by what it was shown then.
#[derive(Clone, Debug)]
pub struct Certificates(Arc<Served>);

#[derive(Debug)]
struct Served {
    shown: ArcSwap<CertifiedKey>,
    files: Mutex<Files>,
}

impl Certificates {
    /// Reads a certificate and its key.
    ///
    /// # Errors
    /// A sentence for the operator: which file, what is wrong with it.
    pub fn open(files: Files) -> Result<Self, String> {
        let shown = ArcSwap::from_pointee(read(&files)?);
        Ok(Self(Arc::new(Served { shown, files: Mutex::new(files) })))
    }

    /// Makes an acceptor that shows it.
    ///
    /// # Errors
    /// When there are no random numbers.
    pub fn acceptor(&self, min_version: MinVersion) -> Result<TlsAcceptor, String> {
        let versions: &[_] = match min_version {
            MinVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            MinVersion::Tls13 => &[&rustls::version::TLS13],
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .map_err(|error| error.to_string())?
            .with_no_client_auth()
            .with_cert_resolver(self.0.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Tickets instead of a session store: resumption works on every core without a lock that they share.
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(|error| error.to_string())?;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Where it is read from.
    pub fn files(&self) -> Files {
        self.0.files.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads it again, from these files from now on. True when it is another one than before.
    ///
    /// # Errors
    /// As [`Certificates::open`]; the one that was shown goes on to be, and the files are those of before.
    pub fn follow(&self, files: Files) -> Result<bool, String> {
        let new = read(&files)?;
        *self.0.files.lock().unwrap_or_else(PoisonError::into_inner) = files;
        let changed = self.0.shown.load().cert != new.cert;
        // In any case: the key may be another one of the same certificate's, or in another form.
        self.0.shown.store(Arc::new(new));
        Ok(changed)
    }

    /// When it ends: the last moment at which it holds, in seconds since 1970; none where that cannot be read.
    pub fn ends(&self) -> Option<u64> {
        self.0.shown.load().cert.first().and_then(|certificate| ends(certificate))
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.shown.load_full())
    }
}

fn read(files: &Files) -> Result<CertifiedKey, String> {
    let bytes =
        |path: &Path| source::read(path, FILE_MAX).map_err(|why| format!("{}: {why}", path.display()));
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&bytes(&files.certificate)?)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("{}: cannot be read as PEM: {error}", files.certificate.display()))?;
    if certificates.is_empty() {
        return Err(format!("{}: holds no certificate", files.certificate.display()));
    }
    let key = PrivateKeyDer::from_pem_slice(&Zeroizing::new(bytes(&files.key)?))
        .map_err(|error| format!("{}: cannot be read as a PEM private key: {error}", files.key.display()))?;
    CertifiedKey::from_der(certificates, key, &aws_lc_rs::default_provider()).map_err(|error| {
        format!("{} and {} do not go together: {error}", files.certificate.display(), files.key.display())
    })
}

/// `notAfter` of a certificate (RFC 5280 section 4.1), in seconds since 1970.
fn ends(certificate: &CertificateDer<'_>) -> Option<u64> {
    let read = yasna::parse_der(certificate, |reader| {
        reader.read_sequence(|reader| {
            let ends = reader.next().read_sequence(|reader| {
                reader.read_optional(|reader| {
                    reader.read_tagged(Tag::context(0), |reader| reader.read_der())
                })?;
                let (_serial, _signature, _issuer) =
                    (reader.next().read_der()?, reader.next().read_der()?, reader.next().read_der()?);
                let ends = reader.next().read_sequence(|reader| {
                    let _begins = reader.next().read_der()?;
                    let reader = reader.next();
                    Ok(if reader.lookahead_tag()? == TAG_UTCTIME {
                        reader.read_utctime()?.datetime().unix_timestamp()
                    } else {
                        reader.read_generalized_time()?.datetime().unix_timestamp()
                    })
                })?;
                while reader.read_optional(|reader| reader.read_der())?.is_some() {}
                Ok(ends)
            })?;
            while reader.read_optional(|reader| reader.read_der())?.is_some() {}
            Ok(ends)
        })
    });
    read.ok().and_then(|ends| u64::try_from(ends).ok())
}

/// The self-signed pair under the state folder, made when it is not there.
///
/// # Errors
/// A sentence for the operator.
pub fn self_signed(state: &Path) -> Result<Files, String> {
    let files = Files { certificate: state.join("certificate.pem"), key: state.join("certificate-key.pem") };
    if !files.key.exists() {
        if files.certificate.exists() {
            return Err(format!(
                "{} is there without {}: restore the other, or remove it so that a new pair is made",
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
    // For the key that is in place, which may be that of a process that started together with this one.
    let key = fs::read_to_string(&files.key).map_err(|error| format!("{}: {error}", files.key.display()))?;
    let key = rcgen::KeyPair::from_pem(&key).map_err(text)?;
    let mut parameters =
        rcgen::CertificateParams::new(["localhost", "127.0.0.1", "::1"].map(String::from)).map_err(text)?;
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "Portcullis, self-signed");
    // Nobody vouches for it at any date; a short life would only break development machines one day.
    parameters.not_before = rcgen::date_time_ymd(2026, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(2046, 1, 1);
    let certificate = parameters.self_signed(&key).map_err(text)?;
    place_once(state, &files.certificate, certificate.pem().as_bytes())?;
    Ok(files)
}

fn text(error: rcgen::Error) -> String {
    format!("cannot make a self-signed certificate: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pair in a folder of its own that ends at the beginning of a year.
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
            (&old.certificate, &new.key, "do not go together"),
            (&new.key, &new.key, "holds no certificate"),
            (&new.certificate, &new.certificate, "cannot be read as a PEM private key"),
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

    proptest::proptest! {
        #[test]
        fn no_bytes_make_reading_the_end_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
            let _ = ends(&CertificateDer::from(bytes));
        }
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
            // What is left behind is a pair that every later start can use.
            let pair = Certificates::open(self_signed(&state).unwrap()).unwrap();
            assert_eq!(pair.ends(), Some(2_398_377_600), "1 January 2046");
            pair.acceptor(MinVersion::Tls12).map(|_| ()).unwrap();
        }
        assert_eq!(fs::read_dir(&state).unwrap().count(), 2, "nothing half made is left");
        fs::remove_file(state.join("certificate-key.pem")).unwrap();
        assert!(self_signed(&state).unwrap_err().contains("is there without"));
        fs::remove_dir_all(state).unwrap();
    }
}
