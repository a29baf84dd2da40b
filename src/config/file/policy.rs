//! The table `[policy]`, and the tables and words in it.

use crate::config::reading::{OneOrMany, named_texts, one_or_many, optional_text, word};
use crate::config::values::TokenSource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `[policy]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PolicySection {
    /// The version of the policy, for people who compare the gateways of a fleet.
    #[serde(deserialize_with = "optional_text")]
    pub version: Option<String>,
    /// The mode of routes that do not set their own.
    #[serde(deserialize_with = "word")]
    pub mode: Mode,
    /// Whether a failing test prevents a start or a reload.
    #[serde(deserialize_with = "word")]
    pub tests: Tests,
    /// The places where a request may carry its token, on routes that do not set their own sources.
    pub sources: Option<Vec<TokenSource>>,
    /// Other origins whose pages may send requests with a cookie of another program. The origin of the requested URL is
    /// always accepted.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub origins: Vec<String>,
    /// Number of recent decisions to keep; 0 keeps none.
    pub decisions: usize,
    /// The security headers of answers, on routes that do not set their own.
    #[serde(deserialize_with = "word")]
    pub security_headers: SecurityHeaders,
    /// Findings that are waived in the whole file, as a map from id to reason.
    #[serde(deserialize_with = "named_texts")]
    pub waive: BTreeMap<String, String>,
}

impl Default for PolicySection {
    fn default() -> Self {
        Self {
            version: None,
            mode: Mode::Enforce,
            tests: Tests::Enforce,
            sources: None,
            origins: Vec::new(),
            decisions: 1000,
            security_headers: SecurityHeaders::Off,
            waive: BTreeMap::new(),
        }
    }
}

/// `[policy] mode`, `[[route]] mode`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Refuses requests that the policy does not allow.
    Enforce,
    /// Serves requests even if the policy refuses them, and logs and counts each refusal.
    Shadow,
}

/// `[policy] security_headers`, `[[route]] security_headers`
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum SecurityHeaders {
    /// Adds none.
    #[default]
    Off,
    /// Adds those that the answer of the upstream lacks.
    Add,
    /// Replaces those of the upstream.
    Force,
}

/// `[policy] tests`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Tests {
    /// Does not serve a policy whose tests fail.
    Enforce,
    /// Serves a policy whose tests fail, with a warning.
    Warn,
}
