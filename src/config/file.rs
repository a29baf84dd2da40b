//! Exactly what the operator wrote: typed, unresolved, one type for each table of gateway.toml.
//!
//! Every table refuses keys that it does not know, and every key has a default, so that one reading finds all
//! faults. What must be there and is not, what refers to nothing, what contradicts itself: that is for the compiler
//! of the policy to say. `docs/reference.md` tells operators what each key does.

use super::network::{Cidr, Listen, networks};
use super::reading::{
    named_lists, named_tables, named_texts, one_or_many, optional_one_or_many, optional_table, optional_text,
    optional_word, table, tables, text, word,
};
use super::schema::OneOrMany;
use super::secret::Secret;
use super::shown;
use super::units::{ByteSize, Duration, Rate};
use super::values::{Fresh, Literal, RoleLimit, TlsVersion, TokenSource};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// How this file itself is taken.
    #[serde(deserialize_with = "table")]
    pub policy: PolicySection,
    /// Where to listen, and within which bounds.
    #[serde(deserialize_with = "table")]
    pub server: ServerSection,
    /// The certificate; absent: a self-signed one.
    #[serde(deserialize_with = "optional_table")]
    pub tls: Option<TlsSection>,
    /// Whose tokens are accepted.
    #[serde(deserialize_with = "tables")]
    pub issuer: Vec<IssuerSection>,
    /// The local issuer.
    #[serde(deserialize_with = "optional_table")]
    pub authority: Option<AuthoritySection>,
    /// Where what is made at first start is kept.
    #[serde(deserialize_with = "table")]
    pub state: StateSection,
    /// What is logged, and how.
    #[serde(deserialize_with = "table")]
    pub log: LogSection,
    /// Where requests go.
    #[serde(deserialize_with = "named_tables")]
    pub upstream: BTreeMap<String, UpstreamSection>,
    /// How fast.
    #[serde(deserialize_with = "named_tables")]
    pub rate_limit: BTreeMap<String, RateLimitSection>,
    /// What upstreams learn of the caller.
    #[serde(deserialize_with = "table")]
    pub identity: IdentitySection,
    /// What is asked of whom, where.
    #[serde(deserialize_with = "tables")]
    pub route: Vec<RouteSection>,
    /// What is expected of all that.
    #[serde(deserialize_with = "tables")]
    pub test: Vec<TestSection>,
}

/// `[policy]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PolicySection {
    /// What a refusal means on routes that do not say otherwise.
    #[serde(deserialize_with = "word")]
    pub mode: Mode,
    /// What a failing test means to a start or a reload.
    #[serde(deserialize_with = "word")]
    pub tests: Tests,
    /// How many recent decisions are remembered; 0: none.
    pub decisions: usize,
    /// Findings that are accepted wherever they are, each with the reason.
    #[serde(deserialize_with = "named_texts")]
    pub waive: BTreeMap<String, String>,
}

impl Default for PolicySection {
    fn default() -> Self {
        Self { mode: Mode::Enforce, tests: Tests::Enforce, decisions: 1000, waive: BTreeMap::new() }
    }
}

/// `[policy] mode`, `[[route]] mode`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// What is refused does not pass.
    Enforce,
    /// It passes, and is logged and counted.
    Shadow,
}

/// `[policy] tests`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Tests {
    /// A policy whose tests fail is not served.
    Enforce,
    /// It is served, with a warning.
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
    /// What cleartext listeners do.
    #[serde(deserialize_with = "word")]
    pub plain: Plain,
    /// The https port that clients use; absent, that of the first address.
    pub public_port: Option<u16>,
    /// Addresses for health and metrics.
    pub admin: Listen,
    /// Values of `Host` that the admin listener accepts besides its addresses.
    pub admin_hosts: Vec<String>,
    /// Cores to use; 0: all.
    pub workers: usize,
    /// How long the gateway keeps serving after SIGTERM or SIGINT, while it reports that it is not ready.
    pub drain_delay: Duration,
    /// How long requests in progress may continue after that.
    pub drain: Duration,
    /// When the file is read again.
    #[serde(deserialize_with = "word")]
    pub reload: Reload,
    /// Whose forwarding fields are believed.
    #[serde(deserialize_with = "networks")]
    #[schemars(with = "OneOrMany<Cidr>")]
    pub trusted_proxies: Vec<Cidr>,
    /// What becomes of `//` in paths.
    #[serde(deserialize_with = "word")]
    pub paths: Paths,
    /// What a client may make us hold or wait for.
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
            paths: Paths::Strict,
            bounds: BoundsSection::default(),
        }
    }
}

/// `[server] plain`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Plain {
    /// Send clients to TLS.
    Redirect,
    /// Serve them.
    Serve,
}

