//! The head that the upstream receives, and the fields of its answer that the client receives.
//!
//! `outgoing` writes the head: `strip` removes the fields that must not reach the upstream, `client` and `proof` add
//! facts about the client and the caller, `edits` and `rewrite` apply the changes of the route. `reframe` cleans the
//! answer.

pub(crate) mod client;
pub(crate) mod edits;
pub(crate) mod fields;
pub(crate) mod foreign;
pub(in crate::forward) mod identity_choice;
pub(crate) mod outgoing;
pub(crate) mod pattern;
pub mod proof;
pub(in crate::forward) mod reframe;
pub(crate) mod rewrite;
pub mod strip;
