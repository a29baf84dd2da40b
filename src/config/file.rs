//! The types that mirror gateway.toml, one for each table. References between tables are not resolved.
//!
//! Every table rejects unknown keys, and every key has a default, so that a single pass reports all faults. The policy
//! compiler reports missing keys, dangling references and contradictions. `docs/reference.md` describes each key to
//! operators.

use super::network::{Cidr, Listen, networks};
use super::reading::{
    named_lists, named_tables, named_texts, one_or_many, optional_one_or_many, optional_table, optional_text,
    optional_word, table, tables, text, word,
};
use super::schema::OneOrMany;
use super::secret::Secret;
use super::shown;
use super::units::{ByteSize, Duration, Rate};
use super::values::{ClaimValues, Fresh, RoleLimit, TlsVersion, TokenSource};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::num::NonZeroU32;

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

/// `[policy]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PolicySection {
    /// The version of the policy, for people who compare the gateways of a fleet.
    #[serde(deserialize_with = "optional_text")]
    pub version: Option<String>,
    /// The mode of routes that do not set their own.
    #[serde(deserialize_with = "word")]
    pub mode: Mode,
    /// Whether a failing test prevents a start or a reload.
    #[serde(deserialize_with = "word")]
    pub tests: Tests,
    /// Where a request may carry its token, on routes that do not set their own sources.
    pub sources: Option<Vec<TokenSource>>,
    /// Other origins whose pages may send requests with a cookie of another program. The origin of the requested URL is
    /// always accepted.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub origins: Vec<String>,
    /// Number of recent decisions to keep; 0 keeps none.
    pub decisions: usize,
    /// The security headers of answers, on routes that do not set their own.
    #[serde(deserialize_with = "word")]
    pub security_headers: SecurityHeaders,
    /// Findings that are waived in the whole file, as a map from id to reason.
    #[serde(deserialize_with = "named_texts")]
    pub waive: BTreeMap<String, String>,
}

impl Default for PolicySection {
    fn default() -> Self {
        Self {
            version: None,
            mode: Mode::Enforce,
            tests: Tests::Enforce,
            sources: None,
            origins: Vec::new(),
            decisions: 1000,
            security_headers: SecurityHeaders::Off,
            waive: BTreeMap::new(),
        }
    }
}

/// `[policy] mode`, `[[route]] mode`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Refuses requests that the policy does not allow.
    Enforce,
    /// Serves requests even if the policy refuses them, and logs and counts each refusal.
    Shadow,
}

/// `[policy] security_headers`, `[[route]] security_headers`
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum SecurityHeaders {
    /// Adds none.
    #[default]
    Off,
    /// Adds those that the answer of the upstream lacks.
    Add,
    /// Replaces those of the upstream.
    Force,
}

/// `[policy] tests`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Tests {
    /// Does not serve a policy whose tests fail.
    Enforce,
    /// Serves a policy whose tests fail, with a warning.
    Warn,
}

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
    /// How long the gateway continues to serve requests after SIGTERM or SIGINT. During this time, it reports that it
    /// is not ready.
    pub drain_delay: Duration,
    /// How long requests in progress may continue after `drain_delay` has passed.
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
    #[serde(deserialize_with = "text")]
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

