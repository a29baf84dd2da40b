//! The table `[cors.NAME]`.

use crate::config::reading::{OneOrMany, one_or_many};
use crate::config::units::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[cors.NAME]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CorsSection {
    /// The origins whose scripts may read the answers.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub origins: Vec<String>,
    /// The methods that scripts may use; if empty, the methods of the route.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub methods: Vec<String>,
    /// The request header fields that scripts may set.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub headers: Vec<String>,
    /// The header fields of answers that scripts may read, in addition to those of the gateway.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany<String>")]
    pub expose: Vec<String>,
    /// Whether requests may carry cookies.
    pub credentials: bool,
    /// The time that a browser may cache the answer to a preflight.
    pub max_age: Duration,
    /// Whether a page of a public network may call the route in a private network.
    pub private_network: bool,
}

impl Default for CorsSection {
    fn default() -> Self {
        Self {
            origins: Vec::new(),
            methods: Vec::new(),
            headers: vec!["authorization".to_owned(), "content-type".to_owned()],
            expose: Vec::new(),
            credentials: false,
            max_age: Duration::seconds(600),
            private_network: false,
        }
    }
}
