//! The table `[log]`, and the tables and words in it.

use crate::config::reading::word;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[log]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// The format of log lines.
    #[serde(deserialize_with = "word")]
    pub format: LogFormat,
    /// The requests that are logged.
    #[serde(deserialize_with = "word")]
    pub access: LogAccess,
    /// The lowest level that is logged.
    #[serde(deserialize_with = "word")]
    pub level: LogLevel,
}

impl Default for LogSection {
    fn default() -> Self {
        Self { format: LogFormat::Auto, access: LogAccess::On, level: LogLevel::Info }
    }
}

/// `[log] format`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Human-readable on a terminal, JSON elsewhere.
    Auto,
    /// Human-readable text.
    Human,
    /// JSON, for programs.
    Json,
}

/// `[log] access`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogAccess {
    /// Every request.
    On,
    /// No request.
    Off,
    /// Refused requests only.
    Refusals,
}

/// `[log] level`
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Failures that stop the gateway or a part of it.
    Error,
    /// Events that an operator should look at, and errors.
    Warn,
    /// Events of normal operation, warnings and errors.
    Info,
    /// Details for debugging, and all other events.
    Debug,
}