/// `[[issuer]]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IssuerSection {
    /// The `iss` claim of the issuer's tokens.
    #[serde(deserialize_with = "text")]
    pub issuer: String,
    /// Accepted values of the `aud` claim.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub audience: Vec<String>,
    /// Accepted signature algorithms.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub algorithms: Vec<String>,
    /// The issuer's JSON Web Key Set: the path of a file, or an `https` URL.
    #[serde(deserialize_with = "optional_text")]
    pub jwks: Option<String>,
    /// Whether the key set is found by the issuer's metadata (OpenID Connect Discovery, RFC 8414).
    pub discovery: bool,
    /// Maximum time between two fetches of the key set by URL.
    pub jwks_refresh: Duration,
    /// Maximum time for which a key set by URL is used after it was fetched.
    pub jwks_max_age: Duration,
    /// Minimum time between two fetches of the key set that tokens with an unknown `kid` cause.
    pub jwks_cooldown: Duration,
    /// Path of a PEM file with the certificate authorities to trust for the issuer's URLs instead of those of the
    /// system.
    #[serde(deserialize_with = "optional_text")]
    pub ca: Option<String>,
    /// Private networks in which the issuer's URLs may be. Without an entry they must have public addresses.
    #[serde(deserialize_with = "networks")]
    #[schemars(with = "OneOrMany<Cidr>")]
    pub private_networks: Vec<Cidr>,
    /// Whether the issuer's URLs may be `http`.
    pub allow_http: bool,
    /// The secret that the issuer shares with the gateway, for HS256.
    pub secret: Option<Secret>,
    /// The encoding of the secret.
    #[serde(deserialize_with = "word")]
    pub secret_encoding: SecretEncoding,
    /// The issuer's public key, PEM.
    pub public_key: Option<Secret>,
    /// The key id (`kid`) of `secret` or `public_key`.
    #[serde(deserialize_with = "optional_text")]
    pub kid: Option<String>,
    /// Maximum difference between the issuer's clock and the gateway's.
    pub leeway: Duration,
    /// The path of the claim that contains the roles.
    #[serde(deserialize_with = "text")]
    pub roles: String,
    /// The path of the claim that contains the scopes.
    #[serde(deserialize_with = "text")]
    pub scopes: String,
    /// Accepted values of the `typ` header parameter; `""` accepts a token without `typ`.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub types: Vec<String>,
    /// The path of the claim that names the subject.
    #[serde(deserialize_with = "text")]
    pub subject: String,
    /// The path of the claim that names the audience.
    #[serde(deserialize_with = "text")]
    pub audience_claim: String,
    /// Maximum time from `iat` to `exp`.
    pub max_lifetime: Option<Duration>,
    /// Paths of claims that each token must have.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub required_claims: Vec<String>,
    /// Values that claims of each token must have, as a map from claim path to value.
    pub claims: BTreeMap<String, ClaimValues>,
    /// The accepted tenants of an issuer whose name contains `{tenant}`; `*` accepts every tenant.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub tenants: Vec<String>,
    /// The SPIFFE trust domain of the issuer's JWT-SVIDs.
    #[serde(deserialize_with = "optional_text")]
    pub trust_domain: Option<String>,
    /// Claims that a token may lack: `iss`, `aud`; with introspection also `token_type`.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub may_lack: Vec<String>,
    /// Whether the claim of the roles is an object whose members' names are the roles.
    pub roles_are_keys: bool,
    /// How the issuer is asked about tokens (RFC 7662).
    #[serde(deserialize_with = "optional_table")]
    pub introspection: Option<IntrospectionSection>,
}

impl Default for IssuerSection {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            audience: Vec::new(),
            algorithms: Vec::new(),
            jwks: None,
            discovery: false,
            jwks_refresh: Duration::seconds(15 * 60),
            jwks_max_age: Duration::seconds(24 * 3600),
            jwks_cooldown: Duration::seconds(5),
            ca: None,
            private_networks: Vec::new(),
            allow_http: false,
            secret: None,
            secret_encoding: SecretEncoding::Text,
            public_key: None,
            kid: None,
            leeway: Duration::seconds(30),
            roles: "roles".to_owned(),
            scopes: "scope".to_owned(),
            types: ["at+jwt", "JWT", ""].map(str::to_owned).to_vec(),
            subject: "sub".to_owned(),
            audience_claim: "aud".to_owned(),
            max_lifetime: None,
            required_claims: Vec::new(),
            claims: BTreeMap::new(),
            tenants: Vec::new(),
            trust_domain: None,
            may_lack: Vec::new(),
            roles_are_keys: false,
            introspection: None,
        }
    }
}

/// `[issuer.introspection]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IntrospectionSection {
    /// The URL of the introspection endpoint; if absent, the issuer's metadata name it, which needs `discovery`.
    #[serde(deserialize_with = "optional_text")]
    pub endpoint: Option<String>,
    /// How the gateway proves to the issuer that it may ask.
    #[serde(deserialize_with = "word")]
    pub auth: IntrospectionAuth,
    /// The gateway's client id at the issuer.
    #[serde(deserialize_with = "optional_text")]
    pub client_id: Option<String>,
    /// The gateway's client secret at the issuer; with `auth = "bearer"` its access token.
    pub secret: Option<Secret>,
    /// Whether the issuer signs its answers (RFC 9701).
    pub jwt: bool,
    /// Whether the issuer is also asked about each token whose signature the gateway verifies.
    pub always: bool,
    /// Prefixes of the issuer's opaque tokens; if empty, the issuer is asked about every opaque token.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub prefixes: Vec<String>,
    /// Maximum time for which an answer about an active token is used.
    pub max_age: Duration,
    /// Time for which an answer about an inactive token is used.
    pub negative_max_age: Duration,
    /// Maximum time for an answer.
    pub timeout: Duration,
    /// Maximum rate of questions about tokens that were not active lately.
    pub rate: Rate,
    /// Maximum number of open questions.
    pub concurrent: u32,
}

