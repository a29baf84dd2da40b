//! Judges a whole policy: what an experienced reader would ask about, whether its own tests pass, whether an odd spelling
//! gets past a route, who may do what, and what another policy would change.
//!
//! Everything here asks [`crate::explain`] about requests that nobody sent; nothing here serves one.

pub mod cases;
pub mod diff;
mod lint;
pub mod listing;
pub mod matrix;
mod read;
pub mod replay;
mod sample;
pub mod settings_diff;
mod spelling;
mod trial;

pub use lint::lint;
pub use read::read;
pub use trial::{run_tests, spelling_findings, try_spellings};
