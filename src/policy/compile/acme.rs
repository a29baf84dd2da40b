//! Compiles `[tls] acme`.

use super::authorities::Authorities;
use super::{Faults, key_sources};
use crate::acme::{Challenge, DOMAINS_MAX, ExternalAccount, Settings};
use crate::config::file::{AcmeChallenge, AcmeSection, File};
use crate::outbound::{Networks, Url};
use crate::route::HostPattern;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use zeroize::Zeroizing;

const KEY: &str = "tls.acme";

/// Returns the settings of the order, if the policy has one.
pub(super) fn compile<'f>(
    file: &'f File,
    known: &mut Authorities<'f>,
    faults: &mut Faults<'_>,
) -> Option<Arc<Settings>> {
    let table = file.tls.as_ref()?.acme.as_ref()?;
    let fault_count = faults.fault_count;
    listener(table, file, faults);
    let domains = domains(table, file, faults);
    let directory = directory(table, faults);
    let external_account = external_account(table, faults);
    if table.email.as_ref().is_some_and(|email| !is_email(email)) {
        let hint = "one address, such as \"ops@example.com\"";
        faults.fault("bad_value", "tls.acme.email", "not an email address", hint);
    }
    if table.profile.as_deref() == Some("") {
        faults.fault(
            "bad_value",
            "tls.acme.profile",
            "empty",
            "use a profile of the server, or leave it out",
        );
    }
    key_sources::check_networks(KEY, &table.private_networks, faults);
    let (roots, authorities) = known.of(KEY, "directory", table.ca.as_deref(), faults)?;
    if faults.fault_count > fault_count {
        return None;
    }
    Some(Arc::new(Settings {
        domains: domains.into(),
        email: table.email.as_deref().map(Into::into),
        directory: directory?,
        roots,
        authorities,
        networks: Networks::new(table.private_networks.clone()),
        challenge: match table.challenge {
            AcmeChallenge::TlsAlpn01 => Challenge::TlsAlpn01,
            AcmeChallenge::Http01 => Challenge::Http01,
        },
        agrees_to_terms: table.agree_to_terms,
        external_account,
        profile: table.profile.as_deref().map(Into::into),
        state: faults.state_dir(),
    }))
}

/// Reports that the ACME server could not reach the gateway, or that the certificate would not be shown.
fn listener(table: &AcmeSection, file: &File, faults: &mut Faults<'_>) {
    if file.server.https.addresses().is_empty() {
        let hint = "turn https on, or remove acme";
        faults.fault("acme_listener", KEY, "[server] https is off, so no client gets the certificate", hint);
    } else if table.challenge == AcmeChallenge::Http01 && file.server.http.addresses().is_empty() {
        faults.fault(
            "acme_listener",
            "tls.acme.challenge",
            "\"http-01\", but [server] http is off",
            "turn http on, and let port 80 of the domains reach it; or use \"tls-alpn-01\"",
        );
    }
}

/// Returns the domains in lower case.
fn domains(table: &AcmeSection, file: &File, faults: &mut Faults<'_>) -> Vec<Box<str>> {
    let mut domains: Vec<Box<str>> = Vec::new();
    if table.domains.is_empty() {
        let hint = "list the names that clients use, such as [\"api.example.com\"]";
        faults.fault("missing_key", "tls.acme.domains", "no domain", hint);
    }
    if table.domains.len() > DOMAINS_MAX {
        let found = format!("{} domains: a certificate has at most {DOMAINS_MAX}", table.domains.len());
        faults.fault("acme_domain", "tls.acme.domains", found, "use [[tls.certificates]] for the others");
        return domains;
    }
    for (index, text) in table.domains.iter().enumerate() {
        let at = format!("tls.acme.domains[{index}]");
        match domain(text) {
            Ok(domain) if domains.contains(&domain) => {
                faults.fault("same_host", &at, format!("\"{domain}\" is in the list twice"), "remove one");
            }
            Ok(domain) => {
                if let Some(other) = other_certificate(file, &domain) {
                    let found = format!("\"{domain}\" has another certificate in {other}");
                    faults.fault("same_host", &at, found, "remove the domain here, or the host there");
                }
                domains.push(domain);
            }
            Err((found, hint)) => faults.fault("acme_domain", &at, format!("\"{text}\": {found}"), hint),
        }
    }
    domains
}

/// Returns the key of the `[[tls.certificates]]` that lists a domain.
fn other_certificate(file: &File, domain: &str) -> Option<String> {
    let tables = &file.tls.as_ref()?.certificates;
    let is_listed = |hosts: &[String]| hosts.iter().any(|host| host.eq_ignore_ascii_case(domain));
    let index = tables.iter().position(|table| is_listed(&table.hosts))?;
    Some(format!("tls.certificates[{index}]"))
}