/// `[server] reload`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Reload {
    /// When the process is told to.
    Signal,
    /// And when the file has changed.
    Watch,
}

/// `[server] paths`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Paths {
    /// `//` is refused.
    Strict,
    /// `//` becomes `/`.
    Merge,
}

/// `[server.bounds]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BoundsSection {
    /// From the first byte of a head to its last.
    pub header_timeout: Duration,
    /// Bytes of a head.
    pub header_size: ByteSize,
    /// Fields of a head.
    pub headers: usize,
    /// Bytes of a body.
    pub body_size: ByteSize,
    /// Between two reads of a body, or two writes of an answer.
    pub body_timeout: Duration,
    /// The minimum rate of a body or an answer, in bytes a second, after `body_timeout`; 0: any.
    pub min_rate: ByteSize,
    /// Between two requests of a connection.
    pub idle_timeout: Duration,
    /// Connections at once.
    pub connections: usize,
    /// HTTP/2 streams at once, a connection.
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
    /// Path of its key, PEM.
    #[serde(deserialize_with = "text")]
    pub key: String,
    /// The oldest version that clients may speak.
    pub min_version: TlsVersion,
    /// `Strict-Transport-Security`; empty: none.
    #[serde(deserialize_with = "text")]
    pub hsts: String,
}

impl Default for TlsSection {
    fn default() -> Self {
        Self {
            certificate: String::new(),
            key: String::new(),
            min_version: TlsVersion::Tls12,
            hsts: "max-age=31536000".to_owned(),
        }
    }
}

/// `[[issuer]]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IssuerSection {
    /// `iss`.
    #[serde(deserialize_with = "text")]
    pub issuer: String,
    /// `aud`: any of these.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub audience: Vec<String>,
    /// What it signs with.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub algorithms: Vec<String>,
    /// Path of a JSON Web Key Set.
    #[serde(deserialize_with = "optional_text")]
    pub jwks: Option<String>,
    /// A shared secret.
    pub secret: Option<Secret>,
    /// A public key, PEM.
    pub public_key: Option<Secret>,
    /// The key id of `secret` or `public_key`.
    #[serde(deserialize_with = "optional_text")]
    pub kid: Option<String>,
    /// How far its clock may be off.
    pub leeway: Duration,
    /// Where the roles are.
    #[serde(deserialize_with = "text")]
    pub roles: String,
    /// Where the scopes are.
    #[serde(deserialize_with = "text")]
    pub scopes: String,
    /// Accepted `typ`; `""` stands for none.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub types: Vec<String>,
}

impl Default for IssuerSection {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            audience: Vec::new(),
            algorithms: Vec::new(),
            jwks: None,
            secret: None,
            public_key: None,
            kid: None,
            leeway: Duration::seconds(30),
            roles: "roles".to_owned(),
            scopes: "scope".to_owned(),
            types: ["at+jwt", "JWT", ""].map(str::to_owned).to_vec(),
        }
    }
}

/// `[authority]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuthoritySection {
    /// `iss` of its tokens.
    #[serde(deserialize_with = "text")]
    pub issuer: String,
    /// `aud` of its tokens.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub audience: Vec<String>,
    /// What it signs with.
    #[serde(deserialize_with = "text")]
    pub algorithm: String,
    /// How long its access tokens live.
    pub access_expires: Duration,
    /// After how long another key signs; zero: only by command.
    pub rotate_keys: Duration,
    /// The secret, for HS256.
    pub secret: Option<Secret>,
    /// How long its refresh tokens live.
    pub refresh_expires: Duration,
    /// For how long after it was spent a refresh token gets its very same successor once more.
    pub refresh_grace: Duration,
    /// The absolute end of a session, however often it is refreshed.
    pub session_expires: Duration,
    /// How many sessions an account may have at once; the oldest ends for a new one.
    pub sessions: u32,
    /// How many roles a token carries at most.
    pub role_limit: RoleLimit,
    /// Claims of its tokens, from attributes of accounts: claim to attribute.
    #[serde(deserialize_with = "named_texts")]
    pub claims: BTreeMap<String, String>,
    /// Whether it gives its tokens as cookies too.
    pub cookies: bool,
    /// `SameSite` of its cookies.
    #[serde(deserialize_with = "word")]
    pub same_site: SameSite,
    /// Origins other than the request's own from which requests with cookies may come.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub origins: Vec<String>,
    /// Where accounts and sessions are kept: `sqlite:PATH` or `postgres://`; a path under the state folder where it is not given.
    #[serde(serialize_with = "shown::store")]
    pub store: Option<Secret>,
    /// Names of rate limits of the endpoints that check a password or a client's secret.
    #[serde(deserialize_with = "optional_one_or_many", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OneOrMany<String>")]
    pub rate_limits: Option<Vec<String>>,
    /// Names of rate limits of single endpoints: endpoint to names.
    #[serde(deserialize_with = "named_lists")]
    #[schemars(with = "BTreeMap<String, OneOrMany<String>>")]
    pub limits: BTreeMap<String, Vec<String>>,
    /// Other paths for its endpoints: endpoint to path.
    #[serde(deserialize_with = "named_texts")]
    pub paths: BTreeMap<String, String>,
    /// Services that it knows.
    #[serde(deserialize_with = "named_tables")]
    pub client: BTreeMap<String, ClientSection>,
    /// Whose clients are not to notice that they talk to another issuer.
    #[serde(deserialize_with = "optional_word")]
    pub compat: Option<Compat>,
}

