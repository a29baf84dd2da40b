//! TLS 1.2 and 1.3 towards clients.

use crate::state::place_once;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// The oldest version of TLS that a client may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinVersion {
    /// RFC 5246, with AEAD cipher suites and ephemeral keys only.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// Where the certificate chain and its key are.
#[derive(Clone, Debug)]
pub struct Files {
    /// PEM, the server's own certificate first.
    pub certificate: PathBuf,
    /// PEM: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// Makes an acceptor out of a certificate and its key.
///
/// # Errors
/// A sentence for the operator: which file, what is wrong with it.
pub fn acceptor(files: &Files, min_version: MinVersion) -> Result<TlsAcceptor, String> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect)
        .map_err(|error| format!("{}: cannot be read as PEM: {error}", files.certificate.display()))?;
    if certificates.is_empty() {
        return Err(format!("{}: holds no certificate", files.certificate.display()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| format!("{}: cannot be read as a PEM private key: {error}", files.key.display()))?;
    let versions: &[_] = match min_version {
        MinVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        MinVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(|error| {
            format!("{} and {} do not go together: {error}", files.certificate.display(), files.key.display())
        })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Tickets instead of a session store: resumption works on every core without a lock that they share.
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(|error| error.to_string())?;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(TlsAcceptor::from(Arc::new(config)))
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
            acceptor(&self_signed(&state).unwrap(), MinVersion::Tls12).map(|_| ()).unwrap();
        }
        assert_eq!(fs::read_dir(&state).unwrap().count(), 2, "nothing half made is left");
        fs::remove_file(state.join("certificate-key.pem")).unwrap();
        assert!(self_signed(&state).unwrap_err().contains("is there without"));
        fs::remove_dir_all(state).unwrap();
    }
}
