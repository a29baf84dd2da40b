//! The types that mirror gateway.toml, one file for each top-level table. [`File`] lists all tables. References between
//! tables are not resolved.
//!
//! Every table rejects unknown keys, and every key has a default, so that a single pass reports all faults. The policy
//! compiler reports missing keys, dangling references and contradictions. `docs/reference.md` describes each key to
//! operators.

mod api_keys;
mod authority;
mod client_certificates;
mod cors;
mod dpop;
mod identity;
mod issuer;
mod log;
mod policy;
mod rate_limit;
mod resource;
mod route;
mod rule;
mod server;
mod shared;
mod signals;
mod state;
mod test;
mod tls;
mod upstream;

pub use api_keys::ApiKeysSection;
pub use authority::{AuthoritySection, ClientSection, Compat, SameSite, SigningKeys};
pub use client_certificates::{CertificateSubject, ClientCertificateMode, ClientCertificatesSection};
pub use cors::CorsSection;
pub use dpop::{DpopNonce, DpopSection};
pub use identity::IdentitySection;
pub use issuer::{IntrospectionAuth, IntrospectionSection, IssuerSection, SecretEncoding};
pub use log::{LogAccess, LogFormat, LogLevel, LogSection};
pub use policy::{Mode, PolicySection, SecurityHeaders, Tests};
pub use rate_limit::RateLimitSection;
pub use resource::ResourceSection;
pub use route::{Access, Login, RouteSection, SplitSection, Streams};
pub use rule::RuleSection;
pub use server::{BoundsSection, Paths, Plain, ProxyProtocolSection, Reload, ServerSection};
pub use shared::{OnError, OnErrorSection, SharedSection};
pub use signals::{OpaqueSubject, SignalsSection};
pub use state::StateSection;
pub use test::{CertificateDemand, ExpectSection, TestSection};
pub use tls::{AcmeChallenge, AcmeSection, CertificateSection, TlsSection};
pub use upstream::{
    Balance, Builtin, HealthCheck, HealthSection, Resolve, UpstreamProtocol, UpstreamSection,
    UpstreamTlsSection,
};

use super::reading::{named_tables, optional_table, table, tables};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The whole policy file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// Settings of the policy itself.
    #[serde(deserialize_with = "table")]
    pub policy: PolicySection,
    /// Listeners and their bounds.
    #[serde(deserialize_with = "table")]
    pub server: ServerSection,
    /// The TLS certificate; if absent, the gateway uses a self-signed certificate.
    #[serde(deserialize_with = "optional_table")]
    pub tls: Option<TlsSection>,
    /// Certificates that clients are asked for, by name.
    #[serde(deserialize_with = "named_tables")]
    pub client_certificates: BTreeMap<String, ClientCertificatesSection>,
    /// Issuers whose tokens the gateway accepts.
    #[serde(deserialize_with = "tables")]
    pub issuer: Vec<IssuerSection>,
    /// The issuer that the gateway itself runs.
    #[serde(deserialize_with = "optional_table")]
    pub authority: Option<AuthoritySection>,
    /// API keys of programs; if absent, the gateway accepts none.
    #[serde(deserialize_with = "optional_table")]
    pub api_keys: Option<ApiKeysSection>,
    /// The folder where the gateway keeps its files.
    #[serde(deserialize_with = "table")]
    pub state: StateSection,
    /// Logging.
    #[serde(deserialize_with = "table")]
    pub log: LogSection,
    /// Upstreams, by name.
    #[serde(deserialize_with = "named_tables")]
    pub upstream: BTreeMap<String, UpstreamSection>,
    /// Rate limits, by name.
    #[serde(deserialize_with = "named_tables")]
    pub rate_limit: BTreeMap<String, RateLimitSection>,
    /// Identity headers for upstreams.
    #[serde(deserialize_with = "table")]
    pub identity: IdentitySection,
    /// Proofs of possession (DPoP).
    #[serde(deserialize_with = "table")]
    pub dpop: DpopSection,
    /// The Redis or Valkey that several gateways share; if absent, each gateway is on its own.
    #[serde(deserialize_with = "optional_table")]
    pub shared: Option<SharedSection>,
    /// Protected resources whose metadata the gateway publishes (RFC 9728), by name.
    #[serde(deserialize_with = "named_tables")]
    pub resource: BTreeMap<String, ResourceSection>,
    /// Answers to scripts of other origins (CORS), by name.
    #[serde(deserialize_with = "named_tables")]
    pub cors: BTreeMap<String, CorsSection>,
    /// Signals of issuers that revoke their tokens, by name.
    #[serde(deserialize_with = "named_tables")]
    pub signals: BTreeMap<String, SignalsSection>,
    /// Rules that routes name.
    #[serde(deserialize_with = "named_tables")]
    pub rule: BTreeMap<String, RuleSection>,
    /// Routes with their rules.
    #[serde(deserialize_with = "tables")]
    pub route: Vec<RouteSection>,
    /// The tests of the policy.
    #[serde(deserialize_with = "tables")]
    pub test: Vec<TestSection>,
}