/// `[authority.client.ID]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClientSection {
    /// What it proves itself with.
    pub secret: Option<Secret>,
    /// The roles of its tokens.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub roles: Vec<String>,
    /// The scopes that it may ask for; those it gets when it asks for none.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub scopes: Vec<String>,
    /// `aud` of its tokens, in place of the authority's own.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub audience: Vec<String>,
    /// Whether it may ask about tokens (RFC 7662), which tells it who has which roles.
    pub introspect: bool,
}

/// `[authority] same_site`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum SameSite {
    /// Sent with requests of our own pages only.
    Strict,
    /// And when a link leads here.
    Lax,
}

/// `[authority] compat`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Compat {
    /// Of an application with Flask-JWT-Extended.
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

/// `[state]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StateSection {
    /// The folder.
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
    /// How lines are written.
    #[serde(deserialize_with = "word")]
    pub format: LogFormat,
    /// Which requests get one.
    #[serde(deserialize_with = "word")]
    pub access: LogAccess,
    /// The least grave event that gets one.
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
    /// Human on a terminal, JSON elsewhere.
    Auto,
    /// For eyes.
    Human,
    /// For programs.
    Json,
}

/// `[log] access`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogAccess {
    /// Every request.
    On,
    /// None.
    Off,
    /// Those that were refused.
    Refusals,
}

/// `[log] level`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Only what stops the gateway or a part of it.
    Error,
    /// And what an operator should look at.
    Warn,
    /// And what happened.
    Info,
    /// And what helps to find a fault.
    Debug,
}

/// `[upstream.NAME]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamSection {
    /// `http://host:port` or `https://host:port`.
    #[serde(deserialize_with = "one_or_many", serialize_with = "shown::servers")]
    #[schemars(with = "OneOrMany<String>")]
    pub servers: Vec<String>,
    /// An upstream that is part of the gateway.
    #[serde(deserialize_with = "optional_word")]
    pub builtin: Option<Builtin>,
    /// For a new connection.
    pub connect_timeout: Duration,
    /// For an answer.
    pub timeout: Duration,
    /// The maximum number of connections to each server, over all cores: each core may open its share, rounded up. A
    /// request beyond it waits for a connection, within `timeout`.
    pub connections: u32,
    /// Path of the certificate authorities to trust instead of the system's, PEM.
    #[serde(deserialize_with = "optional_text")]
    pub ca: Option<String>,
    /// The key of the HMAC that proves identity to it.
    pub identity_secret: Option<Secret>,
}

impl Default for UpstreamSection {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            builtin: None,
            connect_timeout: Duration::seconds(2),
            timeout: Duration::seconds(30),
            connections: 10_000,
            ca: None,
            identity_secret: None,
        }
    }
}

/// `[upstream.NAME] builtin`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Builtin {
    /// Answers with what an upstream would have received.
    Echo,
}

/// `[rate_limit.NAME]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimitSection {
    /// `client_ip`, `subject`, `route`, `header:NAME`, `claim:PATH`.
    #[serde(deserialize_with = "text")]
    pub by: String,
    /// So many in a time.
    pub rate: Option<Rate>,
    /// So many at once; the rate's count where it is not given.
    pub burst: Option<u32>,
}

impl Default for RateLimitSection {
    fn default() -> Self {
        Self { by: "client_ip".to_owned(), rate: None, burst: None }
    }
}

