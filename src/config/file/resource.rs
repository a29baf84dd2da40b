//! The table `[resource.NAME]`.

use crate::config::reading::{OneOrMany, one_or_many, optional_text, text};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
