//! The table `[signals.NAME]`, and the tables and words in it.

use crate::config::network::{Cidr, networks};
use crate::config::reading::{
    OneOrMany, one_or_many, optional_one_or_many, optional_text, optional_word, text,
};
use crate::config::secret::Secret;
use crate::config::shown;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    #[serde(deserialize_with = "optional_text", serialize_with = "shown::url")]
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
    #[serde(deserialize_with = "optional_text", serialize_with = "shown::url")]
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
    /// The meaning of a subject identifier of format `opaque`.
    #[serde(deserialize_with = "optional_word")]
    pub opaque: Option<OpaqueSubject>,
    /// Whether every access token of the issuer has the claim `sid`.
    pub has_sid: bool,
    /// Names of rate limits for the endpoints; if absent, a default limit applies.
    #[serde(deserialize_with = "optional_one_or_many", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OneOrMany<String>")]
    pub rate_limits: Option<Vec<String>>,
}

/// The meaning of an `opaque` subject identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OpaqueSubject {
    /// The subject, `sub`.
    Subject,
    /// The session, `sid`.
    Session,
}
