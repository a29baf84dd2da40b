//! What the operator wrote: built-in defaults, then gateway.toml, then the environment.
//!
//! All faults of a file are found in one reading, each with its place. Nothing outside the text is touched: what a
//! key refers to is for the compiler of the policy to find.

pub mod effective;
mod environment;
pub mod file;
mod known;
mod layer;
mod load;
pub mod network;
pub mod place;
mod reading;
#[cfg(test)]
mod reference;
pub mod schema;
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
