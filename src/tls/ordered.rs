//! The certificate that the gateway orders from an ACME server.

use super::pair::{self, names_other};
use super::{Facts, Files, Invalid};
use crate::clock::Now;
use crate::pem;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::path::Path;

/// The folder of the certificate, in the state folder.
pub(crate) const ORDERED_FOLDER: &str = "acme";
/// The file with the chain and the key.
pub(crate) const ORDERED_FILE: &str = "certificate.pem";

/// Returns the pair in a state folder. Both are in one file.
pub(crate) fn ordered(state: &Path) -> Files {
    let file = state.join(ORDERED_FOLDER).join(ORDERED_FILE);
    Files { certificate: file.clone(), key: file, ocsp: None }
}

/// Returns whether a file contains a chain and its key.
pub(crate) fn is_usable(file: &Path) -> bool {
    pair::read(&Files { certificate: file.to_owned(), key: file.to_owned(), ocsp: None }).is_ok()
}

/// Checks a chain and its key before they replace the certificate in use. Returns the begin of the validity, in seconds
/// since 1970.
///
/// # Errors
/// Returns a sentence if clients of these hosts would reject the certificate, whatever authorities they trust.
pub(crate) fn check_issued(pem: &str, hosts: &[Box<str>]) -> Result<u64, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let chain = chain.map_err(|error| format!("the issued chain is not PEM: {}", pem::fault(&error)))?;
    let own = chain.first().ok_or("the issued chain is empty")?.clone();
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| pem::fault(&error))?;
    let key = rustls::crypto::aws_lc_rs::default_provider().key_provider.load_private_key(key);
    let key = key.map_err(|error| error.to_string())?;
    CertifiedKey::new(chain, key)
        .keys_match()
        .map_err(|_| "the issued certificate is for another key than the request")?;
    if let Some(host) = hosts.iter().find(|host| names_other(&own, host).is_some()) {
        return Err(format!("the issued certificate is not for {host}"));
    }
    let facts = Facts::of(&own).ok_or("the issued certificate cannot be read")?;
    match facts.validity.fault(Now::read().unix) {
        Some(invalid @ Invalid::Expired(_)) => {
            Err(format!("the issued certificate {invalid}; check this machine's clock"))
        }
        Some(Invalid::NotYet(_)) | None => Ok(facts.validity.begins),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(names: &[&str], year: i32, key: &rcgen::KeyPair) -> String {
        let mut parameters =
            rcgen::CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
        parameters.self_signed(key).unwrap().pem()
    }

    #[test]
    fn an_issued_certificate_must_be_for_the_key_and_for_all_hosts() {
        let (key, other) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
        let check = |chain: &str, key: &rcgen::KeyPair, hosts: &[&str]| {
            let hosts: Vec<Box<str>> = hosts.iter().map(|host| Box::from(*host)).collect();
            check_issued(&format!("{chain}\n{}", key.serialize_pem()), &hosts)
        };
        let chain = pem(&["a.test", "b.test"], 2046, &key);
        assert!(check(&chain, &key, &["a.test", "b.test"]).is_ok());
        let refused = |result: Result<u64, String>, why: &str| {
            assert!(result.as_ref().is_err_and(|found| found.contains(why)), "{result:?}");
        };
        refused(check(&chain, &key, &["a.test", "c.test"]), "not for c.test");
        refused(check(&chain, &other, &["a.test"]), "another key");
        refused(check("", &key, &["a.test"]), "empty");
        refused(check(&pem(&["a.test"], 2020, &key), &key, &["a.test"]), "expired");
    }

    #[test]
    fn one_file_holds_the_chain_and_the_key() {
        let folder = std::env::temp_dir().join(format!("portcullis-ordered-{}", std::process::id()));
        let file = ordered(&folder).certificate;
        assert!(!is_usable(&file), "it is missing");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let chain = pem(&["a.test"], 2046, &key);
        for (content, usable) in [
            (format!("{chain}\n{}", key.serialize_pem()), true),
            (chain.clone(), false),
            (format!("{chain}\n{}", rcgen::KeyPair::generate().unwrap().serialize_pem()), false),
            (String::new(), false),
        ] {
            std::fs::write(&file, &content).unwrap();
            assert_eq!(is_usable(&file), usable, "{content}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
