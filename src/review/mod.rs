//! Reviews a whole policy: lints it, runs its tests, finds odd spellings that bypass a route, builds the access matrix,
//! and compares the policy with another policy.
//!
//! This module uses [`crate::explain`] to evaluate hypothetical requests. It does not serve requests.

pub mod cases;
pub(crate) mod diff;
mod lint;
pub(crate) mod listing;
pub(crate) mod matrix;
mod read;
pub(crate) mod replay;
mod sample;
pub(crate) mod settings_diff;
mod spelling;
mod trial;

pub use lint::lint;
pub use read::read;
pub use trial::{run_tests, spelling_findings, try_spellings};
