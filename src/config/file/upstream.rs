//! The table `[upstream.NAME]`, and the tables and words in it.

use crate::config::reading::{OneOrMany, one_or_many, optional_table, optional_text, optional_word, word};
use crate::config::secret::Secret;
use crate::config::shown;
use crate::config::units::{Duration, Rate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;

/// `[upstream.NAME]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamSection {
    /// `http://host:port`, `https://host:port` or `unix:/path`.
    #[serde(deserialize_with = "one_or_many", serialize_with = "shown::servers")]
    #[schemars(with = "OneOrMany<String>")]
    pub servers: Vec<String>,
    /// The way in which names of servers become addresses.
    #[serde(deserialize_with = "word")]
    pub resolve: Resolve,
    /// The addresses of the nameservers for the names of servers; if empty, those of the system.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub resolver: Vec<String>,
    /// An upstream that is part of the gateway.
    #[serde(deserialize_with = "optional_word")]
    pub builtin: Option<Builtin>,
    /// The version of HTTP that the servers use.
    #[serde(deserialize_with = "word")]
    pub protocol: UpstreamProtocol,
    /// Maximum time to open a connection.
    pub connect_timeout: Duration,
    /// Maximum time until the upstream's response begins.
    pub timeout: Duration,
    /// Maximum number of connections to each server, over all cores. Each core may open an equal share, rounded up. A
    /// request beyond the maximum waits for a connection, within `timeout`.
    pub connections: u32,
    /// The way in which a request chooses its server.
    #[serde(deserialize_with = "word")]
    pub balance: Balance,
    /// For `"hash"`: the properties that select the server, `client_ip`, `subject`, `header:NAME`, `cookie:NAME` or
    /// `claim:PATH`. The first property that a request has counts.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub hash_by: Vec<String>,
    /// The share of each server, in the order of `servers`; if empty, the shares are equal.
    pub weights: Vec<u32>,
    /// The percentage of the answered requests that may be repeated after a failure.
    pub retry_percent: u32,
    /// The rate of requests that may be repeated in any case.
    pub retry_floor: Rate,
    /// The time in which a server that has come back gets its whole share of the requests again.
    pub slow_start: Duration,
    /// All servers are used if fewer than this percentage of them is not set aside.
    pub panic_below: u32,
    /// Active checks of the servers; if absent, only requests show whether a server works.
    #[serde(deserialize_with = "optional_table")]
    pub health: Option<HealthSection>,
    /// Path of a PEM file with the certificate authorities to trust instead of those of the system.
    #[serde(deserialize_with = "optional_text")]
    pub ca: Option<String>,
    /// TLS to the servers: the gateway's certificate, and whom the gateway believes to be a server.
    #[serde(deserialize_with = "optional_table")]
    pub tls: Option<UpstreamTlsSection>,
    /// The key of the HMAC that proves the caller's identity to the upstream.
    pub identity_secret: Option<Secret>,
}

impl Default for UpstreamSection {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            resolve: Resolve::EveryAddress,
            resolver: Vec::new(),
            builtin: None,
            protocol: UpstreamProtocol::Http1,
            connect_timeout: Duration::seconds(2),
            timeout: Duration::seconds(30),
            connections: 10_000,
            balance: Balance::RoundRobin,
            hash_by: Vec::new(),
            weights: Vec::new(),
            retry_percent: 20,
            retry_floor: Rate {
                count: NonZeroU32::MIN.saturating_add(9),
                per: std::time::Duration::from_secs(1),
            },
            slow_start: Duration::seconds(0),
            panic_below: 0,
            health: None,
            ca: None,
            tls: None,
            identity_secret: None,
        }
    }
}

/// `[upstream.NAME.tls]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTlsSection {
    /// Path of the certificate that the gateway shows to the servers, with its chain, PEM.
    #[serde(deserialize_with = "optional_text")]
    pub certificate: Option<String>,
    /// Path of the certificate's private key, PEM.
    #[serde(deserialize_with = "optional_text")]
    pub key: Option<String>,
    /// The name that the gateway asks for (SNI) and verifies; if absent, the host in the server's URL.
    #[serde(deserialize_with = "optional_text")]
    pub server_name: Option<String>,
    /// Host names and URIs of which the server's certificate must have one, in place of the server's name.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub pinned_names: Vec<String>,
    /// Digests of public keys, `sha256/` and base64, of which the server's certificate must have one.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub pinned_keys: Vec<String>,
}

impl UpstreamTlsSection {
    /// Whether the names in certificates are independent of the servers' URLs.
    pub(crate) const fn is_named(&self) -> bool {
        self.server_name.is_some() || !self.pinned_names.is_empty()
    }
}

/// `[upstream.NAME] resolve`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Resolve {
    /// Each address of a name is a server. The name is resolved again when its addresses expire.
    EveryAddress,
    /// A name is one server. It is resolved at each new connection.
    PerConnection,
}

/// `[upstream.NAME] protocol`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2: by ALPN over TLS, otherwise with prior knowledge.
    Http2,
}

/// `[upstream.NAME.health]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HealthSection {
    /// The kind of check.
    #[serde(deserialize_with = "word")]
    pub check: HealthCheck,
    /// For `"http"`: the path of the GET, with its query.
    #[serde(deserialize_with = "optional_text")]
    pub path: Option<String>,
    /// For `"grpc"`: the name of the service; if absent, the whole server.
    #[serde(deserialize_with = "optional_text")]
    pub service: Option<String>,
    /// For `"http"` and `"grpc"`: the `Host`; if absent, the server's host and port.
    #[serde(deserialize_with = "optional_text")]
    pub host: Option<String>,
    /// For `"http"`: the statuses that pass, such as `200` or `200-399`.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub status: Vec<String>,
    /// Time between two checks of a server.
    pub interval: Duration,
    /// Maximum time of a check.
    pub timeout: Duration,
    /// Number of failed checks in a row after which a server gets no requests.
    pub unhealthy_after: u32,
    /// Number of passed checks in a row after which a server gets requests again.
    pub healthy_after: u32,
}

impl Default for HealthSection {
    fn default() -> Self {
        Self {
            check: HealthCheck::Http,
            path: None,
            service: None,
            host: None,
            status: vec!["200-299".to_owned()],
            interval: Duration::seconds(5),
            timeout: Duration::seconds(2),
            unhealthy_after: 3,
            healthy_after: 2,
        }
    }
}

/// `[upstream.NAME.health] check`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum HealthCheck {
    /// A GET.
    Http,
    /// A call of the health service of gRPC.
    Grpc,
    /// A connection, with TLS for an https server.
    Tcp,
}

/// `[upstream.NAME] balance`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// The servers take turns.
    RoundRobin,
    /// The server with the fewest requests.
    LeastRequests,
    /// The server with fewer requests, out of two servers that are chosen at random.
    TwoChoices,
    /// The server that a hash of `hash_by` selects.
    Hash,
}

/// `[upstream.NAME] builtin`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Builtin {
    /// Answers with the request that an upstream would have received.
    Echo,
}
