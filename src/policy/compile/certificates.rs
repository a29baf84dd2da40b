//! Compiles the certificates of `[tls]`, and checks whether clients will accept them.

use super::{Faults, client_certificates, private};
use crate::clock::Now;
use crate::config::file::{CertificateSection, File, TlsSection};
use crate::route::HostPattern;
use crate::tls::{
    Depth, Files, HostMap, Invalid, NamedFiles, Part, Shown, TlsSettings, names_other, ordered,
};
use rustls::pki_types::CertificateDer;
use std::collections::BTreeMap;

/// The maximum number of names that a warning lists.
const NAMES_TOLD: usize = 3;

/// A certificate that could be read, and the key of its table.
struct Readable {
    key: String,
    own: CertificateDer<'static>,
}

/// Returns the certificates of the policy. If it names none, the gateway generates a self-signed one.
pub(super) fn compile(file: &File, faults: &mut Faults<'_>) -> TlsSettings {
    let TlsSection { certificate, key, ocsp, certificates, acme, .. } = file.tls.clone().unwrap_or_default();
    let mut settings = TlsSettings { is_ordered: acme.is_some(), ..TlsSettings::default() };
    let mut by_host: HostMap<Readable> = HostMap::new(Depth::One);
    let is_served = !file.server.https.addresses().is_empty();
    if certificate.is_empty() && key.is_empty() && certificates.is_empty() && is_served {
        // The gateway generates this key at the first start.
        private::check_mode("state.dir", &faults.state_dir().join("certificate-key.pem"), faults);
    }
    if acme.is_some() {
        let ordered = ordered(&faults.state_dir());
        private::check_mode("state.dir", &ordered.key, faults);
        if !certificate.is_empty() || !key.is_empty() {
            faults.fault(
                "certificate_and_acme",
                "tls.acme",
                "[tls] has a certificate, too",
                "remove certificate and key, or acme; [[tls.certificates]] may have certificates of further hosts",
            );
        }
    }
    if let Some(files) = pair("tls", (&certificate, &key, ocsp.as_deref()), faults) {
        if let Some(shown) = open("tls", &files, None, is_served, faults) {
            by_host.insert_any(Readable { key: "tls".to_owned(), own: shown.own().clone() });
        }
        settings.default = Some(files);
    } else if ocsp.is_some() && certificate.is_empty() && key.is_empty() {
        let hint = "add [tls] certificate and key, or name the response in [[tls.certificates]]";
        faults.fault("half_a_pair", "tls.ocsp", "the certificate is missing", hint);
    }
    for (index, table) in certificates.iter().enumerate() {
        let key = format!("tls.certificates[{index}]");
        if let Some(named) = named(&key, table, is_served, &mut by_host, faults) {
            settings.named.push(named);
        }
    }
    if is_served && !settings.is_self_signed() && faults.fault_count == 0 {
        let ordered = acme.map(|acme| acme.domains).unwrap_or_default();
        names(&by_host, &ordered, file, faults);
    }
    settings.clients = client_certificates::rules(file, faults);
    settings
}

/// Compiles a `[[tls.certificates]]`.
fn named(
    key: &str,
    table: &CertificateSection,
    is_served: bool,
    by_host: &mut HostMap<Readable>,
    faults: &mut Faults<'_>,
) -> Option<NamedFiles> {
    let CertificateSection { certificate, key: private_key, ocsp, hosts } = table;
    if certificate.is_empty() && private_key.is_empty() {
        faults.fault("missing_key", key, "no certificate", "add certificate and key");
        return None;
    }
    let files = pair(key, (certificate, private_key, ocsp.as_deref()), faults)?;
    let hosts = client_certificates::hosts(key, hosts, faults);
    let named = NamedFiles { files, hosts: hosts.iter().map(|(_, host)| host.clone()).collect() };
    let shown = open(key, &named.files, Some(&named), is_served, faults)?;
    for (index, host) in &hosts {
        if let Some(presented) = names_other(shown.own(), &host.replacen('*', "any", 1)) {
            let is_for = quoted(&presented);
            faults.fault(
                "certificate_host",
                &format!("{key}.hosts[{index}]"),
                format!("\"{host}\", but the certificate is valid for {is_for}"),
                "use a certificate for this host, or leave hosts out to show it for the names that it has",
            );
        }
    }
    let hosts = named.hosts_of(shown.own());
    if hosts.is_empty() {
        let hint = "use a certificate with alternative names, or make it the default: [tls] certificate";
        faults.fault(
            "certificate_host",
            &format!("{key}.certificate"),
            "the certificate names no host",
            hint,
        );
    }
    for host in hosts {
        let readable = Readable { key: key.to_owned(), own: shown.own().clone() };
        if let Some(other) = by_host.insert(&host, readable) {
            let found = format!("\"{host}\" has another certificate in {}", other.key);
            let hint = "list the hosts of each certificate in `hosts`, each host once";
            faults.fault("same_host", &format!("{key}.certificate"), found, hint);
        }
    }
    Some(named)
}

