//! The table `[[test]]`, and the tables and words in it.

use super::route::Streams;
use crate::config::reading::{OneOrMany, named_texts, optional_one_or_many, optional_text, table, text};
use crate::config::secret::Secret;
use crate::config::shown;
use crate::config::units::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `[[test]]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TestSection {
    /// The name of the test.
    #[serde(deserialize_with = "text")]
    pub name: String,
    /// The method and URL of the request.
    #[serde(deserialize_with = "text", serialize_with = "shown::request")]
    pub request: String,
    /// Header fields of the request.
    #[serde(deserialize_with = "named_texts", serialize_with = "shown::headers")]
    pub headers: BTreeMap<String, String>,
    /// The claims of the caller's token, treated as verified.
    pub claims: Option<serde_json::Map<String, serde_json::Value>>,
    /// The caller's token, which is verified.
    pub token: Option<Secret>,
    /// The time of the request in RFC 3339 form; if absent, the time of the test run.
    #[serde(deserialize_with = "optional_text")]
    pub time: Option<String>,
    /// The client's address.
    #[serde(deserialize_with = "optional_text")]
    pub client: Option<String>,
    /// The expected outcome.
    #[serde(deserialize_with = "table")]
    pub expect: ExpectSection,
}

/// `[[test]] expect`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExpectSection {
    /// Whether the request is allowed.
    pub allow: Option<bool>,
    /// The code of the expected refusal.
    #[serde(deserialize_with = "optional_text")]
    pub deny: Option<String>,
    /// The status of the expected refusal or redirect.
    pub status: Option<u16>,
    /// The name of the route that matches the request.
    #[serde(deserialize_with = "optional_text")]
    pub route: Option<String>,
    /// The name of the upstream that receives the request.
    #[serde(deserialize_with = "optional_text")]
    pub upstream: Option<String>,
    /// The path and query that the upstream receives.
    #[serde(deserialize_with = "optional_text")]
    pub path: Option<String>,
    /// Header fields that the upstream receives. An empty value means that the upstream does not receive the field.
    #[serde(deserialize_with = "named_texts", serialize_with = "shown::headers")]
    pub headers: BTreeMap<String, String>,
    /// Header fields that the client receives from an upstream that does not send them. An empty value means that the
    /// client never receives the field.
    #[serde(deserialize_with = "named_texts", serialize_with = "shown::headers")]
    pub response_headers: BTreeMap<String, String>,
    /// The URL of the route's redirect.
    #[serde(deserialize_with = "optional_text")]
    pub redirect: Option<String>,
    /// The name of the upstream that gets a copy. Empty if the request is not copied.
    #[serde(deserialize_with = "optional_text")]
    pub mirror: Option<String>,
    /// The content coding of the answer. Empty if it is not compressed.
    #[serde(deserialize_with = "optional_text")]
    pub compress: Option<String>,
    /// Whether streams end with the caller's token.
    pub streams: Option<Streams>,
    /// The server that the request tries first.
    #[serde(deserialize_with = "optional_text")]
    pub server: Option<String>,
    /// The longest wait for the head of the answer.
    pub timeout: Option<Duration>,
    /// The longest silence in the body of the answer, or in a WebSocket.
    pub silence: Option<Duration>,
    /// Whether the request may be sent again after a server has failed.
    pub retry: Option<bool>,
    /// The trailers that the upstream may receive.
    #[serde(deserialize_with = "optional_one_or_many", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OneOrMany<String>")]
    pub trailers: Option<Vec<String>>,
    /// Whether all servers of the upstream are reached over TLS.
    pub upstream_tls: Option<bool>,
    /// Whether clients of the request's host are asked for a certificate.
    pub client_certificate: Option<CertificateDemand>,
    /// Whether a browser lets scripts of the request's `Origin` read the answer, or send the request after a preflight.
    pub cors: Option<bool>,
    /// The rate limits to which the request is charged.
    #[serde(deserialize_with = "optional_one_or_many", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OneOrMany<String>")]
    pub rate_limits: Option<Vec<String>>,
    /// Whether the route refuses all requests for a while.
    pub maintenance: Option<bool>,
}

/// `[[test]] expect.client_certificate`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum CertificateDemand {
    /// Clients are refused without a certificate.
    Required,
    /// Clients may have a certificate.
    Optional,
    /// Clients are not asked for a certificate.
    None,
}
