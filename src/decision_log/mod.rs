//! What was decided lately: the inputs of decisions, kept in memory so that another policy can be asked about them.
//!
//! Promises a bound on the memory and on the time that a request spends here, and that nothing of a token, a query, a
//! header, a body or a subject is kept. Asking another policy is `review::replay`'s business.

mod entry;
mod ring;

pub use entry::{Decision, Entry, LoggedCredential};
pub use ring::{DecisionLog, LINE_BYTES_MAX, Recorder, lines};
