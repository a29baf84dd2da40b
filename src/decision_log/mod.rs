//! Recent decisions: their inputs, kept in memory so that another policy can be tried on them (`review::replay`).
//!
//! Memory and the time that a request spends here are bounded. No part of a token, a query, a header, a body or a
//! subject is kept.

mod entry;
mod ring;

pub use entry::{Decision, Entry, LoggedCredential};
pub use ring::{DecisionLog, LINE_BYTES_MAX, Recorder, lines};
