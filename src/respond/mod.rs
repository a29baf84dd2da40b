//! Renders refusals as responses. The form of a refusal depends on the client, but not on the stage that refused. No
//! response contains any part of a token.

pub(crate) mod accept;
pub(crate) mod coding;
pub(crate) mod compat;
pub(crate) mod cors;
pub(crate) mod page;
pub(crate) mod problem;
pub(crate) mod redirect;

pub use accept::Format;
pub(crate) use accept::{is_navigation, is_repeatable};
pub use coding::{Coding, negotiate};
pub(crate) use page::PageLinks;
pub(crate) use problem::{grpc_trailers, refuse, refuse_with, see_other};

#[cfg(test)]
mod tests;
