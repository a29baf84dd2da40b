//! The certificate authorities that the gateway trusts in servers, from a PEM file or the system.

use super::Faults;
use crate::authenticate::digest_of;
use crate::config::stable_file;
use crate::config::units::ByteSize;
use crate::pem;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The maximum size of a PEM file. A browser's list of authorities is much smaller.
const CA_FILE_MAX: ByteSize = ByteSize::bytes(4 << 20);

/// The authorities of each PEM file and of the system. Each file is read once. `None` if its fault has already been
/// reported.
#[derive(Default)]
pub(super) struct Authorities<'f>(BTreeMap<Option<&'f str>, Option<Known>>);

/// A list of authorities and its digest. Equal digests mean equal lists.
type Known = (Arc<RootCertStore>, [u8; 32]);

impl<'f> Authorities<'f> {
    /// Returns the authorities of the file `ca`, or the authorities of the system, with their digest. `key` is the key
    /// of the table. `servers` is the key of the servers that use the authorities.
    pub(super) fn of(
        &mut self,
        key: &str,
        servers: &str,
        ca: Option<&'f str>,
        faults: &mut Faults<'_>,
    ) -> Option<Known> {
        self.0.entry(ca).or_insert_with(|| read(key, servers, ca, faults).map(with_digest)).clone()
    }
}

/// Returns the authorities, and a digest of their subjects, keys and name constraints.
fn with_digest(roots: RootCertStore) -> Known {
    let digest = digest_of(roots.roots.iter().fold(Vec::new(), |mut all, root| {
        all.extend_from_slice(root.subject.as_ref());
        all.extend_from_slice(root.subject_public_key_info.as_ref());
        all.extend_from_slice(root.name_constraints.as_deref().unwrap_or_default());
        all
    }));
    (Arc::new(roots), digest)
}

fn read(key: &str, servers: &str, ca: Option<&str>, faults: &mut Faults<'_>) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(ca) => {
            let key = format!("{key}.ca");
            let path = faults.file(ca);
            let hint = "use a PEM file with certificates";
            let read = stable_file::read(&path, CA_FILE_MAX).map_err(|why| why.to_string()).and_then(|pem| {
                let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
                certificates.map_err(|error| pem::fault(&error))
            });
            match read {
                Ok(certificates) => {
                    roots.add_parsable_certificates(certificates);
                }
                Err(why) => {
                    faults.fault("bad_file", &key, format!("{}: {why}", path.display()), hint);
                    return None;
                }
            }
            if roots.is_empty() {
                let found = format!("{}: contains no certificate", path.display());
                faults.fault("bad_file", &key, found, hint);
                return None;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                faults.fault(
                    "no_authorities",
                    &format!("{key}.{servers}"),
                    "https, but the system has no certificate authorities",
                    "install the system's CA certificates, or set ca to a PEM file",
                );
                return None;
            }
        }
    }
    Some(roots)
}
