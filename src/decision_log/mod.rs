//! Keeps the inputs of recent decisions in memory, so that another policy can be tried on them (`review::replay`).
//!
//! The memory and the time per request are bounded. Tokens, subjects, queries, header fields and bodies are not kept.
//! Of a verified token, only the issuer, the roles, the scopes, the time of the login and the claims that the policy
//! uses are kept.

mod entry;
mod ring;

pub use entry::{Decision, Entry, LoggedCredential};
pub use ring::{DecisionLog, LINE_BYTES_MAX, Recorder, lines};