/// Returns the files of a pair. `key` is the key of its table.
fn pair(
    key: &str,
    (certificate, private_key, ocsp): (&str, &str, Option<&str>),
    faults: &mut Faults<'_>,
) -> Option<Files> {
    match (certificate, private_key) {
        ("", "") => None,
        ("", _) => {
            let at = format!("{key}.key");
            faults.fault(
                "half_a_pair",
                &at,
                "the certificate is missing",
                "add certificate to the same table",
            );
            None
        }
        (_, "") => {
            let at = format!("{key}.certificate");
            faults.fault("half_a_pair", &at, "the key is missing", "add key to the same table");
            None
        }
        // `control::certificates` watches these files, and those of clients' certificates.
        (certificate, private_key) => Some(Files {
            certificate: faults.unwatched_path(certificate),
            key: faults.unwatched_path(private_key),
            ocsp: ocsp.map(|path| faults.unwatched_path(path)),
        }),
    }
}

/// Reads a pair, and reports problems for which clients would reject it.
fn open(
    key: &str,
    files: &Files,
    entry: Option<&NamedFiles>,
    is_served: bool,
    faults: &mut Faults<'_>,
) -> Option<Shown> {
    private::check_mode(&format!("{key}.key"), &files.key, faults);
    match Shown::open(files, entry) {
        Ok(shown) => {
            if is_served {
                validity(key, &shown, Now::read().unix, faults);
            }
            Some(shown)
        }
        Err(why) => {
            let part = match why.part {
                Part::Certificate => "certificate",
                Part::Key => "key",
                Part::Ocsp => "ocsp",
            };
            faults.fault("bad_certificate", &format!("{key}.{part}"), why.found, why.hint);
            None
        }
    }
}

fn validity(key: &str, shown: &Shown, now: u64, faults: &mut Faults<'_>) {
    let at = format!("{key}.certificate");
    match shown.validity.and_then(|validity| validity.fault(now)) {
        Some(invalid @ Invalid::Expired(_)) => faults.warn(
            "certificate_expired",
            &at,
            format!("{invalid}: clients reject it"),
            "renew the certificate; a running gateway loads it within a second",
        ),
        Some(invalid @ Invalid::NotYet(_)) => faults.warn(
            "certificate_not_yet_valid",
            &at,
            format!("{invalid}: clients reject it"),
            "check this machine's clock, or use a certificate that is valid now",
        ),
        None => {}
    }
}

/// Reports hosts that the certificate does not cover.
fn names(by_host: &HostMap<Readable>, ordered: &[String], file: &File, faults: &mut Faults<'_>) {
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
    // The hosts that lack a certificate, and the names of the certificate that clients would get, by its key.
    let mut lacking: BTreeMap<&str, (Vec<String>, Vec<String>)> = BTreeMap::new();
    for (name, shown) in asked {
        if ordered.iter().any(|domain| domain.eq_ignore_ascii_case(&name)) {
            continue;
        }
        match by_host.get(Some(&name)) {
            Some(readable) => {
                if let Some(presented) = names_other(&readable.own, &name) {
                    let (names, hosts) = lacking.entry(&readable.key).or_default();
                    *names = presented;
                    hosts.push(shown);
                }
            }
            None => lacking.entry("").or_default().1.push(shown),
        }
    }
    for (key, (presented, hosts)) in lacking {
        let hint = "use a certificate that is valid for every name that clients use";
        let hosts = quoted(&hosts);
        if key.is_empty() {
            let (at, found) = if ordered.is_empty() {
                ("tls.certificates", format!("no certificate is for {hosts}: no client can connect there"))
            } else {
                ("tls.acme.domains", format!("no certificate is for {hosts}: clients reject it there"))
            };
            faults.warn("certificate_name", at, found, hint);
            continue;
        }
        let is_for = quoted(&presented);
        let found = format!("valid for {is_for}, but not for {hosts}: clients reject it there");
        faults.warn("certificate_name", &format!("{key}.certificate"), found, hint);
    }
}

fn quoted(names: &[String]) -> String {
    if names.is_empty() {
        return "no name".to_owned();
    }
    let more = names.len().saturating_sub(NAMES_TOLD);
    let first = names.iter().take(NAMES_TOLD).map(String::as_str).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{first} and {more} more") } else { first }
}
