//! The table `[rule.NAME]`.

use crate::config::reading::{OneOrMany, one_or_many};
use crate::config::values::{ClaimValues, Fresh};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
