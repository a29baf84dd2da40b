//! The gateway's own requests: key sets, metadata and answers of issuers, fetched on the control thread.
//!
//! Every request has a bound on its time and on the size of the answer, follows no redirect, and connects only to
//! addresses that [`Networks`] allows. The address is checked where the connection is opened, so a name that resolves
//! to another address between a check and the connection (DNS rebinding) gains nothing.

mod address;
mod client;
mod connector;
mod error;
#[cfg(test)]
mod tests;
mod url;

pub use address::Networks;
pub use client::{Answer, Bounds, Client, Settings};
pub use error::Error;
pub use url::Url;
