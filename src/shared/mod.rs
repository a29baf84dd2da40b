//! The state that gateways share in Redis or Valkey: revocations, used proofs, and counts of limits and of
//! failed logins.
//!
//! Requests read the gateway's own memory. A call to Redis has a deadline, and fails at once while Redis does not answer
//! in time. Redis holds ids, digests and public keys, no token and no secret. An entry in Redis can revoke a token, but no entry
//! that is not authenticated by a secret of the gateways makes a token valid.

mod address;
mod breaker;
mod connect;
mod keeper;
mod link;
mod marks;
mod refusals;
mod replay;
mod settings;
mod start;

pub use address::Address;
pub use connect::{Connection, Node};
pub use link::{Link, Unanswered};
#[doc(hidden)]
pub use marks::read_page;
pub use marks::{Followed, FoundMark, MarkCounts, read_mark, write_mark};
pub use refusals::{Command, CommandError, Refusals};
pub use replay::{ProofCounts, ProofUse};
pub use settings::{Login, OnErrors, Servers, SharedSettings, Trusted};
