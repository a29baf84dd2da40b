//! The table `[dpop]`, and the tables and words in it.

use crate::config::reading::word;
use crate::config::secret::Secret;
use crate::config::units::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[dpop]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DpopSection {
    /// Whether each proof must contain a nonce of the gateway.
    #[serde(deserialize_with = "word")]
    pub nonce: DpopNonce,
    /// The secret that authenticates the nonces; if absent, each process creates its own.
    pub nonce_secret: Option<Secret>,
    /// A further secret whose nonces are accepted, while the secret is being replaced.
    pub previous_nonce_secret: Option<Secret>,
    /// The time that a proof or a nonce can be used.
    pub window: Duration,
    /// The maximum number of remembered proofs.
    pub replay_entries: usize,
    /// Whether challenges for bearer tokens also offer DPoP.
    pub announce: bool,
}

impl Default for DpopSection {
    fn default() -> Self {
        Self {
            nonce: DpopNonce::Optional,
            nonce_secret: None,
            previous_nonce_secret: None,
            window: Duration::seconds(60),
            replay_entries: 1_000_000,
            announce: false,
        }
    }
}

/// `[dpop] nonce`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum DpopNonce {
    /// A proof with a recent `iat` needs no nonce.
    Optional,
    /// Each proof must contain a nonce.
    Required,
}