impl Default for IntrospectionSection {
    fn default() -> Self {
        Self {
            endpoint: None,
            auth: IntrospectionAuth::Basic,
            client_id: None,
            secret: None,
            jwt: false,
            always: false,
            prefixes: Vec::new(),
            max_age: Duration::seconds(60),
            negative_max_age: Duration::seconds(10),
            timeout: Duration::seconds(3),
            rate: Rate { count: NonZeroU32::MIN.saturating_add(99), per: std::time::Duration::from_secs(1) },
            concurrent: 32,
        }
    }
}

/// `[issuer.introspection] auth`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum IntrospectionAuth {
    /// `client_id` and `secret` in `Authorization` (`client_secret_basic`).
    Basic,
    /// `client_id` and `secret` in the form (`client_secret_post`).
    Post,
    /// `secret` is an access token.
    Bearer,
    /// The gateway does not identify itself.
    None,
}

/// `[[issuer]] secret_encoding`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum SecretEncoding {
    /// The bytes of the text are the secret.
    Text,
    /// The secret is the bytes that the text encodes in base64.
    Base64,
    /// The secret is the bytes that the text encodes in base64url.
    Base64url,
}

/// `[authority]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuthoritySection {
    /// The `iss` claim of the authority's tokens.
    #[serde(deserialize_with = "text")]
    pub issuer: String,
    /// The `aud` claim of the authority's tokens.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub audience: Vec<String>,
    /// The signature algorithm of the authority's tokens.
    #[serde(deserialize_with = "text")]
    pub algorithm: String,
    /// The lifetime of access tokens.
    pub access_expires: Duration,
    /// The time between two key rotations; if zero, keys rotate only by command.
    pub rotate_keys: Duration,
    /// The secret that signs tokens if `algorithm` is HS256.
    pub secret: Option<Secret>,
    /// The place of the signing keys.
    #[serde(deserialize_with = "word")]
    pub signing_keys: SigningKeys,
    /// The secret with which signing keys in the store are encrypted.
    pub signing_keys_secret: Option<Secret>,
    /// Another secret with which signing keys in the store may be encrypted, while the secret is being changed.
    pub other_signing_keys_secret: Option<Secret>,
    /// The lifetime of refresh tokens.
    pub refresh_expires: Duration,
    /// How long after its first use a refresh token still returns the same successor.
    pub refresh_grace: Duration,
    /// Maximum duration of a session, however often it is refreshed.
    pub session_expires: Duration,
    /// Maximum number of sessions of an account; beyond it, a new session ends the oldest.
    pub sessions: u32,
    /// Maximum number of roles in a token.
    pub role_limit: RoleLimit,
    /// Claims that are copied from account attributes, as a map from claim to attribute.
    #[serde(deserialize_with = "named_texts")]
    pub claims: BTreeMap<String, String>,
    /// Whether the authority also sets its tokens as cookies.
    pub cookies: bool,
    /// The `SameSite` attribute of the authority's cookies.
    #[serde(deserialize_with = "word")]
    pub same_site: SameSite,
    /// Other origins from which requests with cookies are accepted. The origin of the requested URL is always accepted.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub origins: Vec<String>,
    /// The URL of the store of accounts and sessions, `sqlite:PATH` or `postgres://`; if absent, a file in the state
    /// folder.
    #[serde(serialize_with = "shown::store")]
    pub store: Option<Secret>,
    /// Names of rate limits for the endpoints that check a password or a client's secret.
    #[serde(deserialize_with = "optional_one_or_many", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OneOrMany<String>")]
    pub rate_limits: Option<Vec<String>>,
    /// Rate limits of single endpoints, as a map from endpoint to names of limits.
    #[serde(deserialize_with = "named_lists")]
    #[schemars(with = "BTreeMap<String, OneOrMany<String>>")]
    pub limits: BTreeMap<String, Vec<String>>,
    /// Paths of endpoints that differ from the default, as a map from endpoint to path.
    #[serde(deserialize_with = "named_texts")]
    pub paths: BTreeMap<String, String>,
    /// Services that may request tokens, by client id.
    #[serde(deserialize_with = "named_tables")]
    pub client: BTreeMap<String, ClientSection>,
    /// The issuer whose responses the authority imitates for existing clients.
    #[serde(deserialize_with = "optional_word")]
    pub compat: Option<Compat>,
}

/// `[authority.client.ID]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClientSection {
    /// The secret with which the client authenticates.
    pub secret: Option<Secret>,
    /// The roles in the client's tokens.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub roles: Vec<String>,
    /// The scopes that the client may request. A request that names no scope is granted all of them.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub scopes: Vec<String>,
    /// The `aud` claim of the client's tokens, instead of the authority's `audience`.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub audience: Vec<String>,
    /// Whether the client may introspect tokens (RFC 7662), which reveals the roles of their subjects.
    pub introspect: bool,
}

