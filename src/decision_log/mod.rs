//! Keeps the inputs of recent decisions in memory. `review::replay` evaluates another policy with them.
//!
//! The memory and the time per request are bounded. Tokens, subjects, queries, header fields and bodies are not kept.
//! For a verified token, the log keeps the issuer, the roles, the scopes, the time of the login and the claims that the
//! policy uses.

mod entry;
mod ring;

pub use entry::{Decision, Entry, LoggedCredential};
pub use ring::{DecisionLog, LINE_BYTES_MAX, Recorder, lines};
