//! Compiles `[client_certificates.NAME]`: which clients must have a certificate, and who signs it.

use super::Faults;
use crate::authenticate::{CertificateCallers, SubjectName};
use crate::config::file::{CertificateSubject, ClientCertificateMode, File};
use crate::route::HostPattern;
use crate::tls::{ClientRule, Verifier};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Returns the rules of the handshakes, with the hosts of each rule.
pub(super) fn rules(file: &File, faults: &mut Faults<'_>) -> Vec<(Arc<ClientRule>, Vec<Box<str>>)> {
    let mut rules = Vec::new();
    // The table that has each host; the empty host is that of the table without hosts.
    let mut known: BTreeMap<Box<str>, &str> = BTreeMap::new();
    for (name, table) in &file.client_certificates {
        let key = format!("client_certificates.{name}");
        if name.is_empty()
            || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        {
            let hint = "use letters, digits, '-' and '_': the name is part of the issuer of the callers";
            faults.fault("bad_name", &key, format!("the name \"{name}\""), hint);
        }
        let mut hosts = Vec::new();
        for (index, host) in table.hosts.iter().enumerate() {
            let at = format!("{key}.hosts[{index}]");
            hosts.extend(self::host(&at, host, faults));
        }
        let claimed = if table.hosts.is_empty() { vec![Box::default()] } else { hosts.clone() };
        for host in claimed {
            if let Some(other) = known.insert(host.clone(), name) {
                let what = if host.is_empty() { "all other hosts".to_owned() } else { format!("\"{host}\"") };
                let found = format!("{what}, as in client_certificates.{other}");
                faults.fault("same_host", &format!("{key}.hosts"), found, "list each host once");
            }
        }
        if table.ca.is_empty() {
            let hint = "add ca, the PEM file of the authorities that sign the clients' certificates";
            faults.fault("missing_key", &format!("{key}.ca"), "no authority", hint);
            continue;
        }
        let rule = Arc::new(ClientRule {
            name: name.as_str().into(),
            required: table.mode == ClientCertificateMode::Required,
            ca: faults.unwatched_path(&table.ca),
            crls: table.crl.iter().map(|path| faults.unwatched_path(path)).collect(),
        });
        if let Err(bad) = Verifier::open(rule.clone()) {
            faults.fault("bad_file", &format!("{key}.{}", bad.key), bad.found, bad.hint);
        }
        rules.push((rule, hosts));
    }
    if file.server.https.addresses().is_empty()
        && let Some(name) = file.client_certificates.keys().next()
    {
        faults.warn(
            "unused",
            &format!("client_certificates.{name}"),
            "clients show certificates over TLS only, and [server] https is off",
            "turn https on, or remove the table",
        );
    }
    rules
}

/// Returns the callers of each table.
pub(super) fn callers(file: &File) -> Vec<CertificateCallers> {
    let callers = file.client_certificates.iter().map(|(name, table)| {
        let subject = match table.subject {
            CertificateSubject::Uri => SubjectName::Uri,
            CertificateSubject::Dns => SubjectName::Dns,
            CertificateSubject::Email => SubjectName::Email,
            CertificateSubject::CommonName => SubjectName::CommonName,
        };
        CertificateCallers::new(name, subject, table.roles.clone())
    });
    callers.collect()
}

/// Returns a host for which clients ask (SNI), or `*.` and a host.
pub(super) fn host(key: &str, text: &str, faults: &mut Faults<'_>) -> Option<Box<str>> {
    match HostPattern::parse(text) {
        Ok(pattern) if is_address(&pattern) => {
            let hint =
                "use a name: a client that connects to an address asks for no host (RFC 6066 section 3)";
            faults.fault("bad_host", key, format!("the address \"{text}\""), hint);
            None
        }
        Ok(pattern) => Some(pattern.to_string().into()),
        Err(fault) => {
            faults.fault("bad_host", key, fault.found(), fault.remedy());
            None
        }
    }
}

fn is_address(pattern: &HostPattern) -> bool {
    match pattern {
        HostPattern::Exact(name) => name.starts_with('[') || name.parse::<Ipv4Addr>().is_ok(),
        HostPattern::Below(_) | HostPattern::Any => false,
    }
}
