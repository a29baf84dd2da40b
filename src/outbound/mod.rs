//! Sends the gateway's own requests, which fetch key sets, metadata and other answers of issuers. They are sent on the
//! control thread.
//!
//! Each request has bounds on its time and on the size of its answer. Redirects are not followed. The gateway connects
//! only to addresses that [`Networks`] allows. The connection is opened to an address that was checked, and the name is
//! not resolved again, so a name that changes its address in the meantime (DNS rebinding) does not bypass the check.

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
pub(crate) use error::quoted;
pub use url::Url;
