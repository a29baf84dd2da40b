//! The table `[state]`.

use crate::config::reading::text;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
