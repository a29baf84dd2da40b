//! Reviews a whole policy: lints, its own tests, odd spellings that bypass a route, the access matrix, and comparisons
//! with another policy.
//!
//! Everything here asks [`crate::explain`] about requests that nobody sent. Nothing here serves requests.

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
