//! The configuration as the operator wrote it. gateway.toml overrides the defaults, and environment variables override
//! gateway.toml.
//!
//! Loading reports all faults at once, each with its place. Loading opens only gateway.toml. The policy compiler opens
//! the files to which gateway.toml refers.

mod digest;
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

pub use digest::PolicyDigest;
pub use load::{Loaded, load, load_text, survey, survey_text};
pub use place::Places;
pub(crate) use shown::{is_secret_field, shown_value, without_password};
