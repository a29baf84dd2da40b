//! The table `[tls]`, and the tables and words in it.

use crate::config::network::{Cidr, networks};
use crate::config::reading::{OneOrMany, one_or_many, optional_table, optional_text, tables, text, word};
use crate::config::secret::Secret;
use crate::config::shown;
use crate::config::values::TlsVersion;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[tls]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSection {
    /// Path of the certificate chain, PEM.
    #[serde(deserialize_with = "text")]
    pub certificate: String,
    /// Path of the certificate's private key, PEM.
    #[serde(deserialize_with = "text")]
    pub key: String,
    /// Path of an OCSP response about the certificate, DER.
    #[serde(deserialize_with = "optional_text")]
    pub ocsp: Option<String>,
    /// Certificates for single hosts.
    #[serde(deserialize_with = "tables")]
    pub certificates: Vec<CertificateSection>,
    /// The order of the certificate from an ACME server.
    #[serde(deserialize_with = "optional_table")]
    pub acme: Option<AcmeSection>,
    /// The minimum TLS version.
    pub min_version: TlsVersion,
    /// The value of `Strict-Transport-Security`; if empty, the field is not sent.
    #[serde(deserialize_with = "text")]
    pub hsts: String,
}

impl Default for TlsSection {
    fn default() -> Self {
        Self {
            certificate: String::new(),
            key: String::new(),
            ocsp: None,
            certificates: Vec::new(),
            acme: None,
            min_version: TlsVersion::Tls12,
            hsts: "max-age=31536000".to_owned(),
        }
    }
}

/// `[[tls.certificates]]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CertificateSection {
    /// Path of the certificate chain, PEM.
    #[serde(deserialize_with = "text")]
    pub certificate: String,
    /// Path of the certificate's private key, PEM.
    #[serde(deserialize_with = "text")]
    pub key: String,
    /// Path of an OCSP response about the certificate, DER.
    #[serde(deserialize_with = "optional_text")]
    pub ocsp: Option<String>,
    /// The hosts for which the certificate is shown; if empty, the names in the certificate.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub hosts: Vec<String>,
}

/// `[tls] acme`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AcmeSection {
    /// The domains of the certificate.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub domains: Vec<String>,
    /// The address for messages of the server's operator.
    #[serde(deserialize_with = "optional_text")]
    pub email: Option<String>,
    /// The URL of the server's directory.
    #[serde(deserialize_with = "text", serialize_with = "shown::set_url")]
    pub directory: String,
    /// The challenge by which the gateway proves that it serves the domains.
    #[serde(deserialize_with = "word")]
    pub challenge: AcmeChallenge,
    /// Whether you agree to the server's terms of service.
    pub agree_to_terms: bool,
    /// The profile of the certificate; if absent, the server chooses it.
    #[serde(deserialize_with = "optional_text")]
    pub profile: Option<String>,
    /// The identifier of the key that binds the account to an account of the server's operator.
    #[serde(deserialize_with = "optional_text")]
    pub external_account_id: Option<String>,
    /// The key that binds the account to an account of the server's operator, in base64url.
    pub external_account_key: Option<Secret>,
    /// Path of a PEM file with the certificate authorities to trust for the server instead of those of the system.
    #[serde(deserialize_with = "optional_text")]
    pub ca: Option<String>,
    /// Private networks in which the server may be. Without an entry it must have a public address.
    #[serde(deserialize_with = "networks")]
    #[schemars(with = "OneOrMany<Cidr>")]
    pub private_networks: Vec<Cidr>,
}

impl Default for AcmeSection {
    fn default() -> Self {
        Self {
            domains: Vec::new(),
            email: None,
            directory: "https://acme-v02.api.letsencrypt.org/directory".to_owned(),
            challenge: AcmeChallenge::TlsAlpn01,
            agree_to_terms: true,
            profile: None,
            external_account_id: None,
            external_account_key: None,
            ca: None,
            private_networks: Vec::new(),
        }
    }
}

/// `[tls] acme.challenge`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum AcmeChallenge {
    /// A certificate for the ALPN protocol `acme-tls/1` on port 443.
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    /// A document on port 80.
    #[serde(rename = "http-01")]
    Http01,
}
