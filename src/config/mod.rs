//! The configuration as the operator wrote it: built-in defaults, overridden by gateway.toml, overridden by the
//! environment.
//!
//! One reading finds all faults, each with its place. It opens no other file: the policy compiler resolves references.

pub(crate) mod effective;
mod environment;
pub mod file;
mod known;
mod layer;
mod load;
pub(crate) mod network;
pub mod place;
mod reading;
#[cfg(test)]
mod reference;
pub(crate) mod schema;
pub mod secret;
mod shown;
pub(crate) mod stable_file;
mod syntax;
#[cfg(test)]
mod tests;
mod typed;
pub mod units;
pub mod values;

pub use load::{Loaded, load, load_text, survey, survey_text};
pub use place::Places;
