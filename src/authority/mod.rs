//! The local issuer: its signing key, and the tokens made with it.
//!
//! What it issues is verified like any other issuer's. Logging in, refreshing and revoking are not there yet.

mod keyring;
mod token;

pub use keyring::{Absent, Keyring};
pub use token::{AccessClaims, mint};
