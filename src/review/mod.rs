//! Reviews a whole policy: lint, tests, spelling attack, access matrix and comparison.
//!
//! This module evaluates hypothetical requests. It does not serve requests.

pub mod cases;
pub(crate) mod diff;
mod lint;
pub(crate) mod listing;
pub(crate) mod matrix;
mod meeting;
mod read;
pub(crate) mod replay;
mod sample;
pub(crate) mod settings_diff;
mod spelling;
mod trial;

pub use lint::lint;
pub use read::read;
pub use trial::{run_tests, spelling_findings, try_spellings};
