//! The table `[[issuer]]`, and the tables and words in it.

use crate::config::network::{Cidr, networks};
use crate::config::reading::{OneOrMany, one_or_many, optional_table, optional_text, text, word};
use crate::config::secret::Secret;
use crate::config::shown;
use crate::config::units::{Duration, Rate};
use crate::config::values::ClaimValues;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::num::NonZeroU32;

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
    #[serde(deserialize_with = "optional_text", serialize_with = "shown::url")]
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
    /// The questions to the issuer about tokens (RFC 7662).
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
    #[serde(deserialize_with = "optional_text", serialize_with = "shown::url")]
    pub endpoint: Option<String>,
    /// The gateway's proof to the issuer that it may ask.
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
