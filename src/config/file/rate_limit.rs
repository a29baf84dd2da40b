//! The table `[rate_limit.NAME]`.

use crate::config::reading::{optional_text, text};
use crate::config::units::Rate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `[rate_limit.NAME]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimitSection {
    /// The property by which requests are counted: `client_ip`, `subject`, `route`, `header:NAME` or `claim:PATH`.
    #[serde(deserialize_with = "text")]
    pub by: String,
    /// The sustained rate.
    pub rate: Option<Rate>,
    /// Number of requests allowed at once; if absent, the number in `rate`.
    pub burst: Option<u32>,
    /// The claim path whose value selects one of `rates`.
    #[serde(deserialize_with = "optional_text")]
    pub rate_claim: Option<String>,
    /// Other rates, as a map from the value of the claim to the rate.
    pub rates: BTreeMap<String, Rate>,
    /// Whether all gateways count together; if absent, they do if there is a `[shared]`.
    pub shared: Option<bool>,
    /// Whether each request asks the shared state, and waits for the answer.
    pub exact: bool,
}

impl Default for RateLimitSection {
    fn default() -> Self {
        Self {
            by: "client_ip".to_owned(),
            rate: None,
            burst: None,
            rate_claim: None,
            rates: BTreeMap::new(),
            shared: None,
            exact: false,
        }
    }
}
