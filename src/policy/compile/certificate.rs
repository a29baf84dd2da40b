//! Checks whether clients will accept the certificate in `[tls]`.

use super::{Faults, private};
use crate::clock::Now;
use crate::config::file::{File, TlsSection};
use crate::route::HostPattern;
use crate::tls::{Certificates, Files, Invalid, Part, Validity, names_other};
use rustls::pki_types::CertificateDer;
use std::collections::BTreeMap;

/// The maximum number of names that a warning lists.
const NAMES_TOLD: usize = 3;

/// Returns the files of the certificate. `None` if the gateway generates a self-signed certificate.
pub(super) fn compile(file: &File, faults: &mut Faults<'_>) -> Option<Files> {
    let TlsSection { certificate, key, .. } = file.tls.clone().unwrap_or_default();
    let files = match (certificate.as_str(), key.as_str()) {
        ("", "") => {
            // The gateway generates this key at the first start.
            let made = faults.unwatched_path(&file.state.dir).join("certificate-key.pem");
            if !file.server.https.addresses().is_empty() {
                private::check_mode("state.dir", &made, faults);
            }
            return None;
        }
        ("", _) => {
            faults.fault("half_a_pair", "tls.key", "the certificate is missing", "add [tls] certificate");
            return None;
        }
        (_, "") => {
            faults.fault("half_a_pair", "tls.certificate", "the key is missing", "add [tls] key");
            return None;
        }
        // `control::certificates` watches this pair.
        (certificate, key) => {
            Files { certificate: faults.unwatched_path(certificate), key: faults.unwatched_path(key) }
        }
    };
    match Certificates::open(files.clone()) {
        Ok(certificates) => {
            if let Some(own) = certificates.own().filter(|_| !file.server.https.addresses().is_empty()) {
                validity(&own, Now::read().unix, faults);
                names(&own, file, faults);
            }
        }
        Err(why) => {
            let key = match why.part {
                Part::Certificate => "tls.certificate",
                Part::Key => "tls.key",
            };
            faults.fault("bad_certificate", key, why.found, why.hint);
        }
    }
    private::check_mode("tls.key", &files.key, faults);
    Some(files)
}

fn validity(own: &CertificateDer<'_>, now: u64, faults: &mut Faults<'_>) {
    let Some(invalid) = Validity::of(own).and_then(|validity| validity.fault(now)) else { return };
    let found = format!("{invalid}: clients reject it");
    match invalid {
        Invalid::Expired(_) => {
            faults.warn(
                "certificate_expired",
                "tls.certificate",
                found,
                "renew the certificate; a running gateway loads it within a second",
            );
        }
        Invalid::NotYet(_) => {
            faults.warn(
                "certificate_not_yet_valid",
                "tls.certificate",
                found,
                "check this machine's clock, or use a certificate that is valid now",
            );
        }
    }
}

/// Reports hosts that the certificate does not cover.
fn names(own: &CertificateDer<'_>, file: &File, faults: &mut Faults<'_>) {
    let mut asked: BTreeMap<String, String> = BTreeMap::new();
    for (index, route) in file.route.iter().enumerate() {
        let name = match HostPattern::parse(&route.host) {
            Ok(HostPattern::Exact(name)) => name.to_string(),
            // A certificate covers all names of one level or none, so one name is checked.
            Ok(HostPattern::Below(name)) => format!("any.{name}"),
            Ok(HostPattern::Any) | Err(_) => continue,
        };
        asked.entry(name).or_insert_with(|| format!("\"{}\" of route[{index}].host", route.host));
    }
    let issuer = file.authority.as_ref().and_then(|authority| authority.issuer.parse::<http::Uri>().ok());
    if let Some(host) =
        issuer.as_ref().filter(|uri| uri.scheme_str() == Some("https")).and_then(http::Uri::host)
    {
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let shown = format!("\"{name}\" of authority.issuer");
        asked.insert(name, shown);
    }
    let mut presented = Vec::new();
    let mut lacking = Vec::new();
    for (name, shown) in asked {
        if let Some(names) = names_other(own, &name) {
            presented = names;
            lacking.push(shown);
        }
    }
    if lacking.is_empty() {
        return;
    }
    let quoted = |names: &[String]| {
        let more = names.len().saturating_sub(NAMES_TOLD);
        let first = names.iter().take(NAMES_TOLD).map(String::as_str).collect::<Vec<_>>().join(", ");
        if more > 0 { format!("{first} and {more} more") } else { first }
    };
    let is_for = if presented.is_empty() { "no name".to_owned() } else { quoted(&presented) };
    faults.warn(
        "certificate_name",
        "tls.certificate",
        format!("valid for {is_for}, but not for {}: clients reject it there", quoted(&lacking)),
        "use a certificate that is valid for every name that clients use",
    );
}
