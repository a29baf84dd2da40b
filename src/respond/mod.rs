//! Renders refusals as responses.
//!
//! Guarantees that a refusal has one form for each kind of client, whichever stage refused, and that no response
//! contains any part of a token. The pipeline decides when to respond.

pub mod accept;
pub mod compat;
pub mod cors;
pub mod page;
pub mod problem;

pub use accept::{Format, is_navigation, is_repeatable};
pub use page::PageLinks;
pub use problem::{refuse, refuse_with, see_other};

#[cfg(test)]
mod tests;
