//! The table `[client_certificates.NAME]`, and the tables and words in it.

use crate::config::reading::{OneOrMany, named_lists, one_or_many, text, word};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `[client_certificates.NAME]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClientCertificatesSection {
    /// The hosts whose clients are asked for a certificate; if empty, all hosts that no other table names.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub hosts: Vec<String>,
    /// Whether clients without a certificate are refused.
    #[serde(deserialize_with = "word")]
    pub mode: ClientCertificateMode,
    /// Path of the certificates of the authorities that sign clients' certificates, PEM.
    #[serde(deserialize_with = "text")]
    pub ca: String,
    /// Paths of the revocation lists of these authorities, PEM.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub crl: Vec<String>,
    /// The name in the certificate that becomes the subject.
    #[serde(deserialize_with = "word")]
    pub subject: CertificateSubject,
    /// The roles of clients, as a map from subject to roles; `*` is every subject.
    #[serde(deserialize_with = "named_lists")]
    #[schemars(with = "BTreeMap<String, OneOrMany<String>>")]
    pub roles: BTreeMap<String, Vec<String>>,
}

impl Default for ClientCertificatesSection {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            mode: ClientCertificateMode::Required,
            ca: String::new(),
            crl: Vec::new(),
            subject: CertificateSubject::Uri,
            roles: BTreeMap::new(),
        }
    }
}

/// `[client_certificates.NAME] mode`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificateMode {
    /// Refuses clients without a certificate.
    Required,
    /// Accepts clients without a certificate.
    Optional,
}

/// `[client_certificates.NAME] subject`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum CertificateSubject {
    /// The only alternative name that is a URI, such as a SPIFFE ID.
    Uri,
    /// The only alternative name that is a host.
    Dns,
    /// The only alternative name that is an email address.
    Email,
    /// The only common name of the certificate's subject.
    CommonName,
}
