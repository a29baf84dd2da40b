//! Provides TLS 1.2 and 1.3 for connections from clients, and describes the faults of servers' certificates.

mod certificates;
mod clients;
mod facts;
mod host_map;
mod ordered;
mod pair;
mod server_fault;
mod session;
mod shown;

pub(crate) use certificates::{Certificates, Followed};
pub(crate) use clients::{CertificateFault, ClientCertificate, ClientRule, Verifier};
pub use facts::{Facts, Names, OcspAnswer, next_update};
pub(crate) use facts::{Invalid, Validity};
pub(crate) use host_map::{Depth, HostMap};
pub(crate) use ordered::{ORDERED_FILE, ORDERED_FOLDER, check_issued, is_usable, ordered};
pub(crate) use pair::{Part, names_other, read as read_pair};
pub(crate) use server_fault::{describe_handshake, server_certificate_fault};
pub(crate) use session::{Misdirected, TlsSession};
pub(crate) use shown::Shown;

use crate::state_dir::place_once;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
pub(crate) struct Files {
    /// The certificate chain in PEM. The server's certificate is first.
    pub(crate) certificate: PathBuf,
    /// The private key in PEM: PKCS#8, PKCS#1 or SEC1.
    pub(crate) key: PathBuf,
    /// The answer of the authority's OCSP responder in DER.
    pub(crate) ocsp: Option<PathBuf>,
}

/// A certificate for some hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedFiles {
    /// The files.
    pub(crate) files: Files,
    /// The hosts, or `*.` and a host. If empty, the hosts are the names in the certificate.
    pub(crate) hosts: Vec<Box<str>>,
}

/// The certificates of the gateway, and those that it asks clients for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// The certificate for clients that ask for no host, or for a host without a certificate of its own. Without it, the
    /// handshakes of these clients fail.
    pub(crate) default: Option<Files>,
    /// The certificates by host.
    pub(crate) named: Vec<NamedFiles>,
    /// Whether the gateway orders the default certificate from an ACME server.
    pub(crate) is_ordered: bool,
    /// The rules for clients' certificates, with the hosts of each rule. Without hosts, a rule applies to all others.
    pub(crate) clients: Vec<(Arc<ClientRule>, Vec<Box<str>>)>,
}

impl TlsSettings {
    /// Returns whether the policy names no certificate, so that the gateway makes one.
    pub fn is_self_signed(&self) -> bool {
        self.default.is_none() && self.named.is_empty() && !self.is_ordered
    }

    /// Returns the settings with the ordered certificate in the state folder if the gateway orders one. Until the first
    /// order succeeds, and if the policy names no certificate, the self-signed pair takes its place.
    ///
    /// # Errors
    /// Returns a sentence for the operator if the pair cannot be created.
    pub(crate) fn complete(mut self, state: &Path) -> Result<Self, String> {
        let ordered = ordered(state);
        if self.is_ordered && is_usable(&ordered.certificate) {
            self.default = Some(ordered);
        } else if self.is_ordered || self.is_self_signed() {
            self.default = Some(self_signed(state)?);
        }
        Ok(self)
    }

    /// Returns the pair of a key of the policy, such as `tls.certificates[0].certificate`, and its entry. The default
    /// certificate has no entry.
    pub(crate) fn pair_of(&self, key: &str) -> Option<(&Files, Option<&NamedFiles>)> {
        match key.strip_prefix("tls.certificates[") {
            Some(rest) => {
                let named = self.named.get(rest.split(']').next()?.parse::<usize>().ok()?)?;
                Some((&named.files, Some(named)))
            }
            None => Some((self.default.as_ref()?, None)),
        }
    }

    /// Returns all files.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let pairs = self.default.iter().chain(self.named.iter().map(|named| &named.files));
        let pairs = pairs.flat_map(|pair| [&pair.certificate, &pair.key].into_iter().chain(&pair.ocsp));
        let clients = self.clients.iter().flat_map(|(rule, _)| std::iter::once(&rule.ca).chain(&rule.crls));
        pairs.chain(clients).cloned().collect()
    }

    /// Returns whether the host of a request must match its connection: the policy has several certificates, or asks
    /// clients for certificates.
    pub(crate) fn is_guarded(&self) -> bool {
        !self.named.is_empty() || !self.clients.is_empty()
    }

    /// Returns the rules for clients' certificates by host.
    pub(crate) fn client_rules(&self) -> HostMap<Arc<ClientRule>> {
        let mut by_host = HostMap::new(Depth::Any);
        for (rule, hosts) in &self.clients {
            if hosts.is_empty() {
                by_host.insert_any(rule.clone());
            }
            for host in hosts {
                by_host.insert(host, rule.clone());
            }
        }
        by_host
    }
}

/// Returns the files of the self-signed pair in the state folder. Creates the pair if it is missing.
///
/// # Errors
/// Returns a sentence for the operator.
fn self_signed(state: &Path) -> Result<Files, String> {
    let files = Files {
        certificate: state.join("certificate.pem"),
        key: state.join("certificate-key.pem"),
        ocsp: None,
    };
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
            let settings = TlsSettings::default().complete(&state).unwrap();
            let pair = Certificates::open(settings, MinVersion::Tls12).unwrap();
            assert_eq!(pair.all()[0].validity.unwrap().ends, 2_398_377_600, "1 January 2046");
        }
        assert_eq!(fs::read_dir(&state).unwrap().count(), 2, "nothing half made is left");
        fs::remove_file(state.join("certificate-key.pem")).unwrap();
        assert!(self_signed(&state).unwrap_err().contains("exists without"));
        fs::remove_dir_all(state).unwrap();
    }
}
