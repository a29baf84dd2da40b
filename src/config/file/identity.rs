//! The table `[identity]`.

use crate::config::reading::{OneOrMany, named_texts, one_or_many, text};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