/// `[authority] same_site`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum SameSite {
    /// Browsers send the cookies only with requests from the same site.
    Strict,
    /// Browsers also send the cookies when a user follows a link from another site.
    Lax,
}

/// `[authority] signing_keys`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum SigningKeys {
    /// In the state folder.
    Folder,
    /// In the store, encrypted, for all gateways that use it.
    Store,
}

/// `[authority] compat`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Compat {
    /// Imitates the responses of an application that uses Flask-JWT-Extended.
    FlaskJwtExtended,
}

impl Default for AuthoritySection {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            audience: Vec::new(),
            algorithm: "ES256".to_owned(),
            access_expires: Duration::seconds(15 * 60),
            rotate_keys: Duration::seconds(30 * 24 * 60 * 60),
            secret: None,
            signing_keys: SigningKeys::Folder,
            signing_keys_secret: None,
            other_signing_keys_secret: None,
            refresh_expires: Duration::seconds(7 * 24 * 3600),
            refresh_grace: Duration::seconds(10),
            session_expires: Duration::seconds(30 * 24 * 3600),
            sessions: 100,
            role_limit: RoleLimit::AtMost(3),
            claims: BTreeMap::new(),
            cookies: false,
            same_site: SameSite::Strict,
            origins: Vec::new(),
            store: None,
            rate_limits: None,
            limits: BTreeMap::new(),
            paths: BTreeMap::new(),
            client: BTreeMap::new(),
            compat: None,
        }
    }
}

/// `[api_keys]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ApiKeysSection {
    /// The header that carries an API key.
    #[serde(deserialize_with = "text")]
    pub header: String,
}

impl Default for ApiKeysSection {
    fn default() -> Self {
        Self { header: "X-API-Key".to_owned() }
    }
}

/// `[state]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StateSection {
    /// The path of the folder.
    #[serde(deserialize_with = "text")]
    pub dir: String,
}

impl Default for StateSection {
    fn default() -> Self {
        Self { dir: "state".to_owned() }
    }
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// The format of log lines.
    #[serde(deserialize_with = "word")]
    pub format: LogFormat,
    /// Which requests are logged.
    #[serde(deserialize_with = "word")]
    pub access: LogAccess,
    /// The lowest level that is logged.
    #[serde(deserialize_with = "word")]
    pub level: LogLevel,
}

impl Default for LogSection {
    fn default() -> Self {
        Self { format: LogFormat::Auto, access: LogAccess::On, level: LogLevel::Info }
    }
}

/// `[log] format`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Human-readable on a terminal, JSON elsewhere.
    Auto,
    /// Human-readable text.
    Human,
    /// JSON, for programs.
    Json,
}

/// `[log] access`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogAccess {
    /// Every request.
    On,
    /// No request.
    Off,
    /// Refused requests only.
    Refusals,
}

/// `[log] level`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Failures that stop the gateway or a part of it.
    Error,
    /// Events that an operator should look at, and errors.
    Warn,
    /// Events of normal operation, warnings and errors.
    Info,
    /// Details for debugging, and all other events.
    Debug,
}

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

/// `[rate_limit.NAME]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimitSection {
    /// The property by which requests are counted: `client_ip`, `subject`, `route`, `header:NAME` or `claim:PATH`.
    #[serde(deserialize_with = "text")]
    pub by: String,
    /// The sustained rate.
    pub rate: Option<Rate>,
    /// Number of requests allowed at once; if absent, the number in `rate`.
    pub burst: Option<u32>,
    /// The claim path whose value selects one of `rates`.
    #[serde(deserialize_with = "optional_text")]
    pub rate_claim: Option<String>,
    /// Other rates, as a map from the value of the claim to the rate.
    pub rates: BTreeMap<String, Rate>,
    /// Whether all gateways count together; if absent, they do if there is a `[shared]`.
    pub shared: Option<bool>,
    /// Whether each request asks the shared state, and waits for the answer.
    pub exact: bool,
}

impl Default for RateLimitSection {
    fn default() -> Self {
        Self {
            by: "client_ip".to_owned(),
            rate: None,
            burst: None,
            rate_claim: None,
            rates: BTreeMap::new(),
            shared: None,
            exact: false,
        }
    }
}

/// `[resource.NAME]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ResourceSection {
    /// The resource identifier: an https URL without a query and a fragment.
    #[serde(deserialize_with = "text")]
    pub identifier: String,
    /// The issuers whose tokens the resource accepts; if empty, all issuers of the policy.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub issuers: Vec<String>,
    /// The scopes that a client may request; if empty, the scopes that the resource's routes require.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub scopes: Vec<String>,
    /// The human-readable name of the resource.
    #[serde(deserialize_with = "optional_text")]
    pub name: Option<String>,
    /// The URL of the documentation for developers.
    #[serde(deserialize_with = "optional_text")]
    pub documentation: Option<String>,
    /// The URL of the rules for using the resource's data.
    #[serde(deserialize_with = "optional_text")]
    pub policy: Option<String>,
    /// The URL of the terms of service.
    #[serde(deserialize_with = "optional_text")]
    pub terms: Option<String>,
}

