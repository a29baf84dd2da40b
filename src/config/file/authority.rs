//! The table `[authority]`, and the tables and words in it.

use crate::config::reading::{
    OneOrMany, named_lists, named_tables, named_texts, one_or_many, optional_one_or_many, optional_text,
    optional_word, text, word,
};
use crate::config::secret::Secret;
use crate::config::shown;
use crate::config::units::Duration;
use crate::config::values::RoleLimit;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
    /// The time after the first use of a refresh token during which it still returns the same successor.
    pub refresh_grace: Duration,
    /// Maximum duration of a session, however often it is refreshed.
    pub session_expires: Duration,
    /// Maximum number of sessions of an account; beyond it, a new session ends the oldest.
    pub sessions: u32,
    /// Maximum number of roles in a token.
    pub role_limit: RoleLimit,
    /// The `client_id` claim of tokens that belong to accounts, which RFC 9068 requires.
    #[serde(deserialize_with = "optional_text")]
    pub client_id: Option<String>,
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
            client_id: None,
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
