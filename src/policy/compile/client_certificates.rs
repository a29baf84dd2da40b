//! Compiles `[client_certificates.NAME]`: which clients must have a certificate, and who signs it.

use super::Faults;
use crate::authenticate::{CertificateCallers, SubjectName};
use crate::clock::Now;
use crate::config::file::{CertificateSubject, ClientCertificateMode, File};
use crate::config::values::TokenSource;
use crate::route::HostPattern;
use crate::timestamp::rfc3339;
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
        let hosts: Vec<_> = hosts(&key, &table.hosts, faults).into_iter().map(|(_, host)| host).collect();
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
        match Verifier::open(rule.clone()) {
            Ok(Verifier { lists_end: Some(ends), .. }) if Now::read().unix > ends => faults.warn(
                "crl_expired",
                &format!("{key}.crl"),
                format!("a list has expired on {}: every client certificate is refused", rfc3339(ends)),
                "fetch the authority's current list; a running gateway loads it within a second",
            ),
            Ok(_) => {}
            Err(bad) => faults.fault("bad_file", &format!("{key}.{}", bad.key), bad.found, bad.hint),
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
    unasked_hosts(file, faults);
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

/// Reports routes that take callers only by their certificate, on hosts that ask nobody for one.
fn unasked_hosts(file: &File, faults: &mut Faults<'_>) {
    let asked: Vec<&String> = file.client_certificates.values().flat_map(|table| &table.hosts).collect();
    if asked.is_empty() || file.client_certificates.values().any(|table| table.hosts.is_empty()) {
        return;
    }
    for (index, route) in file.route.iter().enumerate() {
        let sources = route.sources.as_deref().or(file.policy.sources.as_deref()).unwrap_or_default();
        let is_only =
            !sources.is_empty() && sources.iter().all(|source| *source == TokenSource::ClientCertificate);
        let Ok(HostPattern::Exact(host)) = HostPattern::parse(&route.host) else { continue };
        let covers = |asked: &&String| match asked.strip_prefix('*') {
            Some(end) => host.len() > end.len() && host.ends_with(&end.to_ascii_lowercase()),
            None => asked.eq_ignore_ascii_case(&host),
        };
        if is_only && !asked.iter().any(covers) {
            faults.warn(
                "unused",
                &format!("route[{index}].sources"),
                format!("no [client_certificates.NAME] asks clients of \"{host}\" for a certificate: nobody can pass"),
                "add the host to hosts of a [client_certificates.NAME]",
            );
        }
    }
}

/// Returns the valid hosts of a list, each with its index. `key` is the key of the list's table.
pub(super) fn hosts(key: &str, list: &[String], faults: &mut Faults<'_>) -> Vec<(usize, Box<str>)> {
    let each = list.iter().enumerate();
    each.filter_map(|(index, host)| {
        Some((index, self::host(&format!("{key}.hosts[{index}]"), host, faults)?))
    })
    .collect()
}

/// Returns a host for which clients ask (SNI), or `*.` and a host.
fn host(key: &str, text: &str, faults: &mut Faults<'_>) -> Option<Box<str>> {
    match HostPattern::parse(text) {
        _ if text == "*" => {
            faults.fault("bad_host", key, "the host `*`", "leave hosts out");
            None
        }
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
