//! The local issuer: its signing keys, and the tokens made with it.
//!
//! What it issues is verified like any other issuer's. Logging in, refreshing and revoking are not there yet.

mod keyring;
mod token;

pub use keyring::{
    Absent, Begin, Event, JWKS_MAX_AGE, KEPT, KeyState, Keyring, LEAD, LEEWAY, Listed, Rotated, Schedule,
    SigningKey, Watcher,
};
pub use token::{AccessClaims, mint};