/// `[cors.NAME]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CorsSection {
    /// The origins whose scripts may read the answers.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub origins: Vec<String>,
    /// The methods that scripts may use; if empty, the methods of the route.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub methods: Vec<String>,
    /// The request header fields that scripts may set.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub headers: Vec<String>,
    /// The header fields of answers that scripts may read, in addition to those of the gateway.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub expose: Vec<String>,
    /// Whether requests may carry cookies.
    pub credentials: bool,
    /// How long a browser may cache the answer to a preflight.
    pub max_age: Duration,
    /// Whether a page of a public network may call the route in a private network.
    pub private_network: bool,
}

impl Default for CorsSection {
    fn default() -> Self {
        Self {
            origins: Vec::new(),
            methods: Vec::new(),
            headers: vec!["authorization".to_owned(), "content-type".to_owned()],
            expose: Vec::new(),
            credentials: false,
            max_age: Duration::seconds(600),
            private_network: false,
        }
    }
}

/// `[signals.NAME]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SignalsSection {
    /// The issuer whose tokens the signals revoke: the `issuer` of an `[[issuer]]`.
    #[serde(deserialize_with = "text")]
    pub issuer: String,
    /// The `iss` claim of security event tokens, if it is not the issuer's.
    #[serde(deserialize_with = "optional_text")]
    pub transmitter: Option<String>,
    /// Accepted values of the `aud` claim of security event tokens and logout tokens.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub audience: Vec<String>,
    /// Path or `https` URL of the transmitter's JSON Web Key Set, if it does not sign with the issuer's keys.
    #[serde(deserialize_with = "optional_text")]
    pub jwks: Option<String>,
    /// The path of the endpoint for pushed security event tokens.
    #[serde(deserialize_with = "optional_text")]
    pub push: Option<String>,
    /// The bearer token that the transmitter must present when it pushes.
    pub push_secret: Option<Secret>,
    /// The path of the endpoint for back-channel logout.
    #[serde(deserialize_with = "optional_text")]
    pub logout: Option<String>,
    /// The URL at which the gateway polls for security event tokens.
    #[serde(deserialize_with = "optional_text")]
    pub poll: Option<String>,
    /// The bearer token that the gateway presents when it polls.
    pub poll_secret: Option<Secret>,
    /// Path of a PEM file with the certificate authorities to trust for `poll` and `jwks` instead of those of the system.
    #[serde(deserialize_with = "optional_text")]
    pub ca: Option<String>,
    /// Private networks in which the servers of `poll` and `jwks` may be. Without an entry they must have public
    /// addresses.
    #[serde(deserialize_with = "networks")]
    #[schemars(with = "OneOrMany<Cidr>")]
    pub private_networks: Vec<Cidr>,
    /// Whether `poll` and `jwks` may be `http` URLs.
    pub allow_http: bool,
    /// What a subject identifier of format `opaque` names.
    #[serde(deserialize_with = "optional_word")]
    pub opaque: Option<OpaqueSubject>,
    /// Whether every access token of the issuer has the claim `sid`.
    pub has_sid: bool,
    /// Names of rate limits for the endpoints; if absent, a default limit applies.
    #[serde(deserialize_with = "optional_one_or_many", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OneOrMany<String>")]
    pub rate_limits: Option<Vec<String>>,
}

/// What an `opaque` subject identifier names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OpaqueSubject {
    /// The subject, `sub`.
    Subject,
    /// The session, `sid`.
    Session,
}

/// `[identity]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IdentitySection {
    /// The header that carries the `sub` claim.
    #[serde(deserialize_with = "text")]
    pub subject: String,
    /// The header that carries the roles.
    #[serde(deserialize_with = "text")]
    pub roles: String,
    /// The header that carries the scopes.
    #[serde(deserialize_with = "text")]
    pub scopes: String,
    /// The header that carries the `iss` claim.
    #[serde(deserialize_with = "text")]
    pub issuer: String,
    /// Headers that carry other claims, as a map from header name to claim path.
    #[serde(deserialize_with = "named_texts")]
    pub claims: BTreeMap<String, String>,
    /// The header that carries a JWT as proof of the other identity headers.
    #[serde(deserialize_with = "text")]
    pub assertion: String,
    /// Whether each assertion is bound to its request.
    pub assertion_binds: bool,
    /// The header that carries an HMAC as proof of the other identity headers.
    #[serde(deserialize_with = "text")]
    pub signature: String,
    /// Whether upstreams receive the caller's verified token.
    pub forward_token: bool,
    /// Identity fields of other products that are forwarded if a trusted proxy sends them.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub pass: Vec<String>,
}

