//! The table `[api_keys]`.

use crate::config::reading::text;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
