//! The configuration as the operator wrote it. Values in gateway.toml override the built-in defaults, and environment
//! variables override both.
//!
//! Loading the configuration reports all of its faults at once, each with its place. It opens no file other than
//! gateway.toml; the policy compiler resolves references to other files.

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
pub mod requirements;
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
