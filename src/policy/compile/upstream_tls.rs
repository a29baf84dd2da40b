//! Compiles `[upstream.NAME] ca` and `[upstream.NAME.tls]`: whom the gateway believes to be a server, and the
//! certificate that it shows to servers.

use super::authorities::Authorities;
use super::{Faults, private};
use crate::authenticate::digest_of;
use crate::clock::Now;
use crate::config::file::{UpstreamProtocol, UpstreamSection, UpstreamTlsSection};
use crate::forward::{PinVerifier, PinnedName, Pins, Tls};
use crate::tls::{Files, Invalid, Part, Validity, read_pair};
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use std::sync::Arc;
use tokio_rustls::TlsConnector;

/// Creates the TLS connector of an upstream, for TLS 1.2 and 1.3. Trusts the authorities in `ca`. If `ca` is not set,
/// trusts the authorities of the system. The name of the server is always verified.
pub(super) fn connector<'f>(
    key: &str,
    table: &'f UpstreamSection,
    known: &mut Authorities<'f>,
    faults: &mut Faults<'_>,
) -> Option<Tls> {
    let (roots, authorities) = known.of(key, "servers", table.ca.as_deref(), faults)?;
    let tls = table.tls.clone().unwrap_or_default();
    let key = format!("{key}.tls");
    let name = server_name(&key, &tls, faults)?;
    let pins = pins(&key, &tls, faults)?;
    let own = own(&key, &tls, faults)?;
    // Connections are shared only by servers with equal digests, also over a reload.
    let mut identity = Vec::new();
    let mut add = |part: &[u8]| {
        identity.extend_from_slice(&(part.len() as u64).to_be_bytes());
        identity.extend_from_slice(part);
    };
    add(&authorities);
    add(name.as_ref().map_or(String::new(), |name| format!("{name:?}")).as_bytes());
    add(format!("{pins:?}").as_bytes());
    own.iter().flat_map(|own| &own.cert).for_each(|certificate| add(certificate));
    let alpn = match table.protocol {
        UpstreamProtocol::Http1 => b"http/1.1".to_vec(),
        UpstreamProtocol::Http2 => b"h2".to_vec(),
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let built = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())
        .and_then(|builder| {
            let builder = match pins.is_empty() {
                true => builder.with_root_certificates(roots),
                false => {
                    let verifier = Arc::new(PinVerifier::new(roots, provider, pins)?);
                    builder.dangerous().with_custom_certificate_verifier(verifier)
                }
            };
            Ok(match own {
                Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
                None => builder.with_no_client_auth(),
            })
        });
    match built {
        Ok(mut config) => {
            config.alpn_protocols = vec![alpn];
            let connector = TlsConnector::from(Arc::new(config));
            Some(Tls { connector, name, description: describe(table).into(), identity: digest_of(identity) })
        }
        Err(error) => {
            faults.fault("tls", &key, error, "please report this: it is an error in the gateway");
            None
        }
    }
}

/// Describes how servers are verified, and what they are shown.
fn describe(table: &UpstreamSection) -> String {
    let tls = table.tls.clone().unwrap_or_default();
    let authorities = match &table.ca {
        Some(file) => format!("the authorities of {file}"),
        None => "the authorities of the system".to_owned(),
    };
    let name = match (&tls.server_name, &tls.pinned_names[..]) {
        (_, names @ [_, ..]) => format!("one of the names {}", names.join(", ")),
        (Some(name), []) => format!("the name {name}"),
        (None, []) => "the name of the server".to_owned(),
    };
    let key = if tls.pinned_keys.is_empty() { "" } else { ", a pinned key" };
    let own = tls.certificate.map_or_else(String::new, |file| format!("; shows the certificate {file}"));
    format!("verifies {authorities}, {name}{key}{own}")
}

/// Whether a server of the policy uses TLS.
pub(super) fn is_https(server: &str) -> bool {
    server.strip_prefix("srv+").unwrap_or(server).starts_with("https://")
}

