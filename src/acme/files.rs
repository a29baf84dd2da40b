//! The files of the orders, in the folder `acme` of the state folder. Only the gateway's user can read them.

use super::challenges::Answer;
use super::{Acme, Attempts, Failure, Settings};
use crate::config::stable_file;
use crate::config::units::ByteSize;
use crate::hex;
use crate::state_dir::{self, Lock, LockFault};
use crate::tls::{Facts, Validity};
use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

/// The maximum size of a file.
const FILE_MAX: ByteSize = ByteSize::bytes(1 << 20);

/// The paths of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    folder: PathBuf,
}

/// The facts about the certificate in the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// The validity.
    pub(crate) validity: Validity,
    /// The domains of the certificate.
    domains: Vec<Box<str>>,
    /// The identifiers of the authority's key and of the certificate (RFC 9773 section 4.1).
    pub(crate) id: Option<(Vec<u8>, Vec<u8>)>,
    /// The URL of the directory that issued the certificate.
    directory: Option<String>,
}

impl Kept {
    /// Returns whether the certificate is from the directory and for all domains of the settings.
    pub(crate) fn serves(&self, settings: &Settings) -> bool {
        self.directory.as_deref() == Some(&*settings.directory.to_string())
            && settings.domains.iter().all(|domain| self.domains.iter().any(|known| known == domain))
    }
}

/// The order of the certificate in the folder.
#[derive(Serialize, Deserialize)]
struct Origin {
    directory: String,
}

impl Files {
    /// Returns the files of a state folder.
    pub(crate) fn of(state: &Path) -> Self {
        Self { folder: state.join(crate::tls::ORDERED_FOLDER) }
    }

    /// The certificate chain and its key. They are one file, so that they are replaced together.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.join(crate::tls::ORDERED_FILE)
    }

    /// The answers to the challenges of the current order.
    pub(crate) fn challenges(&self) -> PathBuf {
        self.folder.join("challenges.json")
    }

    fn origin(&self) -> PathBuf {
        self.folder.join("origin.json")
    }

    /// The account at a directory.
    pub(super) fn account(&self, settings: &Settings) -> PathBuf {
        self.folder.join(format!("account-{}.json", short_digest(settings)))
    }

    fn attempts(&self, settings: &Settings) -> PathBuf {
        self.folder.join(format!("attempts-{}.json", short_digest(settings)))
    }

    /// Takes the right to order. Returns `None` if another gateway has it.
    ///
    /// # Errors
    /// Returns a failure if the folder cannot be used.
    pub(crate) fn lock(&self) -> Result<Option<Lock>, Failure> {
        match state_dir::lock(&self.folder.join("lock"), Duration::ZERO) {
            Ok(lock) => Ok(Some(lock)),
            Err(LockFault::Held) => Ok(None),
            Err(LockFault::Io(error)) => {
                Err(Failure::of("file", format!("{}: {error}", self.folder.join("lock").display())))
            }
        }
    }

    /// Reads the facts of the certificate. Returns `None` if no usable certificate is kept.
    pub(crate) fn kept(&self) -> Option<Kept> {
        let path = self.certificate();
        crate::tls::is_usable(&path).then_some(())?;
        let pem = Zeroizing::new(stable_file::read(&path, FILE_MAX).ok()?);
        let own = CertificateDer::from_pem_slice(&pem).ok()?;
        let facts = Facts::of(&own)?;
        let origin = self.read::<Origin>(&self.origin());
        let mut domains = facts.names.dns;
        domains.iter_mut().for_each(|domain| domain.make_ascii_lowercase());
        let id = facts.authority_key.map(|authority| (authority, facts.serial));
        Some(Kept { validity: facts.validity, domains, id, directory: origin.map(|origin| origin.directory) })
    }

    /// Replaces the certificate. `pem` contains the chain and the key.
    ///
    /// # Errors
    /// Returns a failure if a file cannot be written.
    pub(super) fn keep(&self, settings: &Settings, pem: &str) -> Result<(), Failure> {
        // If the process ends between the two files, the certificate is ordered again.
        state_dir::replace(&self.certificate(), pem.as_bytes()).map_err(|why| Failure::of("file", why))?;
        self.write(&self.origin(), &Origin { directory: settings.directory.to_string() })
    }

    /// Reads the recent attempts at the directory.
    pub(crate) fn read_attempts(&self, settings: &Settings) -> Attempts {
        self.read(&self.attempts(settings)).unwrap_or_default()
    }

    /// Writes the recent attempts.
    ///
    /// # Errors
    /// Returns a failure if the file cannot be written.
    pub(crate) fn write_attempts(&self, settings: &Settings, attempts: &Attempts) -> Result<(), Failure> {
        self.write(&self.attempts(settings), attempts)
    }

    /// Shares the answers with the other gateways of the folder.
    pub(super) fn share(&self, answers: &[Answer]) -> Result<(), Failure> {
        self.write(&self.challenges(), &answers)
    }

    /// Removes the answers that a process left behind. Keeps them if a gateway orders now.
    pub(crate) fn clear_stale(&self) {
        if self.challenges().exists()
            && let Ok(Some(_lock)) = self.lock()
        {
            let _ = self.share(&[]);
        }
    }

    /// Answers the challenges that another gateway shares.
    pub(crate) fn follow_challenges(&self, settings: &Settings, acme: &Acme) {
        let answers = self.read::<Vec<Answer>>(&self.challenges()).unwrap_or_default();
        let answers = &answers[..answers.len().min(super::DOMAINS_MAX)];
        if acme.challenges.publish(settings.challenge, answers).is_err() {
            acme.challenges.clear();
        }
    }

    pub(super) fn read<T: DeserializeOwned>(&self, path: &Path) -> Option<T> {
        serde_json::from_slice(&Zeroizing::new(stable_file::read(path, FILE_MAX).ok()?)).ok()
    }

    pub(super) fn write<T: Serialize>(&self, path: &Path, value: &T) -> Result<(), Failure> {
        let json = Zeroizing::new(
            serde_json::to_vec(value).map_err(|error| Failure::of("file", error.to_string()))?,
        );
        state_dir::replace(path, &json).map_err(|why| Failure::of("file", why))
    }
}

/// Returns the part of file names that stands for a directory.
fn short_digest(settings: &Settings) -> String {
    hex::text(&digest(&SHA256, settings.directory.to_string().as_bytes()).as_ref()[..8])
}