impl Default for IdentitySection {
    fn default() -> Self {
        Self {
            subject: "X-Auth-Subject".to_owned(),
            roles: "X-Auth-Roles".to_owned(),
            scopes: "X-Auth-Scopes".to_owned(),
            issuer: "X-Auth-Issuer".to_owned(),
            claims: BTreeMap::new(),
            assertion: String::new(),
            assertion_binds: false,
            signature: String::new(),
            forward_token: false,
            pass: Vec::new(),
        }
    }
}

/// `[dpop]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DpopSection {
    /// Whether each proof must contain a nonce of the gateway.
    #[serde(deserialize_with = "word")]
    pub nonce: DpopNonce,
    /// The secret that authenticates the nonces; if absent, each process creates its own.
    pub nonce_secret: Option<Secret>,
    /// A further secret whose nonces are accepted, while the secret is being replaced.
    pub previous_nonce_secret: Option<Secret>,
    /// How long a proof or a nonce can be used.
    pub window: Duration,
    /// The maximum number of remembered proofs.
    pub replay_entries: usize,
    /// Whether challenges for bearer tokens also offer DPoP.
    pub announce: bool,
}

impl Default for DpopSection {
    fn default() -> Self {
        Self {
            nonce: DpopNonce::Optional,
            nonce_secret: None,
            previous_nonce_secret: None,
            window: Duration::seconds(60),
            replay_entries: 1_000_000,
            announce: false,
        }
    }
}

/// `[dpop] nonce`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum DpopNonce {
    /// A proof with a recent `iat` needs no nonce.
    Optional,
    /// Each proof must contain a nonce.
    Required,
}

/// `[shared]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SharedSection {
    /// The URL of one server.
    #[serde(deserialize_with = "optional_text", serialize_with = "shown::server")]
    pub url: Option<String>,
    /// URLs of the Sentinels that choose the server.
    #[serde(deserialize_with = "one_or_many", serialize_with = "shown::servers")]
    #[schemars(with = "OneOrMany<String>")]
    pub sentinels: Vec<String>,
    /// The name that the Sentinels give to the server.
    #[serde(deserialize_with = "optional_text")]
    pub master: Option<String>,
    /// URLs of some nodes of a cluster.
    #[serde(deserialize_with = "one_or_many", serialize_with = "shown::servers")]
    #[schemars(with = "OneOrMany<String>")]
    pub cluster: Vec<String>,
    /// The number of the database.
    pub database: u16,
    /// The ACL user; if absent, the default user.
    #[serde(deserialize_with = "optional_text")]
    pub user: Option<String>,
    /// The password of the user.
    pub password: Option<Secret>,
    /// The ACL user at the Sentinels.
    #[serde(deserialize_with = "optional_text")]
    pub sentinel_user: Option<String>,
    /// The password at the Sentinels.
    pub sentinel_password: Option<Secret>,
    /// Path of a PEM file with the certificate authorities to trust instead of those of the system.
    #[serde(deserialize_with = "optional_text")]
    pub ca: Option<String>,
    /// The first part of every key.
    #[serde(deserialize_with = "text")]
    pub prefix: String,
    /// How long opening a connection may take.
    pub connect_timeout: Duration,
    /// How long a call waits for its answer.
    pub answer_timeout: Duration,
    /// Whether the gateways share the used DPoP proofs.
    pub replay: bool,
    /// The secret that authenticates the key sets of issuers; if absent, each gateway fetches them for itself.
    pub keys_secret: Option<Secret>,
    /// A further secret whose key sets are accepted, while the secret is being replaced.
    pub other_keys_secret: Option<Secret>,
    /// The behaviour of each use while the shared state does not answer.
    #[serde(deserialize_with = "table")]
    pub on_error: OnErrorSection,
}

impl Default for SharedSection {
    fn default() -> Self {
        Self {
            url: None,
            sentinels: Vec::new(),
            master: None,
            cluster: Vec::new(),
            database: 0,
            user: None,
            password: None,
            sentinel_user: None,
            sentinel_password: None,
            ca: None,
            prefix: "portcullis".to_owned(),
            connect_timeout: Duration::seconds(1),
            answer_timeout: Duration::millis(100),
            replay: false,
            keys_secret: None,
            other_keys_secret: None,
            on_error: OnErrorSection::default(),
        }
    }
}