/// Reports `[upstream.NAME.tls]` on an upstream with servers that do not use TLS.
pub(super) fn check_use(key: &str, table: &UpstreamSection, faults: &mut Faults<'_>) {
    if let Some(plain) = table.servers.iter().position(|server| !is_https(server))
        && table.tls.is_some()
    {
        faults.fault(
            "bad_upstream",
            &format!("{key}.tls"),
            format!("set, but {key}.servers[{plain}] does not use TLS"),
            "use https:// for all servers, or put the others into an upstream of their own",
        );
    }
}

/// Returns the name that the gateway asks servers for; `None` if a fault was reported.
#[allow(clippy::option_option, reason = "the outer value says whether the key is valid")]
fn server_name(
    key: &str,
    table: &UpstreamTlsSection,
    faults: &mut Faults<'_>,
) -> Option<Option<ServerName<'static>>> {
    let Some(text) = &table.server_name else { return Some(None) };
    let Ok(name) = ServerName::try_from(text.clone()) else {
        let hint = "a host name or an address, without a port";
        faults.fault("bad_value", &format!("{key}.server_name"), format!("\"{text}\""), hint);
        return None;
    };
    Some(Some(name))
}

/// Returns the pins; `None` if a fault was reported.
fn pins(key: &str, table: &UpstreamTlsSection, faults: &mut Faults<'_>) -> Option<Pins> {
    let before = faults.fault_count;
    let mut names = Vec::new();
    for (index, text) in table.pinned_names.iter().enumerate() {
        match PinnedName::parse(text) {
            Some(name) => names.push(name),
            None => {
                let hint = "a host name, an address, or a URI such as \"spiffe://example.org/orders\"";
                let key = format!("{key}.pinned_names[{index}]");
                faults.fault("bad_value", &key, format!("\"{text}\""), hint);
            }
        }
    }
    let mut keys = Vec::new();
    for (index, text) in table.pinned_keys.iter().enumerate() {
        match Pins::key(text) {
            Some(pin) => keys.push(pin),
            None => {
                let hint = "\"sha256/\" and the digest of the public key in base64, 44 characters";
                let key = format!("{key}.pinned_keys[{index}]");
                faults.fault("bad_value", &key, format!("\"{text}\""), hint);
            }
        }
    }
    (faults.fault_count == before).then(|| Pins { names: names.into(), keys: keys.into() })
}

/// Returns the certificate that the gateway shows to servers; `None` if a fault was reported.
#[allow(clippy::option_option, reason = "the outer value says whether the keys are valid")]
fn own(key: &str, table: &UpstreamTlsSection, faults: &mut Faults<'_>) -> Option<Option<CertifiedKey>> {
    let (certificate, private_key) = match (&table.certificate, &table.key) {
        (None, None) => return Some(None),
        (None, Some(_)) => {
            let hint = "add certificate to the same table";
            faults.fault("half_a_pair", &format!("{key}.key"), "the certificate is missing", hint);
            return None;
        }
        (Some(_), None) => {
            let hint = "add key to the same table";
            faults.fault("half_a_pair", &format!("{key}.certificate"), "the key is missing", hint);
            return None;
        }
        (Some(certificate), Some(key)) => (certificate, key),
    };
    let files = Files { certificate: faults.file(certificate), key: faults.file(private_key), ocsp: None };
    private::check_mode(&format!("{key}.key"), &files.key, faults);
    match read_pair(&files) {
        Ok(pair) => {
            let validity = pair.cert.first().and_then(Validity::of);
            validity_of(&format!("{key}.certificate"), validity, faults);
            Some(Some(pair))
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

fn validity_of(key: &str, validity: Option<Validity>, faults: &mut Faults<'_>) {
    match validity.and_then(|validity| validity.fault(Now::read().unix)) {
        Some(invalid @ Invalid::Expired(_)) => faults.warn(
            "certificate_expired",
            key,
            format!("{invalid}: servers reject it"),
            "renew the certificate, and reload the policy",
        ),
        Some(invalid @ Invalid::NotYet(_)) => faults.warn(
            "certificate_not_yet_valid",
            key,
            format!("{invalid}: servers reject it"),
            "check this machine's clock, or use a certificate that is valid now",
        ),
        None => {}
    }
}