/// Returns a domain in lower case, or what is wrong with it and the remedy.
fn domain(text: &str) -> Result<Box<str>, (&'static str, &'static str)> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if bare.parse::<IpAddr>().is_ok() {
        return Err((
            "the gateway orders no certificates for addresses",
            "use a name, or a certificate of your own in [[tls.certificates]]",
        ));
    }
    if text.contains('*') {
        // RFC 8737 section 3 and RFC 8555 section 8.3 validate one host. Only a DNS record proves a wildcard.
        return Err((
            "a wildcard cannot be proven by tls-alpn-01 or http-01",
            "list each name, or use a wildcard certificate of your own in [[tls.certificates]]",
        ));
    }
    let malformed =
        ("not a domain", "a name such as \"api.example.com\", in ASCII (xn-- for other characters)");
    let is_label = |label: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(is_allowed)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    match HostPattern::parse(text) {
        // `1.2.3` would be read as an address by some clients.
        Ok(HostPattern::Exact(name))
            if text.len() <= 253
                && text.split('.').all(is_label)
                && !name
                    .split('.')
                    .next_back()
                    .is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()))
                && name.parse::<Ipv4Addr>().is_err() =>
        {
            Ok(name)
        }
        Ok(_) | Err(_) => Err(malformed),
    }
}

fn directory(table: &AcmeSection, faults: &mut Faults<'_>) -> Option<Url> {
    let at = "tls.acme.directory";
    let hint = "for example \"https://acme-v02.api.letsencrypt.org/directory\"";
    match Url::parse(&table.directory) {
        // RFC 8555 section 6.1.
        Ok(url) if !url.is_https() => {
            let hint = "use https, with ca = \"FILE\" for an authority of your own";
            faults.fault("bad_value", at, format!("{url}: ACME requires https"), hint);
            None
        }
        Ok(url) if url.has_query() => {
            faults.fault("bad_value", at, format!("{url}: has a query"), hint);
            None
        }
        Ok(url) => Some(url),
        Err(why) => {
            faults.fault("bad_value", at, format!("the URL {why}"), hint);
            None
        }
    }
}

fn external_account(table: &AcmeSection, faults: &mut Faults<'_>) -> Option<ExternalAccount> {
    let (at_id, at_key) = ("tls.acme.external_account_id", "tls.acme.external_account_key");
    match (table.external_account_id.as_deref(), &table.external_account_key) {
        (None, None) => None,
        (None | Some(""), _) => {
            faults.fault("missing_key", at_id, "the key has no identifier", "add external_account_id");
            None
        }
        (Some(_), None) => {
            let hint = "add external_account_key = \"env:NAME\" or \"file:PATH\"";
            faults.fault("missing_key", at_key, "the identifier has no key", hint);
            None
        }
        (Some(id), Some(secret)) => {
            let bytes = match faults.secret(secret) {
                Ok(bytes) => Zeroizing::new(bytes),
                Err(why) => {
                    faults.fault("no_secret", at_key, why, "set the variable, or write the file");
                    return None;
                }
            };
            let text: &[u8] = bytes.trim_ascii();
            let text = text.split(|byte| *byte == b'=').next().unwrap_or_default();
            match URL_SAFE_NO_PAD.decode(text) {
                Ok(key) if !key.is_empty() => {
                    Some(ExternalAccount { id: id.into(), key: Zeroizing::new(key) })
                }
                Ok(_) | Err(_) => {
                    let hint = "use the text that the server's operator gives (RFC 8555 section 7.3.4)";
                    faults.fault("bad_value", at_key, "not base64url", hint);
                    None
                }
            }
        }
    }
}

/// Whether a text can be an address in a `mailto` URL (RFC 8555 section 7.3: one address, without header fields).
fn is_email(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b",?&%#\"<>()[]\\;:".contains(&byte);
    let parts = text.split_once('@');
    parts.is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains('@'))
        && text.len() <= 254
        && text.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_a_name_of_one_host() {
        for (text, name) in [
            ("api.example.com", "api.example.com"),
            ("API.Example.com", "api.example.com"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("localhost", "localhost"),
            ("1a.example", "1a.example"),
        ] {
            assert_eq!(domain(text).as_deref(), Ok(name), "{text}");
        }
        for text in ["*.example.com", "a.*.com", "*"] {
            assert!(domain(text).unwrap_err().0.contains("wildcard"), "{text}");
        }
        for text in ["192.0.2.1", "2001:db8::1", "[2001:db8::1]"] {
            assert!(domain(text).unwrap_err().0.contains("addresses"), "{text}");
        }
        for text in [
            "",
            "a..b",
            ".a",
            "a.",
            "a b.test",
            "a_b.test",
            "-a.test",
            "bücher.example",
            "a.test:443",
            "https://a.test",
            "1.2.3",
            "0x7f.1",
            &format!("{}.test", "a".repeat(64)),
        ] {
            assert_eq!(domain(text).unwrap_err().0, "not a domain", "{text}");
        }
    }

    #[test]
    fn an_email_is_one_address() {
        for (text, email) in [
            ("ops@example.com", true),
            ("ops+acme@example.com", true),
            ("", false),
            ("ops", false),
            ("@example.com", false),
            ("ops@", false),
            ("a@b.test,c@d.test", false),
            ("a@b.test?subject=x", false),
            ("mailto:a@b.test", false),
            ("a b@c.test", false),
        ] {
            assert_eq!(is_email(text), email, "{text}");
        }
    }
}
