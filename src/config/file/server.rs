//! The table `[server]`, and the tables and words in it.

use crate::config::network::{Cidr, Listen, networks};
use crate::config::reading::{OneOrMany, optional_table, table, word};
use crate::config::units::{ByteSize, Duration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[server]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServerSection {
    /// Addresses for HTTP over TLS.
    pub https: Listen,
    /// Addresses for cleartext HTTP.
    pub http: Listen,
    /// Whether cleartext listeners redirect requests to TLS or serve them.
    #[serde(deserialize_with = "word")]
    pub plain: Plain,
    /// The port that clients use for https; if absent, the port of the first address in `https`.
    pub public_port: Option<u16>,
    /// Addresses of the admin listener, which serves health and metrics.
    pub admin: Listen,
    /// Values of `Host` that the admin listener accepts in addition to its addresses.
    pub admin_hosts: Vec<String>,
    /// Number of cores to use; 0 uses all.
    pub workers: usize,
    /// The time that the gateway continues to serve requests after SIGTERM or SIGINT. During this time, it reports that it
    /// is not ready.
    pub drain_delay: Duration,
    /// The time that requests in progress may continue after `drain_delay` has passed.
    pub drain: Duration,
    /// When to reload the policy.
    #[serde(deserialize_with = "word")]
    pub reload: Reload,
    /// Proxies whose forwarding header fields are accepted.
    #[serde(deserialize_with = "networks")]
    #[schemars(with = "OneOrMany<Cidr>")]
    pub trusted_proxies: Vec<Cidr>,
    /// The load balancers that announce their clients by the PROXY protocol.
    #[serde(deserialize_with = "optional_table")]
    pub proxy_protocol: Option<ProxyProtocolSection>,
    /// The treatment of `//` in paths.
    #[serde(deserialize_with = "word")]
    pub paths: Paths,
    /// Bounds on the memory and time that a client can make the gateway spend.
    #[serde(deserialize_with = "table")]
    pub bounds: BoundsSection,
}

impl Default for ServerSection {
    fn default() -> Self {
        Self {
            https: Listen::on("127.0.0.1:8443"),
            http: Listen::on("127.0.0.1:8080"),
            plain: Plain::Redirect,
            public_port: None,
            admin: Listen::on("127.0.0.1:9900"),
            admin_hosts: Vec::new(),
            workers: 0,
            drain_delay: Duration::seconds(0),
            drain: Duration::seconds(30),
            reload: Reload::Signal,
            trusted_proxies: Vec::new(),
            proxy_protocol: None,
            paths: Paths::Strict,
            bounds: BoundsSection::default(),
        }
    }
}

/// `[server.proxy_protocol]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProxyProtocolSection {
    /// The load balancers. Connections of all other peers are closed.
    #[serde(deserialize_with = "networks")]
    #[schemars(with = "OneOrMany<Cidr>")]
    pub from: Vec<Cidr>,
    /// Whether connections to the addresses in `https` begin with a header.
    pub https: bool,
    /// Whether connections to the addresses in `http` begin with a header.
    pub http: bool,
}

impl Default for ProxyProtocolSection {
    fn default() -> Self {
        Self { from: Vec::new(), https: true, http: true }
    }
}

/// `[server] plain`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Plain {
    /// Redirects clients to TLS.
    Redirect,
    /// Serves cleartext requests.
    Serve,
}

/// `[server] reload`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Reload {
    /// Reloads on SIGHUP and on a request to the admin listener.
    Signal,
    /// Reloads as with `signal`, and also whenever the file changes.
    Watch,
}

/// `[server] paths`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Paths {
    /// Refuses paths that contain `//`.
    Strict,
    /// Merges `//` in a path into `/`.
    Merge,
}

/// `[server.bounds]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BoundsSection {
    /// Maximum time from the first byte of a request head to the last byte.
    pub header_timeout: Duration,
    /// Maximum size of a request head.
    pub header_size: ByteSize,
    /// Maximum number of header fields in a request.
    pub headers: usize,
    /// Maximum size of a request body.
    pub body_size: ByteSize,
    /// Maximum time between two reads of a request body or two writes of a response.
    pub body_timeout: Duration,
    /// Minimum rate of a request body or a response after `body_timeout`, in bytes per second; 0 allows any rate.
    pub min_rate: ByteSize,
    /// Maximum time between two requests on a connection.
    pub idle_timeout: Duration,
    /// Maximum number of client connections.
    pub connections: usize,
    /// Maximum number of requests in progress on each core.
    pub requests: usize,
    /// Maximum number of concurrent HTTP/2 streams per connection.
    pub streams: u32,
}

impl Default for BoundsSection {
    fn default() -> Self {
        Self {
            header_timeout: Duration::seconds(10),
            header_size: ByteSize::bytes(32 << 10),
            headers: 100,
            body_size: ByteSize::bytes(16 << 20),
            body_timeout: Duration::seconds(30),
            min_rate: ByteSize::bytes(500),
            idle_timeout: Duration::seconds(75),
            connections: 20_000,
            requests: 20_000,
            streams: 128,
        }
    }
}