/// `[shared.on_error]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OnErrorSection {
    /// Limits of the fleet.
    #[serde(deserialize_with = "word")]
    pub limits: OnError,
    /// Failed logins, counted by all gateways.
    #[serde(deserialize_with = "word")]
    pub login: OnError,
    /// Revocations, on gateways that read them from no store.
    #[serde(deserialize_with = "word")]
    pub revocation: OnError,
    /// The used DPoP proofs.
    #[serde(deserialize_with = "word")]
    pub replay: OnError,
}

impl Default for OnErrorSection {
    fn default() -> Self {
        Self {
            limits: OnError::Allow,
            login: OnError::Allow,
            revocation: OnError::Deny,
            replay: OnError::Deny,
        }
    }
}

/// `[shared.on_error] USE`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// The gateway decides by what it knows itself.
    Allow,
    /// The gateway refuses what it cannot check.
    Deny,
}

impl OnError {
    /// Returns the word in the policy.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// `[rule.NAME]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RuleSection {
    /// Roles, any one of which is required.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub roles: Vec<String>,
    /// Roles that are all required.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub all_roles: Vec<String>,
    /// Roles that the caller must not have.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub not_roles: Vec<String>,
    /// Scopes that are all required.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub scopes: Vec<String>,
    /// Scopes, any one of which is required.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub any_scopes: Vec<String>,
    /// Required claims, as a map from claim path to value.
    pub claims: BTreeMap<String, ClaimValues>,
    /// Issuers whose tokens are accepted; if empty, tokens of all issuers are accepted.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub issuers: Vec<String>,
    /// Whether the token must come from a login with a password, and the maximum age of that login.
    pub fresh: Fresh,
    /// Whether the token must be bound to a key of its sender.
    pub require_bound: bool,
}

