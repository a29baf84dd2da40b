//! The table `[shared]`, and the tables and words in it.

use crate::config::reading::{OneOrMany, one_or_many, optional_text, table, text, word};
use crate::config::secret::Secret;
use crate::config::shown;
use crate::config::units::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// The time that opening a connection may take.
    pub connect_timeout: Duration,
    /// The time that a call waits for its answer.
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