/// `[identity]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IdentitySection {
    /// The header for `sub`.
    #[serde(deserialize_with = "text")]
    pub subject: String,
    /// The header for the roles.
    #[serde(deserialize_with = "text")]
    pub roles: String,
    /// The header for the scopes.
    #[serde(deserialize_with = "text")]
    pub scopes: String,
    /// The header for `iss`.
    #[serde(deserialize_with = "text")]
    pub issuer: String,
    /// Headers for other claims: name to claim path.
    #[serde(deserialize_with = "named_texts")]
    pub claims: BTreeMap<String, String>,
    /// The header for a JWT that proves the others.
    #[serde(deserialize_with = "text")]
    pub assertion: String,
    /// Whether each is made for its request alone.
    pub assertion_binds: bool,
    /// The header for an HMAC that proves the others.
    #[serde(deserialize_with = "text")]
    pub signature: String,
    /// Whether upstreams get the caller's verified token.
    pub forward_token: bool,
    /// Fields of other products that pass from a trusted proxy.
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

/// `[[route]]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteSection {
    /// In logs and metrics; the path where it is not given.
    #[serde(deserialize_with = "text")]
    pub name: String,
    /// A name, `*.name`, or (empty) any.
    #[serde(deserialize_with = "text")]
    pub host: String,
    /// Literal segments, `{parameter}`, `{*rest}`.
    #[serde(deserialize_with = "text")]
    pub path: String,
    /// Empty: all.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub methods: Vec<String>,
    /// Where to.
    #[serde(deserialize_with = "text")]
    pub upstream: String,
    /// Whether a token is needed.
    #[serde(deserialize_with = "word")]
    pub access: Access,
    /// Any of these.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub roles: Vec<String>,
    /// All of these.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub all_roles: Vec<String>,
    /// All of these.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub scopes: Vec<String>,
    /// Claim path to the value that it must have.
    pub claims: BTreeMap<String, Literal>,
    /// Names of rate limits.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub rate_limits: Vec<String>,
    /// A beginning of the path that the upstream does not see.
    #[serde(deserialize_with = "optional_text")]
    pub strip_prefix: Option<String>,
    /// Whether a public route's upstream gets the client's own `Authorization` unchanged.
    pub pass_authorization: bool,
    /// In place of the upstream's own.
    pub timeout: Option<Duration>,
    /// Whether the token must come from a login with a password, and how long ago at most.
    pub fresh: Fresh,
    /// Where a token may come from.
    pub sources: Option<Vec<TokenSource>>,
    /// What becomes of a person without a token.
    #[serde(deserialize_with = "optional_word")]
    pub login: Option<Login>,
    /// The field of a form that may carry the CSRF token.
    #[serde(deserialize_with = "optional_text")]
    pub csrf_field: Option<String>,
    /// What a refusal means here.
    #[serde(deserialize_with = "optional_word")]
    pub mode: Option<Mode>,
    /// Findings about this route that are accepted, each with the reason.
    #[serde(deserialize_with = "named_texts")]
    pub waive: BTreeMap<String, String>,
}

/// `[[test]]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TestSection {
    /// What it says, in words.
    #[serde(deserialize_with = "text")]
    pub name: String,
    /// Method and URL.
    #[serde(deserialize_with = "text", serialize_with = "shown::request")]
    pub request: String,
    /// Header fields of the request.
    #[serde(deserialize_with = "named_texts", serialize_with = "shown::headers")]
    pub headers: BTreeMap<String, String>,
    /// What the caller's token says, as if it had been verified.
    pub claims: Option<serde_json::Map<String, serde_json::Value>>,
    /// The caller's token itself.
    pub token: Option<Secret>,
    /// When the request is made, as RFC 3339 has it; now, where it is not given.
    #[serde(deserialize_with = "optional_text")]
    pub time: Option<String>,
    /// The client's address.
    #[serde(deserialize_with = "optional_text")]
    pub client: Option<String>,
    /// What is to become of it.
    #[serde(deserialize_with = "table")]
    pub expect: ExpectSection,
}

/// `[[test]] expect`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExpectSection {
    /// Whether it passes.
    pub allow: Option<bool>,
    /// The code with which it is refused.
    #[serde(deserialize_with = "optional_text")]
    pub deny: Option<String>,
    /// The status of the refusal.
    pub status: Option<u16>,
    /// The route that covers it.
    #[serde(deserialize_with = "optional_text")]
    pub route: Option<String>,
    /// The path, with its query, that the upstream gets.
    #[serde(deserialize_with = "optional_text")]
    pub path: Option<String>,
    /// Header fields that the upstream gets; an empty value: it does not get this one.
    #[serde(deserialize_with = "named_texts", serialize_with = "shown::headers")]
    pub headers: BTreeMap<String, String>,
}

/// `[[route]] login`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Login {
    /// A browser is sent to the authority's login page.
    Page,
}

/// `[[route]] access`
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Only with a good token.
    #[default]
    Authenticated,
    /// With a good token or none.
    Optional,
    /// Whoever.
    Public,
}