/// `[[route]]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteSection {
    /// The name in logs and metrics; if empty, the path.
    #[serde(deserialize_with = "text")]
    pub name: String,
    /// A host, `*.host`, or empty for any host.
    #[serde(deserialize_with = "text")]
    pub host: String,
    /// The path pattern: literal segments, `{parameter}`, `{*rest}`.
    #[serde(deserialize_with = "text")]
    pub path: String,
    /// The methods that the route matches; if empty, it matches all.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub methods: Vec<String>,
    /// The header fields that a request must have, as a map from name to value.
    #[serde(deserialize_with = "named_texts")]
    pub headers: BTreeMap<String, String>,
    /// The name of the upstream.
    #[serde(deserialize_with = "text")]
    pub upstream: String,
    /// The folder whose files the route serves, in place of an upstream.
    #[serde(deserialize_with = "text")]
    pub files: String,
    /// Other upstreams that share the requests.
    #[serde(deserialize_with = "tables")]
    pub split: Vec<SplitSection>,
    /// The properties by which a request stays with one upstream of `split`.
    #[serde(deserialize_with = "optional_one_or_many", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OneOrMany<String>")]
    pub split_by: Option<Vec<String>>,
    /// The name of the upstream that gets copies of the requests.
    #[serde(deserialize_with = "text")]
    pub mirror: String,
    /// The percentage of the requests that are copied.
    pub mirror_percent: Option<u16>,
    /// The largest body that is copied.
    pub mirror_body: Option<ByteSize>,
    /// Whether a token is required.
    #[serde(deserialize_with = "word")]
    pub access: Access,
    /// Names of rules that callers must meet in addition.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub rule: Vec<String>,
    /// Roles, any one of which is required.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub roles: Vec<String>,
    /// Roles that are all required.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub all_roles: Vec<String>,
    /// Roles that the caller must not have.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub not_roles: Vec<String>,
    /// Scopes that are all required.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub scopes: Vec<String>,
    /// Scopes, any one of which is required.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub any_scopes: Vec<String>,
    /// Required claims, as a map from claim path to value.
    pub claims: BTreeMap<String, ClaimValues>,
    /// Issuers whose tokens are accepted; if empty, tokens of all issuers are accepted.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub issuers: Vec<String>,
    /// The part of the caller's identity that the upstream receives; all of it if absent.
    #[serde(deserialize_with = "optional_one_or_many", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OneOrMany<String>")]
    pub identity: Option<Vec<String>>,
    /// Names of rate limits.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub rate_limits: Vec<String>,
    /// The name of the `[cors.NAME]` for scripts of other origins.
    #[serde(deserialize_with = "optional_text")]
    pub cors: Option<String>,
    /// The URL to which the route redirects, in place of an upstream.
    #[serde(deserialize_with = "optional_text")]
    pub redirect: Option<String>,
    /// The status of the redirect.
    pub redirect_status: Option<u16>,
    /// Refuses all requests, and the time after which clients try again.
    pub maintenance: Option<Duration>,
    /// A path prefix to remove before forwarding.
    #[serde(deserialize_with = "optional_text")]
    pub strip_prefix: Option<String>,
    /// A path prefix to add before forwarding.
    #[serde(deserialize_with = "optional_text")]
    pub add_prefix: Option<String>,
    /// A regular expression for the whole path.
    #[serde(deserialize_with = "optional_text")]
    pub rewrite_pattern: Option<String>,
    /// The path that replaces a path which matches `rewrite_pattern`.
    #[serde(deserialize_with = "optional_text")]
    pub rewrite_to: Option<String>,
    /// The `Host` that the upstream receives.
    #[serde(deserialize_with = "optional_text")]
    pub rewrite_host: Option<String>,
    /// Header fields that replace those of the client.
    #[serde(deserialize_with = "named_texts", serialize_with = "shown::headers")]
    pub set_request_headers: BTreeMap<String, String>,
    /// Header fields to add to those of the client.
    #[serde(deserialize_with = "named_texts", serialize_with = "shown::headers")]
    pub add_request_headers: BTreeMap<String, String>,
    /// Header fields of the client that the upstream does not receive.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub remove_request_headers: Vec<String>,
    /// Trailers of the client that the upstream receives.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub request_trailers: Vec<String>,
    /// Header fields that replace those of the upstream.
    #[serde(deserialize_with = "named_texts", serialize_with = "shown::headers")]
    pub set_response_headers: BTreeMap<String, String>,
    /// Header fields to add to those of the upstream.
    #[serde(deserialize_with = "named_texts", serialize_with = "shown::headers")]
    pub add_response_headers: BTreeMap<String, String>,
    /// Header fields of the upstream that the client does not receive.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub remove_response_headers: Vec<String>,
    /// The codings with which answers are compressed, the preferred one first.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub compress: Vec<String>,
    /// The media types that are compressed; if empty, the usual ones.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub compress_types: Vec<String>,
    /// Whether answers to requests with credentials are compressed too.
    pub compress_with_credentials: bool,
    /// Overrides the security headers of the policy.
    #[serde(deserialize_with = "optional_word")]
    pub security_headers: Option<SecurityHeaders>,
    /// Whether the upstream of a public route receives the client's `Authorization` unchanged.
    pub pass_authorization: bool,
    /// Overrides the timeout of the upstream.
    pub timeout: Option<Duration>,
    /// Whether the route forwards WebSockets.
    pub websocket: bool,
    /// Whether WebSockets, long answers and long uploads end with the token.
    #[serde(deserialize_with = "word")]
    pub streams: Streams,
    /// The maximum time without a byte in the body of an answer, or in either direction of a WebSocket.
    pub silence: Option<Duration>,
    /// Whether the token must come from a login with a password, and the maximum age of that login.
    pub fresh: Fresh,
    /// Whether the token must be bound to a key of its sender.
    pub require_bound: bool,
    /// Overrides where a request may carry its token.
    pub sources: Option<Vec<TokenSource>>,
    /// How a browser without a token is sent to log in.
    #[serde(deserialize_with = "optional_word")]
    pub login: Option<Login>,
    /// The name of the form field that may carry the CSRF token.
    #[serde(deserialize_with = "optional_text")]
    pub csrf_field: Option<String>,
    /// Overrides the mode of the policy.
    #[serde(deserialize_with = "optional_word")]
    pub mode: Option<Mode>,
    /// Findings that are waived for this route, as a map from id to reason.
    #[serde(deserialize_with = "named_texts")]
    pub waive: BTreeMap<String, String>,
}

/// `[[route]] split`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SplitSection {
    /// The name of the upstream.
    #[serde(deserialize_with = "text")]
    pub upstream: String,
    /// The percentage of the requests that no property selects.
    pub percent: Option<u16>,
    /// The header fields that select the upstream.
    #[serde(deserialize_with = "named_texts")]
    pub headers: BTreeMap<String, String>,
    /// The subjects that select the upstream.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub subjects: Vec<String>,
    /// The roles, any of which selects the upstream.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub roles: Vec<String>,
}

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
    /// Whether all servers of the upstream are reached over TLS.
    pub upstream_tls: Option<bool>,
    /// Whether clients of the request's host are asked for a certificate.
    pub client_certificate: Option<CertificateDemand>,
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

/// `[[route]] streams`
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Streams {
    /// Ends WebSockets, long answers and long uploads when the token expires or is revoked.
    #[default]
    Expiry,
    /// Lets WebSockets, long answers and long uploads continue.
    Open,
}

/// `[[route]] login`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Login {
    /// Redirects a browser to the authority's login page.
    Page,
}

/// `[[route]] access`
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Requires a valid token.
    #[default]
    Authenticated,
    /// Accepts a valid token or no token.
    Optional,
    /// Neither requires nor reads a token.
    Public,
}
