//! Renders refusals as responses.
//!
//! Guarantees that a refusal has one form for each kind of client, whichever stage refused, and that no response
//! contains any part of a token. The pipeline decides when to respond.

pub(crate) mod accept;
pub(crate) mod compat;
pub(crate) mod cors;
pub(crate) mod page;
pub(crate) mod problem;

pub(crate) use accept::{Format, is_navigation, is_repeatable};
pub(crate) use page::PageLinks;
pub(crate) use problem::{refuse, refuse_with, see_other};

#[cfg(test)]
mod tests;
